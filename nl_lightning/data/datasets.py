"""Lists of video files -> views and labels.

A file that can't be read is never an exception here: its sample says so (`readable`, `error`), training leaves it out,
testing counts it as wrong, and :class:`~nl_lightning.data.datamodule.UnreadableVideos` names and counts it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import Dataset

from nl_lightning.data.decoding import DecodeError
from nl_lightning.data.sampling import Spread, clip_indices, test_starts, train_start
from nl_lightning.data.transforms import Frames, TestViews, TrainView
from nl_lightning.errors import UserError

SUFFIXES = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v"}


class Reader(Protocol):
    """Where frames come from: :mod:`nl_lightning.data.decoding`, or a decoded copy."""

    def num_frames(self, path: Path) -> int: ...

    def frames(self, path: Path, indices: npt.NDArray[np.int64]) -> Frames: ...


class Sample(NamedTuple):
    """One video, or, collated, a batch of N. The views of an unreadable video are black.

    `video` is the index in the list, from 0; `error` is empty if the video is readable.
    """

    views: Tensor  # uint8 (V, T, H, W, 3)
    label: int
    video: int
    readable: bool
    path: str
    error: str


@dataclass(frozen=True)
class VideoList:
    """Videos and their labels, from 0; `classes` names the labels, or is empty if nothing does."""

    paths: tuple[Path, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.paths)


def read_list(file: Path, classes: Sequence[str] = ()) -> VideoList:
    """Read a list file: ``path label`` a line, the path relative to the file's folder, the label from 0.

    Raises:
        UserError: the file is missing or empty, or a line has no label or one that no class has.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: no list of videos can be read here: {error}") from None
    paths, labels = [], []
    for number, line in enumerate(lines, 1):
        path, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not path or not label.isdecimal():
            raise UserError(f"{file}:{number}: expected 'path label' with the label a whole number, not '{line}'")
        if classes and int(label) >= len(classes):
            raise UserError(
                f"{file}:{number}: label {label}, but there are {len(classes)} classes, 0 to {len(classes) - 1}"
            )
        paths.append(file.parent / path)
        labels.append(int(label))
    if not paths:
        raise UserError(f"{file}: the list of videos is empty")
    return VideoList(tuple(paths), tuple(labels), tuple(classes))


def read_classes(file: Path) -> tuple[str, ...]:
    """The class names in a file, one a line, in the order of the labels; none if there is no such file."""
    if not file.exists():
        return ()
    return tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())


def scan_folder(folder: Path) -> VideoList:
    """The videos in the class folders of `folder`; classes and videos in alphabetical order.

    Raises:
        UserError: there is no class folder, or no video in them.
    """
    inside = folder.iterdir() if folder.is_dir() else []
    folders = sorted(f for f in inside if f.is_dir() and not f.name.startswith("."))
    found = [
        (path, label)
        for label, class_folder in enumerate(folders)
        for path in sorted(class_folder.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise UserError(f"{folder}: expected class folders with videos ({', '.join(sorted(SUFFIXES))}) in it")
    paths, labels = zip(*found, strict=True)
    return VideoList(paths, labels, tuple(f.name for f in folders))


def every_fifth(videos: VideoList) -> tuple[VideoList, VideoList]:
    """Split videos without splits of their own: every fifth video of a class is for validation, the others to train on.

    Clips that were cut from one recording may fall on both sides, and then validation flatters; separate ``train`` and
    ``val`` folders don't.
    """
    seen: dict[int, int] = {}
    sides: tuple[list[int], list[int]] = ([], [])
    for video, label in enumerate(videos.labels):
        seen[label] = seen.get(label, 0) + 1
        sides[seen[label] % 5 == 0].append(video)
    train, val = (
        VideoList(tuple(videos.paths[v] for v in side), tuple(videos.labels[v] for v in side), videos.classes)
        for side in sides
    )
    return train, val


def same_classes(train: VideoList, other: VideoList, split: str) -> None:
    """UserError if two splits don't have the same classes in the same order: labels would mean different things."""
    if train.classes == other.classes:
        return
    differ = sorted(set(train.classes) ^ set(other.classes)) or ["their order"]
    raise UserError(f"the classes of train and {split} differ: {', '.join(differ[:5])}; give both the same")


class Videos(Dataset[Sample]):
    """What the two data sets below share: the list, the clip, and reading without exceptions."""

    def __init__(self, videos: VideoList, reader: Reader, num_frames: int, stride: int) -> None:
        self.videos, self.reader = videos, reader
        self.num_frames, self.stride = num_frames, stride

    def __len__(self) -> int:
        return len(self.videos)

    def sample(self, video: int, views: Sequence[Frames], error: str = "") -> Sample:
        stacked = torch.from_numpy(np.stack(views))  # (V, T, H, W, 3)
        return Sample(stacked, self.videos.labels[video], video, not error, str(self.videos.paths[video]), error)

    def black(self, crop: int) -> Frames:
        return np.zeros((self.num_frames, crop, crop, 3), np.uint8)


class TrainClips(Videos):
    """One random clip a video. An index is (epoch, video): all randomness comes from (seed, epoch, video).

    So neither the number of workers nor the point at which a run was resumed changes a sample.
    """

    def __init__(
        self, videos: VideoList, reader: Reader, num_frames: int, stride: int, view: TrainView, seed: int
    ) -> None:
        super().__init__(videos, reader, num_frames, stride)
        self.view, self.seed = view, seed

    def __getitem__(self, index: tuple[int, int]) -> Sample:
        epoch, video = index
        rng = np.random.default_rng((self.seed, epoch, video))
        path = self.videos.paths[video]
        try:
            length = self.reader.num_frames(path)
            start = train_start(rng, length, self.num_frames, self.stride)
            frames = self.reader.frames(path, clip_indices(start, length, self.num_frames, self.stride))
        except DecodeError as error:
            return self.sample(video, [self.black(self.view.crop)], str(error))
        return self.sample(video, [self.view(frames, rng)])


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
            starts = test_starts(length, self.num_frames, self.stride, self.clips, self.spread)
            clips = [clip_indices(start, length, self.num_frames, self.stride) for start in starts]
            # Clips overlap: each frame is decoded and scaled once.
            wanted, place = np.unique(np.concatenate(clips), return_inverse=True)
            frames = self.views.scaled(self.reader.frames(path, wanted))[place]  # (clips T, H, W, 3)
        except DecodeError as error:
            count = self.clips * self.views.crops
            return self.sample(video, [self.black(self.views.side)] * count, str(error))
        views = [view for clip in np.split(frames, self.clips) for view in self.views.cropped(clip)]
        return self.sample(video, views)
