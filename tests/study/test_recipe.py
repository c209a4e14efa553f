"""Recipes, and the hash of what can change a run's numbers."""

import hashlib
from dataclasses import replace
from pathlib import Path

import pytest

from nl_lightning.errors import UserError
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import Recipe, hash_of, load_recipe, run_hash
from nl_lightning.study.study import Study, Variant

SMALL = """
name: small
title: "A small study"
recipe: quick
variants:
  plain: {net: {depth: 50}}
  block: {net: {depth: 50, non_local: {placement: {res4: [4]}, instantiation: dot_product, sum_over: time}}}
  long: {net: {depth: 50}, clip: 128f, init_from: plain}
tables:
  a: {caption: "One block", rows: [{label: none, variant: plain}, {label: one, variant: block, baseline: plain}]}
"""


def small(tmp_path: Path, text: str = SMALL) -> Study:
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return load_study(path)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    folder = tmp_path / "experiments" / "recipes"
    folder.mkdir(parents=True)
    (folder / "quick.yaml").write_text(
        "model: {net: {width: 0.25}, optimizer: {lr: 0.1, betas: [0.9, 0.99]}}\n"
        "data: {root: here, num_frames: 8, num_workers: 0}\n"
        "trainer: {max_epochs: 2, accelerator: cpu}\n"
    )
    (folder / "quick_128f.yaml").write_text(
        "model: {optimizer: {betas: [0.5]}, freeze_bn: true}\ndata: {num_frames: 16}\n"
    )
    return load_recipe(folder / "quick.yaml")


def config_hash(recipe: Recipe, variant: Variant, parent_hash: str | None, seed: int) -> str:
    return hash_of(recipe.config, variant.arguments(), parent_hash, seed)


def test_a_clip_is_an_overlay(recipe: Recipe) -> None:
    long = recipe.with_clip("128f")
    assert (long.name, [file.name for file in long.files]) == ("quick", ["quick.yaml", "quick_128f.yaml"])
    assert long.config == {
        "model": {"net": {"width": 0.25}, "optimizer": {"lr": 0.1, "betas": [0.5]}, "freeze_bn": True},
        "data": {"root": "here", "num_frames": 16, "num_workers": 0},
        "trainer": {"max_epochs": 2, "accelerator": "cpu"},
    }
    assert recipe.config["data"]["num_frames"] == 8  # the plain one is as it was
    assert recipe.with_clip(None) is recipe
    with pytest.raises(
        UserError, match=r"recipe 'quick' has no .*quick_64f.yaml, which variants with 'clip: 64f' need"
    ):
        recipe.with_clip("64f")


def test_recipes_that_are_refused(recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_recipe("quick").config == recipe.config
    with pytest.raises(UserError, match=r"no recipe 'quik' in experiments/recipes or .*; did you mean 'quick'"):
        load_recipe("quik")
    path = tmp_path / "own.yaml"
    for key in ("depth: 50", "inflate: 3x1x1", "non_local: {sum_over: time}", "control: {kind: pixel}"):
        path.write_text(f"model: {{net: {{{key}}}}}")
        with pytest.raises(UserError, match=f"model.net.{key.split(':')[0]} belongs to the variants"):
            load_recipe(path)
    path.write_text("model: {a: 1, a: 2}")
    with pytest.raises(UserError, match="line 1: the key 'a' is given twice"):
        load_recipe(path)
    path.write_text("data: {num_frames: 8}\ndata.num_frames: 4")  # the second was trained with, and the first planned
    with pytest.raises(UserError, match="own.yaml: 'data.num_frames': write it as data: {num_frames: ...}"):
        load_recipe(path)
    path.write_text("data: {class_path: a.B, init_args: {names: [~, '~']}}")
    with pytest.raises(UserError, match="own.yaml: data: the text '~' would become None; choose another"):
        load_recipe(path)
    path.write_text("data: {class_path: a.B, init_args: {names: {a.b: 1}}}")
    load_recipe(path)


def test_the_hash_is_what_it_was(recipe: Recipe, tmp_path: Path) -> None:
    """A change of how hashes are made turns every record ever measured stale: don't."""
    study = small(tmp_path)
    assert config_hash(recipe, study.variants["block"], None, 0) == "23683c6d94e2"
    assert run_hash(study, recipe, "long", 3) == "dd30403b7dc0"


def test_the_hash_changes_with_what_can_change_a_number(recipe: Recipe, tmp_path: Path) -> None:
    study = small(tmp_path)
    plain, block = study.variants["plain"], study.variants["block"]
    sections = recipe.config
    changed = [
        (recipe, plain, None, 1),
        (recipe, plain, "0123456789ab", 0),
        (recipe, block, None, 0),
        (recipe.with_clip("128f"), plain, None, 0),
        (replace(recipe, config={**sections, "data": {**sections["data"], "num_frames": 9}}), plain, None, 0),
        (replace(recipe, config={**sections, "optimizer": {"lr": 1}}), plain, None, 0),
        # A batch is per process: eight of them are another batch.
        (replace(recipe, config={**sections, "trainer": {**sections["trainer"], "devices": 8}}), plain, None, 0),
    ]
    hashes = {config_hash(*arguments) for arguments in [(recipe, plain, None, 0), *changed]}
    assert len(hashes) == len(changed) + 1

    moved = {
        **sections,
        "data": {**sections["data"], "root": "there", "num_workers": 8},
        "trainer": {**sections["trainer"], "accelerator": "gpu", "devices": 1, "logger": False},
        "seed_everything": 5,
    }
    renamed = replace(plain, name="other")
    same = replace(recipe, name="other", files=(Path("elsewhere.yaml"),), config=dict(reversed(moved.items())))
    assert config_hash(same, renamed, None, 0) == config_hash(recipe, plain, None, 0)


def test_the_hash_of_a_child_follows_its_parent(recipe: Recipe, tmp_path: Path) -> None:
    study = small(tmp_path)
    other = small(tmp_path, SMALL.replace("plain: {net: {depth: 50}}", "plain: {net: {depth: 50, inflate: 3x1x1}}"))
    assert run_hash(study, recipe, "long", 0) != run_hash(other, recipe, "long", 0)
    assert run_hash(study, recipe, "block", 0) == run_hash(other, recipe, "block", 0)


GOLDEN = {
    ("table2", "charades"): (23, "1a7ff4a4632a"),
    ("table2", "folder"): (23, "a52a6727c13f"),
    ("table2", "hmdb51"): (23, "ed16cc1295fa"),
    ("table2", "kinetics400_paper"): (29, "049ace878ec4"),
    ("table2", "kinetics400_release"): (29, "a1a4ee4708d2"),
    ("table2", "kinetics400_release_8x8"): (29, "fd5825aa8c86"),
    ("table2", "kinetics600"): (23, "4fd028e8e457"),
    ("table2", "kinetics700"): (23, "896265cb704a"),
    ("table2", "longrange"): (29, "b1b52e775689"),
    ("table2", "longrange_smoke"): (29, "3da3dd1769b0"),
    ("table2", "something_v2"): (23, "008bd36b9e11"),
    ("table2", "ucf101"): (23, "f03a642c241c"),
    ("table4", "charades"): (2, "5c2e090fdff5"),
}


@pytest.mark.parametrize(("study", "recipe"), GOLDEN)
def test_no_run_has_another_hash_than_before(study: str, recipe: str) -> None:
    """The digests cover seeds 0 and 1 of every variant that the recipe has the clips for.

    Where a recipe's numbers are meant to change, its digest here changes with it, and so do all its records.
    """
    of, under = load_study(find_study(study)), load_recipe(recipe)
    lines = []
    for variant in of.variants.values():
        if variant.clip is None or under.overlay(variant.clip).is_file():
            hashes = [run_hash(of, under, variant.name, seed) for seed in (0, 1)]
            lines.append(" ".join([variant.name, *hashes]) + "\n")
    digest = hashlib.sha256("".join(lines).encode()).hexdigest()[:12]
    assert (len(lines), digest) == GOLDEN[study, recipe]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "expected 'key: value' pairs, got []"),
        ("", "expected 'key: value' pairs, got None"),
        ("data: {folds: null}", "data.folds: expected a whole number of at least 1, got None"),
        ("data: {folds: 0}", "data.folds: expected a whole number of at least 1, got 0"),
        ("data: {num_frames: many}", "data.num_frames: expected a whole number of at least 1, got 'many'"),
        ("model: {multi_label: 1}", "model.multi_label: expected true or false, got 1"),
        ("model: null", "model: expected 'key: value' pairs, got None"),
        ("trainer: {max_epochs: 2026-01-01}", "trainer.max_epochs: expected a text, a number, a list or a mapping"),
    ],
)
def test_what_a_study_has_to_know_of_a_recipe_is_checked(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "own.yaml").write_text(text)
    with pytest.raises(UserError) as caught:
        load_recipe(tmp_path / "own.yaml")
    assert str(caught.value).startswith(f"{tmp_path / 'own.yaml'}: {said}")


def test_a_recipe_is_read_without_importing_what_it_names(tmp_path: Path) -> None:
    (tmp_path / "own.yaml").write_text("model: {optimizer: {class_path: this.is.nowhere}}\ndata: {root: here}")
    recipe = load_recipe(tmp_path / "own.yaml")
    assert (recipe.folds, recipe.known.data.num_frames, recipe.known.model.multi_label) == (1, None, False)
    assert run_hash(small(tmp_path), recipe, "plain", 0)
