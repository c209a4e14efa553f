"""Samples: what is in them, and that a broken file is never an exception."""

from fractions import Fraction
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from nl_lightning.data import datasets, decoding, longrange, packets, sampling
from nl_lightning.data.annotations import read_annotation
from nl_lightning.data.decoding import Frames
from nl_lightning.data.transforms import TestViews, TrainView
from nl_lightning.data.videos import VideoList

LENGTH, HEIGHT, WIDTH = 40, 12, 16


class Painted:
    """A reader without files: frame t of a video is t everywhere, plus its column in channel 1. Counts the reads."""

    def __init__(self, broken: frozenset[Path] = frozenset(), unfinished: frozenset[Path] = frozenset()) -> None:
        self.broken, self.unfinished = broken, unfinished
        self.reads: list[list[int]] = []

    def num_frames(self, path: Path) -> int:
        if path in self.broken:
            raise packets.DecodeError(f"{path}: the file is empty")
        return LENGTH

    def frame_rate(self, path: Path) -> Fraction:
        return Fraction(25)

    def frames(self, path: Path, indices: npt.NDArray[np.int64]) -> Frames:
        if path in self.unfinished:
            raise packets.DecodeError(f"{path}: the last frames are missing")
        self.reads.append(indices.tolist())
        out = np.zeros((len(indices), HEIGHT, WIDTH, 3), np.uint8)
        out[..., 0] = indices[:, None, None]
        out[..., 1] = np.arange(WIDTH)
        return out


def videos(count: int = 6) -> VideoList:
    """Return a list of videos that don't exist."""
    return VideoList.of(Path("/videos"), [f"{i}.mp4" for i in range(count)], [i % 3 for i in range(count)])


def train_clips(reader: datasets.Reader, seed: int = 0) -> datasets.TrainClips:
    """Return training clips of 8 frames at stride 2, cropped to 10 pixels."""
    return datasets.TrainClips(videos(), reader, 8, 2, TrainView((HEIGHT, HEIGHT), 10, True), seed)


def test_training_samples() -> None:
    """One view of 8 frames at stride 2 inside the video, cropped, with what the list says of it."""
    starts = set()
    for epoch in range(60):
        sample = train_clips(Painted())[epoch, 4]
        assert sample.views.shape == (1, 8, 10, 10, 3)
        assert sample.views.dtype == torch.uint8
        assert (sample.label, sample.video, sample.readable, sample.error) == (1, 4, True, "")
        assert sample.path == "/videos/4.mp4"
        times = sample.views[0, :, 0, 0, 0].tolist()
        assert np.all(np.diff(times) == 2)
        assert times[-1] < LENGTH
        starts.add(times[0])
    assert len(starts) > 15  # of 25


def test_training_samples_depend_on_seed_epoch_and_video_alone() -> None:
    """The same three numbers give the same sample whatever came before; any other number gives another."""
    clips = train_clips(Painted())
    first = clips[2, 3].views
    _ = [clips[0, i] for i in range(6)]
    assert torch.equal(clips[2, 3].views, first)
    assert torch.equal(train_clips(Painted())[2, 3].views, first)
    others = [clips[3, 3].views, clips[2, 4].views, train_clips(Painted(), seed=1)[2, 3].views]
    assert not any(torch.equal(other, first) for other in others)


def test_mirrored_samples_have_the_label_of_the_other_side() -> None:
    """Left and right as the columns of the painted frames have it; a class without counterpart is never mirrored."""
    one, two = ("to the left", "up", "right hook"), ("to the left", "up", "to the right")
    for classes, label, seen in (
        (one, 0, {(0, True)}), (one, 1, {(1, True), (1, False)}), (one, 2, {(2, True)}),
        (two, 0, {(0, True), (2, False)}), (two, 1, {(1, True), (1, False)}), (two, 2, {(2, True), (0, False)}),
    ):  # fmt: skip
        listed = VideoList.of(Path("/videos"), ["0.mp4"], [label], classes)
        clips = datasets.TrainClips(listed, Painted(), 8, 2, TrainView((HEIGHT, HEIGHT), 10, True), 0)
        samples = [clips[epoch, 0] for epoch in range(40)]
        rows = [sample.views[0, 0, 0, :, 1].tolist() for sample in samples]
        assert {(sample.label, row == sorted(row)) for sample, row in zip(samples, rows, strict=True)} == seen


def test_several_labels_are_mirrored_together_or_not_at_all() -> None:
    for labels, classes, seen in (
        ((0, 1), ("to the left", "up", "to the right"), {(1, 1, 0), (0, 1, 1)}),
        ((0, 1), ("to the left", "up", "right hook"), {(1, 1, 0)}),
        ((1, 2), ("down", "up", "round"), {(0, 1, 1)}),
    ):
        listed = VideoList.of(Path("/videos"), ["0.mp4"], [labels], classes)
        clips = datasets.TrainClips(listed, Painted(), 8, 2, TrainView((HEIGHT, HEIGHT), 10, True), 0)
        samples = [clips[epoch, 0] for epoch in range(20)]
        assert {tuple(sample.label.tolist()) for sample in samples if not isinstance(sample.label, int)} == seen


@pytest.mark.parametrize("spread", ["paper", "release"])
def test_test_samples(spread: sampling.Spread) -> None:
    """All views of a video, clip by clip and crop by crop, by one read of the file."""
    reader = Painted()
    tests = datasets.TestVideos(videos(), reader, 8, 2, TestViews(HEIGHT, HEIGHT, 3, spread), 4)
    sample = tests[5]
    assert len(tests) == 6
    assert sample.views.shape == (12, 8, HEIGHT, HEIGHT, 3)
    assert len(reader.reads) == 1
    starts = sampling.test_starts(LENGTH, 8, 2, 4, spread)
    for k, view in enumerate(sample.views):
        clip, crop = divmod(k, 3)
        assert view[:, 0, 0, 0].tolist() == [(starts[clip] + 2 * t) % LENGTH for t in range(8)]
        assert view[0, 0, :, 1].tolist() == list(range(2 * crop, 2 * crop + HEIGHT))
    assert torch.equal(tests[5].views, sample.views)


def test_clips_that_go_by_seconds_ask_for_the_frame_rate() -> None:
    tests = datasets.TestVideos(videos(), Painted(), 8, 2, TestViews(HEIGHT, HEIGHT, 3, "slowfast"), 1)
    frames = tests[0].views[:, :, 0, 0, 0].tolist()
    assert frames == [[0, 1, 3, 5, 7, 8, 10, 12]] * 3  # 16/30 s are 13.3 frames at 25 a second


@pytest.mark.parametrize("broken", [True, False])
def test_a_file_that_cannot_be_read_is_a_sample_that_says_so(broken: bool) -> None:
    """Whether it fails when counted or when decoded: black views of the usual shape, and why."""
    bad = frozenset({Path("/videos/1.mp4")})
    reader = Painted(broken=bad) if broken else Painted(unfinished=bad)
    tests = datasets.TestVideos(videos(), reader, 8, 2, TestViews(HEIGHT, 10, 3), 4)
    for good, sample in ((train_clips(reader)[0, 0], train_clips(reader)[0, 1]), (tests[0], tests[1])):
        assert sample.views.shape == good.views.shape
        assert good.readable
        assert good.views.any()
        assert not sample.readable
        assert not sample.views.any()
        assert sample.label == 1
        assert sample.error.startswith("/videos/1.mp4: ")


@pytest.mark.filterwarnings("ignore:This DataLoader will create")  # PyTorch's advice on a machine of one core
def test_real_files(tmp_path: Path) -> None:
    """From list file to batch, through the real decoder and two workers: the same as without workers."""
    longrange.LongRange(train=11, val=3, test=3).generate(tmp_path)
    listed = read_annotation("train.txt", tmp_path, "train")
    listed.paths[2].write_bytes(b"")
    assert listed.classes == longrange.LongRange().classes()
    clips = datasets.TrainClips(listed, decoding, 8, 2, TrainView((36, 36), 32, True), 7)
    order = [(1, video) for video in (3, 2, 9, 0, 10, 5)]
    batches = [list(torch.utils.data.DataLoader(clips, 2, sampler=order, num_workers=workers)) for workers in (0, 2)]
    for alone, parallel in zip(*batches, strict=True):
        assert torch.equal(alone.views, parallel.views)
        assert alone.path == parallel.path
        assert alone.error == parallel.error
    first = batches[0][0]
    assert first.views.shape == (2, 1, 8, 32, 32, 3)
    assert first.video.tolist() == [3, 2]
    assert first.label.tolist() == listed.labels[[3, 2]].tolist()
    assert first.readable.tolist() == [True, False]
    assert list(first.error) == ["", f"{listed.paths[2]}: the file is empty"]
