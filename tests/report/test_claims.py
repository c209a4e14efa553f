from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from nl_lightning.errors import UserError
from nl_lightning.report.claim_words import by_part, comparison_columns, counts, reason, summary, verdict_legend
from nl_lightning.report.claims import Report, Verdict, judge, report
from nl_lightning.report.collate import collect
from nl_lightning.report.comparisons import Comparison, compare, compare_reported
from nl_lightning.report.html import page
from nl_lightning.report.power import plan_of, power_columns
from nl_lightning.report.provenance import provenance
from nl_lightning.report.uncertainty import Difference
from nl_lightning.report.words import learned_columns, points_of, remarks
from nl_lightning.study.checks import Check, Claim, Part, Share
from nl_lightning.study.evidence import Evidence
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.metrics import TOP1
from nl_lightning.study.packing import pack, pack_numbers
from nl_lightning.study.recipe import Recipe, run_hash
from nl_lightning.study.records import Record, record_path
from nl_lightning.study.study import Learned, Study

Measure = Callable[..., Record]


@pytest.mark.usefixtures("one_seed")
def test_differences_by_hand(study: Study, recipe: Recipe, results: Path) -> None:
    found = [
        (c.claim.name, c.variant, c.than, c.reported, c.measured, c.difference.seeds if c.difference else None, c.word)
        for c in compare(collect(study, recipe, results))
    ]
    assert found == [
        ("helps", "block", "plain", 1.1, 6.5, 1, "seen once"),
        ("helps", "block", "i3d", pytest.approx(1.2 / 1.5), pytest.approx(2.2 / 3.0), None, "holds"),  # FLOPs
        ("helps", "block", "i3d", 0.9, pytest.approx(44 / 48), None, "holds"),  # parameters
        ("alike", "i3d", "block", 0.4, -0.25, 1, "seen once"),
        ("more", "i3d", "plain", 1.5, 6.25, 1, "seen once"),
        ("more", "both", "i3d", None, 4.75, 1, "seen once"),
    ]


@pytest.mark.parametrize(
    ("than", "baseline", "cost"),
    [("i3d", "plain", 1.2 / 1.5), ("plain", "plain", 1.2), ("i3d", "both", None), ("i3d", None, None)],
)
def test_reported_costs_are_compared_over_one_baseline(
    study: Study, recipe: Recipe, results: Path, than: str, baseline: str | None, cost: float | None
) -> None:
    table = study.tables["a"]
    rows = tuple(replace(row, baseline=baseline) if row.variant == "i3d" else row for row in table.rows)
    asked = stating(study, Check("cheaper", ("block", than), cost="flops"))
    (found,) = compare(collect(replace(asked, tables={"a": replace(table, rows=rows)}), recipe, results))
    assert found.reported == (cost and pytest.approx(cost))


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
    found = report(runs)
    assert [(v.claim.name, v.word, reason(v.parts[0], v.claim, found)) for v in found.verdicts] == [
        ("helps", "undecided", "It waits for I3D."),
        ("alike", "undecided", "It waits for I3D (a)."),
        ("more", "undecided", "It waits for I3D (a), NL_I3D (a)."),
        ("why", "not testable", "An interpretation."),
    ]


def known(mean: float, se: float, seeds: int = 3) -> Difference:
    """All of its noise is of videos, so an interval reaches 1.96 standard errors, of however many seeds it is."""
    return Difference(mean, mean, seed_se=0.0, video_se=se, seeds=seeds, videos=600)


def part(*checks: Check) -> Part:
    return Part("direction", "C.", checks)


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
        (Check("about", ("a", "b"), points=4.0, within=2.5), 4.4, "holds"),
        (Check("about", ("a", "b"), points=4.0, within=2.5), 0.4, "undecided"),
        (Check("about", ("a", "b"), points=4.0, within=2.5), -0.6, "fails"),
    ],
)
def test_a_comparison_is_decided_by_its_interval(check: Check, mean: float, word: str) -> None:
    """A standard error of one point: the interval reaches 1.96 points to either side."""
    comparison = Comparison(Claim("c", "C."), part(check), check, "a", "b", None, known(mean, 1.0))
    assert comparison.word == comparison.leaning == word
    once = replace(comparison, difference=known(mean, 1.0, seeds=1))
    assert (once.word, once.leaning) == ("seen once", word)
    twice = replace(comparison, difference=known(mean, 1.0, seeds=2))
    assert twice.word == "undecided"
    low, high = known(mean, 1.0).interval()
    assert check.bounds is not None
    claimed = check.bounds
    inside, outside = low > claimed[0] and high < claimed[1], high < claimed[0] or low > claimed[1]
    assert word == ("holds" if inside else "fails" if outside else "undecided")


@pytest.mark.parametrize(("share", "word"), [(0.99, "holds"), (1.0, "fails"), (1.01, "fails"), (None, "undecided")])
def test_costs_have_no_noise(share: float | None, word: str) -> None:
    check = Check("cheaper", ("a", "b"), cost="flops")
    assert Comparison(Claim("c", "C."), part(check), check, "a", "b", 0.8, share=share).leaning == word


def why(verdict: Verdict, study: Study) -> str:
    runs = SimpleNamespace(study=study, recipe=SimpleNamespace(folds=1))
    plain = SimpleNamespace(runs=runs, broken={}, spread=None)
    return reason(verdict.parts[0], verdict.claim, cast(Report, plain))


def judged(study: Study, *claims: list[tuple[Check, float]], seeds: int = 3) -> list[tuple[str, float, str]]:
    """Verdict, corrected p-value and reason of claims of one sub-table, from differences with standard error one."""
    stated = [Claim(f"c{i}", "C.", "a", (part(*(check for check, _ in claim)),)) for i, claim in enumerate(claims)]
    comparisons = [
        Comparison(claim, claim.parts[0], check, "x", "y", None, known(mean, 1.0, seeds))
        for claim, measured in zip(stated, claims, strict=True)
        for check, mean in measured
    ]
    shown = replace(study, claims=tuple(stated))
    return [(v.word, v.parts[0].corrected, why(v, study)) for v in judge(shown, comparisons)]


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
        "Clear by itself (p = 0.036), but not as one of 2 parts: x - y is +2.1 [0.1, 4.1]; claimed: above 0."
    )


def test_the_parts_of_all_sub_tables_are_one_family(study: Study) -> None:
    here, elsewhere = (Claim(name, "C.", table, (part(BETTER),)) for name, table in (("h", "a"), ("e", "b")))
    comparisons = [Comparison(c, c.parts[0], BETTER, "x", "y", None, known(2.1, 1.0)) for c in (here, elsewhere)]
    found = judge(replace(study, claims=(here, elsewhere)), comparisons)
    assert [(v.word, v.parts[0].family) for v in found] == [("undecided", 2)] * 2
    assert [v.parts[0].within for v in found] == [pytest.approx(0.0357, abs=1e-4)] * 2
    assert why(found[0], study).startswith("Clear among the claims of its table (p = 0.036), but not as one of 2 parts")


def test_planned_looks_share_the_five_percent(study: Study) -> None:
    assert judged(study, [(BETTER, 2.3)])[0][0] == "holds"  # p = 0.021
    for claim in ([2.3], [-2.3], [2.3, 9.0]):
        word, _, reason = judged(replace(study, looks=(3, 5, 10)), [(BETTER, mean) for mean in claim])[0]
        assert word == "undecided"
        assert reason.startswith(f"Not clear enough for one of 3 looks (p = 0.021): x - y is {claim[0]:+.1f} [")
    assert judged(replace(study, looks=(3, 5, 10)), [(BETTER, 2.5)])[0][0] == "holds"


def test_one_seed_decides_nothing(study: Study) -> None:
    for seeds, word in ((1, "seen once"), (2, "undecided"), (3, "holds")):
        assert judged(study, [(BETTER, 9.0)], seeds=seeds)[0][0] == word
    assert judged(study, [(BETTER, 9.0)], seeds=1)[0][2] == (
        "x - y is +9.0 [7.0, 11.0]; claimed: above 0. One seed decides nothing."
    )
    assert judged(study, [(BETTER, 9.0)], seeds=2)[0][2].endswith("It takes 3 seeds to decide.")


def test_the_reported_numbers_are_judged_too(study: Study) -> None:
    with_videos = replace(study, reported_videos=19_761)
    unpaired, paired = (compare_reported(with_videos, disagreement) for disagreement in (None, 10.0))
    first, second = unpaired[0].difference, paired[0].difference
    assert first is not None
    assert second is not None
    assert first.interval() == pytest.approx((1.1 - 0.88, 1.1 + 0.88), abs=0.01)
    assert second.interval() == pytest.approx((1.1 - 0.44, 1.1 + 0.44), abs=0.01)
    assert [v.word for v in judge(with_videos, paired)] == ["seen once", "seen once", "undecided", "not testable"]
    assert [v.parts[0].leaning for v in judge(with_videos, unpaired)[:2]] == ["undecided", "undecided"]
    assert [v.parts[0].leaning for v in judge(with_videos, paired)[:2]] == ["holds", "undecided"]
    assert why(judge(with_videos, paired)[2], study) == "It waits for NL_I3D (a)."
    assert all(c.difference is None for c in compare_reported(study))  # nobody says on how many videos


# ---------------------------------------------------------------------------- shares, contrasts, curves, soft scores


def measured(measure: Measure, rights: dict[str, int], seeds: int = 3, **fields: object) -> None:
    """So many of 400 videos are right, the first ones; a seed more is a video more."""
    for variant, right in rights.items():
        for seed in range(seeds):
            bits = [i < right + seed for i in range(400)]
            measure(variant, seed, sum(bits) / 4, right_top1=pack(bits), videos_hash="0123456789ab", **fields)


def stating(study: Study, *checks: Check) -> Study:
    return replace(study, claims=tuple(Claim(f"c{i}", "C.", "a", (part(check),)) for i, check in enumerate(checks)))


def test_margins_are_shares_of_what_a_block_brings_here(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    measured(measure, {"plain": 200, "block": 300, "i3d": 290})
    half = Share(0.5, ("block", "plain"))
    asked = stating(
        study,
        Check("alike", ("block", "i3d"), within=half),
        Check("better", ("i3d", "block"), by=Share(-0.5, ("block", "plain"))),
        Check("better", ("i3d", "plain"), by=half),
        Check("alike", ("block", "plain"), within=Share(0.5, ("i3d", "plain"))),
        Check("alike", ("block", "i3d"), within=Share(0.5, ("plain", "block"))),
    )
    found = report(collect(asked, recipe, results))
    assert [v.word for v in found.verdicts] == ["holds", "holds", "holds", "fails", "undecided"]
    first = found.verdicts[0].comparisons[0]
    assert first.effect is not None
    assert (first.effect.mean, first.claimed) == (25.0, (-12.5, 12.5))
    assert reason(found.verdicts[4].parts[0], found.verdicts[4].claim, found).startswith(
        "The margin is a share of an effect that isn't surely there: I3D - NL is -2.5"
    )


@pytest.mark.parametrize(("seeds", "word"), [(1, "seen once"), (2, "undecided"), (3, "holds")])
def test_a_share_is_decided_by_the_seeds_of_the_effect_too(
    study: Study, recipe: Recipe, results: Path, measure: Measure, seeds: int, word: str
) -> None:
    """Three seeds of the two that are compared are no more than there are of what the margin is a share of."""
    measured(measure, {"plain": 200, "i3d": 200})
    measured(measure, {"block": 300}, seeds)
    of_block = ("block", "plain")
    asked = stating(
        study,
        Check("alike", ("plain", "i3d"), within=Share(0.5, of_block)),
        Check("better", ("i3d", "plain"), by=Share(-0.5, of_block)),
    )
    found = report(collect(asked, recipe, results))
    assert [v.word for v in found.verdicts] == [word, word]
    shown = comparison_columns(found, [c for v in found.verdicts for c in v.comparisons])
    assert next(column.cells for column in shown if column.title == "n") == [str(seeds)] * 2


def test_a_share_of_what_was_not_measured_is_missing(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    measured(measure, {"block": 300, "i3d": 290})
    asked = stating(study, Check("alike", ("block", "i3d"), within=Share(0.5, ("block", "plain"))))
    found = report(collect(asked, recipe, results))
    assert reason(found.verdicts[0].parts[0], found.verdicts[0].claim, found) == "It waits for C2D."


def test_a_contrast_is_a_difference_of_differences(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    measured(measure, {"plain": 200, "block": 300, "i3d": 220, "both": 300})
    gain = ("block", "plain")
    keeps, grows = (
        Check("contrast", ("both", "i3d"), by=Share(-0.5, gain), over=gain),
        Check("contrast", ("both", "i3d"), over=gain),
    )
    found = report(collect(stating(study, keeps, grows), recipe, results))
    assert [c.measured for v in found.verdicts for c in v.comparisons] == [-5.0, -5.0]
    assert [v.word for v in found.verdicts] == ["holds", "fails"]


@pytest.mark.parametrize("scale", [1.0, 100.0])
@pytest.mark.parametrize(("least", "word"), [((2.0, 2.5, 3.0), "holds"), ((-1.0, 2.0, 3.0), "undecided")])
def test_ahead_is_ahead_at_every_epoch(
    study: Study, recipe: Recipe, results: Path, measure: Measure, least: tuple[float, ...], word: str, scale: float
) -> None:
    """The smallest lead counts, a number a seed; epochs that one of the two didn't validate are left out."""
    study = replace(study, metric=replace(study.metric, scale=scale, unit="%" if scale == 1 else "mm"))
    for seed, lead in enumerate(least):
        measure("plain", seed, 0.5, curve=[{"step": 1, "val/top1": 50.0}, {"step": 2, "val/top1": 60.0}])
        curve = [{"step": 1, "val/top1": 50.0 + lead}, {"step": 2, "val/top1": 80.0}, {"step": 3, "val/top1": 1.0}]
        measure("block", seed, 0.75, curve=curve)
    found = report(collect(stating(study, Check("ahead", ("block", "plain"), curve="val")), recipe, results))
    comparison = found.verdicts[0].comparisons[0]
    assert comparison.measured == pytest.approx(scale * sum(least) / 3)
    assert comparison.difference is not None
    assert comparison.difference.interval().high > comparison.measured  # what isn't in percent may be beyond 100
    assert found.verdicts[0].word == word


def test_the_soft_score_is_judged_where_every_record_has_one(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    """Top-1 says nothing here; the probability of the right class does. Sizes stay in points of top-1."""
    asked = stating(study, BLOCK_HELPS, Check("about", ("block", "plain"), points=0.0, within=1.0))
    for variant, percent in (("plain", 50.0), ("block", 56.0)):
        for seed in range(3):
            numbers = [percent + i % 3 for i in range(400)][:: 1 if variant == "plain" else -1]
            soft = pack_numbers(numbers)
            kept = {"soft": percent + 399 / 400, "soft_by_video": soft, "soft_by_group": {"space": percent + 399 / 400}}
            bits = pack([i < 200 for i in range(400)])
            measure(variant, seed, 50.0, right_top1=bits, videos_hash="0123456789ab", **kept)
    asked = replace(asked, learned={"space": Learned(50, 60)})
    found = report(collect(asked, recipe, results))
    assert [c.measured for v in found.verdicts for c in v.comparisons] == [pytest.approx(6.0), 0.0]
    assert [v.word for v in found.verdicts] == ["holds", "holds"]
    assert found.lines["a"][1]["gain"] == 0.0  # tables stay with top-1
    columns = {
        column.title: column.cells
        for column in comparison_columns(found, [c for v in found.verdicts for c in v.comparisons])
    }
    assert columns["measured, soft score"] == ["+6.00 [5.92, 6.08]", "+0.0 top-1 [-0.7, 0.7]"]
    assert "reported, top-1" in columns
    cheaper = Check("cheaper", ("block", "i3d"), cost="flops")
    for checks, said in (((cheaper,), "measured"), ((BLOCK_HELPS, cheaper), "measured, soft score or cost")):
        of_costs = report(collect(stating(study, *checks), recipe, results))
        titles = [
            column.title
            for column in comparison_columns(of_costs, [c for v in of_costs.verdicts for c in v.comparisons])
        ]
        assert said in titles
    others = report(collect(stating(study, Check("surpasses", ("block",), against=40.0)), recipe, results))
    measured = next(c for c in comparison_columns(others, others.verdicts[0].comparisons) if "measured" in c.title)
    assert measured.cells[0].startswith("+10.0 top-1 [")  # the score of others is one of top-1
    assert found.learned == {"plain": {"space": (0, 3, None)}, "block": {"space": (3, 3, pytest.approx(56.9975))}}
    assert [column.cells for column in learned_columns(found)] == [
        ["plain", "block"], ["0 of 3 [0, 71]", "3 of 3 [29, 100]"], ["", "57.0"],
    ]  # fmt: skip
    measure("i3d", 0, 50.0)  # a record without: all are judged by top-1
    found = report(collect(asked, recipe, results))
    assert found.verdicts[0].comparisons[0].measured == 0.0
    assert "block" not in found.learned  # top-1 of the group is not known
    record_path(results, "quick", "i3d", 0).unlink()
    measure("i3d", 0, 50.0, soft=50.0, soft_by_video=pack_numbers([50.0] * 400))  # it doesn't say of which videos
    assert not collect(asked, recipe, results).soft


def test_claims_are_judged_on_a_group_of_videos(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    """The block brings 20 points on the last 100 videos, and nothing on the 300 others."""
    hard = [i >= 300 for i in range(400)]
    for variant, gain in (("plain", 0.0), ("block", 20.0)):
        turn = -1 if gain else 1  # the same numbers in another order: differences that are all equal have no interval
        each = [50.0 + turn * i % 3 + gain * is_hard for i, is_hard in enumerate(hard)]
        means = {"hard": sum(each[300:]) / 100, "all": sum(each[:300]) / 300}
        kept = {"soft": sum(each) / 400, "soft_by_video": pack_numbers(each), "soft_by_group": means}
        groups = {"top1_by_group": dict.fromkeys(means, 0.0), "right_top1": pack([False] * 400)}
        groups["videos_by_group"] = {"hard": pack(hard), "all": pack([not one for one in hard])}
        for seed in range(3):
            measure(variant, seed, 0.0, videos_hash="0123456789ab", **kept, **groups)

    def gain_of(judged_on: str) -> float | None:
        asked = replace(stating(study, BLOCK_HELPS), judged_on=judged_on)
        return report(collect(asked, recipe, results)).verdicts[0].comparisons[0].measured

    assert [gain_of(group) for group in ("hard", "all", "", "of other data")] == pytest.approx([20, 0, 5, 5], abs=1e-3)
    found = report(collect(replace(stating(study, BLOCK_HELPS), judged_on="hard"), recipe, results))
    assert "by soft score of hard (the mean probability" in verdict_legend(found)
    assert ">points of soft score</text>" in page(found)  # a long name would run into the columns beside it
    one = Learned(50, 60)
    for named, of_part, said in (
        ({"judged_on": "hrad"}, "", ["judged_on: no record has a group 'hrad'; did you mean 'hard'?"]),
        ({}, "x", ["judged_on: no record has a group 'x'; known: all, hard"]),
        ({"learned": {"hrad": one, "all": one}}, "", ["learned: no record has a group 'hrad'; did you mean 'hard'?"]),
        ({"learned": {"x": one}}, "", ["learned: no record has a group 'x'; known: all, hard"]),
        ({"learned": {"x": one, "hard": one}, "judged_on": "x"}, "", []),  # of other data
    ):
        odd = replace(stating(study, BLOCK_HELPS), **named)
        parts = (Part("scope", "Everywhere.", (BLOCK_HELPS,), judged_on=of_part),)
        odd = replace(odd, claims=tuple(replace(claim, parts=parts) for claim in odd.claims))
        assert remarks(report(collect(odd, recipe, results)), odd.tables["a"])[-len(said) or 9 :] == said
    part = Part("scope", "Everywhere.", (BLOCK_HELPS,), judged_on="all")
    asked = stating(study, BLOCK_HELPS)
    asked = replace(
        asked, claims=tuple(replace(one, parts=(*one.parts, part)) for one in asked.claims), judged_on="hard"
    )
    found = report(collect(asked, recipe, results))
    assert [c.measured for c in found.verdicts[0].comparisons] == pytest.approx([20, 0], abs=1e-3)
    assert f"Parts that are judged on other videos: {asked.claims[0].name} scope on all." in verdict_legend(found)
    in_points = Part("size", "By none.", (Check("about", ("block", "plain"), within=1.0),), judged_on="all")
    of_top1 = replace(asked, claims=(replace(asked.claims[0], parts=(in_points,)),))  # and so of all videos
    assert "judged on other videos" not in verdict_legend(report(collect(of_top1, recipe, results)))
    foreseen = plan_of(collect(asked, recipe, results), None, 10.0, 1.0)
    assert foreseen.videos == (100, 300)
    assert "on 100 to 300 videos" in foreseen.said
    noisy = replace(foreseen, disagreement=50.0)
    seeds = power_columns(asked, noisy)[4].cells[0]
    assert seeds != power_columns(asked, replace(noisy, videos=(300, 300)))[4].cells[0]


def test_a_video_that_one_could_not_read_is_not_judged_by_the_soft_score(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    """The block could not read the first 100; on the others it has 10 points more."""
    for variant, each in (("plain", [40.0] * 100 + [50.0] * 300), ("block", [0.0] * 100 + [60.0] * 300)):
        read = {} if variant == "plain" else {"read_videos": pack([i >= 100 for i in range(400)]), "videos_scored": 300}
        kept = {"soft": sum(each) / 400, "soft_by_video": pack_numbers(each), "right_top1": pack([False] * 400)}
        for seed in range(3):
            measure(variant, seed, 0.0, videos_hash="0123456789ab", **kept, **read)
    found = report(collect(stating(study, BLOCK_HELPS), recipe, results))
    assert found.verdicts[0].comparisons[0].measured == pytest.approx(10.0)


def test_records_of_other_content_are_not_compared(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    def of(test: str) -> dict[str, object]:
        return {"evidence": Evidence(content={"test": test})}

    measure("plain", 0, 50.0)  # an old record says nothing of it
    measure("block", 0, 50.0, **of("bytes:0123456789ab"))
    measure("i3d", 0, 50.0, **of("sizes:0123456789ac"))  # looked at in another way
    collect(study, recipe, results)
    for variant, content in (("block", "bytes:0123456789ac"), ("i3d", "sizes:0123456789ad")):
        kind = content.partition(":")[0]
        record_path(results, "quick", "both", 0).unlink(missing_ok=True)
        measure("both", 0, 50.0, **of(content))
        said = rf"{variant}/seed0.json was tested with {kind}:.* as the hash of its test videos"
        with pytest.raises(UserError, match=said):
            collect(study, recipe, results)


def test_training_on_other_videos_has_to_be_meant(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    for variant, digits in (("plain", "0123456789ab"), ("block", "0123456789ac")):
        measure(variant, 0, 50.0, evidence=Evidence(content={"train": f"bytes:{digits}"}))
    with pytest.raises(UserError, match="block/seed0.json with bytes:0123456789ac: they can't be compared; run one"):
        collect(study, recipe, results)
    half = replace(study.variants["block"], settings=study.variants["block"].settings | {"data.train_list": "half.txt"})
    asked = replace(study, variants={**study.variants, "block": half})
    measure("block", 0, 50.0, evidence=Evidence(content={"train": "bytes:0123456789ac"}),
            config_hash=run_hash(asked, recipe, "block", 0))  # fmt: skip
    assert len(collect(asked, recipe, results).records()) == 2


def test_parts_that_these_data_cannot_test(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measured(measure, {"plain": 200, "block": 300})
    parts = (
        part(BLOCK_HELPS),
        Part("size", "By a point.", (Check("about", ("block", "plain"), points=1.0, within=0.5),), data="kinetics400"),
        Part("scope", "Everywhere.", (BLOCK_HELPS,), not_testable={"quick": "it is too quick", "slow": "it is slow"}),
        Part("scope", "Ever.", not_testable={"": "nobody knows"}),
    )
    copied = Recipe("mine", recipe.files, {"data": {"init_args": {"root": "data/quick"}}})
    assert parts[2].untestable(*copied.names) == "it is too quick"
    asked = replace(study, claims=(Claim("c", "C.", "a", parts),))
    found = report(collect(asked, recipe, results))
    assert by_part(found.verdicts[0]) == (
        "direction holds; size not testable on these data; scope 1 not testable on these data; "
        "scope 2 not testable on these data"
    )
    assert [reason(one, found.verdicts[0].claim, found) for one in found.parts[1:]] == [
        "Its points are those of kinetics400.", "It is too quick.", "Nobody knows.",
    ]  # fmt: skip
    assert summary(found) == (
        "The one claim has 4 parts: 1 holds (c direction), 3 are not testable on these data "
        "(c size, c scope 1, c scope 2)."
    )


def test_what_cost_alone_decides_is_said(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    for variant, flops in (("plain", 2000), ("block", 1000)):
        for seed in range(3):
            measure(variant, seed, 50.0, macs=flops)
    found = report(
        collect(stating(study, Check("cheaper", ("block", "plain"), cost="flops"), BLOCK_HELPS), recipe, results)
    )
    assert "2 parts: 1 stays undecided (c1), 1 holds by cost alone (c0)" in summary(found)
    assert counts(found) == [("holds", 1, "holds, by cost alone"), ("undecided", 1, "undecided")]
    assert by_part(found.verdicts[0]) == "direction holds, by its cost"


def test_of_two_costs_the_one_nearer_to_the_limit_tells(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    for variant, macs in (("plain", 1000), ("block", 500), ("i3d", 900)):
        measure(variant, 0, 50.0, macs=macs)
    cheaper = [Check("cheaper", (name, "plain"), cost="flops") for name in ("block", "i3d")]
    asked = replace(study, claims=(Claim("c", "C.", "a", (part(*cheaper),)),))
    found = report(collect(asked, recipe, results))
    assert "is 0.90x; claimed: below 1x" in reason(found.parts[0], found.verdicts[0].claim, found)


@pytest.mark.parametrize(
    ("mean", "error", "said"),
    [
        (1.234, 1.0, "+1.2 [-0.7, 3.2]"),
        (0.0123, 0.0125, "+0.01 [-0.01, 0.04]"),
        (-0.004, 0.001, "-0.004 [-0.006, -0.002]"),
    ],
)
def test_small_differences_have_more_digits(mean: float, error: float, said: str) -> None:
    assert points_of(Difference(mean, mean, 0.0, error, 1, 400)) == said
    small = Difference(mean / 100, mean / 100, 0.0, error / 100, 1, 400)
    assert points_of(small, replace(TOP1, decimals=6)).startswith(f"{mean / 100:+.6f} [")


def test_parts_without_runs_are_counted_as_waiting(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    measure("plain", 0, 64.0)
    content = Evidence(content={"train": "bytes:0123456789ab", "test": "bytes:0123456789ac"})
    measure("block", 0, 70.5, commit="unknown", dirty=True, evidence=content, versions={"nl-lightning": "0.1.9"})
    measure("block", 1, 70.5, earlier_code=["until step 120: commit 402bae4 (now 0123456789ab)"])
    found = report(collect(study, recipe, results))
    parts = sum(len(verdict.parts) for verdict in found.verdicts)
    assert f"{parts} parts" in summary(found)
    assert "2 stay undecided, as runs are missing" in summary(found)
    assert ("undecided", 2, "undecided, as runs are missing") in counts(found)
    said = "0123456789ab (1 run); version 0.1.9, installed (no git commit) (1 run); "
    said += "0123456789ab, trained in part with other code or packages (1 run)"
    assert ("code", said) in provenance(found.runs)
    assert ("content of the splits", "train bytes:0123456789ab, test bytes:0123456789ac") in provenance(found.runs)


def test_a_look_that_was_not_planned_is_said(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measured(measure, {"plain": 200, "block": 300}, seeds=4)
    asked = replace(stating(study, BLOCK_HELPS), looks=(3, 5))
    assert "A look after 4 seeds was not planned (planned: 3, 5)" in summary(report(collect(asked, recipe, results)))
    assert "planned" not in summary(report(collect(asked, recipe, results, seeds=[0, 1, 2])))
    assert "It takes 3 seeds to decide." in summary(report(collect(asked, recipe, results, seeds=[0, 1])))


BLOCK_HELPS = Check("better", ("block", "plain"))


def test_the_claims_of_table2(recipe: Recipe, results: Path) -> None:
    """Each comparison has what the paper reports, but for curves: nothing in a claim is without its number."""
    study = load_study(find_study("table2"))
    comparisons = compare(collect(study, recipe, results))
    assert len(comparisons) == 56
    assert [c.claim.name for c in comparisons if c.reported is None] == ["fig4", "fig4"]
    shares = {(c.variant, c.than, c.check.cost): (c.reported, c.share) for c in comparisons if c.check.cost}
    assert shares == {
        ("c2d_r50_nl5", "c2d_r101", "params"): (0.7, pytest.approx(0.73, abs=0.005)),
        ("c2d_r50_nl5", "c2d_r101", "flops"): (0.8, pytest.approx(0.81, abs=0.005)),
        ("c2d_r101_nl5", "i3d333_r101", "flops"): (pytest.approx(1.2 / 1.8), pytest.approx(0.70, abs=0.005)),
        ("c2d_r101_nl5", "i3d311_r101", "flops"): (pytest.approx(1.2 / 1.5), pytest.approx(0.84, abs=0.005)),
    }
    reported = judge(study, compare_reported(study), ["kinetics400"])
    assert [(v.claim.name, one.word) for v in reported for one in v.parts if one.word not in ("seen once",)] == [
        ("a3", "not testable"), ("b2", "not testable"), ("c2", "holds"), ("c3", "not testable"), ("e1", "holds"),
        ("fig4", "not testable"), ("fig4", "not testable"),
    ]  # fmt: skip
