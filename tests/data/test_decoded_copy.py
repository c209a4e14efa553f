"""The decoded copy is the real decoder's frames, is made once, and notices changed files."""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from nl_lightning.data import decoded_copy, decoding, longrange
from nl_lightning.data.decoded_copy import DecodedCopy
from nl_lightning.data.packets import DecodeError
from nl_lightning.errors import UserError


def write(path: Path, seed: int, length: int = 12, size: int = 20) -> Path:
    """Write a small video of noise."""
    video = np.random.default_rng(seed).integers(0, 256, size=(length, size, size, 3), dtype=np.uint8)
    path.write_bytes(longrange.encode(video, 16))
    return path


@pytest.fixture
def paths(tmp_path: Path) -> tuple[Path, ...]:
    """Return five videos of one size, the third of which is broken."""
    found = tuple(write(tmp_path / f"{i}.mp4", i) for i in range(5))
    found[2].write_bytes(b"nothing")
    return found


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Decode here: helpers take their time to start, and have tests of their own."""

    def decoded(function: str, requests: list[tuple[Path]], workers: int, seconds: float) -> Iterator[tuple[int, Any]]:
        for place, (path,) in enumerate(requests):
            try:
                yield place, decoding.all_frames(path)
            except DecodeError as error:
                yield place, error

    monkeypatch.setattr(decoded_copy, "by_helpers", decoded)


def made(file: Path, paths: tuple[Path, ...]) -> DecodedCopy:
    """Return a copy, made and opened."""
    copy = DecodedCopy(file, paths)
    copy.make()
    return copy.open()


def test_same_frames_as_the_decoder(paths: tuple[Path, ...], tmp_path: Path) -> None:
    """Any frames in any order with repeats, writable and apart from the file; broken files stay broken."""
    copy = made(tmp_path / "decoded" / "train.npy", paths)
    indices = np.array([11, 3, 3, 0])
    for path in (*paths[:2], *paths[3:]):
        assert copy.num_frames(path) == decoding.num_frames(path) == 12
        frames = copy.frames(path, indices)
        assert np.array_equal(frames, decoding.frames(path, indices))
        frames[:] = 0
        assert copy.frames(path, indices).any()
    for question in (copy.num_frames, lambda path: copy.frames(path, indices)):
        with pytest.raises(DecodeError, match=r"2\.mp4: "):
            question(paths[2])
    assert {path.name for path in (tmp_path / "decoded").iterdir()} == {"train.npy", "train.json"}


@pytest.mark.usefixtures("in_process")
def test_made_once(paths: tuple[Path, ...], tmp_path: Path) -> None:
    """A copy of the same files is used as it is."""
    made(tmp_path / "copies" / "train.npy", paths)
    written = (tmp_path / "copies" / "train.npy").stat().st_mtime_ns
    made(tmp_path / "copies" / "train.npy", paths)
    assert (tmp_path / "copies" / "train.npy").stat().st_mtime_ns == written


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("change", ["content", "time", "order", "mended", "gone", "array"])
def test_a_changed_set_is_decoded_anew(change: str, paths: tuple[Path, ...], tmp_path: Path) -> None:
    """Another content, order or number of files, a mended file, a lost array: the old copy is not opened any more."""
    file = tmp_path / "copies" / "train.npy"
    made(file, paths)
    if change == "content":
        write(paths[0], 99)
    elif change == "time":  # a copy tool may keep the size
        os.utime(paths[0], ns=(0, 0))
    elif change == "order":
        paths = paths[::-1]
    elif change == "mended":
        write(paths[2], 2)
    elif change == "gone":
        paths[0].unlink()
    elif change == "array":
        file.unlink()
    with pytest.raises(UserError, match="no decoded copy of these files"):
        DecodedCopy(file, paths).open()
    copy = made(file, paths)
    for path in paths:
        try:
            expected = decoding.frames(path, np.arange(12))
        except DecodeError:
            with pytest.raises(DecodeError):
                copy.num_frames(path)
        else:
            assert np.array_equal(copy.frames(path, np.arange(12)), expected)


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize(("length", "size"), [(13, 20), (12, 24)])
def test_videos_of_other_sizes_are_refused(length: int, size: int, paths: tuple[Path, ...], tmp_path: Path) -> None:
    """One line that names the file and both sizes; nothing half-made is opened later."""
    write(paths[4], 4, length, size)
    copy = DecodedCopy(tmp_path / "copies" / "train.npy", paths)
    with pytest.raises(UserError, match=rf"4\.mp4 has {length} frames of {size} x {size}, others 12 frames of 20 x 20"):
        copy.make()
    assert not (tmp_path / "copies" / "train.npy").exists()
    with pytest.raises(UserError, match="no decoded copy"):
        copy.open()


def test_nothing_readable(tmp_path: Path) -> None:
    """A set of broken files is refused with the first reason."""
    (tmp_path / "x.mp4").touch()
    with pytest.raises(UserError, match=r"none of the 1 videos can be read; the first: .*x\.mp4: the file is empty"):
        DecodedCopy(tmp_path / "copies" / "train.npy", (tmp_path / "x.mp4",)).make()


def index_of(file: Path) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(file.with_suffix(".json").read_text())
    return said


@pytest.mark.usefixtures("in_process")
@pytest.mark.parametrize("spoil", ["version", "old", "bytes", "errors", "cut", "unfinished", "no JSON", "too long"])
def test_a_copy_that_is_not_whole_or_of_another_version_is_made_again(
    spoil: str, paths: tuple[Path, ...], tmp_path: Path
) -> None:
    """As after a crash, an update, or a copy of the folder that was interrupted."""
    file = tmp_path / "copies" / "train.npy"
    made(file, paths)
    said = index_of(file)
    if spoil == "cut":
        file.write_bytes(file.read_bytes()[:-100])
    elif spoil == "too long":
        file.write_bytes(file.read_bytes() + b"x")
    else:
        changed = {
            "version": {**said, "version": 1},
            "old": {"files": said["files"], "errors": said["errors"]},
            "bytes": {**said, "bytes": 1},
            "errors": {**said, "errors": said["errors"][1:]},
            "unfinished": {"version": None, "files": [], "errors": []},
            "no JSON": said,
        }[spoil]
        file.with_suffix(".json").write_text(json.dumps(changed))
    if spoil == "no JSON":
        file.with_suffix(".json").unlink()
        file.unlink()
    with pytest.raises(UserError, match="no decoded copy of these files"):
        DecodedCopy(file, paths).open()
    assert np.array_equal(made(file, paths).frames(paths[0], np.arange(12)), decoding.frames(paths[0], np.arange(12)))
    assert index_of(file) == said


@pytest.mark.parametrize("name", ["train.npy", "train.json", "notes.txt"])
def test_files_of_others_are_never_overwritten(name: str, paths: tuple[Path, ...], tmp_path: Path) -> None:
    """Neither what has the name of the array or its index, nor a folder that is somebody else's."""
    foreign = tmp_path / "copies" / name
    foreign.parent.mkdir()
    foreign.write_text('{"mine": 1}')
    with pytest.raises(UserError, match=f"{name} is of something else, .*: move it elsewhere"):
        DecodedCopy(tmp_path / "copies" / "train.npy", paths).make()
    assert [file.read_text() for file in foreign.parent.iterdir() if ".claim." not in file.name] == ['{"mine": 1}']


@pytest.mark.usefixtures("in_process")
def test_an_array_that_is_none_is_named(paths: tuple[Path, ...], tmp_path: Path) -> None:
    file = tmp_path / "copies" / "train.npy"
    made(file, paths)
    file.write_bytes(b"x" * file.stat().st_size)
    with pytest.raises(UserError, match=r"train\.npy: not the array that was written here; delete it"):
        DecodedCopy(file, paths).open()


def test_a_file_that_kills_its_reader_is_an_unreadable_one(
    paths: tuple[Path, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And no end of the whole."""
    monkeypatch.setattr(decoded_copy, "DECODE", "faulty_reader.all_frames")
    paths[1].rename(tmp_path / "crash.mp4")
    paths = (paths[0], tmp_path / "crash.mp4", *paths[3:])
    copy = made(tmp_path / "copies" / "train.npy", paths)
    with pytest.raises(DecodeError, match="dies of it"):
        copy.num_frames(paths[1])
    assert copy.num_frames(paths[0]) == 12
