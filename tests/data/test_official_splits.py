"""The split files of UCF101 and HMDB51."""

from pathlib import Path

import pytest

from nl_lightning.data.official_splits import read_hmdb51, read_ucf101
from nl_lightning.errors import UserError

CLASSES = ("Archery", "ApplyLipstick", "Basketball")


@pytest.fixture
def ucf101(tmp_path: Path) -> Path:
    (tmp_path / "classInd.txt").write_text("".join(f"{i} {name}\r\n" for i, name in enumerate(CLASSES, 1)))
    return tmp_path


@pytest.mark.parametrize("labels", [(" 1", " 3"), (" 0", " 2"), ("", "")])
def test_ucf101(labels: tuple[str, str], ucf101: Path) -> None:
    """Training lists have labels from 1, testing lists have none, other people's have labels from 0."""
    names = ["Archery/v_Archery_g01_c01.avi", "UCF-101/Basketball/v_Basketball_g02_c01.avi"]
    (ucf101 / "list.txt").write_text("\r\n".join(n + label for n, label in zip(names, labels, strict=True)) + "\r\n")
    assert read_ucf101(ucf101 / "list.txt") == (names, [0, 2], CLASSES)


def test_ucf101_of_other_classes_is_refused(ucf101: Path) -> None:
    (ucf101 / "list.txt").write_text("Archery/v_Archery_g01_c01.avi 3\n")
    with pytest.raises(UserError, match=r"list\.txt:1: label 3, but classInd\.txt has 1 for Archery"):
        read_ucf101(ucf101 / "list.txt")
    (ucf101 / "list.txt").write_text("Archry/v_Archery_g01_c01.avi 1\n")
    with pytest.raises(UserError, match=r"list\.txt:1: no class 'Archry'; did you mean 'Archery'"):
        read_ucf101(ucf101 / "list.txt")


def test_hmdb51(tmp_path: Path) -> None:
    """1 is to train on, 2 to test, 0 for neither; names hold whatever names can."""
    (tmp_path / "clap_test_split2.txt").write_text("#1 a(b)_nm.avi 1 \nx;y_nm.avi 2 \nz.avi 0 \n")
    (tmp_path / "brush_hair_test_split2.txt").write_text("A!.avi 2\n\n")
    (tmp_path / "clap_test_split1.txt").write_text("other.avi 1\n")
    assert read_hmdb51(tmp_path, "*_test_split2.txt", "train") == (["clap/#1 a(b)_nm.avi"], [1], ("brush_hair", "clap"))
    for split in ("val", "test"):
        found = read_hmdb51(tmp_path, "*_test_split2.txt", split)
        assert found[:2] == (["brush_hair/A!.avi", "clap/x;y_nm.avi"], [0, 1])
    with pytest.raises(UserError, match=r"\*_test_split3\.txt: there is no such file"):
        read_hmdb51(tmp_path, "*_test_split3.txt", "train")
    (tmp_path / "clap_test_split2.txt").write_text("a.avi 1\nb.avi 3\n")
    with pytest.raises(UserError, match=r"clap_test_split2\.txt:2: expected 'video 0', 1 or 2"):
        read_hmdb51(tmp_path, "*_test_split2.txt", "train")
