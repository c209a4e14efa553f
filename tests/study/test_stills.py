"""Networks of stills: which there are, in which order, in whose hashes, and recipes that are refused."""

from pathlib import Path

import pytest

from nl_lightning.errors import UserError
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import Recipe, load_recipe, run_hash, with_stills
from nl_lightning.study.run import identified, plan
from nl_lightning.study.study import Study

STUDY = """
name: small
title: A small study
recipe: quick
variants:
  plain: {net: {depth: 50}}
  deep: {net: {depth: 101, inflate: 3x1x1}}
  block: {net: {depth: 50, non_local: {placement: {res4: [4]}, instantiation: dot_product, sum_over: time}}}
  wide: {net: {depth: 50, width: 0.5}}
  long: {net: {depth: 50}, clip: 128f, init_from: plain}
tables:
  a: {caption: One block, rows: [{label: none, variant: plain}, {label: one, variant: block, baseline: plain}]}
"""
RECIPE = "stills: true\nmodel: {loaded_lr: 0.1}\ndata: {num_frames: 8}\n"
OVERLAY = "model: {multi_label: true, net: {num_classes: 4}}\ndata: {num_frames: 1}\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {"small": STUDY, "quick": RECIPE, "quick_stills": OVERLAY, "quick_128f": "data: {num_frames: 16}\n"}
    files["quick_new"] = "model: {init_new: [fc]}\n"
    for name, text in files.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


def loaded(folder: Path) -> tuple[Study, Recipe]:
    recipe = load_recipe(folder / "quick.yaml")
    return with_stills(load_study(folder / "small.yaml"), recipe), recipe


def test_each_depth_and_width_has_one(folder: Path) -> None:
    study, _ = loaded(folder)
    starts = {name: variant.init_from for name, variant in study.variants.items()}
    assert starts == {
        "plain": "stills_r50", "deep": "stills_r101", "block": "stills_r50", "wide": "stills_r50_w0.5",
        "long": "plain", "stills_r50": None, "stills_r101": None, "stills_r50_w0.5": None,
    }  # fmt: skip
    assert study.variants["stills_r50_w0.5"].arguments() == ["--model.net.depth=50", "--model.net.width=0.5"]
    assert study.compared == ["plain", "deep", "block", "wide", "long"]
    (folder / "quick.yaml").write_text(RECIPE.replace("true", "false"))
    assert loaded(folder)[0] == load_study(folder / "small.yaml")


def test_they_are_trained_first_and_passed_on(folder: Path) -> None:
    study, recipe = loaded(folder)
    runs = plan(study, recipe, [3], folder / "results", tables=["a"])
    assert [run.name for run in runs] == ["stills_r50 seed 3", "plain seed 3", "block seed 3"]
    stills, _, block = runs
    assert stills.parent is None
    assert stills.recipe.files == (folder / "quick.yaml", folder / "quick_stills.yaml")
    assert stills.recipe.known.model.multi_label
    assert block.parent == stills
    assert f"--model.init_from={stills.checkpoint}" in block.arguments()
    assert "--model.init_new=[non_local, fc]" in block.arguments()
    long = plan(study, recipe, [3], folder / "results", variants=["long"])
    assert [run.variant.name for run in long] == ["stills_r50", "plain", "long"]
    assert not any("init_new" in word for word in long[-1].arguments())  # of the same network
    assert [identified(*map(str, run.identity())) for run in runs] == runs  # as a process of its own sees them


def test_what_changes_them_changes_all_that_start_from_them(folder: Path) -> None:
    study, recipe = loaded(folder)
    before = {name: run_hash(study, recipe, name, 0) for name in study.variants}
    assert len(set(before.values())) == len(before)
    (folder / "quick_stills.yaml").write_text(OVERLAY + "trainer: {max_epochs: 2}\n")
    assert all(run_hash(study, recipe, name, 0) != hash_ for name, hash_ in before.items())


@pytest.mark.parametrize(
    ("file", "text", "said"),
    [
        ("quick_stills", None, r"quick.yaml: stills: there is no \S*quick_stills.yaml, which says how"),
        ("quick_stills", "data: {num_frames: 8}", "quick_stills.yaml: data.num_frames: expected 1, .*, got 8"),
        ("quick_stills", "model: {net: {inflate: 3x1x1}}", "model.net.inflate belongs to the variants"),
        ("quick", RECIPE.replace("loaded_lr: 0.1", "init_from: a.ckpt"), "from stills, or from model.init_from: leave"),
        ("quick", RECIPE.replace("loaded_lr: 0.1", "imagenet: a.pth"), "from stills, or from model.imagenet: leave"),
        ("quick", RECIPE.replace("loaded_lr: 0.1", "init_new: []"), "from stills, which set model.init_new: leave"),
        ("small", STUDY.replace("width: 0.5}", "width: 0.5}, clip: new"),
         "quick_new.yaml: networks start from stills, which set model.init_new: leave one"),
        ("quick", RECIPE.replace("true", "yes please"), "quick.yaml: stills: expected true or false"),
        ("small", STUDY.replace("depth: 101, inflate: 3x1x1}", "depth: 101}, settings: {model.init_from: a.ckpt}"),
         "small.yaml: variants.deep: starts from stills, or from model.init_from: leave one"),
        ("small", STUDY.replace("depth: 101, inflate: 3x1x1}", "depth: 101}, settings: {model.init_new: [fc]}"),
         "small.yaml: variants.deep: starts from stills, which set model.init_new: leave one"),
        ("small", STUDY.replace("wide", "stills_r50"), "small.yaml: variants.stills_r50: recipe quick has a network"),
    ],
)  # fmt: skip
def test_recipes_that_are_refused(folder: Path, file: str, text: str | None, said: str) -> None:
    if text is None:
        (folder / f"{file}.yaml").unlink()
    else:
        (folder / f"{file}.yaml").write_text(text)
    with pytest.raises(UserError, match=said) as refused:
        loaded(folder)
    assert len(str(refused.value).splitlines()) == 1
