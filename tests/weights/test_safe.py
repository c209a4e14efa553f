"""Files that are small and would become huge, or never end, are refused in seconds; nothing in a file is run."""

import os
import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from nl_lightning.errors import UserError
from nl_lightning.weights.safe import read_others, read_pickle, read_torch


def shared(levels: int) -> dict[str, Any]:
    """Dictionaries of dictionaries: as many values as 2 to the power of the levels, in a few hundred bytes."""
    bomb: dict[str, Any] = {}
    for _ in range(levels):
        bomb = {"a": bomb, "b": bomb}
    return bomb


def nested(levels: int) -> list[Any]:
    inner: list[Any] = []
    for _ in range(levels):
        inner = [inner]
    return inner


class Runs:
    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


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
        (b"\x80\x02(" + b"]" * 1_100_000 + b"l.", "holds more than 1000000 values"),
        (pickle.dumps({"blobs": Runs()}), r"refused: reading it would run posix\.mkdir"),
        (b"cnumpy\nndarray\n((J\xff\xff\xff\x7ftS'f8'\ntR.", "is whole|asks for|MemoryError|neither"),
    ],
    ids=["shared", "long", "code", "array"],
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
