"""From an annotation of any known kind to the index of a split. The file itself says of which kind it is.

=====================  ================================================================================================
``*`` in the name      HMDB51: one file a class (:func:`~nl_lightning.data.official_splits.read_hmdb51`)
``.json``              Something-Something v2 (:func:`~nl_lightning.data.something.read_something`)
a column youtube_id    Kinetics (:func:`~nl_lightning.data.kinetics.read_kinetics`)
beside classInd.txt    UCF101 (:func:`~nl_lightning.data.official_splits.read_ucf101`)
anything else          ``path label`` a line (:func:`~nl_lightning.data.lists.read_list`)
=====================  ================================================================================================
"""

import os
import posixpath
import re
from collections.abc import Sequence
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_warn

from nl_lightning.data.entries import Entries, read_classes, read_text
from nl_lightning.data.folders import FilesBelow, youtube_id
from nl_lightning.data.kinetics import is_kinetics, read_kinetics
from nl_lightning.data.lists import read_list
from nl_lightning.data.official_splits import UCF101_CLASSES, read_hmdb51, read_ucf101
from nl_lightning.data.something import read_something
from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError

_DRIVE = re.compile(r"^[A-Za-z]:(?=/)")


def read_annotation(listed: str, root: Path, split: str) -> VideoList:
    """The videos that the file `listed` names, which lies in `root`, as does ``classes.txt``, if there is one.

    Paths are relative to `root`. Where a folder isn't there, or lacks a video of YouTube, the file is looked for below
    `root` by the end of its path, so that lists of another machine serve. What isn't found keeps its place in the list,
    to be named as missing. A video that is listed again is left out, with a warning.

    Raises:
        UserError: the file is missing, empty or broken, or has one video with two labels.
    """
    entries = _entries(listed, root, split)
    if not entries.names:
        raise UserError(f"{root / listed}: the list of videos is empty")
    names = _located(entries.names, root, split)
    kept = _once(names, entries, root / listed)
    return VideoList.of(root, [names[i] for i in kept], [entries.labels[i] for i in kept], entries.classes)


def _entries(listed: str, root: Path, split: str) -> Entries:
    if "*" in listed:
        return read_hmdb51(root, listed, split)
    file, classes = root / listed, read_classes(root / "classes.txt")
    if file.suffix == ".json":
        return read_something(file)
    if is_kinetics(read_text(file).partition("\n")[0].strip()):
        return read_kinetics(file, split, classes)
    if (file.parent / UCF101_CLASSES).exists():
        return read_ucf101(file)
    return read_list(file, classes)


def _located(listed: Sequence[str], root: Path, split: str) -> list[str]:
    """The name of each file below `root`, or its whole path if it is there but not below `root`."""
    files, inside = FilesBelow(root), dict[str, frozenset[str]]()
    roots = tuple({f"{root.absolute()}/", f"{os.path.realpath(root)}/"})
    names = []
    for name in map(_plain, listed):
        folder, _, file = name.rpartition("/")
        if folder not in inside:
            known = bool(folder) and os.path.isdir(root / folder)
            inside[folder] = frozenset(os.listdir(root / folder)) if known else frozenset()
        if name.startswith(roots):
            name = next(name.removeprefix(one) for one in roots if name.startswith(one))
        elif not inside[folder] or (file not in inside[folder] and youtube_id(file)):
            name = files.find(name, split) or (name if name[0] != "/" else "/".join(name.split("/")[-2:]))
        names.append(name)
    return names


def _plain(name: str) -> str:
    """A path with ``/``, without drive, ``.`` and what ``..`` undoes."""
    if "\\" in name:
        name = name.replace("\\", "/")
    if ":" in name:
        name = _DRIVE.sub("", name)
    return posixpath.normpath(name) if "./" in name or "//" in name else name


def _once(names: Sequence[str], entries: Entries, file: Path) -> list[int]:
    """The places of the videos, each at its first one."""
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        before = first.setdefault(name, place)
        if entries.labels[before] != entries.labels[place]:
            raise UserError(
                f"{file}: {name} is listed twice, with the labels {entries.labels[before]} and {entries.labels[place]}"
            )
    if len(first) < len(names):
        again = next(name for place, name in enumerate(names) if first[name] != place)
        rank_zero_warn(
            f"{file}: {len(names) - len(first)} videos are listed again, {again} among them: each is taken once"
        )
    return list(first.values())
