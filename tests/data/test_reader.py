"""A file that hangs or crashes its reader costs the helper's process and nothing else."""

import itertools
import os
import pickle
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from waiting import wait_until

from nl_lightning.data import reader
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.reader import Helper
from nl_lightning.errors import UserError


@pytest.fixture(scope="module")
def shared() -> Iterator[Helper]:
    helper = Helper(60)
    yield helper
    helper.end()


@pytest.fixture
def helper(shared: Helper) -> Helper:
    """One that may run already: its process takes its time to start."""
    shared.seconds = 60
    return shared


def runs(process: int) -> bool:
    """Whether a process runs; one that has ended and was not waited for doesn't."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def ends(process: int) -> None:
    """Wait for a process."""
    wait_until(lambda: not runs(process))


def test_one_process_answers_until_it_is_ended(helper: Helper) -> None:
    first = helper.ask("faulty_reader.process_id", "x")
    assert first == helper.ask("faulty_reader.process_id", "x") != os.getpid()
    helper.end()
    ends(first)
    assert helper.ask("faulty_reader.process_id", "x") != first


def test_arrays_of_any_size_come_in_shared_memory(helper: Helper) -> None:
    for rows in (3, 100_000, 2, 200_000):
        found = helper.pictures("faulty_reader.whole_numbers", "x", rows)
        assert np.array_equal(found, np.arange(5 * rows).reshape(rows, 5) % 256)


def test_a_hanging_file_is_given_up(helper: Helper) -> None:
    process = helper.ask("faulty_reader.process_id", "x")
    helper.seconds = 0.3
    with pytest.raises(DecodeError, match=r"^hang\.mp4: not read within 0\.3 seconds$"):
        helper.ask("faulty_reader.num_frames", "hang.mp4")
    ends(process)
    helper.seconds = 60
    assert helper.ask("faulty_reader.process_id", "x") != process


def test_a_file_that_is_computed_for_too_long_is_given_up(helper: Helper) -> None:
    """The kernel counts, so it may sit in FFmpeg as deep as it likes."""
    helper.seconds = 0.2
    with pytest.raises(DecodeError, match=r"^spin\.mp4: not read within 0\.2 seconds of computing$"):
        helper.ask("faulty_reader.num_frames", "spin.mp4")
    assert helper.ask("faulty_reader.process_id", "x") > 0


def test_the_start_of_a_process_does_not_count(helper: Helper) -> None:
    helper.end()
    helper.seconds = 0.01
    assert helper.ask("faulty_reader.process_id", "x") > 0


def test_a_suspended_process_is_replaced(helper: Helper) -> None:
    process = helper.ask("faulty_reader.process_id", "x")
    helper.seconds = 0.3
    os.kill(process, signal.SIGSTOP)
    assert helper.ask("faulty_reader.process_id", "x") != process
    ends(process)


def test_a_busy_machine_is_not_the_files_fault(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who waits for a processor, or for bytes that do come, however slowly, isn't given up."""
    helper.ask("faulty_reader.process_id", "x")
    helper.seconds = 0.09
    monkeypatch.setattr(reader, "SLICE", 0.05)
    looks = itertools.count()
    monkeypatch.setattr(reader, "_activity", lambda process: next(looks) // 2)  # something, at every second look
    with pytest.raises(OSError, match="No space"):
        helper.ask("faulty_reader.fail_late", "x")
    assert next(looks) > 4
    monkeypatch.undo()
    assert reader._activity(os.getpid()) != reader._activity(os.getpid())  # this process runs
    with subprocess.Popen(["sleep", "60"]) as sleeper:
        wait_until(lambda: reader._activity(sleeper.pid) == reader._activity(sleeper.pid))  # it takes its time to start
        sleeper.kill()


def test_no_process_can_be_started(helper: Helper, monkeypatch: pytest.MonkeyPatch) -> None:
    """That is no fault of any file."""
    helper.end()
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(UserError, match=r"the process that reads files can't be started \(exit code 1\)"):
        helper.ask("faulty_reader.process_id", "x")


def test_a_crashing_file_is_named(helper: Helper) -> None:
    with pytest.raises(DecodeError, match=r"^crash\.mp4: the process that reads it dies of it \(SIGSEGV\)$"):
        helper.ask("faulty_reader.num_frames", "crash.mp4")
    assert helper.ask("faulty_reader.process_id", "x") > 0


def test_a_kill_from_outside_is_not_the_files_fault(helper: Helper, tmp_path: Path) -> None:
    assert helper.ask("faulty_reader.die_the_first_time", tmp_path / "mark") == "alive"
    os.kill(helper.ask("faulty_reader.process_id", "x"), signal.SIGKILL)
    assert helper.pictures("faulty_reader.whole_numbers", "x", 2).shape == (2, 5)


def test_signals_for_who_trains_leave_it_alone(helper: Helper) -> None:
    process = helper.ask("faulty_reader.process_id", "x")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
        os.kill(process, number)
    assert helper.ask("faulty_reader.process_id", "x") == process


def test_errors_come_back_as_they_were_raised(helper: Helper) -> None:
    with pytest.raises(OSError, match="No space left on device") as caught:
        helper.ask("faulty_reader.fail", "x")
    assert (caught.value.errno, caught.value.filename) == (28, "x")
    with pytest.raises(DecodeError, match="No such file"):
        helper.ask("faulty_reader.num_frames", "none.mp4")


def test_copies_have_processes_of_their_own(helper: Helper) -> None:
    """A pickled one, as in a spawned worker, and a forked one, whose end leaves its parent's process alone."""
    process = helper.ask("faulty_reader.process_id", "x")
    copy: Helper = pickle.loads(pickle.dumps(helper))
    assert copy.ask("faulty_reader.process_id", "x") != process
    copy.end()
    program = (
        "import os\n"
        "from nl_lightning.data.reader import Helper\n"
        "helper = Helper(60)\n"
        "first = helper.ask('faulty_reader.process_id', 'x')\n"
        "if child := os.fork():\n"
        "    os.waitpid(child, 0)\n"
        "    print(helper.ask('faulty_reader.process_id', 'x') == first)\n"
        "else:\n"
        "    print(helper.ask('faulty_reader.process_id', 'x') == first, flush=True)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], **here()).stdout == "False\nTrue\n"


@pytest.mark.parametrize("busy", [False, True])
def test_it_ends_with_its_parent(busy: bool) -> None:
    """Also if the parent is killed while the helper hangs in a file."""
    program = (
        "import threading, time\n"
        "from nl_lightning.data.reader import Helper\n"
        "helper = Helper(600)\n"
        "print(helper.ask('faulty_reader.process_id', 'x'), flush=True)\n"
        f"helper.ask('faulty_reader.num_frames', 'hang') if {busy} else time.sleep(600)\n"
    )
    options = {key: value for key, value in here().items() if key != "capture_output"}
    parent = subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, **options)
    with parent:
        assert parent.stdout is not None
        process = int(parent.stdout.readline())
        time.sleep(0.05)
        assert runs(process)
        parent.kill()
    ends(process)


def here() -> dict[str, object]:
    """How a program is run that finds what this one finds."""
    return {"capture_output": True, "text": True, "env": {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}}
