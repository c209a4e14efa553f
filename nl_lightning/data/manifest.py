"""What a census found about each file of a data set, as a table (Parquet) and in a reading process's memory.

A row holds for one version of its file, told by bytes and time of change: a file that has changed is looked at anew.
"""

from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nl_lightning.data.packets import Facts, Index, reason, version_of
from nl_lightning.data.videos import Names, Paths
from nl_lightning.errors import UserError
from nl_lightning.study.border import as_unicode
from nl_lightning.study.files import write_atomically

NAME = "census.parquet"  # in the data set's folder, beside its lists, if nothing else is said


@dataclass(frozen=True)
class Finding:
    """One file."""

    path: str  # below the data set's folder, as Unicode
    id: str  # the file's name without its suffix
    labels: tuple[int, ...]  # in the first split that lists it; one, but where videos have several
    splits: str  # that list it, parted by commas
    bytes: int = 0  # with `mtime_ns` the file's version; 0 if it is absent
    mtime_ns: int = 0
    sha256: str = ""  # of its bytes, if asked for
    codec: str = ""  # this and the next four are as the file's header has them
    fps: float = 0.0
    width: int = 0
    height: int = 0
    header_frames: int = 0  # 0 if the header doesn't say
    frames: int = 0  # shown, counted by packets
    decoded: int = 0  # of them, those that decode
    decoder: str = ""  # the one that ``auto`` takes
    objection: str = ""  # why decord would be wrong on the file, empty if it is plain
    error: str = ""  # why the file can't be used, empty if it can
    times: tuple[int, ...] = ()  # first and step, in the stream's time base, where frames are equally far apart
    keys: tuple[int, ...] = ()  # the key frames, in steps from the first time
    counted: bool = False  # times can't be trusted, so frames have to be counted


TYPES: dict[Any, pa.DataType] = {
    str: pa.string(), int: pa.int64(), float: pa.float64(), bool: pa.bool_(), tuple[int, ...]: pa.list_(pa.int64()),
}  # fmt: skip
VERSION = {"nl_lightning": "census 2"}  # the first census took songs with a cover and halves of files for videos
SCHEMA = pa.schema([(f.name, TYPES[f.type]) for f in fields(Finding)], VERSION)
REMEDY = "delete it; nl-lightning data check makes one"


def regular(index: Index) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The `times` and `keys` of a row; nothing where frames aren't equally far apart."""
    if index.times is None or len(index.times) < 2:
        return (), ()
    steps = np.diff(index.times)
    step, first = int(steps[0]), int(index.times[0])
    if (steps != step).any() or ((index.keys - first) % step).any():
        return (), ()
    return (first, step), tuple(((index.keys - first) // step).tolist())


def write_manifest(file: Path, findings: Iterable[Finding]) -> None:
    """Write a manifest, whole or not at all."""
    write_table(file, pa.Table.from_pylist([asdict(finding) for finding in findings], SCHEMA))


def read_findings(file: Path) -> list[Finding]:
    """The rows of a manifest, none if an older census wrote it; UserError if it is no manifest."""
    table = read_table(file, SCHEMA, "a manifest", REMEDY)
    if table.schema.metadata is None or table.schema.metadata.get(b"nl_lightning") != VERSION["nl_lightning"].encode():
        return []
    lists = ("labels", "times", "keys")
    return [Finding(**{**row, **{name: tuple(row[name]) for name in lists}}) for row in table.to_pylist()]


def write_table(file: Path, table: pa.Table) -> None:
    """Write a table as Parquet, whole or not at all."""
    buffer = pa.BufferOutputStream()
    pq.write_table(table, buffer)
    write_atomically(file, buffer.getvalue().to_pybytes())


def read_table(file: Path, schema: pa.Schema, what: str, remedy: str) -> pa.Table:
    """A table that has these columns, without holes; UserError, with `remedy`, if `file` isn't `what` it should be."""
    try:
        table = pq.ParquetFile(file).read()  # one file: a folder of that name isn't looked into
        table.validate(full=True)
        for field in schema:
            if field.name not in table.column_names or table[field.name].type != field.type:
                raise ValueError(f"it has no column '{field.name}' of {field.type}")
            column = table[field.name]
            if column.null_count or (pa.types.is_list(field.type) and pc.list_flatten(column).null_count):
                raise ValueError(f"its column '{field.name}' has holes")
    except (OSError, ValueError, KeyError, pa.ArrowException) as error:
        raise UserError(f"{file}: not {what} ({reason(error)}): {remedy}") from None
    return table.select(schema.names)


class Manifest:
    """A manifest in memory: columns, and no Python object for a file that is well. 650,000 files take some 60 MB."""

    def __init__(self, file: Path) -> None:
        table = read_table(file, SCHEMA, "a manifest", REMEDY)
        self.file = file
        self._names = Names(path.as_py() for path in table["path"])
        counts, lengths = table["frames"].to_numpy(), pc.list_value_length(table["times"]).to_numpy()
        sound = np.isin(lengths, (0, 2)) & (counts >= 0) & (counts <= table["bytes"].to_numpy())
        if not sound.all():
            raise UserError(f"{file}: what it says of {table['path'][int(np.argmin(sound))]} can't be: {REMEDY}")
        bad = table.filter(pc.not_equal(table["error"], ""))
        self._errors = dict(zip(bad["path"].to_pylist(), bad["error"].to_pylist(), strict=True))
        self._table = table.select(["bytes", "mtime_ns", "frames", "objection", "counted", "times", "keys"])
        self._hashes = pc.utf8_slice_codeunits(table["sha256"], 0, 16)

    def facts(self, name: str) -> Facts | None:
        """What is known of the file that lies here, below the data set's folder; None if it wasn't looked at."""
        row = self._names.row(as_unicode(name))
        if row is None:
            return None
        size, mtime_ns, count, objection, counted, times, keys = (column[row].as_py() for column in self._table.columns)
        said = "the census found that it isn't plain" if objection else ""
        index = None
        if counted:
            index = Index(count, None, np.empty(0, np.int64), said)
        elif times:
            first, step = times
            index = Index(count, first + step * np.arange(count), first + step * np.array(keys, np.int64), said)
        return Facts((size, mtime_ns), index, self._errors.get(as_unicode(name), ""))

    def bad(self, paths: Paths) -> dict[int, str]:
        """Which of these can't be used, by number, and why; those whose files have changed since aren't among them."""
        found = {}
        for video, name in enumerate(paths.names()):
            if error := self._errors.get(as_unicode(name)):
                known = self.facts(name)
                if known is not None and known.version == version_or_absent(paths[video]):
                    found[video] = error
        return found

    def counts(self, paths: Paths) -> tuple[int, int]:
        """How many of these files were present, and how many decodable."""
        rows = self._rows(paths)
        bad = sum(as_unicode(name) in self._errors for name in paths.names())
        size, mtime_ns = (self._table[key].take(rows).to_numpy() for key in ("bytes", "mtime_ns"))
        return int(np.count_nonzero(size | mtime_ns)), len(rows) - bad  # archives may unpack files of 1970

    def content(self, paths: Paths) -> str:
        """What is known of the content of these files: of each its hash, where one was asked for, and its size."""
        rows = self._rows(paths)
        columns = self._hashes.take(rows).to_pylist(), self._table["bytes"].take(rows).to_pylist()
        return "".join(f"{hash_} {size}\n" for hash_, size in zip(*columns, strict=True))

    def _rows(self, paths: Paths) -> pa.Array:
        """The rows of those of the files that were looked at."""
        rows = (self._names.row(as_unicode(name)) for name in paths.names())
        return pa.array((row for row in rows if row is not None), pa.int64())


def version_or_absent(path: Path) -> tuple[int, int]:
    """The version of a file, see :func:`~nl_lightning.data.packets.version_of`; (0, 0) if it isn't there."""
    try:
        return version_of(path)
    except OSError:
        return 0, 0
