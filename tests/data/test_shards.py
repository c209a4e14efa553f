"""Shards are WebDataset's, and give back what was packed by place."""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import webdataset

from nl_lightning.data import decoding
from nl_lightning.data.annotations import read_annotation
from nl_lightning.data.datasets import Files
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.shards import Shards, write_shards
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
    assert write_shards(splits, small_videos, tmp_path / "packed", 100_000) == (11, ["no/such.mp4"])
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


def test_packed_twice(shards: Shards, splits: dict[str, VideoList], small_videos: Path) -> None:
    with pytest.raises(UserError, match="holds a packed data set already"):
        write_shards(splits, small_videos, shards.folder, 100_000)


def test_a_stopped_one_goes_on_behind_the_last_whole_shard(
    splits: dict[str, VideoList], small_videos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "packed"
    write_shards(splits, small_videos, tmp_path / "whole", 30_000)
    written, left = webdataset.ShardWriter.write, iter(range(7))

    def write(self: webdataset.ShardWriter, sample: dict[str, object]) -> None:
        if next(left, None) is None:
            raise KeyboardInterrupt
        written(self, sample)

    with monkeypatch.context() as patched:
        patched.setattr(webdataset.ShardWriter, "write", write)
        with pytest.raises(KeyboardInterrupt):
            write_shards(splits, small_videos, folder, 30_000)
    assert not list(folder.glob("*.tar"))
    half = sorted((folder / ".nl-lightning-unfinished").glob("*.tar"))
    kept, times = half[:-1], [file.stat().st_mtime_ns for file in half[:-1]]
    assert kept
    half[-1].write_bytes(half[-1].read_bytes()[:-2000])
    assert write_shards(splits, small_videos, folder, 30_000) == (11, ["no/such.mp4"])
    assert [(folder / file.name).stat().st_mtime_ns for file in kept] == times
    for file in sorted((tmp_path / "whole").glob("*.tar")):
        assert file.read_bytes() == (folder / file.name).read_bytes()
    assert not (folder / ".nl-lightning-unfinished").exists()


def test_a_name_with_odd_bytes_is_packed(small_videos: Path, tmp_path: Path) -> None:
    name = os.fsdecode(b"a\xff.mp4")
    shutil.copy(next(small_videos.glob("val/*/*.mp4")), tmp_path / name)
    assert write_shards({"val": VideoList.of(tmp_path, [name], [0])}, tmp_path, tmp_path / "packed", 1) == (1, [])


def test_tars_of_somebody_else_stay(splits: dict[str, VideoList], small_videos: Path, tmp_path: Path) -> None:
    (tmp_path / "thesis.tar").write_text("precious")
    with pytest.raises(UserError, match=r"thesis\.tar is there already, and isn't of this data set: name another"):
        write_shards(splits, small_videos, tmp_path, 100_000)
    assert (tmp_path / "thesis.tar").read_text() == "precious"


@pytest.mark.parametrize("name", ["../000000.tar", "/tmp/000000.tar", "..", "x.mp4", "000000.tar\0", "000001.tar"])
def test_an_index_that_leads_elsewhere(name: str, shards: Shards) -> None:
    (shards.folder / "000001.tar").unlink()
    (shards.folder / "000001.tar").symlink_to("/etc/passwd")
    change(shards, shard=[name] * 26)
    with pytest.raises(UserError, match=r"index\.parquet: expected shards within .*packed, as 000000\.tar, got"):
        Shards(shards.folder, Path("elsewhere"))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"classes": None}, "classes"),
        ({"classes": b"{"}, "classes: isn't JSON"),
        ({"classes": b'{"val": [1]}'}, r"classes: val\[0\]: expected a text, got 1"),
        ({"label": [2**40] * 26}, "expected numbers from 0 to 2147483647 as label"),
        ({"start": [-1] * 26}, "expected numbers from 0 to"),
        ({"size": [None, *range(25)]}, r"not an index of shards \(its column 'size' has holes\)"),
        ({"path": [1] * 26}, r"not an index of shards \(it has no column 'path' of string\)"),
    ],
)
def test_an_index_of_somebody_else(changes: dict[str, object], said: str, shards: Shards) -> None:
    change(shards, **changes)
    with pytest.raises(UserError, match=rf"index\.parquet: .*{said}"):
        Shards(shards.folder, Path("elsewhere"))


def change(shards: Shards, **changes: object) -> None:
    """Write the index with other columns, or other metadata."""
    table = pq.read_table(shards.folder / "index.parquet")
    classes = changes.pop("classes", table.schema.metadata[b"classes"])
    for name, values in changes.items():
        table = table.set_column(table.column_names.index(name), name, pa.array(values))
    pq.write_table(
        table.replace_schema_metadata(None if classes is None else {"classes": classes}),
        shards.folder / "index.parquet",
    )
