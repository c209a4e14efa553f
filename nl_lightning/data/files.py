"""The files of a data set as a reader: where they lie, who decodes them, and what a census found about them."""

import os
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nl_lightning.data.decoding import Frames
from nl_lightning.data.manifest import Manifest
from nl_lightning.data.packets import DecodeError, Facts
from nl_lightning.data.reader import DangerousFile, Helper
from nl_lightning.data.shards import Shards
from nl_lightning.data.videos import below
from nl_lightning.errors import UserError

DECODING = "nl_lightning.data.decoding"


class Files:
    """A :class:`~nl_lightning.data.datasets.Reader` of a data set's files, wherever they lie. It asks a helper.

    Args:
        root: the data set's folder.
        decoder: who decodes.
        seconds: after which a file is given up, see :class:`Helper`.
        manifest: what a census found, if there was one.
        shards: what the files are packed in, if they are.
        square_pixels: scale pictures whose pixels aren't square.
        module: whose `num_frames`, `frame_rate` and `frames` are called.
    """

    def __init__(
        self,
        root: Path,
        decoder: str = "pyav",
        seconds: float = 120.0,
        manifest: Manifest | None = None,
        shards: Shards | None = None,
        square_pixels: bool = False,
        module: str = DECODING,
    ) -> None:
        self.root, self.decoder, self.manifest, self.shards = root, decoder, manifest, shards
        self.square_pixels, self.module = square_pixels, module
        self.helper = Helper(seconds)
        self.aside: dict[Path, str] = {}  # files that hung or crashed the helper, and what was said of them

    def num_frames(self, path: Path) -> int:
        """The frames that are shown; DecodeError if the file can't be read."""
        place, facts = self._find(path)
        count: int = self._guarded(path, lambda: self.helper.ask(f"{self.module}.num_frames", place, facts))
        return count

    def frame_rate(self, path: Path) -> Fraction:
        """Frames a second; DecodeError if the file can't be read."""
        place, _ = self._find(path)
        rate: Fraction = self._guarded(path, lambda: self.helper.ask(f"{self.module}.frame_rate", place))
        return rate

    def frames(self, path: Path, indices: npt.NDArray[np.int64]) -> Frames:
        """The frames `indices` of a file, valid until the next call; DecodeError if they can't be read."""
        place, facts = self._find(path)
        request = (f"{self.module}.frames", place, indices, self.decoder, facts, self.square_pixels)
        found: Frames = self._guarded(path, lambda: self.helper.pictures(*request))
        return found

    def is_present(self, path: Path) -> bool:
        """Whether there is such a file, or a place in the shards."""
        return path.is_file() if self.shards is None else self.shards.has(path)

    def _find(self, path: Path) -> tuple[Path | str, Facts | None]:
        """Where a file lies, and what is known about it."""
        if path in self.aside:
            raise DecodeError(self.aside[path])
        if self.shards is not None:
            return self.shards.place(path), None
        return path, None if self.manifest is None else self.manifest.facts(below(path, self.root))

    def _guarded(self, path: Path, ask: Callable[[], Any]) -> Any:
        """What is answered; a file that costs a helper's process isn't asked for again."""
        try:
            return ask()
        except DangerousFile as error:
            self.aside[path] = str(error)
            raise


SHARED_MEMORY = Path("/dev/shm")
AHEAD = 2
"""Batches that a worker of PyTorch's loader reads ahead."""


def check_room(workers: int, batch_bytes: int, place: Path = SHARED_MEMORY) -> None:
    """UserError if the batches that `workers` read ahead, and the one in use, don't fit into shared memory.

    A full /dev/shm ends workers with a bus error and no word.
    """
    if not workers or not place.is_dir():
        return
    status = os.statvfs(place)
    free, needed = status.f_bavail * status.f_frsize, (workers * AHEAD + 1) * batch_bytes
    if free < needed:
        raise UserError(
            f"{place} has room for {free >> 20} MB, and {workers} workers that read ahead fill {needed >> 20} MB: "
            "free it, enlarge it (of a container: --shm-size), or set data.num_workers or data.batch_size lower"
        )
