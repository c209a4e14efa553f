"""Which frames and which crop: integers only, each function stating its formula. Frames and pixels count from 0.

A clip of `num_frames` frames, one out of `stride`, spans ``num_frames * stride`` frames of its video (Sec. 3.3: 64
consecutive frames, every other one dropped). Where paper and released code choose otherwise, `Spread` names both.
"""

from typing import Literal

import numpy as np
import numpy.typing as npt

Spread = Literal["paper", "release", "slowfast", "mmaction2", "pytorchvideo"]
Box = tuple[int, int]  # (top, left) of a crop


def train_start(rng: np.random.Generator, length: int, num_frames: int, stride: int) -> int:
    """Return the first frame of a training clip: uniform in [0, length - span], 0 in a shorter video."""
    return int(rng.integers(max(0, length - num_frames * stride) + 1))


def test_starts(length: int, num_frames: int, stride: int, num_clips: int, spread: Spread) -> list[int]:
    """Return the first frames of the clips of a video in testing, k = 0 ... num_clips - 1.

    With room = length - span, at least 0 (a shorter video gives zeros, but for ``release``):

    - ``paper`` (Sec. 4.1, "evenly"): k * room / (num_clips - 1), rounded half up; a single clip is centred, room // 2.
    - ``release``: length * k // num_clips, so that late clips wrap around to the beginning of the video (17 of 32
      frames of the last clip of 10 at stride 2 and 300 frames).
    - ``slowfast``: room * k // num_clips, so that the end of the video is never seen. (Its own start is a fraction.)
    - ``mmaction2``: as the paper's, but the span ends with the clip's last frame, (num_frames - 1) * stride + 1, and
      halves go to the even number.
    - ``pytorchvideo``: k * room // (num_clips - 1); a single clip starts at 0. (Its own start is in seconds.)
    """
    if spread == "release":
        return [length * k // num_clips for k in range(num_clips)]
    if spread == "mmaction2":
        room = max(0, length - (num_frames - 1) * stride - 1)
        return [round(k * (room / (num_clips - 1))) for k in range(num_clips)] if num_clips > 1 else [room // 2]
    room = max(0, length - num_frames * stride)
    if spread == "slowfast":
        return [room * k // num_clips for k in range(num_clips)]
    if spread == "pytorchvideo":
        return [k * room // max(1, num_clips - 1) for k in range(num_clips)]
    if num_clips == 1:
        return [room // 2]
    return [(2 * k * room + num_clips - 1) // (2 * (num_clips - 1)) for k in range(num_clips)]


def clip_indices(start: int, length: int, num_frames: int, stride: int) -> npt.NDArray[np.int64]:
    """Return the frames (T,) of a clip: (start + stride * t) modulo length, t = 0 ... num_frames - 1."""
    return (start + stride * np.arange(num_frames, dtype=np.int64)) % length


def short_side(rng: np.random.Generator, lowest: int, highest: int) -> int:
    """Return a shorter side in pixels for scale jitter: a uniform integer in [lowest, highest]."""
    return int(rng.integers(lowest, highest + 1))


def resized(height: int, width: int, shorter: int) -> tuple[int, int]:
    """Return (H, W) with the given shorter side; the longer one is longer * shorter // old shorter."""
    old = min(height, width)
    return height * shorter // old, width * shorter // old


def random_crop(rng: np.random.Generator, height: int, width: int, size: int) -> Box:
    """Return a crop: top uniform in [0, height - size], left uniform in [0, width - size]."""
    check_crop(height, width, size)
    return int(rng.integers(height - size + 1)), int(rng.integers(width - size + 1))


def centre_crop(height: int, width: int, size: int) -> Box:
    """Return the centre crop: ((height - size) // 2, (width - size) // 2)."""
    check_crop(height, width, size)
    return (height - size) // 2, (width - size) // 2


def test_crops(height: int, width: int, size: int, num_crops: int) -> list[Box]:
    """Return one centre crop, or three along the longer side: at 0, c, 2c with c = (longer - size) // 2.

    In the shorter side all are centred. So the third crop ends one pixel before the edge if longer - size is odd (as
    in the released code).
    """
    top, left = centre_crop(height, width, size)
    if num_crops == 1:
        return [(top, left)]
    if num_crops == 3:
        return [(k * top, left) if height > width else (top, k * left) for k in range(3)]
    raise ValueError(f"num_crops is {num_crops}, expected 1 or 3")


def check_crop(height: int, width: int, size: int) -> None:
    """Raise ValueError for a crop that the frame does not hold."""
    if size > min(height, width):
        raise ValueError(f"a crop of {size} pixels does not fit into a frame of {height} x {width}")
