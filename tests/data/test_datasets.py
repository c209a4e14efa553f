"""Lists, class folders and samples: what is read, what is refused, and that a broken file is never an exception."""

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from nl_lightning.data import datasets, decoding, longrange, sampling
from nl_lightning.data.datasets import VideoList
from nl_lightning.data.transforms import Frames, TestViews, TrainView
from nl_lightning.errors import UserError

LENGTH, HEIGHT, WIDTH = 40, 12, 16


class Painted:
    """A reader without files: frame t of a video is t everywhere, plus its column in channel 1. Counts the reads."""

    def __init__(self, broken: frozenset[Path] = frozenset(), unfinished: frozenset[Path] = frozenset()) -> None:
        self.broken, self.unfinished = broken, unfinished
        self.reads: list[list[int]] = []

    def num_frames(self, path: Path) -> int:
        if path in self.broken:
            raise decoding.DecodeError(f"{path}: the file is empty")
        return LENGTH

    def frames(self, path: Path, indices: npt.NDArray[np.int64]) -> Frames:
        if path in self.unfinished:
            raise decoding.DecodeError(f"{path}: the last frames are missing")
        self.reads.append(indices.tolist())
        out = np.zeros((len(indices), HEIGHT, WIDTH, 3), np.uint8)
        out[..., 0] = indices[:, None, None]
        out[..., 1] = np.arange(WIDTH)
        return out


def videos(count: int = 6) -> VideoList:
    """Return a list of videos that don't exist."""
    return VideoList(
        tuple(Path(f"/videos/{i}.mp4") for i in range(count)), tuple(i % 3 for i in range(count)), ("a", "b", "c")
    )


def train_clips(reader: datasets.Reader, seed: int = 0) -> datasets.TrainClips:
    """Return training clips of 8 frames at stride 2, cropped to 10 pixels."""
    return datasets.TrainClips(videos(), reader, 8, 2, TrainView((HEIGHT, HEIGHT), 10, True), seed)


def test_a_list_file(tmp_path: Path) -> None:
    """Paths are relative to the list and may hold spaces; the label follows the last space; blank lines don't count."""
    (tmp_path / "list.txt").write_text("a b/c d.mp4 1\n\n/abs/x.mp4 0\n")
    found = datasets.read_list(tmp_path / "list.txt", ("first", "second"))
    assert found.paths == (tmp_path / "a b/c d.mp4", Path("/abs/x.mp4"))
    assert found.labels == (1, 0)
    assert found.classes == ("first", "second")
    assert len(found) == 2
    assert datasets.read_list(tmp_path / "list.txt").classes == ()


@pytest.mark.parametrize("line", ["x.mp4", "x.mp4 one", "x.mp4 -1", " 3", "x.mp4 1.0"])
def test_a_bad_line_is_named_by_file_and_number(line: str, tmp_path: Path) -> None:
    """Neither skipped nor guessed."""
    (tmp_path / "list.txt").write_text(f"a.mp4 0\n{line}\n")
    with pytest.raises(UserError, match=r"list\.txt:2: expected 'path label'"):
        datasets.read_list(tmp_path / "list.txt", ("a", "b"))


def test_other_bad_lists(tmp_path: Path) -> None:
    """A label without a class, an empty list and no list."""
    (tmp_path / "list.txt").write_text("a.mp4 2\n")
    with pytest.raises(UserError, match=r"list\.txt:1: label 2, but there are 2 classes, 0 to 1"):
        datasets.read_list(tmp_path / "list.txt", ("a", "b"))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=r"empty\.txt: the list of videos is empty"):
        datasets.read_list(tmp_path / "empty.txt")
    with pytest.raises(UserError, match=r"none\.txt: no list of videos"):
        datasets.read_list(tmp_path / "none.txt")


def test_class_names(tmp_path: Path) -> None:
    """One a line, names may hold spaces; no file, no names."""
    (tmp_path / "classes.txt").write_text("riding a bike\nabseiling\n")
    assert datasets.read_classes(tmp_path / "classes.txt") == ("riding a bike", "abseiling")
    assert datasets.read_classes(tmp_path / "none.txt") == ()


def test_class_folders(tmp_path: Path) -> None:
    """Sorted classes and videos, known endings in any case, other files left alone."""
    for name in ("b/2.MP4", "b/1.webm", "a/x.avi", "a/notes.txt", "loose.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = datasets.scan_folder(tmp_path)
    assert found.classes == ("a", "b")
    assert found.paths == (tmp_path / "a/x.avi", tmp_path / "b/1.webm", tmp_path / "b/2.MP4")
    assert found.labels == (0, 1, 1)
    for empty in (tmp_path / "a", tmp_path / "none"):
        with pytest.raises(UserError, match="expected class folders"):
            datasets.scan_folder(empty)


def test_splits_with_other_classes_are_refused() -> None:
    """The classes that only one split has are named; another order is a difference too."""
    train, val = videos(), VideoList((Path("x"),), (0,), ("a", "b", "d"))
    datasets.same_classes(train, videos(2), "val")
    with pytest.raises(UserError, match="the classes of train and val differ: c, d"):
        datasets.same_classes(train, val, "val")
    with pytest.raises(UserError, match="their order"):
        datasets.same_classes(train, VideoList((Path("x"),), (0,), ("b", "a", "c")), "val")


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


@pytest.mark.parametrize("spread", ["paper", "release"])
def test_test_samples(spread: sampling.Spread) -> None:
    """All views of a video, clip by clip and crop by crop, by one read of the file."""
    reader = Painted()
    tests = datasets.TestVideos(videos(), reader, 8, 2, TestViews(HEIGHT, HEIGHT, 3), 4, spread)
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


@pytest.mark.parametrize("broken", [True, False])
def test_a_file_that_cannot_be_read_is_a_sample_that_says_so(broken: bool) -> None:
    """Whether it fails when counted or when decoded: black views of the usual shape, and why."""
    bad = frozenset({Path("/videos/1.mp4")})
    reader = Painted(broken=bad) if broken else Painted(unfinished=bad)
    tests = datasets.TestVideos(videos(), reader, 8, 2, TestViews(HEIGHT, 10, 3), 4, "paper")
    for good, sample in ((train_clips(reader)[0, 0], train_clips(reader)[0, 1]), (tests[0], tests[1])):
        assert sample.views.shape == good.views.shape
        assert good.readable
        assert good.views.any()
        assert not sample.readable
        assert not sample.views.any()
        assert sample.label == 1
        assert sample.error.startswith("/videos/1.mp4: ")


def test_real_files(tmp_path: Path) -> None:
    """From list file to batch, through the real decoder and two workers: the same as without workers."""
    longrange.generate(tmp_path, longrange.LongRange(train=11, val=3, test=3), progress=False)
    listed = datasets.read_list(tmp_path / "train.txt", datasets.read_classes(tmp_path / "classes.txt"))
    listed.paths[2].write_bytes(b"")
    assert listed.classes == longrange.CLASSES
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
    assert first.label.tolist() == [listed.labels[3], listed.labels[2]]
    assert first.readable.tolist() == [True, False]
    assert list(first.error) == ["", f"{listed.paths[2]}: the file is empty"]
