"""Products of settings, and where their blocks go."""

import itertools
import re
from pathlib import Path

import pytest

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import BLOCKS, STAGES
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study, spread

STUDY = """
name: product
title: A product
recipe: longrange
variants:
  plain: {{net: {{depth: 50}}}}
grid: {grid}
tables:
  one: {{caption: "One", rows: [{{label: no block, variant: plain}}]}}
"""
FULL = (
    "{net: {depth: 50, inflate: 3x1x1}, instantiation: [gaussian], stage: [res2, res4], blocks: [1, 3, 4],"
    " sum_over: [space, time]}"
)


def test_blocks_go_where_the_paper_and_the_released_code_have_them() -> None:
    table2 = load_study(find_study("table2"))
    for stage, variant in (("res2", "res2"), ("res3", "res3"), ("res4", "res4"), ("res5", "res5")):
        placement = table2.variants[f"c2d_r50_nl1_{variant}"].net["non_local"]["placement"]
        assert placement == {stage: spread(50, stage, 1)}
    assert table2.variants["c2d_r50_nl5"].net["non_local"]["placement"] == {
        "res3": spread(50, "res3", 2),
        "res4": spread(50, "res4", 3),
    }
    for variant, blocks in (("c2d_r101_nl5", 3), ("c2d_r101_nl10", 6)):
        assert table2.variants[variant].net["non_local"]["placement"]["res4"] == spread(101, "res4", blocks)
    assert spread(50, "res3", 4) == [0, 1, 2, 3]


@pytest.mark.parametrize("depth", BLOCKS)
@pytest.mark.parametrize("stage", STAGES)
def test_blocks_are_different_and_within_the_stage(depth: int, stage: str) -> None:
    residual = BLOCKS[depth][STAGES.index(stage)]
    for blocks in range(1, residual + 1):
        after = spread(depth, stage, blocks)
        assert len(set(after)) == blocks
        assert 0 <= min(after) <= max(after) < residual
        apart = {there - before for before, there in itertools.pairwise([-1, *after] if blocks > 1 else after)}
        assert max(apart, default=0) - min(apart, default=0) <= 1
        assert residual - 1 - max(after) < max(2, residual // blocks)  # the end of the stage has its share
    assert spread(depth, stage, residual + 1) == []


def test_a_grid_adds_its_variants(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY.format(grid=FULL))
    study = load_study(tmp_path / "s.yaml")
    assert study.grid is not None
    assert list(study.variants)[1:] == list(study.grid.variants)
    assert len(study.grid.variants) == 2 * 5  # 1, 3 in res2; 1, 3, 4 in res4; over space and time
    assert study.grid.impossible == {"res2x4": "res2 has 3 residual blocks"}
    one = study.variants["gaussian_res4x3_time"]
    assert one.net == {
        "depth": 50,
        "inflate": "3x1x1",
        "non_local": {"placement": {"res4": [1, 3, 5]}, "instantiation": "gaussian", "sum_over": "time"},
    }
    assert study.where({"placement": "res4x3", "sum_over": "time"}) == ["gaussian_res4x3_time"]


@pytest.mark.parametrize(
    ("grid", "complaint"),
    [
        (FULL.replace("res2, res4", "res6"), "grid.stage[0]: expected one of res2, res3, res4, res5, got 'res6'"),
        (FULL.replace("[1, 3, 4]", "[0]"), "grid.blocks[0]: expected a whole number, 1 to 99, got 0"),
        (FULL.replace("[1, 3, 4]", "[]"), "grid.blocks: expected one or more different values"),
        (FULL.replace("[gaussian]", "[gaussian, gaussian]"), "grid.instantiation: expected one or more different"),
        (FULL.replace("[gaussian]", "gaussian"), "grid.instantiation: expected a list"),
        (FULL.replace("blocks", "block"), "grid: unknown key 'block'; did you mean 'blocks'"),
        (FULL.replace("depth: 50", "depth: 51"), "grid.net.depth: expected 50 or 101"),
    ],
)
def test_a_mistake_in_a_grid_is_named(tmp_path: Path, grid: str, complaint: str) -> None:
    (tmp_path / "s.yaml").write_text(STUDY.format(grid=grid))
    with pytest.raises(UserError, match=re.escape(complaint)):
        load_study(tmp_path / "s.yaml")


def test_a_variant_of_the_grid_cannot_be_stated_as_well(tmp_path: Path) -> None:
    text = STUDY.format(grid=FULL).replace("  plain:", "  gaussian_res4x3_time: {net: {depth: 50}}\n  plain:")
    (tmp_path / "s.yaml").write_text(text)
    with pytest.raises(UserError, match="variants.gaussian_res4x3_time: the grid has a variant of this name"):
        load_study(tmp_path / "s.yaml")


def test_a_variant_of_the_grid_can_be_taken_by_another_study(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(STUDY.format(grid=FULL))
    text = STUDY.format(grid="null").replace("  plain:", "  gaussian_res4x3_time: {study: s}\n  plain:")
    (tmp_path / "other.yaml").write_text(text)
    taken, theirs = (load_study(tmp_path / name).variants["gaussian_res4x3_time"] for name in ("other.yaml", "s.yaml"))
    assert taken == theirs
    (tmp_path / "other.yaml").write_text(text.replace("x3_time", "x5_time"))
    with pytest.raises(UserError, match="s.yaml: variants: unknown 'gaussian_res4x5_time'; did you mean"):
        load_study(tmp_path / "other.yaml")


def test_a_variant_of_the_grid_takes_the_place_of_no_other_studys(tmp_path: Path) -> None:
    """A variant that comes with another study starts from a network of that study, which has the same name here."""
    parent = "gaussian_res4x3_time: {net: {depth: 101}}\n  kid: {net: {depth: 50}, init_from: gaussian_res4x3_time}"
    (tmp_path / "other.yaml").write_text(STUDY.format(grid="null").replace("  plain:", f"  {parent}\n  plain:"))
    (tmp_path / "s.yaml").write_text(STUDY.format(grid=FULL).replace("  plain:", "  kid: {study: other}\n  plain:"))
    with pytest.raises(UserError, match="variants.gaussian_res4x3_time: kid, of another study, starts from another"):
        load_study(tmp_path / "s.yaml")


@pytest.mark.parametrize(
    ("columns", "complaint"),
    [
        ({"stages": "res4"}, "variants have no column 'stages'; did you mean 'stage'"),
        ({"stage": "res4", "blocks": "7"}, "no variant has stage=res4, blocks=7"),
    ],
)
def test_columns_that_no_variant_has_are_named(columns: dict[str, str], complaint: str) -> None:
    with pytest.raises(UserError, match=re.escape(complaint)):
        load_study(find_study("table2")).where(columns)
