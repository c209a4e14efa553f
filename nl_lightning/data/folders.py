"""The files of a data set: class folders, files whose path was written on another machine, and what lies outside."""

import os
import re
from collections.abc import Callable, Iterator
from functools import cached_property
from pathlib import Path
from typing import TypeVar

from nl_lightning.data.videos import Paths, VideoList
from nl_lightning.errors import UserError

SUFFIXES = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v"}
Key = TypeVar("Key")
_SPLIT = re.compile(r"(?<![a-z])(train|training|val|valid|validate|validation|test)(?![a-z])")
_YOUTUBE = re.compile(r"([\w-]{11})(_\d{6}_\d{6})?")


def scan_folder(folder: Path, root: Path) -> VideoList:
    """The videos in the class folders of `folder`, below `root`; classes and videos in alphabetical order.

    Raises:
        UserError: there is no class folder, or no video in them.
    """
    inside = folder.iterdir() if folder.is_dir() else []
    folders = sorted(f for f in inside if f.is_dir() and not f.name.startswith("."))
    below = folder.relative_to(root).as_posix()
    found = [
        (name if below == "." else f"{below}/{name}", label)
        for label, class_folder in enumerate(folders)
        for name in sorted(f"{class_folder.name}/{file}" for file in os.listdir(class_folder) if is_video(file))
    ]
    if not found:
        raise UserError(f"{folder}: expected class folders with videos ({', '.join(sorted(SUFFIXES))}) in it")
    names, labels = zip(*found, strict=True)
    return VideoList.of(root, names, labels, [f.name for f in folders])


def is_video(file: str) -> bool:
    """By its name: a known ending, and not hidden."""
    return file[file.rfind(".") :].lower() in SUFFIXES and file[0] != "."


def youtube_id(name: str) -> str | None:
    """The id in the name of a file of Kinetics, with or without the seconds at which the clip starts and ends."""
    match = _YOUTUBE.fullmatch(_stem(name))
    return match[1] if match else None


def _stem(name: str) -> str:
    """The name of a file without its ending, or both of them: the released code's lists have ``<id>.mp4.webm``."""
    file = name[name.rfind("/") + 1 :]
    stem = file.rpartition(".")[0] or file
    return stem.rpartition(".")[0] if "." in stem and is_video(stem) else stem


class FilesBelow:
    """All videos below `root`, to be found by the end of their path: what comes before it differs between machines.

    Folders are entered once, so that symbolic links that lead in a circle do no harm.
    """

    def __init__(self, root: Path) -> None:
        self.root = root

    def find(self, name: str, split: str) -> str | None:
        """The name below `root` of the file that `name` means, or None.

        It has the same last folder (a space and ``_`` are the same there) and the same name, whatever its ending, and
        isn't of another split. If `name` has no folder, or is that of a video of YouTube, whose id says enough, the
        name alone is looked for.

        Raises:
            UserError: several files are as good.
        """
        if exact := self._by_file.get(name):
            return exact
        found = self._candidates(name, split)
        if len(found) < 2:
            return found[0] if found else None
        likeness = {f: (_alike(f, name), split in f.lower().rpartition("/")[0]) for f in found}
        best = [f for f in found if likeness[f] == max(likeness.values())]
        if len(best) > 1:
            raise UserError(f"{self.root}: '{name}' may be {best[0]} or {best[1]}; write in the list which")
        return best[0]

    def _candidates(self, name: str, split: str) -> list[str]:
        stem, video = _stem(name), youtube_id(name)
        found = _several(self._by_end.get(_end(name))) if "/" in name else []
        if not video:
            found = [file for file in found if _may_be(file, name, split)]
        if not found and (video or "/" not in name):
            found = _several(self._by_stem.get(stem))
        if not found and video:
            found = [file for file in _several(self._by_id.get(video)) if video in (stem, _stem(file))]
        return found

    @cached_property
    def _by_file(self) -> dict[str, str]:
        """The quick way for a data set in which no name of a file occurs twice."""
        found = {name[name.rfind("/") + 1 :]: name for name in self._names}
        return found if len(found) == len(self._names) else {}

    @cached_property
    def _by_end(self) -> dict[str, str]:
        return self._by(_end)

    @cached_property
    def _by_stem(self) -> dict[str, str]:
        return self._by(_stem)

    @cached_property
    def _by_id(self) -> dict[str | None, str]:
        return self._by(youtube_id)

    def _by(self, key: Callable[[str], Key]) -> dict[Key, str]:
        """The files by a key. Those that share one stand in one text: a list for each of a million takes its time."""
        found: dict[Key, str] = {}
        for name in self._names:
            one = found.setdefault(key(name), name)
            if one is not name:
                found[key(name)] = f"{one}\0{name}"
        return found

    @cached_property
    def _names(self) -> list[str]:
        return list(_walk(self.root))


def _several(found: str | None) -> list[str]:
    return found.split("\0") if found else []


def _walk(root: Path) -> Iterator[str]:
    entered = set()
    for folder, folders, files in os.walk(root, followlinks=True):
        status = os.stat(folder)
        if (status.st_dev, status.st_ino) in entered:
            folders.clear()
            continue
        entered.add((status.st_dev, status.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        below = os.path.relpath(folder, root)
        yield from (file if below == "." else f"{below}/{file}" for file in sorted(files) if is_video(file))


def _may_be(file: str, name: str, split: str) -> bool:
    """Whether no folder says that `file` is of another split than `name` is, be it by its own folders."""
    return not _sides(file) or bool(_sides(file) & (_sides(name) or {split == "train"}))


def _sides(name: str) -> set[bool]:
    """Whether folders above the last one are for training; lists for testing are often those for validation."""
    above = name.lower().rpartition("/")[0].rpartition("/")[0]
    return {word.startswith("train") for word in _SPLIT.findall(above)}


def _end(name: str) -> str:
    """The last folder and the name without ending, as all spellings of them have it."""
    folder = name.rpartition("/")[0].rpartition("/")[2]
    return f"{folder.replace(' ', '_').replace(chr(34), '')}/{_stem(name)}"


def _alike(one: str, other: str) -> int:
    """How many parts of two paths are the same, from the end."""
    pairs = zip(reversed(one.split("/")), reversed(other.split("/")), strict=False)
    return next((same for same, (a, b) in enumerate(pairs) if a != b), 99)


def refuse_outside(paths: Paths) -> None:
    """UserError for a path that leaves the data set's folder, be it by ``..``, as it stands, or by a symbolic link.

    Each folder is looked at once, for its links: files may be many, and on a disk far away.
    """
    root = _real(paths.root)
    outside: dict[str, frozenset[str] | None] = {}
    for name in paths.names():
        folder, _, file = name.rpartition("/")
        if folder not in outside:
            outside[folder] = _links_out(paths.root / (f"{folder}/" if name.startswith("/") else folder), root)
        links = outside[folder]
        if links is None or file in links:
            raise UserError(
                f"{paths.root / name} lies outside of {paths.root}: "
                f"{_real(paths.root / name)}; set data.allow_outside to true if that is meant"
            )


def _links_out(folder: Path, root: Path) -> frozenset[str] | None:
    """The names in `folder` that link to what isn't below `root`; None if the folder itself isn't below it."""
    if not _real(folder).is_relative_to(root):
        return None
    if not folder.is_dir():
        return frozenset()
    with os.scandir(folder) as entries:
        links = [entry.name for entry in entries if entry.is_symlink()]
    return frozenset(name for name in links if not _real(folder / name).is_relative_to(root))


def _real(path: Path) -> Path:
    """Without symbolic links; links in a circle are no error, as they are to pathlib."""
    return Path(os.path.realpath(path))
