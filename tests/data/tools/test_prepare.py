"""A prepared copy has the same frames at the same times, smaller and with key frames close together."""

import os
import re
import shutil
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import append, copy, write

from nl_lightning.data import decoding, packets
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.tools.prepare import Prepared, copied_size, copy_data_set, copy_video, write_mp4
from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError
from nl_lightning.study.files import overwriting


def test_frames_that_are_written_come_back(tmp_path: Path) -> None:
    """Nearly: H.264 loses a little."""
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    film = np.stack([np.broadcast_to(level, (48, 64)) for level in (ramp, ramp[::-1], ramp // 2)])
    film = np.ascontiguousarray(film[..., None].repeat(3, axis=3))  # (3, 48, 64, 3)
    write_mp4(tmp_path / "film.mp4", film, 4)
    back = decoding.frames(tmp_path / "film.mp4", [0, 1, 2])
    assert back.shape == film.shape
    assert np.abs(back.astype(int) - film).mean() < 5


def grey(count: int, height: int, width: int) -> decoding.Frames:
    """Pictures whose shade tells their number."""
    shades = (np.arange(count) * 5 % 250).astype(np.uint8)
    return np.tile(shades[:, None, None, None], (1, height, width, 3))


def test_same_frames_smaller_with_key_frames(tmp_path: Path) -> None:
    source, target = tmp_path / "a.mp4", tmp_path / "copy" / "a.mp4"
    write_mp4(source, grey(50, 300, 406), Fraction(30000, 1001))
    copy_video(source, target)
    made = decoding.frames(target, range(50))
    assert made.shape == (50, 256, 346, 3)
    assert np.abs(made.mean(axis=(1, 2, 3)) - decoding.frames(source, range(50)).mean(axis=(1, 2, 3))).max() < 3
    index, original = packets.index_of(target), packets.index_of(source)
    assert index.objection == ""
    assert index.times is not None
    assert np.diff(np.flatnonzero(np.isin(index.times, index.keys))).max() <= 16
    assert (seconds(target) == seconds(source)).all()
    assert len(original.keys) == 1


def seconds(path: Path) -> np.ndarray:
    with av.open(str(path)) as container:
        (stream,) = container.streams.video
        times = np.array([float(frame.pts * stream.time_base) for frame in container.decode(stream)])
    return (times - times[0]).round(3)


def test_pauses_stay(tmp_path: Path) -> None:
    """Of a video whose frames aren't equally far apart; a container without times gets even ones."""
    source = write(tmp_path / "a.mkv", count=20, when=lambda i: i + 10 * (i // 5))
    copy_video(source, tmp_path / "b.mkv")
    assert np.abs(seconds(tmp_path / "b.mkv") - seconds(source)).max() < 0.002


@pytest.mark.parametrize(
    ("size", "expected"),
    [((720, 1280), (256, 454)), ((1280, 720), (454, 256)), ((256, 340), (256, 340)), ((135, 241), (134, 240))],
)
def test_sizes_are_even_and_never_larger(size: tuple[int, int], expected: tuple[int, int]) -> None:
    assert copied_size(*size) == expected
    assert copied_size(256, 520, 80) == (80, 162)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set of a sound video, a broken one and an absent one."""
    root = tmp_path / "set"
    write_mp4(root / "x" / "-a b.mp4", grey(20, 32, 48), 25)
    (root / "x" / "bad.mp4").write_bytes(b"nothing")
    (root / "lists").mkdir()
    (root / "lists" / "train.txt").write_text("x/-a b.mp4 0\nx/bad.mp4 0\nx/absent.mp4 0\n")
    (root / "classes.txt").write_text("x\n")
    (root / "movie.iso").write_text("not a list")
    return root


def copied(root: Path, folder: Path, side: int = 256) -> Prepared:
    splits = {"train": VideoList.of(root, ["x/-a b.mp4", "x/bad.mp4", "x/absent.mp4"], [0, 0, 0])}
    return copy_data_set(splits, ["lists/train.txt"], root, folder, 1, side)


def test_a_whole_set_can_be_copied_again_and_again(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    made = copied(root, folder)
    assert (made.made, made.there, made.absent) == (1, 0, ["x/absent.mp4"])
    assert list(made.as_they_are) == ["x/bad.mp4"]
    names = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
    assert names == ["classes.txt", "lists/train.txt", "nl-lightning-prepared.json", "x/-a b.mp4", "x/bad.mp4"]
    written = (folder / "x" / "-a b.mp4").stat()
    assert copied(root, folder).there == 2
    assert (folder / "x" / "-a b.mp4").stat().st_ino == written.st_ino
    os.utime(root / "x" / "-a b.mp4", (0, 0))
    assert copied(root, folder).made == 1


def test_a_folder_keeps_to_one_size(root: Path, tmp_path: Path) -> None:
    """A copy of a copy may have another."""
    folder, second = tmp_path / "copy", tmp_path / "second"
    copied(root, folder)
    before = (folder / "x" / "-a b.mp4").read_bytes()
    said = r"""prepared\.json: expected \{"short_side": 16\}, as --short-side says, not '\{"short_side": 256\}': name"""
    with pytest.raises(UserError, match=said):
        copied(root, folder, 16)
    assert (folder / "x" / "-a b.mp4").read_bytes() == before
    assert copied(root, folder).there == 2
    assert copied(folder, second, 16).made == 1
    assert copied(folder, second, 16).there == 2
    (folder / "nl-lightning-prepared.json").write_text("[]")
    with pytest.raises(UserError, match=r"nl-lightning-prepared\.json: expected \{"):
        copied(root, folder)


def test_originals_that_were_copied_with_their_times_are_no_copies(root: Path, tmp_path: Path) -> None:
    folder = tmp_path / "copy"
    shutil.copytree(root, folder)
    (folder / "x" / "-a b.mp4").write_bytes(b"an original")
    shutil.copystat(root / "x" / "-a b.mp4", folder / "x" / "-a b.mp4")
    for _ in range(2):
        with pytest.raises(UserError, match=r"-a b\.mp4 \(and 1 more\) is there already, .*--overwrite"):
            copied(root, folder)
    with overwriting(True):
        assert copied(root, folder).made == 1
    assert copied(root, folder).there == 2


def test_files_of_somebody_else_stay(root: Path, tmp_path: Path) -> None:
    """Until the user says otherwise."""
    for name in ("x/-a b.mp4", "classes.txt"):
        folder = tmp_path / Path(name).suffix
        (folder / name).parent.mkdir(parents=True)
        (folder / name).write_text("precious")
        os.utime(folder / name, (0, 0))
        with pytest.raises(UserError, match=rf"{re.escape(name)} .*--overwrite"):
            copied(root, folder)
        assert (folder / name).read_text() == "precious"
        with overwriting(True):
            assert copied(root, folder).made == 1
        assert (folder / name).read_text(errors="replace") != "precious"


def test_a_copy_shows_what_its_original_shows(tmp_path: Path) -> None:
    """Turned, mirrored, of one size, without what is never shown; and its pixels keep their shape."""
    params = "keyint=12:min-keyint=12:bframes=3:open-gop=1:scenecut=0"
    plain = write(tmp_path / "a.mkv", params=params, aspect=Fraction(3, 2))
    late = copy(plain, tmp_path / "late.mkv", turn=(90, True, False), drop=lambda place, key: key < 2)
    parts = [write(tmp_path / f"{n}.webm", codec="libvpx", size=(32 * n, 128), b="2M", g="12") for n in (1, 2)]
    for source in (late, append(*parts, tmp_path / "sizes.webm")):  # type: ignore[call-arg]
        copy_video(source, tmp_path / "copy.mp4")
        count = decoding.num_frames(source)
        assert decoding.num_frames(tmp_path / "copy.mp4") == count
        before, after = (decoding.frames(path, range(count)) for path in (source, tmp_path / "copy.mp4"))
        assert before.shape == after.shape
        assert np.abs(before.astype(int) - after).mean() < 3
        aspect = Fraction(2, 3) if source == late else None  # of the turned picture
        assert shape_of_pixels(tmp_path / "copy.mp4") == aspect


def shape_of_pixels(path: Path) -> Fraction | None:
    with av.open(str(path)) as container:
        aspect = container.streams.video[0].sample_aspect_ratio
    return None if aspect in (None, 0, 1) else aspect


def test_a_copy_with_other_frames_does_not_count(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nl_lightning.data.tools.prepare._count", lambda content: 19)
    with pytest.raises(DecodeError, match="only 19 of 20 frames decode"):
        copy_video(root / "x" / "-a b.mp4", tmp_path / "copy.mp4")
    assert not (tmp_path / "copy.mp4").exists()


def test_what_cannot_be_copied_is_refused(root: Path, tmp_path: Path) -> None:
    shutil.copy(root / "x" / "-a b.mp4", tmp_path / "outside.mp4")
    outside = {"train": VideoList.of(root, ["../outside.mp4"], [0])}
    with pytest.raises(UserError, match=r"^\.\./outside\.mp4 lies outside of "):
        copy_data_set(outside, [], root, tmp_path / "copy", 1)
    with pytest.raises(UserError, match="is the data set's own folder"):
        copied(root, root)
    with pytest.raises(UserError, match="is the data set's own folder, or in it"):
        copy_data_set({"train": VideoList.of(root, ["x/-a b.mp4"], [0])}, [], root, root / "train", 1)
    assert not (root / "train").exists()
