"""How often the report's intervals and verdicts are right, by simulation: ``python -m benchmarks.coverage``.

Studies are simulated in worlds whose truth is known (:mod:`benchmarks.worlds`) and judged by the report's own
functions. What is counted goes to ``results/coverage.json``; the page beside it and the tables of
``docs/uncertainty.md`` are made from there. It takes some minutes on one core, and gives the same counts each time.
"""

import argparse
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.machine import REPOSITORY, RESULTS, between
from benchmarks.worlds import WORLDS, Luck, World, networks
from nl_lightning.report.claims import judge
from nl_lightning.report.comparisons import Comparison, compare_by
from nl_lightning.report.power import seeds_needed
from nl_lightning.report.render import markdown_table
from nl_lightning.report.uncertainty import (
    LEVEL,
    Difference,
    clopper_pearson,
    paired,
    paired_numbers,
    unpaired,
    wilson,
)
from nl_lightning.report.words import of_rows
from nl_lightning.study.checks import Check, Claim, Part, Share
from nl_lightning.study.study import Study

PAGE = REPOSITORY / "docs" / "uncertainty.md"
COUNTS = RESULTS / "coverage.json"
DECIDED = {"holds", "fails"}

SEEDS = (1, 2, 3, 5, 10)
LOOKS = (3, 5, 10)  # fewer seeds decide nothing
VIDEOS = 2000
GAIN = 3.0  # points, where there is a gain
FAMILY = 8  # claims, all of networks that are like the baseline
FIRST = 10  # studies whose counts are kept by themselves: a test simulates them again
BETTER, GAINED = Check("better", ("1", "0")), Check("better", ("2", "0"))
MARGIN = Share(0.5, ("2", "0"))  # of the gain, as the study's own margins are
ALIKE, APART = Check("alike", ("0", "1"), within=MARGIN), Check("alike", ("0", "3"), within=MARGIN)

Interval = Callable[[np.ndarray, np.ndarray], tuple[float, float]]
Counts = dict[str, dict[str, list[int]]]  # of what, by number of seeds: how often, and of how many


# ------------------------------------------------------------------------------------------------------ counting


def tally(counts: Counts, what: str, seeds: int, happened: bool) -> None:
    found = counts.setdefault(what, {}).setdefault(f"{seeds}", [0, 0])
    found[0] += bool(happened)
    found[1] += 1


def study_of(checks: Sequence[Check]) -> Study:
    """A study of claims of one check each."""
    claims = [Claim(f"c{i}", f"Claim {i}.", "t", (Part("direction", "", (c,)),)) for i, c in enumerate(checks)]
    return Study(
        name="simulated", title="Simulated", path=Path(), recipe="none", variants={}, tables={}, claims=tuple(claims)
    )


def compared(studies: Sequence[Study], right: np.ndarray) -> list[list[Comparison]]:
    """The comparisons of their claims. Variants are "0", "1"...: they are right on (networks, seeds, videos)."""
    known: dict[tuple[tuple[str, float], ...], Difference] = {}

    def combination(weights: Mapping[str, float], points: bool, group: str) -> Difference:
        key = tuple(weights.items())
        if key not in known:
            known[key] = paired(*(right[int(name)] for name in weights), weights=list(weights.values()))
        return known[key]

    variants = {f"{i}" for i in range(len(right))}
    return [compare_by(study, ("",), combination, lambda *_: None, variants) for study in studies]


def words(study: Study, comparisons: Sequence[Comparison], looks: tuple[int, ...] = ()) -> list[str]:
    """The verdicts on its claims, at one of so many planned looks."""
    return [verdict.word for verdict in judge(replace(study, looks=looks), comparisons)]


def verdicts(
    world: World, checks: Sequence[Check], seeds: int, videos: int, studies: int, generator: np.random.Generator
) -> list[list[str]]:
    """The verdicts on the claims of a study, each time that it is simulated."""
    study = study_of(checks)
    tested = (world.test(seeds, videos, generator) for _ in range(studies))
    return [words(study, compared([study], one.right())[0]) for one in tested]


def covered(
    interval: Interval, world: World, seeds: int, videos: int, studies: int, generator: np.random.Generator
) -> float:
    """The share of simulated studies, in percent, whose interval has the true difference of the first two networks.

    With one seed that is the difference of the two networks that were trained.
    """
    hits, truth = 0, world.gain(0, 1)
    for _ in range(studies):
        tested = world.test(seeds, videos, generator)
        right = tested.right()
        low, high = interval(right[0], right[1])
        hits += low <= (world.gain_of(tested, 0, 1) if seeds == 1 else truth) <= high
    return 100 * hits / studies


def count_pairs(first: Luck, others: Luck, studies: int, generator: np.random.Generator) -> Counts:
    """What is right and wrong of networks that are like the baseline, better by GAIN points, and by half of it."""
    world, counts = networks([0.0, GAIN, GAIN / 2], first, others), Counts()
    count = partial(tally, counts)
    better = world.gain(1, 0, learned=True) > 1e-6
    truth, truth_soft, truth_learned = world.gain(2, 0), world.gain(2, 0, soft=True), world.gain(2, 0, learned=True)
    alone = [study_of([check]) for check in (BETTER, GAINED, ALIKE, APART)]
    for _ in range(studies):
        tested = world.test(max(SEEDS), VIDEOS, generator)
        right, soft = tested.right(), tested.soft(2) - tested.soft(0)
        decided = "undecided"
        for seeds in SEEDS:
            found = paired(right[2, :seeds], right[0, :seeds]).interval()
            found_soft = paired_numbers(soft[:seeds]).interval()
            count("covers", seeds, found.low <= truth <= found.high)
            count("covers soft", seeds, found_soft.low <= truth_soft <= found_soft.high)
            if seeds == 1:
                count("covers trained", seeds, found.low <= world.gain_of(tested, 2, 0, seeds) <= found.high)
            left = tested.left[:, :seeds]
            if others.stays:
                said = truth_learned if left[[0, 2]].all() else truth
                count("covers as said", seeds, found.low <= said <= found.high)
                rate = clopper_pearson(int(left[2].sum()), seeds)
                count("covers rate", seeds, rate.low <= 100 * (1 - others.stays) <= rate.high)
            if seeds not in LOOKS:
                continue
            comparisons = compared(alone, right[:, :seeds])
            zero, gained, alike, apart = (words(*one)[0] for one in zip(alone, comparisons, strict=True))
            count("zero wrong", seeds, zero in DECIDED)
            count("gain denied", seeds, gained == "fails")
            count("gain open", seeds, gained not in DECIDED)
            count("alike denied", seeds, alike == "fails")
            count("alike open", seeds, alike not in DECIDED)
            count("apart wrong", seeds, apart == "holds")
            if others.stays:
                count("zero wrong as said", seeds, zero in wrong(left[[0, 1]], better))
            if decided not in DECIDED:
                decided = words(alone[1], comparisons[1], LOOKS)[0]
                count("looks decide", seeds, decided in DECIDED)
        count("looks deny", max(LOOKS), decided == "fails")
        count("looks open", max(LOOKS), decided not in DECIDED)
    return counts


def wrong(left: np.ndarray, better: bool) -> set[str]:
    """The words that are wrong of the claim that a network is better, if in the mean it is like the baseline.

    `left`: which trainings of both have left the plateau. If all have, the claim is of such trainings. `better`:
    whether it is right then.
    """
    return {"fails"} if better and left.all() else DECIDED


def count_families(first: Luck, others: Luck, studies: int, generator: np.random.Generator) -> Counts:
    """How often any verdict is wrong on claims that networks beat the baseline, which all are like it."""
    world, counts = networks([0.0] * FAMILY, first, others), Counts()
    count = partial(tally, counts)
    better = world.gain(1, 0, learned=True) > 1e-6
    study = study_of([Check("better", (f"{i}", "0")) for i in range(1, FAMILY + 1)])
    for _ in range(studies):
        tested = world.test(max(LOOKS), VIDEOS // 2, generator)
        right, ever = tested.right(), {"planned": False, "not planned": False, "as said": False}
        for seeds in LOOKS:
            (comparisons,) = compared([study], right[:, :seeds])
            at_once, at_look = (words(study, comparisons, looks) for looks in ((), LOOKS))
            said = [wrong(tested.left[[0, i], :seeds], better) for i in range(1, FAMILY + 1)]
            count("family wrong", seeds, bool({*at_once} & DECIDED))
            ever["planned"] |= bool({*at_look} & DECIDED)
            ever["not planned"] |= bool({*at_once} & DECIDED)
            if others.stays:
                count("family wrong as said", seeds, any(map(set.__contains__, said, at_once)))
                ever["as said"] |= any(map(set.__contains__, said, at_look))
        for how, happened in ever.items():
            count(f"looks {how}", max(LOOKS), happened)
    return counts


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
        return unpaired(100 * first.mean(axis=1), 100 * second.mean(axis=1), videos=first.shape[1]).interval()

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


def percent(counts: Sequence[int], chance: bool = True) -> str:
    """A share, with what chance may do to it."""
    low, high = wilson(*counts)
    return f"{100 * counts[0] / counts[1]:.1f}" + (f" ({low:.1f} to {high:.1f})" if chance else "")


def by_world(found: dict[str, Any], what: str, seeds: Sequence[int] = SEEDS, chance: bool = True) -> str:
    """A table of percentages, a line a world that has them, a column a number of seeds."""
    worlds = {name: counts[what] for name, counts in found["worlds"].items() if what in counts}
    rows = [[name, *(percent(counts[f"{n}"], chance) for n in seeds)] for name, counts in worlds.items()]
    return markdown_table(of_rows(["world", *(f"{n} seed" + "s" * (n > 1) for n in seeds)], rows))


def looks(found: dict[str, Any]) -> str:
    """What planned looks do, and what the same looks do that weren't planned."""
    last, rows = f"{max(LOOKS)}", []
    for name, counts in found["worlds"].items():
        used = [counts["looks decide"][f"{n}"][1] for n in LOOKS if f"{n}" in counts["looks decide"]]
        more = sum(studies * seeds for studies, seeds in zip(used, np.diff((0, *LOOKS)), strict=False)) / used[0]
        said = "as said" if "family wrong as said" in counts else "planned"  # without a plateau it is the same
        what = ("planned", said, "not planned", "deny", "open")
        rows.append([name, *(percent(counts[f"looks {one}"][last]) for one in what), f"{more:.1f}"])
    wrong_by = ("planned: any wrong", "planned: wrong as said", "not planned: any wrong")
    header = ["world", *wrong_by, "gain denied", "gain undecided", "seeds used"]
    return markdown_table(of_rows(header, rows))


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
        "by one point. A true gain is the mean over all trainings, those on the plateau too.",
        f"## Intervals\n\nThe 95 % interval has the true difference, where one network is better by {GAIN:g} points:",
        by_world(found, "covers"),
        "The same by the probability of the right class, in place of right and wrong:",
        by_world(found, "covers soft"),
        "The same *as said*: if all trainings of both networks have left the plateau, the true difference is that of "
        "such trainings.",
        by_world(found, "covers as said", SEEDS[1:]),
        "With one seed, the interval has the difference of just the two networks that were trained:",
        by_world(found, "covers trained", SEEDS[:1]),
        "The exact interval of how often a network leaves the plateau has the true share:",
        by_world(found, "covers rate"),
        "Two other ways in two Gaussian worlds, with 600 videos, 2 points and a quarter of the studies: the "
        "hierarchical bootstrap, and from the accuracies alone:",
        markdown_table(of_rows(header, found["alternatives"], labels=0)),
        "## Verdicts\n\nOne and two seeds decide nothing. Each claim here is a study's only one.\n\n"
        "Two networks are alike, and one is called better or worse. At most 5 is promised:",
        by_world(found, "zero wrong", LOOKS),
        "The same as said:",
        by_world(found, "zero wrong as said", LOOKS),
        f"One network is better by {GAIN:g} points, and the claim that it is better fails. At most 2.5 is promised:",
        by_world(found, "gain denied", LOOKS),
        "The same claim stays undecided:",
        by_world(found, "gain open", LOOKS),
        "Two networks are alike, and the claim fails that they are alike within half of that gain. At most 2.5 is "
        "promised:",
        by_world(found, "alike denied", LOOKS),
        "The same claim stays undecided:",
        by_world(found, "alike open", LOOKS),
        "Two networks differ by half of that gain, and the claim holds that they are alike within half of it. At most "
        "2.5 is promised:",
        by_world(found, "apart wrong", LOOKS),
        f"## Families and looks\n\nA study has {FAMILY} claims that a network beats the baseline. All are like it. Any "
        f"verdict is wrong. At most 5 is promised ({studies // 2} studies, {VIDEOS // 2} videos):",
        by_world(found, "family wrong", LOOKS),
        "The same as said:",
        by_world(found, "family wrong as said", LOOKS),
        f"The study is judged after {', '.join(map(str, LOOKS))} seeds. The first columns say how often any of the "
        f"{FAMILY} verdicts is wrong at any look: with planned looks, where at most 5 is promised, and with looks that "
        f"were not planned. The last columns are of one claim of a true gain of {GAIN:g} points, with planned looks. "
        "A claim that is decided gets no more seeds.",
        looks(found),
        "## Power\n\n`nl-lightning power` asks for as many seeds as decide a claim in 80 % of studies. How many of "
        f"{studies // 4} did, without a plateau. Where much of what two networks split on is luck, it asks for more "
        "than would do.",
        markdown_table(of_rows(power, found["power"], labels=0)),
    ]
    return "\n\n".join(parts) + "\n"


def summary(found: dict[str, Any]) -> str:
    """The tables of the docs."""
    chance = 196 * (0.0475 / found["studies"]) ** 0.5
    parts = [
        "How many intervals have the true difference of all trainings, in percent. Chance moves figures near 95 by "
        f"{chance:.1f}.",
        by_world(found, "covers", chance=False),
        "The same, if all trainings of both networks have left the plateau, for the difference of such trainings:",
        by_world(found, "covers as said", SEEDS[1:], chance=False),
        "Two networks are alike in the mean over all trainings. How often one is called better or worse, in percent:",
        by_world(found, "zero wrong", LOOKS, chance=False),
    ]
    return "\n\n".join(parts)


def main(arguments: list[str] | None = None) -> int:
    """Simulate, and write the counts and the pages."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=1000, help="in each world (default: %(default)s)")
    parser.add_argument("--render", action="store_true", help="write the pages from the counts that there are")
    options = parser.parse_args(arguments)
    if not options.render:
        lines = json.dumps(count(options.studies)).replace("}, ", "},\n")  # a line a count
        COUNTS.write_text(lines + "\n", encoding="utf-8")
    found = json.loads(COUNTS.read_text(encoding="utf-8"))
    COUNTS.with_suffix(".md").write_text(page(found), encoding="utf-8")
    PAGE.write_text(between(PAGE.read_text(encoding="utf-8"), "coverage", summary(found)), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
