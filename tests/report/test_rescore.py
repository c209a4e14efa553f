"""What a test would have scored under other protocols, on a handful of videos that can be scored by hand."""

import dataclasses
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nl_lightning.cli import main
from nl_lightning.errors import UserError
from nl_lightning.report.rescore import lines, mean_logits, rescore, rescore_record, subsets, votes
from nl_lightning.study.packing import pack
from nl_lightning.study.records import Record, predictions_path, write_record
from nl_lightning.train.predictions import KEY, PartWriter, VideoViews, ViewProtocol, merge, stored

# Two clips of one crop each, six classes; the softmax of every view.
SURE, TORN = [0.90, 0.02, 0.02, 0.02, 0.02, 0.02], [0.02, 0.30, 0.28, 0.16, 0.14, 0.10]
VIDEOS: list[tuple[int, list[list[float]] | None]] = [
    (0, [SURE, TORN]),  # right by mean softmax and logits, not by vote: one each
    (1, [SURE, TORN]),  # right in its middle clip alone
    (1, [TORN, TORN]),  # right however it is scored
    (2, None),  # unreadable
]


def written(path: Path, more: Any = ()) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = PartWriter(path.with_suffix(".part"))
    for index, (label, views) in enumerate([*VIDEOS, *more]):
        logs = None if views is None else stored(np.log(np.array(views, np.float32)))
        writer.add(index, VideoViews(f"{index}.mp4", label, logs))
    writer.close()
    merge([path.with_suffix(".part")], path, ViewProtocol(2, 1, 6))
    return path


def found(path: Path) -> dict[tuple[str, str], tuple[float, float]]:
    return {(views, rule): (top1, top5) for views, rule, top1, top5, _ in lines(rescore(path))}


def test_protocols_by_hand(tmp_path: Path) -> None:
    scored = found(written(tmp_path / "p.parquet"))
    both, one = "2 clips x 1 crop", "1 clip in the middle, centre crop"
    assert scored[both, "softmax mean"] == (50, 75)
    assert scored[both, "logit mean"] == (50, 75)
    assert scored[both, "vote"] == (25, 75)  # where two classes have a vote each, nobody wins
    assert scored[one, "softmax mean"] == (50, 50)
    top1, top5 = scored[both, "softmax mean, 1 missing video dropped"]
    assert (top1, top5) == (pytest.approx(200 / 3), 100)
    of_classes, none = scored[both, "softmax mean, mean of the classes"]
    assert of_classes == pytest.approx((100 + 50 + 0) / 3)
    assert math.isnan(none)


def test_the_soft_score_by_hand(tmp_path: Path) -> None:
    """Of the rule that gives probabilities: a video that could not be read has none of the right class."""
    soft = {(views, rule): soft for views, rule, _, _, soft in lines(rescore(written(tmp_path / "p.parquet")))}
    both, one = "2 clips x 1 crop", "1 clip in the middle, centre crop"
    each = [(90 + 2) / 2, (2 + 30) / 2, 30, 0]
    assert soft[both, "softmax mean"] == pytest.approx(sum(each) / 4, abs=0.01)
    assert soft[both, "softmax mean, 1 missing video dropped"] == pytest.approx(sum(each) / 3, abs=0.01)
    assert soft[one, "softmax mean"] == pytest.approx((2 + 30 + 30) / 4, abs=0.01)
    assert math.isnan(soft[both, "vote"])
    assert math.isnan(soft[both, "logit mean"])


def test_a_record_of_another_soft_score_is_refused(tmp_path: Path) -> None:
    written(predictions_path(tmp_path, "r", "v", 0, "00ff00ff00ff"))
    rescore_record(write_record(tmp_path, record(soft=22.9987)))
    written(predictions_path(tmp_path, "r", "w", 0, "00ff00ff00ff"))
    with pytest.raises(UserError, match=r"the soft score is 24\.0 there, 22\.9987 here"):
        rescore_record(write_record(tmp_path, record(variant="w", soft=24.0)))


def test_the_mean_of_logits_is_the_mean_of_log_probabilities_up_to_a_constant() -> None:
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(5, 7))
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    differ = mean_logits(logs) - logits.mean(axis=0)  # type: ignore[arg-type]
    np.testing.assert_allclose(differ, differ[0])


def test_a_view_that_is_not_a_number_has_no_vote() -> None:
    assert votes(np.array([[0.1, 0.9], [np.nan, 0.2], [0.3, 0.2]], np.float16)).tolist() == [1, 1]


def test_views_of_thirty() -> None:
    chosen = subsets(ViewProtocol(10, 3, 400))
    assert [len(views) for views in chosen.values()] == [30, 10, 1, 3]
    assert chosen["10 clips, centre crop"] == list(range(1, 30, 3))
    assert chosen["1 clip in the middle, centre crop"] == [16]
    assert chosen["1 clip in the middle x 3 crops"] == [15, 16, 17]
    assert list(subsets(ViewProtocol(1, 1, 400)).values()) == [[0]]


def record(**kwargs: Any) -> Record:
    fields = {
        "study": "s", "recipe": "r", "variant": "v", "seed": 0, "config_hash": "00ff00ff00ff", "config": {},
        "top1": 50.0, "top5": 75.0, "videos_expected": 4, "videos_scored": 3, "unreadable": ["c"], "num_clips": 2,
        "num_crops": 1, "params": 1, "macs": 1, "steps": 1, "train_seconds": 1.0, "test_seconds": 1.0, "device": "d",
        "decoder": "d", "commit": "c", "dirty": False, "finished": "2026-01-01T00:00:00+00:00",
        "right_top1": pack([True, False, True, False]), "right_top5": pack([True, True, True, False]),
    }  # fmt: skip
    return Record(**{**fields, **kwargs})


def test_the_records_numbers_come_out_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_record(tmp_path, record())
    written(predictions_path(tmp_path, "r", "v", 0, "00ff00ff00ff"))
    rescored, _ = rescore_record(path)
    assert (rescored.right(1), rescored.right(5)) == ([True, False, True, False], [True, True, True, False])
    assert main(["rescore", str(path)]) == 0
    said = capsys.readouterr().out
    assert "the stored views give the record's 50.0 % and 75.0 % again" in said
    assert "4 videos, 1 missing" in said
    assert main(["rescore", str(predictions_path(tmp_path, "r", "v", 0, "00ff00ff00ff"))]) == 0


def test_a_records_numbers_are_rounded(tmp_path: Path) -> None:
    """Of 1,714 in 19,761 videos, 8.673650 %, the nearest float32 is a little less: 8.6736 in place of 8.6737."""
    written(predictions_path(tmp_path, "r", "v", 0, "00ff00ff00ff"))
    rescore_record(write_record(tmp_path, record(top1=50.0001, top5=74.9999)))


def test_predictions_of_another_test_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write_record(tmp_path, record(right_top1=pack([False, True, True, False])))
    with pytest.raises(UserError, match="there is no file of predictions"):
        rescore_record(path)
    written(predictions_path(tmp_path, "r", "v", 0, "00ff00ff00ff"))
    with pytest.raises(UserError, match="not the predictions of .*: other videos are right in top-1"):
        rescore_record(path)
    without_bits = dataclasses.replace(record(), variant="w", right_top1="", right_top5="", top5=50.0)
    written(predictions_path(tmp_path, "r", "w", 0, "00ff00ff00ff"))
    with pytest.raises(UserError, match=r"not the predictions of .*: top-5 is 50\.0 there"):
        rescore_record(write_record(tmp_path, without_bits))
    assert main(["rescore", str(tmp_path / "nowhere.json")]) == 2
    assert "no record" in capsys.readouterr().err


def test_a_diverged_run_has_no_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Be it said by the record, or seen in the predictions."""
    broken = record(top1=None, top5=None, right_top1="", right_top5="", diverged="the loss from step 120 on")
    predictions = written(predictions_path(tmp_path, "r", "v", 0, "00ff00ff00ff"), [(0, [SURE, [math.nan] * 6])])
    for path, said in (
        (write_record(tmp_path, broken), "diverged: no finite number is the loss from step 120 on"),
        (predictions, "diverged: the scores of 1 of 5 test videos are no finite numbers"),
    ):
        assert main(["rescore", str(path)]) == 2
        printed = capsys.readouterr()
        assert said in printed.err
        assert printed.out == ""


def odd(path: Path, columns: dict[str, Any], said: object = None) -> Path:
    """A Parquet file from outside, with what it says of its test as metadata."""
    table = pa.table(columns)
    pq.write_table(table if said is None else table.replace_schema_metadata({KEY: json.dumps(said)}), path)
    return path


VIEWS = pa.array([[0.0] * 4], pa.list_(pa.float16()))
GOOD = {"video": ["a.mp4"], "label": pa.array([1], pa.int32()), "views": VIEWS}
TESTED = {"num_clips": 2, "num_crops": 1, "num_classes": 2}


@pytest.mark.parametrize(
    ("columns", "said", "message"),
    [
        (GOOD, None, "it doesn't say how it was tested"),
        (GOOD, [1], "expected 'key: value' pairs"),
        (GOOD, {"num_clips": 2}, "the key 'num_crops' is missing"),
        (GOOD, TESTED | {"num_clips": "2"}, "num_clips: expected a whole number, 1 to 1000, got '2'"),
        (GOOD, TESTED | {"num_clips": 10**9}, "num_clips: expected a whole number, 1 to 1000"),
        (GOOD, TESTED | {"num_classes": 0}, "num_classes: expected a whole number"),
        (GOOD, TESTED | {"new": 1}, "unknown key 'new'"),
        ({"a": [1]}, TESTED, "expected the columns video .*, label .*, views .*; it has a .int64."),
        ({}, TESTED, "it has none"),
        (GOOD | {"more": [1]}, TESTED, "it has video .*more .int64."),
        (GOOD | {"label": ["x"]}, TESTED, r"label \(string\)"),
        (GOOD, TESTED | {"multi_label": True}, "expected the columns"),
        (GOOD | {"label": pa.array([2], pa.int32())}, TESTED, "a.mp4: expected a label from 0 to 1, got 2"),
        (GOOD | {"label": pa.array([-1], pa.int32())}, TESTED, "a.mp4: expected a label from 0 to 1, got -1"),
        (GOOD | {"label": pa.array([None], pa.int32())}, TESTED, "a.mp4: expected a label from 0 to 1, got None"),
        (GOOD, TESTED | {"num_classes": 3}, r"a.mp4: expected 2 x 3 numbers \(views x classes\), got 4"),
    ],
)
def test_files_from_outside_are_refused_in_a_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], columns: dict[str, Any], said: object, message: str
) -> None:
    path = odd(tmp_path / "p.parquet", columns, said)
    assert main(["rescore", str(path)]) == 2
    error = capsys.readouterr().err
    assert re.search(f"p.parquet.*: .*{message}", error)
    assert error.count("\n") == 1


def test_a_file_that_is_no_parquet_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for content in (b"", b"PAR1", b"PAR1" * 100, written(tmp_path / "whole.parquet").read_bytes()[:-20]):
        path = tmp_path / "p.parquet"
        path.write_bytes(content)
        assert main(["rescore", str(path)]) == 2
        assert "p.parquet is no whole file of predictions" in capsys.readouterr().err


def test_predictions_of_another_length_or_place(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_record(tmp_path, record(videos_expected=5, videos_scored=4, right_top1="", right_top5="", top1=40.0))
    written(predictions_path(tmp_path, "r", "v", 0, "00ff00ff00ff"))
    with pytest.raises(UserError, match="not the predictions of .*: 4 videos here, 5 there"):
        rescore_record(path)
    monkeypatch.chdir(path.parent)
    assert main(["rescore", path.name]) == 2  # as a shell within its folder names it
    assert "4 videos here, 5 there" in capsys.readouterr().err
    alone = tmp_path / "seed0.json"
    alone.write_bytes(path.read_bytes())
    assert main(["rescore", str(alone)]) == 2
    assert (
        "expected it as RESULTS/records/r/v/seed0.json, to find its predictions; give their .parquet file"
        in capsys.readouterr().err
    )
