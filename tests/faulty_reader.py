"""A reader for a helper's process that does to it what its files' names say."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nl_lightning.data import decoding


def fault(path: str | Path) -> None:
    """Hang, crash, or compute for ever, if a file is named so."""
    if "hang" in Path(path).name:
        time.sleep(1000)
    while "spin" in Path(path).name:
        pass
    if "crash" in Path(path).name:
        os.kill(os.getpid(), signal.SIGSEGV)


def num_frames(path: str | Path, facts: Any = None) -> int:
    """As the real one, with faults."""
    fault(path)
    return decoding.num_frames(path, facts)


def frames(path: str | Path, *arguments: Any, allocate: Callable[..., Any]) -> Any:
    """As the real one, with the same faults."""
    fault(path)
    return decoding.frames(path, *arguments, allocate=allocate)


def all_frames(path: str | Path) -> Any:
    """As the real one, with the same faults."""
    fault(path)
    return decoding.all_frames(path)


def process_id(path: str | Path) -> int:
    """Whoever answers."""
    return os.getpid()


def die_the_first_time(path: Path) -> str:
    """Be killed if `path` is not there yet, and leave it there."""
    if not path.exists():
        path.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return "alive"


def fail(path: str | Path) -> None:
    """Raise what is no fault of the file."""
    raise OSError(28, "No space left on device", str(path))


def fail_late(path: str | Path) -> None:
    """The same, after a while."""
    time.sleep(1)
    fail(path)


def whole_numbers(path: str | Path, rows: int, allocate: Callable[..., Any]) -> Any:
    """An array of so many rows, 0, 1, 2 and so on."""
    array = allocate((rows, 5))
    array[:] = np.arange(5 * rows).reshape(rows, 5) % 256
    return array
