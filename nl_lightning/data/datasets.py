"""Indices of videos -> views and labels.

A file that can't be read is never an exception here: its sample says so (`readable`, `error`), training leaves it out,
testing counts it as wrong, and :class:`~nl_lightning.data.datamodule.UnreadableVideos` names and counts it.
"""

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nl_lightning.data.decoding import Frames
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.sampling import BY_TIME, Spread, clip_indices, test_clips, train_start
from nl_lightning.data.transforms import TestViews, TrainView, mirror
from nl_lightning.data.videos import Labels, VideoList, mirrored_labels


class Reader(Protocol):
    """Where frames come from: :mod:`nl_lightning.data.decoding`, or a decoded copy."""

    def num_frames(self, path: Path) -> int: ...

    def frame_rate(self, path: Path) -> Fraction: ...

    def frames(self, path: Path, indices: npt.NDArray[np.int64]) -> Frames: ...


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


class Videos(Dataset[Sample]):
    """What the two data sets below share: the list, the clip, and reading without exceptions."""

    def __init__(self, videos: VideoList, reader: Reader, num_frames: int, stride: int) -> None:
        self.videos, self.reader = videos, reader
        self.num_frames, self.stride = num_frames, stride

    def __len__(self) -> int:
        return len(self.videos)

    def sample(self, video: int, views: Sequence[Frames], label: int | Labels, error: str = "") -> Sample:
        stacked = torch.from_numpy(np.stack(views))  # (V, T, H, W, 3)
        return Sample(stacked, self._coded(label), video, not error, str(self.videos.paths[video]), error)

    def _coded(self, label: int | Labels) -> int | Tensor:
        """A label as it stands in a sample."""
        if isinstance(label, int):
            return label
        several = torch.zeros(len(self.videos.classes), dtype=torch.uint8)
        several[list(label)] = 1
        return several

    def black(self, crop: int) -> Frames:
        return np.zeros((self.num_frames, crop, crop, 3), np.uint8)


class TrainClips(Videos):
    """One random clip a video. An index is (epoch, video): all randomness comes from (seed, epoch, video).

    So neither the number of workers nor the point at which a run was resumed changes a sample. In a mirrored clip left
    is right: where the names of classes tell the two apart, its label is that of the other one.
    """

    def __init__(
        self, videos: VideoList, reader: Reader, num_frames: int, stride: int, view: TrainView, seed: int
    ) -> None:
        super().__init__(videos, reader, num_frames, stride)
        self.view, self.seed = view, seed
        self.mirrored = dict(enumerate(mirrored_labels(videos.classes).tolist()))

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        epoch, video = index
        rng = np.random.default_rng((self.seed, epoch, video))
        path = self.videos.paths[video]
        try:
            length = self.reader.num_frames(path)
            start = train_start(rng, length, self.num_frames, self.stride)
            frames = self.reader.frames(path, clip_indices(start, length, self.num_frames, self.stride))
        except DecodeError as error:
            return self.sample(video, [self.black(self.view.crop)], self.videos.label(video), str(error))
        view, label = self.view(frames, rng), self.videos.label(video)
        if self.view.mirrors(rng) and (mirrored := self._mirrored(label)) is not None:
            view, label = mirror(view), mirrored
        return self.sample(video, [view], label)

    def _mirrored(self, label: int | Labels) -> int | Labels | None:
        """The label of the mirrored clip; None if there is no such class."""
        several = label if isinstance(label, tuple) else (label,)
        mirrored = tuple(sorted(self.mirrored.get(one, one) for one in several))
        if mirrored[0] < 0:
            return None
        return mirrored if isinstance(label, tuple) else mirrored[0]


class TestVideos(Videos):
    """All views of a video: each clip in each crop, clip by clip. The video is decoded once for all of them."""

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __init__(
        self,
        videos: VideoList,
        reader: Reader,
        num_frames: int,
        stride: int,
        views: TestViews,
        clips: int,
        spread: Spread,
    ) -> None:
        super().__init__(videos, reader, num_frames, stride)
        self.views, self.clips, self.spread = views, clips, spread

    def __getitem__(self, video: int) -> Sample:
        path = self.videos.paths[video]
        try:
            length = self.reader.num_frames(path)
            rate = self.reader.frame_rate(path) if self.spread in BY_TIME else None
            clips = test_clips(length, self.num_frames, self.stride, self.clips, self.spread, rate)
            # Clips overlap: each frame is decoded and scaled once.
            wanted, place = np.unique(np.concatenate(clips), return_inverse=True)
            frames = self.views.scaled(self.reader.frames(path, wanted))[place]  # (clips T, H, W, 3)
        except DecodeError as error:
            count = self.clips * self.views.crops
            return self.sample(video, [self.black(self.views.side)] * count, self.videos.label(video), str(error))
        views = [view for clip in np.split(frames, self.clips) for view in self.views.cropped(clip)]
        return self.sample(video, views, self.videos.label(video))
