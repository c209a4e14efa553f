"""``nl-lightning attend`` from the command line."""

import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import weight_files
from weight_files import INPUT, write_weights

from nl_lightning.cli import main
from nl_lightning.data.decoding import num_frames
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig


@pytest.fixture
def video(small_videos: Path) -> Path:
    return sorted(small_videos.rglob("test/look_0/*.mp4"))[0]


def said(capsys: pytest.CaptureFixture[str], *arguments: object, code: int = 0) -> list[str]:
    """The lines that a command prints."""
    assert main([str(word) for word in arguments]) == code
    output = capsys.readouterr()
    return (output.out + output.err).strip().splitlines()


@pytest.mark.parametrize("instantiation", ["embedded_gaussian", "dot_product"])
def test_a_block_is_drawn_from_a_position(
    instantiation: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "w.safetensors", NonLocalConfig({"res3": [1]}, instantiation))  # type: ignore[arg-type]
    options = ("--weights", weights, "--block", "res3.1", "--query", "1,3,4", "--out", tmp_path / "out")
    lines = said(capsys, "attend", video, *options)
    assert lines[0] == f"{video}: frames 8 to 22 (8 of them)"  # the middle 16 of 32
    assert lines[1].startswith(f"res3.1 ({instantiation.replace('_', ' ')}, sum over spacetime): position (1, 3, 4)")
    written = (tmp_path / "out" / f"attend_{video.stem}_res3.1_1-3-4.svg").read_text()
    for name in ("8 to 10, drawn 8", "12 to 14, drawn 12", "one of them is drawn"):
        assert name in written
    assert lines[1].endswith("stands for frames 12 to 14, pixel (12, 16) of the 32 x 32 crop")
    assert "of 64 connections" in lines[2]  # 4 frames of 4 x 4 pooled keys
    assert "0 alike, 1 nothing shared" in lines[3]
    names = [Path(line).name for line in lines[4:]]
    assert names == [f"attend_{video.stem}_res3.1_1-3-4.{kind}" for kind in ("png", "svg", "mp4")]
    assert num_frames(tmp_path / "out" / names[2]) == 8


@pytest.mark.parametrize("other", ["video", "network"])
def test_figures_of_another_video_or_network_stay(
    other: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "w.safetensors", NonLocalConfig({"res3": [1]}))
    options = ("--weights", weights, "--block", "res3.1", "--query", "1,3,4", "--out", tmp_path / "out")
    said(capsys, "attend", video, *options)
    before = {path: path.read_bytes() for path in (tmp_path / "out").iterdir()}
    same = tmp_path / video.name
    shutil.copy(video, same)
    said(capsys, "attend", same, *options)  # the same frames, wherever they lie
    if other == "video":
        shutil.copy(sorted(video.parents[1].rglob("look_1/*.mp4"))[0], same)
    else:
        write_weights(weights, NonLocalConfig({"res3": [1]}, "dot_product"))
    (line,) = said(capsys, "attend", same, *options, code=2)
    assert "nl-lightning didn't write it from these weights and videos: name another place" in line
    assert {path: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


def test_a_name_is_shown_as_one_line(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = write_weights(tmp_path / "w.safetensors", NonLocalConfig({"res3": [1]}))
    odd = tmp_path / "a\nb\x1b.mp4"
    shutil.copy(video, odd)
    options = ("--weights", weights, "--block", "res3.1", "--query", "1,3,4", "--out", tmp_path / "out")
    lines = said(capsys, "attend", odd, *options)
    assert lines[0].startswith(f"{tmp_path}/a\\nb\\x1b.mp4: frames 8 to 22")
    assert [line.partition("/out/")[2] for line in lines[4:]] == [
        f"attend_a\\nb\\x1b_res3.1_1-3-4.{kind}" for kind in ("png", "svg", "mp4")
    ]


def test_a_clip_that_is_too_short_is_one_line(
    video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(weight_files, "INPUT", replace(INPUT, num_frames=1))
    monkeypatch.setattr(weight_files, "Conventions", partial(Conventions, "release"))  # whose pool2 takes two frames
    weights = write_weights(tmp_path / "w.safetensors", NonLocalConfig({"res3": [1]}))
    for words in (("attend", video, "--block", "res3.1", "--query", "0,0,0"), ("reach",)):
        (line,) = said(capsys, *words, "--weights", weights, "--out", tmp_path / "out", code=2)
        assert "clip: 1x32x32 (frames, height, width) is too small for this network" in line


@pytest.mark.parametrize(
    ("changed", "line"),
    [
        ({"--query": "4,0,0"}, "(4, 0, 0) lies outside the map of res3.1: frames 0 to 3, rows 0 to 7, columns 0 to 7"),
        ({"--query": "1,2"}, "expected frame,row,column of the map, each from 0, as 2,4,4; not '1,2'"),
        ({"--query": "1,-2,0"}, "not '1,-2,0'"),
        ({"--block": "res4.1"}, "this network has no non-local block 'res4.1'; it has res3.1"),
        ({"--weights": "nowhere.safetensors"}, "weights: there is no file nowhere.safetensors"),
        ({"video": "nowhere.mp4"}, "nowhere.mp4: No such file"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_line(
    changed: dict[str, str], line: str, video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    weights = write_weights(tmp_path / "w.safetensors", NonLocalConfig({"res3": [1]}))
    words = {"video": video, "--weights": weights, "--block": "res3.1", "--query": "0,0,0", **changed}
    options = [f"{name}={word}" for name, word in words.items() if name != "video"]
    lines = said(capsys, "attend", words["video"], *options, "--out", tmp_path / "out", code=2)
    assert len(lines) == 1
    assert line in lines[0]
    assert not (tmp_path / "out").exists()


def test_a_network_without_blocks_says_so(video: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = write_weights(tmp_path / "w.safetensors", None)
    lines = said(capsys, "attend", video, "--weights", weights, "--block", "res3.1", "--query", "0,0,0", code=2)
    assert lines == ["nl-lightning: block: this network has no non-local block"]


def test_a_broken_video_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights = write_weights(tmp_path / "w.safetensors", NonLocalConfig({"res3": [1]}))
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(np.arange(200, dtype=np.uint8).tobytes())
    lines = said(capsys, "attend", broken, "--weights", weights, "--block", "res3.1", "--query", "0,0,0", code=2)
    assert len(lines) == 1
    assert lines[0].startswith(f"nl-lightning: {broken}: ")
