"""The index of a data set: which videos there are and how they are labelled.

It is small enough for every process that reads: one buffer holds all paths, one array all labels, and not a Python
object is kept for each video, so that worker processes share the memory they were started with. (Reference counts of
objects are written whenever one is looked at, and each write copies a page of memory.) 650,000 videos take about 50 MB.
"""

import itertools
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import numpy as np
import numpy.typing as npt

from nl_lightning.errors import UserError

_SIDE = re.compile(r"(?<![A-Za-z])(left|right)(?![A-Za-z])", re.IGNORECASE)


class Paths(Sequence[Path]):
    """Paths in one buffer. An item is made when it is asked for.

    Args:
        root: the data set's folder.
        names: of the files, as they are below `root`, parted by ``/``; or absolute, for what lies elsewhere.
    """

    def __init__(self, root: Path, names: Iterable[str]) -> None:
        encoded = [os.fsencode(name) for name in names]
        self.root, self._buffer = root, b"".join(encoded)
        self._ends = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(name) for name in encoded], out=self._ends[1:])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def name(self, video: int) -> str:
        """The path below `root`: the same on every machine."""
        if not -len(self) <= video < len(self):
            raise IndexError(video)
        video %= len(self)
        return os.fsdecode(self._buffer[self._ends[video] : self._ends[video + 1]])

    def names(self) -> Iterator[str]:
        """All of them, quicker than one by one."""
        return (os.fsdecode(self._buffer[start:end]) for start, end in itertools.pairwise(self._ends.tolist()))

    @overload
    def __getitem__(self, video: int) -> Path: ...
    @overload
    def __getitem__(self, video: slice) -> "Paths": ...
    def __getitem__(self, video: int | slice) -> "Path | Paths":
        if isinstance(video, slice):
            return self.take(range(len(self))[video])
        return self.root / self.name(video)

    def take(self, videos: Iterable[int]) -> "Paths":
        """Those of `videos`, in that order."""
        return Paths(self.root, map(self.name, videos))


@dataclass(frozen=True, eq=False)
class VideoList:
    """Videos and their labels (N,), from 0; `classes` names the labels, or is empty if nothing does."""

    paths: Paths
    labels: npt.NDArray[np.int32]
    classes: tuple[str, ...]

    @classmethod
    def of(cls, root: Path, names: Sequence[str], labels: Sequence[int], classes: Sequence[str] = ()) -> "VideoList":
        """The list of the videos `names` below `root`."""
        return cls(Paths(root, names), np.asarray(labels, np.int32), tuple(classes))

    def __len__(self) -> int:
        return len(self.paths)

    def listed(self) -> list[tuple[str, int]]:
        """(path below the data set's folder, label) of each video, in order."""
        return list(zip(self.paths.names(), self.labels.tolist(), strict=True))

    def labels_beyond(self, other: "VideoList") -> list[str]:
        """The classes, by name or number, of which this list has videos and the other none."""
        beyond = np.setdiff1d(self.labels, other.labels).tolist()
        return [self.classes[label] if self.classes else str(label) for label in beyond]

    def take(self, videos: npt.NDArray[np.int64]) -> "VideoList":
        """Those of `videos`, in that order."""
        return VideoList(self.paths.take(videos.tolist()), self.labels[videos], self.classes)


def below(path: Path, root: Path) -> str:
    """A path below the data set's folder: the same on every machine."""
    return (path.relative_to(root) if path.is_relative_to(root) else path).as_posix()


def every_fifth(videos: VideoList) -> tuple[VideoList, VideoList]:
    """Split videos without splits of their own: every fifth video of a class is for validation, the others to train on.

    Clips that were cut from one recording may fall on both sides, and then validation flatters; separate ``train`` and
    ``val`` folders don't.
    """
    val = np.zeros(len(videos), bool)
    for label in np.unique(videos.labels):
        val[np.flatnonzero(videos.labels == label)[4::5]] = True
    return videos.take(np.flatnonzero(~val)), videos.take(np.flatnonzero(val))


def mirrored_labels(classes: Sequence[str]) -> npt.NDArray[np.int32]:
    """The label that a video of each class has when it is mirrored: left and right change places in the class's name.

    -1 where there is no class of that name: videos of such a class are not to be mirrored.
    """
    labels = {name: label for label, name in enumerate(classes)}
    return np.array([labels.get(_SIDE.sub(_other_side, name), -1) for name in classes], np.int32)


def _other_side(match: re.Match[str]) -> str:
    other = "right" if match[0].lower() == "left" else "left"
    return other.capitalize() if match[0][0].isupper() else other


def same_classes(train: VideoList, other: VideoList, split: str) -> None:
    """UserError if two splits don't have the same classes in the same order: labels would mean different things."""
    if train.classes == other.classes:
        return
    differ = sorted(set(train.classes) ^ set(other.classes)) or ["their order"]
    raise UserError(f"the classes of train and {split} differ: {', '.join(differ[:5])}; give both the same")
