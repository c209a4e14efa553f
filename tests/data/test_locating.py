"""The files of a data set: what is found in class folders, by the end of a path, and what lies outside."""

import unicodedata
from pathlib import Path

import pytest

from nl_lightning.data.locating import PUBLISHED, FilesBelow, overlap, said_of, scan_folder
from nl_lightning.data.videos import Paths, refuse_outside
from nl_lightning.errors import UserError


def made(root: Path, *names: str) -> Path:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_class_folders(tmp_path: Path) -> None:
    """Sorted classes and videos, known endings in any case; hidden files and decoded copies are no matter."""
    made(tmp_path, "b/2.MP4", "b/1.webm", "a/x.avi", "a/.DS_Store", ".git/y.mp4", "list.txt", "decoded/train.npy")
    found = scan_folder(tmp_path, tmp_path)
    assert found.classes == ("a", "b")
    assert list(found.paths) == [tmp_path / "a/x.avi", tmp_path / "b/1.webm", tmp_path / "b/2.MP4"]
    assert found.labels.tolist() == [0, 1, 1]
    for empty in (tmp_path / "a", tmp_path / "none"):
        with pytest.raises(UserError, match="expected class folders with videos"):
            scan_folder(empty, tmp_path)
    made(tmp_path, "decoded/1.mp4")
    with pytest.warns(UserWarning, match=r"1 files that don't end as videos \(such as decoded/train\.npy\)"):
        assert scan_folder(tmp_path, tmp_path).classes == ("a", "b", "decoded")


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("a/notes.txt", r"1 files that don't end as videos \(such as a/notes\.txt\)"),
        ("a/g1/y.mp4", r"1 folders within a class folder \(such as a/g1\)"),
        ("loose.mp4", r"1 videos outside of class folders \(such as loose\.mp4\)"),
        ("c/.keep", r"1 class folders without a video \(such as c\)"),
    ],
)
def test_what_is_passed_over_is_said(file: str, said: str, tmp_path: Path) -> None:
    made(tmp_path, "a/1.mp4", "b/2.mp4", file)
    with pytest.warns(UserWarning, match=f"2 videos in 2 classes. Passed over: {said}$"):
        found = scan_folder(tmp_path, tmp_path)
    assert list(found.paths.names()) == ["a/1.mp4", "b/2.mp4"]
    assert found.classes == (("a", "b", "c") if file.startswith("c/") else ("a", "b"))


def test_a_class_whose_videos_lie_deeper_is_refused(tmp_path: Path) -> None:
    """Be it one of several or all of them: without a word it would be a class that is never seen."""
    made(tmp_path, "mixed/a/0.mp4", "mixed/b/g1/v0.mp4", "nested/b/g1/v0.mp4", "loose/1.mp4")
    for root in ("mixed", "nested"):
        with pytest.raises(UserError, match=rf"{root}/b: the videos of this class lie deeper \(b/g1/v0\.mp4\)"):
            scan_folder(tmp_path / root, tmp_path)
    with pytest.raises(UserError, match=r"found only 1 videos outside of class folders \(such as 1\.mp4\)"):
        scan_folder(tmp_path / "loose", tmp_path)


def test_classes_have_one_order_whether_their_names_are_composed_or_not(tmp_path: Path) -> None:
    """Decomposed, 'é' sorts before 'f'; composed, after it. Labels would differ between machines."""
    names = ["é", "f", "z"]
    for form in ("NFC", "NFD"):
        root = made(tmp_path / form, *(f"{unicodedata.normalize(form, name)}/1.mp4" for name in names))
        found = scan_folder(root, root)
        assert found.classes == ("f", "z", "é")
        assert next(iter(found.paths.names())) == "f/1.mp4"
        assert all(path.exists() for path in found.paths)


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
    with pytest.warns(UserWarning, match=r"1 folders within a class folder \(such as a/b\)"):
        found = scan_folder(tmp_path, tmp_path).paths
    assert list(found.names()) == ["a/1.avi"]
    (tmp_path / "a" / "2.avi").symlink_to("2.avi")
    refuse_outside(Paths(tmp_path, ["a/1.avi", "a/2.avi", "c/1.avi", "a/b/a/b/a/1.avi"]))


def test_no_two_published_lists_of_a_split_have_one_number() -> None:
    """Else the number wouldn't tell them apart."""
    assert len({(one.split, one.videos) for one in PUBLISHED}) == len(PUBLISHED)
    assert {one.split for one in PUBLISHED} == {"train", "val"}


@pytest.mark.parametrize(
    ("videos", "split", "said"),
    [
        (19_761, "val", "val: 19,761 videos, as many as in Kinetics-400 val of the released code (facebookresearch"),
        (19_796, "test", "test: 19,796 videos, as many as in Kinetics-400 val of mmaction2"),
        (19_880, "val", "val: 19,880 videos, 1 fewer than the 19,881 of Kinetics-400 val of CVDF"),
        (
            234_700,
            "train",
            "train: 234,700 videos, 57 more than the 234,643 of Kinetics-400 train of the released code",
        ),
        (9_537, "train", "train: 9,537 videos, as many as in UCF101 train of split 1"),
        (600, "val", "val: 600 videos, as many as in no list that is known"),
        (0, "train", "train: 0 videos, as many as in no list that is known"),
        # A part of a data set is nobody's list, only because there happens to be one of a similar size.
        (1_530, "val", "val: 1,530 videos, as many as in HMDB51 val of each split"),
        (1_400, "val", "val: 1,400 videos, as many as in no list that is known"),
        (1_530, "train", "train: 1,530 videos, as many as in no list that is known"),
    ],
)
def test_the_closest_list_is_named(videos: int, split: str, said: str) -> None:
    assert said_of(videos, split).startswith(said)


def test_lists_are_compared_by_id() -> None:
    """Names differ in folder, times and ending; a name without an id is counted, and left out."""
    first = ["val/abseiling/-abcdefghij_000010_000020.mp4", "00000000000.mp4", "a/v_Archery_g01_c01.avi"]
    second = ["/scratch/abseiling/-abcdefghij.mp4", "00000000001_000000_000010.mkv"]
    assert overlap(first, second) == (1, 1, 1, 1)
    assert overlap([], second) == (0, 0, 2, 0)
