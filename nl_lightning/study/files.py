"""Texts are read with care; files are written whole or not at all, and what somebody else wrote stays.

Whatever a command writes where the user wants it goes through :func:`write_output`, or asks :func:`refuse_foreign`
before. What is ours is told by its content, so that it may be copied and moved.
"""

import contextlib
import itertools
import os
import re
import stat
import uuid
from collections.abc import Iterable, Iterator
from contextvars import ContextVar
from pathlib import Path

from nl_lightning.errors import UserError, say

MOST_BYTES = 64 << 20
"""Bytes of a text that is read. A record of Kinetics has 50 kB."""


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a file, UTF-8. UserError if it isn't there, is no file, can't be read or has over `most` bytes."""
    if (size := size_of(path)) > most:
        raise UserError(f"{path}: has {size} bytes; at most {most} are read")
    try:
        return path.read_bytes().decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read: {reason(error)}") from None


def size_of(path: Path, none: str = "no file") -> int:
    """Bytes of a file. UserError if there is `none`, if it is something else, or can't be opened."""
    try:
        found = path.stat()
        if stat.S_ISREG(found.st_mode):  # reading a pipe or a device might never end
            path.open("rb").close()
            return found.st_size
    except FileNotFoundError:
        raise UserError(f"{none} {path}") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read: {reason(error)}") from None
    raise UserError(f"{path}: expected a file, got a {'folder' if stat.S_ISDIR(found.st_mode) else 'device'}")


def reason(error: OSError | ValueError) -> str:
    """Why a file can't be opened, read or written, in a few words."""
    if isinstance(error, UnicodeDecodeError):
        line = 1 + bytes(error.object).count(b"\n", 0, error.start)
        return f"line {line} isn't text in UTF-8"
    if isinstance(error, UnicodeError):
        return "it isn't text in UTF-8"
    return (error.strerror if isinstance(error, OSError) else None) or str(error)


@contextlib.contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a path to write to, beside `path`. When the block has ended well, what was written takes `path`'s place.

    So a reader, or a crash at any moment, finds the old file or the new one, whole. `durable` waits for the disk, so
    that the file survives a power cut. UserError if the disk is full or the folder can't be written; the old file is
    then still there.
    """
    temporary = path.with_name(f".{path.name[:200]}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _wait_for_disk(temporary)
        os.replace(temporary, path)
        if durable:
            with contextlib.suppress(OSError):  # some network disks refuse this of folders; the file is in its place
                _wait_for_disk(path.parent)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # gone already, when all went well
            os.unlink(temporary)


def _wait_for_disk(path: Path) -> None:
    """Until what was written to a file, or the names in a folder, would survive a power cut."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_atomically(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Write a file whole or not at all, see :func:`whole_file`."""
    with whole_file(path, durable) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


# ----------------------------------------------------------------------------------------------- files of others

MARK = "written by nl-lightning"
"""What pictures, videos and pages say of themselves, in their metadata or at their end."""
_SAYS = MARK.encode()
_LEGEND = rb"[^\n]*: means over [^\n]*, \xc2\xb1 their sample standard deviation\. Gains are points of"
SIGNS = re.compile(
    rb"\A(?:"
    rb"% [^\n]* of study [^\n]*, recipe [^\n]*\. Generated: don't edit\.\n"  # tables as LaTeX
    rb"|table,label,variant,baseline,state,n,"  # as CSV
    rb"|# [^\n]*\n\n[^\n]*[Rr]ecipe [^\n]*\n\n(?:.*\n\n)?" + _LEGEND +  # as Markdown
    rb"|# .*\nThis page was " + _SAYS + rb"\.\n\Z"
    rb"|<!DOCTYPE html>.*<p class=\"note\">" + _LEGEND +
    rb"|<!DOCTYPE html>.*; " + _SAYS + rb"\.</p></footer>"
    rb"|# [^\n]* runs of the study [^\n]* under the recipe [^\n]*\. Written by 'nl-lightning sweeps'\.\n"
    rb"|\x89PNG.*tEXtSoftware\0" + _SAYS +
    rb"|<\?xml.*<dc:title>" + _SAYS +
    rb"|.{4}ftyp.*\xa9cmt.{4}data.{8}" + _SAYS +
    rb'|.{4}\0{4}\{"__metadata__":\{.*"format":"nl-lightning '  # weights: quotes within the header have a backslash
    rb")",
    re.DOTALL,
)  # fmt: skip
"""What tells that a file is ours, where we write it in a file of its kind; a phrase of ours elsewhere tells nothing."""
LOOK = 1 << 20
"""Bytes at a file's beginning and at its end that are looked at."""
_overwrites = ContextVar("overwrites", default=False)


@contextlib.contextmanager
def overwriting(allowed: bool) -> Iterator[None]:
    """While it is on and `allowed`, files of others may be replaced: the user has said ``--overwrite``."""
    before = _overwrites.set(allowed)
    try:
        yield
    finally:
        _overwrites.reset(before)


def write_output(path: Path, content: str | bytes) -> None:
    """Write a file where the user wants it, whole. UserError if somebody else's is there, and of other content."""
    data = content.encode() if isinstance(content, str) else content
    if not (path.is_file() and path.stat().st_size == len(data) and path.read_bytes() == data):
        refuse_foreign([path])
        write_atomically(path, data)


def refuse_foreign(paths: Iterable[Path], of: str = "", what: str = "") -> None:
    """UserError if one of these files is there and isn't ours, unless the user has said that it may be replaced.

    A file of ours that doesn't say `of` is another's `what`, as two videos or studies may ask for one name.
    """
    there = [] if _overwrites.get() else filter(os.path.lexists, paths)
    foreign = [path for path in there if not _is_ours(path, of.encode())]
    if foreign:
        more = f" (and {len(foreign) - 1} more)" if len(foreign) > 1 else ""
        raise UserError(
            f"{foreign[0]}{more} is there already, and nl-lightning didn't write it{what}: "
            "name another place, move it away, or say --overwrite"
        )


def move_aside(path: Path, names: Iterable[Path]) -> Path:
    """Give a file the first of these names that is free, and return it."""
    return path.rename(next(name for name in names if not os.path.lexists(name)))


def set_aside(path: Path) -> None:
    """Give a file that a training would write over, if it is there, another name beside it, and say which."""
    if os.path.lexists(path):
        aside = move_aside(path, (path.with_name(f"before{k}{path.suffix}") for k in itertools.count(1)))
        say(f"{path} is not of this training: kept as {aside.name}")


def _is_ours(path: Path, of: bytes) -> bool:
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            return False
        with path.open("rb") as file:
            head = file.read(LOOK)
            file.seek(max(LOOK, found.st_size - LOOK))
            tail = file.read()
    except OSError:
        return False
    content = (head + tail).replace(b"\r\n", b"\n")
    return of in content and SIGNS.match(content) is not None
