"""Files are opened in a process of their own, so that one that hangs or crashes FFmpeg costs that process and no more.

Every process that reads has one helper. It asks through a pipe, and finds the pictures in memory that both share, so
that a clip is written once, by the decoder, and copied by nobody; ``benchmarks/decoding.py`` measures what that costs.
The other design, a watchdog over the worker itself, would lose the worker with the file, and PyTorch's loader gives up
when a worker dies.

A helper ends with its parent, however that ends: Linux kills it, elsewhere it reads the end of the pipe.
"""

import contextlib
import ctypes
import importlib
import itertools
import math
import mmap
import os
import signal
import socket
import subprocess
import sys
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nl_lightning.data.packets import DecodeError

Frames = npt.NDArray[np.uint8]

TRIES = 3
"""Deaths over one file after which it counts as the file's fault: a helper may be killed for something else."""


class DangerousFile(DecodeError):
    """A file that hangs or crashes who reads it."""


class Helper:
    """A process in which functions are called on files.

    It starts with the first call, and again after a death. A forked or unpickled copy starts one of its own.

    Args:
        seconds: after which a call is given up and the process ended.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.closed = False
        self._processes: dict[int, _Process] = {}  # by who started it: a forked copy must leave its parent's alone

    def __reduce__(self) -> tuple[Any, ...]:
        return Helper, (self.seconds,)

    def ask(self, function: str, path: Path | str, *arguments: Any) -> Any:
        """Return ``function(path, *arguments)``.

        Args:
            function: ``module.name``, imported over there.

        Raises:
            DangerousFile: the file takes too long, or the process dies of it time and again.
            Exception: what the function raises.
        """
        return self._answer((function, (path, *arguments), False))

    def pictures(self, function: str, path: Path | str, *arguments: Any) -> Frames:
        """Return ``function(path, *arguments, allocate=...)``, in an array that is valid until the next call.

        Raises:
            DangerousFile, Exception: as from :meth:`ask`.
        """
        shape = self._answer((function, (path, *arguments), True))
        return self._running().memory.array(shape)

    def _answer(self, request: tuple[str, tuple[Any, ...], bool]) -> Any:
        path, died = request[1][0], ""
        for _ in range(TRIES):
            if self.closed:
                break
            connection = self._running().connection
            try:
                connection.send(request)
                if not connection.poll(self.seconds):
                    self.end()
                    raise DangerousFile(f"{path}: not read within {self.seconds:g} seconds")
                good, value = connection.recv()
            except (EOFError, ConnectionError):
                died = self.end()
                continue
            if good:
                return value
            raise value
        raise DangerousFile(f"{path}: the process that reads it dies of it ({died})")

    def close(self) -> None:
        """End the process for good, also for a thread that waits for it."""
        self.closed = True
        self.end()

    def end(self) -> str:
        """End the process; return how it ended, in words."""
        process = self._processes.pop(os.getpid(), None)
        return "" if process is None else process.end()

    def _running(self) -> "_Process":
        me = os.getpid()
        if me not in self._processes:
            self._processes[me] = _Process()
        return self._processes[me]


def by_helpers(
    function: str, requests: Sequence[tuple[Any, ...]], workers: int, seconds: float
) -> Iterator[tuple[int, Any]]:
    """Call a function on many files, `workers` at a time, each in a helper; give (place, answer) as they come.

    The answer for a file that hangs or crashes its helper is the error. Any other error ends it.
    """
    idle = [Helper(seconds) for _ in range(workers)]
    helpers = tuple(idle)

    def answer(request: tuple[Any, ...]) -> Any:
        helper = idle.pop()
        try:
            return helper.ask(function, *request)
        except DecodeError as error:
            return error
        finally:
            idle.append(helper)

    with ThreadPoolExecutor(workers) as pool:  # a thread only waits for its helper
        waiting: dict[Future[Any], int] = {}
        left = iter(enumerate(requests))
        try:
            while True:
                for place, request in itertools.islice(left, 2 * workers - len(waiting)):
                    waiting[pool.submit(answer, request)] = place
                if not waiting:
                    return
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    yield waiting.pop(future), future.result()
        finally:  # also when the one who asks was told to stop
            pool.shutdown(wait=False, cancel_futures=True)
            for helper in helpers:
                helper.close()


class _Process:
    """The process, seen from the one that asks."""

    def __init__(self) -> None:
        self.memory = _Memory(_unnamed_file())
        ours, theirs = socket.socketpair()
        with theirs:
            handles = (theirs.fileno(), self.memory.handle)
            # The modules that this process finds, wherever it was started, and nothing of its main module.
            program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve{handles}"
            command = [sys.executable, "-c", program]
            self.process = subprocess.Popen(command, pass_fds=handles, stdin=subprocess.DEVNULL)
        self.connection = Connection(ours.detach())
        self._end = weakref.finalize(self, _end, os.getpid(), self.process, self.connection, self.memory.handle)

    def end(self) -> str:
        self._end()
        code = self.process.returncode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _end(owner: int, process: "subprocess.Popen[bytes]", connection: Connection, memory: int) -> None:
    if owner != os.getpid():
        return  # a forked copy
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):  # it may hang in the kernel, over a disk that is gone
        process.wait(10)
    connection.close()
    os.close(memory)


class _Memory:
    """Memory that two processes see, as large as the largest array so far."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._mapped: mmap.mmap | None = None

    def array(self, shape: tuple[int, ...]) -> Frames:
        """The memory as an array."""
        size = math.prod(shape)
        if self._mapped is None or len(self._mapped) < size:
            if os.fstat(self.handle).st_size < size:
                os.ftruncate(self.handle, size)
            self._mapped = mmap.mmap(self.handle, 0)
        return np.ndarray(shape, np.uint8, self._mapped)


def _unnamed_file() -> int:
    """A file in memory, where there are such; it does not count against /dev/shm."""
    if sys.platform == "linux":
        return os.memfd_create("pictures")
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def serve(handle: int, memory: int) -> None:
    """The process itself: answer until the other end is gone."""
    if sys.platform == "linux":
        # 1 is PR_SET_PDEATHSIG: who hangs doesn't read that the pipe has ended.
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):  # meant for who trains, and that ends this one
        signal.signal(number, signal.SIG_IGN)
    connection, shared = Connection(handle), _Memory(memory)
    with contextlib.suppress(EOFError, ConnectionError):
        while True:
            name, arguments, pictures = connection.recv()
            connection.send(_answered(name, arguments, pictures, shared))


def _answered(name: str, arguments: tuple[Any, ...], pictures: bool, shared: _Memory) -> tuple[bool, Any]:
    module, _, function = name.rpartition(".")
    try:
        called = getattr(importlib.import_module(module), function)
        return True, called(*arguments, allocate=shared.array).shape if pictures else called(*arguments)
    except Exception as error:
        return False, error
