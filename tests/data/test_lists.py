"""List files: what is read, and what is refused."""

from pathlib import Path

import pytest

from nl_lightning.data.lists import read_classes, read_list
from nl_lightning.errors import UserError


def test_a_list_file(tmp_path: Path) -> None:
    """Paths are relative to the list and may hold spaces; the label follows the last space; blank lines don't count."""
    (tmp_path / "list.txt").write_text("a b/c d.mp4 1\n\n/abs/x.mp4 0\n")
    found = read_list(tmp_path / "list.txt", tmp_path, ("first", "second"))
    assert list(found.paths) == [tmp_path / "a b/c d.mp4", Path("/abs/x.mp4")]
    assert found.labels.tolist() == [1, 0]
    assert found.classes == ("first", "second")
    assert len(found) == 2
    assert read_list(tmp_path / "list.txt", tmp_path).classes == ()


@pytest.mark.parametrize("line", ["x.mp4", "x.mp4 one", "x.mp4 -1", " 3", "x.mp4 1.0"])
def test_a_bad_line_is_named_by_file_and_number(line: str, tmp_path: Path) -> None:
    """Neither skipped nor guessed."""
    (tmp_path / "list.txt").write_text(f"a.mp4 0\n{line}\n")
    with pytest.raises(UserError, match=r"list\.txt:2: expected 'path label'"):
        read_list(tmp_path / "list.txt", tmp_path, ("a", "b"))


def test_other_bad_lists(tmp_path: Path) -> None:
    """A label without a class, an empty list and no list."""
    (tmp_path / "list.txt").write_text("a.mp4 2\n")
    with pytest.raises(UserError, match=r"list\.txt:1: label 2, but there are 2 classes, 0 to 1"):
        read_list(tmp_path / "list.txt", tmp_path, ("a", "b"))
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=r"empty\.txt: the list of videos is empty"):
        read_list(tmp_path / "empty.txt", tmp_path)
    with pytest.raises(UserError, match=r"none\.txt: no list of videos"):
        read_list(tmp_path / "none.txt", tmp_path)


def test_class_names(tmp_path: Path) -> None:
    """One a line, names may hold spaces; no file, no names."""
    (tmp_path / "classes.txt").write_text("riding a bike\nabseiling\n")
    assert read_classes(tmp_path / "classes.txt") == ("riding a bike", "abseiling")
    assert read_classes(tmp_path / "none.txt") == ()
