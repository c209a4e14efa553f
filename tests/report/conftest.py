"""A study of five networks with hand-made records: small enough to check every figure by hand."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import pytest

from nl_lightning.report.claims import Report, report
from nl_lightning.report.collate import collect
from nl_lightning.study.checks import Part
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import Recipe, load_recipe, run_hash
from nl_lightning.study.records import Record, write_record
from nl_lightning.study.study import Study

STUDY = """
name: small
title: "A small study"
reported_on: kinetics400
recipe: quick
variants:
  plain: {net: {depth: 50}}
  block: {net: {depth: 50, non_local: {placement: {res4: [4]}, instantiation: dot_product, sum_over: time}}}
  i3d: {net: {depth: 50, inflate: 3x1x1}}
  both: {net: {depth: 50, inflate: 3x1x1, non_local: {placement: {res5: [1]}, instantiation: gaussian, sum_over: time}}}
  plain_128f: {net: {depth: 50}, clip: 128f, init_from: plain}
tables:
  a:
    caption: "Blocks & costs"
    rows:
      - {label: C2D, variant: plain, reported: {top1: 71.8, top5: 89.7, params_ratio: 1.0, flops_ratio: 1.0}}
      - label: NL
        variant: block
        baseline: plain
        reported: {top1: 72.9, top5: 90.3, params_ratio: 1.1, flops_ratio: 1.2}
      - label: I3D
        variant: i3d
        baseline: plain
        reported: {top1: 73.3, top5: 90.7, params_ratio: 1.2, flops_ratio: 1.5}
      - {label: NL_I3D, variant: both, baseline: plain}
  b:
    caption: "Long clips"
    rows:
      - {label: C2D, variant: plain_128f, baseline: plain, reported: {top1: 73.8, top5: 91.2}}
claims:
  - id: helps
    table: a
    text: A block helps, and costs less than 3D convolution.
    checks:
      - better: {variant: block, than: plain, by: 0.5}
      - cheaper: {variant: block, than: i3d, in: flops}
      - cheaper: {variant: block, than: i3d, in: params, reported: 0.9}
  - id: alike
    text: Blocks and 3D convolution help about as much.
    checks:
      - alike: {variants: [block, i3d], within: 0.5}
  - id: more
    text: More is better.
    checks:
      - ordered: {variants: [plain, i3d, both]}
  - {id: why, text: It looks further., note: an interpretation}
"""

Measure = Callable[..., Record]


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "small.yaml"
    path.write_text(STUDY)
    return load_study(path)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    (tmp_path / "quick.yaml").write_text("data: {num_frames: 8}")
    (tmp_path / "quick_128f.yaml").write_text("data: {num_frames: 32}")
    return load_recipe(tmp_path / "quick.yaml")


@pytest.fixture
def results(tmp_path: Path) -> Path:
    return tmp_path / "results"


@pytest.fixture
def measure(study: Study, recipe: Recipe, results: Path) -> Measure:
    """``measure(variant, seed, top1, **fields)`` files a record, of today's configuration if not said otherwise."""

    def file(variant: str, seed: int, top1: float, /, **fields: object) -> Record:
        videos: Any = fields.get("videos_expected", 400)
        missing = videos - cast(int, fields.get("videos_scored", videos))
        content: dict[str, object] = {
            "study": study.name,
            "recipe": recipe.name,
            "variant": variant,
            "seed": seed,
            "config_hash": run_hash(study, recipe, variant, seed),
            "config": {},
            "top1": top1,
            "top5": min(97.0, 100 - 100 * missing / videos),
            "videos_expected": videos,
            "videos_scored": videos,
            "unreadable": [f"{number}.mp4" for number in range(missing)],
            "num_clips": 2,
            "num_crops": 1,
            "params": 40_000,
            "macs": 2_000_000,
            "steps": 1125,
            "train_seconds": 90.0,
            "test_seconds": 10.0,
            "device": "CPU",
            "decoder": "decord 0.6.0",
            "commit": "0123456789abcdef",
            "dirty": False,
            "finished": "2026-01-02T03:04:05+00:00",
            "versions": {"torch": "2.11.0", "python": "3.11.7"},
            "init_from": study.variant(variant).init_from,
        }
        record = Record(**(content | fields))  # type: ignore[arg-type]
        write_record(results, record)
        return record

    return file


@pytest.fixture
def said_by_others(study: Study, recipe: Recipe, results: Path, measure: Measure) -> Callable[[str], Report]:
    """A report whose every text from outside is this one: labels, captions, claims, errors, names of files, devices."""

    def made(text: str) -> Report:
        said = {"device": text, "decoder": text, "commit": text, "versions": {"torch": text, text: text}}
        measure("plain", 0, 60.0, unreadable=[text], videos_scored=399, top1_by_group={text: 60.0}, **said)
        measure("block", 0, 70.0)
        marker = results / "runs" / "quick" / "i3d" / "seed0" / "state.json"
        marker.parent.mkdir(parents=True)
        marker.write_text(json.dumps({"state": "failed", "error": text}))
        table = study.tables["a"]
        rows = tuple(replace(row, label=text) for row in table.rows)
        part = Part("size", text, not_testable={"": text})
        claims = tuple(replace(claim, text=text, parts=(*claim.parts, part)) for claim in study.claims)
        tables = {**study.tables, "a": replace(table, caption=text, rows=rows)}
        shown = replace(study, title=text, tables=tables, claims=claims, reported_on=text, reported_videos=1000)
        return report(collect(shown, recipe, results))

    return made


@pytest.fixture
def one_seed(measure: Measure) -> None:
    """Everything once, seed 0."""
    measure("plain", 0, 64.0)
    measure("block", 0, 70.5, params=44_000, macs=2_200_000)
    measure("i3d", 0, 70.25, params=48_000, macs=3_000_000)
    measure("both", 0, 75.0, params=52_000, macs=3_200_000)
    measure("plain_128f", 0, 63.0, num_clips=1)
