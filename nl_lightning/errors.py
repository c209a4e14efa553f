"""A user's mistake as one line, and being told to stop.

Stop signals: Ctrl-C (SIGINT); to make room for others, SIGTERM, and SIGUSR1 and SIGUSR2 from a cluster.
"""

import difflib
import errno
import signal
from collections.abc import Iterable
from typing import Any

NO_SHARED_MEMORY = ("unable to allocate shared memory", "killed by signal: Bus error")
"""What PyTorch says when a worker has died of it."""


class UserError(ValueError):
    """A mistake in what the user gave: one line that names it, what was expected, and how to mend it.

    The command line prints it without a traceback and exits with code 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to `name`, else the list of known names."""
    names = [str(k) for k in known]
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""


def mistake(error: BaseException) -> str | None:
    """The one line to print if `error` is the user's to mend: a :class:`UserError`, a full disk, a forbidden folder."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return f"{error.filename or 'writing'}: {error.strerror}; mend it and call again"
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in NO_SHARED_MEMORY):
        return "/dev/shm is full, through which workers hand over batches: enlarge it, or lower data.num_workers"
    return None


STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2)


class Stopped(BaseException):
    """The process was told to stop. (For a KeyboardInterrupt, Lightning ends it by itself, and calls that a failure.)

    Attributes:
        preempted: to make room, and not by Ctrl-C.
        exit_code: 143 if preempted, else 130.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.preempted = number != signal.SIGINT
        self.exit_code = 143 if self.preempted else 130


def stop_on_signals() -> None:
    """From now on, the first of these signals raises :class:`Stopped`; what comes later can't disturb the tidying up.

    Also where a shell that starts processes in the background has them ignored.
    """

    def stop(number: int, frame: object) -> None:
        ignore_stops()
        raise Stopped(number)

    for each in STOP:
        signal.signal(each, stop)


def ignore_stops() -> None:
    """For a process that is ended by the one that it works for: a cluster signals both."""
    for each in STOP:
        signal.signal(each, signal.SIG_IGN)


class Postponed:
    """While it is on, being told to stop waits in `told` until there is a good moment."""

    def __init__(self) -> None:
        self.told: Stopped | None = None
        self._before: dict[signal.Signals, Any] = {}

    def begin(self) -> None:
        if not self._before:
            self._before = {each: signal.signal(each, self._keep) for each in STOP}

    def end(self) -> None:
        """From now on, it is as it was before; but who has been told once isn't told again."""
        for each, handler in self._before.items():
            signal.signal(each, handler if self.told is None else signal.SIG_IGN)
        self._before = {}

    def _keep(self, number: int, frame: object) -> None:
        ignore_stops()
        self.told = Stopped(number)
