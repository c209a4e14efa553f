"""The files of a data set as a reader: where they lie, who decodes them, and what a census found about them."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from nl_lightning.data.decoding import Frames
from nl_lightning.data.helper import DangerousFile, Helper
from nl_lightning.data.manifest import Manifest
from nl_lightning.data.packets import DecodeError, Known
from nl_lightning.data.shards import Shards
from nl_lightning.data.videos import below

DECODING = "nl_lightning.data.decoding"


class Files:
    """A :class:`~nl_lightning.data.datasets.Reader` that decodes in a helper process.

    Args:
        root: the data set's folder.
        decoder: who decodes.
        seconds: after which a file is given up.
        manifest: what a census found, if there was one.
        shards: what the files are packed in, if they are.
        module: whose `num_frames`, `frame_rate` and `frames` are called.
    """

    def __init__(
        self,
        root: Path,
        decoder: str = "pyav",
        seconds: float = 120.0,
        manifest: Manifest | None = None,
        shards: Shards | None = None,
        module: str = DECODING,
    ) -> None:
        self.root, self.decoder, self.manifest, self.shards = root, decoder, manifest, shards
        self.module = module
        self.helper = Helper(seconds)
        self.aside: dict[Path, str] = {}  # files that hung or crashed the helper, and what was said of them

    def num_frames(self, path: Path) -> int:
        """The frames that are shown; DecodeError if the file can't be read."""
        place, known = self._find(path)
        count: int = self._guarded(path, lambda: self.helper.ask(f"{self.module}.num_frames", place, known))
        return count

    def frame_rate(self, path: Path) -> Fraction:
        """Frames a second; DecodeError if the file can't be read."""
        place, _ = self._find(path)
        rate: Fraction = self._guarded(path, lambda: self.helper.ask(f"{self.module}.frame_rate", place))
        return rate

    def frames(self, path: Path, indices: npt.NDArray[np.int64]) -> Frames:
        """The frames `indices` of a file, valid until the next call; DecodeError if they can't be read."""
        place, known = self._find(path)
        request = (f"{self.module}.frames", place, indices, self.decoder, known)
        found: Frames = self._guarded(path, lambda: self.helper.pictures(*request))
        return found

    def is_present(self, path: Path) -> bool:
        """Whether there is such a file, or a place in the shards."""
        return path.is_file() if self.shards is None else self.shards.has(path)

    def _find(self, path: Path) -> tuple[Path | str, Known | None]:
        """Where a file lies, and what is known about it."""
        if path in self.aside:
            raise DecodeError(self.aside[path])
        if self.shards is not None:
            return self.shards.place(path), None
        return path, None if self.manifest is None else self.manifest.knows(below(path, self.root))

    def _guarded(self, path: Path, ask: Callable[[], Any]) -> Any:
        """What is answered; a file that costs a helper's process isn't asked for again."""
        try:
            return ask()
        except DangerousFile as error:
            self.aside[path] = str(error)
            raise
