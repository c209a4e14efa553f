"""A run that is ended again and again, anywhere, ends in the very weights and numbers of one that was not."""

import dataclasses
import os
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow.parquet as pq
import pytest
import torch
from tiny_charades import write_tiny_charades
from tiny_study import STUDY, execute, planned, recorded, write_tiny_study

from nl_lightning.cli import main
from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.study.records import Record
from nl_lightning.study.run import PREVIOUS, Run
from nl_lightning.train import checkpoints
from nl_lightning.train.checkpoints import LocalFiles, Saver, newest_whole

OF_THE_CLOCK = ("train_seconds", "test_seconds", "data_wait", "finished")
"""What may differ between two runs of the same configuration on the same machine."""


class Killed(BaseException):
    """As by SIGKILL: nothing gets the time to save anything."""


@pytest.fixture(autouse=True)
def _offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "no.netrc"))
    monkeypatch.setenv("WANDB_MODE", "disabled")


def often(run: Run) -> Run:
    """The same run, with a checkpoint after every iteration."""
    return dataclasses.replace(run, checkpoint_minutes=0)


def finish(run: Run, monkeypatch: pytest.MonkeyPatch, lives: Iterator[int]) -> int:
    """Execute a run until it has its record, killing it when it has read so many batches; return how often that was."""
    plain = VideoDataModule.on_after_batch_transfer
    left = next(lives)

    def count(self: VideoDataModule, batch: Any, index: int) -> Any:
        nonlocal left
        left -= 1
        if left == 0:
            raise Killed
        return plain(self, batch, index)

    monkeypatch.setattr(VideoDataModule, "on_after_batch_transfer", count)
    killed = 0
    while True:
        try:
            assert execute(run) == 0
            monkeypatch.setattr(VideoDataModule, "on_after_batch_transfer", plain)
            return killed
        except Killed:
            killed += 1
            left = next(lives)


def outcome(run: Run) -> tuple[dict[str, Any], dict[str, Any], Record]:
    """Weights and optimizer, predictions, and the record without times, memory and energy."""
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    record = recorded(run)
    states = {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers")}
    still = dataclasses.replace(record, **{name: 0 if name != "finished" else "" for name in OF_THE_CLOCK})
    assert still.evidence is not None
    still = dataclasses.replace(still, machine=None, evidence=dataclasses.replace(still.evidence, started=""))
    return states, pq.read_table(run.predictions).to_pydict(), still


def assert_same_outcome(whole: Run, killed: Run) -> None:
    """Bit for bit."""
    expected, found = outcome(whole), outcome(killed)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0)
    assert found[1:] == expected[1:]


@pytest.mark.parametrize(
    ("changes", "workers"),
    [
        (
            {
                "max_epochs: 3": "max_epochs: 3, accumulate_grad_batches: 2",
                "  optimizer:": "  precise_bn: 2\n  optimizer:",
            },
            2,
        ),
        ({"max_epochs: 3": "max_steps: 8", "check_val_every_n_epoch: 2": "val_check_interval: 2"}, 0),
    ],
    ids=["epochs, accumulated, read ahead, precise BN", "steps, validated within the epoch"],
)
def test_killed_again_and_again_it_ends_the_same(
    tmp_path: Path, small_videos: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], workers: int
) -> None:
    changes = {**changes, "dropout: 0}": "dropout: 0.5}", "batch_size: 11": f"batch_size: 6\n  num_workers: {workers}"}
    write_tiny_study(tmp_path, small_videos, changes)
    whole, killed = (often(planned(tmp_path, "nl", results)) for results in ("whole", "killed"))
    assert finish(whole, monkeypatch, iter([0])) == 0
    assert finish(killed, monkeypatch, iter([5, 6, 9, 10, 14, 0])) >= 3
    assert_same_outcome(whole, killed)


def test_killed_within_the_validation_after_an_epoch_it_ends_the_same(
    tmp_path: Path, small_videos: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the second of three epochs of three batches."""
    write_tiny_study(tmp_path, small_videos)
    whole, killed = (planned(tmp_path, "nl", results) for results in ("whole", "killed"))
    assert finish(whole, monkeypatch, iter([0])) == 0
    assert finish(killed, monkeypatch, iter([8, 0])) == 1  # one batch is validated before all else, and two epochs read
    assert [point["step"] for point in outcome(killed)[2].curve] == [3, 6, 9]
    assert_same_outcome(whole, killed)


@pytest.mark.parametrize("ended", [False, True])
@pytest.mark.parametrize("out_of_time", [False, True])
def test_what_has_ended_or_is_out_of_time_does_not_begin(tmp_path: Path, ended: bool, out_of_time: bool) -> None:
    """Lightning's Timer says so before the first step."""
    saver, trainer = Saver(tmp_path / "last.ckpt", 1, LocalFiles()), SimpleNamespace(global_step=3)
    saver.ended, trainer.should_stop = ended, out_of_time
    saver.on_train_start(cast(Any, trainer), cast(Any, None))
    saver.stop.end()
    assert trainer.should_stop == (ended or out_of_time)


def test_told_to_stop_it_saves_and_ends(
    tmp_path: Path, small_videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the middle of a step; however rarely checkpoints are written otherwise."""
    write_tiny_study(tmp_path, small_videos)
    run = planned(tmp_path, "nl")
    plain = VideoDataModule.on_after_batch_transfer

    def tell(self: VideoDataModule, batch: Any, index: int) -> Any:
        if self.trainer is not None and self.trainer.global_step == 4 and self.trainer.training:
            os.kill(os.getpid(), signal.SIGUSR1)
        return plain(self, batch, index)

    monkeypatch.setattr(VideoDataModule, "on_after_batch_transfer", tell)
    assert execute(run) == 143
    assert run.state().name == "preempted"
    assert torch.load(run.checkpoint, weights_only=True)["global_step"] == 5


@pytest.mark.parametrize("damage", ["truncated", "empty", "zeros", "garbage", "garbage in its list"])
def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    tmp_path: Path, damage: str, capsys: pytest.CaptureFixture[str]
) -> None:
    newest, before = tmp_path / "last.ckpt", tmp_path / PREVIOUS
    torch.save({"weights": torch.arange(10_000)}, before)
    assert newest_whole(newest, speaks=True) == before  # as if killed between two renames
    shutil.copy(before, newest)
    assert newest_whole(newest, speaks=True) == newest
    assert capsys.readouterr().out == ""
    content = newest.read_bytes()
    middle = len(content) // 2
    listed = content.rindex(b"PK\x01\x02") + 46  # the name of a part
    spoilt = {
        "truncated": content[:middle],
        "empty": b"",
        "zeros": content[:middle] + bytes(len(content) - middle),
        "garbage": content[:middle]
        + bytes(byte ^ 255 for byte in content[middle : middle + 16])
        + content[middle + 16 :],
        "garbage in its list": content[:listed] + bytes([0xAE]) * 8 + content[listed + 8 :],
    }[damage]
    newest.write_bytes(spoilt)
    assert newest_whole(newest, speaks=False) == before
    assert newest_whole(newest, speaks=True) == before
    assert f"{newest} is damaged (" in capsys.readouterr().err
    assert (tmp_path / "last.damaged.ckpt").read_bytes() == spoilt
    for odd, said in ((os.mkfifo, "got a device"), (lambda file: file.symlink_to("gone"), "no file")):
        odd(newest)
        assert newest_whole(newest, speaks=True) == before
        assert said in capsys.readouterr().err
    before.unlink()
    assert newest_whole(newest, speaks=True) is None


INFLATED = "  nl: {net: {depth: 50, inflate: 3x1x1, "
MUON = {
    "model:": "stills: true\nmodel:\n  loaded_lr: 0.1\n  schedule: {kind: linear, warmup: 0.1}",
    "class_path: torch.optim.AdamW, init_args: {lr: 0.003}": "class_path: nl_lightning.train.muon.MuonAdamW",
    "num_classes: 11": "num_classes: 11, min_channels: 2",
    "max_epochs: 3, check_val_every_n_epoch: 2": "max_epochs: 1",
    "num_clips: 2\n  num_crops: 3": "num_clips: 1\n  num_crops: 1",
}


@pytest.fixture
def with_stills(tmp_path: Path, small_videos: Path) -> Path:
    """A study of which one variant is inflated, under a recipe with stills of several classes each."""
    write_tiny_study(tmp_path, small_videos, MUON)
    (tmp_path / "study.yaml").write_text(STUDY.replace("  nl: {net: {depth: 50, ", INFLATED))
    videos = write_tiny_charades(tmp_path / "stills").parent / "charades"
    (tmp_path / "tiny_stills.yaml").write_text(
        "model: {multi_label: true, net: {num_classes: 4, temporal_strides: [1, 1, 1]}}\n"
        f"data: {{root: {videos}, train_list: Charades_v1_train.csv, val_list: Charades_v1_test.csv,\n"
        "  test_list: Charades_v1_test.csv, num_frames: 1, batch_size: 8}\n"
        "trainer: {max_epochs: 1}\n"
    )
    return tmp_path


def checkpoint(run: Run) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(run.checkpoint, weights_only=True)
    return found


def test_a_run_starts_from_its_stills_and_goes_on_after_being_killed(
    with_stills: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Inflated, and at their own rates. The tables say what the stills took, and have no row of them."""
    folder = with_stills
    assert execute(planned(folder, "nl")) == 2
    assert "train that run first" in planned(folder, "nl").state().note
    assert execute(planned(folder, "stills_r50")) == 0
    shutil.copytree(folder / "results", folder / "killed")
    stills, whole, killed = planned(folder, "stills_r50"), planned(folder, "nl"), often(planned(folder, "nl", "killed"))
    record = recorded(stills)
    assert (record.mAP is None, record.top1, record.init_from) == (False, None, None)
    assert finish(whole, monkeypatch, iter([0])) == 0
    assert finish(killed, monkeypatch, iter([4, 0])) == 1
    assert_same_outcome(whole, killed)

    record = recorded(whole)
    assert record.init_from == "stills_r50"
    trained = checkpoint(whole)
    rates = {
        (group["muon"], group.get("times_lr", 1.0), group["initial_lr"])
        for group in trained["optimizer_states"][0]["param_groups"]
    }
    assert {(muon, round(times, 9), round(rate, 9)) for muon, times, rate in rates} == {
        (True, 0.1, 0.002), (False, 0.1, 0.001), (True, 1.0, 0.02), (False, 1.0, 0.01),
    }  # fmt: skip
    before, after = checkpoint(stills)["state_dict"], trained["state_dict"]
    assert after["net.conv1.weight"].shape == (2, 3, 5, 7, 7)
    torch.testing.assert_close(after["net.conv1.weight"].sum(2), before["net.conv1.weight"][:, :, 0], rtol=0, atol=0.05)

    place = [str(folder / "study.yaml"), "--recipe", str(folder / "tiny.yaml"), "--results", str(folder / "results")]
    capsys.readouterr()
    assert main(["status", *place]) == 0
    said = capsys.readouterr().out
    assert "stills_r50  0     done" in said
    assert main(["report", *place]) == 0
    tables = "".join(path.read_text() for path in (folder / "results" / "tables").rglob("*.md"))
    assert "for stills before" in tables
    assert "stills_r50" not in tables


def git(folder: Path, *words: str) -> None:
    who = ["-c", "user.name=x", "-c", "user.email=x@x.org", "-c", "commit.gpgsign=false"]
    subprocess.run(["git", *who, *words], cwd=folder, check=True)


def test_the_commit_is_that_of_the_package_and_of_no_repository_around_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wheel may be installed below somebody else's repository."""
    git(tmp_path, "init", "-q")
    git(tmp_path, "commit", "-q", "--allow-empty", "-m", "x")
    module = tmp_path / "package" / "train" / "checkpoints.py"
    module.parent.mkdir(parents=True)
    module.touch()
    monkeypatch.setattr(checkpoints, "__file__", str(module))
    assert checkpoints.commit.__wrapped__() == {"commit": "unknown", "dirty": True}


@pytest.mark.parametrize(
    ("changed", "dirty"), [("models/resnet.py", True), ("models/mine.py", True), ("../results/table.md", False)]
)
def test_a_changed_file_anywhere_in_the_package_is_said(
    changed: str, dirty: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And results, which a run writes, are not of the package."""
    package = tmp_path / "nl_lightning"
    for file in ("train/checkpoints.py", "models/resnet.py", "../results/table.md"):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        (package / file).write_text("before")
    hidden = ["config", "status.showUntrackedFiles", "no"]  # as a user may have it
    for words in (["init", "-q"], hidden, ["add", "."], ["commit", "-q", "-m", "x"]):
        git(tmp_path, *words)
    monkeypatch.setattr(checkpoints, "__file__", str(package / "train" / "checkpoints.py"))
    assert checkpoints.commit.__wrapped__()["dirty"] is False
    (package / changed).write_text("after")
    assert checkpoints.commit.__wrapped__()["dirty"] is dirty
