"""The simulation of studies: what it counts, small editions of it, and the pages made from the committed counts."""

import json

import numpy as np
import pytest

from benchmarks import coverage
from benchmarks.coverage import bootstrap, covered, verdicts
from benchmarks.machine import between
from benchmarks.worlds import WORLDS, Luck, World, networks
from nl_lightning.report.uncertainty import paired
from nl_lightning.study.checks import Check


def test_the_bootstrap_is_reproducible_and_like_the_formula_for_one_seed() -> None:
    first, second = np.ones((2, 1, 600), dtype=bool)
    first[0, :30], second[0, 30:90] = False, False
    once = bootstrap(first, second, np.random.default_rng(3), draws=4000)
    assert once == bootstrap(first, second, np.random.default_rng(3), draws=4000)
    assert once == pytest.approx(paired(first, second).interval(), abs=0.25)


@pytest.mark.parametrize("name", WORLDS)
def test_the_truth_of_a_world_is_what_many_trainings_show(name: str) -> None:
    first, others = WORLDS[name]
    world = networks([3.0], first, others)
    assert world.gain(1, 0) == pytest.approx(3.0, abs=1e-6)
    tested = world.test(4000, 400, np.random.default_rng(0))
    for network, luck in enumerate((first, others)):
        assert 1 - tested.left[network].mean() == pytest.approx(luck.stays, abs=0.02)
    for soft in (False, True):
        found = world.gain_of(tested, 1, 0, soft=soft)
        assert found == pytest.approx(world.gain(1, 0, soft), abs=0.6)  # 8 points / 4000 ^ 0.5, four times
    # Over many videos too: another draw of them for every training.
    small = World(world.abilities, world.lucks, taste=0.0)
    shown = [
        100 * float(np.diff(small.test(1, 1000, generator).right().mean((1, 2)))[0]) for generator in generators(400)
    ]
    assert np.mean(shown) == pytest.approx(small.gain(1, 0), abs=4 * np.std(shown) / 20)


def generators(count: int) -> list[np.random.Generator]:
    return [np.random.default_rng(seed) for seed in range(count)]


def test_the_committed_counts_are_those_of_the_code() -> None:
    """The first studies of three worlds, simulated and judged again."""
    found = json.loads(coverage.COUNTS.read_text())
    for name in list(WORLDS)[1::2]:
        assert coverage.count_world(name, coverage.FIRST) == found["first"][name]


def test_the_pages_are_those_of_the_committed_counts() -> None:
    found = json.loads(coverage.COUNTS.read_text())
    assert coverage.COUNTS.with_suffix(".md").read_text() == coverage.page(found)
    text = coverage.PAGE.read_text()
    assert text == between(text, "coverage", coverage.summary(found))


# ------------------------------------------------------------------------------- small editions of the simulation


@pytest.mark.parametrize(("seeds", "luck"), [(1, 0.0), (1, 0.2), (2, 0.05), (3, 0.0), (3, 0.2), (5, 0.05)])
def test_intervals_cover(seeds: int, luck: float) -> None:
    """95 %, within what 600 studies can tell; ``python -m benchmarks.coverage`` has it closer."""

    def ours(first: np.ndarray, second: np.ndarray) -> tuple[float, float]:
        return paired(first, second).interval()

    world = networks([2.0], Luck(luck))
    assert 92.0 <= covered(ours, world, seeds, 600, 600, np.random.default_rng(seeds)) <= 98.2


def test_verdicts_err_as_rarely_as_they_say() -> None:
    generator = np.random.default_rng(0)
    equal = networks([0.0] * 4, Luck(0.05))
    checks = [Check("better", (str(i), "0")) for i in range(1, 5)]
    found = verdicts(equal, checks, 3, 600, 150, generator)
    assert sum(set(words) != {"undecided"} for words in found) <= 15  # 5 % of 150, and three standard deviations
    apart, alike = networks([4.0], Luck(0.02)), Check("alike", ("0", "1"), within=4.0)
    found = verdicts(apart, [alike], 3, 2000, 150, generator)
    assert sum(words == ["holds"] for words in found) <= 10
    assert verdicts(apart, [alike], 1, 2000, 2, generator) == [["seen once"]] * 2
    assert verdicts(apart, [alike], 2, 2000, 2, generator) == [["undecided"]] * 2


def test_a_plateau_that_no_training_met_is_in_no_interval() -> None:
    """The interval of trainings that all left it covers their difference, and not that of all trainings."""
    first, others = WORLDS["one in five stays, of the baseline none"]
    world = networks([3.0], first, others)
    generator, hits = np.random.default_rng(0), {"all": 0, "learned": 0}
    assert world.gain(1, 0, learned=True) > 6.5  # a fifth of the trainings has 20 points less
    for _ in range(200):
        tested = world.test(5, 600, generator)
        if tested.left.all():
            low, high = paired(*tested.right()[::-1]).interval()
            hits["all"] += low <= world.gain(1, 0) <= high
            hits["learned"] += low <= world.gain(1, 0, learned=True) <= high
    assert hits["learned"] >= 55  # of the third of 200 studies without one on the plateau
    assert hits["all"] <= 25


def test_verdicts_come_when_they_are_due() -> None:
    generator = np.random.default_rng(0)
    apart = networks([8.0], Luck(0.02))
    better, worse = Check("better", ("1", "0")), Check("better", ("0", "1"))
    alike = Check("alike", ("0", "1"), within=3.0)
    found = verdicts(apart, [better, worse, alike], 3, 2000, 20, generator)
    assert sum(words == ["holds", "fails", "fails"] for words in found) >= 18
    same = networks([0.0], Luck(0.0))
    found = verdicts(same, [alike], 5, 2000, 20, generator)
    assert sum(words == ["holds"] for words in found) >= 18
