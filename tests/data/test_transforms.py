"""Pixels of a view: the right window, the right size, nothing lost in the last frame or the last channel."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nl_lightning.data import transforms
from nl_lightning.data.decoding import Frames


def views_of(views: transforms.TestViews, frames: transforms.Frames) -> list[transforms.Frames]:
    return views.cropped(views.scaled(frames))


def clip(height: int, width: int, length: int = 4) -> Frames:
    """Return a clip (T, H, W, 3) in which every pixel is told apart by frame, row, column and channel."""
    t, y, x, c = np.indices((length, height, width, 3))
    return ((t * 67 + y * 5 + x * 3 + c * 31) % 256).astype(np.uint8)


def ramp(height: int, width: int) -> Frames:
    """Return a clip (2, H, W, 3) that grows along its rows in channel 0 and along its columns in channel 1."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([y * 255 / (height - 1), x * 255 / (width - 1), np.full_like(y, 40.0, dtype=float)], axis=-1)
    return np.stack([image, 255 - image]).round().astype(np.uint8)


@pytest.mark.parametrize(("height", "width"), [(30, 40), (40, 30), (33, 47)])
@pytest.mark.parametrize("shorter", [15, 24, 60])
def test_resizing(height: int, width: int, shorter: int) -> None:
    """Shorter side as asked, channels and frames apart, and a ramp stays the same ramp."""
    resized = transforms.resize(ramp(height, width), shorter)
    size = resized.shape[1:3]
    assert resized.shape == (2, height * shorter // min(height, width), width * shorter // min(height, width), 3)
    assert resized.dtype == np.uint8
    for axis in (0, 1):  # pixel centres on pixel centres, bilinear, edges repeated
        old, new = (height, width)[axis], size[axis]
        at = np.clip((np.arange(new) + 0.5) * old / new - 0.5, 0, old - 1) * 255 / (old - 1)
        profile = resized[0, :, :, axis].mean(axis=1 - axis)
        assert np.abs(profile - at).max() < 1.5
    assert np.all(resized[0, :, :, 2] == 40)
    assert np.abs(resized[0].astype(int) + resized[1] - 255).max() <= 1


SIDES = st.integers(1, 50)


@given(SIDES, SIDES, SIDES)
def test_resizing_keeps_the_aspect(height: int, width: int, shorter: int) -> None:
    """The shorter side is exact, the longer one less than a pixel short of the ratio; it goes both ways round."""
    _, h, w, _ = transforms.resize(np.zeros((1, height, width, 3), np.uint8), shorter).shape
    assert min(h, w) == shorter
    assert (h <= w) == (height <= width) or h == w
    assert max(h, w) == max(height, width) * shorter // min(height, width)
    assert transforms.resize(np.zeros((1, width, height, 3), np.uint8), shorter).shape == (1, w, h, 3)


def test_resizing_to_the_same_size_costs_nothing() -> None:
    """A clip that has the size already is returned as it is."""
    frames = clip(36, 50)
    assert transforms.resize(frames, 36) is frames


@pytest.mark.parametrize("flip", [False, True])
def test_training_views_are_windows_of_the_clip(flip: bool) -> None:
    """Without jitter a view is one of the windows, the same in all frames; all come, and half of them are mirrored."""
    frames = clip(12, 14)
    view = transforms.TrainView((12, 12), 10, flip)
    windows = {
        frames[:, top : top + 10, left : left + 10].tobytes(): (top, left) for top in range(3) for left in range(5)
    }
    rng = np.random.default_rng(0)
    seen = [windows[np.ascontiguousarray(view(frames, rng)).tobytes()] for _ in range(400)]
    assert set(seen) == set(windows.values())
    mirrored = [view.mirrors(rng) for _ in range(400)]
    assert abs(np.mean(mirrored) - 0.5) < 4.5 * 0.025 if flip else not any(mirrored)


def test_training_views_jitter_the_scale() -> None:
    """The shorter side is drawn for each clip, from the whole range, before the crop."""
    frames = ramp(40, 60)
    view = transforms.TrainView((20, 40), 20, False)
    rng = np.random.default_rng(0)
    views = [view(frames, rng) for _ in range(200)]
    assert {v.shape for v in views} == {(2, 20, 20, 3)}
    extents = [int(v[0, -1, 0, 0]) - int(v[0, 0, 0, 0]) for v in views]  # what part of the height is seen
    assert min(extents) < 0.55 * 255
    assert max(extents) > 0.93 * 255


def test_test_views() -> None:
    """One centre crop, or three along the longer side: left to right, top to bottom."""
    wide = clip(20, 30)
    centre = views_of(transforms.TestViews(20, 20, 1), wide)
    assert len(centre) == 1
    assert np.array_equal(centre[0], wide[:, :, 5:25])
    three = views_of(transforms.TestViews(20, 20, 3), wide)
    assert [
        np.array_equal(view, wide[:, :, left : left + 20]) for view, left in zip(three, (0, 5, 10), strict=True)
    ] == [True] * 3
    tall = np.ascontiguousarray(wide.transpose(0, 2, 1, 3))
    for across, down in zip(three, views_of(transforms.TestViews(20, 20, 3), tall), strict=True):
        assert np.array_equal(across.transpose(0, 2, 1, 3), down)
    assert {view.shape for view in views_of(transforms.TestViews(16, 12, 3), wide)} == {(4, 12, 12, 3)}
