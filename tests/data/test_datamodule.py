"""Order, splits, classes, views in memory, and what is said of unreadable videos."""

import math
import os
import shutil
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from tiny_charades import write_tiny_charades
from video_files import write

from nl_lightning.data import decoding
from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.data.shards import write_shards
from nl_lightning.data.tools.check import take_census
from nl_lightning.errors import UserError

SMALL: dict[str, Any] = {
    "num_frames": 4, "short_side": (36, 36), "crop": 32, "test_short_side": 36, "test_crop": 32, "num_clips": 2,
    "num_crops": 3, "batch_size": 8, "test_batch_size": 3,
}  # fmt: skip


@pytest.fixture
def root(tmp_path: Path, small_videos: Path) -> Path:
    shutil.copytree(small_videos, tmp_path / "videos")
    return tmp_path / "videos"


def module(root: Path, **kwargs: Any) -> VideoDataModule:
    lists = {"train_list": "train.txt", "val_list": "val.txt", "test_list": "test.txt"}
    return VideoDataModule(str(root), **{**SMALL, **lists, **kwargs})


def test_more_workers_than_cores_are_no_warning(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0})
    assert next(iter(module(root, num_workers=2).train_dataloader())).views is not None


def census(root: Path) -> None:
    take_census(module(root).splits(), root, root / "census.parquet", 1, False)


@pytest.mark.parametrize("way", ["decoded copy", "census", "shards, by a worker"])
def test_frames_that_come_another_way_give_the_same_batches(way: str, root: Path, tmp_path: Path) -> None:
    plain = module(root)
    if way == "decoded copy":
        other = module(root, decoded_copy=True)
    elif way == "census":
        census(root)
        (root / "census.parquet").rename(tmp_path / "elsewhere.parquet")
        other = module(root, manifest=str(tmp_path / "elsewhere.parquet"))
    else:
        write_shards(plain.splits(), root, tmp_path / "packed", 1_000_000)
        other = module(root, shards=str(tmp_path / "packed"), num_workers=1)
    other.prepare_data()
    for stage in ("fit", "test"):
        other.setup(stage)
    assert other.videos("test").listed() == plain.videos("test").listed()
    for loader in ("train_dataloader", "val_dataloader", "test_dataloader"):
        for one, two in zip(getattr(plain, loader)(), getattr(other, loader)(), strict=True):
            assert torch.equal(one.views, two.views)
            assert torch.equal(one.label, two.label)
            assert one.path == two.path


def test_official_splits_have_copies_of_their_own(root: Path) -> None:
    """Two runs on one data set would decode it in turns for ever. The folder of copies is no class."""
    (root / "list1.txt").write_text((root / "val.txt").read_text())
    (root / "list2.txt").write_text((root / "test.txt").read_text())
    lists = dict.fromkeys(("train_list", "val_list", "test_list"), "list{fold}.txt")
    for seed in (0, 1):
        module(root, **lists, folds=2, seed=seed)._copy("val").make()
    names = {"val_split1.npy", "val_split1.json", "val_split2.npy", "val_split2.json"}
    assert {file.name for file in (root / "decoded").iterdir()} == names
    (root / "decoded").rename(root / "val" / "decoded")
    assert "decoded" not in module(root, val_list=None).videos("val").classes


def test_views_of_testing_are_clip_by_clip_and_channels_last(root: Path) -> None:
    data = module(root)
    batch = data.on_after_batch_transfer(next(iter(data.test_dataloader())), 0)
    assert batch.views.shape == (3, 6, 3, 4, 32, 32)
    assert batch.views[0].is_contiguous(memory_format=torch.channels_last_3d)
    crops = batch.views[0].unflatten(0, (2, 3))  # clips, crops
    assert torch.equal(crops[0, 0][..., 2:], crops[0, 1][..., :-2])  # crops lie 2 pixels apart, in the width of 36
    assert not torch.equal(crops[0], crops[1])


def test_the_last_training_batch_is_whole(root: Path) -> None:
    assert [len(batch.label) for batch in module(root).train_dataloader()] == [8, 8, 8, 8]  # of 33 videos


def test_class_folders_serve_as_well_as_lists(root: Path) -> None:
    listed, scanned = module(root), module(root, train_list=None, val_list=None, test_list=None)
    for split in ("train", "val", "test"):
        one, two = listed.videos(split), scanned.videos(split)
        named = {path: one.classes[label] for path, label in zip(one.paths, one.labels, strict=True)}
        assert named == {path: two.classes[label] for path, label in zip(two.paths, two.labels, strict=True)}
    shutil.rmtree(root / "test")
    assert module(root, train_list=None, val_list=None, test_list=None).videos("test").paths[0].parts[-3] == "val"


def test_splits_with_other_classes_are_refused(root: Path) -> None:
    (root / "val" / "look_0").rename(root / "val" / "glance")
    data = module(root, train_list=None, val_list=None, test_list=None)
    with pytest.raises(UserError, match="classes of train and val differ: glance, look_0"):
        data.setup("fit")


def test_how_many_labels_a_video_has_is_said_alike_by_data_and_model(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"videos of train have one label each: set model\.multi_label"):
        module(root, multi_label=True).setup("fit")
    write_tiny_charades(tmp_path)
    lists = {"train_list": "Charades_v1_train.csv", "val_list": "Charades_v1_test.csv", "test_list": None}
    several = module(tmp_path / "charades", multi_label=True, num_classes=4, **lists)
    several.setup("fit")
    batch = next(iter(several.train_dataloader()))
    labels = [several.videos("train").label(video) for video in batch.video.tolist()]
    assert [tuple(row.nonzero()[:, 0].tolist()) for row in batch.label] == labels
    with pytest.raises(UserError, match=r"videos of train have several labels each: set model\.multi_label"):
        module(tmp_path / "charades", **lists).setup("fit")
    with pytest.raises(UserError, match=r"has 4 classes, but the network 5: set model\.net\.num_classes"):
        module(tmp_path / "charades", multi_label=True, num_classes=5, **lists).setup("fit")


def test_labels_beyond_the_networks_classes_are_refused(root: Path) -> None:
    module(root, num_classes=11).setup("fit")
    with pytest.raises(UserError, match="train has the label 10, but the network 10 classes, 0 to 9"):
        module(root, num_classes=10).setup("fit")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"crop": 40}, "data.short_side is 36 to 36 and data.crop 40"),
        ({"short_side": (36, 34)}, "data.short_side is 36 to 34"),
        ({"test_crop": 40}, "data.test_crop is 40, larger than data.test_short_side, 36"),
        ({"num_crops": 2}, "data.num_crops is 2"),
        ({"folds": 0}, "data.folds is 0: expected at least 1"),
        ({"crop": 0}, "data.crop is 0: expected at least 1"),
        ({"test_crop": -5}, "data.test_crop is -5: expected at least 1"),
        ({"test_short_side": 10**12}, "data.test_short_side is 1000000000000: expected at most 10,000"),
        ({"short_side": (0, 36)}, r"data.short_side is \(0, 36\): expected at least 1"),
        *(
            ({name: 0}, f"data.{name} is 0: expected at least 1")
            for name in ("num_frames", "frame_stride", "num_clips", "batch_size", "test_batch_size", "num_classes")
        ),
        *(
            ({name: 10**15}, f"data.{name} is 10{{15}}: expected at most")
            for name in ("num_frames", "frame_stride", "num_clips", "batch_size", "num_classes", "seed")
        ),
        ({"num_workers": -1}, "data.num_workers is -1: expected at least 0"),
        ({"max_unreadable": 200.0}, "data.max_unreadable is 200.0: expected at most 1"),
        ({"max_unreadable": math.nan}, "data.max_unreadable is nan: expected at least 0"),
        ({"decode_seconds": math.nan}, "data.decode_seconds is nan: expected at least 0.01"),
        ({"decode_seconds": math.inf}, "data.decode_seconds is inf: expected at most 1,000,000"),
        ({"seed": -1}, "data.seed is -1: expected at least 0"),
    ],
)
def test_settings_that_cannot_be_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        module(Path("unread"), **wrong)


def test_class_folders_without_splits_are_split(root: Path, tmp_path: Path) -> None:
    plain = {"train_list": None, "val_list": None, "test_list": None}
    data = module(root / "train", **plain, batch_size=1)
    with pytest.raises(UserError, match="fewer than five videos in each class"):
        data.setup("fit")
    for number in range(10):
        shutil.copy(next((root / "train" / "look_0").iterdir()), root / "train" / "look_0" / f"copy{number}.mp4")
    data = module(root / "train", **plain)
    train, val = data.videos("train"), data.videos("val")
    assert not set(train.paths) & set(val.paths)
    assert len(train) + len(val) == 43
    assert [train.classes[label] for label in val.labels] == ["look_0"] * 2
    assert data.videos("test") is val


def test_whole_frames_are_one_view_a_clip(root: Path) -> None:
    """Sec. 4, inference; validation keeps to centre crops of the training size, so that its batches are of one size."""
    data = module(root, test_crop="whole", num_crops=1, test_batch_size=1, test_short_side=40)
    batch = next(iter(data.test_dataloader()))
    assert batch.views.shape == (1, 2, 4, 40, 40, 3)
    assert next(iter(data.val_dataloader())).views.shape == (8, 1, 4, 32, 32, 3)
    path = data.videos("test").paths[0]
    path.write_bytes(b"")
    unreadable = next(iter(data.test_dataloader()))
    assert not unreadable.readable[0]
    assert unreadable.views.shape == (1, 2, 4, 40, 40, 3)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"num_crops": 3, "test_batch_size": 1}, "data.num_crops is 3, but data.test_crop is whole"),
        ({"num_crops": 1, "test_batch_size": 2}, "data.test_crop is whole, and videos differ in size"),
    ],
)
def test_whole_frames_go_with_one_crop_and_one_video(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        module(Path("unread"), test_crop="whole", **wrong)


def test_a_census_leaves_bad_videos_out_of_training(root: Path) -> None:
    """The others are trained on in whole batches; in testing a bad one still counts, without being opened again."""
    broken = module(root).videos("train").paths[3], module(root).videos("test").paths[5]
    for path in broken:
        path.write_bytes(b"nothing")
    census(root)
    with pytest.raises(UserError, match=r"1 of 33 train videos can't be used, train/.* names all\. More than 1%"):
        module(root).setup("fit")
    data = module(root, max_unreadable=0.1)
    with pytest.warns(UserWarning, match=r"1 of 33 train videos can't be used, .*: left out"):
        data.setup("fit")
    too_few = r"data\.batch_size is 33, .* has 32 train and .* expected at most 32"
    with pytest.warns(UserWarning, match="left out"), pytest.raises(UserError, match=too_few):
        module(root, max_unreadable=0.1, batch_size=33).setup("fit")
    batches = list(data.train_dataloader())
    assert all(batch.readable.all() for batch in batches)
    assert str(broken[0]) not in [path for batch in batches for path in batch.path]
    assert data.found("train") == (33, 32)
    with pytest.warns(UserWarning, match=r"1 of 22 test videos can't be used, .*: counted as wrong"):
        data.setup("test")
    readable = torch.cat([batch.readable for batch in data.test_dataloader()])
    assert readable.sum() == 21
    assert not readable[5]


def test_pixels_are_made_square_if_that_is_asked_for(tmp_path: Path) -> None:
    square = decoding.frames(write(tmp_path / "a.mp4", aspect=Fraction(3, 2)), [0], square_pixels=True)
    assert np.array_equal(module(tmp_path, square_pixels=True).files.frames(tmp_path / "a.mp4", np.array([0])), square)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"decoder": "pyva"}, "data.decoder is 'pyva'; did you mean 'pyav'"),
        ({"square_pixels": True, "decoder": "decord"}, "data.square_pixels needs PyAV"),
        ({"square_pixels": True, "decoded_copy": True}, "data.decoded_copy keeps pictures as they are stored"),
        ({"shards": "none"}, "data.shards: no packed data set in none"),
        ({"manifest": "none"}, "none: not a manifest"),
    ],
)
def test_what_cannot_be_read_with_is_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        _ = module(Path("unread"), **wrong).files


def test_too_little_shared_memory_is_said_before_workers_start(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "statvfs", lambda place: SimpleNamespace(f_bavail=0, f_frsize=1))
    module(root).setup("fit")
    with pytest.raises(UserError, match="/dev/shm has room for 0 MB, and 2 workers"):
        module(root, num_workers=2).setup("fit")


def test_a_seed_stands_for_an_official_split(root: Path) -> None:
    """Splits in turn, as the number in the names of the lists; the test list is that of the same split."""
    for fold in (1, 2, 3):
        for side in ("train", "test"):
            (root / f"{side}list0{fold}.txt").write_text(f"{side}/look_0/{fold}.mp4 8\n")
    lists = {"train_list": "trainlist0{fold}.txt", **dict.fromkeys(("val_list", "test_list"), "testlist0{fold}.txt")}
    for seed, fold in enumerate((1, 2, 3, 1)):
        data = module(root, **lists, folds=3, seed=seed)
        assert data.videos("train").listed() == [(f"train/look_0/{fold}.mp4", 8)]
        assert data.videos("test").listed() == [(f"test/look_0/{fold}.mp4", 8)]


def test_videos_outside_of_the_root_are_taken_only_if_that_is_allowed(root: Path, tmp_path: Path) -> None:
    """Listed or in class folders."""
    (root / "val" / "classes.txt").write_text((root / "classes.txt").read_text())
    (root / "val" / "train.txt").write_text("../train/look_0/x.mp4 0\n")
    listed = module(root / "val")
    (tmp_path / "linked").mkdir()
    for split in ("train", "val"):
        (tmp_path / "linked" / split).symlink_to(root / split)
    folders = module(tmp_path / "linked", train_list=None, val_list=None, test_list=None)
    for data in (listed, folders):
        with pytest.raises(UserError, match="lies outside of .* set data.allow_outside to true"):
            data.videos("train")
        data.allow_outside = True
        assert len(data.videos("train"))


def test_nothing_is_written_to_a_data_set_that_is_there(root: Path) -> None:
    """So that it may be read-only: neither indices nor copies are kept in it unless they are asked for."""
    before = sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*"))
    data = module(root)
    data.prepare_data()
    data.setup("fit")
    next(iter(data.train_dataloader()))
    next(iter(data.test_dataloader()))
    assert sorted((path, path.stat().st_mtime_ns) for path in root.rglob("*")) == before


def test_classes_without_a_video_to_train_on_are_named(root: Path) -> None:
    lines = (root / "train.txt").read_text().splitlines(keepends=True)
    (root / "train.txt").write_text("".join(line for line in lines if "look_0" not in line))
    with pytest.warns(UserWarning, match="no video to train on of 1 classes that val has, look_0 among them"):
        module(root).setup("fit")
