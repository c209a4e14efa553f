"""Files are written whole or not at all."""

import contextlib
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from nl_lightning.errors import UserError


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
