"""Told to stop at any moment, a command stops in time, says one line and leaves no process; also if it is killed."""

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import pytest
from waiting import LIMIT, wait_until

from nl_lightning.errors import Stopped, stop_on_signals
from nl_lightning.runs import processes
from nl_lightning.runs.processes import how_it_ended, start, stop

REPOSITORY = Path(__file__).resolve().parents[2]
Command = Callable[[str, str], "subprocess.Popen[str]"]

# In place of nl_lightning.runs.worker: has a child, as a pool has, and waits; told to stop, it says so.
WORKER = """
import os, sys, time
from nl_lightning.errors import Stopped, stop_on_signals
from nl_lightning.runs.processes import end_with_parent, leave_no_children

stop_on_signals()
leave_no_children()
end_with_parent()
child = os.fork()
if child == 0:
    time.sleep(3600)
with open("pids.tmp", "w") as file:
    file.write(f"{os.getpid()} {child}")
os.rename("pids.tmp", "pids")
try:
    while True:  # a signal just before a long sleep begins would wait for its end
        time.sleep(0.05)
except Stopped as stopped:
    open("stopped", "w").close()
    sys.exit(stopped.exit_code)
"""


def is_gone(pid: int) -> bool:
    """Whether a process has ended; nobody may have waited for it yet."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


@pytest.fixture
def command(tmp_path: Path) -> Command:
    """``nl-lightning`` as a shell would start it, after some lines of Python."""
    (tmp_path / "worker.py").write_text(WORKER)
    (tmp_path / "experiments").symlink_to(REPOSITORY / "experiments")

    def begin(lines: str, words: str) -> "subprocess.Popen[str]":
        imports = "import os, signal, sys, time\nfrom nl_lightning import cli\n"
        program = [sys.executable, "-c", f"{imports}{textwrap.dedent(lines)}\nsys.exit(cli.main())"]
        return subprocess.Popen(
            [*program, *words.split()], cwd=tmp_path, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        )  # fmt: skip

    return begin


STANDS_IN = """
from nl_lightning.runs import schedule
schedule.WORKER = [sys.executable, "worker.py"]
"""


@pytest.mark.parametrize(
    ("told", "code", "options"),
    [
        (signal.SIGINT, 130, ""),
        (signal.SIGTERM, 143, " --cluster local"),
        (signal.SIGHUP, 143, ""),
        (signal.SIGKILL, -9, ""),
    ],
)
def test_told_to_stop_while_data_are_prepared(
    tmp_path: Path,
    command: Command,
    told: signal.Signals,
    code: int,
    options: str,
) -> None:
    process = command(STANDS_IN, f"run table2{options}")
    wait_until((tmp_path / "pids").exists)
    process.send_signal(told)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == code
    line = "nl-lightning: stopped; the same command goes on from here\n"
    assert errors == ("" if told == signal.SIGKILL else line)
    wait_until(lambda: all(is_gone(int(pid)) for pid in (tmp_path / "pids").read_text().split()))
    assert (tmp_path / "stopped").exists()  # it was told, and could save something


def test_a_process_that_dies_is_named_by_its_signal(tmp_path: Path, command: Command) -> None:
    process = command(STANDS_IN, "run table2")
    wait_until((tmp_path / "pids").exists)
    pids = [int(pid) for pid in (tmp_path / "pids").read_text().split()]
    os.kill(pids[0], signal.SIGKILL)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 1
    assert errors == (
        "nl-lightning: preparing the data of recipe longrange was ended by SIGKILL, as when memory runs out; "
        "the same command goes on from here\n"
    )
    wait_until(lambda: all(map(is_gone, pids)))


@pytest.mark.parametrize(
    ("module", "words", "told", "code"),
    [
        ("nl_lightning.cli.table", "status table2", "SIGINT", 130),
        ("rich.console", "status table2", "SIGTERM", 143),
        ("yaml", "run table2", "SIGINT", 130),
        ("submitit", "run table2 --cluster local", "SIGTERM", 143),
        ("pandas", "report table2", "SIGTERM", 143),
        ("torch", "complexity table2", "SIGINT", 130),
    ],
)
def test_told_to_stop_while_it_imports(command: Command, module: str, words: str, told: str, code: int) -> None:
    process = command(
        f"""
        class Tell:  # in the middle of an import
            def find_spec(self, name, path=None, target=None):
                if name == {module!r}:
                    signal.raise_signal(signal.{told})
        sys.meta_path.insert(0, Tell())
        """,
        words,
    )
    output, errors = process.communicate(timeout=LIMIT)
    assert (process.returncode, output) == (code, "")
    assert errors == f"nl-lightning: stopped{'; the same command goes on from here' * words.startswith('run')}\n"


def test_a_command_that_does_not_heed_it_is_ended(command: Command) -> None:
    """As code of others may swallow what a signal raises."""
    process = command(
        """
        from nl_lightning.cli import studies, table
        def deaf(which: studies.Selected) -> int:
            "Swallow what a signal raises."
            while True:
                try:
                    print("begun", flush=True)
                    time.sleep(3600)
                except BaseException:
                    pass
        cli.SECONDS_TO_STOP = 0.1
        table.COMMANDS["status"] = deaf
        """,
        "status table2",
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == 143
    assert errors == "nl-lightning: stopped by force: what it was doing took too long\n"


def test_a_forked_process_is_not_taken_for_the_command(command: Command) -> None:
    """A pool ends its processes by the signal that would stop the command."""
    process = command(
        """
        from nl_lightning.cli import studies, table
        def forks(which: studies.Selected) -> int:
            "Have a child that is told to stop."
            child = os.fork()
            if child == 0:
                try:
                    os.kill(os.getpid(), signal.SIGTERM)
                    time.sleep(3600)
                finally:
                    os._exit(0)
            os.waitpid(child, 0)
            time.sleep(0.3)  # longer than the command would have had to stop
            return 0
        cli.SECONDS_TO_STOP = 0.1
        table.COMMANDS["status"] = forks
        """,
        "status table2",
    )
    assert process.communicate(timeout=LIMIT) == ("", "")
    assert process.returncode == 0


def test_told_to_stop_while_a_process_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the start of a process and the moment at which anybody knows of it."""
    started: list[processes.Process] = []

    class Told(subprocess.Popen[bytes]):
        def __init__(self, *args: object, **kwargs: object) -> None:
            super().__init__(*args, **kwargs)  # type: ignore[call-overload]
            started.append(self)
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(processes, "Process", Told)
    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    stop_on_signals()
    try:
        with pytest.raises(Stopped):
            start(["sleep", "3600"], os.environ, None)
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)
    assert started[0].returncode == -signal.SIGTERM


def test_what_does_not_stop_in_time_is_killed_with_its_children(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(processes, "GRACE", 0.5)
    script = "trap '' TERM; sleep 3600 & echo $! > child.tmp; mv child.tmp child; wait; wait"
    process = start(["sh", "-c", f"cd {tmp_path}; {script}"], os.environ, None)
    wait_until((tmp_path / "child").exists)
    stop([process], signal.SIGTERM)
    assert process.returncode == -signal.SIGKILL
    wait_until(lambda: is_gone(int((tmp_path / "child").read_text())))


@pytest.mark.parametrize(
    ("code", "words"),
    [
        (1, "ended with exit code 1"),
        (-6, "was ended by SIGABRT"),
        (-60, "was ended by signal 60"),
        (-9, "was ended by SIGKILL, as when memory runs out"),
    ],
)
def test_how_a_process_ended_in_words(code: int, words: str) -> None:
    assert how_it_ended(code) == words
