"""What is said to the user, and being told to stop.

A user's mistake is one line. Text from outside (names, paths, messages) is never a command to the terminal.

Stop signals: Ctrl-C (SIGINT); to make room for others, SIGTERM, and SIGUSR1 and SIGUSR2 from a cluster; SIGHUP when
the terminal is closed.
"""

import contextlib
import difflib
import errno
import os
import signal
import sys
import threading
import unicodedata
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, ProgressColumn

NO_SHARED_MEMORY = ("unable to allocate shared memory", "killed by signal: Bus error")
"""What PyTorch says when a worker has died of it."""
NO_MEMORY = ("out of memory", "can't allocate memory")
"""What PyTorch says of a GPU's memory, and of the machine's."""
OURS = (errno.EBADF, errno.EINVAL, errno.ECHILD)
"""Errors of the operating system that only a fault of this program causes."""
REMEDIES = {
    errno.ENOSPC: "free some space and call again",
    errno.EDQUOT: "free some of your quota and call again",
    errno.EACCES: "take another place, or change its permissions",
    errno.EPERM: "take another place, or change its permissions",
    errno.EROFS: "take a place that can be written",
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of the path is a file, not a folder",
    errno.EISDIR: "expected a file, but this is a folder",
    errno.EEXIST: "take another place, or mend the link if it leads nowhere",
    errno.ENAMETOOLONG: "shorten the name",
    errno.ELOOP: "symbolic links lead back to themselves",
}
"""What to do about an error of the operating system."""


class UserError(ValueError):
    """A mistake in what the user gave: one line that names it, what was expected, and how to mend it.

    The command line prints it without a traceback and exits with code 2. What it quotes may come from anybody, and it
    ends in logs and notes as well: control characters are escaped, see :func:`visible`.
    """

    def __init__(self, line: str) -> None:
        super().__init__(visible(line))


def nearest(name: str, known: Iterable[str], otherwise_all: bool = True) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to `name`, else the list of known names."""
    names = [str(k) for k in known]
    close = difflib.get_close_matches(name[:200], names, n=1)  # a long name would take minutes
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names and otherwise_all else ""


@contextlib.contextmanager
def from_extra(extra: str) -> Iterator[None]:
    """Within it, a library that isn't installed is one line, a UserError, with the command that installs it."""
    try:
        yield
    except ModuleNotFoundError as error:
        raise UserError(f"{error.name} isn't installed here: pip install 'nl-lightning[{extra}]'") from None


def mistake(error: BaseException) -> str | None:
    """The one line to print if `error` is the user's to mend, else None: the error is ours, and needs a traceback.

    The user's are a :class:`UserError` and what the operating system refuses: a full disk, a forbidden folder, a name
    that is too long.
    """
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno not in OURS:
        if error.errno is None:
            return str(error) or type(error).__name__
        name = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else "writing"
        return f"{name[:300]}: {error.strerror}; {REMEDIES.get(error.errno, 'mend it and call again')}"
    if isinstance(error, ValueError) and "embedded null byte" in str(error):
        return "a path has a NUL character in it; check the path"
    if type(error).__name__ == "MisconfigurationException":  # Lightning's, whose import takes seconds
        return one_line(error, 500)
    if isinstance(error, RuntimeError | MemoryError):
        said = f"{error} {error.__cause__}"
        if isinstance(error, MemoryError) or any(sign in said for sign in NO_MEMORY):
            how = "smaller batches take less, with trainer.accumulate_grad_batches raised to match"
            return f"memory is full ({one_line(error, 100) or 'MemoryError'}): {how}"
        if any(sign in said for sign in NO_SHARED_MEMORY):
            return "/dev/shm is full, through which workers hand over batches: enlarge it, or lower data.num_workers"
        if "DataLoader worker (pid" in said:
            how = "by hand, or because memory is full: lower data.num_workers then"
            return f"a process that reads data was killed ({how}); call again to go on from the last checkpoint"
    return None


def visible(text: object) -> str:
    r"""The text as one line that a terminal can't take for a command.

    Names, paths and messages from outside may hold escape sequences, line breaks, or bytes that are no text. Those are
    shown as Python writes them: ``\x1b[2J``.
    """
    whole = str(text)
    if whole.isprintable():
        return whole
    return "".join(
        each if each.isprintable() or unicodedata.category(each) == "Zs" else each.encode("unicode_escape").decode()
        for each in whole
    )


def one_line(said: object, most: int | None = None) -> str:
    """What another library says, in one line of at most so many characters."""
    return " ".join(str(said).split())[:most]


def say(line: object) -> None:
    """Print one line for the user to stderr, after the program's name. Without a terminal to print to, say nothing."""
    with contextlib.suppress(OSError, ValueError):  # the terminal is gone, or stderr is closed
        print(f"nl-lightning: {visible(line)}", file=sys.stderr, flush=True)


def terminal(stderr: bool = False) -> "Console":
    """A terminal to which text from outside can be printed as it is.

    No text that it prints is markup: ``[/data/x.mp4]`` and ``:smile:`` stay what they are, and styles are given beside
    the text (``style="red"``, or a ``rich.text.Text``). Escape sequences become visible; line breaks stay.
    """
    from rich.console import Console
    from rich.text import Text

    class Terminal(Console):
        def render_str(self, text: str, **kwargs: Any) -> Text:
            return super().render_str("\n".join(map(visible, text.split("\n"))), **kwargs)

    return Terminal(stderr=stderr, markup=False, emoji=False, highlight=False)


def bars(*columns: "str | ProgressColumn", console: "Console | None" = None, **more: Any) -> "Progress":
    """Progress bars whose names may come from outside.

    Args:
        columns: what stands beside the name; by default a bar, numbers, and the time that is left.
        console: a :func:`terminal`, by default of stderr.
        more: see ``rich.progress.Progress``.
    """
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn

    class Bars(Progress):
        def add_task(self, description: str, *args: Any, **kwargs: Any) -> TaskID:
            return super().add_task(visible(description), *args, **kwargs)

    beside = columns or (BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    name = TextColumn("{task.description}", markup=False)
    return Bars(name, *beside, console=console or terminal(stderr=True), **more)


STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2, signal.SIGHUP)


class Stopped(BaseException):
    """The process was told to stop. (For a KeyboardInterrupt, Lightning ends it by itself, and calls that a failure.)

    Attributes:
        preempted: to make room, and not by Ctrl-C.
        exit_code: 143 if preempted, else 130.
        said: how to go on, in one line, if the one that was stopped knows.
    """

    said = ""

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.preempted = number != signal.SIGINT
        self.exit_code = 143 if self.preempted else 130


def stop_on_signals() -> None:
    """From now on, the first stop signal raises :class:`Stopped`. Later ones can't disturb the tidying up.

    This holds also where a shell that starts processes in the background has them ignored.
    """

    def stop(number: int, frame: object) -> None:
        ignore_stops()
        raise Stopped(number)

    for each in _heard():
        signal.signal(each, stop)


def _heard() -> list[signal.Signals]:
    """The stop signals, without SIGHUP under ``nohup``."""
    return [each for each in STOP if each != signal.SIGHUP or signal.getsignal(each) != signal.SIG_IGN]


def by_force(seconds: float, code: int) -> threading.Timer:
    """End this process with an exit code if it is still there after so many seconds; ``cancel()`` calls it off."""
    timer = threading.Timer(seconds, os._exit, [code])
    timer.daemon = True
    timer.start()
    return timer


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
        """From now on, stop signals wait."""
        if not self._before:
            self._before = {each: signal.signal(each, self._keep) for each in _heard()}

    def end(self) -> None:
        """From now on, it is as it was before; but who has been told once isn't told again."""
        for each, handler in self._before.items():
            signal.signal(each, handler if self.told is None else signal.SIG_IGN)
        self._before = {}

    def _keep(self, number: int, frame: object) -> None:
        ignore_stops()
        self.told = Stopped(number)
