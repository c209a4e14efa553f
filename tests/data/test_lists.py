"""List files: what is read, and what is refused."""

from pathlib import Path

import pytest

from nl_lightning.data.lists import read_list
from nl_lightning.errors import UserError

NAMES = ["a b/c d.mp4", "/abs/x, y.mp4", "-_-.mp4"]


@pytest.mark.parametrize(
    "text",
    [
        "a b/c d.mp4 1\n\n/abs/x, y.mp4 0\n-_-.mp4 1\n",
        "a b/c d.mp4,1\n/abs/x, y.mp4,0\n-_-.mp4,1",
        '"a b/c d.mp4", 1\n"/abs/x, y.mp4",0\n  -_-.mp4,  1 ',
        "\ufeffa b/c d.mp4\t1\r\n/abs/x, y.mp4 0\r\n-_-.mp4 1\r\n",
    ],
)
def test_a_list_file(text: str, tmp_path: Path) -> None:
    """With spaces, commas, quotes, tabs, a byte order mark, ends of lines of either kind, and blank lines."""
    (tmp_path / "list.txt").write_bytes(text.encode())
    found = read_list(tmp_path / "list.txt", ("first", "second"))
    assert found == (NAMES, [1, 0, 1], ("first", "second"))
    assert read_list(tmp_path / "list.txt").classes == ()


@pytest.mark.parametrize("line", ["x.mp4", "x.mp4 one", "x.mp4 -1", " 3", "x.mp4 1.0", ",3", "x.mp4,"])
def test_a_bad_line_is_named_by_file_and_number(line: str, tmp_path: Path) -> None:
    """Neither skipped nor guessed."""
    (tmp_path / "list.txt").write_text(f"a.mp4 0\n{line}\n")
    with pytest.raises(UserError, match=r"list\.txt:2: expected 'path label'"):
        read_list(tmp_path / "list.txt", ("a", "b"))


def test_a_label_without_a_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.mp4 2\n")
    with pytest.raises(UserError, match=r"list\.txt:1: label 2, but there are 2 classes, 0 to 1"):
        read_list(tmp_path / "list.txt", ("a", "b"))
