"""How many videos and seeds it takes to decide a part of a claim, if the difference is the one that was measured.

The interval of :mod:`~nl_lightning.report.uncertainty`, foreseen: with `S` seeds and `V` videos its variance is the
seed noise over `S`, plus the share of videos that two networks split on over `V`. More seeds don't replace videos:
what stays from seed to seed isn't averaged away, and all of the disagreement is taken to stay, the safe side.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median

from nl_lightning.errors import UserError
from nl_lightning.report.claim_words import pair_names, part_name
from nl_lightning.report.collate import Runs
from nl_lightning.report.comparisons import ASSUMED_DISAGREEMENT, ENOUGH_SEEDS, Comparison, compare
from nl_lightning.report.uncertainty import LEVEL, Interval, half_width, noise_size
from nl_lightning.report.words import Column, gain_form, number, of_rows
from nl_lightning.study.checks import Share
from nl_lightning.study.study import Study

POWER = 0.8  # of a claim as a whole: the usual promise
MOST_SEEDS = 100
SEED_NOISE = 0.3  # points; as far as the authors' own re-runs are from the paper's accuracies


@dataclass(frozen=True)
class Plan:
    """Comparisons to decide, and what is assumed of them.

    Attributes:
        videos: that each is judged on: those of a group, where a part is judged on one.
        disagreement: percent of them on which just one of two is right; of a soft score, what is as noisy.
        seed_noise: standard deviation of a difference over seeds, in points.
        said: the assumptions, and where they come from, for people.
    """

    videos: tuple[int, ...]
    disagreement: float
    seed_noise: float
    said: str
    comparisons: tuple[Comparison, ...]


def videos_needed(slack: float, disagreement: float, alpha: float = 1 - LEVEL, power: float = POWER) -> int | None:
    """Test videos for a difference `slack` points beyond what is claimed, of two networks that split on so many %."""
    if slack <= 0:
        return None
    reach = half_width(alpha / 2, 0.0, 1.0, 1) + half_width(1 - power, 0.0, 1.0, 1)
    return max(1, math.ceil(100 * disagreement * (reach / slack) ** 2))


def seeds_needed(
    slack: float, seed_noise: float, disagreement: float, videos: int, alpha: float = 1 - LEVEL, power: float = POWER
) -> int | None:
    """Seeds, three at least, for the same on so many videos, if the difference varies by `seed_noise` over seeds."""
    video_se = math.sqrt(100 * disagreement / videos)
    for seeds in range(ENOUGH_SEEDS, MOST_SEEDS + 1):
        seed_se = seed_noise / math.sqrt(seeds)
        if sum(half_width(tail, seed_se, video_se, seeds) for tail in (alpha / 2, 1 - power)) <= slack > 0:
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
    comparisons = [one for one in compare(runs) if not one.check.cost and not one.check.curve]
    if not comparisons:
        raise UserError(f"{study.path}: no claim compares accuracies: there is nothing to decide")
    known = [one.difference.videos for one in comparisons if one.difference is not None]
    tested = videos or max(known, default=study.reported_videos)
    if not tested:
        raise UserError(f"{study.path}: how many test videos? Say --videos N: neither records nor reported_videos do")
    pairs = [c.difference for c in comparisons if c.difference is not None and c.than and not c.check.over]
    # Of numbers a video, the disagreement that would make as much noise.
    split = [
        one.video_se**2 * one.videos / 100 if one.disagreement is None and one.bounded else one.disagreement
        for one in pairs
    ]
    counts = [one.difference.videos if one.difference and not videos else tested for one in comparisons]
    videos_said = " to ".join(f"{count:,}" for count in sorted({min(counts), max(counts)}))
    splits, splits_from = _first(disagreement, split, ASSUMED_DISAGREEMENT)
    varies, varies_from = _first(seed_noise, [one.std for one in pairs], SEED_NOISE)
    said = (
        f"To decide a part of a claim in {POWER:.0%} of studies, if the effects are those shown: measured here or, "
        f"marked *, reported on {study.reported_on or 'other data'}. "
        f"Two networks {'differ as if they split' if runs.soft and disagreement is None else 'split'} on {splits:.1f} "
        f"% of the videos ({splits_from}); a difference varies by {varies:.2f} points from seed to seed "
        f"({varies_from}). Videos: for networks that are trained, with one seed. Seeds: for such networks in "
        f"general, on {videos_said} videos. Never: the effect that is shown is not what is claimed."
    )
    return Plan(tuple(counts), splits, varies, said, tuple(comparisons))


def _first(given: float | None, recorded: Sequence[float | None], assumed: float) -> tuple[float, str]:
    found = [value for value in recorded if value]  # networks that never differ say nothing of what others would
    if given is not None:
        return given, "given"
    return (float(median(found)), "median of the records") if found else (assumed, "assumed, as on Kinetics")


def power_columns(study: Study, plan: Plan) -> list[Column]:
    """A line a part of a claim: its hardest comparison, and what that takes, such that the part is decided.

    Effects that aren't measured are the reported ones. Videos: for two networks that are trained, with one seed. Seeds:
    for such networks in general, on the videos that there are.
    """
    hardest: dict[tuple[str, str], tuple[float, list[str]]] = {}
    family = len({(one.claim.name, id(one.part)) for one in plan.comparisons})
    for one, videos in zip(plan.comparisons, plan.videos, strict=True):
        name, need = (one.claim.name, part_name(one)), _need(study, plan, one, videos, family)
        hardest[name] = max(hardest.get(name, need), need, key=lambda each: each[0])
    rows = [[" ".join(name), *cells] for name, (_, cells) in hardest.items()]
    return of_rows(["part", "hardest comparison", "effect", "videos", "seeds"], rows, labels=2)


def _need(study: Study, plan: Plan, comparison: Comparison, videos: int, family: int) -> tuple[float, list[str]]:
    """How hard a comparison is, and what it takes, such that its part as a whole is decided in 80 % of studies.

    That is a stricter level for each of the `family` of parts (Holm's first step), and a higher power for each
    comparison of a part. A margin that is a share of an effect brings the effect's noise with it.
    """
    check, margin, pair = comparison.check, comparison.check.margin, pair_names(comparison, study)
    effect, bounds = comparison.measured, comparison.claimed
    gain = comparison.effect.mean if comparison.effect else math.inf  # what the margin is a share of
    unknown = math.inf, [pair, "", "", ""]
    if effect is None:
        effect = comparison.reported
        if isinstance(margin, Share):
            if (reported := study.reported_gain(*margin.of)) is None:
                return unknown
            gain = reported
            edge = margin.share * gain
            bounds = Interval(edge, math.inf) if check.within is None else Interval(-edge, edge)
    if effect is None or bounds is None:
        return unknown
    alpha = (1 - LEVEL) / max(1, len(study.looks)) / family
    # One-sided tests that have to succeed for the part to hold.
    tests = sum(len(one.pairs()) * (1 if one.within is None else 2) for one in comparison.part.checks if not one.cost)
    power = 1 - (1 - POWER) / tests
    slack = round(min(effect - bounds.low, bounds.high - effect), 6)  # how far it is from the edge of what is claimed
    size = max(noise_size(list(weights.values())) for weights in comparison.edge_weights)
    noise = plan.disagreement * size**2
    if check.against is not None:  # nothing is paired: the noise is that of one accuracy
        score = effect + check.against
        noise = score * (100 - score) / 100
    ways = [(slack, size, noise)]
    if isinstance(margin, Share):  # of something that has to be there
        ways.append((gain, 1.0, plan.disagreement))
    videos_each = [videos_needed(slack, noise, alpha, power) for slack, _, noise in ways]
    seeds_each = [
        seeds_needed(slack, plan.seed_noise * size, noise, videos, alpha, power) for slack, size, noise in ways
    ]
    enough, seeds = (None if None in each else max(filter(None, each)) for each in (videos_each, seeds_each))
    shown = number(effect, gain_form(study.metric)) + ("*" if comparison.measured is None else "")
    amounts = [f"{enough:,}" if enough else "never", str(seeds or f"> {MOST_SEEDS}")]
    return enough or 1e300, [pair, shown, *amounts]  # hardest is one that no number of videos decides
