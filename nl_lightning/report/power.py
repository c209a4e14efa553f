"""How many videos and seeds it takes to decide a claim, if the difference is the reported one.

The interval of :mod:`~nl_lightning.report.uncertainty`, foreseen: with `S` seeds and `V` videos its variance is the
seed noise over `S`, plus the share of videos that two networks split on over `V`. More seeds don't replace videos:
what stays from seed to seed isn't averaged away, and all of the disagreement is taken to stay, the safe side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from nl_lightning.errors import UserError
from nl_lightning.report.claims import ASSUMED_DISAGREEMENT, Comparison, compare
from nl_lightning.report.collate import Runs
from nl_lightning.report.uncertainty import LEVEL, half_width
from nl_lightning.report.words import GAIN, Column, called, number, of_rows
from nl_lightning.study.study import Check, Study

POWER = 0.8  # of a claim as a whole: the usual promise
MOST_SEEDS = 100
SEED_NOISE = 0.3  # points; as far as the authors' own re-runs are from the paper's accuracies


@dataclass(frozen=True)
class Noise:
    """What a plan has to assume of two networks, and for people, where that comes from.

    Attributes:
        disagreement: percent of the videos on which just one of them is right.
        seed: standard deviation of their difference over seeds, in points.
    """

    disagreement: float
    disagreement_from: str
    seed: float
    seed_from: str


@dataclass(frozen=True)
class Need:
    """What it takes to decide one comparison.

    Attributes:
        slack: how far the reported difference is from the edge of what is claimed, in points; None: not reported.
        videos: to decide it for two networks that are trained, one seed; None: no number does.
        seeds: to decide it for such networks, on the videos that there are; None: no number of seeds up to 100 does.
    """

    comparison: Comparison
    slack: float | None
    videos: int | None = None
    seeds: int | None = None

    @property
    def hardness(self) -> float:
        """An unreported difference is hardest, then one that no number of videos decides."""
        return math.inf if self.slack is None else self.videos or 1e300


@dataclass(frozen=True)
class Plan:
    """What every comparison of a study takes, under which noise, and on how many test videos."""

    noise: Noise
    videos: int
    needs: tuple[Need, ...]

    @property
    def said(self) -> str:
        """The assumptions, for people."""
        noise = self.noise
        return (
            f"To decide a claim in {POWER:.0%} of studies, if the differences are the reported ones. Two networks "
            f"split on {noise.disagreement:.1f} % of the videos ({noise.disagreement_from}); a difference varies by "
            f"{noise.seed:.2f} points from seed to seed ({noise.seed_from}). Videos: for networks that are trained, "
            f"with one seed. Seeds: for such networks in general, on {self.videos:,} videos."
        )


def videos_needed(slack: float, disagreement: float, alpha: float = 1 - LEVEL, power: float = POWER) -> int | None:
    """Test videos for a difference `slack` points beyond what is claimed, of two networks that split on so many %."""
    if slack <= 0:
        return None
    reach = half_width(alpha / 2, 0.0, 1.0, 1) + half_width(1 - power, 0.0, 1.0, 1)
    return max(1, math.ceil(100 * disagreement * (reach / slack) ** 2))


def seeds_needed(
    slack: float, seed_noise: float, disagreement: float, videos: int, alpha: float = 1 - LEVEL, power: float = POWER
) -> int | None:
    """Seeds, two at least, for the same on so many videos, if the difference varies by `seed_noise` over seeds."""
    video_se = math.sqrt(100 * disagreement / videos)
    for seeds in range(2, MOST_SEEDS + 1):
        seed_se = seed_noise / math.sqrt(seeds)
        if sum(half_width(tail, seed_se, video_se, seeds) for tail in (alpha / 2, 1 - power)) <= slack:
            return seeds
    return None


def plan_of(runs: Runs, videos: int | None, disagreement: float | None, seed_noise: float | None) -> Plan:
    """What is given; else what the records of the compared variants show; else what is usual on Kinetics.

    UserError if the study has nothing to decide, compares by something else than accuracy, or nobody says how many
    videos there are.
    """
    study = runs.study
    if not study.metric.counts_videos:
        raise UserError(f"{study.path}: networks are compared by {study.metric.name}, whose noise can't be foreseen")
    comparisons = [comparison for comparison in compare(runs) if not comparison.check.cost]
    if not comparisons:
        raise UserError(f"{study.path}: no claim compares accuracies: there is nothing to decide")
    known = [c.difference for c in comparisons if c.difference is not None]
    tested = videos or (known[0].videos if known else study.reported_videos)
    if not tested:
        raise UserError(f"{study.path}: how many test videos? Say --videos N: neither records nor reported_videos do")
    noise = Noise(
        *_first(disagreement, [d.disagreement for d in known], ASSUMED_DISAGREEMENT),
        *_first(seed_noise, [d.std for d in known], SEED_NOISE),
    )
    return Plan(noise, tested, tuple(_need(study, comparison, noise, tested) for comparison in comparisons))


def _first(given: float | None, recorded: Sequence[float | None], assumed: float) -> tuple[float, str]:
    found = [value for value in recorded if value is not None]
    if given is not None:
        return given, "given"
    return (float(median(found)), "median of the records") if found else (assumed, "assumed")


def _need(study: Study, comparison: Comparison, noise: Noise, videos: int) -> Need:
    """What a comparison takes, such that its claim as a whole is decided in 80 % of studies.

    That is a stricter level for each claim of a sub-table (Holm's first step), and a higher power for each comparison
    of a claim.
    """
    check, claim = comparison.check, comparison.claim
    if comparison.reported is None:
        return Need(comparison, None)
    alpha = (1 - LEVEL) / sum(other.table == claim.table and bool(other.checks) for other in study.claims)
    power = 1 - (1 - POWER) / sum(_tests(one) for one in claim.checks)
    gained = comparison.reported - check.by if check.within is None else check.within - abs(comparison.reported)
    slack = round(gained, 6)
    enough = videos_needed(slack, noise.disagreement, alpha, power)
    return Need(comparison, slack, enough, seeds_needed(slack, noise.seed, noise.disagreement, videos, alpha, power))


def _tests(check: Check) -> int:
    """One-sided tests that have to succeed for a check to hold."""
    return 0 if check.cost else len(check.pairs()) * (2 if check.within is not None else 1)


def power_columns(study: Study, plan: Plan) -> list[Column]:
    """A line a claim: its hardest comparison, and what that takes."""
    hardest: dict[str, Need] = {}
    for need in plan.needs:
        name = need.comparison.claim.name
        hardest[name] = max(hardest.get(name, need), need, key=lambda one: one.hardness)
    rows = []
    for name, need in hardest.items():
        of = need.comparison
        pair = " - ".join(called(study, variant, of.claim.table) for variant in (of.variant, of.than))
        amounts = [f"{need.videos:,}" if need.videos else "never", str(need.seeds or f"> {MOST_SEEDS}")]
        rows.append([name, pair, number(of.reported, GAIN), *(amounts if need.slack is not None else ["", ""])])
    return of_rows(["claim", "hardest comparison", "reported", "videos", "seeds"], rows, labels=2)
