"""Files as a reader: the decoder's frames through a helper, and faults that stay with their files."""

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import psutil
import pytest

from nl_lightning.data import decoding
from nl_lightning.data.datasets import Files, check_room
from nl_lightning.data.manifest import Finding, Manifest, write_manifest
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.reader import Helper
from nl_lightning.data.tools.check import survey
from nl_lightning.errors import UserError


@pytest.fixture
def root(tmp_path: Path, small_videos: Path) -> Path:
    videos = sorted((small_videos / "train").rglob("*.mp4"))
    for name, video in zip(("plain", "hang", "crash"), videos, strict=False):
        shutil.copy(video, tmp_path / f"{name}.mp4")
    return tmp_path


@pytest.fixture(scope="module")
def helper() -> Iterator[Helper]:
    helper = Helper(60)
    yield helper
    helper.end()


@pytest.fixture
def files(root: Path, helper: Helper) -> Files:
    files = Files(root, module="faulty_reader")
    files.helper = helper
    return files


def test_frames_are_the_decoders(files: Files, root: Path) -> None:
    indices = np.array([5, 1, 31])
    assert files.num_frames(root / "plain.mp4") == 32
    assert np.array_equal(files.frames(root / "plain.mp4", indices), decoding.frames(root / "plain.mp4", indices))
    for question in (files.num_frames, lambda path: files.frames(path, indices)):
        with pytest.raises(DecodeError, match=r"none\.mp4: No such file"):
            question(root / "none.mp4")


def test_a_dangerous_file_is_set_aside_and_the_others_are_read(files: Files, root: Path) -> None:
    """It costs a helper once; then it is known."""
    for name, seconds, said in (("hang", 0.3, "not read within 0.3 seconds"), ("crash", 60, r"dies of it \(SIGSEGV\)")):
        files.num_frames(root / "plain.mp4")  # the helper runs
        files.helper.seconds = seconds
        with pytest.raises(DecodeError, match=said):
            files.num_frames(root / f"{name}.mp4")
        files.helper.seconds = 60
        before = helper_of(files)
        with pytest.raises(DecodeError, match=said):
            files.frames(root / f"{name}.mp4", np.array([0]))
        assert helper_of(files) == before


def test_a_killed_helper_changes_nothing(files: Files, root: Path) -> None:
    indices = np.arange(8)
    before = files.frames(root / "plain.mp4", indices).copy()
    os.kill(helper_of(files), signal.SIGKILL)
    assert np.array_equal(files.frames(root / "plain.mp4", indices), before)


def test_what_a_census_found_is_used(root: Path) -> None:
    (root / "bad.mp4").write_bytes(b"nothing")
    rows = [survey(root / name, Finding(name, "", (0,), "train"), False) for name in ("plain.mp4", "bad.mp4")]
    write_manifest(root / "census.parquet", rows)
    files = Files(root, manifest=Manifest(root / "census.parquet"))
    assert files.num_frames(root / "plain.mp4") == 32
    with pytest.raises(DecodeError, match=r"bad\.mp4: Invalid data"):
        files.num_frames(root / "bad.mp4")
    files.helper.end()


def test_room_for_what_workers_read_ahead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A /dev/shm that is too small is said in one line, before a worker dies of it."""
    monkeypatch.setattr(os, "statvfs", lambda place: SimpleNamespace(f_bavail=100, f_frsize=1 << 20))
    check_room(2, 20 << 20, tmp_path)
    with pytest.raises(UserError, match="has room for 100 MB, and 2 workers that read ahead fill 105 MB: free it, "):
        check_room(2, 21 << 20, tmp_path)
    check_room(0, 1 << 40, tmp_path)
    check_room(2, 1 << 40, tmp_path / "none")


def test_memory_stays_flat(files: Files, root: Path) -> None:
    """Of the helper; what a clip leaves behind would be 15 kB, and an index 5 kB."""
    indices = np.arange(4)
    for name in range(900):
        if name == 300:  # it has by then what it keeps
            begun = psutil.Process(helper_of(files)).memory_info().rss
        link = root / f"{name}.mp4"
        link.symlink_to(root / "plain.mp4")
        files.frames(link, indices)
    assert psutil.Process(helper_of(files)).memory_info().rss - begun < 2_000_000


def helper_of(files: Files) -> int:
    number: int = files.helper.ask("faulty_reader.process_id", "x")
    return number
