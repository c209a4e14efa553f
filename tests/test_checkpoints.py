"""A run that is ended again and again, anywhere, ends in the very weights and numbers of one that was not."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import torch
from tiny_study import execute, planned, write_tiny_study

from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.records import RunRecord
from nl_lightning.runner import Run

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


def outcome(run: Run) -> tuple[dict[str, Any], dict[str, Any], RunRecord]:
    """Weights and optimizer, predictions, and the record without times."""
    checkpoint = torch.load(run.checkpoint, weights_only=True)
    record = run.state().record
    assert record is not None
    states = {key: checkpoint[key] for key in ("state_dict", "optimizer_states", "lr_schedulers")}
    still = dataclasses.replace(record, **{name: 0 if name != "finished" else "" for name in OF_THE_CLOCK})
    return states, pq.read_table(run.predictions).to_pydict(), still


@pytest.mark.parametrize(
    ("changes", "workers"),
    [
        ({}, 0),
        ({"max_epochs: 3": "max_epochs: 3, accumulate_grad_batches: 2"}, 2),
        ({"max_epochs: 3": "max_steps: 8"}, 0),
        ({"check_val_every_n_epoch: 2": "val_check_interval: 2"}, 0),
    ],
    ids=["epochs", "accumulated, read ahead", "steps", "validated within the epoch"],
)
def test_killed_again_and_again_it_ends_the_same(
    tmp_path: Path, small_videos: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, str], workers: int
) -> None:
    changes = {**changes, "dropout: 0}": "dropout: 0.5}", "batch_size: 11": f"batch_size: 6\n  num_workers: {workers}"}
    write_tiny_study(tmp_path, small_videos, changes)
    whole, killed = (often(planned(tmp_path, "nl", results)) for results in ("whole", "killed"))
    assert finish(whole, monkeypatch, iter([0])) == 0
    assert finish(killed, monkeypatch, iter([5, 4, 6, 5, 4, 7, 6, 5, 8, 9, 12, 7, 0])) >= 3
    expected, found = outcome(whole), outcome(killed)
    torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0)
    assert found[1:] == expected[1:]
