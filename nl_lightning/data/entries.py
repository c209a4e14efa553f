"""What an annotation says, before its files are looked for on this machine, and what its readers share."""

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from nl_lightning.errors import UserError, nearest


class Entries(NamedTuple):
    """The videos of a split in the annotation's order, as it writes their paths, with labels from 0.

    `classes` names the labels, or is empty if nothing does.
    """

    names: list[str]
    labels: list[int]
    classes: tuple[str, ...]


def read_text(file: Path) -> str:
    """The content of a text file; a byte order mark and the ends of lines, whatever they are, are no part of it.

    Raises:
        UserError: there is no such file, or it isn't UTF-8.
    """
    try:
        return file.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{file}: no list of videos can be read here: {error}") from None


def read_classes(file: Path) -> tuple[str, ...]:
    """The class names in a file, one a line, in the order of the labels; none if there is no such file.

    Raises:
        UserError: a name is there twice.
    """
    if not file.exists():
        return ()
    classes = tuple(line.strip().strip('"') for line in read_text(file).splitlines() if line.strip())
    twice = sorted({name for name in classes if classes.count(name) > 1}) if len(set(classes)) < len(classes) else []
    if twice:
        raise UserError(f"{file}: the class '{twice[0]}' is named twice; name each once, in the order of the labels")
    return classes


def label_of(name: str, labels: Mapping[str, int], at: str) -> int:
    """The label of a class. UserError, with the place `at` and the nearest class, if there is none of this name."""
    if name not in labels:
        raise UserError(f"{at}: no class '{name}'{nearest(name, labels) if len(name) > 2 else ''}")
    return labels[name]
