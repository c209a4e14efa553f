"""Somebody who is logged in, and records to compare what W&B gives back with: the same as the report's tests have."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import wandb
from report.conftest import measure, one_seed, recipe, results, study
from wandb_standin import WandbServer

__all__ = ["measure", "one_seed", "recipe", "results", "study"]


@pytest.fixture
def online(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb_server: WandbServer) -> Iterator[WandbServer]:
    """A stand-in server at which somebody is logged in."""
    wandb.teardown()  # it keeps what the environment said before
    monkeypatch.delenv("WANDB_MODE", raising=False)  # a run without an account, of an earlier test, sets it
    for name, value in wandb_server.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    yield wandb_server
    wandb.teardown()
