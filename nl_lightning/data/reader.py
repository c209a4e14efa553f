"""Files are read in a process of their own, so that one that hangs or crashes FFmpeg costs that process and no more.

Every process that reads has one such helper. It asks through a pipe, and finds the pictures in memory that both share:
a clip is written once, by the decoder, and copied by nobody (``benchmarks/decoding.py`` measures the cost). A watchdog
over PyTorch's workers would not do: the loader gives up when a worker dies. (pebble's pool was tried: pictures go
through its pipe, at 0.5 to 0.7 of the speed, a kill from outside ends the pool, and a helper that hangs outlives its
parent.)

A file is given up for what it does, and never because the machine is busy: its reader has used so many seconds of the
processor, or has, twice, neither computed nor read for as long. A helper that was suspended or killed is replaced.
"""

import contextlib
import ctypes
import importlib
import itertools
import math
import mmap
import os
import signal
import subprocess
import sys
import weakref
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from typing import Any

import numpy as np

from nl_lightning.data.decoding import Frames
from nl_lightning.data.packets import DecodeError
from nl_lightning.errors import UserError, ignore_stops

DEATHS = 3  # over one file, after which it counts as the file's fault: a helper may be killed for something else
HANGS = 2  # the same for a helper that does nothing: it may be suspended, or its disk be away for a while
START_SECONDS = 120.0  # without a sign of life, after which a helper that starts is replaced
SLICE = 1.0  # seconds between two looks at what a helper does


class DangerousFile(DecodeError):
    """A file that hangs or crashes who reads it."""


class Helper:
    """A process in which functions are called on files.

    It starts with the first call, and again after a death. A forked or unpickled copy starts one of its own.

    Args:
        seconds: of the processor's time that a call may take, and of time without any progress.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds, self.closed = seconds, False
        self._processes: dict[int, _Process] = {}  # by who started it: a forked copy must leave its parent's alone

    def __reduce__(self) -> tuple[Any, ...]:
        return Helper, (self.seconds,)

    def ask(self, function: str, path: Path | str, *arguments: Any) -> Any:
        """Return ``function(path, *arguments)``; `function` is ``module.name``, imported over there.

        Raises:
            DangerousFile: the file takes too long, or the process dies of it time and again.
            UserError: no process can be started.
            Exception: what the function raises.
        """
        return self._answer((function, (path, *arguments), False, self.seconds))

    def pictures(self, function: str, path: Path | str, *arguments: Any) -> Frames:
        """The same for a function that fills an array, ``allocate=...``; it is valid until the next call."""
        shape = self._answer((function, (path, *arguments), True, self.seconds))
        return self._running().memory.array(shape)

    def _answer(self, request: tuple[Any, ...]) -> Any:
        path, deaths, hangs = request[1][0], 0, 0
        while not self.closed:
            process = self._running()
            try:
                process.connection.send(request)
                answer = process.answer(self.seconds)
            except (EOFError, ConnectionError):
                ended, deaths = self.end(), deaths + 1
                if ended == "SIGPROF":
                    raise DangerousFile(f"{path}: not read within {self.seconds:g} seconds of computing") from None
                if deaths == DEATHS:
                    raise DangerousFile(f"{path}: the process that reads it dies of it ({ended})") from None
                continue
            if answer is not None:
                good, value = answer
                if good:
                    return value
                raise value
            self.end()
            hangs += 1
            if hangs == HANGS:
                raise DangerousFile(f"{path}: not read within {self.seconds:g} seconds")
        raise DangerousFile(f"{path}: not read, as the program ends")

    def close(self) -> None:
        """End the process for good, also for a thread that waits for it."""
        self.closed = True
        self.end()

    def end(self) -> str:
        """End the process; return how it ended, in words."""
        process = self._processes.pop(os.getpid(), None)
        return "" if process is None else process.end()

    def _running(self) -> "_Process":
        me, ended = os.getpid(), ""
        if me in self._processes:
            return self._processes[me]
        for _ in range(DEATHS):
            process = _Process()
            with contextlib.suppress(EOFError, ConnectionError):
                if process.answer(START_SECONDS) is not None:
                    self._processes[me] = process
                    return process
            ended = process.end()
        raise UserError(f"the process that reads files can't be started ({ended}): see what it says above")


def by_helpers(
    function: str, requests: Sequence[tuple[Any, ...]], workers: int, seconds: float
) -> Iterator[tuple[int, Any]]:
    """Call a function on many files, `workers` at a time, each in a helper; give (place, answer) as they come.

    The answer for a file that hangs or crashes its helper is the error. Any other error ends it.
    """
    helpers = [Helper(seconds) for _ in range(workers)]
    idle = list(helpers)

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
        self.memory = _Memory(os.memfd_create("pictures"))  # which doesn't count against /dev/shm
        self.connection, theirs = Pipe()
        with theirs:
            handles = (theirs.fileno(), self.memory.handle)
            # The modules that this process finds, wherever it was started, and nothing of its main module.
            program = f"import sys; sys.path[:] = {sys.path!r}; from {__name__} import serve; serve{handles}"
            command = [sys.executable, "-c", program]
            self.process = subprocess.Popen(command, pass_fds=handles, stdin=subprocess.DEVNULL)
        self._end = weakref.finalize(self, _end, os.getpid(), self.process, self.connection, self.memory.handle)

    def answer(self, seconds: float) -> tuple[bool, Any] | None:
        """What it answers, and whether that is no error. None if it does nothing for so many seconds.

        Looks are counted, and not the clock's seconds: this process may have been suspended itself.
        """
        step, idle, before = min(SLICE, seconds), 0.0, None
        while not self.connection.poll(step):
            now = _activity(self.process.pid)
            idle = idle + step if now == before else 0.0
            if idle >= seconds:
                return None
            before = now
        answer: tuple[bool, Any] = self.connection.recv()
        return answer

    def end(self) -> str:
        self._end()
        code = self.process.returncode
        return signal.Signals(-code).name if code is not None and code < 0 else f"exit code {code}"


def _activity(process: int) -> object:
    """What changes while a process computes or reads; nothing does when it has ended."""
    with contextlib.suppress(OSError):
        state, *numbers = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()
        if state == "R":
            return object()  # it waits for a processor: equal to nothing
        return numbers[10:12], Path(f"/proc/{process}/io").read_text()  # ticks of the processor; bytes
    return None


def _end(owner: int, process: "subprocess.Popen[bytes]", connection: Connection, memory: int) -> None:
    if owner != os.getpid():
        return  # a forked copy
    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):  # it may hang in the kernel, over a disk that is gone
        process.wait(10)
    connection.close()
    os.close(memory)


class _Memory:
    """Memory that two processes see as an array; as large as the largest so far."""

    def __init__(self, handle: int) -> None:
        self.handle = handle
        self._mapped: mmap.mmap | None = None

    def array(self, shape: tuple[int, ...]) -> Frames:
        size = math.prod(shape)
        if self._mapped is None or len(self._mapped) < size:
            if os.fstat(self.handle).st_size < size:
                os.ftruncate(self.handle, size)
            self._mapped = mmap.mmap(self.handle, 0)
        return np.ndarray(shape, np.uint8, self._mapped)


def serve(handle: int, memory: int) -> None:
    """The process itself: answer until the other end is gone."""
    # 1 is PR_SET_PDEATHSIG: who hangs doesn't read that the pipe has ended.
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
    ignore_stops()  # they are meant for who trains, and that ends this one
    connection, shared = Connection(handle), _Memory(memory)
    with contextlib.suppress(EOFError, ConnectionError):
        connection.send((True, "ready"))
        while True:
            connection.send(_answered(connection.recv(), shared))


def _answered(request: tuple[str, tuple[Any, ...], bool, float], shared: _Memory) -> tuple[bool, Any]:
    name, arguments, pictures, seconds = request
    module, _, function = name.rpartition(".")
    try:
        called = getattr(importlib.import_module(module), function)
        # SIGPROF comes when this process has computed for so long, and ends it, whatever FFmpeg is at.
        signal.setitimer(signal.ITIMER_PROF, seconds)
        return True, called(*arguments, allocate=shared.array).shape if pictures else called(*arguments)
    except Exception as error:
        return False, error
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
