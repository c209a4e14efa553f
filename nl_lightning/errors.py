"""The one exception that stands for a user's mistake."""

import difflib
import errno
from collections.abc import Iterable

NO_SHARED_MEMORY = ("unable to allocate shared memory", "killed by signal: Bus error")
"""What PyTorch says when a worker has died of it."""


class UserError(ValueError):
    """A mistake in what the user gave: one line that names it, what was expected, and how to mend it.

    The command line prints it without a traceback and exits with code 2.
    """


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ``"; did you mean 'x'?"`` for the known name closest to `name`, else the list of known names."""
    names = [str(k) for k in known]
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f"; did you mean '{close[0]}'?"
    return f"; known: {', '.join(names)}" if names else ""


def mistake(error: BaseException) -> str | None:
    """The one line to print if `error` is the user's to mend: a :class:`UserError`, a full disk, a forbidden folder."""
    if isinstance(error, UserError):
        return str(error)
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EROFS):
        return f"{error.filename or 'writing'}: {error.strerror}; mend it and call again"
    if isinstance(error, RuntimeError) and any(sign in str(error) for sign in NO_SHARED_MEMORY):
        return "/dev/shm is full, through which workers hand over batches: enlarge it, or lower data.num_workers"
    return None
