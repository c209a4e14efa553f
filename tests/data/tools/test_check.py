"""Every file is read once, in whatever state it is, and a census that was stopped goes on."""

import contextlib
import json
import os
import shutil
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
from video_files import append, copy, hide, write

from nl_lightning.data import decoding
from nl_lightning.data.manifest import Finding, Manifest, read_findings, write_manifest
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.tools import check as census
from nl_lightning.data.tools.check import by_error, counts, take_census
from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError
from nl_lightning.study.lock import acquire

NAMES = ("a b.mp4", "-c.mp4", "empty.mp4", "cut.mp4", "absent.mp4")


@pytest.fixture
def root(tmp_path: Path, small_videos: Path) -> Path:
    """Two whole videos, an empty one and a cut one."""
    whole = sorted((small_videos / "train").rglob("*.mp4"))
    for name, video in zip(NAMES, whole[:2], strict=False):
        shutil.copy(video, tmp_path / name)
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "cut.mp4").write_bytes(whole[2].read_bytes()[:-1000])
    return tmp_path


def lists(root: Path, names: tuple[str, ...] = NAMES) -> dict[str, VideoList]:
    train, test = names, names[:1]
    return {
        split: VideoList.of(root, on, [3] * len(on)) for split, on in (("train", train), ("val", test), ("test", test))
    }


def take(root: Path, hashes: bool = False) -> dict[str, Finding]:
    rows = take_census(lists(root), root, root / "census.parquet", 1, hashes)
    assert rows == read_findings(root / "census.parquet")
    assert not (root / "census.parquet.part").exists()
    return {row.path: row for row in rows}


def test_what_is_found(root: Path) -> None:
    rows = take(root)
    whole = rows["a b.mp4"]
    assert (whole.id, whole.labels, whole.splits) == ("a b", (3,), "train,val,test")
    assert (whole.codec, whole.fps, whole.width, whole.height) == ("mpeg4", 16, 36, 36)
    assert whole.frames == whole.decoded == whole.header_frames == 32
    assert (whole.bytes, whole.decoder, whole.objection, whole.error) == (
        (root / "a b.mp4").stat().st_size, "pyav", "", "",
    )  # fmt: skip
    assert rows["-c.mp4"].error == ""
    assert {name: rows[name].error for name in NAMES[2:]} == {
        "empty.mp4": "the file is empty",
        "cut.mp4": f"the file is damaged or cut off after {(root / 'cut.mp4').stat().st_size} bytes",
        "absent.mp4": "No such file or directory",
    }
    everything = list(rows.values())
    assert counts(everything) == [
        ("train", 5, 4, 2), ("val", 1, 1, 1), ("test", 1, 1, 1), ("all files", 5, 4, 2),
    ]  # fmt: skip
    assert ("the file is empty", 1, "empty.mp4") in by_error(everything)


def test_kinds_of_errors_are_counted_whatever_their_numbers() -> None:
    rows = [Finding(f"{i}.mp4", "", (0,), "val", error=f"only {i} of 30 frames decode") for i in range(3)]
    found = by_error([*rows, Finding("x.mp4", "", (0,), "val", error="other"), Finding("y.mp4", "", (0,), "val")])
    assert found == [("only N of N frames decode", 3, "0.mp4"), ("other", 1, "x.mp4")]


def test_hashes_on_request(root: Path) -> None:
    assert take(root)["a b.mp4"].sha256 == ""
    assert len(take(root, hashes=True)["a b.mp4"].sha256) == 64
    assert len(take(root)["a b.mp4"].sha256) == 64  # once known, it stays


def test_repeated_it_reads_what_has_changed_or_was_bad(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that couldn't be read may be readable now, though nothing of it has changed."""
    take(root)
    os.utime(root / "-c.mp4", ns=(0, 0))
    shutil.copy(root / "a b.mp4", root / "empty.mp4")
    monkeypatch.setattr(census, "SURVEY", "faulty_survey.mark")
    again = take(root)
    assert [name for name in NAMES if again[name].codec == "read again"] == list(NAMES[1:])


def test_a_stopped_one_goes_on(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was noted is kept, but for a last line that is torn."""
    status = (root / "a b.mp4").stat()
    noted = Finding("a b.mp4", "a b", (3,), "train", bytes=status.st_size, mtime_ns=status.st_mtime_ns, codec="noted")
    torn = json.dumps(asdict(replace(noted, path="-c.mp4")))[:50]
    (root / "census.parquet.part").write_text(f"{json.dumps(asdict(noted))}\n{torn}")
    monkeypatch.setattr(census, "SURVEY", "faulty_survey.mark")
    rows = take(root)
    assert [rows[name].codec for name in NAMES[:3]] == ["noted", "read again", "read again"]


def test_files_that_hang_or_crash_are_findings(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.rename(root / "-c.mp4", root / "hang.mp4")
    os.rename(root / "cut.mp4", root / "crash.mp4")
    monkeypatch.setattr(census, "SURVEY", "faulty_survey.mark")
    names = ("a b.mp4", "hang.mp4", "crash.mp4")
    rows = take_census(lists(root, names), root, root / "census.parquet", 2, False, seconds=0.5)
    assert [row.error for row in rows] == [
        "", "not read within 0.5 seconds", "the process that reads it dies of it (SIGSEGV)",
    ]  # fmt: skip


def test_notes_of_somebody_else_stay(root: Path) -> None:
    for content in ("precious", "precious\nlines\n"):
        (root / "census.parquet.part").write_text(content)
        with pytest.raises(UserError, match=r"census\.parquet\.part wasn't written by nl-lightning: move it away, or"):
            take(root)
        assert (root / "census.parquet.part").read_text() == content


def test_a_manifest_of_somebody_else_stays(root: Path) -> None:
    (root / "census.parquet").write_text("precious")
    with pytest.raises(UserError, match=r"census\.parquet: not a manifest"):
        take(root)
    assert (root / "census.parquet").read_text() == "precious"


def test_names_that_are_no_text(root: Path) -> None:
    name = os.fsdecode(b"\xff.mp4")
    shutil.copy(root / "a b.mp4", root / name)
    shutil.copy(root / "cut.mp4", root / f"cut{name}")
    videos = {"train": VideoList.of(root, [name, f"cut{name}"], [0, 0])}
    rows = take_census(videos, root, root / "census.parquet", 1, False)
    assert [row.path for row in rows] == [r"\udcff.mp4", r"cut\udcff.mp4"]
    assert take_census(videos, root, root / "census.parquet", 1, False) == rows
    manifest = Manifest(root / "census.parquet")
    facts = manifest.facts(name)
    assert facts is not None
    assert decoding.num_frames(root / name, facts) == 32
    assert list(manifest.bad(videos["train"].paths)) == [1]


@pytest.fixture(scope="module")
def kinds(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Files of which a census and a reader might think differently."""
    root = tmp_path_factory.mktemp("kinds")
    plain = write(root / "plain.mkv", params="keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:open-gop=1")
    small, large = (write(root / f"{n}.webm", codec="libvpx", size=(32 * n, 128), b="2M", g="12") for n in (1, 2))
    damaged = bytearray(write(root / "whole.avi", codec="mpeg4", g="12", b="300k").read_bytes())
    damaged[6000:6400] = bytes(400)
    (root / "damaged.avi").write_bytes(damaged)
    (root / "cut.mkv").write_bytes(plain.read_bytes()[: plain.stat().st_size // 2])
    return {
        "plain": plain,
        "mirrored": copy(plain, root / "mirrored.mp4", turn=(90, True, False)),
        "cut off": root / "cut.mkv",
        "within another": copy(plain, root / "late.mkv", drop=lambda place, key: key < 2),
        "before a key frame": copy(plain, root / "before.mkv", drop=lambda place, key: place < 5),
        "hidden": hide(small, root / "hidden.webm"),
        "another size": append(small, large, root / "sizes.webm"),
        "damaged": root / "damaged.avi",
        "key frames lost": copy(plain, root / "keys.mkv", drop=lambda place, key: place == 12),
    }


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("plain", 60), ("mirrored", 60), ("cut off", 0), ("within another", 48), ("before a key frame", 48),
        ("hidden", 60), ("another size", 120), ("damaged", None), ("key frames lost", None),
    ],
)  # fmt: skip
def test_a_census_finds_what_training_finds(kind: str, count: int | None, kinds: dict[str, Path]) -> None:
    """A file that it calls whole can be read frame by frame; of one that it doesn't, some frame can't."""
    path = kinds[kind]
    found = census.survey(path, Finding(path.name, "", (0,), "train"), False)
    read = 0
    with contextlib.suppress(DecodeError):
        for frame in range(decoding.num_frames(path)):
            with contextlib.suppress(DecodeError):
                read += len(decoding.frames(path, [frame]))
    assert read == found.frames if not found.error else read <= found.frames
    if count is not None:
        assert (found.frames, found.decoded, bool(found.error)) == (count, count, count == 0)
    write_manifest(path.with_name("one.parquet"), [found])
    facts = Manifest(path.with_name("one.parquet")).facts(path.name)
    if not found.error:
        assert np.array_equal(decoding.frames(path, [read - 1, 0], facts=facts), decoding.frames(path, [read - 1, 0]))


def test_one_at_a_time(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = acquire(root / "census.parquet")
    assert held is not None
    with held, pytest.raises(UserError, match=r"census\.parquet: process \d+ on .* is at work on it"):
        take(root)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(UserError, match="can't be written: name another place with --out"):
        take(root)
