"""Class folders: what is found."""

from pathlib import Path

import pytest

from nl_lightning.data.folders import FilesBelow, refuse_outside, scan_folder
from nl_lightning.data.videos import Paths
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


def made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_files_are_found_by_the_end_of_a_path(tmp_path: Path) -> None:
    """Whatever lies before it, however a class is spelled, and by the id alone where it is one of YouTube's."""
    names = [
        "val_256/air drumming/-abcdefghij_000010_000020.mp4", "flat/00000000000.mp4", "train/a/1.avi", "val/b/1.avi",
        "train/c/2.avi", "val/c/2.avi", ".hidden/a/9.avi",
    ]  # fmt: skip
    files = FilesBelow(made(tmp_path, *names))
    for name, split, found in (
        ("/scratch/val_256/air_drumming/-abcdefghij_000010_000020.mp4", "val", names[0]),
        ("-abcdefghij_000010_000020.mp4", "val", names[0]),
        ("/scratch/val_256/air_drumming/-abcdefghij.mp4", "val", names[0]),
        ("air_drumming/-abcdefghij_000011_000021.mp4", "val", None),
        ("/x/juggling/00000000000_000010_000020.mkv", "val", names[1]),
        ("a/1.avi", "train", names[2]),
        ("a/1.avi", "val", None),
        ("/scratch/val_256/air_drumming/-abcdefghij.mp4.webm", "val", names[0]),
        ("b/1.mp4", "test", names[3]),
        ("b/1.mp4", "train", None),
        ("x/1.avi", "train", None),
        ("c/2.avi", "train", names[4]),
        ("c/2.avi", "val", names[5]),
        ("old/train/c/2.avi", "val", names[4]),
        ("a/9.avi", "train", None),
    ):
        assert files.find(name, split) == found, name
    assert files.find("c/2.avi", "test") == names[5]
    files = FilesBelow(made(tmp_path, "new/d/2.avi", "old/d/2.avi"))
    with pytest.raises(UserError, match=r"'x/d/2\.avi' may be new/d/2\.avi or old/d/2\.avi"):
        files.find("x/d/2.avi", "train")


def test_links_in_a_circle_do_no_harm(tmp_path: Path) -> None:
    made(tmp_path, "a/1.avi")
    (tmp_path / "a" / "b").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to(tmp_path / "c")
    assert FilesBelow(tmp_path).find("1.avi", "train") == "a/1.avi"
    found = scan_folder(tmp_path, tmp_path).paths
    assert list(found.names()) == ["a/1.avi"]
    (tmp_path / "a" / "2.avi").symlink_to("2.avi")
    refuse_outside(Paths(tmp_path, ["a/1.avi", "a/2.avi", "c/1.avi", "a/b/a/b/a/1.avi"]))


@pytest.mark.parametrize(
    "name", ["../x.avi", "a/../../x.avi", "{}/elsewhere/x.avi", "out/x.avi", "a/link.avi", "../nowhere/x.avi"]
)
def test_what_leaves_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    """By `..`, as a whole path, by a link to a folder, by a link to a file; links that stay inside are none of it."""
    root = made(tmp_path, "data/a/1.avi", "elsewhere/x.avi", "x.avi") / "data"
    (root / "out").symlink_to(tmp_path / "elsewhere")
    (root / "a" / "link.avi").symlink_to(tmp_path / "x.avi")
    (root / "in").symlink_to(root / "a")
    (root / "a" / "in.avi").symlink_to("1.avi")
    (tmp_path / "linked").symlink_to(root)
    inside = ["a/1.avi", "in/1.avi", "a/in.avi", "a/absent.avi", "absent/1.avi", "b.avi"]
    for place in (root, tmp_path / "linked"):
        refuse_outside(Paths(place, inside))
        with pytest.raises(UserError, match=r"\.avi lies outside of .* set data\.allow_outside to true"):
            refuse_outside(Paths(place, [*inside, name.format(tmp_path)]))
