"""Files that are small and would become huge, or never end, are refused in seconds; nothing in a file is run."""

import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from weight_files import Runs, shared

from nl_lightning.errors import UserError
from nl_lightning.weights import safe
from nl_lightning.weights.safe import read_others, read_pickle, read_torch


def nested(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


@pytest.fixture(autouse=True)
def few_values(monkeypatch: pytest.MonkeyPatch) -> None:
    """Bombs of any size go off after as many values as may be: a fiftieth takes a fiftieth of the time."""
    monkeypatch.setattr(safe, "MOST_VALUES", 20_000)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (shared(40), "holds too many values within each other"),
        (nested(100), "holds too many values within each other"),
        ({"state_dict": {"a": torch.zeros(1).expand(1 << 40)}}, "asks for 4398046511104 bytes of memory"),
        ({"state_dict": Runs()}, r"refused: reading it would run posix\.mkdir"),
    ],
    ids=["shared", "nested", "expanded", "code"],
)
@pytest.mark.parametrize("archive", [True, False], ids=["archive", "of before 1.6"])
def test_bombs_of_pytorch_are_refused(
    content: Any, message: str, archive: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=archive)
    for read in (read_torch, read_others):
        with pytest.raises(UserError, match=message):
            read(tmp_path / "x.pt")
    assert not (tmp_path / "ran").exists()


def test_an_archive_with_parts_larger_than_itself_is_refused(tmp_path: Path) -> None:
    torch.save({"a": torch.zeros(3)}, tmp_path / "whole.pt")
    with zipfile.ZipFile(tmp_path / "whole.pt") as whole, zipfile.ZipFile(tmp_path / "x.pt", "w", 8) as packed:
        for part in whole.infolist():
            packed.writestr(part.filename, bytes(1 << 20) if "/data/" in part.filename else whole.read(part))
    with pytest.raises(UserError, match="its parts are larger than"):
        read_torch(tmp_path / "x.pt")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (pickle.dumps({"blobs": shared(40)}), "holds too many values within each other"),
        (b"\x80\x02(" + b"]" * 22_000 + b"l.", "holds more than 20000 values"),
        (pickle.dumps({"blobs": Runs()}), r"refused: reading it would run posix\.mkdir"),
        (b"cnumpy\nndarray\n((J\xff\xff\xff\x7ftS'f8'\ntR.", "is whole|asks for|MemoryError|neither"),
        (b"\x80\x02cnumpy\nndarray\nJ\xff\xff\xff\x7f\x85R.", "asks for an array without its numbers"),
        (
            b"\x80\x02cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nJ\xff\xff\xff\x7f\x85U\x01b\x87R.",
            "asks for an array",
        ),
        (
            b"\x80\x02cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x0bV2000000000K\x00K\x01\x87R\x85R.",
            "is it whole",
        ),
        (b"\x80\x02]r\xff\xff\xff\x7f.", "numbers more than 20000 values"),
        (b"\x80\x02c_codecs\nencode\nU\x01aU\x03zip\x86R.", "asks for the encoding 'zip'"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 16 << 30) + b"a.", "is it whole"),
        (b"\x80\x05\x96" + struct.pack("<Q", 16 << 30) + b"a.", "is it whole"),
    ],
    ids=["shared", "long", "code", "array", "ndarray", "reconstruct", "scalar", "memo", "codec", "bytes", "bytearray"],
)
def test_bombs_of_plain_pickles_are_refused_by_both_readers(
    content: bytes, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "x.pkl").write_bytes(content)
    for read in (read_pickle, read_others):
        with pytest.raises(UserError, match=message):
            read(tmp_path / "x.pkl")
    with pytest.raises(UserError, match=f"{message}|is no file of PyTorch"):
        read_torch(tmp_path / "x.pkl")
    assert not (tmp_path / "ran").exists()


def test_scalars_and_arrays_of_numpy_are_read(tmp_path: Path) -> None:
    """Of any order of bytes, and as numpy pickles them today and did for Python 2."""
    content = {"lr": np.float32(0.1), "a": np.arange(6, dtype=">f4").reshape(2, 3), "n": np.int64(7)}
    for protocol in (0, 2, 4):
        raw = pickle.dumps(content, protocol)
        for written in (raw, raw.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")):
            (tmp_path / "x.pkl").write_bytes(written)
            if protocol == 4 and written is not raw:
                continue  # its names stand behind their lengths
            read = read_pickle(tmp_path / "x.pkl")
            assert (read["lr"], read["n"]) == (np.float32(0.1), 7)
            assert read["a"].tolist() == [[0, 1, 2], [3, 4, 5]]


def test_a_plain_pickle_is_no_file_of_pytorch(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": np.zeros(3)}, 2))
    assert read_others(tmp_path / "x.pkl")["a"].tolist() == [0, 0, 0]
    with pytest.raises(UserError, match="is no file of PyTorch"):
        read_torch(tmp_path / "x.pkl")


@pytest.mark.parametrize("read", [read_torch, read_pickle, read_others])
def test_what_is_no_file_is_said_in_a_line(read: Any, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path, message in (
        (tmp_path, "expected a file, got a folder"),
        (tmp_path / "pipe", "expected a file, got a device"),
        (tmp_path / "nowhere", "there is no file"),
        (tmp_path / ("x" * 300), "can't be read: File name too long"),
        (Path("a\0b"), "can't be read: "),
    ):
        with pytest.raises(UserError, match=message):
            read(path)
