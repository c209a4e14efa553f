"""How often the report's intervals and verdicts are right, by simulation: ``python -m benchmarks.coverage``.

Writes the tables of ``docs/uncertainty.md`` between its marks (a few minutes). Each study is simulated with a known
difference: a video has a difficulty, which all networks share, and one of its own for each network; a training has
luck, its seed's; the rest is drawn anew for every network, seed and video.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.special import ndtr

from nl_lightning.report.claims import Comparison, judge
from nl_lightning.report.power import seeds_needed
from nl_lightning.report.render import markdown_table
from nl_lightning.report.uncertainty import LEVEL, Difference, paired, unpaired
from nl_lightning.report.words import of_rows
from nl_lightning.study.study import Check, Claim, Study

PAGE = Path(__file__).parent.parent / "docs" / "uncertainty.md"
START, END = "<!-- coverage:start -->", "<!-- coverage:end -->"


@dataclass(frozen=True)
class World:
    """How networks come about. Standard deviations are on the scale of a video's remaining chance, which is 1.

    Attributes:
        abilities: of the networks, on that scale.
        difficulty: how much videos differ, for all networks alike: what makes pairing worth while.
        taste: how much a video suits one network more than another, under every seed.
        luck: how much one training is better than another of the same network.
    """

    abilities: tuple[float, ...]
    difficulty: float = 2.5
    taste: float = 0.2
    luck: float = 0.0

    def accuracy(self, network: int, luck: float = 0.0) -> float:
        """Expected accuracy, in percent, over all videos and trainings."""
        spread = np.sqrt(1 + self.difficulty**2 + self.taste**2 + (0 if luck else self.luck**2))
        return 100 * float(ndtr((self.abilities[network] + luck) / spread))

    def test(self, seeds: int, videos: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Which videos are right (networks, seeds, videos), and the luck of each training (networks, seeds)."""
        networks = len(self.abilities)
        luck = generator.normal(0, self.luck, (networks, seeds)) if self.luck else np.zeros((networks, seeds))
        chance = generator.standard_normal((networks, seeds, videos), np.float32)
        chance += self.difficulty * generator.standard_normal(videos, np.float32)
        chance += self.taste * generator.standard_normal((networks, 1, videos), np.float32)
        chance += luck[..., None] + np.array(self.abilities)[:, None, None]
        return chance > 0, luck

    def truth(self, first: int, second: int, luck: np.ndarray | None = None) -> float:
        """The difference that an interval should cover, in points.

        Of all trainings; or of the networks whose `luck` is given, when nothing is known of others.
        """
        if luck is None or not self.luck:
            return self.accuracy(first) - self.accuracy(second)
        of = [np.mean([self.accuracy(network, float(x)) for x in luck[network]]) for network in (first, second)]
        return float(of[0] - of[1])


Interval = Callable[[np.ndarray, np.ndarray], tuple[float, float]]


def bootstrap(
    first: np.ndarray,
    second: np.ndarray,
    generator: np.random.Generator,
    draws: int = 2000,
    level: float = LEVEL,
) -> tuple[float, float]:
    """The hierarchical bootstrap's percentile interval of the difference, in points: seeds are drawn, then videos.

    For comparison: the report doesn't use it (see the top of :mod:`nl_lightning.report.uncertainty`). Both arrays say
    which videos are right: (seeds, videos).
    """
    signs = first.astype(np.int8) - second
    seeds, videos = signs.shape
    means = np.empty(draws)
    for i in range(draws):
        by_video = signs[generator.integers(seeds, size=seeds)].sum(axis=0)
        means[i] = by_video[generator.integers(videos, size=videos)].sum()
    low, high = np.quantile(100 * means / (seeds * videos), [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def covered(
    interval: Interval, world: World, seeds: int, videos: int, studies: int, generator: np.random.Generator
) -> float:
    """The share of simulated studies, in percent, whose interval has the true difference of the first two networks."""
    hits = 0
    for _ in range(studies):
        right, luck = world.test(seeds, videos, generator)
        low, high = interval(right[0], right[1])
        hits += low <= world.truth(0, 1, luck if seeds == 1 else None) <= high
    return 100 * hits / studies


def verdicts(
    world: World,
    checks: Sequence[Check],
    seeds: int,
    videos: int,
    studies: int,
    generator: np.random.Generator,
) -> list[list[str]]:
    """The verdicts on the claims of a sub-table, a claim a check, in each simulated study. Variants are "0", "1"..."""
    claims = tuple(Claim(str(i), f"Claim {i}.", "t", (check,)) for i, check in enumerate(checks))
    study = Study("simulated", "Simulated", Path(), "none", {}, {}, claims)
    found = []
    for _ in range(studies):
        right, _luck = world.test(seeds, videos, generator)

        def difference(variant: str, than: str, right: np.ndarray = right) -> Difference:
            return paired(right[int(variant)], right[int(than)])

        comparisons = [
            Comparison(claim, check, variant, than, None, difference(variant, than))
            for claim in claims
            for check in claim.checks
            for variant, than in check.pairs()
        ]
        found.append([verdict.word for verdict in judge(study, comparisons)])
    return found


def ability(world: World, gain: float) -> float:
    """The ability that is `gain` points better than the first network's."""
    low, high = world.abilities[0] - 5, world.abilities[0] + 5
    for _ in range(60):
        middle = (low + high) / 2
        reached = World((middle,), world.difficulty, world.taste, world.luck).accuracy(0)
        low, high = (middle, high) if reached < world.accuracy(0) + gain else (low, middle)
    return low


def networks(gains: Sequence[float], **settings: float) -> World:
    """A first network that is right on 72 % or so of the videos, and others that are better by so many points."""
    first = World((1.5,), **settings)
    return World((1.5, *(ability(first, gain) for gain in gains)), **settings)


# ----------------------------------------------------------------------------------------------------- the page

LUCK = {"none": 0.0, "0.6 points": 0.05, "2.5 points": 0.2}  # of one accuracy, as a standard deviation over seeds


def coverage_table(studies: int, generator: np.random.Generator) -> str:
    def ours(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
        return paired(second, first).interval()

    rows = []
    for seeds in (1, 2, 3, 5, 10):
        for videos in (600, 2000):
            found = [
                covered(lambda a, b: ours(b, a), networks([2.0], luck=luck), seeds, videos, studies, generator)
                for luck in LUCK.values()
            ]
            rows.append([f"{seeds}", f"{videos}", *(f"{share:.1f}" for share in found)])
    return markdown_table(of_rows(["seeds", "videos", *(f"seed noise {name}" for name in LUCK)], rows, labels=0))


def alternatives_table(studies: int, generator: np.random.Generator) -> str:
    draws = np.random.default_rng(1)

    def resampled(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
        return bootstrap(first, second, draws, draws=400)

    def accuracies(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
        return unpaired(100 * first.mean(axis=1), 100 * second.mean(axis=1), first.shape[1]).interval()

    little, much = networks([2.0], luck=0.05), networks([2.0], luck=0.2)
    ways = ((resampled, little), (resampled, much), (accuracies, little), (accuracies, much))
    rows = []
    for seeds in (1, 2, 3, 5, 10):
        shares = [covered(way, world, seeds, 600, studies, generator) for way, world in ways]
        rows.append([f"{seeds}", *(f"{share:.1f}" for share in shares)])
    header = [f"{way}, seed noise {noise}" for way in ("bootstrap", "accuracies") for noise in (0.6, 2.5)]
    return markdown_table(of_rows(["seeds", *header], rows, labels=0))


def errors_table(studies: int, generator: np.random.Generator) -> str:
    better, alike = Check("better", ("1", "0")), Check("alike", ("0", "1"), within=1.0)
    alone: list[tuple[str, Check, float, str]] = [
        ("better, no difference", better, 0.0, "holds"),
        ("better, no difference", better, 0.0, "fails"),
        ("better by 1, better by 1 exactly", Check("better", ("1", "0"), by=1.0), 1.0, "holds"),
        ("better, better by 0.2", better, 0.2, "fails"),
        ("alike within 1, apart by 1 exactly", alike, 1.0, "holds"),
        ("alike within 1, apart by 1 exactly", alike, 1.0, "fails"),
    ]
    rows = []
    for name, check, gain, word in alone:
        row = [name, word]
        for seeds, videos, luck in ((1, 2000, 0.0), (3, 2000, 0.02), (5, 2000, 0.05)):
            found = verdicts(networks([gain], luck=luck), [check], seeds, videos, studies, generator)
            row.append(f"{100 * np.mean([words[0] == word for words in found]):.1f}")
        rows.append(row)
    family = [Check("better", (str(i), "0")) for i in range(1, 5)]
    row = ["any of four like the first, on one baseline", "holds or fails"]
    for seeds, videos, luck in ((1, 2000, 0.0), (3, 2000, 0.02), (5, 2000, 0.05)):
        found = verdicts(networks([0.0] * 4, luck=luck), family, seeds, videos, studies, generator)
        row.append(f"{100 * np.mean([set(words) != {'undecided'} for words in found]):.1f}")
    rows.append(row)
    header = ["claimed, and true", "verdict", "1 seed", "3 seeds, noise 0.25", "5 seeds, noise 0.6"]
    return markdown_table(of_rows(header, rows, labels=2))


def power_table(studies: int, generator: np.random.Generator) -> str:
    """Whether as many seeds as ``nl-lightning power`` asks for decide a claim as often as it promises."""
    rows = []
    for gain, videos, luck in ((4.0, 2000, 0.05), (2.0, 6000, 0.05), (1.0, 20000, 0.02)):
        world = networks([gain], luck=luck)
        noise, disagreement = _noise(world, videos, generator)
        seeds = seeds_needed(gain, noise, disagreement, videos)
        assert seeds is not None
        found = verdicts(world, [Check("better", ("1", "0"))], seeds, videos, studies, generator)
        share = 100 * np.mean([words == ["holds"] for words in found])
        rows.append([f"+{gain:g}", f"{videos}", f"{noise:.2f}", f"{disagreement:.0f} %", f"{seeds}", f"{share:.0f}"])
    header = ["true gain", "videos", "seed noise of the difference", "disagreement", "seeds asked for", "decided, %"]
    return markdown_table(of_rows(header, rows, labels=0))


def _noise(world: World, videos: int, generator: np.random.Generator) -> tuple[float, float]:
    """Standard deviation of the difference over seeds, in points, and percent of videos that two networks split on."""
    differences = [world.truth(1, 0, generator.normal(0, world.luck, (2, 1))) for _ in range(4000)]
    right, _ = world.test(1, 20 * videos, generator)
    return float(np.std(differences)), 100 * float(np.mean(right[0] != right[1]))


def page(studies: int = 2000, seed: int = 0) -> str:
    """The tables as Markdown."""
    first, second, third, fourth = (np.random.default_rng(child) for child in np.random.SeedSequence(seed).spawn(4))
    return "\n\n".join(
        [
            f"How many of {studies} simulated studies have the true difference within their 95 % interval, in percent "
            "(with one seed: the true difference of the two networks that were trained). Chance moves these figures by "
            "±1.",
            coverage_table(studies, first),
            f"The same for 600 videos and {studies // 4} studies by two other ways: the hierarchical bootstrap, and "
            "from the accuracies alone, the fallback where it isn't known which videos were right.",
            alternatives_table(studies // 4, second),
            f"How many of {studies} sub-tables get a wrong verdict, in percent, where it is hardest to avoid: at the "
            "edge of what is claimed. At most 2.5 is promised for a claim alone, and 5 for a sub-table; chance moves "
            "the figures by ±0.7.",
            errors_table(studies, third),
            "`nl-lightning power` asks for as many seeds as decide a claim in 80 % of studies; how many of "
            f"{studies // 4} did. Where much of what two networks split on is luck, it asks for more than would do.",
            power_table(studies // 4, fourth),
        ]
    )


def main() -> int:
    text = PAGE.read_text(encoding="utf-8")
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    PAGE.write_text(f"{before}{START}\n{page()}\n{END}{after}", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
