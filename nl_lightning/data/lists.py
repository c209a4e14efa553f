"""List files: ``path label`` a line."""

from collections.abc import Sequence
from pathlib import Path

from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError


def read_list(file: Path, root: Path, classes: Sequence[str] = ()) -> VideoList:
    """Read a list file: ``path label`` a line, the path relative to `root`, the label from 0.

    Raises:
        UserError: the file is missing or empty, or a line has no label or one that no class has.
    """
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: no list of videos can be read here: {error}") from None
    names, labels = [], []
    for number, line in enumerate(lines, 1):
        name, _, label = line.strip().rpartition(" ")
        if not line.strip():
            continue
        if not name or not label.isdecimal():
            raise UserError(f"{file}:{number}: expected 'path label' with the label a whole number, not '{line}'")
        if classes and int(label) >= len(classes):
            raise UserError(
                f"{file}:{number}: label {label}, but there are {len(classes)} classes, 0 to {len(classes) - 1}"
            )
        names.append(name)
        labels.append(int(label))
    if not names:
        raise UserError(f"{file}: the list of videos is empty")
    return VideoList.of(root, names, labels, classes)


def read_classes(file: Path) -> tuple[str, ...]:
    """The class names in a file, one a line, in the order of the labels; none if there is no such file."""
    if not file.exists():
        return ()
    return tuple(line.strip() for line in file.read_text(encoding="utf-8-sig").splitlines() if line.strip())
