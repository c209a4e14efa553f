"""A decoded copy of a small data set: every frame of every video in one memory-mapped array.

For sets of small clips, where decoding takes as long as a training step. The copy is made once, through the real
decoder, and made again when a file of the set has changed.
"""

import json
import os
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nl_lightning.data import decoding
from nl_lightning.data.decoding import Frames
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.reader import by_helpers
from nl_lightning.errors import UserError, bars
from nl_lightning.study import border
from nl_lightning.study.files import whole_file, write_atomically
from nl_lightning.study.lock import waiting_for

VERSION = 2
"""Raise it whenever decoding gives other pixels for some file: older copies are then made again."""
KEYS = {"files", "errors"}
"""What the index of every version has."""
DECODE = "nl_lightning.data.decoding.all_frames"
"""What a helper calls."""


class DecodedCopy:
    """All frames of `paths`, which must have one size and length; a :class:`~nl_lightning.data.datasets.Reader`.

    Args:
        file: the array's file, ``<name>.npy``: uint8 (videos, T, H, W, 3). Beside it, ``<name>.json`` says of which
            files it is, written last.
        paths: the videos, in the array's order.
        seconds: after which a file is given up.
    """

    def __init__(self, file: Path, paths: Sequence[Path], seconds: float = 120.0) -> None:
        self.file, self.index, self.paths, self.seconds = file, file.with_suffix(".json"), paths, seconds
        self.row = {path: row for row, path in enumerate(paths)}
        self.array: Frames | None = None
        self.errors: list[str] = []

    def make(self) -> None:
        """Decode everything, with a bar, unless a copy of these very files is there.

        Raises:
            UserError: the videos differ in size or length, or there are files that aren't of decoded copies.
        """
        if self._read_index() is not None:
            return
        with waiting_for(self.file):  # of several processes that begin together one decodes
            if self._read_index() is None:
                self._refuse_foreign()
                self._write()

    def _refuse_foreign(self) -> None:
        """UserError if something else lies in the folder, or has the name of the array or its index."""
        strange = [file for file in self.file.parent.iterdir() if file.name[0] != "."]
        strange = [file for file in strange if file.suffix not in (".npy", ".json") and ".claim." not in file.name]
        if self.index.exists() or self.file.exists():
            try:
                said = border.read_json(self.index)
            except UserError:
                said = None
            if not isinstance(said, dict) or not said.keys() >= KEYS:
                strange.append(self.index if self.index.exists() else self.file)
        if strange:
            risk = "would lie among decoded copies, or be overwritten"
            raise UserError(f"data.decoded_copy: {strange[0]} is of something else, and {risk}: move it elsewhere")

    def _write(self) -> None:
        unfinished = json.dumps({"version": None, "files": [], "errors": []})
        write_atomically(self.index, unfinished)  # from here on nobody believes an older array
        try:
            with whole_file(self.file) as part:
                errors = self._decode_all(part)
        except BaseException:
            if not self.file.exists():
                self.index.unlink(missing_ok=True)
            raise
        said = {"version": VERSION, "bytes": self.file.stat().st_size, "files": self._identities(), "errors": errors}
        write_atomically(self.index, json.dumps(said))

    def _decode_all(self, part: Path) -> list[str]:
        """Write the array to `part`; return what went wrong with each file, empty if nothing."""
        array: np.memmap[Any, np.dtype[np.uint8]] | None = None
        errors = [""] * len(self.paths)
        requests = [(path,) for path in self.paths]
        decoded = by_helpers(DECODE, requests, os.cpu_count() or 1, self.seconds)
        with bars() as bar:
            for row, frames in bar.track(decoded, len(self.paths), description=f"decoding {self.file.stem}"):
                if isinstance(frames, DecodeError):
                    errors[row] = str(frames)
                    continue
                if array is None:
                    shape = (len(self.paths), *frames.shape)
                    array = np.lib.format.open_memmap(part, "w+", np.uint8, shape)
                    _claim_disk(part)
                if frames.shape != array.shape[1:]:
                    raise UserError(
                        f"data.decoded_copy: {self.paths[row]} has {_size(frames.shape)}, others "
                        f"{_size(array.shape[1:])}; it is for videos of one size and length: set it to false"
                    )
                array[row] = frames
        if array is None:
            raise UserError(f"{self.file}: none of the {len(self.paths)} videos can be read; the first: {errors[0]}")
        array.flush()
        return errors

    def open(self) -> "DecodedCopy":
        """Map the array into memory; pages are shared between processes.

        Raises:
            UserError: there is no whole copy of these files.
        """
        said = self._read_index()
        if said is None:
            raise UserError(f"{self.file}: no decoded copy of these files; prepare the data first")
        try:
            self.array = np.load(self.file, mmap_mode="r")
            assert self.array.dtype == np.uint8
            assert self.array.shape[0] == len(self.paths)
        except (OSError, ValueError, AssertionError):
            raise UserError(f"{self.file}: not the array that was written here; delete it") from None
        self.errors = said
        return self

    def num_frames(self, path: Path) -> int:
        assert self.array is not None
        self._check(path)
        return int(self.array.shape[1])

    def frame_rate(self, path: Path) -> Fraction:
        """Of the file, as the copy doesn't keep it."""
        return decoding.frame_rate(path)

    def frames(self, path: Path, indices: npt.NDArray[np.int64]) -> Frames:
        assert self.array is not None
        self._check(path)
        return np.asarray(self.array[self.row[path]])[indices]

    def _check(self, path: Path) -> None:
        if error := self.errors[self.row[path]]:
            raise DecodeError(error)

    def _read_index(self) -> list[str] | None:
        """What went wrong with each file, if the copy is whole, of this version and of these very files."""
        try:
            said = border.read_json(self.index)
            size = self.file.stat().st_size
        except (OSError, UserError):
            return None
        expected = {"version": VERSION, "bytes": size, "files": self._identities()}
        if not isinstance(said, dict) or {key: said.get(key) for key in expected} != expected:
            return None
        errors = said.get("errors")
        return list(map(str, errors)) if isinstance(errors, list) and len(errors) == len(self.paths) else None

    def _identities(self) -> list[list[str | int]]:
        """Name, size and time of change of each file."""
        return [_identity(path) for path in self.paths]


def _claim_disk(file: Path) -> None:
    """OSError now if the disk is too full for a file with holes, which would kill the process when one is filled."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


def _identity(path: Path) -> list[str | int]:
    try:
        status = path.stat()
    except OSError:
        return [str(path), 0, 0]
    return [str(path), status.st_size, status.st_mtime_ns]


def _size(shape: tuple[int, ...]) -> str:
    frames, height, width = shape[:3]
    return f"{frames} frames of {height} x {width}"
