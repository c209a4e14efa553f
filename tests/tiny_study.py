"""A study of three small networks whose runs take seconds, for tests that really train."""

import shutil
from collections.abc import Mapping
from pathlib import Path

from nl_lightning.runs import worker as process
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import load_recipe
from nl_lightning.study.records import Record
from nl_lightning.study.run import Run, plan

STUDY = """
name: small
title: A small study
recipe: tiny
variants:
  c2d: {net: {depth: 50}}
  nl: {net: {depth: 50, non_local: {placement: {res4: [4]}, instantiation: dot_product, sum_over: spacetime}}}
  long: {net: {depth: 50}, clip: 128f, init_from: c2d}
tables:
  one:
    caption: Everything
    rows:
      - {label: C2D, variant: c2d}
      - {label: NL, variant: nl, baseline: c2d}
      - {label: long, variant: long, baseline: c2d}
"""
RECIPE = """
model:
  net: {{num_classes: 11, width: 0.015625, temporal_strides: [1, 1, 2],
         spatial_strides: [2, 2, 1, 1, 1, 1], dropout: 0}}
  optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 0.003}}}}
data:
  root: {root}
  train_list: train.txt
  val_list: val.txt
  test_list: test.txt
  num_frames: 8
  short_side: [36, 36]
  crop: 32
  test_short_side: 36
  test_crop: 32
  num_clips: 2
  num_crops: 3
  batch_size: 11
  test_batch_size: 4
trainer: {{accelerator: cpu, devices: 1, max_epochs: 3, check_val_every_n_epoch: 2, enable_model_summary: false}}
"""


def write_tiny_study(folder: Path, videos: Path, changes: Mapping[str, str] | None = None) -> None:
    """Write ``study.yaml``, its recipe and, in ``videos``, its own copy of some small videos.

    `changes` are of the recipe's text: what is there, and what takes its place.
    """
    shutil.copytree(videos, folder / "videos")
    recipe = RECIPE.format(root=folder / "videos")
    for there, instead in (changes or {}).items():
        assert there in recipe
        recipe = recipe.replace(there, instead)
    (folder / "study.yaml").write_text(STUDY)
    (folder / "tiny.yaml").write_text(recipe)
    (folder / "tiny_128f.yaml").write_text(
        "model: {freeze_bn: true}\ndata: {num_frames: 16}\ntrainer: {max_epochs: 1}\n"
    )


def planned(folder: Path, variant: str, results: str = "results") -> Run:
    """A run of the study in this folder; what it starts from is left out."""
    study, recipe = load_study(folder / "study.yaml"), load_recipe(folder / "tiny.yaml")
    return plan(study, recipe, [0], folder / results, variants=[variant])[-1]


def execute(run: Run) -> int:
    """Run it in this process; its exit code."""
    return process.main(["run", *run.identity()])


def recorded(run: Run) -> Record:
    """The record of a run that is done."""
    record = run.state().record
    assert record is not None
    return record
