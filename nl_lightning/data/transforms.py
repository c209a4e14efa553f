"""Pixels of a clip, uint8 (T, H, W, 3), to pixels of a view, uint8 (T, crop, crop, 3). Normalising is the network's."""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2.functional import resize as resize_images

from nl_lightning.data.decoding import Frames
from nl_lightning.data.sampling import Spread, random_crop, short_side, test_crops
from nl_lightning.errors import UserError


def resize(frames: Frames, shorter: int) -> Frames:
    """Scale so that the shorter side has `shorter` pixels, and the longer one longer * shorter // old shorter.

    Bilinear, without anti-aliasing, as in the released code.
    """
    if min(frames.shape[1:3]) == shorter:
        return frames
    images = torch.from_numpy(frames).permute(0, 3, 1, 2)  # (T, 3, H, W)
    scaled = resize_images(images, shorter, InterpolationMode.BILINEAR, antialias=False)
    return np.asarray(scaled.permute(0, 2, 3, 1).numpy())


@dataclass(frozen=True)
class TrainView:
    """Scale jitter, random crop, random horizontal flip (paper, Sec. 4.1; the flip is the released code's)."""

    short_side: tuple[int, int]  # smallest and largest, in pixels
    crop: int  # side of the square, in pixels
    flip: bool  # mirror half of the clips

    def __post_init__(self) -> None:
        low, high = self.short_side
        if not 1 <= self.crop <= low <= high:
            raise UserError(
                f"data.short_side is {low} to {high} and data.crop {self.crop}: expected 1 <= crop <= low <= high"
            )

    def __call__(self, frames: Frames, rng: np.random.Generator) -> Frames:
        frames = resize(frames, short_side(rng, *self.short_side))
        _, height, width, _ = frames.shape
        top, left = random_crop(rng, height, width, self.crop)
        return frames[:, top : top + self.crop, left : left + self.crop]

    def mirrors(self, rng: np.random.Generator) -> bool:
        """Whether to mirror the clip: what it shows may depend on it, so the caller has to know."""
        return self.flip and rng.random() < 0.5


@dataclass(frozen=True)
class TestViews:
    """The crops that every test clip is seen in."""

    short_side: int  # in pixels (paper: 256)
    crop: int | Literal["whole"]  # side of the square in pixels, or the whole frame (paper, Sec. 4.1, inference)
    crops: int  # 1 (centre, or whole) or 3 (along the longer side; the released code's approximation of the whole)
    spread: Spread = "paper"  # whose formula places the clips, and whose rounding the crops

    __test__ = False  # not a test, whatever pytest thinks of the name

    def __post_init__(self) -> None:
        if self.crop == "whole":
            if self.crops != 1:
                raise UserError(f"data.num_crops is {self.crops}, but data.test_crop is whole: one view sees it all")
            return
        if not 1 <= self.crop <= self.short_side:
            wrong = "larger than" if self.crop > self.short_side else "expected 1 to"
            raise UserError(f"data.test_crop is {self.crop}, {wrong} data.test_short_side, {self.short_side}")
        if self.crops not in (1, 3):
            raise UserError(f"data.num_crops is {self.crops}: expected 1 (centre) or 3 (along the longer side)")

    @property
    def side(self) -> int:
        """Of the square that stands for the views of a video that can't be read."""
        return self.short_side if self.crop == "whole" else self.crop

    def scaled(self, frames: Frames) -> Frames:
        return resize(frames, self.short_side)

    def cropped(self, clip: Frames) -> list[Frames]:
        if self.crop == "whole":
            return [clip]
        _, height, width, _ = clip.shape
        places = test_crops(height, width, self.crop, self.crops, self.spread)
        return [clip[:, top : top + self.crop, left : left + self.crop] for top, left in places]
