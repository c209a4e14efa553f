import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from nl_lightning.errors import UserError
from nl_lightning.report.claims import report
from nl_lightning.report.collate import _scores, collate, collect
from nl_lightning.report.provenance import provenance
from nl_lightning.report.render import table_markdown
from nl_lightning.report.words import legend, note
from nl_lightning.study.lock import acquire
from nl_lightning.study.metrics import Metric
from nl_lightning.study.packing import pack
from nl_lightning.study.recipe import Recipe, run_hash
from nl_lightning.study.records import Record, record_path
from nl_lightning.study.run import State
from nl_lightning.study.study import Study

Measure = Callable[..., Record]


def line(frame: pd.DataFrame, variant: str) -> dict[str, object]:
    """The line of a variant, without what isn't known."""
    found = frame[frame["variant"] == variant].to_dict("records")
    assert len(found) == 1
    known = {str(key): value for key, value in found[0].items() if key != "holes" and not pd.isna(value)}
    return known | {"note": note(found[0])}


def mark(results: Path, variant: str, seed: int, **marker: object) -> None:
    path = results / "runs" / "quick" / variant / f"seed{seed}" / "state.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps(marker))


def test_three_seeds_by_hand(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    for seed, plain, block in [(0, 60.0, 66.0), (1, 62.0, 70.0), (2, 64.0, 68.0)]:
        measure("plain", seed, plain)
        measure("block", seed, block, top5=90.0 + seed, params=44_000, macs=2_300_000)
    frame = collate(collect(study, recipe, results))
    assert line(frame, "block") == {
        "table": "a",
        "label": "NL",
        "variant": "block",
        "baseline": "plain",
        "state": "ok",
        "n": 3,
        "top1": 68.0,
        "top1_std": 2.0,  # of 66, 70, 68, with n - 1
        "top5": 91.0,
        "top5_std": 1.0,
        "gain": 6.0,
        "gain_std": 2.0,  # of the gains 6, 8, 4, seed by seed
        "gain_low": pytest.approx(-2.28, abs=0.01),  # from accuracies alone: t with two degrees of freedom, and videos
        "gain_high": pytest.approx(14.22, abs=0.01),
        "gain_n": 3,
        "gain_paired": False,
        "gain_dropped": 0,
        "params": 44_000,
        "macs": 2_300_000,
        "params_ratio": 1.1,
        "flops_ratio": 1.15,
        "reported_top1": 72.9,
        "reported_top5": 90.3,
        "reported_gain": 1.1,
        "reported_params_ratio": 1.1,
        "reported_flops_ratio": 1.2,
        "note": "",
    }
    assert "gain" not in line(frame, "plain")
    assert line(frame, "plain")["params_ratio"] == 1.0


def test_a_difference_of_differences_may_be_above_100(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    for name, score in {"block": 95.0, "plain": 5.0, "both": 5.0, "i3d": 95.0}.items():
        measure(name, 7, score)
    found = collect(study, recipe, results, [7]).combination({"block": 1, "plain": -1, "both": -1, "i3d": 1})
    assert found is not None
    assert found.interval().low < found.mean == 180 < found.interval().high


@pytest.mark.usefixtures("one_seed")
def test_one_seed_has_no_spread(study: Study, recipe: Recipe, results: Path) -> None:
    frame = collate(collect(study, recipe, results))
    assert list(frame["label"]) == ["C2D", "NL", "I3D", "NL_I3D", "C2D"]  # the study's order
    assert list(frame["state"]) == ["ok"] * 5
    assert frame[["top1_std", "top5_std", "gain_std"]].isna().all(axis=None)
    long = line(frame, "plain_128f")
    assert (long["gain"], long["reported_gain"]) == (-1.0, 2.0)  # over the short-clip run, which is in another table
    assert "reported_gain" not in line(frame, "both")


def test_nothing_measured(study: Study, recipe: Recipe, results: Path) -> None:
    runs = collect(study, recipe, results)
    frame = collate(runs)
    assert runs.seeds == (0,)
    assert list(frame["state"]) == ["missing"] * 5
    assert list(frame["n"]) == [0] * 5
    assert frame[["top1", "gain", "params", "flops_ratio"]].isna().all(axis=None)
    assert line(frame, "block")["reported_gain"] == 1.1


def test_gains_are_of_the_seeds_that_both_have(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain", 1, 60.0)
    measure("block", 0, 90.0)
    measure("block", 1, 61.0)
    measure("i3d", 0, 65.0)
    frame = collate(collect(study, recipe, results))
    block, i3d = line(frame, "block"), line(frame, "i3d")
    assert (block["state"], block["n"], block["gain"], block["gain_n"]) == ("ok", 2, 1.0, 1)
    assert (i3d["state"], i3d["n"], i3d["gain_n"]) == ("partial", 1, 0)
    assert "gain" not in i3d  # no seed in common: no number, rather than an unpaired one
    assert line(frame, "both")["state"] == "missing"


def test_seeds_can_be_demanded(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain", 0, 60.0)
    measure("plain", 7, 96.0)
    frame = collate(collect(study, recipe, results, seeds=[0, 1]))
    plain = line(frame, "plain")
    assert (plain["state"], plain["n"], plain["top1"]) == ("partial", 1, 60.0)


def test_stale_records_are_never_used(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain", 0, 60.0)
    measure("block", 0, 70.0, config_hash="0123456789ab")
    measure("block", 1, 70.0, config_hash="0123456789ab")
    measure("i3d", 0, 65.0)
    measure("i3d", 1, 66.0, config_hash="0123456789ab")
    frame = collate(collect(study, recipe, results))
    block, i3d = line(frame, "block"), line(frame, "i3d")
    assert (block["state"], block["note"]) == ("stale", "seeds 0, 1 stale: made with another configuration")
    assert "top1" not in block
    assert "params" not in block
    assert (i3d["state"], i3d["top1"], i3d["note"]) == (
        "partial",
        65.0,
        "seed 1 stale: made with another configuration",
    )


def test_a_changed_parent_makes_its_child_stale(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain_128f", 0, 60.0)
    assert line(collate(collect(study, recipe, results)), "plain_128f")["state"] == "ok"
    wider = replace(study.variants["plain"], settings={"model.net.depth": 50, "model.net.width": 0.5})
    changed = replace(study, variants={**study.variants, "plain": wider})
    assert line(collate(collect(changed, recipe, results)), "plain_128f")["state"] == "stale"


def test_notes_say_why_a_seed_is_missing(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain", 0, 60.0)
    mark(results, "block", 0, state="failed", error="loss is NaN")
    mark(results, "both", 0, state="preempted")
    recipe.overlay("128f").unlink()
    with acquire(results / "runs" / recipe.name / "i3d" / "seed0") or pytest.fail("free"):
        frame = collate(collect(study, recipe, results))
    notes = {variant: line(frame, variant)["note"] for variant in study.variants}
    assert notes == {
        "plain": "",
        "block": "seed 0 failed: loss is NaN",
        "i3d": "seed 0 running",
        "both": "seed 0 preempted",
        "plain_128f": "seed 0 missing: recipe quick has no quick_128f.yaml for 'clip: 128f'",
    }


def test_what_is_shown_beside_may_be_no_finite_number(measure: Measure) -> None:
    metric = Metric("top1", "top-1", beside=(Metric("test/loss", "loss"),))
    scores = _scores(metric, [measure("plain", 0, 60.0)], folds=1)
    assert (scores["top1"], pd.isna(scores["test/loss"])) == (60.0, True)


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("num_clips", 10, r"tested with 2 clips a video \(num_clips\), {block} with 10: they can't be compared"),
        ("num_crops", 3, r"tested with 1 crops a frame \(num_crops\), {block} with 3: they can't be compared"),
        (
            "videos_expected",
            500,
            r"tested with 400 videos \(videos_expected\), {block} with 500: they can't be compared",
        ),
    ],
)
def test_different_tests_never_meet_in_a_table(
    study: Study, recipe: Recipe, results: Path, measure: Measure, field: str, value: int, message: str
) -> None:
    measure("plain", 0, 60.0)
    measure("block", 0, 70.0, **{field: value})
    plain, block = (record_path(results, "quick", name, 0) for name in ("plain", "block"))
    with pytest.raises(UserError, match=f"^table a: {plain} was {message.format(block=block)}"):
        collect(study, recipe, results)


def test_different_tests_never_meet_in_a_gain(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain", 0, 60.0)
    measure("plain_128f", 1, 60.0, videos_expected=500)
    with pytest.raises(UserError, match="table b: .*tested with 500 videos.* with 400"):
        collect(study, recipe, results)


def test_longer_clips_may_have_fewer_views(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain", 0, 60.0)
    measure("plain_128f", 0, 61.0, num_clips=1)  # one clip may be the whole video
    assert line(collate(collect(study, recipe, results)), "plain_128f")["gain"] == 1.0
    table = study.tables["b"]
    beside = replace(study, tables={"b": replace(table, rows=(*table.rows, study.tables["a"].rows[0]))})
    with pytest.raises(UserError, match=r"table b: .*with 1 clips a video \(num_clips\), .* with 2"):
        collect(beside, recipe, results)  # but not in one column


def bits(text: str) -> dict[str, object]:
    """Fields of a record of so many videos, right where there is a 1, unreadable where there is a -."""
    right, read = [letter == "1" for letter in text], [letter != "-" for letter in text]
    return {
        "right_top1": pack(right),
        "videos_expected": len(text),
        "videos_scored": sum(read),
        "read_videos": pack(read),
        "videos_hash": "0123456789ab",
    }


def percent(text: str) -> float:
    return 100 * text.count("1") / len(text)


def test_gains_are_paired_where_the_records_allow_it(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    plain, block = "1100110000" * 10, "1111110000" * 10
    measure("plain", 0, percent(plain), **bits(plain))
    measure("block", 0, percent(block), **bits(block))
    measure("i3d", 0, percent(block), videos_expected=100, videos_scored=100, videos_hash="0123456789ab")
    runs = collect(study, recipe, results)
    gain, fallback = runs.difference("block", "plain"), runs.difference("i3d", "plain")
    assert gain is not None
    assert fallback is not None
    assert (gain.mean, gain.paired, gain.disagreement, gain.videos) == (20.0, True, 20.0, 100)
    assert (fallback.mean, fallback.paired) == (20.0, False)
    assert fallback.interval().low < gain.interval().low
    assert runs.difference("both", "plain") is None
    frame = collate(runs)
    assert (line(frame, "block")["gain_paired"], line(frame, "i3d")["gain_paired"]) == (True, False)
    assert line(frame, "block")["gain_low"] == gain.interval().low


def test_videos_that_one_of_a_pair_could_not_read(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    plain, block = "11-00", "1-110"
    measure("plain", 0, percent(plain), **bits(plain))
    measure("block", 0, percent(block), **bits(block))
    found = collect(study, recipe, results).difference("block", "plain")
    assert found is not None
    assert (found.mean, found.videos, found.dropped) == (pytest.approx(100 / 3), 3, 2)


def test_different_test_lists_never_meet(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain", 0, 60.0, videos_hash="0123456789ab")
    measure("block", 0, 60.0, videos_hash="ba9876543210")
    with pytest.raises(
        UserError, match=r"table a: .*plain.* 0123456789ab as the hash of its test list .* ba9876543210"
    ):
        collect(study, recipe, results)


def test_a_broken_record_is_a_hole_with_its_reason(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    measure("plain", 0, 60.0)
    measure("block", 1, 61.0)
    path = record_path(results, "quick", "plain", 0)
    path.write_text(path.read_text().replace('"top1": 60.0', '"top1": "60"'))
    runs = collect(study, recipe, results)
    assert runs.seeds == (0, 1)
    said = f"{path}: top1: expected percent, 0 to 100, got '60'; write it as 60"
    assert runs.states["plain", 0] == State("unreadable", said)
    assert [record.variant for record in runs.records()] == ["block"]


@pytest.fixture
def folds(recipe: Recipe) -> Recipe:
    return replace(recipe, config={**recipe.config, "data": {**recipe.config.get("data", {}), "folds": 3}})


def test_official_splits_are_averaged(study: Study, folds: Recipe, results: Path, measure: Measure) -> None:
    """Paired within each split, whose test videos differ in number and hash; a split that isn't there is missed."""
    plain, block = ("1100110000", "11001100", "110000"), ("1111110000", "11101100", "110100")
    for seed, (one, other) in enumerate(zip(plain, block, strict=True)):
        for variant, right in (("plain", one), ("block", other)):
            split = {"config_hash": run_hash(study, folds, variant, seed), "videos_hash": f"0123456789a{seed}"}
            measure(variant, seed, percent(right), **(bits(right) | split))
    of_split = {"config_hash": run_hash(study, folds, "i3d", 1), "videos_hash": "0123456789a1"}
    measure("i3d", 1, 50.0, videos_expected=8, videos_scored=8, **of_split)
    frame = collate(runs := collect(study, folds, results))
    found = line(frame, "block")
    gains = np.array([percent(b) - percent(p) for p, b in zip(plain, block, strict=True)])
    assert runs.seeds == (0, 1, 2)
    assert found["top1"] == pytest.approx(np.mean([percent(b) for b in block]))
    assert found["top1_std"] == pytest.approx(np.std([percent(b) for b in block], ddof=1))
    assert (found["gain"], found["gain_std"]) == (pytest.approx(gains.mean()), pytest.approx(gains.std(ddof=1)))
    assert (found["n"], found["gain_n"], found["gain_paired"]) == (3, 3, True)
    assert (line(frame, "i3d")["state"], line(frame, "i3d")["n"]) == ("partial", 1)
    made = report(runs)
    text = table_markdown(made, study.tables["a"])
    assert "| splits |" in text
    assert "1 of 3" in text
    said = legend(made)
    assert "means over the 3 official splits of the data, each trained with a seed of its own, ±" in said
    assert "from the splits that both have, with 95 % intervals, over splits." in said
    assert provenance(runs)[0] == ("recipe", "quick; seeds: 0, 1, 2, which are the official splits 1, 2, 3")
    said = legend(report(collect(study, folds, results, [1])))
    assert "means over 2 of the 3 official splits of the data" in said
    assert "95 % intervals, paired by video." in said


def test_official_splits_count_alike_however_many_seeds_they_have(
    study: Study, folds: Recipe, results: Path, measure: Measure
) -> None:
    for seed, plain, block in ((0, 50.0, 54.0), (1, 81.0, 85.0), (2, 81.0, 87.0), (3, 50.0, 54.0), (6, 53.0, 60.0)):
        for variant, score in (("plain", plain), ("block", block)):
            said = {"config_hash": run_hash(study, folds, variant, seed), "videos_hash": f"0123456789a{seed % 3}"}
            measure(variant, seed, score, top1_by_group={"look": score}, **said)
    made = report(collect(study, folds, results))
    found = line(made.rows, "block")
    assert (found["top1"], found["top1_std"]) == (76.0, pytest.approx(np.std([56.0, 85.0, 87.0], ddof=1)))
    assert (found["n"], found["gain_n"], found["gain"]) == (5, 5, pytest.approx(5.0))
    assert made.groups["look"].to_dict() == {"plain": 71.0, "block": 76.0}


def test_official_splits_are_each_tested_on_one_list(
    study: Study, folds: Recipe, results: Path, measure: Measure
) -> None:
    """Two seeds of one split as much as two variants."""
    for seed, digest in ((1, "0123456789ab"), (4, "ba9876543210")):
        measure("plain", seed, 60.0, videos_hash=digest, config_hash=run_hash(study, folds, "plain", seed))
    with pytest.raises(UserError, match="as the hash of its test list"):
        collect(study, folds, results)


def test_a_record_of_another_network_is_a_hole(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    """Told by its costs, which all seeds of a variant share, by what it starts from, or by what measured it."""
    for seed, params in enumerate([40_000, 44_000, 40_000]):
        measure("plain", seed, 60.0 + seed, params=params)
    measure("i3d", 0, 60.0, macs=3_000_000)
    measure("i3d", 1, 61.0, macs=2_000_000)  # nothing says which of the two it is
    measure("plain_128f", 0, 60.0, init_from="block")
    measure("block", 0, 0.0, top1=None, top5=None, module="nl_lightning.detection.Detector", metrics={"test/AP": 0.3})
    states = collect(study, recipe, results).states
    assert [states["plain", seed].name for seed in range(3)] == ["done", "unreadable", "done"]
    assert states["plain", 1].note == "params: 44,000 in its record, but other seeds have 40,000"
    assert states["i3d", 0].note == "macs: 3,000,000 in its record, but other seeds have others"
    assert states["i3d", 1].name == "unreadable"
    assert states["plain_128f", 0].note == "init_from: expected plain, as the study has it, got block"
    assert states["block", 0].note == "module: expected None, as the study has it, got nl_lightning.detection.Detector"
    frame = collate(collect(study, recipe, results))
    assert line(frame, "plain")["n"] == 2  # the report goes on without it
