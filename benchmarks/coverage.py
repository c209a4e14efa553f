"""How often the report's intervals and verdicts are right, by simulation: ``python -m benchmarks.coverage``.

Studies are simulated in worlds whose truth is known (:mod:`benchmarks.worlds`) and judged by the report's own
functions. What is counted goes to ``results/coverage.json``; the page beside it and the tables of
``docs/uncertainty.md`` are made from there. It takes some minutes on one core, and gives the same counts each time.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import RESULTS
from benchmarks.worlds import WORLDS, Luck, Tested, World, networks
from nl_lightning.report.claims import judge
from nl_lightning.report.comparisons import Comparison
from nl_lightning.report.power import seeds_needed
from nl_lightning.report.render import markdown_table
from nl_lightning.report.uncertainty import LEVEL, Difference, paired, paired_numbers, unpaired, wilson
from nl_lightning.report.words import of_rows
from nl_lightning.study.study import Check, Claim, Part, Study

PAGE = Path(__file__).parent.parent / "docs" / "uncertainty.md"
START, END = "<!-- coverage:start -->", "<!-- coverage:end -->"
COUNTS = RESULTS / "coverage.json"

SEEDS = (1, 2, 3, 5, 10)
VIDEOS = 2000
GAIN = 3.0  # points, where there is a gain
FAMILY = 8  # claims, all of networks that are like the baseline
FIRST = 10  # studies whose counts are kept by themselves: a test simulates them again
BETTER, GAINED = Check("better", ("1", "0")), Check("better", ("2", "0"))
ALIKE, APART = Check("alike", ("0", "1"), within=GAIN), Check("alike", ("0", "2"), within=GAIN)

Interval = Callable[[np.ndarray, np.ndarray], tuple[float, float]]
Counts = dict[str, dict[str, int]]  # of what, by number of seeds


# ------------------------------------------------------------------------------------------------------ counting


def judged(checks: Sequence[Check], right: np.ndarray, table: str | None = "family") -> list[str]:
    """The verdicts on claims of one check each. Variants are "0", "1"...: they are right on (networks, seeds, videos).

    `table`: whose claims they are, one family; None: each claim is alone.
    """
    if table is None:
        return [word for check in checks for word in judged([check], right)]
    parts = [Part("direction", f"Part {i}.", (check,)) for i, check in enumerate(checks)]
    claims = tuple(Claim(f"c{i}", f"Claim {i}.", table, (part,)) for i, part in enumerate(parts))
    study = Study("simulated", "Simulated", Path(), "none", {}, {}, claims)
    known: dict[tuple[str, str], Difference] = {}
    comparisons = []
    for claim in claims:
        for pair in claim.checks[0].pairs():
            if pair not in known:
                known[pair] = paired(*(right[int(name)] for name in pair))
            comparisons.append(Comparison(claim, claim.parts[0], claim.checks[0], *pair, None, known[pair]))
    return [verdict.word for verdict in judge(study, comparisons)]


def verdicts(
    world: World, checks: Sequence[Check], seeds: int, videos: int, studies: int, generator: np.random.Generator
) -> list[list[str]]:
    """The verdicts on the claims of a sub-table in each simulated study."""
    return [judged(checks, world.test(seeds, videos, generator).right()) for _ in range(studies)]


def covered(
    interval: Interval, world: World, seeds: int, videos: int, studies: int, generator: np.random.Generator
) -> float:
    """The share of simulated studies, in percent, whose interval has the true difference of the first two networks.

    With one seed that is the difference of the two networks that were trained.
    """
    hits = 0
    for _ in range(studies):
        tested = world.test(seeds, videos, generator)
        right = tested.right()
        low, high = interval(right[0], right[1])
        hits += low <= (world.gain_of(tested, 0, 1) if seeds == 1 else world.gain(0, 1)) <= high
    return 100 * hits / studies


def count_pairs(first: Luck, others: Luck, studies: int, generator: np.random.Generator) -> Counts:
    """What is right and wrong of a network that is like the baseline, and of one that is better by GAIN points."""
    world = networks([0.0, GAIN], first, others)
    truth = {soft: world.gain(2, 0, soft) for soft in (False, True)}
    counts: dict[str, Counter[str]] = {}

    def count(what: str, seeds: int, happened: bool) -> None:
        counts.setdefault(what, Counter())[f"{seeds}"] += happened

    for _ in range(studies):
        tested = world.test(max(SEEDS), VIDEOS, generator)
        right, soft = tested.right(), tested.soft()
        for seeds in SEEDS:
            some = Tested(*(part[:, :seeds] for part in tested))
            found = paired(right[2, :seeds], right[0, :seeds]).interval()
            found_soft = paired_numbers(soft[2, :seeds] - soft[0, :seeds]).interval()
            count("covers", seeds, found.low <= truth[False] <= found.high)
            count("covers soft", seeds, found_soft.low <= truth[True] <= found_soft.high)
            count("covers trained", seeds, found.low <= world.gain_of(some, 2, 0) <= found.high)
            zero, gained, alike, apart = judged([BETTER, GAINED, ALIKE, APART], right[:, :seeds], table=None)
            count("zero wrong", seeds, zero in ("holds", "fails"))
            count("gain denied", seeds, gained == "fails")
            count("gain undecided", seeds, gained not in ("holds", "fails"))
            count("alike denied", seeds, alike == "fails")
            count("alike undecided", seeds, alike not in ("holds", "fails"))
            count("apart wrong", seeds, apart == "holds")
    return {what: dict(by_seeds) for what, by_seeds in counts.items()}


def count_families(first: Luck, others: Luck, studies: int, generator: np.random.Generator) -> Counts:
    """How often any verdict is wrong on claims that networks beat the baseline, which all are like it."""
    world = networks([0.0] * FAMILY, first, others)
    checks = [Check("better", (f"{i}", "0")) for i in range(1, FAMILY + 1)]
    wrong: Counter[str] = Counter()
    for _ in range(studies):
        right = world.test(max(SEEDS), VIDEOS // 2, generator).right()
        for seeds in SEEDS:
            wrong[f"{seeds}"] += not {"holds", "fails"}.isdisjoint(judged(checks, right[:, :seeds]))
    return {"family wrong": dict(wrong)}


def bootstrap(
    first: np.ndarray, second: np.ndarray, generator: np.random.Generator, draws: int = 2000, level: float = LEVEL
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


def count_alternatives(studies: int, generator: np.random.Generator) -> list[list[str]]:
    """Coverage by two other ways, by seeds: a line of percentages each."""
    draws = np.random.default_rng(1)

    def resampled(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
        return bootstrap(first, second, draws, draws=400)

    def accuracies(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
        return unpaired(100 * first.mean(axis=1), 100 * second.mean(axis=1), first.shape[1]).interval()

    little, much = (networks([2.0], *WORLDS[name]) for name in ("Gaussian, 0.6 points", "Gaussian, 2.5 points"))
    ways = ((resampled, little), (resampled, much), (accuracies, little), (accuracies, much))
    rows = []
    for seeds in SEEDS:
        shares = [covered(way, world, seeds, 600, studies, generator) for way, world in ways]
        rows.append([f"{seeds}", *(f"{share:.1f}" for share in shares)])
    return rows


def count_power(studies: int, generator: np.random.Generator) -> list[list[str]]:
    """Whether as many seeds as ``nl-lightning power`` asks for decide a claim as often as it promises."""
    rows = []
    for gain, videos, luck in ((4.0, 2000, 0.05), (2.0, 6000, 0.05), (1.0, 20000, 0.02)):
        world = networks([gain], Luck(luck))
        differences = [world.gain_of(world.test(1, 1, generator), 1, 0) for _ in range(4000)]
        noise = float(np.std(differences))
        right = world.test(1, 20 * videos, generator).right()
        disagreement = 100 * float(np.mean(right[0] != right[1]))
        seeds = seeds_needed(gain, noise, disagreement, videos)
        assert seeds is not None
        found = verdicts(world, [Check("better", ("1", "0"))], seeds, videos, studies, generator)
        share = 100 * np.mean([words == ["holds"] for words in found])
        rows.append([f"+{gain:g}", f"{videos}", f"{noise:.2f}", f"{disagreement:.0f} %", f"{seeds}", f"{share:.0f}"])
    return rows


def count_world(name: str, studies: int, seed: int = 0) -> Counts:
    """All counts of a world; those of families and looks come from half as many studies."""
    pairs, families = (np.random.default_rng([seed, list(WORLDS).index(name), part]) for part in range(2))
    return count_pairs(*WORLDS[name], studies, pairs) | count_families(*WORLDS[name], studies // 2, families)


def count(studies: int, seed: int = 0) -> dict[str, Any]:
    """Everything that the pages say. Progress goes to standard error."""
    found: dict[str, Any] = {"studies": studies, "worlds": {}, "first": {}}
    for name in WORLDS:
        print(name, file=sys.stderr, flush=True)
        found["worlds"][name] = count_world(name, studies, seed)
        found["first"][name] = count_world(name, FIRST, seed)
    print("other ways, power", file=sys.stderr, flush=True)
    found["alternatives"] = count_alternatives(studies // 4, np.random.default_rng([seed, 100]))
    found["power"] = count_power(studies // 4, np.random.default_rng([seed, 101]))
    return found


# ------------------------------------------------------------------------------------------------------ the pages


def by_world(found: dict[str, Any], what: str, chance: bool = True) -> str:
    """A table of percentages, a line a world, a column a number of seeds, with what chance may do to them."""
    rows = []
    for name, counts in found["worlds"].items():
        studies = found["studies"] // 2 if what.startswith("family") else found["studies"]
        cells = []
        for happened in counts[what].values():
            low, high = wilson(happened, studies)
            cells.append(f"{100 * happened / studies:.1f}" + (f" ({low:.1f} to {high:.1f})" if chance else ""))
        rows.append([name, *cells])
    return markdown_table(of_rows(["world", *(f"{n} seed" + "s" * (n > 1) for n in SEEDS)], rows))


def page(found: dict[str, Any]) -> str:
    """All tables."""
    studies = found["studies"]
    header = ["seeds", *(f"{way}, {noise} points" for way in ("bootstrap", "accuracies") for noise in (0.6, 2.5))]
    power = ["true gain", "videos", "seed noise of the difference", "disagreement", "seeds asked for", "decided, %"]
    parts = [
        "# How often intervals and verdicts are right",
        f"`python -m benchmarks.coverage` simulates {studies} studies in each world. The report's own functions judge "
        "them. Figures are percentages of the studies. In brackets is the range that chance leaves, at 95 %.",
        f"Networks are right on about 72 % of {VIDEOS} videos. In most worlds two networks disagree on one video in "
        "seven. Points after a world's name are the standard deviation of one network's accuracy over trainings; the "
        "first of two is the baseline's. A training that stays on the plateau has 20 points less, and the others vary "
        "by one point. A true gain counts all trainings, those on the plateau too.",
        f"## Intervals\n\nThe 95 % interval has the true difference, where one network is better by {GAIN:g} points:",
        by_world(found, "covers"),
        "The same by the probability of the right class, in place of right and wrong:",
        by_world(found, "covers soft"),
        "The interval has the difference of just the networks that were trained. With one seed, this is all that is "
        "promised:",
        by_world(found, "covers trained"),
        "Two other ways in two Gaussian worlds, with 600 videos, 2 points and a quarter of the studies: the "
        "hierarchical bootstrap, and from the accuracies alone:",
        markdown_table(of_rows(header, found["alternatives"], labels=0)),
        "## Verdicts\n\nTwo networks are alike, and one is called better or worse. At most 5 is promised:",
        by_world(found, "zero wrong"),
        f"One network is better by {GAIN:g} points, and the claim that it is better fails. At most 2.5 is promised:",
        by_world(found, "gain denied"),
        "The same claim stays undecided:",
        by_world(found, "gain undecided"),
        f"Two networks are alike, and the claim that they are alike within {GAIN:g} points fails. At most 2.5 is "
        "promised:",
        by_world(found, "alike denied"),
        "The same claim stays undecided:",
        by_world(found, "alike undecided"),
        f"One network is better by {GAIN:g} points, and the claim that both are alike within {GAIN:g} points holds. At "
        "most 2.5 is promised:",
        by_world(found, "apart wrong"),
        f"{FAMILY} claims of one family say that a network beats the baseline. All are like it. Any verdict is wrong. "
        f"At most 5 is promised ({studies // 2} studies, {VIDEOS // 2} videos):",
        by_world(found, "family wrong"),
        "## Power\n\n`nl-lightning power` asks for as many seeds as decide a claim in 80 % of studies. How many of "
        f"{studies // 4} did, without a plateau. Where much of what two networks split on is luck, it asks for more "
        "than would do.",
        markdown_table(of_rows(power, found["power"], labels=0)),
    ]
    return "\n\n".join(parts) + "\n"


def summary(found: dict[str, Any]) -> str:
    """The two tables of the docs."""
    return "\n\n".join(
        [
            "How many intervals have the true difference, in percent. Chance moves these figures by 1 at most.",
            by_world(found, "covers", chance=False),
            "Two networks are alike. How often one is called better or worse, in percent:",
            by_world(found, "zero wrong", chance=False),
        ]
    )


def with_summary(text: str, found: dict[str, Any]) -> str:
    """The page of the docs, with the tables between its marks."""
    before, _, rest = text.partition(START)
    _, _, after = rest.partition(END)
    return f"{before}{START}\n{summary(found)}\n{END}{after}"


def main(arguments: list[str] | None = None) -> int:
    """Simulate, and write the counts and the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=2000, help="in each world (default: %(default)s)")
    parser.add_argument("--render", action="store_true", help="write the pages from the counts that there are")
    options = parser.parse_args(arguments)
    if not options.render:
        COUNTS.write_text(json.dumps(count(options.studies), indent=1) + "\n", encoding="utf-8")
    found = json.loads(COUNTS.read_text(encoding="utf-8"))
    COUNTS.with_suffix(".md").write_text(page(found), encoding="utf-8")
    PAGE.write_text(with_summary(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
