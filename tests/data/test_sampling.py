"""Frames and crops by number: the stated formulas, the paper's and the released code's examples, and no way outside."""

import importlib
import sys
import warnings
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from nl_lightning.data import decoding, sampling
from nl_lightning.data.sampling import EpochShuffle, turns
from nl_lightning.data.tools.prepare import write_mp4

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


def test_starts_of_mmaction2() -> None:
    """300 frames, 32 of them at stride 2, 10 clips and one."""
    assert sampling.test_starts(300, 32, 2, 10, "mmaction2") == [0, 26, 53, 79, 105, 132, 158, 184, 211, 237]
    assert sampling.test_starts(300, 32, 2, 1, "mmaction2") == [118]
    assert sampling.test_starts(40, 32, 2, 3, "mmaction2") == [0, 0, 0]


@given(LENGTHS, FRAMES, STRIDES, st.integers(1, 30))
def test_starts_of_mmaction2_dense_are_numpys_steps(length: int, num_frames: int, stride: int, num_clips: int) -> None:
    """Its own words: np.linspace(0, sample_position - 1, num=num_sample_positions, dtype=int)."""
    sample_position = max(1, 1 + length - num_frames * stride)
    theirs = np.linspace(0, sample_position - 1, num=num_clips, dtype=int)
    assert sampling.test_starts(length, num_frames, stride, num_clips, "mmaction2_dense") == theirs.tolist()


def clips(*arguments: Any, **keywords: Any) -> list[list[int]]:
    return [clip.tolist() for clip in sampling.test_clips(*arguments, **keywords)]


def test_clips_of_slowfast() -> None:
    """What PySlowFast's `get_start_end_idx` and `temporal_sampling` return, at 30 and at 25 frames a second.

    8 x 8 of its frames last 64/30 s: 64 frames at 30 a second, 53 1/3 at 25.
    """
    at_30 = clips(300, 8, 8, 10, "slowfast", Fraction(30))
    assert at_30[0] == [0, 9, 18, 27, 36, 45, 54, 63]
    assert [clip[0] for clip in at_30] == [0, 23, 47, 70, 94, 118, 141, 165, 188, 212]
    assert at_30[9] == [212, 221, 230, 239, 248, 257, 266, 275]
    at_25 = clips(250, 8, 8, 10, "slowfast", Fraction(25))
    assert at_25[0] == [0, 7, 14, 22, 29, 37, 44, 52]
    assert at_25[1] == [19, 27, 34, 42, 49, 57, 64, 72]
    assert at_25[9] == [177, 184, 191, 199, 206, 214, 221, 229]
    assert clips(20, 8, 8, 2, "slowfast", Fraction(30)) == [[0, 9, 18, 19, 19, 19, 19, 19]] * 2


@given(
    LENGTHS, st.integers(1, 16), STRIDES, st.integers(1, 6), st.sampled_from([12, 25, 30, 60, Fraction(30000, 1001)])
)
def test_clips_of_slowfast_are_its_fractions_rounded_down(
    length: int, num_frames: int, stride: int, num_clips: int, rate: Fraction
) -> None:
    """Exactly, up to a frame where the fraction is a whole number up to float32's rounding."""
    span = max(Fraction(1), Fraction(num_frames * stride, 30) * rate)
    for k, clip in enumerate(sampling.test_clips(length, num_frames, stride, num_clips, "slowfast", Fraction(rate))):
        start = max(length - span, 0) * k / num_clips
        for t, frame in enumerate(clip.tolist()):
            exact = min(start + (span - 1) * t / max(num_frames - 1, 1), length - 1)
            assert abs(frame + Fraction(1, 2) - exact) <= Fraction(1, 2) + Fraction(1, 1000)


@given(LENGTHS, FRAMES, STRIDES, st.integers(1, 30), st.sampled_from(sampling.BY_TIME), st.integers(1, 120))
def test_clips_by_time_lie_inside_the_video(
    length: int, num_frames: int, stride: int, num_clips: int, spread: sampling.Spread, rate: int
) -> None:
    for clip in clips(length, num_frames, stride, num_clips, spread, Fraction(rate)):
        assert len(clip) == num_frames
        assert clip == sorted(clip)
        assert 0 <= clip[0] <= clip[-1] < length


@pytest.fixture
def functional(monkeypatch: pytest.MonkeyPatch) -> Any:
    """pytorchvideo's transforms, which import a module that torchvision has removed; its functions live on here."""
    name = "torchvision.transforms.functional_tensor"
    monkeypatch.setitem(sys.modules, name, importlib.import_module("torchvision.transforms.functional"))
    with warnings.catch_warnings():  # it uses what torch no longer wants to be used
        warnings.simplefilter("ignore")
        return importlib.import_module("pytorchvideo.transforms.functional")


LENGTH = 150


@pytest.fixture(scope="module", params=[Fraction(25), Fraction(30), Fraction(30000, 1001)])
def video(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Fraction, Path]:
    """A video of so many frames a second whose frames show their numbers."""
    path = tmp_path_factory.mktemp("rate") / "v.mp4"
    digits = np.stack(np.divmod(np.arange(LENGTH), 16), 1)  # (T, 2), each a grey half of the frame
    pictures = (16 * digits + 8).astype(np.uint8)[:, None, :, None].repeat(16, 1).repeat(16, 2).repeat(3, 3)
    write_mp4(path, pictures, request.param)
    assert decoding.frame_rate(path) == request.param
    return request.param, path


@pytest.mark.parametrize(("num_frames", "stride", "num_clips"), [(8, 8, 10), (32, 2, 7), (5, 10, 3), (8, 8, 1)])
def test_clips_of_pytorchvideo(
    video: tuple[Fraction, Path], num_frames: int, stride: int, num_clips: int, functional: Any
) -> None:
    """Its own reader of a real file, and its own steps through what that read, between its sampler's times.

    The times are written as its sampler computes them since 2022; the release 0.1.5 divides by num_clips.
    """
    from pytorchvideo.data.encoded_video_pyav import EncodedVideoPyAV

    rate, path = video
    theirs = []
    with path.open("rb") as file:
        theirs_video = EncodedVideoPyAV(file, decode_audio=False)
        span = Fraction(num_frames * stride / 30)
        for k in range(num_clips):
            start = k * Fraction(max(theirs_video.duration - span, 0)) / max(num_clips - 1, 1)
            clip = theirs_video.get_clip(start, start + span)["video"]  # (3, T, H, W)
            assert clip is not None
            seen = functional.uniform_temporal_subsample(clip, num_frames, 1).mean(dim=(0, 2)) // 16  # (T, 32)
            theirs.append((16 * seen[:, 4] + seen[:, 20]).int().tolist())
    assert clips(LENGTH, num_frames, stride, num_clips, "pytorchvideo", rate) == theirs


@given(LENGTHS, FRAMES, STRIDES, st.integers(2, 30))
def test_starts_of_mmaction2_are_numpys_rounding(length: int, num_frames: int, stride: int, num_clips: int) -> None:
    """Its own words: np.round(np.arange(num_clips) * max_offset / (num_clips - 1))."""
    max_offset = max(length - ((num_frames - 1) * stride + 1), 0)
    theirs = np.round(np.arange(num_clips) * (max_offset / float(num_clips - 1)))
    assert sampling.test_starts(length, num_frames, stride, num_clips, "mmaction2") == theirs.tolist()


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


@given(SIDES, SIDES, SIDES, SEEDS)
def test_crops_lie_inside_the_frame(height: int, width: int, size: int, seed: int) -> None:
    """Random, centre and three crops never leave the frame."""
    size, rng = min(height, width, size), np.random.default_rng(seed)
    boxes = [sampling.random_crop(rng, height, width, size), *sampling.test_crops(height, width, size, 1, "paper")]
    boxes += sampling.test_crops(height, width, size, 3, "paper")
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
    assert sampling.test_crops(256, 340, 256, 3, "paper") == [(0, 0), (0, 42), (0, 84)]
    assert sampling.test_crops(341, 256, 256, 3, "paper") == [(0, 0), (42, 0), (84, 0)]
    assert sampling.test_crops(40, 60, 32, 3, "paper") == [(4, 0), (4, 14), (4, 28)]
    assert sampling.test_crops(256, 256, 256, 3, "paper") == [(0, 0)] * 3
    assert sampling.test_crops(256, 341, 256, 1, "paper") == [(0, 42)]


@pytest.mark.parametrize(("height", "width"), [(256, 341), (256, 340), (341, 256), (300, 303), (303, 300), (256, 256)])
def test_crops_of_pytorchvideo(height: int, width: int, functional: Any) -> None:
    """Its own `uniform_crop`, which is PySlowFast's: the centre rounded up, the last crop at the edge."""
    image = torch.arange(height * width).view(1, 1, height, width)
    theirs = [divmod(int(functional.uniform_crop(image, 256, i)[0, 0, 0, 0]), width) for i in range(3)]
    for spread in sampling.BY_TIME:
        assert sampling.test_crops(height, width, 256, 3, spread) == theirs
        assert sampling.test_crops(height, width, 256, 1, spread) == [theirs[1]]


def test_scale_jitter_is_uniform_with_both_ends() -> None:
    """Every integer of the range comes, none outside."""
    rng = np.random.default_rng(0)
    sides = [sampling.short_side(rng, 256, 320) for _ in range(6500)]
    counts = np.bincount(sides, minlength=321)
    assert counts[:256].sum() == 0
    assert len(counts) == 321
    assert np.all(np.abs(counts[256:] - 100) < 4.5 * np.sqrt(6500 * 64 / 65**2))
    assert sampling.short_side(rng, 32, 32) == 32


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    sampler, again = EpochShuffle(20, seed=3), EpochShuffle(20, seed=3)
    first = list(sampler)
    assert first == list(sampler) == list(again)
    assert sorted(first) == [(0, video) for video in range(20)]
    sampler.set_epoch(1)
    second = list(sampler)
    assert [video for _, video in second] != [video for _, video in first]
    assert {epoch for epoch, _ in second} == {1}
    assert list(EpochShuffle(20, seed=4)) != first


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_share_one_order(processes: int) -> None:
    whole = list(EpochShuffle(20, seed=3))
    parts = [EpochShuffle(20, 3, process, processes) for process in range(processes)]
    assert {len(part) for part in parts} == {20 // processes}
    together = [video for turn in zip(*parts, strict=True) for video in turn]
    assert together == whole[: len(together)]
    assert len(whole) - len(together) < processes


@pytest.mark.parametrize("processes", [1, 2])
def test_an_epoch_goes_on_where_it_was(processes: int) -> None:
    whole = EpochShuffle(20, 3, 0, processes, epoch=5)
    resumed = EpochShuffle(20, 3, 0, processes, epoch=5, behind=4)
    assert list(resumed) == list(whole)[4:]
    assert len(resumed) == len(whole)  # of the epoch, so that its end is where it was
    resumed.set_epoch(6)
    whole.set_epoch(6)
    assert list(resumed) == list(whole)


def test_an_epoch_that_was_read_to_its_end_takes_nothing_from_the_next() -> None:
    """Stopped within the validation after it, a run begins with the next one: of this one nothing is asked for."""
    resumed = EpochShuffle(20, 3, epoch=5, behind=20)
    resumed.set_epoch(6)
    assert len(list(resumed)) == 20


@pytest.mark.parametrize("processes", [1, 2, 3, 9])
def test_every_video_is_tested_once_in_the_batches_of_a_single_process(processes: int) -> None:
    batches = [batch for process in range(processes) for batch in turns(22, 4, process, processes)]
    assert sorted(batches) == turns(22, 4)
    assert sorted(video for batch in batches for video in batch) == list(range(22))
