"""Which errors are the user's to mend, in one line; text from outside on a terminal; being told to stop."""

import errno
import io
import signal
import subprocess
import sys

import pytest
from rich.table import Table

from nl_lightning.errors import UserError, mistake, nearest, terminal, visible

KILLED = (
    "a process that reads data was killed (by hand, or because memory is full: lower data.num_workers then); call again"
)


def caused(error: Exception, by: str) -> Exception:
    """The error, raised from another one with this text."""
    error.__cause__ = RuntimeError(by)
    return error


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("x"), "x"),
        (UserError("a \x1b[2J\nb"), r"a \x1b[2J\nb"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), "a: No space left on device; free some space and"),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a" * 999), f"{'a' * 300}: File name too long; shorten"),
        (OSError(errno.EISDIR, "Is a directory", b"a\xff"), "a\udcff: Is a directory; expected a file"),
        (OSError(errno.EIO, "Input/output error"), "writing: Input/output error; mend it and call again"),
        (TimeoutError(), "TimeoutError"),
        (ValueError("embedded null byte"), "a path has a NUL character in it"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>"), "/dev/shm is full, "),
        (RuntimeError("DataLoader worker (pid 1) is killed by signal: Bus error. It is"), "/dev/shm is full, "),
        (RuntimeError("DataLoader worker (pid 1) is killed by signal: Killed."), KILLED),
        (RuntimeError("DataLoader worker (pid(s) 1, 2) exited unexpectedly"), KILLED),
        (RuntimeError("CUDA out of memory. Tried to allocate 20.00 MiB"), "memory is full (CUDA out of memory. Tried"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"), "memory is full (DefaultCPUAllocator"),
        (type("MisconfigurationException", (Exception,), {})("no\nlogger"), "no logger"),  # Lightning's
        (MemoryError(), "memory is full (MemoryError): smaller batches take less"),
        (caused(RuntimeError("DataLoader worker (pid(s) 1) exited"), "is killed by signal: Bus error."), "/dev/shm is"),
    ],
)
def test_lines(error: BaseException, line: str) -> None:
    assert (mistake(error) or "").startswith(line)


def test_a_name_of_any_length_has_a_nearest_one() -> None:
    assert nearest("x" * 10_000_000, ["abc"]) == "; known: abc"


@pytest.mark.parametrize("error", [RuntimeError("other"), ValueError("other"), OSError(errno.EBADF, "broken")])
def test_what_is_ours_has_a_traceback(error: BaseException) -> None:
    assert mistake(error) is None


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("a plain name, 3x1x1: naïve 32\u00a0frames", "a plain name, 3x1x1: naïve 32\u00a0frames"),
        ("\x1b[2J\x07", r"\x1b[2J\x07"),
        ("\x9b31m", r"\x9b31m"),  # the same in one character
        ("one\ntwo\r\u2028", r"one\ntwo\r\u2028"),
        ("exe.\u202e4pm", r"exe.\u202e4pm"),  # turns the direction of what follows
        ("\udcff", r"\udcff"),  # a byte of a name that is no text
    ],
)
def test_a_terminal_takes_no_text_for_a_command(text: str, shown: str) -> None:
    assert visible(text) == shown


@pytest.mark.parametrize("text", ["Error opening [/data/x.mp4]", "[draft] of [red]me[/]", ":smile:", "C:\\[x]"])
def test_no_text_is_markup(text: str) -> None:
    console = terminal()
    console.file = io.StringIO()
    table = Table(text)
    table.add_row(text)
    console.print(text)
    console.print(table)
    assert console.file.getvalue().count(text) == 3


def test_escape_sequences_are_shown_wherever_they_stand() -> None:
    console = terminal()
    console.file = io.StringIO()
    table = Table("\x1b]0;a", title="\x1b]0;b")
    table.add_row("\x1b]0;c")
    console.print("\x1b]0;d\nnext", table)
    assert "\x1b" not in console.file.getvalue()
    assert all(f"\\x1b]0;{each}" in console.file.getvalue() for each in "abcd")
    assert "d\nnext" in console.file.getvalue()


STOPS = """
import signal, sys
from nl_lightning.errors import Stopped, stop_on_signals
if sys.argv[2:]:
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # as nohup does
stop_on_signals()
try:
    signal.raise_signal(int(sys.argv[1]))
except Stopped as stopped:
    sys.exit(stopped.exit_code)
"""


@pytest.mark.parametrize(
    ("told", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143), (signal.SIGHUP, 143)]
)
def test_signals_that_say_stop(told: signal.Signals, code: int) -> None:
    assert subprocess.run([sys.executable, "-c", STOPS, str(int(told))]).returncode == code


def test_nohup_is_heeded() -> None:
    assert subprocess.run([sys.executable, "-c", STOPS, str(int(signal.SIGHUP)), "nohup"]).returncode == 0


def test_a_process_that_hangs_at_its_exit_is_ended() -> None:
    """As where a library waits at exit for a process that was killed."""
    hangs = (
        "import atexit, threading; from nl_lightning.errors import by_force; atexit.register(threading.Event().wait)"
    )
    assert subprocess.run([sys.executable, "-c", f"{hangs}; by_force(0.2, 3)"]).returncode == 3
    ends = "from nl_lightning.errors import by_force; by_force(600, 3)"
    assert subprocess.run([sys.executable, "-c", ends]).returncode == 0
