"""A reader for a helper's process that does to it what its files' names say."""

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from nl_lightning.data import decoding


def num_frames(path: str | Path, known: Any = None) -> int:
    """As the real one, but ``hang`` in a file's name hangs, and ``crash`` crashes."""
    if "hang" in Path(path).name:
        time.sleep(1000)
    if "crash" in Path(path).name:
        os.kill(os.getpid(), signal.SIGSEGV)
    return decoding.num_frames(path)


def frames(path: str | Path, indices: Any, decoder: Any, known: Any, allocate: Callable[..., Any]) -> Any:
    """As the real one, with the same faults."""
    num_frames(path)
    return decoding.frames(path, indices, decoder, known, allocate)


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


def whole_numbers(path: str | Path, rows: int, allocate: Callable[..., Any]) -> Any:
    """An array of so many rows, 0, 1, 2 and so on."""
    array = allocate((rows, 5))
    array[:] = np.arange(5 * rows).reshape(rows, 5) % 256
    return array
