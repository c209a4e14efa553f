"""A manifest keeps what was found, gives it back for the same version of a file, and never for another."""

import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from nl_lightning.data import decoding, packets
from nl_lightning.data.manifest import Finding, Manifest, read_findings, write_manifest
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.tools.check import survey
from nl_lightning.data.tools.prepare import write_mp4
from nl_lightning.data.videos import Paths
from nl_lightning.errors import UserError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Three videos, one of them broken, and their manifest, which also names an absent one."""
    for i in range(3):
        pictures = np.random.default_rng(i).integers(0, 256, (30, 32, 32, 3), np.uint8)
        write_mp4(tmp_path / f"{i}.mp4", pictures, 25)
    (tmp_path / "1.mp4").write_bytes(b"nothing")
    names = [*(f"{i}.mp4" for i in range(3)), "absent.mp4"]
    rows = [survey(tmp_path / name, Finding(name, name[0], (5,), "train"), False) for name in names]
    write_manifest(tmp_path / "census.parquet", rows)
    assert read_findings(tmp_path / "census.parquet") == rows
    return tmp_path


def test_what_is_known_is_what_the_packets_say(root: Path) -> None:
    known = Manifest(root / "census.parquet").facts("2.mp4")
    real = packets.index_of(root / "2.mp4")
    assert known is not None
    assert known.index is not None
    assert real.times is not None
    assert (known.index.count, known.index.objection, known.error) == (real.count, "", "")
    assert np.array_equal(known.index.times, real.times)
    assert np.array_equal(known.index.keys, real.keys)
    assert np.array_equal(
        decoding.frames(root / "2.mp4", [29, 3], facts=known), decoding.frames(root / "2.mp4", [29, 3])
    )


def test_only_the_same_version_of_a_file_is_known(root: Path) -> None:
    manifest = Manifest(root / "census.parquet")
    known, broken = manifest.facts("0.mp4"), manifest.facts("1.mp4")
    assert known is not None
    assert broken is not None
    other = replace(known, index=packets.Index(7, None, np.empty(0, np.int64), ""))
    assert decoding.num_frames(root / "0.mp4", other) == 7  # it is believed
    with pytest.raises(DecodeError, match="1.mp4: Invalid data"):
        decoding.num_frames(root / "1.mp4", broken)
    os.utime(root / "0.mp4", ns=(0, 0))
    assert decoding.num_frames(root / "0.mp4", other) == 30
    (root / "1.mp4").write_bytes((root / "0.mp4").read_bytes())
    assert decoding.num_frames(root / "1.mp4", broken) == 30


def test_bad_files_by_number_unless_they_were_mended(root: Path) -> None:
    manifest, paths = Manifest(root / "census.parquet"), Paths(root, ["2.mp4", "absent.mp4", "1.mp4", "unknown.mp4"])
    bad = manifest.bad(paths)
    assert list(bad) == [1, 2]
    assert bad[1] == "No such file or directory"
    assert bad[2].startswith("Invalid data")
    assert manifest.counts(paths) == (2, 1)  # the unknown one was never looked at
    (root / "1.mp4").write_bytes((root / "0.mp4").read_bytes())
    assert list(manifest.bad(paths)) == [1]
    assert manifest.facts("unknown.mp4") is None


def test_a_file_of_1970_is_present(tmp_path: Path) -> None:
    rows = [Finding("a.mp4", "a", (5,), "test", bytes=9), Finding("b.mp4", "b", (5,), "test", error="absent")]
    write_manifest(tmp_path / "census.parquet", rows)
    assert Manifest(tmp_path / "census.parquet").counts(Paths(tmp_path, ["a.mp4", "b.mp4"])) == (1, 1)


def test_files_that_were_never_looked_at_are_no_error(root: Path) -> None:
    """As of a list that is newer than the census."""
    manifest, paths = Manifest(root / "census.parquet"), Paths(root, ["unknown.mp4"])
    assert (manifest.counts(paths), manifest.content(paths)) == ((0, 0), "")
    assert manifest.content(Paths(root, ["unknown.mp4", "absent.mp4"])) == " 0\n"


def test_irregular_times_are_not_kept(root: Path) -> None:
    rows = read_findings(root / "census.parquet")
    write_manifest(root / "census.parquet", [replace(rows[0], times=(), keys=())])
    known = Manifest(root / "census.parquet").facts("0.mp4")
    assert known is not None
    assert known.index is None
    assert decoding.num_frames(root / "0.mp4", known) == 30


def test_what_is_no_manifest_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_text("path\n")
    with pytest.raises(UserError, match=r"x\.parquet: not a manifest \(.*\): delete it; nl-lightning data check"):
        Manifest(tmp_path / "x.parquet")


@pytest.mark.parametrize(
    ("column", "values", "said"),
    [
        ("keys", None, r"it has no column 'keys' of list"),
        ("frames", ["7"] * 4, "it has no column 'frames' of int64"),
        ("error", [None, "", "", ""], "its column 'error' has holes"),
        ("times", [[None, 1]] * 4, "its column 'times' has holes"),
        ("times", [[1, 2, 3]] * 4, r"what it says of 0\.mp4 can't be"),
        ("frames", [-1] * 4, r"what it says of 0\.mp4 can't be"),
        ("frames", [10**15] * 4, r"what it says of 0\.mp4 can't be"),
    ],
)
def test_a_table_of_somebody_else_is_refused(column: str, values: list[object] | None, said: str, root: Path) -> None:
    file = root / "census.parquet"
    table = pq.read_table(file).drop_columns(column)
    pq.write_table(table if values is None else table.append_column(column, pa.array(values)), file)
    with pytest.raises(UserError, match=rf"census\.parquet: .*{said}"):
        Manifest(file)


def test_rows_of_an_older_census_are_for_reading_only(root: Path) -> None:
    """Training goes on with them; a new census reads the files anew."""
    file = root / "census.parquet"
    pq.write_table(pq.read_table(file).replace_schema_metadata(None), file)
    assert Manifest(file).facts("2.mp4") is not None
    assert read_findings(file) == []
