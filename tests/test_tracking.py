"""W&B runs as records see them, without W&B."""

import signal

import pytest
import wandb

from nl_lightning import tracking
from nl_lightning.signals import Stopped


class Gone:
    """A W&B run whose own process has been ended."""

    def mark_preempting(self) -> None:
        raise ConnectionResetError("Connection lost")


def test_where_wandb_has_gone_first_a_run_still_says_why_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "run", Gone())
    tracking.end_without_record(Stopped(signal.SIGTERM))
