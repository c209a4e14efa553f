"""Frames and crops by number: the stated formulas, the paper's and the released code's examples, and no way outside."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from nl_lightning.data import sampling

LENGTHS = st.integers(1, 2000)
FRAMES = st.integers(1, 128)
STRIDES = st.integers(1, 8)
SIDES = st.integers(1, 1000)
SEEDS = st.integers(0, 2**32)


@given(LENGTHS, FRAMES, STRIDES, SEEDS)
def test_training_clips_lie_inside_the_video(length: int, num_frames: int, stride: int, seed: int) -> None:
    """No clip of a long enough video wraps around; in a shorter one the clip starts at 0 and repeats the video."""
    start = sampling.train_start(np.random.default_rng(seed), length, num_frames, stride)
    indices = sampling.clip_indices(start, length, num_frames, stride)
    assert indices.shape == (num_frames,)
    assert indices.min() >= 0
    assert indices.max() < length
    if length >= num_frames * stride:
        assert 0 <= start <= length - num_frames * stride
        assert np.all(np.diff(indices) == stride)
    else:
        assert start == 0
        assert indices.tolist() == [stride * t % length for t in range(num_frames)]


def test_training_starts_are_uniform_with_both_ends() -> None:
    """64 of 70 frames: starts 0 to 6 (and not one more), equally often."""
    rng = np.random.default_rng(0)
    counts = np.bincount([sampling.train_start(rng, 70, 32, 2) for _ in range(7000)])
    assert len(counts) == 7
    assert np.all(np.abs(counts - 1000) < 4.5 * np.sqrt(7000 * 6 / 49))


def test_starts_of_the_paper() -> None:
    """Evenly spread, first and last frame reached: 300 frames, 32 of them at stride 2, 10 clips; one is centred."""
    assert sampling.test_starts(300, 32, 2, 10, "paper") == [0, 26, 52, 79, 105, 131, 157, 184, 210, 236]
    assert sampling.test_starts(300, 32, 2, 1, "paper") == [118]
    assert sampling.test_starts(32, 8, 2, 2, "paper") == [0, 16]
    assert sampling.test_starts(40, 32, 2, 3, "paper") == [0, 0, 0]


def test_starts_of_the_release() -> None:
    """int(n / 10 * k): late clips wrap to the beginning, by 17 of 32 frames in the last one of 300."""
    starts = sampling.test_starts(300, 32, 2, 10, "release")
    assert starts == list(range(0, 300, 30))
    last = sampling.clip_indices(starts[-1], 300, 32, 2)
    assert last[:3].tolist() == [270, 272, 274]
    assert int((last < 270).sum()) == 17
    assert sampling.test_starts(7, 4, 2, 3, "release") == [0, 2, 4]


@pytest.mark.parametrize(
    ("spread", "starts", "single"),
    [
        ("slowfast", [0, 23, 47, 70, 94, 118, 141, 165, 188, 212], 0),
        ("mmaction2", [0, 26, 53, 79, 105, 132, 158, 184, 211, 237], 118),
        ("pytorchvideo", [0, 26, 52, 78, 104, 131, 157, 183, 209, 236], 0),
    ],
)
def test_starts_of_the_ports(spread: sampling.Spread, starts: list[int], single: int) -> None:
    """300 frames, 32 of them at stride 2, 10 clips and one; SlowFast never sees the last 24 frames."""
    assert sampling.test_starts(300, 32, 2, 10, spread) == starts
    assert sampling.test_starts(300, 32, 2, 1, spread) == [single]
    assert sampling.test_starts(40, 32, 2, 3, spread) == [0, 0, 0]


@given(LENGTHS, FRAMES, STRIDES, st.integers(2, 30))
def test_starts_of_mmaction2_are_numpys_rounding(length: int, num_frames: int, stride: int, num_clips: int) -> None:
    """Its own words: np.round(np.arange(num_clips) * max_offset / (num_clips - 1))."""
    max_offset = max(length - ((num_frames - 1) * stride + 1), 0)
    theirs = np.round(np.arange(num_clips) * (max_offset / float(num_clips - 1)))
    assert sampling.test_starts(length, num_frames, stride, num_clips, "mmaction2") == theirs.tolist()


@given(LENGTHS, FRAMES, STRIDES, st.integers(1, 30))
def test_starts_of_slowfast_are_its_fractions_rounded_down(
    length: int, num_frames: int, stride: int, num_clips: int
) -> None:
    delta = max(length - num_frames * stride, 0)
    theirs = [np.floor(delta * k / num_clips) for k in range(num_clips)]
    assert sampling.test_starts(length, num_frames, stride, num_clips, "slowfast") == theirs


@given(LENGTHS, FRAMES, STRIDES, st.integers(1, 30))
def test_paper_clips_cover_the_video_evenly(length: int, num_frames: int, stride: int, num_clips: int) -> None:
    """Starts ascend by steps that differ by one at most, and mirror themselves up to the rounding."""
    starts = sampling.test_starts(length, num_frames, stride, num_clips, "paper")
    room = max(0, length - num_frames * stride)
    assert len(starts) == num_clips
    assert min(starts) >= 0
    assert max(starts) <= room
    if num_clips > 1:
        steps = np.diff(starts)
        assert starts[0] == 0
        assert starts[-1] == room
        assert steps.max() - steps.min() <= 1
    assert all(abs(a + b - room) <= 1 for a, b in zip(starts, reversed(starts), strict=True))


@given(LENGTHS, st.integers(1, 30))
def test_release_starts_are_frames_of_the_video(length: int, num_clips: int) -> None:
    """Every start is a frame of the video, also in a video of fewer frames than clips."""
    starts = sampling.test_starts(length, 32, 2, num_clips, "release")
    assert len(starts) == num_clips
    assert starts == sorted(starts)
    assert starts[0] == 0
    assert starts[-1] < length


@given(SIDES, SIDES, SIDES)
def test_resizing_keeps_the_aspect(height: int, width: int, shorter: int) -> None:
    """The shorter side is exact, the longer one less than a pixel short of the ratio; it goes both ways round."""
    h, w = sampling.resized(height, width, shorter)
    assert min(h, w) == shorter
    assert (h <= w) == (height <= width) or h == w
    exact = max(height, width) * shorter / min(height, width)
    assert exact - 1 < max(h, w) <= exact
    assert sampling.resized(width, height, shorter) == (w, h)


def test_resizing_by_example() -> None:
    """A Kinetics frame to the paper's 256, and no change where none is asked for."""
    assert sampling.resized(240, 320, 256) == (256, 341)
    assert sampling.resized(320, 240, 256) == (341, 256)
    assert sampling.resized(36, 36, 36) == (36, 36)


@given(SIDES, SIDES, st.integers(1, 1000), SEEDS)
def test_crops_lie_inside_the_frame(height: int, width: int, size: int, seed: int) -> None:
    """Random, centre and three crops never leave the frame; a frame that is too small is refused."""
    rng = np.random.default_rng(seed)
    if size > min(height, width):
        for crops in (
            lambda: sampling.random_crop(rng, height, width, size),
            lambda: sampling.test_crops(height, width, size, 3),
        ):
            with pytest.raises(ValueError, match="does not fit"):
                crops()
        return
    boxes = [sampling.random_crop(rng, height, width, size), sampling.centre_crop(height, width, size)]
    boxes += sampling.test_crops(height, width, size, 3)
    assert all(0 <= top <= height - size and 0 <= left <= width - size for top, left in boxes)


def test_random_crops_reach_all_places_equally_often() -> None:
    """36 pixels, crop 32: 25 places, the corners among them."""
    rng = np.random.default_rng(0)
    counts = np.zeros((5, 5), int)
    for _ in range(5000):
        counts[sampling.random_crop(rng, 36, 36, 32)] += 1
    assert np.all(np.abs(counts - 200) < 4.5 * np.sqrt(5000 * 24 / 625))


def test_three_crops_lie_along_the_longer_side() -> None:
    """At 0, c, 2c with c = floor((longer - crop) / 2), wide and tall, even and odd; the shorter side is centred."""
    assert sampling.test_crops(256, 340, 256, 3) == [(0, 0), (0, 42), (0, 84)]
    assert sampling.test_crops(341, 256, 256, 3) == [(0, 0), (42, 0), (84, 0)]
    assert sampling.test_crops(40, 60, 32, 3) == [(4, 0), (4, 14), (4, 28)]
    assert sampling.test_crops(256, 256, 256, 3) == [(0, 0)] * 3
    assert sampling.test_crops(256, 341, 256, 1) == [(0, 42)]
    with pytest.raises(ValueError, match="num_crops is 2, expected 1 or 3"):
        sampling.test_crops(256, 340, 256, 2)


def test_scale_jitter_is_uniform_with_both_ends() -> None:
    """Every integer of the range comes, none outside."""
    rng = np.random.default_rng(0)
    sides = [sampling.short_side(rng, 256, 320) for _ in range(6500)]
    counts = np.bincount(sides, minlength=321)
    assert counts[:256].sum() == 0
    assert len(counts) == 321
    assert np.all(np.abs(counts[256:] - 100) < 4.5 * np.sqrt(6500 * 64 / 65**2))
    assert sampling.short_side(rng, 32, 32) == 32
