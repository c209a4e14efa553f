"""The index: that it is what it was made from, below the data set's folder, and that it keeps no objects."""

import gc
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from nl_lightning.data.videos import (
    Names,
    Paths,
    VideoList,
    below,
    every_fifth,
    mirrored_labels,
    refuse_outside,
    same_classes,
)
from nl_lightning.errors import UserError
from nl_lightning.study.records import videos_hash

ROOT = Path("/data/set")
NAMES = ["a b/c.mp4", "-x.mp4", "\u00fc/\u4e2d.mp4", os.fsdecode(b"\xff.mp4"), "", "/elsewhere/y.mp4"]


def videos(count: int = 6, classes: tuple[str, ...] = ("a", "b", "c")) -> VideoList:
    return VideoList.of(ROOT, [f"{i}.mp4" for i in range(count)], [i % 3 for i in range(count)], classes)


def test_paths_are_those_that_went_in() -> None:
    """Whatever characters they have, those that aren't Unicode included; and after a journey to another process."""
    for paths in (Paths(ROOT, NAMES), pickle.loads(pickle.dumps(Paths(ROOT, NAMES)))):
        assert list(paths) == [ROOT / name for name in NAMES]
        assert list(paths.names()) == NAMES
        assert [paths.name(i) for i in range(-6, 0)] == NAMES
        assert list(paths.take([4, 2])) == [ROOT / NAMES[4], ROOT / NAMES[2]]
        assert len(paths) == 6
        for outside in (6, -7):
            with pytest.raises(IndexError):
                paths[outside]
    assert list(Paths(ROOT, [])) == []


def test_no_object_is_kept_for_a_video() -> None:
    """Workers would copy each of them: looking at an object writes its reference count."""
    gc.collect()
    before = len(gc.get_objects())
    index = VideoList.of(ROOT, [f"{i}.mp4" for i in range(10_000)], range(10_000))
    gc.collect()
    assert len(gc.get_objects()) - before < 100
    assert len(pickle.dumps(index)) < 10_000 * 30


def test_a_list_is_known_by_names_and_labels() -> None:
    """The same wherever the data set lies, and as records of older versions have it."""
    found = videos(2)
    assert found.listed() == [("0.mp4", 0), ("1.mp4", 1)]
    assert videos_hash(found.listed()) == videos_hash([(below(path, ROOT), k) for k, path in enumerate(found.paths)])
    assert videos_hash([(NAMES[3], 0)]) != videos_hash([(NAMES[2], 0)])
    assert below(Path("/elsewhere/y.mp4"), ROOT) == "/elsewhere/y.mp4"


def test_videos_may_have_several_labels_each() -> None:
    index = VideoList.of(ROOT, ["a.mp4", "b.mp4", "c.mp4"], [(0, 2), (1,), (0, 1, 2)], ("x", "y", "z"))
    assert index.multi_label
    assert not videos().multi_label
    assert index.listed() == [("a.mp4", (0, 2)), ("b.mp4", (1,)), ("c.mp4", (0, 1, 2))]
    assert index.take(np.array([2, 0])).listed() == [("c.mp4", (0, 1, 2)), ("a.mp4", (0, 2))]
    assert index.take(np.array([], np.int64)).listed() == []
    assert index.labels_beyond(index.take(np.array([0]))) == ["y"]
    one = VideoList.of(ROOT, ["a.mp4", "b.mp4", "c.mp4"], [(0, 2), (1,), (0, 1)], ("x", "y", "z"))
    assert videos_hash(index.listed()) != videos_hash(one.listed())


def test_every_fifth_of_a_class_is_for_validation() -> None:
    labels = np.random.default_rng(0).permutation([0] * 11 + [1] * 4 + [2] * 5)
    index = VideoList.of(ROOT, [f"{i}.mp4" for i in range(20)], labels, ("a", "b", "c"))
    train, val = every_fifth(index)
    assert sorted(train.listed() + val.listed(), key=index.listed().index) == index.listed()
    assert val.listed() == sorted(val.listed(), key=index.listed().index)
    assert val.labels.tolist().count(0) == 2
    assert set(val.labels) == {0, 2}
    assert val.classes == train.classes == ("a", "b", "c")
    for name, _ in val.listed():
        video = int(name.removesuffix(".mp4"))
        assert (labels[: video + 1] == labels[video]).sum() % 5 == 0


def test_splits_with_other_classes_are_refused() -> None:
    """The classes that only one split has are named; another order is a difference too."""
    train, val = videos(), videos(1, ("a", "b", "d"))
    same_classes(train, videos(2), "val")
    with pytest.raises(UserError, match="the classes of train and val differ: c, d"):
        same_classes(train, val, "val")
    with pytest.raises(UserError, match="their order"):
        same_classes(train, videos(1, ("b", "a", "c")), "val")


def test_a_mirrored_video_is_of_the_class_with_the_other_side() -> None:
    """As of Something-Something v2; a class whose counterpart nobody asked for isn't to be mirrored."""
    classes = (
        "Pulling something from left to right", "Holding something", "Pulling something from right to left",
        "Turning the camera left", "turn_right", "turn_left", "right hook", "leftover bright",
    )  # fmt: skip
    assert mirrored_labels(classes).tolist() == [2, 1, 0, -1, 5, 4, -1, 7]
    assert mirrored_labels(()).tolist() == []
    assert mirrored_labels(("sign L", "sign R")).tolist() == [0, 1]  # of an alphabet
    of_one_word = ("turnLeft", "LeftToRight", "TURN_LEFT", "turnRight", "RightToLeft", "TURN_RIGHT", "Brightness")
    assert mirrored_labels(of_one_word).tolist() == [3, 4, 5, 0, 1, 2, 6]


def test_classes_that_only_another_list_has() -> None:
    assert videos(6).labels_beyond(videos(2)) == ["c"]
    assert videos(6, ()).labels_beyond(videos(1, ())) == ["1", "2"]
    assert videos(2).labels_beyond(videos(6)) == []


@pytest.mark.parametrize(
    "name", ["../x.avi", "a/../../x.avi", "{}/elsewhere/x.avi", "out/x.avi", "a/link.avi", "../nowhere/x.avi"]
)
def test_what_leaves_the_folder_is_refused(name: str, tmp_path: Path) -> None:
    """By `..`, as a whole path, by a link to a folder, by a link to a file; links that stay inside are none of it."""
    for file in ("data/a/1.avi", "elsewhere/x.avi", "x.avi"):
        (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / file).touch()
    root = tmp_path / "data"
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


def test_rows_are_found_by_name_and_nothing_else_is() -> None:
    names = [f"class {i % 7}/video_{i}.mp4" for i in range(1000)]
    found = Names(names)
    assert [found.row(name) for name in names] == list(range(1000))
    assert found.row("class 0/video_1.mp4") is None
    assert Names([]).row("x") is None
    assert Names(["\udcff.mp4"]).row("\udcff.mp4") == 0  # a name that is no UTF-8
