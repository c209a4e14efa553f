"""Class folders: what is found."""

from pathlib import Path

import pytest

from nl_lightning.data.folders import scan_folder
from nl_lightning.errors import UserError


def test_class_folders(tmp_path: Path) -> None:
    """Sorted classes and videos, known endings in any case, other files left alone."""
    for name in ("b/2.MP4", "b/1.webm", "a/x.avi", "a/notes.txt", "loose.mp4"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = scan_folder(tmp_path, tmp_path)
    assert found.classes == ("a", "b")
    assert list(found.paths) == [tmp_path / "a/x.avi", tmp_path / "b/1.webm", tmp_path / "b/2.MP4"]
    assert found.labels.tolist() == [0, 1, 1]
    for empty in (tmp_path / "a", tmp_path / "none"):
        with pytest.raises(UserError, match="expected class folders"):
            scan_folder(empty, tmp_path)
