"""What the ``nl-lightning data`` commands have in common: one process at a time."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from nl_lightning.errors import UserError
from nl_lightning.study.lock import acquire, holder


@contextlib.contextmanager
def alone(file: Path) -> Iterator[None]:
    """Hold what is being written; UserError if another process does, or the folder can't be written."""
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(file.parent, os.W_OK):
        raise UserError(f"{file.parent} can't be written: name another place with --out")
    held = acquire(file)
    if held is None:
        raise UserError(f"{file}: {holder(file) or 'another process'} is at work on it; wait for it, or end it")
    with held:
        yield
