"""What a run tells W&B, and who is logged in, without a W&B server."""

import signal
from pathlib import Path

import pytest
import wandb

from nl_lightning.errors import Stopped
from nl_lightning.tracking import log as tracking


class Gone:
    """A W&B run whose own process has been ended."""

    def mark_preempting(self) -> None:
        raise ConnectionResetError("Connection lost")


def test_where_wandb_has_gone_first_a_run_still_says_why_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "run", Gone())
    tracking.end_without_record(Stopped(signal.SIGTERM))


@pytest.mark.parametrize(
    ("machine", "server", "known"),
    [
        (None, None, False),
        ("api.wandb.ai", None, True),
        ("elsewhere.org", None, False),
        ("wandb.lab.org:8443", "https://wandb.lab.org:8443", True),
        ("wandb.lab.org", "https://wandb.lab.org:8443", False),
        ("api.wandb.ai", "https://wandb.lab.org", False),
    ],
)
def test_who_is_logged_in_is_told_by_the_keys_on_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str | None, server: str | None, known: bool
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    if server is not None:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if machine is not None:
        (tmp_path / "netrc").write_text(f"machine {machine} login user password {'a' * 40}\n")
    wandb.teardown()  # it keeps what the environment said
    assert tracking.logged_in() is known
    wandb.teardown()


def test_a_broken_file_of_keys_is_nobody_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    (tmp_path / "netrc").write_text("machine\n???")
    assert not tracking.logged_in()
