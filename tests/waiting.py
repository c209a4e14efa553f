"""Waiting for what other processes do."""

import time
from collections.abc import Callable

LIMIT = 900
"""Seconds after which a test hangs; what it waits for takes a few on a quiet machine."""


def wait_until(condition: Callable[[], object], what: Callable[[], object] = lambda: "") -> None:
    """`what` is for the message if it never comes."""
    deadline = time.monotonic() + LIMIT
    while not condition():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)
