"""The index of a data set: which videos there are and how they are labelled.

Arrow arrays hold all paths and all labels, and no Python object is kept for a video, so that worker processes share the
memory they were started with. (Looking at an object writes its reference count, and each write copies a page of
memory.) 650,000 videos take about 50 MB.
"""

import hashlib
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nl_lightning.errors import UserError
from nl_lightning.study.border import as_unicode

_SIDE = re.compile(  # a word of its own, also within turn_LEFT and turnLeft
    r"((?<![A-Za-z])|(?<=[a-z])(?=[LR]))([Ll]eft|[Rr]ight)(?![a-z])|(?<![A-Za-z])(LEFT|RIGHT)(?![A-Za-z])"
)
_SIDE_OR_LETTER = re.compile(  # l_eye, eye.R, LEye; in names of classes a letter may be anything
    rf"{_SIDE.pattern}|(?<![A-Za-z])[LRlr](?=[_. -]|[A-Z][a-z])|(?<=[_. -])[LRlr](?![A-Za-z])"
)

Labels = tuple[int, ...]
"""Of a video with several, in ascending order."""


class Paths:
    """Paths in one buffer. An item is made when it is asked for.

    Args:
        root: the data set's folder.
        names: of the files, as they are below `root`, parted by ``/``; or absolute, for what lies elsewhere.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        self.root, self._names = root, pa.array(map(os.fsencode, names), pa.large_binary())

    def __len__(self) -> int:
        return len(self._names)

    def name(self, video: int) -> str:
        """The path below `root`: the same on every machine."""
        return os.fsdecode(self._names[video].as_py())

    def names(self) -> Iterator[str]:
        """All of them, quicker than one by one."""
        return map(os.fsdecode, self._names.to_pylist())

    def __getitem__(self, video: int) -> Path:
        return self.root / self.name(video)

    def __iter__(self) -> Iterator[Path]:
        return (self.root / name for name in self.names())

    def take(self, videos: Iterable[int]) -> "Paths":
        """Those of `videos`, in that order."""
        return Paths(self.root, map(self.name, videos))


class Names:
    """Which row of a table a name has: 12 bytes a name, for hundreds of thousands of names, and no Python object."""

    def __init__(self, names: Iterable[str]) -> None:
        hashes = np.fromiter(map(_hash, names), np.int64)
        order = np.argsort(hashes)
        self._hashes, self._rows = hashes[order], order.astype(np.int32)

    def row(self, name: str) -> int | None:
        """The row of a name; None if there is none."""
        sought = _hash(name)
        place = int(np.searchsorted(self._hashes, sought))
        found = place < len(self._hashes) and self._hashes[place] == sought
        return int(self._rows[place]) if found else None


def _hash(name: str) -> int:
    """64 bits of a name: among a million names, two are alike once in 40 million data sets."""
    digest = hashlib.blake2b(name.encode("utf-8", "surrogateescape"), digest_size=8).digest()
    return int.from_bytes(digest, "big", signed=True)


@dataclass(frozen=True, eq=False)
class VideoList:
    """Videos and their labels, from 0; `classes` names the labels, or is empty if nothing does."""

    paths: Paths
    of_each: pa.Array  # the label of each video, int32, or a list of them
    classes: tuple[str, ...]

    @classmethod
    def of(
        cls, root: Path, names: Sequence[str], labels: Sequence[int | Labels], classes: Sequence[str] = ()
    ) -> "VideoList":
        """The list of the videos `names` below `root`, of which each has a label, or each a tuple of them."""
        several = any(isinstance(label, tuple) for label in labels)
        of_each = pa.array(labels, pa.list_(pa.int32()) if several else pa.int32())
        return cls(Paths(root, names), of_each, tuple(map(as_unicode, classes)))  # as headers of weights have them

    def __len__(self) -> int:
        return len(self.paths)

    @property
    def multi_label(self) -> bool:
        return isinstance(self.of_each, pa.ListArray)

    @property
    def labels(self) -> npt.NDArray[np.int32]:
        """The labels of all videos in a row."""
        return np.asarray(self.of_each.flatten() if self.multi_label else self.of_each)

    def label(self, video: int) -> int | Labels:
        label: int | list[int] = self.of_each[video].as_py()
        return tuple(label) if isinstance(label, list) else label

    def listed(self) -> list[tuple[str, int | Labels]]:
        """(path below the data set's folder, label or labels) of each video, in order."""
        return list(zip(self.paths.names(), map(self.label, range(len(self))), strict=True))

    def labels_beyond(self, other: "VideoList") -> list[str]:
        """The classes, by name or number, of which this list has videos and the other none."""
        beyond = np.setdiff1d(self.labels, other.labels).tolist()
        return [self.classes[label] if self.classes else str(label) for label in beyond]

    def take(self, videos: npt.NDArray[np.int64]) -> "VideoList":
        """Those of `videos`, in that order."""
        return VideoList(self.paths.take(videos.tolist()), self.of_each.take(pa.array(videos)), self.classes)


def below(path: Path, root: Path) -> str:
    """A path below the data set's folder: the same on every machine."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def refuse_outside(paths: Paths) -> None:
    """UserError for a path that leaves the data set's folder, be it by ``..``, as it stands, or by a symbolic link.

    Each folder is looked at once, for its links: files may be many, and on a disk far away.
    """
    root = _real(paths.root)
    outside: dict[str, frozenset[str] | None] = {}
    for name in paths.names():
        folder, _, file = name.rpartition("/")
        if folder not in outside:
            outside[folder] = _links_out(paths.root / (f"{folder}/" if name.startswith("/") else folder), root)
        links = outside[folder]
        if links is None or file in links:
            raise UserError(
                f"{paths.root / name} lies outside of {paths.root}: "
                f"{_real(paths.root / name)}; set data.allow_outside to true if that is meant"
            )


def _links_out(folder: Path, root: Path) -> frozenset[str] | None:
    """The names in `folder` that link to what isn't below `root`; None if the folder itself isn't below it."""
    if not _real(folder).is_relative_to(root):
        return None
    if not folder.is_dir():
        return frozenset()
    with os.scandir(folder) as entries:
        links = [entry.name for entry in entries if entry.is_symlink()]
    return frozenset(name for name in links if not _real(folder / name).is_relative_to(root))


def _real(path: Path) -> Path:
    """Without symbolic links; links in a circle are no error, as they are to pathlib."""
    return Path(os.path.realpath(path))


def every_fifth(videos: VideoList) -> tuple[VideoList, VideoList]:
    """Split videos without splits of their own: every fifth video of a class is for validation, the others to train on.

    Validation flatters if clips that were cut from one recording fall on both sides.
    """
    val = np.zeros(len(videos), bool)
    for label in np.unique(videos.labels):
        val[np.flatnonzero(videos.labels == label)[4::5]] = True
    return videos.take(np.flatnonzero(~val)), videos.take(np.flatnonzero(val))


def mirrored_labels(classes: Sequence[str], letters: bool = False) -> npt.NDArray[np.int32]:
    """The label that a video of each class has when it is mirrored: left and right change places in the class's name.

    With `letters`, so do l and r that stand by themselves. -1 where there is no class of that name: videos of such a
    class are not to be mirrored.
    """
    labels = {name: label for label, name in enumerate(classes)}
    sides = _SIDE_OR_LETTER if letters else _SIDE
    return np.array([labels.get(sides.sub(_other_side, name), -1) for name in classes], np.int32)


def _other_side(match: re.Match[str]) -> str:
    if len(match[0]) == 1:
        return match[0].translate(str.maketrans("lrLR", "rlRL"))
    other = "right" if match[0].lower() == "left" else "left"
    return other.upper() if match[0].isupper() else other.capitalize() if match[0][0].isupper() else other


def same_classes(train: VideoList, other: VideoList, split: str) -> None:
    """UserError if two splits don't have the same classes in the same order: labels would mean different things."""
    if train.classes == other.classes:
        return
    differ = sorted(set(train.classes) ^ set(other.classes)) or ["their order"]
    raise UserError(f"the classes of train and {split} differ: {', '.join(differ[:5])}; give both the same")
