"""Shards are WebDataset's, and give back what was packed by place."""

import hashlib
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from nl_lightning.data import decoding
from nl_lightning.data.annotations import read_annotation
from nl_lightning.data.files import Files
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.shards import Shards, pack
from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError


@pytest.fixture
def splits(small_videos: Path) -> dict[str, VideoList]:
    """Three splits, with an absent video, and two splits that are one."""
    val = read_annotation("val.txt", small_videos, "val")
    train = VideoList.of(small_videos, [*list(val.paths.names())[:3], "no/such.mp4"], [1, 2, 3, 4])
    return {"train": train, "val": val, "test": val}


@pytest.fixture
def shards(splits: dict[str, VideoList], small_videos: Path, tmp_path: Path) -> Shards:
    assert pack(splits, small_videos, tmp_path / "packed", 100_000) == (11, ["no/such.mp4"])
    return Shards(tmp_path / "packed", Path("elsewhere"))


def test_lists_come_from_the_shards(shards: Shards, splits: dict[str, VideoList]) -> None:
    for split, videos in splits.items():
        found = shards.videos(split)
        assert found.listed() == videos.listed()
        assert found.classes == videos.classes
    with pytest.raises(UserError, match="has no split 'other'"):
        shards.videos("other")


def test_frames_are_those_of_the_files(shards: Shards, splits: dict[str, VideoList], small_videos: Path) -> None:
    files, indices = Files(Path("elsewhere"), shards=shards), np.array([30, 2])
    for name in splits["val"].paths.names():
        assert files.is_present(Path("elsewhere") / name)
        expected = decoding.frames(small_videos / name, indices)
        assert np.array_equal(files.frames(Path("elsewhere") / name, indices), expected)
    assert not files.is_present(Path("elsewhere/no/such.mp4"))
    with pytest.raises(DecodeError, match=r"no/such\.mp4: not in the shards"):
        files.num_frames(Path("elsewhere/no/such.mp4"))
    files.helper.end()


def test_webdataset_reads_them(shards: Shards, splits: dict[str, VideoList], small_videos: Path) -> None:
    """In a process of its own, as it leaves files open."""
    tars = sorted(map(str, shards.folder.glob("*.tar")))
    assert len(tars) > 1
    program = (
        "import hashlib, webdataset\n"
        f"for sample in webdataset.WebDataset({tars}, shardshuffle=False):\n"
        "    print(hashlib.sha256(sample['mp4']).hexdigest(), int(sample['cls']))\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    labels = dict(splits["val"].listed()) | dict(splits["train"].listed()[:3])  # the first split's
    hashes = [hashlib.sha256((small_videos / name).read_bytes()).hexdigest() for name in labels]
    assert sorted(done.stdout.splitlines()) == sorted(map("{} {}".format, hashes, labels.values()))


def test_packed_twice_or_halfway(shards: Shards, splits: dict[str, VideoList], small_videos: Path) -> None:
    with pytest.raises(UserError, match="holds a packed data set already"):
        pack(splits, small_videos, shards.folder, 100_000)
    (shards.folder / "index.parquet").unlink()
    with pytest.raises(UserError, match="data.shards: no packed data set in"):
        Shards(shards.folder, Path("elsewhere"))
    assert pack(splits, small_videos, shards.folder, 10_000_000)[0] == 11
    assert [tar.name for tar in shards.folder.glob("*.tar")] == ["000000.tar"]
