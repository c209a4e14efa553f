"""Charades as its authors annotate it: a CSV whose first line names the columns, and a file of 157 classes.

A video has all the classes of its actions, and its clips are trained on all of them, wherever in the video a clip
lies. The annotation has the seconds of each action, and the paper doesn't say whether it used them. Without them
training asks what testing asks: which classes a video has, of each of its clips, whose scores are then averaged.

A video without any action has nothing to be found in it, and is left out: the data set's own evaluation ranks such
videos below all others, where they change no average precision.
"""

import csv
import re
from collections.abc import Mapping
from pathlib import Path

from nl_lightning.data.entries import Entries, read_text
from nl_lightning.data.videos import Labels
from nl_lightning.errors import UserError

CLASSES = "Charades_v1_classes.txt"
COLUMNS = {"id", "actions"}
_CLASS = re.compile(r"(c\d{3})\s+(\S.*)")
_ACTION = re.compile(r"(c\d{3}) [\d.]+ [\d.]+")


def is_charades(header: str) -> bool:
    """Whether this first line of a file is that of such a CSV."""
    return set(header.split(",")) >= COLUMNS


def read_charades(file: Path) -> Entries:
    """Read ``Charades_v1_train.csv`` or ``Charades_v1_test.csv``, by the columns ``id`` and ``actions``.

    A video is ``<id>.mp4``. ``Charades_v1_classes.txt`` beside it (``c000 Holding some clothes``) has the classes.

    Raises:
        UserError: a row is cut off, or has an action that is not written so or of no class.
    """
    classes = _classes(file.with_name(CLASSES))
    codes = {code: label for label, code in enumerate(classes)}
    names: list[str] = []
    labels: list[int | Labels] = []
    for row in csv.DictReader(read_text(file).splitlines()):
        if row["actions"] is None:
            raise UserError(f"{file}: {row['id']}: the row is cut off before its actions")
        if row["actions"].strip():
            names.append(f"{row['id']}.mp4")
            labels.append(_labels(row["actions"], codes, f"{file}: {row['id']}"))
    return Entries(names, labels, tuple(classes.values()))


def _classes(file: Path) -> dict[str, str]:
    """The name of each class by its code, in the order of the labels."""
    classes = {}
    for number, line in enumerate(read_text(file).splitlines(), 1):
        match = _CLASS.fullmatch(line.strip())
        if line.strip() and match is None:
            raise UserError(
                f"{file}:{number}: expected a code and a name, as 'c000 Holding some clothes', not '{line}'"
            )
        if match is not None:
            classes[match[1]] = match[2]
    return classes


def _labels(actions: str, labels: Mapping[str, int], at: str) -> Labels:
    """The labels of ``c092 11.90 21.20;c147 0.00 12.60``, each once, in ascending order."""
    found = set()
    for action in actions.split(";"):
        match = _ACTION.fullmatch(action.strip())
        if match is None or match[1] not in labels:
            raise UserError(
                f"{at}: expected actions as 'c092 11.90 21.20;c147 0.00 12.60', of classes in {CLASSES}, not '{action}'"
            )
        found.add(labels[match[1]])
    return tuple(sorted(found))
