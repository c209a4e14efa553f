"""Kinetics-400, -600 and -700 as their authors annotate them: a CSV whose first line names the columns."""

import csv
from collections.abc import Sequence
from pathlib import Path
from sys import intern

from nl_lightning.data.entries import Entries, label_of, read_text
from nl_lightning.errors import UserError

COLUMNS = ("label", "youtube_id", "time_start", "time_end")
_SPLITS = {"training": "train", "validate": "val", "validation": "val"}


def is_kinetics(header: str) -> bool:
    """Whether this first line of a file is that of such a CSV."""
    return "youtube_id" in header.replace('"', "").replace(" ", "").lower().split(",")


def read_kinetics(file: Path, split: str, classes: Sequence[str] = ()) -> Entries:
    """Read a CSV: columns by name, in any order; others are passed over.

    A file of one split is taken whole; of several, the rows of `split`. Labels are those of `classes`, or else the
    places of the file's class names in alphabetical order, as in the released code.

    Raises:
        UserError: a column is missing, a row is broken, or has a class that `classes` hasn't.
    """
    names, said, splits = _columns(file)
    wanted = [split in (one, _SPLITS.get(one)) for one in splits] if len(set(splits)) > 1 else [True] * len(names)
    classes = classes or sorted(set(said))
    labels = {name.replace(" ", "_"): label for label, name in enumerate(classes)}
    entries = Entries([], [], tuple(classes))
    for name, class_name, is_wanted in zip(names, said, wanted, strict=True):
        if is_wanted:
            entries.names.append(name)
            entries.labels.append(label_of(class_name.replace(" ", "_"), labels, f"{file}: {name}"))
    return entries


def _columns(file: Path) -> tuple[list[str], list[str], list[str]]:
    """Name of the file, class and split of each row; the split is empty where there is no such column."""
    rows = csv.reader(read_text(file).splitlines())
    header = [name.strip().lower() for name in next(rows)]
    if "label" not in header:
        raise UserError(f"{file}: no column 'label': this split can be neither trained nor tested on; name another")
    if missing := [column for column in COLUMNS if column not in header]:
        raise UserError(f"{file}: no column '{missing[0]}'; expected {', '.join(COLUMNS)}[, split]")
    label, video, start, end = map(header.index, COLUMNS)
    split = header.index("split") if "split" in header else None
    names, classes, splits = [], [], []
    for row in filter(None, rows):
        try:
            names.append(f"{row[video].strip()}_{round(float(row[start])):06d}_{round(float(row[end])):06d}.mp4")
            classes.append(intern(row[label].strip()))
            splits.append(intern(row[split].strip().lower()) if split is not None else "")
        except (IndexError, ValueError):
            raise UserError(
                f"{file}:{rows.line_num}: expected {', '.join(header)}, with times in seconds, not '{','.join(row)}'"
            ) from None
    return names, classes, splits
