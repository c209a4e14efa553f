"""From a list of videos, in any known format, to the index of a split. The file itself says which, see ``FORMATS``.

Each line is either understood whole or refused by its number.
"""

import contextlib
import csv
import glob
import os
import re
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from operator import itemgetter
from pathlib import Path
from sys import intern
from typing import Any

from pytorch_lightning.utilities import rank_zero_warn

from nl_lightning.data.locating import composed, ends_as_video, located, youtube_id
from nl_lightning.data.videos import Labels, VideoList
from nl_lightning.errors import UserError, nearest
from nl_lightning.study.border import read_json, shown
from nl_lightning.study.files import read_text

MOST_BYTES = 1 << 30  # of a list; the longest that are known have 50 MB
MOST_LABELS = 2**31  # they are kept in 32 bits
CLASSES = "classes.txt"
CHARADES_CLASSES = "Charades_v1_classes.txt"
UCF101_CLASSES = "classInd.txt"


def read_annotation(listed: str, root: Path, split: str) -> VideoList:
    """The videos that the file `listed` names, which lies in `root`, as does ``classes.txt``, if there is one.

    Paths are relative to `root`. Where a folder isn't there, or lacks a video of YouTube, the file is looked for below
    `root` by the end of its path, so that lists of another machine serve. What isn't found keeps its place in the list.
    A video that is listed again is left out, with a warning.

    Raises:
        UserError: the file is missing, empty or broken, or has one video with two labels.
    """
    found = _Listed(listed, root, split)
    entries = next(read for applies, read in FORMATS if applies(found))(found)
    if not entries.names:
        raise UserError(f"{root / listed}: the list of videos is empty")
    names = located(entries.names, root, split)
    kept = _once(names, entries)
    return VideoList.of(root, [names[i] for i in kept], [entries.labels[i] for i in kept], entries.classes)


class Entries:
    """What a list says, before its files are looked for. `classes` names the labels, or is empty if nothing does."""

    def __init__(self, file: Path, classes: Sequence[str] = (), unit: str = "line") -> None:
        self.file, self.classes, self.unit = file, tuple(classes), unit
        self.names: list[str] = []  # as the list writes them, in its order
        self.labels: list[int | Labels] = []  # from 0, one or several a video
        self.numbers = array("q")  # of the lines that the videos are from, or their places in a JSON list

    def add(self, name: str, label: int | Labels, number: int) -> None:
        """UserError for a name that no file can have, and for a number that no label can be."""
        if "\0" in name or (len(name) > 60 and max(map(len, os.fsencode(name).split(b"/"))) > 255):
            raise UserError(f"{self.at(number)}: no file can have the name {shown(name)}")
        if isinstance(label, int) and label >= min(MOST_LABELS, len(self.classes) or MOST_LABELS):
            there = f"there are {len(self.classes)} classes" if self.classes else "labels are numbers of classes"
            most = (len(self.classes) or MOST_LABELS) - 1
            raise UserError(f"{self.at(number)}: label {shown(label)}, but {there}, 0 to {most}")
        self.names.append(name)
        self.labels.append(label)
        self.numbers.append(number)

    def at(self, number: int) -> str:
        """The place of a video in the list, for a message."""
        return f"{self.file}:{number}" if self.unit == "line" else f"{self.file}: {self.unit} {number}"


@dataclass(frozen=True)
class _Listed:
    """A list that is to be read."""

    name: str
    root: Path
    split: str

    @property
    def file(self) -> Path:
        return self.root / self.name

    @cached_property
    def lines(self) -> list[str]:
        return read_lines(self.file)

    @cached_property
    def header(self) -> list[str]:
        """The names of the columns, if this is a CSV."""
        with contextlib.suppress(csv.Error):
            return [name.strip().lower() for name in next(csv.reader(self.lines[:1]), [])]
        return []

    def rows(self, columns: Sequence[str], like: str) -> Iterator[tuple[int, Sequence[str]]]:
        """Line number and these columns of each row of a CSV. UserError, naming what a row is `like`, for a broken one.

        A column whose name ends in ``?`` may be missing, and is an empty text then.
        """
        places = []
        for column in columns:
            if self.header.count(column.rstrip("?")) > 1:
                raise UserError(f"{self.file}: several columns '{column.rstrip('?')}'; expected {', '.join(columns)}")
            if column.rstrip("?") in self.header:
                places.append(self.header.index(column.rstrip("?")))
            elif not column.endswith("?"):
                raise UserError(f"{self.file}: no column '{column}'; expected {', '.join(columns)}")
        pick, missing = itemgetter(*places), ("",) * (len(columns) - len(places))
        reader = csv.reader(self.lines)
        next(reader)
        try:
            for number, row in enumerate(reader, 2):
                if reader.line_num != number:
                    raise UserError(f"{self.file}:{reader.line_num}: a quote isn't closed in its line")
                if not row:
                    continue
                if len(row) > len(self.header) or len(row) <= max(places):
                    said = f"{len(row)} columns where the first line has {len(self.header)}"
                    raise UserError(f"{self.file}:{reader.line_num}: {said}; expected {like}")
                yield reader.line_num, pick(row) + missing
        except csv.Error as error:
            raise UserError(f"{self.file}:{reader.line_num}: {error}") from None


def read_lines(file: Path) -> list[str]:
    """The lines of a list, whatever ends them. UserError if there is no such file, or it isn't UTF-8."""
    try:
        text = read_text(file, MOST_BYTES)
    except UserError as error:
        said = "there is no such file" if not file.exists() else str(error).removeprefix(f"{file}: ")
        raise UserError(f"{file}: no list of videos can be read here: {said}") from None
    return text.replace("\r\n", "\n").replace("\r", "\n").split("\n")


def _numbered_lines(lines: Sequence[str]) -> Iterator[tuple[int, str]]:
    """Those that aren't blank, with their numbers from 1."""
    return ((number, line.strip()) for number, line in enumerate(lines, 1) if line.strip())


def read_classes(file: Path) -> tuple[str, ...]:
    """The class names in a file, one a line, in the order of the labels; none if there is no such file."""
    if not file.exists():
        return ()
    classes = tuple(line.strip('"') for _, line in _numbered_lines(read_lines(file)))
    _numbered(classes, file)
    return classes


def _key(name: str) -> str:
    """A class's name as all spellings of it have it: composed or not in Unicode, with blanks or with ``_``."""
    return composed(name).replace(" ", "_")


def _numbered(classes: Sequence[str], file: Path) -> dict[str, int]:
    """The label of each class by its key. UserError for a class that is named twice."""
    labels: dict[str, int] = {}
    for label, name in enumerate(classes):
        if labels.setdefault(_key(name), label) != label:
            raise UserError(f"{file}: the class '{name}' is named twice; name each once, in the order of the labels")
    return labels


def _label_of(name: str, labels: Mapping[str, int], at: str) -> int:
    """The label of a class. UserError, with the nearest class, if there is none of this name."""
    label = labels.get(_key(name))
    if label is None:
        raise UserError(f"{at}: no class {shown(name)}{nearest(_key(name), labels) if len(name) > 2 else ''}")
    return label


def _read_list(listed: _Listed) -> Entries:
    """A path, a space or a comma, a label from 0 a line.

    A path may hold both if it ends as a video, or stands in quotes.
    """
    entries = Entries(listed.file, read_classes(listed.root / CLASSES))
    for number, line in _numbered_lines(listed.lines):
        name, label = _path_and_number(line)
        if not name:
            raise UserError(f"{entries.at(number)}: expected 'path label', {label}")
        entries.add(name, int(label), number)
    return entries


def _path_and_number(line: str) -> tuple[str, str]:
    """Both parts of a line; or nothing, and what is wrong with it."""
    name, number = line.rsplit(maxsplit=1) if len(line.split()) > 1 else (line, "")
    if not _is_number(number):
        name, _, number = line.rpartition(",")
    name, number = name.strip().removesuffix(",").rstrip(), number.strip()
    if not name or not _is_number(number):
        return "", f"with the label a whole number, not {shown(line)}"
    if len(name) > 2 and name[0] == name[-1] == '"':
        return name[1:-1], number
    words = re.split(r"[\s,]+", name)
    if len(words) > 1 and (any(map(ends_as_video, words[:-1])) or not (ends_as_video(name) or youtube_id(name))):
        return "", f"not {len(words) + 1} columns as in {shown(line)}; a path with blanks or commas stands in quotes"
    return name.strip('"'), number


def _is_number(text: str) -> bool:
    """Whether this is a whole number from 0 that Python reads at once; there are no labels of more digits."""
    return text.isascii() and text.isdecimal() and len(text) <= 1000


def _read_kinetics(listed: _Listed) -> Entries:
    """Columns by name, in any order; others are passed over.

    A file of one split is taken whole; of several, the rows of the split. Labels are those of ``classes.txt``, or else
    the places of the file's class names in alphabetical order, as in the released code.
    """
    file = listed.file
    if "label" not in listed.header:
        raise UserError(f"{file}: no column 'label': this split can be neither trained nor tested on; name another")
    like = "label, youtube_id, time_start, time_end, with times in seconds"
    splits = {"training": "train", "validate": "val", "validation": "val"}
    rows = []
    for line, row in listed.rows(("label", "youtube_id", "time_start", "time_end", "split?"), like):
        label, video, *times, side = map(str.strip, row)
        try:
            start, end = (round(float(time)) for time in times)
        except (ValueError, OverflowError):
            start, end = -1, -1
        if not video or not 0 <= start <= end < 1_000_000:
            raise UserError(f"{file}:{line}: expected {like}, not {shown(','.join(row[:4]))}")
        side = intern(splits.get(side.lower(), side.lower()))
        rows.append((line, f"{video}_{start:06d}_{end:06d}.mp4", intern(label), side))
    several = len({side for *_, side in rows}) > 1
    said = sorted({label for _, _, label, _ in rows if label})
    entries = Entries(file, read_classes(listed.root / CLASSES) or said)
    labels = _numbered(entries.classes, file)
    for line, name, label, side in rows:
        if side == listed.split or not several:
            entries.add(name, _label_of(label, labels, entries.at(line)), line)
    return entries


def _read_charades(listed: _Listed) -> Entries:
    """A CSV, and ``Charades_v1_classes.txt`` beside it (``c000 Holding some clothes``). A video is ``<id>.mp4``.

    A video has all the classes of its actions, and its clips are trained on all of them, wherever in the video a clip
    lies. (The annotation has the seconds of each action; the paper doesn't say whether it used them.) A video without
    any action is left out: the data set's own evaluation ranks such videos below all others, where they change no
    average precision.
    """
    file = listed.file.with_name(CHARADES_CLASSES)
    classes: dict[str, str] = {}  # by code, in the order of the labels
    for number, text in _numbered_lines(read_lines(file)):
        match = re.fullmatch(r"(c\d{3})\s+(\S.*)", text)
        if match is None or match[1] in classes:
            like = "a code and a name, each code once, as 'c000 Holding some clothes'"
            raise UserError(f"{file}:{number}: expected {like}, not {shown(text)}")
        classes[match[1]] = match[2]
    codes = list(classes)
    entries = Entries(listed.file, list(classes.values()))
    for line, (video, actions) in listed.rows(("id", "actions"), "a video's id and its actions"):
        if not video.strip():
            raise UserError(f"{entries.at(line)}: the row has no id")
        labels = set()
        for action in actions.split(";") if actions.strip() else ():
            match = re.fullmatch(r"(c\d{3}) [\d.]+ [\d.]+", action.strip())
            if match is None or match[1] not in classes:
                like = f"actions as 'c092 11.90 21.20;c147 0.00 12.60', of classes in {CHARADES_CLASSES}"
                raise UserError(f"{entries.at(line)}: expected {like}, not {shown(action)}")
            labels.add(codes.index(match[1]))
        if labels:
            entries.add(f"{video.strip()}.mp4", tuple(sorted(labels)), line)
    return entries


def _read_something(listed: _Listed) -> Entries:
    """``train.json`` or ``validation.json``; a file whose name ends in ``labels.json`` beside it has the classes."""
    file = listed.file
    beside = sorted(file.parent.glob("*labels.json"))
    if len(beside) != 1:
        raise UserError(f"{file}: expected one labels.json beside it, found {len(beside)}")
    said = _json(beside[0], dict)
    names = {str(label): name for name, label in said.items()}
    if names.keys() != {str(label) for label in range(len(said))}:
        raise UserError(f"{beside[0]}: expected the labels 0 to {len(said) - 1}, each once")
    classes = [names[str(label)] for label in range(len(names))]
    labels = _numbered(classes, beside[0])
    entries = Entries(file, classes, "video")
    for place, video in enumerate(_json(file, list)):
        said, template = (video.get("id"), video.get("template")) if isinstance(video, dict) else (None, None)
        name = str(said) if type(said) in (str, int) else ""
        if not name or "/" in name or not isinstance(template, str):
            like = "texts as 'id' and 'template', without which a split can't be trained or tested on"
            raise UserError(f"{entries.at(place)}: expected {like}, not {shown(video)}")
        at = f"{file}: video {name}"
        entries.add(f"{name}.webm", _label_of(template.replace("[", "").replace("]", ""), labels, at), place)
    return entries


def _json(file: Path, kind: type) -> Any:
    content = read_json(file, MOST_BYTES)
    if not isinstance(content, kind):
        raise UserError(f"{file}: expected a JSON {'object' if kind is dict else 'list'}")
    return content


def _read_ucf101(listed: _Listed) -> Entries:
    """``trainlist01.txt`` (``class/video label``, from 1) or ``testlist01.txt`` (no label).

    ``classInd.txt`` beside it (``label class``) gives the order of the classes. A class is a video's folder: so lists
    with labels from 0 are understood as well.
    """
    index = listed.file.parent / UCF101_CLASSES
    named: list[tuple[int, str]] = []
    for number, line in _numbered_lines(read_lines(index)):
        label, _, name = line.partition(" ")
        if not (_is_number(label) and name):
            raise UserError(f"{index}:{number}: expected 'label class', not {shown(line)}")
        named.append((int(label), name.strip()))
    labels = sorted(label for label, _ in named)
    if labels not in ([*range(len(named))], [*range(1, len(named) + 1)]):
        raise UserError(f"{index}: expected the labels 1 to {len(named)}, each once, in lines as '1 Archery'")
    entries = Entries(listed.file, [name for _, name in sorted(named)])
    known = _numbered(entries.classes, index)
    for number, line in _numbered_lines(listed.lines):
        name, *numbers = line.replace("\\", "/").split()
        if len(numbers) > 1:
            raise UserError(f"{entries.at(number)}: expected 'class/video label', not {shown(line)}")
        right = _label_of(name.rpartition("/")[0].rpartition("/")[2], known, entries.at(number))
        if numbers and numbers[0] not in (str(right), str(right + 1)):
            there = f"{UCF101_CLASSES} has {right + 1} for {entries.classes[right]}"
            raise UserError(f"{entries.at(number)}: label {shown(numbers[0])}, but {there}")
        entries.add(name, right, number)
    return entries


def _read_hmdb51(listed: _Listed) -> Entries:
    """``<class>_test_split1.txt`` of each class (``video 1`` to train on, 2 to test, 0 for neither)."""
    pattern = os.path.join(glob.escape(str(listed.root)), listed.name)
    files = [Path(file) for file in sorted(glob.glob(pattern))]
    if not files:
        raise UserError(f"{listed.file}: there is no such file; expected one a class, <class>_test_split1.txt")
    side = "1" if listed.split == "train" else "2"
    entries = Entries(listed.file, [file.name.rpartition("_test_split")[0] for file in files])
    for label, entries.file in enumerate(files):
        for number, line in _numbered_lines(read_lines(entries.file)):
            name, digit = _path_and_number(line)
            if not name or digit not in ("0", "1", "2"):
                raise UserError(f"{entries.at(number)}: expected 'video 0', 1 or 2, not {shown(line)}")
            if digit == side:
                entries.add(f"{entries.classes[label]}/{name}", label, number)
    return entries


FORMATS: tuple[tuple[Callable[[_Listed], bool], Callable[[_Listed], Entries]], ...] = (
    (lambda listed: "*" in listed.name, _read_hmdb51),  # one file a class
    (lambda listed: listed.file.suffix == ".json", _read_something),
    (lambda listed: "youtube_id" in listed.header, _read_kinetics),  # -400, -600 and -700
    (lambda listed: {"id", "actions"} <= set(listed.header), _read_charades),  # several labels a video
    (lambda listed: (listed.file.parent / UCF101_CLASSES).exists(), _read_ucf101),
    (lambda listed: True, _read_list),  # as of PySlowFast, mmaction2 and the released code
)
"""Which lists are of a format, and what reads it: the first one that applies."""


def _once(names: Sequence[str], entries: Entries) -> list[int]:
    """The first place of each video."""
    first: dict[str, int] = {}
    for place, name in enumerate(names):
        before = first.setdefault(name, place)
        if entries.labels[before] != entries.labels[place]:
            raise UserError(
                f"{entries.at(entries.numbers[place])}: {name} has the label {entries.labels[place]}, but "
                f"{entries.labels[before]} in {entries.unit} {entries.numbers[before]}"
            )
    if len(first) < len(names):
        again = next(name for place, name in enumerate(names) if first[name] != place)
        rank_zero_warn(
            f"{entries.file}: {len(names) - len(first)} videos are listed again, {again} among them: each is taken once"
        )
    return list(first.values())
