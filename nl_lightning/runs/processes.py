"""A process and those that it starts: told to stop together, and none is left, however one of them ends.

A process that is told to stop passes that on with :func:`stopping`. A process that is killed can't. So its workers look
whether it is still there (:func:`end_with_parent`), and Linux kills forked children (:func:`leave_no_children`).
"""

import contextlib
import ctypes
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import IO, Any

from nl_lightning.errors import Postponed, Stopped

HELD = 75
"""Exit code when another process is at work on the run."""
PARENT = "NL_LIGHTNING_PARENT"
"""Environment variable with the number of the process whose end is also the end of this one."""
ORPHANED = 120.0
"""Seconds that a process has to end by itself when its parent is gone."""
GRACE = 20.0
"""Seconds that a process has to save its checkpoint when it is told to stop."""

Process = subprocess.Popen[bytes]


def start(command: Sequence[str], environment: Mapping[str, str], log: IO[bytes] | None) -> Process:
    """Start a worker that ends with this process, in a session of its own: a Ctrl-C reaches it once, by :func:`stop`.

    Its output goes to `log`; None: to this process's own.
    """
    stops = Postponed()
    stops.begin()  # told to stop between the start and the return, nobody would know the process
    try:
        process = Process(command, **as_worker(environment, log), start_new_session=True)
    finally:
        stops.end()
    if stops.told is not None:
        stop([process], signal.SIGTERM)
        raise stops.told
    return process


def as_worker(environment: Mapping[str, str], log: IO[bytes] | None) -> dict[str, Any]:
    """How a worker is started: what :class:`subprocess.Popen` takes beside the command."""
    ours = {**environment, PARENT: str(os.getpid())}
    return {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log, "env": ours}


def stop(processes: Sequence[Process], how: signal.Signals) -> None:
    """Tell processes to stop, and kill those that haven't after :data:`GRACE` seconds, with all of their children."""
    for process in processes:
        process.send_signal(how)
    give_up = time.monotonic() + GRACE
    for process in processes:
        try:
            process.wait(max(0.0, give_up - time.monotonic()))
        except subprocess.TimeoutExpired:
            kill_session(process)
            process.wait()


def kill_session(leader: Process) -> None:
    """Kill a process that was started alone, and its children; these also if it has ended."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(leader.pid, signal.SIGKILL)


def how_it_ended(code: int) -> str:
    """An exit code in words: the name of the signal if there was one."""
    if code >= 0:
        return f"ended with exit code {code}"
    names = {each.value: each.name for each in signal.Signals}
    memory = ", as when memory runs out" if code == -signal.SIGKILL else ""
    return f"was ended by {names.get(-code, f'signal {-code}')}{memory}"


@contextlib.contextmanager
def stopping(processes: Callable[[], Sequence[Process]]) -> Iterator[None]:
    """Whatever ends the block, the processes end too."""
    how = signal.SIGINT
    try:
        yield
    except Stopped as stopped:
        how = signal.SIGTERM if stopped.preempted else signal.SIGINT
        raise
    finally:
        stop(processes(), how)


def leave_no_children() -> None:
    """Let no forked child (a pool's, a loader's) outlive this process, however it ends: Linux kills them."""
    with contextlib.suppress(OSError, AttributeError):  # not Linux
        prctl, die_with_parent = ctypes.CDLL(None).prctl, 1
        os.register_at_fork(after_in_child=lambda: prctl(die_with_parent, signal.SIGKILL))


def end_with_parent() -> None:
    """Be told to stop when the process that started this one is gone, see :data:`PARENT`."""
    parent = os.environ.get(PARENT, "")
    os.environ[PARENT] = str(os.getpid())  # for the other processes of a run, which Lightning starts
    if parent.isdecimal():
        threading.Thread(target=_watch, args=[int(parent)], daemon=True, name="parent").start()


def _watch(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(ORPHANED)
    os._exit(143)  # it hangs, as for another process of its run that is gone
