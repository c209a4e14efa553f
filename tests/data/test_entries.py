"""Texts and class names that annotations rest on."""

from pathlib import Path

import pytest

from nl_lightning.data.entries import label_of, read_classes, read_text
from nl_lightning.errors import UserError


def test_class_names(tmp_path: Path) -> None:
    """One a line, names may hold spaces and stand in quotes; no file, no names; a name counts once."""
    (tmp_path / "classes.txt").write_bytes(b'\xef\xbb\xbf"riding a bike"\r\nabseiling\r\n')
    assert read_classes(tmp_path / "classes.txt") == ("riding a bike", "abseiling")
    assert read_classes(tmp_path / "none.txt") == ()
    (tmp_path / "classes.txt").write_text("a\nb\na\n")
    with pytest.raises(UserError, match=r"classes\.txt: the class 'a' is named twice"):
        read_classes(tmp_path / "classes.txt")


def test_a_class_that_is_not_there_is_named_with_the_nearest() -> None:
    assert label_of("archery", {"archery": 5}, "list:1") == 5
    with pytest.raises(UserError, match="list:2: no class 'archry'; did you mean 'archery'?"):
        label_of("archry", {"archery": 5, "bowling": 6}, "list:2")


def test_what_is_no_text_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_bytes("ü".encode("latin-1"))
    for name in ("list.txt", "none.txt"):
        with pytest.raises(UserError, match=f"{name}: no list of videos can be read here"):
            read_text(tmp_path / name)
