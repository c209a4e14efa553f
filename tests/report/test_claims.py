from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nl_lightning.report.claims import Comparison, compare, compare_reported, judge
from nl_lightning.report.collate import collect
from nl_lightning.report.uncertainty import Difference
from nl_lightning.report.words import reason
from nl_lightning.study.loading import find_study, load_study
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.records import Record
from nl_lightning.study.study import Check, Claim, Study

Measure = Callable[..., Record]


@pytest.mark.usefixtures("one_seed")
def test_differences_by_hand(study: Study, recipe: Recipe, results: Path) -> None:
    found = [
        (c.claim.name, c.variant, c.than, c.reported, c.measured, c.difference.seeds if c.difference else None, c.word)
        for c in compare(collect(study, recipe, results))
    ]
    assert found == [
        ("helps", "block", "plain", 1.1, 6.5, 1, "undecided"),  # two accuracies on 400 videos
        ("helps", "block", "i3d", pytest.approx(1.2 / 1.5), pytest.approx(2.2 / 3.0), None, "holds"),  # FLOPs
        ("helps", "block", "i3d", 0.9, pytest.approx(44 / 48), None, "holds"),  # parameters
        ("alike", "i3d", "block", 0.4, -0.25, 1, "undecided"),
        ("more", "i3d", "plain", 1.5, 6.25, 1, "undecided"),
        ("more", "both", "i3d", None, 4.75, 1, "undecided"),
    ]


def test_what_is_missing_is_said(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain", 0, 60.0)
    measure("block", 1, 60.0)
    runs = collect(study, recipe, results)
    by_pair = {(c.variant, c.than, c.check.cost): c for c in compare(runs)}
    no_common_seed = by_pair["block", "plain", None]
    assert (no_common_seed.measured, no_common_seed.missing) == (None, ())
    assert by_pair["both", "i3d", None].missing == ("both", "i3d")
    assert by_pair["block", "i3d", "flops"].missing == ("i3d",)
    assert by_pair["block", "i3d", "flops"].measured is None
    assert all(c.word == "undecided" for c in by_pair.values())
    verdicts = judge(study, compare(runs))
    assert [(v.claim.name, v.word, v.corrected, reason(v, study)) for v in verdicts] == [
        ("helps", "undecided", 1.0, "Nothing is known of I3D."),
        ("alike", "undecided", 1.0, "Nothing is known of I3D (a)."),
        ("more", "undecided", 1.0, "Nothing is known of I3D (a), NL_I3D (a)."),
    ]


def known(mean: float, se: float) -> Difference:
    return Difference(mean, mean, seed_se=0.0, video_se=se, seeds=1, videos=600)


@pytest.mark.parametrize(
    ("check", "mean", "word"),
    [
        (Check("better", ("a", "b")), 2.1, "holds"),
        (Check("better", ("a", "b")), 1.9, "undecided"),  # its interval reaches below zero
        (Check("better", ("a", "b")), -1.9, "undecided"),
        (Check("better", ("a", "b")), -2.1, "fails"),
        (Check("better", ("a", "b"), by=1.0), 2.1, "undecided"),
        (Check("better", ("a", "b"), by=1.0), 3.1, "holds"),
        (Check("better", ("a", "b"), by=1.0), -1.1, "fails"),
        (Check("ordered", ("b", "a")), 2.1, "holds"),
        (Check("alike", ("a", "b"), within=2.5), 0.4, "holds"),
        (Check("alike", ("a", "b"), within=2.5), 0.6, "undecided"),
        (Check("alike", ("a", "b"), within=1.9), 0.0, "undecided"),  # no difference found is no evidence of none
        (Check("alike", ("a", "b"), within=2.5), -4.6, "fails"),
        (Check("alike", ("a", "b"), within=2.5), 4.4, "undecided"),
    ],
)
def test_a_comparison_is_decided_by_its_interval(check: Check, mean: float, word: str) -> None:
    """A standard error of one point: the interval reaches 1.96 points to either side."""
    comparison = Comparison(Claim("c", "C."), check, "a", "b", None, known(mean, 1.0))
    assert comparison.word == word
    low, high = known(mean, 1.0).interval()
    claimed = (-check.within, check.within) if check.within is not None else (check.by, 100.0)
    inside, outside = low > claimed[0] and high < claimed[1], high < claimed[0] or low > claimed[1]
    assert word == ("holds" if inside else "fails" if outside else "undecided")


@pytest.mark.parametrize(("share", "word"), [(0.99, "holds"), (1.0, "fails"), (1.01, "fails"), (None, "undecided")])
def test_costs_have_no_noise(share: float | None, word: str) -> None:
    check = Check("cheaper", ("a", "b"), cost="flops")
    assert Comparison(Claim("c", "C."), check, "a", "b", 0.8, share=share).word == word


def judged(study: Study, *claims: list[tuple[Check, float]]) -> list[tuple[str, float, str]]:
    """Verdict, corrected p-value and reason of claims of one sub-table, from differences with standard error one."""
    stated = [Claim(f"c{i}", "C.", "a", tuple(check for check, _ in claim)) for i, claim in enumerate(claims)]
    comparisons = [
        Comparison(claim, check, "x", "y", None, known(mean, 1.0))
        for claim, measured in zip(stated, claims, strict=True)
        for check, mean in measured
    ]
    return [(v.word, v.corrected, reason(v, study)) for v in judge(replace(study, claims=tuple(stated)), comparisons)]


BETTER = Check("better", ("x", "y"))


def test_a_claim_holds_if_all_comparisons_do_and_fails_if_one_surely_does(study: Study) -> None:
    word, p, reason = judged(study, [(BETTER, 2.1), (BETTER, 9.0)])[0]
    assert (word, p) == ("holds", pytest.approx(0.0357, abs=1e-4))
    assert reason == "Both comparisons agree; the weaker: x - y is +2.1 [0.1, 4.1]; claimed: above 0."
    assert judged(study, [(BETTER, -2.3), (BETTER, 9.0)])[0][:2] == ("fails", pytest.approx(2 * 0.02145, abs=1e-4))
    word, p, reason = judged(study, [(BETTER, -2.1), (BETTER, 9.0)])[0]  # one of two: twice as easily by chance
    assert (word, p) == ("undecided", pytest.approx(2 * 0.0357, abs=1e-4))
    assert (
        reason == "Not clear as the worst of 2 comparisons (p = 0.071): x - y is -2.1 [-4.1, -0.1]; claimed: above 0."
    )
    word, _, reason = judged(study, [(BETTER, 1.0), (BETTER, 9.0), (BETTER, 0.5)])[0]
    assert word == "undecided"
    assert reason == "2 of 3 comparisons are open, such as: x - y is +0.5 [-1.5, 2.5]; claimed: above 0."


def test_the_claims_of_a_sub_table_are_corrected_together(study: Study) -> None:
    """Holm: 0.0357 holds by itself, and after a clear one, but not beside one that is no clearer."""
    clear, close = [(BETTER, 9.0)], [(BETTER, 2.1)]
    assert [word for word, _, _ in judged(study, close)] == ["holds"]
    assert [word for word, _, _ in judged(study, close, clear)] == ["holds", "holds"]
    both = judged(study, close, close)
    assert [word for word, _, _ in both] == ["undecided", "undecided"]
    assert both[0][2] == (
        "Clear by itself (p = 0.036), but not as one of 2 claims: x - y is +2.1 [0.1, 4.1]; claimed: above 0."
    )
    elsewhere = Claim("elsewhere", "E.", None, (BETTER,))  # another family
    stated = Claim("here", "H.", "a", (BETTER,))
    comparisons = [Comparison(claim, BETTER, "x", "y", None, known(2.1, 1.0)) for claim in (stated, elsewhere)]
    found = judge(replace(study, claims=(stated, elsewhere)), comparisons)
    assert [(v.word, v.family) for v in found] == [("holds", 1), ("holds", 1)]


def test_the_reported_numbers_are_judged_too(study: Study) -> None:
    with_videos = replace(study, reported_videos=19_761)
    unpaired, paired = (compare_reported(with_videos, disagreement) for disagreement in (None, 10.0))
    first, second = unpaired[0].difference, paired[0].difference
    assert first is not None
    assert second is not None
    assert first.interval() == pytest.approx((1.1 - 0.88, 1.1 + 0.88), abs=0.01)
    assert second.interval() == pytest.approx((1.1 - 0.44, 1.1 + 0.44), abs=0.01)
    assert [v.word for v in judge(with_videos, unpaired)] == ["undecided", "undecided", "undecided"]
    assert [v.word for v in judge(with_videos, paired)] == ["holds", "undecided", "undecided"]
    assert reason(judge(with_videos, paired)[2], study) == "Nothing is known of NL_I3D (a)."
    assert all(c.difference is None for c in compare_reported(study))  # nobody says on how many videos


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
