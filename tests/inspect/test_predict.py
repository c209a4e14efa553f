"""``nl-lightning predict``: files and folders, names and numbers, and what can't be read."""

import contextlib
import json
import os
import shutil
from pathlib import Path

import pytest
import torch
from weight_files import INPUT, write_weights

from nl_lightning.cli import main
from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.data.longrange import CLASSES
from nl_lightning.inspect.predict import Predictor, threads, threads_for
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.train.classifier import VideoClassifier
from nl_lightning.weights.file import read_header


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return write_weights(tmp_path / "w.safetensors", NonLocalConfig({"res3": [1]}))


@pytest.fixture
def folder(small_videos: Path, tmp_path: Path) -> Path:
    """Two videos, one of them deeper, beside what is none: a text, and a folder of pictures with a video's name."""
    (tmp_path / "clips" / "deeper").mkdir(parents=True)
    (tmp_path / "clips" / "frames.mp4").mkdir()
    first, second = sorted(small_videos.rglob("test/*/*.mp4"))[:2]
    shutil.copy(first, tmp_path / "clips" / "b.mp4")
    shutil.copy(second, tmp_path / "clips" / "deeper" / "a.MP4")
    (tmp_path / "clips" / "notes.txt").write_text("none")
    return tmp_path / "clips"


def test_a_folder_gives_five_classes_a_video(folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["predict", str(folder), "--weights", str(weights)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line for line in lines if "views" in line] == [
        f"{folder / 'b.mp4'}  (6 views)", f"{folder / 'deeper' / 'a.MP4'}  (6 views)"
    ]  # fmt: skip
    assert len(lines) == 12
    assert {line.split()[1] for line in lines if "%" in line} <= set(CLASSES)


def test_scores_are_those_of_testing(small_videos: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """As JSON, against the classifier's own test on the data module's batches."""
    header = read_header(weights)
    data = VideoDataModule(
        str(small_videos), test_list="test.txt", num_frames=8, frame_stride=2, short_side=(36, 36), crop=32,
        test_short_side=36, test_crop=32, num_clips=2, num_crops=3,
    )  # fmt: skip
    model = VideoClassifier(header.net, mean=INPUT.mean, std=INPUT.std, weights=str(weights)).eval()
    model.setup("test")
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    with torch.no_grad():
        expected = model.log_probabilities(batch.views)[0].exp().mean(dim=0).topk(5)

    assert main(["predict", batch.path[0], "--weights", str(weights), "--json"]) == 0
    (video,) = json.loads(capsys.readouterr().out)
    assert (video["video"], video["views"], video["error"]) == (batch.path[0], 6, "")
    assert [guess["label"] for guess in video["top5"]] == expected.indices.tolist()
    assert [guess["score"] for guess in video["top5"]] == pytest.approx(expected.values.tolist(), rel=1e-5)
    assert [guess["name"] for guess in video["top5"]] == [CLASSES[k] for k in expected.indices.tolist()]


def test_what_can_t_be_read_is_named_and_the_others_go_on(
    folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "a.mp4").write_bytes(b"no video")
    (folder / "deeper" / "a.MP4").unlink()
    assert main(["predict", str(folder), "nowhere.mp4", "--weights", str(weights)]) == 1
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith(f"{folder / 'a.mp4'}: ")
    assert lines[0].endswith("(left out)")
    assert lines[1] == f"{folder / 'b.mp4'}  (6 views)"
    assert lines[-1] == "nowhere.mp4: No such file or directory (left out)"


def test_names_of_classes_are_never_commands_to_a_terminal(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    odd = write_weights(tmp_path / "odd.safetensors", None, classes=tuple(f"{k}\x1b[2J\x9b1m[red]" for k in range(11)))
    for words in ([], ["--json"]):
        assert main(["predict", str(folder / "b.mp4"), "--weights", str(odd), *words]) == 0
        said = capsys.readouterr().out
        assert "\x1b" not in said
        assert "\x9b" not in said
        assert "[red]" in said


def test_small_networks_compute_in_one_thread(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And large ones in as many as they may: torch's own, or the cores of the process."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)
    assert Predictor(weights).threads == 1
    assert [threads_for(macs) for macs in (0, 1e8, 8e9, 1e11)] == [1, 1, 4, 6]


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with contextlib.suppress(KeyError), threads(3):
        assert torch.get_num_threads() == 3
        raise KeyError
    assert torch.get_num_threads() == before


def test_classes_without_names_are_numbers(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nameless = write_weights(tmp_path / "nameless.safetensors", None, classes=())
    assert main(["predict", str(folder / "b.mp4"), "--weights", str(nameless)]) == 0
    assert "class " in capsys.readouterr().out.splitlines()[1]


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["empty", "--weights", "w.safetensors"], "empty: no video"),
        (["x.mp4", "--weights", "nowhere.safetensors"], "there is no file nowhere.safetensors"),
        (["x.mp4"], "the following arguments are required: --weights"),
    ],
)
def test_a_mistake_is_one_line(
    words: list[str], line: str, weights: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(weights.parent)
    Path("empty").mkdir()
    assert main(["predict", *words]) == 2
    (said,) = capsys.readouterr().err.splitlines()
    assert line in said
