"""Indices of videos -> views and labels, from the files of a data set.

A file that can't be read is never an exception of a data set: its sample says so (`readable`, `error`), training leaves
it out, testing counts it as wrong, and :class:`~nl_lightning.train.callbacks.UnreadableVideos` names and counts it.
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nl_lightning.data.decoding import Frames
from nl_lightning.data.manifest import Manifest
from nl_lightning.data.packets import DecodeError, Facts
from nl_lightning.data.reader import DangerousFile, Helper
from nl_lightning.data.sampling import BY_TIME, clip_indices, test_clips, train_start
from nl_lightning.data.shards import Shards
from nl_lightning.data.transforms import TestViews, TrainView
from nl_lightning.data.videos import Labels, VideoList, below, mirrored_labels
from nl_lightning.errors import UserError


class Reader(Protocol):
    """Where frames come from: :mod:`nl_lightning.data.decoding`, :class:`Files`, or a decoded copy."""

    def num_frames(self, path: Path) -> int: ...

    def frame_rate(self, path: Path) -> Fraction: ...

    def frames(self, path: Path, indices: npt.NDArray[np.int64]) -> Frames: ...


@dataclass(eq=False)
class Files:
    """A reader of a data set's files, wherever they lie. It asks a helper; DecodeError if that can't read."""

    root: Path  # the data set's folder
    decoder: str = "pyav"
    seconds: float = 120.0  # after which a file is given up, see :class:`Helper`
    manifest: Manifest | None = None  # what a census found, if there was one
    shards: Shards | None = None  # what the files are packed in, if they are
    square_pixels: bool = False  # scale pictures whose pixels aren't square
    module: str = "nl_lightning.data.decoding"  # whose `num_frames`, `frame_rate` and `frames` are called

    def __post_init__(self) -> None:
        self.helper = Helper(self.seconds)
        self.aside: dict[Path, str] = {}  # files that hung or crashed the helper, and what was said of them

    def num_frames(self, path: Path) -> int:
        return int(self._ask("num_frames", path, self._facts(path)))

    def frame_rate(self, path: Path) -> Fraction:
        return Fraction(self._ask("frame_rate", path))

    def frames(self, path: Path, indices: npt.NDArray[np.int64]) -> Frames:
        """The frames `indices` of a file, valid until the next call."""
        return np.asarray(self._ask("frames", path, indices, self.decoder, self._facts(path), self.square_pixels))

    def is_present(self, path: Path) -> bool:
        """Whether there is such a file, or a place in the shards."""
        return path.is_file() if self.shards is None else self.shards.has(path)

    def _facts(self, path: Path) -> Facts | None:
        return None if self.manifest is None or self.shards else self.manifest.facts(below(path, self.root))

    def _ask(self, function: str, path: Path, *arguments: Any) -> Any:
        """What the helper answers; a file that costs it its process isn't asked for again."""
        if path in self.aside:
            raise DecodeError(self.aside[path])
        ask = self.helper.pictures if function == "frames" else self.helper.ask
        try:
            return ask(f"{self.module}.{function}", self.shards.place(path) if self.shards else path, *arguments)
        except DangerousFile as error:
            self.aside[path] = str(error)
            raise


SHARED_MEMORY = Path("/dev/shm")
AHEAD = 2
"""Batches that a worker of PyTorch's loader reads ahead."""


def check_room(workers: int, batch_bytes: int, place: Path = SHARED_MEMORY) -> None:
    """UserError if the batches that `workers` read ahead, and the one in use, don't fit into shared memory.

    A full /dev/shm ends workers with a bus error and no word.
    """
    if not workers or not place.is_dir():
        return
    status = os.statvfs(place)
    free, needed = status.f_bavail * status.f_frsize, (workers * AHEAD + 1) * batch_bytes
    if free < needed:
        raise UserError(
            f"{place} has room for {free >> 20} MB, and {workers} workers that read ahead fill {needed >> 20} MB: "
            "free it, enlarge it (of a container: --shm-size), or set data.num_workers or data.batch_size lower"
        )


class Sample(NamedTuple):
    """One video, or, collated, a batch of N. The views of an unreadable video are black.

    `video` is the index in the list, from 0; `error` is empty if the video is readable. `label` is from 0, or, where
    videos have several, 0 or 1 for each class.
    """

    views: Tensor  # uint8 (V, T, H, W, 3)
    label: int | Tensor  # uint8 (classes,)
    video: int
    readable: bool
    path: str
    error: str


@dataclass(eq=False)
class Videos(Dataset[Sample]):
    """What the two data sets below share: the list, the clip, and reading without exceptions."""

    videos: VideoList
    reader: Reader
    num_frames: int
    stride: int

    def __len__(self) -> int:
        return len(self.videos)

    def sample(self, video: int, views: Sequence[Frames], label: int | Labels, error: str = "") -> Sample:
        stacked = torch.from_numpy(np.stack(views))  # (V, T, H, W, 3)
        several = torch.zeros(len(self.videos.classes), dtype=torch.uint8)
        coded = label if isinstance(label, int) else several.index_fill(0, torch.tensor(label), 1)
        return Sample(stacked, coded, video, not error, str(self.videos.paths[video]), error)

    def unreadable(self, video: int, views: int, side: int, error: DecodeError) -> Sample:
        black = np.zeros((self.num_frames, side, side, 3), np.uint8)
        return self.sample(video, [black] * views, self.videos.label(video), str(error))


@dataclass(eq=False)
class TrainClips(Videos):
    """One random clip a video. An index is (epoch, video): all randomness comes from (seed, epoch, video).

    So neither the number of workers nor the point at which a run was resumed changes a sample. In a mirrored clip left
    is right: where the names of classes tell the two apart, its label is that of the other one.
    """

    view: TrainView
    seed: int

    def __post_init__(self) -> None:
        self.mirrored = dict(enumerate(mirrored_labels(self.videos.classes).tolist()))

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        epoch, video = index
        rng = np.random.default_rng((self.seed, epoch, video))
        path = self.videos.paths[video]
        try:
            length = self.reader.num_frames(path)
            start = train_start(rng, length, self.num_frames, self.stride)
            frames = self.reader.frames(path, clip_indices(start, length, self.num_frames, self.stride))
        except DecodeError as error:
            return self.unreadable(video, 1, self.view.crop, error)
        view, label = self.view(frames, rng), self.videos.label(video)
        if self.view.mirrors(rng) and (mirrored := self._mirrored(label)) is not None:
            view, label = view[:, :, ::-1], mirrored
        return self.sample(video, [view], label)

    def _mirrored(self, label: int | Labels) -> int | Labels | None:
        """The label of the mirrored clip; None if there is no such class."""
        if isinstance(label, tuple):
            mirrored = sorted(self.mirrored.get(one, one) for one in label)
            return tuple(mirrored) if mirrored[0] >= 0 else None
        other = self.mirrored.get(label, label)
        return other if other >= 0 else None


@dataclass(eq=False)
class TestVideos(Videos):
    """All views of a video: each clip in each crop, clip by clip. The video is decoded once for all of them."""

    views: TestViews
    clips: int

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __getitem__(self, video: int) -> Sample:
        path = self.videos.paths[video]
        try:
            length = self.reader.num_frames(path)
            rate = self.reader.frame_rate(path) if self.views.spread in BY_TIME else None
            clips = test_clips(length, self.num_frames, self.stride, self.clips, self.views.spread, rate)
            # Clips overlap: each frame is decoded and scaled once.
            wanted, place = np.unique(np.concatenate(clips), return_inverse=True)
            frames = self.views.scaled(self.reader.frames(path, wanted))[place]  # (clips T, H, W, 3)
        except DecodeError as error:
            return self.unreadable(video, self.clips * self.views.crops, self.views.side, error)
        views = [view for clip in np.split(frames, self.clips) for view in self.views.cropped(clip)]
        return self.sample(video, views, self.videos.label(video))
