from collections.abc import Callable
from pathlib import Path

import pytest

from nl_lightning.records import RunRecord
from nl_lightning.report.claims import Comparison, compare
from nl_lightning.report.collate import collect
from nl_lightning.study import Check, Claim, Recipe, Study, find_study, load_study

Measure = Callable[..., RunRecord]


@pytest.mark.usefixtures("one_seed")
def test_differences_by_hand(study: Study, recipe: Recipe, results: Path) -> None:
    found = [
        (c.claim.name, c.variant, c.than, c.reported, c.measured, c.std, c.n, c.same_direction)
        for c in compare(collect(study, recipe, results))
    ]
    assert found == [
        ("helps", "block", "plain", 1.1, 6.5, None, 1, True),
        ("helps", "block", "i3d", pytest.approx(1.2 / 1.5), pytest.approx(2.2 / 3.0), None, 1, True),  # FLOPs
        ("helps", "block", "i3d", 0.9, pytest.approx(44 / 48), None, 1, True),  # parameters
        ("alike", "i3d", "block", 0.4, -0.25, None, 1, True),
        ("more", "i3d", "plain", 1.5, 6.25, None, 1, True),
        ("more", "both", "i3d", None, 4.75, None, 1, None),
    ]


def test_over_seeds(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    for seed, plain, block in [(0, 60.0, 59.0), (1, 60.0, 57.0), (2, 60.0, 55.0)]:
        measure("plain", seed, plain)
        measure("block", seed, block)
    measure("block", 3, 100.0)
    first = compare(collect(study, recipe, results))[0]
    assert (first.measured, first.std, first.n, first.same_direction) == (-3.0, 2.0, 3, False)


def test_what_is_missing_is_said(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain", 0, 60.0)
    measure("block", 1, 60.0)
    by_pair = {(c.variant, c.than, c.check.cost): c for c in compare(collect(study, recipe, results))}
    no_common_seed = by_pair["block", "plain", None]
    assert (no_common_seed.measured, no_common_seed.n, no_common_seed.missing) == (None, 0, ())
    assert by_pair["both", "i3d", None].missing == ("both", "i3d")
    assert by_pair["block", "i3d", "flops"].missing == ("i3d",)
    assert by_pair["block", "i3d", "flops"].measured is None
    assert all(c.same_direction is None for c in by_pair.values())


@pytest.mark.parametrize(
    ("check", "reported", "measured", "same"),
    [
        (Check("better", ("a", "b")), 0.2, 0.1, True),
        (Check("better", ("a", "b")), 0.2, -0.1, False),
        (Check("better", ("a", "b")), -0.2, -5.0, True),
        (Check("better", ("a", "b")), 0.2, 0.0, False),  # no difference is no direction
        (Check("better", ("a", "b")), 0.0, 1.0, None),
        (Check("better", ("a", "b")), None, 1.0, None),
        (Check("better", ("a", "b")), 1.0, None, None),
        (Check("alike", ("a", "b"), within=0.5), 0.2, -0.5, True),
        (Check("alike", ("a", "b"), within=0.5), 0.2, 0.51, False),
        (Check("alike", ("a", "b"), within=0.5), 0.6, -3.0, True),
        (Check("alike", ("a", "b"), within=0.5), 0.0, 0.1, True),
        (Check("cheaper", ("a", "b"), cost="flops"), 0.8, 0.99, True),
        (Check("cheaper", ("a", "b"), cost="flops"), 0.8, 1.01, False),
    ],
)
def test_direction(check: Check, reported: float | None, measured: float | None, same: bool | None) -> None:
    comparison = Comparison(Claim("c", "C."), check, "a", "b", reported, measured, None, 1, ())
    assert comparison.same_direction is same


def test_the_claims_of_table2(recipe: Recipe, results: Path) -> None:
    """42 comparisons, each with what the paper reports: nothing in a claim is without its number."""
    comparisons = compare(collect(load_study(find_study("table2")), recipe, results))
    assert len(comparisons) == 42
    assert all(comparison.reported is not None for comparison in comparisons)
    shares = {(c.variant, c.than, c.check.cost): c.reported for c in comparisons if c.check.cost}
    assert shares == {
        ("c2d_r50_nl5", "c2d_r101", "params"): 0.7,
        ("c2d_r50_nl5", "c2d_r101", "flops"): 0.8,
        ("c2d_r101_nl5", "i3d333_r101", "flops"): pytest.approx(1.2 / 1.8),
        ("c2d_r101_nl5", "i3d311_r101", "flops"): pytest.approx(1.2 / 1.5),
    }
