"""Sweeps say what the study says, as W&B's own schema wants it (its schema.json, of the package sweeps 0.3.0, MIT)."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from nl_lightning.errors import UserError
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import load_recipe, run_hash, with_stills
from nl_lightning.study.study import LeftOut
from nl_lightning.tracking import sweeps
from nl_lightning.tracking.sweeps import check_expected, write_sweeps

COMMITTED = Path(__file__).parents[2] / "sweeps"
EARLIER = COMMITTED.parent / "results" / "earlier" / "longrange"
SCHEMA = json.loads((Path(__file__).parent / "wandb_sweep_schema" / "schema.json").read_text())

GRID = """
name: where
title: "Where, and how many?"
recipe: longrange
variants:
  plain: {net: {depth: 50}}
grid:
  net: {depth: 50}
  instantiation: [dot_product, gaussian]
  stage: [res4, res5]
  blocks: [1, 5]
  sum_over: [spacetime]
tables:
  one: {caption: "One", rows: [{label: no block, variant: plain}]}
"""


def loaded(path: Path) -> dict[str, Any]:
    sweep: dict[str, Any] = yaml.safe_load(path.read_text())
    return sweep


@pytest.fixture
def grid(tmp_path: Path) -> Path:
    (tmp_path / "where.yaml").write_text(GRID)
    return tmp_path / "where.yaml"


@pytest.mark.parametrize(
    ("study", "recipe", "folder", "tables"),
    [
        ("table2", "longrange", COMMITTED, [*"abcdefg"]),
        ("table2", "kinetics400_paper", COMMITTED / "kinetics400_paper", [*"abcdefg"]),
        ("table4", "charades", COMMITTED, ["-val"]),  # what others report has nothing to run
    ],
)
def test_the_committed_sweeps_are_in_step_with_the_study(
    tmp_path: Path, study: str, recipe: str, folder: Path, tables: list[str]
) -> None:
    under = load_recipe(recipe)
    written = write_sweeps(with_stills(load_study(find_study(study)), under), under, [0], tmp_path, False)
    assert [path.name for path in written] == [f"{study}{table}.yaml" for table in ("", *tables)]
    assert {path.name for path in folder.glob(f"{study}*.yaml")} == {path.name for path in written}
    for path in written:
        assert path.read_text() == (folder / path.name).read_text(), f"nl-lightning sweeps {study} --recipe {recipe}"


@pytest.mark.parametrize("path", sorted(COMMITTED.rglob("*.yaml")), ids=lambda path: f"{path.parent.name}/{path.name}")
def test_wandb_takes_it(path: Path) -> None:
    sweep = loaded(path)
    jsonschema.validate(sweep, SCHEMA)
    names = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
    assert all(names.fullmatch(name) for name in sweep["parameters"])
    known = {"env", "args", "args_no_hyphens"}
    macros = [word for word in sweep["command"] if "${" in word]
    assert all(word.startswith("${") and word[2:-1] in known for word in macros)  # replaced as whole words only


def test_a_sweep_has_a_point_for_each_run(tmp_path: Path) -> None:
    study, recipe = load_study(find_study("table2")), load_recipe("longrange")
    whole, *_, g = write_sweeps(study, recipe, [0, 1, 0], tmp_path, False, EARLIER)
    sweep = loaded(whole)
    assert sweep["parameters"] == {"variant": {"values": study.select()}, "seed": {"values": [0, 1]}}
    assert sweep["run_cap"] == 2 * len(study.variants) == 58
    assert sweep["metric"] == {"name": "top1", "goal": "maximize"}
    assert sweep["command"][:5] == ["${env}", "nl-lightning", "run", "table2", "--recipe=longrange"]
    of_g = loaded(g)["parameters"]["variant"]["values"]
    assert "c2d_r50_128f" in of_g
    assert of_g.index("c2d_r50") < of_g.index("c2d_r50_128f")  # parents first
    assert whole.read_text().startswith("# 58 runs of the study table2 under the recipe longrange.")
    assert "# Hardware: two CPU cores" in whole.read_text()
    assert re.search(r"# Cost: \d+\.\d hours of one agent in all, as measured on CPU", whole.read_text())


def test_a_sweep_knows_what_it_was_made_for(tmp_path: Path) -> None:
    study, recipe = load_study(find_study("table2")), load_recipe("longrange")
    path = write_sweeps(study, recipe, [0], tmp_path, False)[1]
    (expected,) = [w.removeprefix("--expect=") for w in loaded(path)["command"] if w.startswith("--expect=")]
    check_expected(study, recipe, expected, ["c2d_r50", "c2d_r50_nl1_res4_dot"])
    with pytest.raises(UserError, match=r"the sweep was made without 'c2d_r101'; make it again"):
        check_expected(study, recipe, expected, ["c2d_r101"])
    now = run_hash(study, recipe, "c2d_r50", 0)
    one_changed = expected.replace(now, "0123456789ab")
    with pytest.raises(UserError, match=f"c2d_r50 has the configuration {now}, but .* 0123456789ab: it has changed"):
        check_expected(study, recipe, one_changed, ["c2d_r50"])
    check_expected(study, recipe, one_changed, ["c2d_r50_nl1_res4_dot"])  # the others are as they were
    with pytest.raises(UserError, match=r"the recipe longrange_smoke has changed since, with 5 of 5 variants"):
        check_expected(study, load_recipe("longrange_smoke"), expected, ["c2d_r50"])


def test_a_sweep_of_another_study_stays(tmp_path: Path) -> None:
    """Table 1 of lab2, and a study lab2_1."""
    study, recipe = load_study(find_study("table2")), load_recipe("longrange")
    lab = replace(study, name="lab2", tables={"1": replace(study.tables["2a"], name="1")})
    assert [path.name for path in write_sweeps(lab, recipe, [0], tmp_path, False)] == ["lab2.yaml", "lab2_1.yaml"]
    with pytest.raises(UserError, match=r"lab2_1\.yaml is there .* didn't write it for the study lab2_1: name another"):
        write_sweeps(replace(lab, name="lab2_1"), recipe, [0], tmp_path, False)


@pytest.mark.parametrize(
    ("name", "tables", "files"),
    [
        ("lab1", ["1", "1a", "1b"], ["lab1", "lab1_1", "lab1a", "lab1b"]),
        ("lab1", ["x", "1_x"], ["lab1", "lab1_x", "lab1_1_x"]),
        ("lab", ["grid", "x"], ["lab", "lab_table_grid", "lab_x", "lab_grid"]),
    ],
)
def test_no_sweep_takes_the_name_of_another(
    tmp_path: Path, grid: Path, name: str, tables: list[str], files: list[str]
) -> None:
    study = load_study(grid)
    study = replace(study, name=name, tables={table: replace(study.tables["one"], name=table) for table in tables})
    written = write_sweeps(study, load_recipe("longrange_smoke"), [0], tmp_path, name == "lab", tmp_path)
    assert [path.stem for path in written] == files
    assert len({*written}) == len(files)


def test_a_study_of_ones_own_is_named_by_its_path(tmp_path: Path, grid: Path) -> None:
    (tmp_path / "mine.yaml").write_text("data: {num_frames: 8}\n")
    study, recipe = load_study(grid), load_recipe(tmp_path / "mine.yaml")
    whole, table = write_sweeps(study, recipe, [0], tmp_path / "sweeps", False, tmp_path)
    assert [whole.name, table.name] == ["where.yaml", "where_one.yaml"]
    assert loaded(table)["command"][3:5] == [str(grid), f"--recipe={tmp_path / 'mine.yaml'}"]
    assert "Cost:" not in whole.read_text()  # nothing has been measured


def test_agents_find_the_files_that_the_sweep_names(
    tmp_path: Path, grid: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A name stands for a file only where it leads to that very file; a study may have another name than its file."""
    mine = tmp_path / "longrange.yaml"  # not the committed recipe of this name
    mine.write_text("data: {num_frames: 8}\n")
    monkeypatch.chdir(tmp_path)
    (tmp_path / "experiments" / "recipes").mkdir(parents=True)
    (tmp_path / "experiments" / "own.yaml").write_text(GRID)
    (tmp_path / "experiments" / "recipes" / "there.yaml").write_text("data: {num_frames: 8}\n")
    for study, recipe, named in [
        ("experiments/own.yaml", "longrange.yaml", ["own", "--recipe=longrange.yaml"]),
        ("own", "there", ["own", "--recipe=there"]),
        ("where.yaml", "experiments/recipes/there.yaml", ["where.yaml", "--recipe=there"]),
    ]:
        of = load_study(find_study(study))
        under = load_recipe(recipe)
        (whole, _) = write_sweeps(of, under, [0], tmp_path / "sweeps", False, tmp_path)
        command = loaded(whole)["command"]
        assert command[3:5] == named
        assert find_study(command[3]).samefile(study if "/" in study or "." in study else f"experiments/{study}.yaml")
        assert load_recipe(command[4].removeprefix("--recipe=")).files[0].samefile(under.files[0])


def test_a_grid_has_an_axis_for_each_setting_and_names_the_places_that_cannot_be(tmp_path: Path, grid: Path) -> None:
    recipe = load_recipe("longrange")  # whose networks start from stills
    study = with_stills(load_study(grid), recipe)
    *_, product = write_sweeps(study, recipe, [0, 0], tmp_path / "sweeps", True, tmp_path, Path("ours"))
    assert product.name == "where_grid.yaml"
    sweep = loaded(product)
    jsonschema.validate(sweep, SCHEMA)
    assert sweep["parameters"] == {
        "instantiation": {"values": ["dot_product", "gaussian"]},
        "stage": {"values": ["res4", "res5"]},
        "blocks": {"values": [1, 5]},
        "sum_over": {"values": ["spacetime"]},
        "seed": {"values": [0]},
    }
    assert sweep["run_cap"] == 8
    assert sweep["command"][-2:] == ["--where", "${args_no_hyphens}"]
    assert "--results=ours" in sweep["command"]
    (expected,) = [w.removeprefix("--expect=") for w in sweep["command"] if w.startswith("--expect=")]
    check_expected(study, recipe, expected, study.select(variants=["gaussian_res4x1_spacetime"]))  # and its stills
    assert "# Left out: res5x5: res5 has 3 residual blocks. Its points end at once." in product.read_text()
    for stage, blocks in (("res4", "1"), ("res4", "5"), ("res5", "1")):
        assert len(study.where({"instantiation": "gaussian", "stage": stage, "blocks": blocks})) == 1
    with pytest.raises(LeftOut, match="no variant has stage=res5, blocks=5: res5 has 3 residual blocks"):
        study.where({"stage": "res5", "blocks": "5"})


def test_a_study_without_a_grid_has_no_product(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="table2.yaml: no 'grid', so there is no product to write"):
        write_sweeps(load_study(find_study("table2")), load_recipe("longrange"), [0], tmp_path, True)
    assert list(tmp_path.iterdir()) == []


def test_words_come_back_from_yaml_as_they_are(grid: Path) -> None:
    words = ["--expect=a=1 b=2 c=3", "${args}", "a: b", "two  blanks", "yes", "1.5", "1e3", "1_000", "1:30", "2a"]
    text = sweeps._sweep(load_study(grid), "010", "# Caf\u00e9", ["Read\nme"], {"variant": words}, words)
    assert text.startswith("# Read")
    sweep = yaml.safe_load(text)
    assert [sweep["name"], sweep["description"]] == ["010", "# Caf\u00e9"]
    assert sweep["command"] == sweep["parameters"]["variant"]["values"] == words
