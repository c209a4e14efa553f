"""What commands print: lines and tables for people, and signs of life."""

import contextlib
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nl_lightning.errors import say, terminal, visible

if TYPE_CHECKING:
    from rich.table import Table

    from nl_lightning.report.claims import Report
    from nl_lightning.report.collate import Runs

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


def write_tables_of(runs: "Runs", results: Path, columns: Sequence[str] = ()) -> tuple["Report", list[Path]]:
    """What is to be reported of runs, and the files with it, which are written now."""
    from nl_lightning.report.claims import report  # pandas: half a second
    from nl_lightning.report.render import write_tables

    found = report(runs)
    return found, write_tables(found, results, columns)


def show(found: "Report", written: list[Path], tables: list[str] | None = None) -> None:
    """Print a report, or some of its tables, and where its files are."""
    from nl_lightning.report.render import print_study

    print_study(terminal(), found, tables)
    print_lines(f"{len(written)} files in {written[0].parent}")
