"""``nl-lightning data check | prepare | shards``, as typed."""

import inspect
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from tiny_study import write_tiny_study

from nl_lightning.cli import main
from nl_lightning.cli.videos import data_prepare
from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.data.tools import prepare


@pytest.fixture
def folder(tmp_path: Path, small_videos: Path) -> Path:
    write_tiny_study(tmp_path, small_videos)
    return tmp_path


def test_prepare_has_the_papers_size_unless_told_otherwise() -> None:
    assert inspect.signature(data_prepare).parameters["short_side"].default == prepare.SHORT_SIDE


def test_check(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (folder / "videos" / "val.txt").write_text("no/such.mp4 0\n")
    assert main(["data", "check", str(folder / "tiny.yaml"), "--workers", "1"]) == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert lines[1:5] == [
        ["train", "33", "33", "33"], ["val", "1", "0", "0"], ["test", "22", "22", "22"],
        ["all", "files", "56", "55", "55"],
    ]  # fmt: skip
    assert " ".join(lines[5]) == "1 x No such file or directory (no/such.mp4)"
    assert (folder / "videos" / "census.parquet").is_file()


def test_prepare_and_shards(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Both are data sets that the recipe's data module takes."""
    for split in ("train", "val", "test"):
        file = folder / "videos" / f"{split}.txt"
        file.write_text("".join(file.read_text().splitlines(keepends=True)[:3]))
    recipe, copy, packed = str(folder / "tiny.yaml"), folder / "copy", folder / "packed"
    assert main(["data", "prepare", recipe, "--workers", "1", "--out", str(copy), "--short-side", "24"]) == 0
    assert f"9 videos copied, 0 were there, 0 copied as they are, 0 absent; train with --data.root={copy}" in (
        capsys.readouterr().out
    )
    assert main(["data", "shards", recipe, "--out", str(packed), "--root", str(copy)]) == 0
    assert f"9 videos packed, 0 absent; train with --data.shards={packed}" in capsys.readouterr().out
    lists = {"train_list": "train.txt", "val_list": "val.txt", "test_list": "test.txt"}
    original, *others = (
        VideoDataModule(str(folder / "videos"), **lists),
        VideoDataModule(str(copy), **lists),
        VideoDataModule("nowhere", shards=str(packed)),
    )
    for data in others:
        assert data.videos("test").listed() == original.videos("test").listed()
        video = data.videos("train").paths[0]
        assert data.files.num_frames(video) == 32
        assert data.files.frames(video, np.arange(1)).shape == (1, 24, 24, 3)


def test_all_official_splits_are_checked_and_copied(
    small_videos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As of HMDB51, in whose splits some videos are neither trained nor tested on."""
    lines = (small_videos / "train.txt").read_text().splitlines(keepends=True)[:2]
    root = tmp_path / "set"
    for fold, line in enumerate(lines, start=1):
        (root / line).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(small_videos / line.split()[0], root / line.split()[0])
        (root / f"list{fold}.txt").write_text(line)
    lists = dict.fromkeys(("train_list", "val_list", "test_list"), "list{fold}.txt")
    recipe = tmp_path / "folds.yaml"
    recipe.write_text(json.dumps({"data": {"root": str(root), "folds": 2, **lists}}))
    assert main(["data", "check", str(recipe), "--workers", "1"]) == 0
    said = capsys.readouterr().out
    assert "all files 2 2 2" in " ".join(said.split())
    assert "train_split2: 1 videos, as many as in no list that is known" in said
    assert main(["data", "prepare", str(recipe), "--workers", "1", "--out", str(tmp_path / "copy")]) == 0
    assert "2 videos copied, 0 were there, 0 copied as they are, 0 absent" in capsys.readouterr().out


def test_a_mistake_is_one_line(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "check", str(folder / "tiny.yaml"), "--root", str(folder / "none")]) == 2
    assert capsys.readouterr().err.splitlines()[-1].startswith(f"nl-lightning: {folder / 'none' / 'train.txt'}: ")


def test_a_generated_set_is_made_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "made.yaml").write_text(f"data: {{root: {tmp_path / 'set'}, match: {{train: 2, val: 2, test: 4}}}}")
    assert main(["data", "check", str(tmp_path / "made.yaml"), "--workers", "1"]) == 0
    assert "test: 4 videos of the generated set match, version 2" in capsys.readouterr().out
