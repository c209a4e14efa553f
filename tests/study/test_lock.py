"""One process at a time, whoever dies, whatever the clocks say."""

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest
from waiting import wait_until

from nl_lightning.errors import UserError
from nl_lightning.study import lock
from nl_lightning.study.lock import Holder, acquire, holder


@pytest.fixture
def what(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "seed0"


def left_by(what: Path, number: int = 1, **who: object) -> Path:
    """A lock file as another process left it."""
    file = what.with_name(f"seed0.claim.{number:06d}")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(vars(Holder.this()) | who))
    return file


def ended() -> int:
    """The number of a process that is gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_one_at_a_time(what: Path) -> None:
    assert holder(what) is None
    first = acquire(what)
    assert first is not None
    assert acquire(what) is None
    assert holder(what) == Holder.this()
    first.release()
    assert holder(what) is None
    with acquire(what) or pytest.fail("it was released"):
        assert acquire(what) is None
    assert list(what.parent.iterdir()) == []


def test_names_that_begin_alike_are_different_things(what: Path) -> None:
    with acquire(what) or pytest.fail("free"), acquire(what.with_name("seed01")) or pytest.fail("free"):
        assert acquire(what.with_name("seed")) is not None


def test_of_many_processes_one_gets_it(what: Path) -> None:
    what.parent.mkdir(parents=True)
    left_by(what, 7, pid=ended())  # they all see that this one is gone
    code = textwrap.dedent(f"""
        import sys, time
        from pathlib import Path
        from nl_lightning.study.lock import acquire
        while not Path({str(what.parent / "go")!r}).exists():
            pass
        got = acquire(Path({str(what)!r}))
        print(got is not None, flush=True)
        sys.stdin.read()
    """)
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    processes = [subprocess.Popen([sys.executable, "-c", code], **pipes) for _ in range(6)]  # type: ignore[call-overload]
    time.sleep(0.5)
    (what.parent / "go").touch()
    try:
        assert sorted(process.stdout.readline().strip() for process in processes) == ["False"] * 5 + ["True"]
    finally:
        for process in processes:
            process.communicate()


def test_what_a_dead_process_held_is_free_at_once(what: Path) -> None:
    file = left_by(what, 3, pid=ended())
    assert holder(what) is None
    taken = acquire(what)
    assert taken is not None
    assert taken.file.name == "seed0.claim.000004"
    assert not file.exists()
    taken.release()


def test_a_number_that_the_machine_gave_to_another_process_is_no_sign_of_life(what: Path) -> None:
    file = left_by(what)  # this very process, but the file has not been touched for long
    os.utime(file, (time.time() - 1000, time.time() - 1000))
    assert holder(what) is None


def test_a_holder_elsewhere_lives_while_it_gives_signs_of_life(what: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = left_by(what, pid=1, host="other", place="other machine")
    assert str(holder(what)) == "process 1 on other"
    assert acquire(what) is None
    # Its machine's clock is of no account, nor is this one's: the file system's is.
    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert acquire(what) is None
    now = file.stat().st_mtime
    os.utime(file, (now, now - lock.STALE - 1))
    assert holder(what) is None
    assert acquire(what) is not None


def test_who_looked_long_ago_takes_the_lock_from_nobody(what: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its look and its file, another process takes the lock, lets it go, and a third one has it."""
    left_by(what, 1, pid=ended())
    create, third = lock._create, []

    def late(file: Path, content: bytes) -> bool:
        monkeypatch.setattr(lock, "_create", create)
        with acquire(what) or pytest.fail("the first one is dead"):
            pass
        third.append(acquire(what))
        return create(file, content)

    monkeypatch.setattr(lock, "_create", late)
    assert acquire(what) is None
    assert third[0].file.exists()
    third[0].release()


def test_two_machines_may_have_one_name(what: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "boot_id").write_text("another start\n")
    monkeypatch.setattr(lock, "BOOT", tmp_path / "boot_id")
    left_by(what, pid=ended())  # this machine has no such process, but the other may
    monkeypatch.undo()
    assert acquire(what) is None


def test_a_time_to_come_is_no_sign_of_life(what: Path) -> None:
    """A clock was set back by a day. The holder may live: it has as long as any other to give a sign."""
    file = left_by(what, pid=1, host="other", place="other machine")
    os.utime(file, (time.time() + 86_400, time.time() + 86_400))
    assert acquire(what) is None
    assert abs(file.stat().st_mtime - time.time()) < 60
    os.utime(file, (time.time() - lock.STALE - 1, time.time() - lock.STALE - 1))  # and gave none since
    taken = acquire(what)
    assert taken is not None
    taken.release()


@pytest.mark.parametrize(
    "content",
    [b"", b"{", b"[1]", b"null", b"\xff", b'{"pid": 1e400, "host": "a", "place": "b"}', b"[" * 100_000,
     b'{"pid": -1, "host": "a", "place": "b"}', b'{"pid": [1], "host": 2, "place": null}'],
)  # fmt: skip
def test_a_lock_of_odd_content_counts_until_it_is_old(what: Path, content: bytes) -> None:
    file = left_by(what)
    file.write_bytes(content)
    assert str(holder(what)) == "process 0 on an unknown machine"
    assert acquire(what) is None
    os.utime(file, (1, 1))
    assert holder(what) is None
    assert acquire(what) is not None


def test_a_lock_gives_signs_of_life_and_knows_when_it_is_lost(what: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lock, "BEAT", 0.02)
    mine = acquire(what)
    assert mine is not None
    os.utime(mine.file, (1, 1))
    wait_until(lambda: mine.file.stat().st_mtime > 1)
    assert not mine.lost
    left_by(what, 2)  # as when this process was stopped for long and another one took over
    wait_until(lambda: mine.lost)
    mine.release()
    assert holder(what) is not None  # the other one's stays


def test_another_process_s_lock_of_the_same_number_is_not_taken_for_ones_own(
    what: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """This process slept for long. One took over and ended; the next one's numbers begin again."""
    monkeypatch.setattr(lock, "BEAT", 0.02)
    mine = acquire(what)
    assert mine is not None
    mine.file.unlink()
    theirs = left_by(what, 1, pid=1, host="other", place="other machine")
    assert theirs == mine.file
    wait_until(lambda: mine.lost)
    mine.release()
    assert str(holder(what)) == "process 1 on other"


def test_a_disk_without_links_is_good_enough(what: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def no_links(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(os, "link", no_links)
    with acquire(what) or pytest.fail("free"):
        assert acquire(what) is None
        assert [file.name for file in what.parent.iterdir()] == ["seed0.claim.000001"]


def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="seed0: can't be locked: .*take a folder that can be written"):
        acquire(tmp_path / "file" / "seed0")
