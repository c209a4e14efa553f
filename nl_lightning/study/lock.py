"""Who is at work on a run: one process at a time, on however many machines that share a folder.

A lock is a numbered file beside the run's folder (``seed0.claim.000001``), and the one with the highest number holds.
To take a lock is to create the next number, which only one process can do; so the lock of a dead process can be taken
over without a race. The holder touches its file every few seconds. What counts as "now" is the file system's clock,
never a machine's own, so machines whose clocks differ agree. Nothing here imports torch.

Libraries were tried on the tests of this file. flufl.lock compares the clocks of machines and keeps a dead process's
lock until its time is up. filelock's FileLock knows no holder, and its SoftFileLease counts only while somebody
watches: a new process, such as ``status``, would call a run of a machine that died a day ago at work.
"""

import contextlib
import errno
import glob
import json
import os
import platform
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from nl_lightning.errors import UserError
from nl_lightning.study.border import checked, parse_json

BOOT = Path("/proc/sys/kernel/random/boot_id")
"""What Linux names each start of a machine."""
BEAT = 10.0
"""Seconds between two signs of life."""
STALE = 120.0
"""Seconds without one after which a holder on another machine counts as gone: a file server may lag by a minute."""


@dataclass(frozen=True)
class Holder:
    """The process at work: its number, its machine, and the machine's name for itself and its processes."""

    pid: Annotated[int, Field(ge=1, lt=2**31)]
    host: str
    place: str

    @staticmethod
    def this() -> "Holder":
        """This process."""
        place = [platform.node()]
        with contextlib.suppress(OSError):
            place.append(os.readlink("/proc/self/ns/pid"))  # two containers on a machine number theirs alike
            place.append(BOOT.read_text(encoding="utf-8").strip())  # two machines may have one name
        return Holder(os.getpid(), platform.node(), " ".join(place))

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}"


class Lock:
    """A lock that this process holds, kept alive until it is released."""

    def __init__(self, what: Path, file: Path, content: bytes) -> None:
        self.what, self.file, self.content = what, file, content
        self.lost = False
        """Whether another process has taken over, as after this one was suspended for long."""
        self._released = threading.Event()
        threading.Thread(target=self._keep, daemon=True, name="lock").start()

    def _keep(self) -> None:
        while not self._released.wait(BEAT):
            with contextlib.suppress(OSError):  # a file server that is away for a while
                self.lost = _newest(self.what) != self.file or not self._is_ours()
                if not self.lost:
                    os.utime(self.file)

    def _is_ours(self) -> bool:
        # Numbers begin again when nobody holds it: a file of this name may be another process's by now.
        return self.file.read_bytes() == self.content

    def release(self) -> None:
        """Let the next one have it; the lock of one that has taken over stays."""
        self._released.set()
        with contextlib.suppress(OSError):
            if self._is_ours():
                self.file.unlink()

    def __enter__(self) -> "Lock":
        return self

    def __exit__(self, *error: object) -> None:
        self.release()


def acquire(what: Path) -> Lock | None:
    """Lock what lies, or will lie, at this path; None if a live process holds it. UserError: it can't be locked."""
    newest = _newest(what)
    if _live_holder(newest) is not None:
        return None
    number = int(newest.name.rpartition(".")[2]) + 1 if newest else 1
    mine = what.with_name(f"{what.name}.claim.{number:06d}")
    content = json.dumps(vars(Holder.this())).encode()
    try:
        what.parent.mkdir(parents=True, exist_ok=True)
        if not _create(mine, content):
            return None
    except OSError as error:
        raise UserError(
            f"{what}: can't be locked: {error.strerror}; take a folder that can be written (--results, --data.root)"
        ) from error
    others = [file for file in _files(what) if file != mine]
    # It may have looked before another one took the lock and cleared the older files away, or let it go since.
    if any(other > mine or _live_holder(other) is not None for other in others):
        mine.unlink(missing_ok=True)
        return None
    for older in others:
        older.unlink(missing_ok=True)
    return Lock(what, mine, content)


@contextlib.contextmanager
def waiting_for(what: Path) -> Iterator[None]:
    """Hold it while the block runs; wait for whoever has it before."""
    while (held := acquire(what)) is None:
        time.sleep(0.5)
    with held:
        yield


@contextlib.contextmanager
def alone(what: Path) -> Iterator[None]:
    """Hold it while the block runs; UserError if another process does, or its folder can't be written."""
    with contextlib.suppress(OSError):
        what.parent.mkdir(parents=True, exist_ok=True)
    if not os.access(what.parent, os.W_OK):
        raise UserError(f"{what.parent} can't be written: name another place with --out")
    if (held := acquire(what)) is None:
        raise UserError(f"{what}: {holder(what) or 'another process'} is at work on it; wait for it, or end it")
    with held:
        yield


def holder(what: Path) -> Holder | None:
    """The live process that holds it, if there is one."""
    return _live_holder(_newest(what))


def _create(file: Path, content: bytes) -> bool:
    """Create a file with its content in one step; False if it is there. A link does so on network disks as well."""
    handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(handle, "wb") as whole:
            whole.write(content)
        try:
            os.link(temporary, file)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                raise
            with file.open("xb") as whole:  # a disk without links; who reads meanwhile finds it empty, see `_read`
                whole.write(content)
    except FileExistsError:
        return False
    finally:
        os.unlink(temporary)
    return True


def _files(what: Path) -> list[Path]:
    return sorted(what.parent.glob(f"{glob.escape(what.name)}.claim.{'[0-9]' * 6}"))


def _newest(what: Path) -> Path | None:
    files = _files(what)
    return files[-1] if files else None


def _live_holder(file: Path | None) -> Holder | None:
    if file is None:
        return None
    try:
        age = _now(file.parent) - file.stat().st_mtime
        who = _read(file)
        if age < -BEAT:  # the clock was set back: a time to come is no sign of life, and begins to count from now
            with contextlib.suppress(PermissionError):
                os.utime(file)
    except FileNotFoundError:
        return None  # released just now
    except OSError as error:
        raise UserError(f"{file}: can't be read: {error.strerror}") from error
    if who.place == Holder.this().place and not _runs(who.pid):
        return None
    return who if age < STALE else None


def _read(file: Path) -> Holder:
    text = file.read_bytes()
    try:
        return checked(Holder, parse_json(text, str(file)), str(file), unknown="ignore")
    except UserError:
        return Holder(0, "an unknown machine", "")  # half written: only its age tells


def _now(folder: Path) -> float:
    """Seconds by the clock of the folder's file system; by this machine's if the folder can't be written."""
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            return os.fstat(file.fileno()).st_mtime
    except OSError:
        return time.time()


def _runs(pid: int) -> bool:
    """Whether a process of this machine still runs; one that has ended and was not waited for doesn't."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8")
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True  # another user's, or no Linux
    return stat.rpartition(")")[2].split()[0] != "Z"
