"""A decoded copy of a small data set: every frame of every video in one memory-mapped array.

For sets of small clips, where decoding takes as long as a training step. The copy is made once, through the real
decoder, and made again when a file of the set has changed.
"""

import json
import os
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nl_lightning.data import decoding
from nl_lightning.data.decoding import Frames
from nl_lightning.data.manifest import version_or_absent
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.reader import by_helpers
from nl_lightning.data.videos import Paths
from nl_lightning.errors import UserError, bars
from nl_lightning.study import border
from nl_lightning.study.evidence import cores
from nl_lightning.study.files import whole_file, write_atomically
from nl_lightning.study.lock import waiting_for

VERSION = 2
"""Raise it whenever decoding gives other pixels for some file: older copies are then made again."""
DECODE = "nl_lightning.data.decoding.all_frames"
"""What a helper calls."""


@dataclass(eq=False)
class DecodedCopy:
    """All frames of `paths`, which must have one size and length; a :class:`~nl_lightning.data.datasets.Reader`."""

    file: Path  # ``<name>.npy``, uint8 (videos, T, H, W, 3); ``<name>.json`` says of which files it is, written last
    paths: Paths | tuple[Path, ...]  # the videos, in the array's order
    seconds: float = 120.0  # after which a file is given up

    def __post_init__(self) -> None:
        self.index = self.file.with_suffix(".json")
        self.row = {path: row for row, path in enumerate(self.paths)}
        self.array: Frames | None = None
        self.errors: list[str] = []

    def make(self) -> None:
        """Decode everything, with a bar, unless a copy of these very files is there.

        UserError if the videos differ in size or length, or there are files that aren't of decoded copies.
        """
        if self._read_index() is not None:
            return
        with waiting_for(self.file):  # of several processes that begin together one decodes
            if self._read_index() is None:
                self._refuse_foreign()
                self._write()

    def _refuse_foreign(self) -> None:
        """UserError if something else lies in the folder, or has the name of the array or its index."""
        there = [file for file in self.file.parent.iterdir() if file.name[0] != "." and ".claim." not in file.name]
        strange = [file for file in there if file.suffix not in (".npy", ".json")]
        said = self._said()
        if not isinstance(said, dict) or not said.keys() >= {"files", "errors"}:  # which every version has
            strange += [file for file in (self.index, self.file) if file in there]
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
        write_atomically(self.index, json.dumps({**self._expected(), "errors": errors}))

    def _decode_all(self, part: Path) -> list[str]:
        """Write the array to `part`; return what went wrong with each file, empty if nothing."""
        array: np.memmap[Any, np.dtype[np.uint8]] | None = None
        errors = [""] * len(self.paths)
        decoded = by_helpers(DECODE, [(path,) for path in self.paths], cores(), self.seconds)
        with bars() as bar:
            for row, frames in bar.track(decoded, len(self.paths), description=f"decoding {self.file.stem}"):
                if isinstance(frames, DecodeError):
                    errors[row] = str(frames)
                    continue
                if array is None:
                    array = np.lib.format.open_memmap(part, "w+", np.uint8, (len(self.paths), *frames.shape))
                    with part.open("r+b") as opened:  # a disk too full for a file with holes would kill the process
                        os.posix_fallocate(opened.fileno(), 0, part.stat().st_size)
                if frames.shape != array.shape[1:]:
                    one, others = ("{} frames of {} x {}".format(*shape) for shape in (frames.shape, array.shape[1:]))
                    raise UserError(
                        f"data.decoded_copy: {self.paths[row]} has {one}, others {others}; "
                        "it is for videos of one size and length: set it to false"
                    )
                array[row] = frames
        if array is None:
            raise UserError(f"{self.file}: none of the {len(self.paths)} videos can be read; the first: {errors[0]}")
        array.flush()
        return errors

    def open(self) -> "DecodedCopy":
        """Map the array into memory; processes share its pages. UserError if there is no whole copy of these files."""
        said = self._read_index()
        if said is None:
            raise UserError(f"{self.file}: no decoded copy of these files; prepare the data first")
        try:
            self.array = np.load(self.file, mmap_mode="r")
            if self.array.dtype != np.uint8 or len(self.array) != len(self.paths):
                raise ValueError
        except (OSError, ValueError):
            raise UserError(f"{self.file}: not the array that was written here; delete it") from None
        self.errors = said
        return self

    def num_frames(self, path: Path) -> int:
        return len(self._video(path))

    def frame_rate(self, path: Path) -> Fraction:
        """Of the file, as the copy doesn't keep it."""
        return decoding.frame_rate(path)

    def frames(self, path: Path, indices: npt.NDArray[np.int64]) -> Frames:
        return self._video(path)[indices]

    def _video(self, path: Path) -> Frames:
        assert self.array is not None
        if error := self.errors[self.row[path]]:
            raise DecodeError(error)
        return np.asarray(self.array[self.row[path]])

    def _said(self) -> object:
        """What the index says; None if there is none."""
        try:
            return border.read_json(self.index)
        except UserError:
            return None

    def _read_index(self) -> list[str] | None:
        """What went wrong with each file, if the copy is whole, of this version and of these very files."""
        said = self._said()
        if not isinstance(said, dict) or {**said, **self._expected()} != said:
            return None
        errors = said.get("errors")
        return list(map(str, errors)) if isinstance(errors, list) and len(errors) == len(self.paths) else None

    def _expected(self) -> dict[str, Any]:
        """What the index of a whole copy says: of the array, and name, size and time of change of each file."""
        size, _ = version_or_absent(self.file)
        files = [[str(path), *version_or_absent(path)] for path in self.paths]
        return {"version": VERSION, "bytes": size, "files": files}
