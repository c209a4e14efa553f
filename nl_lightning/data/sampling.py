"""Which frames, which crop and which videos: integers only, each function stating its formula. All count from 0.

A clip of `num_frames` frames, one out of `stride`, spans ``num_frames * stride`` frames of its video (Sec. 4.1: 64
consecutive frames, every other one dropped). Where paper and released code choose otherwise, `Spread` names both.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from math import ceil
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Sampler

Spread = Literal["paper", "release", "slowfast", "mmaction2", "mmaction2_dense", "pytorchvideo"]
Box = tuple[int, int]  # (top, left) of a crop
Indices = npt.NDArray[np.int64]

BY_TIME = ("slowfast", "pytorchvideo")
"""Spreads that go by seconds, so that they need a video's frame rate."""
THEIR_RATE = 30
"""Frames a second that those two count a clip in: 8 frames at stride 8 last 64/30 s, in any video."""


def train_start(rng: np.random.Generator, length: int, num_frames: int, stride: int) -> int:
    """Return the first frame of a training clip: uniform in [0, length - span], 0 in a shorter video."""
    return int(rng.integers(max(0, length - num_frames * stride) + 1))


def test_clips(
    length: int, num_frames: int, stride: int, num_clips: int, spread: Spread, rate: Fraction | None
) -> list[Indices]:
    """Return the frames (T,) of each clip of a video in testing, k = 0 ... num_clips - 1.

    - ``paper``, ``release``, ``mmaction2``, ``mmaction2_dense``: :func:`clip_indices` from :func:`test_starts`.
    - ``slowfast``: with span = num_frames * stride / 30 * rate, from start = max(0, length - span) * k / num_clips to
      start + span - 1 in num_frames equal steps, each rounded down, and not beyond the last frame. At 30 frames a
      second, 8 frames at stride 8 are 0, 9, 18, ..., 63. (Of a long video its own decoder may begin one frame later.)
    - ``pytorchvideo``: all frames whose time lies in [start, start + num_frames * stride / 30) seconds, num_frames of
      them in equal steps, rounded down. start = k * (duration - that span) / (num_clips - 1); a single clip is at 0.
      (So it is since 2022. Its release 0.1.5 divides by num_clips.)

    Args:
        length: of the video, in frames.
        rate: its frames a second; may be None unless `spread` is one of :data:`BY_TIME`.
    """
    if spread not in BY_TIME:
        starts = test_starts(length, num_frames, stride, num_clips, spread)
        return [clip_indices(start, length, num_frames, stride) for start in starts]
    assert rate is not None
    if spread == "slowfast":
        frames = max(1.0, num_frames * stride / THEIR_RATE * float(rate))
        begins = [max(length - frames, 0) * k / num_clips for k in range(num_clips)]
        return [_equal_steps(begin, begin + frames - 1, num_frames, length) for begin in begins]
    clips = []
    span = Fraction(num_frames * stride / THEIR_RATE)  # of the rounded quotient, as theirs
    step = max(length / rate - span, Fraction(0)) / max(num_clips - 1, 1)
    for k in range(num_clips):
        first = min(ceil(k * step * rate), length - 1)
        count = max(1, min(ceil((k * step + span) * rate), length) - first)
        clips.append(first + _equal_steps(0, count - 1, num_frames, count))
    return clips


def _equal_steps(start: float, end: float, steps: int, length: int) -> Indices:
    """Both code bases round as torch's linspace does, in float32."""
    places = torch.linspace(start, end, steps).clamp(0, length - 1).long()
    return np.asarray(places.numpy(), np.int64)


def test_starts(length: int, num_frames: int, stride: int, num_clips: int, spread: Spread) -> list[int]:
    """Return the first frames of the clips of a video in testing, for spreads that go by frames.

    With room = length - span, at least 0 (a shorter video gives zeros, but for ``release``):

    - ``paper`` (Sec. 4.1, "evenly"): k * room / (num_clips - 1), rounded half up; a single clip is centred, room // 2.
    - ``release``: length * k // num_clips, so that late clips wrap around to the beginning of the video (17 of 32
      frames of the last clip of 10 at stride 2 and 300 frames).
    - ``mmaction2``: as the paper's, but the span ends with the clip's last frame, (num_frames - 1) * stride + 1, and
      halves go to the even number.
    - ``mmaction2_dense``: k * room / (num_clips - 1), rounded down; a single clip starts at 0.
    """
    if spread == "release":
        return [length * k // num_clips for k in range(num_clips)]
    if spread == "mmaction2":
        room = max(0, length - (num_frames - 1) * stride - 1)
        return [round(k * (room / (num_clips - 1))) for k in range(num_clips)] if num_clips > 1 else [room // 2]
    room = max(0, length - num_frames * stride)
    if spread == "mmaction2_dense":
        return [int(start) for start in np.linspace(0, room, num_clips, dtype=int)]
    if num_clips == 1:
        return [room // 2]
    return [(2 * k * room + num_clips - 1) // (2 * (num_clips - 1)) for k in range(num_clips)]


def clip_indices(start: int, length: int, num_frames: int, stride: int) -> Indices:
    """Return the frames (T,) of a clip: (start + stride * t) modulo length, t = 0 ... num_frames - 1."""
    return (start + stride * np.arange(num_frames, dtype=np.int64)) % length


def short_side(rng: np.random.Generator, lowest: int, highest: int) -> int:
    """Return a shorter side in pixels for scale jitter: a uniform integer in [lowest, highest]."""
    return int(rng.integers(lowest, highest + 1))


def random_crop(rng: np.random.Generator, height: int, width: int, size: int) -> Box:
    """Return a crop: top uniform in [0, height - size], left uniform in [0, width - size]."""
    return int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))


def test_crops(height: int, width: int, size: int, num_crops: int, spread: Spread) -> list[Box]:
    """Return one centre crop, or three along the longer side: at 0, c, 2c with c = (longer - size) // 2.

    In the shorter side all are centred. So the third crop ends one pixel before the edge if longer - size is odd (as
    in the released code and mmaction2). ``slowfast`` and ``pytorchvideo`` round the centre up, and end the third crop
    at the edge.
    """
    down, right = height - size, width - size
    up = spread in BY_TIME
    top, left = (down + up) // 2, (right + up) // 2
    if num_crops == 1:
        return [(top, left)]
    if height > width:
        return [(0, left), (top, left), (down if up else 2 * top, left)]
    return [(top, 0), (top, left), (top, right if up else 2 * left)]


@dataclass(eq=False)
class EpochShuffle(Sampler[tuple[int, int]]):
    """Every video once, as (epoch, video), in an order that depends on the seed and the epoch alone.

    Processes take turns in that one order, all equally often: fewer videos than processes are left over at its end.
    So what all of them read in an iteration depends on the product of batch size and processes alone.
    """

    length: int  # videos in all
    seed: int
    process: int = 0  # which one this is
    processes: int = 1
    epoch: int = 0  # the first one
    behind: int = 0  # videos of the first epoch that this process has read before, and doesn't read again

    def __post_init__(self) -> None:
        self.first = self.epoch

    def set_epoch(self, epoch: int) -> None:
        """Lightning calls it when an epoch begins."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.length, generator=generator)[self.process :: self.processes][: len(self)]
        behind = self.behind if self.epoch == self.first else 0
        return ((self.epoch, video) for video in order[behind:].tolist())


def turns(length: int, batch_size: int, process: int = 0, processes: int = 1) -> list[list[int]]:
    """Return batches of consecutive videos. Processes take them in turns: none is read twice, and none left out.

    The batches are those of a single process, so that each video meets the same ones in it.
    """
    batches = [list(range(start, min(start + batch_size, length))) for start in range(0, length, batch_size)]
    return batches[process::processes]
