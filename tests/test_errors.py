"""Which errors are the user's to mend, in one line."""

import errno

import pytest

from nl_lightning.errors import UserError, mistake


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (UserError("x"), "x"),
        (OSError(errno.ENOSPC, "No space left on device", "a"), "a: No space left on device; mend it and call again"),
        (RuntimeError("unable to allocate shared memory(shm) for file </torch_1>"), "/dev/shm is full, "),
        (RuntimeError("DataLoader worker (pid 1) is killed by signal: Bus error. It is"), "/dev/shm is full, "),
    ],
)
def test_lines(error: BaseException, line: str) -> None:
    assert (mistake(error) or "").startswith(line)


@pytest.mark.parametrize("error", [RuntimeError("other"), ValueError("other"), OSError(errno.EIO, "broken")])
def test_what_is_ours_has_a_traceback(error: BaseException) -> None:
    assert mistake(error) is None
