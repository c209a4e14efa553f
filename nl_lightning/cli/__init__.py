"""The process of a command: its signals, its one line of error, and its exit code.

The commands themselves are in :mod:`nl_lightning.cli.table`, which is imported when the signals are in hand.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from nl_lightning.errors import STOP, Stopped, mistake, say, stop_on_signals

SECONDS_TO_STOP = 28.0
"""A command that is told to stop has ended after so many seconds, whatever it was doing."""
GOES_ON = {
    **dict.fromkeys(("run", "tables", "data"), "; the same command goes on from here"),
    **dict.fromkeys(("fit", "validate", "test"), "; the same command begins again"),
}
"""What comes after a command was stopped; the others begin anew."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0: well. 1: a run failed. 2: a mistake of the user's. 130, 143: stopped. 141: nobody reads the output any more.

    Args:
        arguments: a command and its options; without them, those of this process, which then heeds stop signals.
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        if arguments is None:
            stop_on_signals()
            _be_a_process()
        from nl_lightning.cli.table import call

        return _written_out(call(words))
    except SystemExit as end:  # --help; LightningCLI
        return _written_out(end.code if isinstance(end.code, int) else 0 if end.code is None else 2)
    except BrokenPipeError:  # as of `| head`
        return _written_out(141)
    except (KeyboardInterrupt, Stopped) as stopped:
        said = stopped.said if isinstance(stopped, Stopped) else ""
        say(said or f"stopped{GOES_ON.get(words[0], '') if words else ''}")
        return _written_out(stopped.exit_code if isinstance(stopped, Stopped) else 130)
    except Exception as error:
        line = mistake(error)
        if line is None:
            raise
        if "WANDB_SWEEP_ID" in os.environ:
            from nl_lightning.tracking import log

            log.refuse(line)
        say(line)
        return _written_out(2)


def _be_a_process() -> None:
    """End in time when told to stop, leave no child, and print whatever bytes a name may have."""
    from nl_lightning.runs.processes import leave_no_children

    leave_no_children()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    heard, told = os.pipe()
    os.set_blocking(told, False)
    signal.set_wakeup_fd(told, warn_on_full_buffer=False)  # heeded also where Python itself doesn't come to it
    os.register_at_fork(after_in_child=lambda: signal.set_wakeup_fd(-1))
    threading.Thread(target=_end_in_time, args=[heard], daemon=True, name="end in time").start()


def _end_in_time(heard: int) -> None:
    while (number := os.read(heard, 1)[0]) not in STOP:
        pass
    time.sleep(SECONDS_TO_STOP)
    say("stopped by force: what it was doing took too long")
    os._exit(130 if number == signal.SIGINT else 143)


def _written_out(code: int) -> int:
    """The exit code, once everything is printed. What can't be printed is dropped: the interpreter would try again."""
    try:
        if sys.stdout is not None:
            sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return code or 141
        say(mistake(error))
        return code or 2
    return code
