"""Being told to stop: by Ctrl-C, or to make room for others (SIGTERM; SIGUSR1 and SIGUSR2 from a cluster)."""

import signal

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
        for each in STOP:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped(number)

    for each in STOP:
        signal.signal(each, stop)
