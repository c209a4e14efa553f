"""Annotations of every kind, recognised by themselves, to files on this machine."""

from pathlib import Path

import pytest

from nl_lightning.data.annotations import read_annotation
from nl_lightning.errors import UserError

ID = "-abcdefghij"


def made(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


@pytest.mark.parametrize(
    ("lists", "asked", "file"),
    [
        ({"val.csv": f'label,youtube_id,time_start,time_end,split\n"b c",{ID},10,20,val\na,x,0,1,val'}, "val.csv", ""),
        ({"val.csv": f"b_c/{ID}.mp4,1"}, "val.csv", ""),
        ({"val.txt": f"b_c/{ID}.mp4 1"}, "val.txt", ""),
        ({"val.txt": f"/scratch/someone/val_256/b_c/{ID}.mp4 1"}, "val.txt", ""),
        ({"val.txt": f"D:\\kinetics\\val\\b c\\{ID}.mp4 1"}, "val.txt", ""),
        ({"sub/val.txt": f"b_c/{ID}.mp4 1"}, "sub/val.txt", ""),
        ({"split/classInd.txt": "1 a\n2 b_c", "split/testlist01.txt": f"b_c/{ID}.mp4"}, "split/testlist01.txt", ""),
        ({"s/a_test_split1.txt": "x 0", "s/b_c_test_split1.txt": f"{ID}.mp4 2"}, "s/*_test_split1.txt", ""),
        ({"labels.json": '{"a": "0", "b c": "1"}', "val.json": '[{"id": "7", "template": "b [c]"}]'}, "val.json", "7"),
    ],
)
@pytest.mark.parametrize("folder", ["val/b c/", "b_c/"])
def test_every_kind_finds_its_file(lists: dict[str, str], asked: str, file: str, folder: str, tmp_path: Path) -> None:
    """The same video, however it is annotated and wherever it lies."""
    there = f"{folder}{file or ID}.mp4"
    made(tmp_path, there, *lists)
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    found = read_annotation(asked, tmp_path, "val").listed()
    if "csv" in asked and "youtube_id" in lists[asked]:
        assert found == [(there, 1), ("x_000000_000001.mp4", 0)]
    else:
        assert found == [(there, 1)]


def test_paths_are_written_as_they_lie_below_the_root(tmp_path: Path) -> None:
    """So that the hash of a list is the same everywhere; what isn't there keeps its place in the list."""
    (tmp_path / "link").symlink_to(tmp_path / "data")
    made(tmp_path, "data/a/1.avi", "data/a/2.avi", "out/3.avi")
    names = ["./a//1.avi", f"{tmp_path}/data/a/2.avi", "a/gone.avi", "/gone/with/it.avi", "lost/4.avi"]
    (tmp_path / "data/list.txt").write_text("".join(f"{name} {i}\n" for i, name in enumerate(names)))
    for root in (tmp_path / "data", tmp_path / "link"):
        found = read_annotation("list.txt", root, "train")
        assert list(found.paths.names()) == ["a/1.avi", "a/2.avi", "a/gone.avi", "with/it.avi", "lost/4.avi"]
    (tmp_path / "data/list.txt").write_text(f"{tmp_path}/out/3.avi 0\n../out/3.avi 1\n")
    found = read_annotation("list.txt", tmp_path / "data", "train")
    assert list(found.paths.names()) == [f"{tmp_path}/out/3.avi", "../out/3.avi"]


def test_a_video_that_is_listed_again_counts_once(tmp_path: Path) -> None:
    """In whatever spelling; with two labels it is refused, as one of them is wrong."""
    made(tmp_path, "a/1.avi")
    (tmp_path / "list.txt").write_text("a/1.avi 1\na/2.avi 0\na\\1.avi 1\n./a/1.avi 1\n")
    with pytest.warns(UserWarning, match=r"list\.txt: 2 videos are listed again, a/1\.avi among them"):
        assert read_annotation("list.txt", tmp_path, "train").listed() == [("a/1.avi", 1), ("a/2.avi", 0)]
    (tmp_path / "list.txt").write_text("a/1.avi 1\na/1.avi 0\n")
    with pytest.raises(UserError, match=r"list\.txt: a/1\.avi is listed twice, with the labels 1 and 0"):
        read_annotation("list.txt", tmp_path, "train")


def test_no_list_and_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=r"empty\.txt: the list of videos is empty"):
        read_annotation("empty.txt", tmp_path, "train")
    with pytest.raises(UserError, match=r"none\.txt: no list of videos"):
        read_annotation("none.txt", tmp_path, "train")
