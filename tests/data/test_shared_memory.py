"""A /dev/shm that is too small is said in one line, before a worker dies of it."""

import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from nl_lightning.data.shared_memory import check_room
from nl_lightning.errors import UserError


def test_room_for_what_workers_read_ahead(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(os, "statvfs", lambda place: SimpleNamespace(f_bavail=100, f_frsize=1 << 20))
    check_room(2, 20 << 20, tmp_path)
    with pytest.raises(UserError, match="has room for 100 MB, and 2 workers that read ahead fill 105 MB: free it, "):
        check_room(2, 21 << 20, tmp_path)
    check_room(0, 1 << 40, tmp_path)
    check_room(2, 1 << 40, tmp_path / "none")
