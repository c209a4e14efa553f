"""Seconds of a training step and of a test batch of one network, in a process of its own: ``python -P steps.py``.

Takes the arguments of ``nl-lightning fit`` and writes JSON to the file named first. It uses little of the package, so
that an older one can be measured by it: whichever comes first on the path.
"""

import itertools
import json
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

BEGAN, BEGAN_CPU = time.perf_counter(), time.process_time()

import torch  # noqa: E402
from pytorch_lightning.callbacks import Callback  # noqa: E402

try:
    from nl_lightning.train.lightning_cli import VideoCLI
except ImportError:  # of older trees
    from nl_lightning.execution import VideoCLI  # type: ignore[import-not-found,no-redef]


class Clock(Callback):
    """(seconds, seconds of the CPU) from the start of each batch to that of the next, waiting for data included."""

    def __init__(self) -> None:
        self.marks: dict[str, list[tuple[float, float]]] = {"train": [], "test": []}

    def mark(self, phase: str) -> None:
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        self.marks[phase].append((time.perf_counter(), time.process_time()))

    def on_train_batch_start(self, *_: Any) -> None:
        self.mark("train")

    def on_train_end(self, *_: Any) -> None:
        self.mark("train")

    def on_test_batch_start(self, *_: Any) -> None:
        self.mark("test")

    def on_test_batch_end(self, *_: Any) -> None:
        self.mark("test")

    def steps(self, phase: str) -> list[tuple[float, float]]:
        """Without the first training step, which loads what the first step loads."""
        marks = self.marks[phase]
        pairs = list(itertools.pairwise(marks))  # in testing a batch, then what lies between two of them
        pairs = pairs[1:] if phase == "train" else pairs[::2]
        return [(end[0] - begin[0], end[1] - begin[1]) for begin, end in pairs]


def main(file: Path, arguments: list[str]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cli = VideoCLI(
            args=[*arguments, f"--trainer.default_root_dir={folder}"],
            run=False,
            trainer_defaults={"logger": False, "enable_progress_bar": False, "enable_model_summary": False},
        )
        clock = Clock()
        cli.trainer.callbacks.insert(0, clock)  # type: ignore[attr-defined]
        start = time.perf_counter() - BEGAN, time.process_time() - BEGAN_CPU
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
        data = cli.datamodule
        sizes = {split: len(data.videos(split)) for split in ("train", "val", "test")}
        said = {phase: clock.steps(phase) for phase in clock.marks}
        file.write_text(json.dumps({**said, "start": start, "videos": sizes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
