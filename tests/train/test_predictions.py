"""The file of predictions: what is kept, how large it gets, and what is said of one that is broken."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nl_lightning.errors import UserError
from nl_lightning.train.predictions import (
    ROW_GROUP,
    PartWriter,
    VideoViews,
    ViewProtocol,
    merge,
    read_predictions,
    read_protocol,
    refuse_other,
    stored,
)

PROTOCOL = ViewProtocol(3, 2, 5, {"clip_starts": "release"})


def predicted(video: int, views: int = 6, classes: int = 5) -> VideoViews:
    """Random views, the same for the same video; every seventh video can't be read."""
    logits = np.random.default_rng(video).normal(scale=3, size=(views, classes)).astype(np.float32)
    logs = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    return VideoViews(f"class/{video}.mp4", video % classes, None if video % 7 == 6 else stored(logs))


def written(folder: Path, *parts: list[int], protocol: ViewProtocol = PROTOCOL) -> Path:
    """A file of predictions, made of parts with these videos."""
    paths = [folder / f".part{number}" for number in range(len(parts))]
    views = protocol.num_clips * protocol.num_crops
    for path, videos in zip(paths, parts, strict=True):
        writer = PartWriter(path)
        for video in videos:
            writer.add(video, predicted(video, views, protocol.num_classes))
        writer.close()
    merge(paths, folder / "p.parquet", protocol)
    return folder / "p.parquet"


def same(read: list[VideoViews], videos: list[int]) -> bool:
    expected = [predicted(video) for video in videos]
    return [r[:2] for r in read] == [e[:2] for e in expected] and all(
        (r.views is None) == (e.views is None) and (r.views is None or np.array_equal(r.views, e.views))
        for r, e in zip(read, expected, strict=True)
    )


def test_what_goes_in_comes_out_in_the_order_of_the_test_list(tmp_path: Path) -> None:
    """Also from several processes, where a sampler fills up the last batch with videos from the beginning."""
    everything = list(range(3 * ROW_GROUP + 5))
    assert same(list(read_predictions(written(tmp_path, everything))), everything)
    assert same(list(read_predictions(written(tmp_path, everything[::2], [*everything[1::2], 0]))), everything)
    assert read_protocol(tmp_path / "p.parquet") == PROTOCOL
    assert sorted(p.name for p in tmp_path.iterdir()) == [".part0", ".part1", "p.parquet"]


def test_a_file_without_any_readable_video(tmp_path: Path) -> None:
    assert [p.views for p in read_predictions(written(tmp_path, [6, 13]))] == [None, None]


def test_videos_with_several_labels(tmp_path: Path) -> None:
    protocol = replace(PROTOCOL, multi_label=True)
    several = [predicted(video)._replace(label=tuple(range(video + 1))) for video in range(3)]
    part = PartWriter(tmp_path / "part", multi_label=True)
    for index, one in enumerate(several):
        part.add(index, one)
    part.close()
    merge([tmp_path / "part"], tmp_path / "p.parquet", protocol)
    assert [read.label for read in read_predictions(tmp_path / "p.parquet")] == [(0,), (0, 1), (0, 1, 2)]
    assert read_protocol(tmp_path / "p.parquet") == protocol


def test_the_file_is_no_larger_than_its_numbers(tmp_path: Path) -> None:
    """Random views compress as badly as any: what is around them is a few percent. Kinetics has 19,761 videos."""
    protocol = ViewProtocol(10, 3, 400)
    path = written(tmp_path, list(range(ROW_GROUP)), protocol=protocol)
    readable = sum(predicted(video, 1, 2).views is not None for video in range(ROW_GROUP))
    a_video = path.stat().st_size / readable
    assert a_video < 1.1 * 30 * 400 * 2
    assert 19_761 * a_video < 600e6


def test_a_crash_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = written(tmp_path, [0, 1])
    before = path.read_bytes()
    (tmp_path / ".part0").write_bytes(b"cut short")
    with pytest.raises(Exception, match="Parquet"):
        merge([tmp_path / ".part0"], path, PROTOCOL)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == [".part0", "p.parquet"]


@pytest.mark.parametrize("kept", [0, 100, -50])
def test_a_truncated_file_is_refused_in_one_line(kept: int, tmp_path: Path) -> None:
    path = written(tmp_path, [0, 1])
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(UserError, match="p.parquet is no whole file of predictions of each view") as refused:
        list(read_predictions(path))
    assert "\n" not in str(refused.value)


def test_a_missing_file_and_a_foreign_one_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file of predictions .*not shared"):
        read_protocol(tmp_path / "nowhere.parquet")
    PartWriter(tmp_path / "foreign.parquet").close()
    with pytest.raises(UserError, match="foreign.parquet is no whole file of predictions of each view"):
        read_protocol(tmp_path / "foreign.parquet")


def test_a_file_of_somebody_else_is_left_alone(tmp_path: Path) -> None:
    refuse_other(tmp_path / "none.parquet")
    refuse_other(written(tmp_path, [0, 1]))
    (tmp_path / "mine.parquet").write_text("my own table")
    pq.write_table(pa.table({"a": [1]}), tmp_path / "table.parquet")
    for name in ("mine", "table"):
        with pytest.raises(UserError, match=f"{name}.parquet is there already, and holds no predictions"):
            refuse_other(tmp_path / f"{name}.parquet")


def test_logarithms_below_float16_are_its_lowest() -> None:
    logs = stored(np.array([0.0, -1e9, -np.inf, np.nan], np.float32))
    assert logs.tolist()[:3] == [0, -65504, -65504]
    assert np.isnan(logs[3])
