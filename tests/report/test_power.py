from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nl_lightning.cli import main
from nl_lightning.errors import UserError
from nl_lightning.report.collate import collect
from nl_lightning.report.power import plan_of, power_columns, seeds_needed, videos_needed
from nl_lightning.study.checks import Check, Claim, Part, Share
from nl_lightning.study.packing import pack
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.records import Record
from nl_lightning.study.study import Study

Measure = Callable[..., Record]


def test_videos_by_hand() -> None:
    """(1.96 + 0.84)^2 = 7.849 standard errors squared, of a variance of 10 % x 100^2 over the videos."""
    assert videos_needed(1.0, 10.0) == 7849
    assert videos_needed(0.5, 10.0) == 4 * 7849
    assert videos_needed(0.0, 10.0) is None
    assert videos_needed(-0.1, 10.0) is None


def test_seeds_by_hand() -> None:
    """No noise of testing: three seeds at t = 4.30 + 1.06, four at 3.18 + 0.98. Fewer never decide."""
    assert seeds_needed(10.0, 1.0, 10.0, 10**9) == 3
    assert seeds_needed(3.2, 1.0, 10.0, 10**9) == 3
    assert seeds_needed(3.0, 1.0, 10.0, 10**9) == 4
    assert seeds_needed(1.0, 0.1, 10.0, 7000) is None  # more seeds don't replace videos


def test_what_is_taken_from_records(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    for seed, share in enumerate((280, 288)):
        for variant, right in (("plain", 240), ("block", share)):
            bits = pack([i < right for i in range(400)])
            measure(variant, seed, right / 4, right_top1=bits, videos_hash="0123456789ab")
    plan = plan_of(collect(study, recipe, results), None, None, None)
    assert ({*plan.videos}, plan.disagreement, plan.seed_noise) == ({400}, 11.0, pytest.approx(2**0.5))
    assert plan.said.count("(median of the records)") == 2
    given = plan_of(collect(study, recipe, results), 1000, 15.0, 0.5)
    assert ({*given.videos}, given.disagreement, given.seed_noise) == ({1000}, 15.0, 0.5)
    assert given.said.count("(given)") == 2


def test_a_claim_is_as_hard_as_its_hardest_comparison(study: Study, recipe: Recipe, results: Path) -> None:
    assumed = plan_of(collect(replace(study, reported_videos=19_761), recipe, results), None, None, None)
    assert {*assumed.videos} == {19_761}
    assert (
        "marked *, reported on kinetics400. Two networks split on 10.0 % of the videos (assumed, as on Kinetics)"
        in assumed.said
    )
    columns = power_columns(study, assumed)
    helps, alike, more = zip(*(column.cells for column in columns), strict=True)
    assert helps == ("helps direction", "NL - C2D", "+1.1*", "29,081", "> 100")  # 0.6 to show, as one of three parts
    assert alike[:3] == ("alike direction", "I3D (a) - NL (a)", "+0.4*")  # 0.1 within the margin
    assert int(alike[3].replace(",", "")) > 1_000_000
    assert more == ("more direction", "NL_I3D (a) - I3D (a)", "", "", "")  # not reported


@pytest.mark.parametrize(("seeds", "mark"), [(0, "*"), (2, "")])
def test_the_score_of_others_is_paired_with_nothing(
    study: Study, recipe: Recipe, results: Path, measure: Measure, seeds: int, mark: str
) -> None:
    """Of one accuracy of 76 % the variance is 0.76 x 0.24, and says nothing of two networks that are compared."""
    for seed in range(seeds):
        for variant, right in (("plain", 300), ("block", 304)):
            bits = pack([i < right for i in range(400)])
            measure(variant, seed, right / 4, right_top1=bits, videos_hash="0123456789ab")
    row = replace(study.tables["a"].rows[1], reported={"top1": 76.0})
    checks = (Check("surpasses", ("block",), against=75.0), Check("better", ("block", "plain")))
    claims = tuple(Claim(f"c{i}", "C.", "a", (Part("direction", "C.", (one,)),)) for i, one in enumerate(checks))
    tables = {"a": replace(study.tables["a"], rows=(study.tables["a"].rows[0], row))}
    plan = plan_of(collect(replace(study, tables=tables, claims=claims), recipe, results), 2000, None, None)
    assert plan.disagreement == (1.0 if seeds else 10.0)
    cells = [column.cells[0] for column in power_columns(study, plan)]
    assert cells[2:4] == [f"+1.0{mark}", f"{videos_needed(1.0, 18.24, 0.025):,}"]


@pytest.mark.parametrize(("effect", "needed"), [(0.5, videos_needed(0.5, 10.0, 0.05)), (-4.0, None)])
def test_the_effect_of_a_share_has_to_be_there(
    study: Study, recipe: Recipe, results: Path, measure: Measure, effect: float, needed: int | None
) -> None:
    """Ten points are far above half of such an effect; the effect itself is what is hard to show."""
    for variant, top1 in (("plain", 60.0), ("i3d", 60.0 + effect), ("block", 70.0)):
        measure(variant, 0, top1)
    check = Check("better", ("block", "plain"), by=Share(0.5, ("i3d", "plain")))
    claims = (Claim("c", "C.", "a", (Part("direction", "C.", (check,)),)),)
    plan = plan_of(collect(replace(study, claims=claims), recipe, results), 2000, 10.0, 0.5)
    cells = [column.cells[0] for column in power_columns(study, plan)]
    assert cells[2:4] == ["+10.0", f"{needed:,}" if needed else "never"]
    assert cells[4] == "> 100"


def test_mistakes(study: Study, recipe: Recipe, results: Path) -> None:
    with pytest.raises(UserError, match=r"small.yaml: how many test videos\? Say --videos N"):
        plan_of(collect(study, recipe, results), None, None, None)
    with pytest.raises(UserError, match=r"small.yaml: no claim compares accuracies"):
        plan_of(collect(replace(study, claims=()), recipe, results), 100, None, None)


def test_networks_that_agree_everywhere(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    """No disagreement, no noise of seeds: one video and three seeds would do, by the formula."""
    plan = plan_of(collect(study, recipe, results), 600, 0.0, 0.0)
    assert [column.cells[0] for column in power_columns(study, plan)[3:]] == ["1", "3"]


@pytest.mark.parametrize("option", ["--videos", "--disagreement", "--seed-noise"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "inf", "1e400", "9" * 400, "x", ""])
def test_odd_numbers_are_one_line(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", "table2", f"{option}={value}"]) == 2
    error = capsys.readouterr().err
    assert f"{option}: expected a" in error
    assert error.count("\n") == 1
