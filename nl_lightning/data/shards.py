"""``nl-lightning data shards``: a data set in a few large tar files, for disks that are slow with many small ones.

The format is WebDataset's: ``<key>.mp4`` and ``<key>.cls``, the label. Training here reads by place instead: an index
beside the shards says where in them each video lies, and FFmpeg opens that stretch of the tar as a file. So batches are
the very batches of the originals, to the bit, in resumed runs and in any number of processes. Streaming with a shuffle
buffer could not give that.

The index also holds the lists, so that nothing but the folder of the shards is needed.
"""

import json
import re
import shutil
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc

from nl_lightning.data.manifest import read_table, write_table
from nl_lightning.data.packets import DecodeError, stretch
from nl_lightning.data.videos import Names, VideoList, below
from nl_lightning.errors import UserError, bars, from_extra
from nl_lightning.study.border import as_unicode, checked, parse_json
from nl_lightning.study.lock import alone

INDEX = "index.parquet"
UNFINISHED = ".nl-lightning-unfinished"
"""The folder, within that of the shards, in which they are written. Whatever lies in it is ours."""
SCHEMA = pa.schema(
    {**dict.fromkeys(("split", "path", "shard"), pa.string()), **dict.fromkeys(("start", "size", "label"), pa.int64())}
)


def write_shards(splits: Mapping[str, VideoList], root: Path, folder: Path, shard_bytes: int) -> tuple[int, list[str]]:
    """Pack the videos of all splits, each once; return how many, and the names of those that are absent.

    Shards are written into a folder of their own within `folder`, and moved when all are whole. What was stopped goes
    on behind the last whole shard. After `shard_bytes` a new shard begins. UserError if there are shards already,
    whoever's they are, or another process is at it.
    """
    labels: dict[str, int] = {}
    for videos in splits.values():
        for name, label in videos.listed():
            if isinstance(label, tuple):
                raise UserError(f"{root}: videos have several labels each, and shards keep one: train without shards")
            labels.setdefault(name, label)
    index, half = folder / INDEX, folder / UNFINISHED
    with alone(index):
        if index.exists():
            raise UserError(f"{index}: the folder holds a packed data set already; name another folder")
        if not (half / INDEX).exists():
            if foreign := sorted(folder.glob("*.tar")):
                raise UserError(f"{foreign[0]} is there already, and isn't of this data set: name another folder")
            half.mkdir(exist_ok=True)
            present = {name: label for name, label in labels.items() if (root / name).is_file()}
            _write_tars(present, root, half, shard_bytes)
            _write_index(half / INDEX, splits, _places(sorted(half.glob("*.tar")), list(present)))
        for shard in sorted(half.glob("*.tar")):
            shard.rename(folder / shard.name)
        packed = Shards(half, root).packed()
        (half / INDEX).rename(index)
        shutil.rmtree(half)
    return len(packed), [name for name in labels if as_unicode(name) not in packed]


def _write_tars(labels: Mapping[str, int], root: Path, folder: Path, shard_bytes: int) -> None:
    """Write the shards that aren't there yet. The last one that is there may be half."""
    with from_extra("shards"):
        from webdataset import ShardWriter  # takes seconds: torch

    names, whole = list(labels), sorted(folder.glob("*.tar"))[:-1]
    done = _places(whole, names)
    if list(done) != names[: len(done)] or any(done[name][2] != (root / name).stat().st_size for name in done):
        whole, done = [], {}  # the list or a file has changed since
    for shard in set(folder.glob("*.tar")) - set(whole):
        shard.unlink()
    pattern = str(folder).replace("%", "%%") + "/%06d.tar"
    writer = ShardWriter(pattern, maxsize=shard_bytes, start_shard=len(whole), verbose=0, mtime=0)
    with writer, bars() as progress:
        task = progress.add_task("packing", total=len(names), completed=len(done))
        for number, name in enumerate(names[len(done) :], len(done)):
            kind = PurePosixPath(name).suffix.lower()[1:].replace("cls", "") or "mp4"
            writer.write({"__key__": f"{number:09d}", kind: (root / name).read_bytes(), "cls": labels[name]})
            progress.advance(task)


def _places(shards: list[Path], names: list[str]) -> dict[str, tuple[str, int, int]]:
    """The shard, the first byte and the bytes of each video, by name; those of other numbers are left out."""
    places = {}
    for shard in shards:
        with tarfile.open(shard) as members:
            for member in members:
                key, _, kind = member.name.partition(".")
                if kind != "cls" and int(key) < len(names):
                    places[names[int(key)]] = (shard.name, member.offset_data, member.size)
    return places


def _write_index(index: Path, splits: Mapping[str, VideoList], places: Mapping[str, tuple[str, int, int]]) -> None:
    rows = [
        dict(zip(SCHEMA.names, (split, as_unicode(name), *places.get(name, ("", 0, 0)), label), strict=True))
        for split, videos in splits.items()
        for name, label in videos.listed()
    ]
    classes = {split: list(videos.classes) for split, videos in splits.items()}
    write_table(index, pa.Table.from_pylist(rows, SCHEMA).replace_schema_metadata({"classes": json.dumps(classes)}))


class Shards:
    """A packed data set in a folder; UserError if there is none, or its index says what can't be.

    Paths of videos go by `root`, the folder of the originals. It need not be there.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        at = folder / INDEX
        if not at.is_file():
            raise UserError(f"data.shards: no packed data set in {folder}; see nl-lightning data shards")
        self._table = read_table(
            at, SCHEMA, "an index of shards", "data.shards takes a folder that nl-lightning data shards wrote"
        )
        said = parse_json((self._table.schema.metadata or {}).get(b"classes", b""), f"{at}: classes")
        self._classes = checked(dict[str, tuple[str, ...]], said, f"{at}: classes")
        for shard in pc.unique(self._table["shard"]).to_pylist():
            if not re.fullmatch(r"(\d+\.tar)?", shard) or (folder / shard).is_symlink():
                raise UserError(f"{at}: expected shards within {folder}, as 000000.tar, got '{shard}'")
        for column, most in (("label", 2**31), ("start", 2**63), ("size", 2**63)):
            found = pc.min_max(self._table[column]).as_py()
            if not 0 <= (found["min"] or 0) <= (found["max"] or 0) < most:
                raise UserError(f"{at}: expected numbers from 0 to {most - 1} as {column}")
        self._names = Names(path.as_py() for path in self._table["path"])

    def videos(self, split: str) -> VideoList:
        rows = self._table.filter(pc.equal(self._table["split"], split))
        if not len(rows):
            raise UserError(f"data.shards: {self.folder} has no split '{split}'")
        names, labels = rows["path"].to_pylist(), rows["label"].to_pylist()
        return VideoList.of(self.root, names, labels, self._classes.get(split, ()))

    def packed(self) -> set[str]:
        """The names of the videos that were there when the set was packed."""
        return set(self._table.filter(pc.not_equal(self._table["shard"], ""))["path"].to_pylist())

    def has(self, path: Path) -> bool:
        """Whether a video was there when the set was packed."""
        return self._find(path) is not None

    def place(self, path: Path) -> str:
        """Where a video lies, as FFmpeg opens it; DecodeError if it was absent when the set was packed."""
        row = self._find(path)
        if row is None:
            raise DecodeError(f"{path}: not in the shards in {self.folder}")
        shard, start, size = (self._table[column][row].as_py() for column in ("shard", "start", "size"))
        return stretch(self.folder / shard, start, size)

    def _find(self, path: Path) -> int | None:
        row = self._names.row(below(path, self.root))
        return row if row is not None and self._table["shard"][row].as_py() else None
