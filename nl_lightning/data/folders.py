"""Class folders as a data set."""

from pathlib import Path

from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError

SUFFIXES = {".mp4", ".avi", ".mkv", ".webm", ".mov", ".mpg", ".mpeg", ".m4v"}


def scan_folder(folder: Path, root: Path) -> VideoList:
    """The videos in the class folders of `folder`, below `root`; classes and videos in alphabetical order.

    Raises:
        UserError: there is no class folder, or no video in them.
    """
    inside = folder.iterdir() if folder.is_dir() else []
    folders = sorted(f for f in inside if f.is_dir() and not f.name.startswith("."))
    found = [
        (path.relative_to(root).as_posix(), label)
        for label, class_folder in enumerate(folders)
        for path in sorted(class_folder.iterdir())
        if path.suffix.lower() in SUFFIXES and not path.name.startswith(".")
    ]
    if not found:
        raise UserError(f"{folder}: expected class folders with videos ({', '.join(sorted(SUFFIXES))}) in it")
    names, labels = zip(*found, strict=True)
    return VideoList.of(root, names, labels, [f.name for f in folders])
