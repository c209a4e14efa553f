"""Where the files of a data set lie: in class folders, and by paths that were written on another machine.

Also how a list compares with those of others: by the number of its videos, and by YouTube's ids.
"""

import itertools
import os
import posixpath
import re
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from pytorch_lightning.utilities import rank_zero_warn

from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError

SUFFIXES = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v"}
COPIES = "decoded"  # the folder of a data set for its decoded copies: it is no class
_DRIVE = re.compile(r"^[A-Za-z]:(?=/)")
_SPLIT = re.compile(r"(?<![a-z])(train|training|val|valid|validate|validation|test)(?![a-z])")
_YOUTUBE = re.compile(r"([\w-]{11})(_\d{6}_\d{6})?")


def ends_as_video(path: str) -> bool:
    """Whether a path has one of the known endings."""
    return path[path.rfind(".") :].lower() in SUFFIXES


def composed(name: str) -> str:
    """A name as Unicode composes it. macOS decomposes names of files, and lists from elsewhere don't."""
    return name if name.isascii() else unicodedata.normalize("NFC", name)


def scan_folder(folder: Path, root: Path) -> VideoList:
    """The videos in the class folders of `folder`, below `root`; classes and videos in alphabetical order.

    A warning says what was passed over: videos outside of class folders, folders within them, and other files.
    UserError if there is no class folder, no video in them, or a class whose videos lie deeper.
    """
    class_folders, loose = _listed(folder)
    below = folder.relative_to(root).as_posix()
    classes, names, labels = list[str](), list[str](), list[int]()
    empty, deeper, others = list[str](), list[str](), list[str]()
    for name in sorted(class_folders, key=composed):
        folders, files = ([f"{name}/{one}" for one in found] for found in _listed(folder / name))
        videos = [file for file in files if ends_as_video(file)]
        if not videos and (example := _deeper(folder, folders)):
            raise UserError(
                f"{folder / name}: the videos of this class lie deeper ({example}), but class folders hold videos, not "
                "folders: move them up, or name them in a list (data.train_list, data.val_list)"
            )
        if videos or name != COPIES:
            names += [file if below == "." else f"{below}/{file}" for file in videos]
            labels += [len(classes)] * len(videos)
            classes.append(composed(name))
            empty += [] if videos else [name]
            deeper += folders
            others += [file for file in files if not ends_as_video(file)]
    passed = {
        "class folders without a video": empty,
        "folders within a class folder": deeper,
        "files that don't end as videos": others,
        "videos outside of class folders": list(filter(ends_as_video, loose)),
    }
    said = "; ".join(f"{len(found)} {what} (such as {found[0]})" for what, found in passed.items() if found)
    if not names:
        expected = f"expected class folders with videos ({', '.join(sorted(SUFFIXES))}) in it"
        raise UserError(f"{folder}: {expected}{f'; found only {said}' if said else ''}")
    if said:
        rank_zero_warn(f"{folder}: {len(names)} videos in {len({*labels})} classes. Passed over: {said}")
    return VideoList.of(root, names, labels, classes)


def _listed(folder: Path) -> tuple[list[str], list[str]]:
    """The folders and the files in a folder that aren't hidden, in alphabetical order; nothing if it isn't there."""
    if not folder.is_dir():
        return [], []
    with os.scandir(folder) as entries:
        is_folder = {entry.name: os.path.isdir(entry) if entry.is_symlink() else entry.is_dir() for entry in entries}
    seen = sorted(name for name in is_folder if name[0] != ".")
    return [name for name in seen if is_folder[name]], [name for name in seen if not is_folder[name]]


def _deeper(folder: Path, folders: Sequence[str]) -> str | None:
    """A video below some folders. Only the first thousand folders are looked into: frames as pictures fill many."""
    walks = itertools.chain.from_iterable(os.walk(folder / name) for name in folders)
    for place, _, files in itertools.islice(walks, 1000):
        for file in filter(ends_as_video, files):
            return f"{os.path.relpath(place, folder)}/{file}"
    return None


def located(listed: Sequence[str], root: Path, split: str) -> list[str]:
    """The name of each file below `root`, see :func:`~nl_lightning.data.annotations.read_annotation`.

    It is the whole path of a file that is there but not below `root`. What isn't found keeps the end of its name.
    """
    files, inside = FilesBelow(root), dict[str, dict[str, str]]()
    roots = tuple({f"{root.absolute()}/", f"{os.path.realpath(root)}/"})
    names = []
    for name in map(_plain, listed):
        folder, _, file = name.rpartition("/")
        if folder not in inside:
            there = os.listdir(root / folder) if folder and os.path.isdir(root / folder) else []
            inside[folder] = {composed(n): n for n in there} | {n: n for n in there}
        found = inside[folder].get(file) or inside[folder].get(composed(file))
        if name.startswith(roots):
            name = next(name.removeprefix(one) for one in roots if name.startswith(one))
        elif not inside[folder] or (not found and youtube_id(file)):
            name = files.find(name, split) or (name if name[0] != "/" else "/".join(name.split("/")[-2:]))
        elif found and found != file:
            name = f"{folder}/{found}"
        names.append(name)
    return names


def _plain(name: str) -> str:
    """A path with ``/``, without drive, ``.`` and what ``..`` undoes."""
    if "\\" in name:
        name = name.replace("\\", "/")
    if ":" in name:
        name = _DRIVE.sub("", name)
    return posixpath.normpath(name) if "./" in name or "//" in name else name


def youtube_id(name: str) -> str | None:
    """The id in the name of a file of Kinetics, with or without the seconds at which the clip starts and ends."""
    match = _YOUTUBE.fullmatch(_stem(name))
    return match[1] if match else None


def _stem(name: str) -> str:
    """The name of a file without its ending, or both of them: the released code's lists have ``<id>.mp4.webm``."""
    file = composed(name[name.rfind("/") + 1 :])
    stem = file.rpartition(".")[0] or file
    return stem.rpartition(".")[0] if "." in stem and ends_as_video(stem) else stem


def videos_below(root: Path) -> list[str]:
    """The names of all videos below a folder, without hidden ones.

    Folders are entered once, so that symbolic links that lead in a circle do no harm.
    """
    names, entered = [], set()
    for folder, folders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = "" if folder == str(root) else f"{os.path.relpath(folder, root)}/"
        names += [f"{below}{file}" for file in sorted(files) if ends_as_video(file) and file[0] != "."]
    return names


class FilesBelow:
    """All videos below `root`, to be found by the end of their path: what comes before it differs between machines."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._tables: dict[Callable[[str], str | None], dict[str | None, list[str]]] = {}

    def find(self, name: str, split: str) -> str | None:
        """The name below `root` of the file that `name` means, or None.

        It has the same last folder (a space and ``_`` are the same there) and the same name, whatever its ending, and
        isn't of another split. If `name` has no folder, or is that of a video of YouTube, whose id says enough, the
        name alone is looked for. UserError if several files are as good.
        """
        found = self._candidates(name, split)
        if len(found) < 2:
            return found[0] if found else None
        likeness = {f: (_alike(f, name), split in f.lower().rpartition("/")[0]) for f in found}
        best = [f for f in found if likeness[f] == max(likeness.values())]
        if len(best) > 1:
            raise UserError(f"{self.root}: '{name}' may be {best[0]} or {best[1]}; write in the list which")
        return best[0]

    def _candidates(self, name: str, split: str) -> list[str]:
        video = youtube_id(name)
        found = self._by(_end, name) if "/" in name else []
        if not video:  # none that is in a folder of another split
            sides = _sides(name) or {split == "train"}
            found = [file for file in found if not _sides(file) or _sides(file) & sides]
        if not found and (video or "/" not in name):
            found = self._by(_stem, name)
        if not found and video:
            found = [file for file in self._by(youtube_id, name) if video in (_stem(name), _stem(file))]
        return found

    def _by(self, key: Callable[[str], str | None], name: str) -> list[str]:
        """The files with the key of `name`."""
        if key not in self._tables:
            table = self._tables[key] = defaultdict(list)
            for file in self._names:
                table[key(file)].append(file)
        return self._tables[key].get(key(name), [])

    @cached_property
    def _names(self) -> list[str]:
        return videos_below(self.root)


def _sides(name: str) -> set[bool]:
    """Whether folders above the last one are for training; lists for testing are often those for validation."""
    above = name.lower().rpartition("/")[0].rpartition("/")[0]
    return {word.startswith("train") for word in _SPLIT.findall(above)}


def _end(name: str) -> str:
    """The last folder and the name without ending, as all spellings of them have it."""
    folder = composed(name.rpartition("/")[0].rpartition("/")[2])
    return f"{folder.replace(' ', '_').replace(chr(34), '')}/{_stem(name)}"


def _alike(one: str, other: str) -> int:
    """How many parts of two paths are the same, from the end."""
    pairs = zip(reversed(composed(one).split("/")), reversed(composed(other).split("/")), strict=False)
    return next((same for same, (a, b) in enumerate(pairs) if a != b), 99)


class Published(NamedTuple):
    """A list whose number of videos is known."""

    data: str
    split: str
    videos: int
    whose: str
    source: str  # who says so


_RELEASE, _MMACTION2 = "facebookresearch/video-nonlocal-net DATASET.md", "open-mmlab/mmaction2 tools/data/kinetics"
_CVDF = "cvdfoundation/kinetics-dataset #51"
_K600, _K700 = "FiftyOne's documentation, Kinetics 600", "FiftyOne's documentation, Kinetics 700-2020"
_AUTHORS = "the data set's authors"
PUBLISHED = (
    Published("Kinetics-400", "train", 246_535, _AUTHORS, _RELEASE),
    Published("Kinetics-400", "train", 241_258, "CVDF", _CVDF),
    Published("Kinetics-400", "train", 240_436, "mmaction2", _MMACTION2),
    Published("Kinetics-400", "train", 234_643, "the released code", _RELEASE),
    Published("Kinetics-400", "val", 19_907, _AUTHORS, "activitynet/ActivityNet #38"),
    Published("Kinetics-400", "val", 19_881, "CVDF", _CVDF),
    Published("Kinetics-400", "val", 19_796, "mmaction2", _MMACTION2),
    Published("Kinetics-400", "val", 19_761, "the released code", _RELEASE),
    Published("Kinetics-400", "val", 18_434, "Tushar-N/pytorch-resnet3d", "Tushar-N/pytorch-resnet3d README"),
    Published("Kinetics-400", "val", 17_747, f"{_AUTHORS}, later", "MCG-NJU/VideoMAE #94"),
    Published("Kinetics-600", "train", 427_549, "CVDF", _K600),
    Published("Kinetics-600", "train", 383_393, "mmaction2", _MMACTION2),
    Published("Kinetics-600", "train", 370_582, f"{_AUTHORS}, later", _K600),
    Published("Kinetics-600", "val", 29_793, "CVDF", _K600),
    Published("Kinetics-600", "val", 28_313, f"{_AUTHORS}, later", _K600),
    Published("Kinetics-600", "val", 27_910, "mmaction2", _MMACTION2),
    Published("Kinetics-700", "train", 542_357, "mmaction2", _MMACTION2),
    Published("Kinetics-700", "val", 34_824, "mmaction2", _MMACTION2),
    Published("Kinetics-700-2020", "train", 534_073, "CVDF", _K700),
    Published("Kinetics-700-2020", "val", 33_914, "CVDF", _K700),
    Published("UCF101", "train", 9_537, "split 1", "the data set's trainlist01.txt"),
    Published("UCF101", "train", 9_586, "split 2", "the data set's trainlist02.txt"),
    Published("UCF101", "train", 9_624, "split 3", "the data set's trainlist03.txt"),
    Published("UCF101", "val", 3_783, "split 1", "the data set's testlist01.txt"),
    Published("UCF101", "val", 3_734, "split 2", "the data set's testlist02.txt"),
    Published("UCF101", "val", 3_696, "split 3", "the data set's testlist03.txt"),
    Published("HMDB51", "train", 3_570, "each split", "70 videos of each of 51 classes"),
    Published("HMDB51", "val", 1_530, "each split", "30 videos of each of 51 classes"),
    Published("Something-Something v2", "train", 168_913, _AUTHORS, "their train.json"),
    Published("Something-Something v2", "val", 24_777, _AUTHORS, "their validation.json"),
)
"""Lists of testing are under ``val``, as videos for testing are those of the validation in all these data sets."""


def said_of(videos: int, split: str) -> str:
    """One line on a count: which published list it is, or comes within 5 % of: videos of YouTube vanish."""
    side = "train" if split.startswith("train") else "val"
    one = min((one for one in PUBLISHED if one.split == side), key=lambda one: abs(one.videos - videos))
    if abs(one.videos - videos) > 0.05 * one.videos:
        return f"{split}: {videos:,} videos, as many as in no list that is known"
    name = f"{one.data} {one.split} of {one.whose} ({one.source})"
    if one.videos == videos:
        return f"{split}: {videos:,} videos, as many as in {name}"
    difference = f"{abs(videos - one.videos):,} {'fewer' if videos < one.videos else 'more'} than"
    return f"{split}: {videos:,} videos, {difference} the {one.videos:,} of {name}"


def overlap(first: Iterable[str], second: Iterable[str]) -> tuple[int, int, int, int]:
    """Count YouTube's ids in the names of two lists of files, whatever the folders, times and endings.

    Those in both, in the first only, in the second only; and the names in either that hold no id.
    """
    one, other = ([youtube_id(name) for name in names] for names in (first, second))
    ids, others = {*one} - {None}, {*other} - {None}
    return len(ids & others), len(ids - others), len(others - ids), one.count(None) + other.count(None)
