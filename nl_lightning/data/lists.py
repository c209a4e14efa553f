"""List files without a header: ``path label`` a line, as of PySlowFast, mmaction2 and the released code."""

from collections.abc import Sequence
from pathlib import Path

from nl_lightning.data.entries import Entries, read_text
from nl_lightning.errors import UserError


def read_list(file: Path, classes: Sequence[str] = ()) -> Entries:
    """Read a list file: a path, a space or a comma, a label from 0 a line. Paths may hold both, and stand in quotes.

    Raises:
        UserError: a line has no label, or one that no class has.
    """
    names, labels = [], []
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        name, label = _parted(line)
        if not name or not label.isdecimal():
            raise UserError(f"{file}:{number}: expected 'path label' with the label a whole number, not '{line}'")
        if classes and int(label) >= len(classes):
            raise UserError(
                f"{file}:{number}: label {label}, but there are {len(classes)} classes, 0 to {len(classes) - 1}"
            )
        names.append(name)
        labels.append(int(label))
    return Entries(names, labels, tuple(classes))


def _parted(line: str) -> tuple[str, str]:
    name, _, label = line.strip().replace("\t", " ").rpartition(" ")
    if not name or not label.isdecimal():
        name, _, label = line.strip().rpartition(",")
    return name.strip().removesuffix(",").strip('"'), label.strip()
