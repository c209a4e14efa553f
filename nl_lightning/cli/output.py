"""What commands print: lines and tables for people, and signs of life."""

import contextlib
import threading
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from nl_lightning.errors import say, terminal, visible

if TYPE_CHECKING:
    from rich.table import Table

PATIENCE = 2.0
"""Seconds after which work that goes on is shown."""


def print_lines(*lines: str) -> None:
    """Print lines, which may hold text from outside; they are not wrapped."""
    out = terminal()
    for line in lines:
        out.print(line, soft_wrap=True)


def plain_table(*columns: str, **more: Any) -> "Table":
    """A table without lines."""
    from rich.table import Table

    return Table(*columns, box=None, header_style="bold", **more)


@contextlib.contextmanager
def working(on: str) -> Iterator[None]:
    """Show on stderr that work is going on, once it has taken longer (:data:`PATIENCE`)."""
    console = terminal(stderr=True)
    spinner = console.status(visible(on))
    timer = threading.Timer(PATIENCE, *((spinner.start,) if console.is_terminal else (say, [f"{on} ..."])))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        spinner.stop()
