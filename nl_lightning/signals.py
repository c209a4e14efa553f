"""Being told to stop: by Ctrl-C, or to make room for others (SIGTERM; SIGUSR1 and SIGUSR2 from a cluster)."""

import signal
from typing import Any

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
