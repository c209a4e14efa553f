"""The official splits of UCF101 and HMDB51, three of each."""

from pathlib import Path

from nl_lightning.data.entries import Entries, label_of, read_text
from nl_lightning.errors import UserError

UCF101_CLASSES = "classInd.txt"
_HMDB51_SIDES = {"0": "", "1": "train", "2": "val"}


def read_ucf101(file: Path) -> Entries:
    """Read ``trainlist01.txt`` (``class/video label``, from 1) or ``testlist01.txt`` (no label).

    ``classInd.txt`` beside it (``label class``) gives the order of the classes. A class is a video's folder: so lists
    with labels from 0 are understood as well.

    Raises:
        UserError: a line names no class, or its label is that of another one.
    """
    lines = [line.split() for line in read_text(file.parent / UCF101_CLASSES).splitlines() if line.strip()]
    classes = tuple(name for _, name in sorted((int(line[0]), line[-1]) for line in lines))
    known = {name: label for label, name in enumerate(classes)}
    entries = Entries([], [], classes)
    for number, line in enumerate(read_text(file).splitlines(), 1):
        if not line.strip():
            continue
        name, *label = line.replace("\\", "/").split()
        right = label_of(name.rpartition("/")[0].rpartition("/")[2], known, f"{file}:{number}")
        if label and label[0] not in (str(right), str(right + 1)):
            raise UserError(
                f"{file}:{number}: label {label[0]}, but {UCF101_CLASSES} has {right + 1} for {classes[right]}"
            )
        entries.names.append(name)
        entries.labels.append(right)
    return entries


def read_hmdb51(root: Path, pattern: str, split: str) -> Entries:
    """Read ``<class>_test_split1.txt`` of each class (``video 1`` to train on, 2 to test, 0 for neither).

    Raises:
        UserError: no file is named so, or a line is not of this form.
    """
    files = sorted(root.glob(pattern))
    if not files:
        raise UserError(f"{root / pattern}: there is no such file; expected one a class, <class>_test_split1.txt")
    side = "train" if split == "train" else "val"
    entries = Entries([], [], tuple(file.name.rpartition("_test_split")[0] for file in files))
    for label, file in enumerate(files):
        for number, line in enumerate(read_text(file).splitlines(), 1):
            name, _, digit = line.strip().rpartition(" ")
            if line.strip() and (not name or digit not in _HMDB51_SIDES):
                raise UserError(f"{file}:{number}: expected 'video 0', 1 or 2, not '{line}'")
            if line.strip() and _HMDB51_SIDES[digit] == side:
                entries.names.append(f"{entries.classes[label]}/{name.strip()}")
                entries.labels.append(label)
    return entries
