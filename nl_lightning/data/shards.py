"""``nl-lightning data shards``: a data set in a few large tar files, for disks that are slow with many small ones.

The format is WebDataset's: ``<key>.mp4`` and ``<key>.cls``, the label; any program that reads WebDataset reads it, from
an object store too. Training here reads by place instead: an index beside the shards says where in them each video
lies, and FFmpeg opens that stretch of the tar as a file. So the order is the sampler's, and batches are the very
batches of the originals, to the bit, resumed runs and any number of processes included; streaming with a shuffle buffer
could not give that. A video is one read of neighbouring bytes, which a network disk does well.

The index also holds the lists, so that nothing but the folder of the shards is needed.
"""

import json
import tarfile
from collections.abc import Mapping
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from nl_lightning.data.packets import DecodeError, stretch
from nl_lightning.data.tools.commands import alone
from nl_lightning.data.videos import Names, VideoList, below
from nl_lightning.errors import UserError, bars
from nl_lightning.study.files import write_atomically

INDEX = "index.parquet"
TEXTS, NUMBERS = ("split", "path", "shard"), ("label", "start", "size")
SCHEMA = pa.schema([*((name, pa.string()) for name in TEXTS), *((name, pa.int64()) for name in NUMBERS)])


def pack(splits: Mapping[str, VideoList], root: Path, folder: Path, shard_bytes: int) -> tuple[int, list[str]]:
    """Pack the videos of all splits, as they are; return how many, and the names of those that are absent.

    Args:
        splits: the lists; a video on several of them is packed once.
        root: the data set's folder.
        folder: where the shards go.
        shard_bytes: after so many a new shard begins.

    Raises:
        UserError: there are shards already, or another process is at it.
    """
    index = folder / INDEX
    with alone(index):
        if index.exists():
            raise UserError(f"{folder}: holds a packed data set already; name another folder, or delete this one")
        for half in folder.glob("*.tar"):  # of a packing that was stopped
            half.unlink()
        labels: dict[str, int] = {}
        for videos in splits.values():
            for name, label in videos.listed():
                if isinstance(label, tuple):
                    raise UserError(
                        f"{root}: videos have several labels each, and shards keep one: train without shards"
                    )
                labels.setdefault(name, label)
        present = {name: label for name, label in labels.items() if (root / name).is_file()}
        _write_shards(present, root, folder, shard_bytes)
        _write_index(index, splits, _places(folder, list(present)))
    return len(present), [name for name in labels if name not in present]


def _write_shards(labels: Mapping[str, int], root: Path, folder: Path, shard_bytes: int) -> None:
    from webdataset import ShardWriter  # takes seconds: torch

    pattern = str(folder).replace("%", "%%") + "/%06d.tar"
    with ShardWriter(pattern, maxsize=shard_bytes, verbose=0, mtime=0) as writer, bars() as progress:
        numbered = enumerate(labels.items())
        for number, (name, label) in progress.track(numbered, len(labels), description="packing"):
            kind = PurePosixPath(name).suffix.lstrip(".").lower() or "mp4"
            writer.write({"__key__": f"{number:09d}", kind: (root / name).read_bytes(), "cls": label})


def _places(folder: Path, names: list[str]) -> dict[str, tuple[str, int, int]]:
    """The shard, the first byte and the bytes of each video, by name."""
    places = {}
    for shard in sorted(folder.glob("*.tar")):
        with tarfile.open(shard) as members:
            for member in members:
                key, _, kind = member.name.partition(".")
                if kind != "cls":
                    places[names[int(key)]] = (shard.name, member.offset_data, member.size)
    return places


def _write_index(index: Path, splits: Mapping[str, VideoList], places: Mapping[str, tuple[str, int, int]]) -> None:
    rows = []
    for split, videos in splits.items():
        for name, label in videos.listed():
            shard, start, size = places.get(name, ("", 0, 0))
            rows.append({"split": split, "path": name, "label": label, "shard": shard, "start": start, "size": size})
    table = pa.Table.from_pylist(rows, SCHEMA)
    classes = {split: list(videos.classes) for split, videos in splits.items()}
    buffer = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"classes": json.dumps(classes)}), buffer)
    write_atomically(index, buffer.getvalue().to_pybytes())


class Shards:
    """A packed data set.

    Args:
        folder: of the shards.
        root: the folder of the originals, by which the paths of videos go; it need not be there.
    """

    def __init__(self, folder: Path, root: Path) -> None:
        self.folder, self.root = folder, root
        try:
            self._table = pq.read_table(folder / INDEX)
        except (OSError, pa.ArrowException) as error:
            line = str(error).splitlines()[0]
            raise UserError(
                f"data.shards: no packed data set in {folder} ({line}); see nl-lightning data shards"
            ) from None
        self._names = Names(path.as_py() for path in self._table["path"])

    def videos(self, split: str) -> VideoList:
        """The list of a split."""
        rows = self._table.filter(pc.equal(self._table["split"], split))
        classes = json.loads(self._table.schema.metadata[b"classes"]).get(split, [])
        if not len(rows):
            raise UserError(f"data.shards: {self.folder} has no split '{split}'")
        return VideoList.of(self.root, rows["path"].to_pylist(), rows["label"].to_pylist(), classes)

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
