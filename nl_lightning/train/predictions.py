"""What testing keeps of every video: the log-probabilities of each of its views, in one Parquet file. No torch here.

A line a video, in the order of the test list: its path below the data set's folder, its label, and the logarithm of
the softmax of every view in float16, views x classes, view by view (null: it could not be read). Where videos have
several labels, it is all of them, and the logarithm of the sigmoids. With them any rule that makes a video's score of
its views can be tried again. Accuracy is computed from these very numbers, as they are stored, so that it can be
computed again to the last digit.
"""

import json
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field

from nl_lightning.errors import UserError
from nl_lightning.study.border import checked, parse_json
from nl_lightning.study.files import whole_file
from nl_lightning.train.scores import Views

ROW_GROUP = 64
"""Videos that are written, and read, at a time: 1.5 MB of Kinetics at 30 views."""
KEY = b"nl_lightning"


def _schema(multi_label: bool) -> pa.Schema:
    """Columns of a file; views are flat, num_classes numbers a view."""
    label = pa.list_(pa.int32()) if multi_label else pa.int32()
    return pa.schema([("video", pa.string()), ("label", label), ("views", pa.list_(pa.float16()))])


class VideoViews(NamedTuple):
    """A tested video; `views` are log-probabilities (V, classes), or None if it could not be read."""

    video: str
    label: int | tuple[int, ...]
    views: Views | None


@dataclass(frozen=True)
class ViewProtocol:
    """How the videos of a file were tested.

    Attributes:
        num_clips, num_crops: views of a video: clip by clip, and within a clip crop by crop.
        num_classes: numbers of each view.
        multi_label: whether a video has several labels at once.
        words: everything else that was said of the test, for people.
    """

    num_clips: Annotated[int, Field(ge=1, le=1000)]
    num_crops: Annotated[int, Field(ge=1, le=1000)]
    num_classes: Annotated[int, Field(ge=1, le=1_000_000)]
    words: dict[str, Any] = field(default_factory=dict)
    multi_label: bool = False


def stored(log_probabilities: npt.NDArray[np.float32]) -> Views:
    """Log-probabilities as they are stored: float16, nothing below its lowest number."""
    return np.maximum(log_probabilities, np.finfo(np.float16).min).astype(np.float16)


def part_of(path: Path, process: int) -> Path:
    """Where a process writes what it tests, until all have."""
    return path.with_name(f".{path.name}.part{process}")


class PartWriter:
    """Writes what one process tests, as it goes, to a file of its own; :func:`merge` makes the whole of all parts."""

    def __init__(self, path: Path, multi_label: bool = False) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path, self.schema = path, _schema(multi_label)
        with_index = self.schema.append(pa.field("index", pa.int64()))
        self._file = pq.ParquetWriter(path, with_index, compression="zstd")
        self._waiting: list[tuple[int, VideoViews]] = []

    def add(self, index: int, prediction: VideoViews) -> None:
        """Keep a video; `index` is its place in the test list."""
        self._waiting.append((index, prediction))
        if len(self._waiting) == ROW_GROUP:
            self._flush()

    def close(self) -> None:
        self._flush()
        self._file.close()

    def _flush(self) -> None:
        if self._waiting:
            indices, predictions = zip(*self._waiting, strict=True)
            self._file.write_table(
                _table(predictions, self.schema).append_column("index", pa.array(indices, pa.int64()))
            )
        self._waiting = []


def _table(predictions: Sequence[VideoViews], schema: pa.Schema) -> pa.Table:
    flat = [np.empty(0, np.float16) if p.views is None else p.views.ravel() for p in predictions]
    offsets = np.cumsum([0, *map(len, flat)], dtype=np.int32)
    unread = pa.array([p.views is None for p in predictions])
    views = pa.ListArray.from_arrays(pa.array(offsets), pa.array(np.concatenate(flat)), mask=unread)
    labels = pa.array([p.label for p in predictions], schema.field("label").type)
    return pa.table([pa.array([p.video for p in predictions]), labels, views], schema)


def merge(parts: Sequence[Path], path: Path, protocol: ViewProtocol) -> None:
    """Write the file of predictions, whole or not at all, of its parts; a video that is in several of them once.

    Meanwhile its numbers are in memory: 0.5 GB of Kinetics at 30 views.
    """
    rows = pa.concat_tables(map(pq.read_table, parts))
    _, places = np.unique(rows["index"], return_index=True)
    # Not take(): that makes one array of all views, which can't have more than 2**31 numbers.
    table = pa.concat_tables([rows.slice(place, 1) for place in places]).drop_columns("index")
    table = table.replace_schema_metadata({KEY: json.dumps(asdict(protocol))})
    with whole_file(path) as temporary:
        pq.write_table(table, temporary, ROW_GROUP, compression="zstd")


def refuse_other(path: Path) -> None:
    """UserError if a file is there that holds no predictions: it is somebody else's."""
    if os.path.lexists(path):
        try:
            read_protocol(path)
        except UserError:
            raise UserError(
                f"{path} is there already, and holds no predictions: name another file, or move it away"
            ) from None


def _predictions(table: pa.Table) -> list[VideoViews]:
    """The lines of a table; the views are flat."""
    views = table["views"].combine_chunks()
    offsets, values = views.offsets.to_numpy(), views.values.to_numpy(zero_copy_only=False)
    readable = views.is_valid().to_pylist()
    kept = [
        values[start:end] if there else None
        for there, start, end in zip(readable, offsets[:-1], offsets[1:], strict=True)
    ]
    labels = [tuple(label) if isinstance(label, list) else label for label in table["label"].to_pylist()]
    return [VideoViews(*line) for line in zip(table["video"].to_pylist(), labels, kept, strict=True)]


def read_protocol(path: Path) -> ViewProtocol:
    """How the videos of a file were tested. UserError if it is missing, broken, or of another kind."""
    at = f"{path} is no whole file of predictions of each view"
    try:
        found = pq.read_schema(path)
    except FileNotFoundError:
        raise UserError(
            f"there is no file of predictions {path}: they are written by testing, and not shared"
        ) from None
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{at}: it isn't Parquet, or is cut off ({type(error).__name__})") from None
    if KEY not in (found.metadata or {}):
        raise UserError(f"{at}: it doesn't say how it was tested (its metadata have no '{KEY.decode()}')")
    protocol = checked(ViewProtocol, parse_json(found.metadata[KEY], at), at)
    expected = _schema(protocol.multi_label)
    if not found.remove_metadata().equals(expected):
        columns = [", ".join(f"{field.name} ({field.type})" for field in schema) for schema in (expected, found)]
        raise UserError(f"{at}: expected the columns {columns[0]}; it has {columns[1][:300] or 'none'}")
    return protocol


def read_predictions(path: Path) -> Iterator[VideoViews]:
    """The videos of a file, some at a time in memory. UserError as :func:`read_protocol`, or if a video is odd."""
    protocol = read_protocol(path)
    views, classes = protocol.num_clips * protocol.num_crops, protocol.num_classes
    try:
        with pq.ParquetFile(path) as file:
            for group in range(file.num_row_groups):
                for video, label, flat in _predictions(file.read_row_group(group)):
                    labels = label if isinstance(label, tuple) else (label,)
                    if not all(isinstance(each, int) and 0 <= each < classes for each in labels):
                        raise UserError(f"{path}: {video}: expected a label from 0 to {classes - 1}, got {label}")
                    if flat is not None and len(flat) != views * classes:
                        raise UserError(
                            f"{path}: {video}: expected {views} x {classes} numbers (views x classes), got {len(flat)}"
                        )
                    yield VideoViews(video, label, None if flat is None else flat.reshape(views, classes))
    except UserError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read to its end ({type(error).__name__})") from None
