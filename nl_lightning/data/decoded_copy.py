"""A decoded copy of a small data set: every frame of every video in one memory-mapped array.

For sets of small clips, where decoding takes as long as a training step. The copy is made once, through the real
decoder, and made again when a file of the set has changed.
"""

import json
import os
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nl_lightning.data import decoding
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.transforms import Frames
from nl_lightning.errors import UserError, bars
from nl_lightning.study.lock import waiting_for
from nl_lightning.study.records import whole_file, write_atomically


class DecodedCopy:
    """All frames of `paths`, which must have one size and length; a :class:`~nl_lightning.data.datasets.Reader`.

    Args:
        file: the array's file, ``<name>.npy``: uint8 (videos, T, H, W, 3). Beside it, ``<name>.json`` says of which
            files it is, written last.
        paths: the videos, in the array's order.
    """

    def __init__(self, file: Path, paths: Sequence[Path]) -> None:
        self.file, self.index, self.paths = file, file.with_suffix(".json"), paths
        self.row = {path: row for row, path in enumerate(paths)}
        self.array: Frames | None = None
        self.errors: list[str] = []

    def make(self) -> None:
        """Decode everything, with a bar, unless a copy of these very files is there.

        Raises:
            UserError: the videos differ in size or length.
        """
        if self._read_index() is not None:
            return
        with waiting_for(self.file):  # of several processes that begin together one decodes
            if self._read_index() is None:
                self._write()

    def _write(self) -> None:
        with whole_file(self.file) as part:
            errors = self._decode_all(part)
        said = {"files": [_identity(path) for path in self.paths], "errors": errors}
        write_atomically(self.index, json.dumps(said))

    def _decode_all(self, part: Path) -> list[str]:
        """Write the array to `part`; return what went wrong with each file, empty if nothing."""
        array: np.memmap[Any, np.dtype[np.uint8]] | None = None
        errors = []
        with ProcessPoolExecutor() as pool:  # its processes start before the bar's thread
            decoded = pool.map(_decode, self.paths, chunksize=32)
            with bars() as shown:
                for row, (frames, error) in enumerate(
                    shown.track(decoded, len(self.paths), description=f"decoding {self.file.stem}")
                ):
                    errors.append(error)
                    if frames is None:
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
        """Map the array into memory; pages are shared between processes."""
        said = self._read_index()
        if said is None:
            raise UserError(f"{self.file}: no decoded copy of these files; prepare the data first")
        self.errors = said
        self.array = np.load(self.file, mmap_mode="r")
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
        """What went wrong with each file, if the copy is whole and of these very files."""
        try:
            said = json.loads(self.index.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        fresh = said["files"] == [_identity(path) for path in self.paths] and self.file.exists()
        return list(said["errors"]) if fresh else None


def _claim_disk(file: Path) -> None:
    """OSError now if the disk is too full for a file with holes, which would kill the process when one is filled."""
    if hasattr(os, "posix_fallocate"):
        with file.open("r+b") as opened:
            os.posix_fallocate(opened.fileno(), 0, file.stat().st_size)


def _decode(path: Path) -> tuple[Frames | None, str]:
    try:
        return decoding.frames(path, np.arange(decoding.num_frames(path))), ""
    except DecodeError as error:
        return None, str(error)


def _identity(path: Path) -> list[str | int]:
    try:
        status = path.stat()
    except OSError:
        return [str(path), 0, 0]
    return [str(path), status.st_size, status.st_mtime_ns]


def _size(shape: tuple[int, ...]) -> str:
    frames, height, width = shape[:3]
    return f"{frames} frames of {height} x {width}"
