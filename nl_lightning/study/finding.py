"""Where studies and recipes lie: found by name, in the working folder or in the package, or by their path."""

import contextlib
import filecmp
import functools
from collections.abc import Callable
from pathlib import Path

from nl_lightning.errors import UserError, nearest, say
from nl_lightning.study.files import reason


def experiments_folders() -> list[Path]:
    """Where studies and recipes are looked for: ./experiments, then those that come with the package."""
    return [folder for folder in (Path("experiments"), shipped(Path("experiments"))) if folder.is_dir()]


def paper_tables() -> list[str]:
    """The names of the studies that are a table of a paper: ``table2`` and so on, here and in the package."""
    files = [file for folder in experiments_folders() for file in folder.glob("table[0-9]*.yaml")]
    return sorted({one.stem for one in files if one.stem[5:].isdecimal()}, key=lambda name: (len(name), name))


def shipped(folder: Path) -> Path:
    """A folder that comes with the package: inside it in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def find_study(name_or_path: str | Path) -> Path:
    """The file of a study: ``table2`` is ``experiments/table2.yaml``; a path is taken as it is."""
    return find(name_or_path, experiments_folders, "study")


def find(name_or_path: str | Path, folders: Callable[[], list[Path]], what: str) -> Path:
    """The YAML file of this name in one of the folders, or at this path. UserError with the nearest name."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not is_file(path):
            raise UserError(f"no {what} at {path}")
        return path
    searched = folders()
    if found := [file for folder in searched if is_file(file := folder / f"{path}.yaml")]:
        _say_whose(*found)
        return found[0]
    known = [file.stem for folder in searched for file in sorted(folder.glob("*.yaml"))]
    absent = "" if Path("experiments").is_dir() else "; there is no folder 'experiments' here"
    raise UserError(f"no {what} '{path}' in {' or '.join(map(str, searched))}{nearest(str(path), known)}{absent}")


@functools.cache
def _say_whose(taken: Path, *others: Path) -> None:
    """Say once that a file of the user's stands for one of the package, where the two differ."""
    with contextlib.suppress(OSError):  # one that can't be read is refused by its reader
        if not all(filecmp.cmp(taken, other, shallow=False) for other in others):
            say(f"{taken} is taken in place of nl-lightning's own '{taken.stem}'")


def is_file(path: Path) -> bool:
    """Whether there is a file; UserError if a name can't be one."""
    try:
        return path.is_file()
    except (OSError, ValueError) as error:  # a name of 300 letters, or with a NUL
        raise UserError(f"{path}: can't be read: {reason(error)}") from None
