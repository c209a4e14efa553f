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

BEGAN = time.perf_counter(), time.process_time()

import torch  # noqa: E402
from pytorch_lightning.callbacks import LambdaCallback  # noqa: E402

try:
    from nl_lightning.train.lightning_cli import VideoCLI
except ImportError:  # of older trees
    from nl_lightning.execution import VideoCLI  # type: ignore[import-not-found,no-redef]

Mark = tuple[float, float]
"""Seconds, and seconds of the CPU."""


def now() -> Mark:
    return time.perf_counter(), time.process_time()


def since(begin: Mark, end: Mark) -> Mark:
    return end[0] - begin[0], end[1] - begin[1]


def main(file: Path, arguments: list[str]) -> None:
    marks: dict[str, list[Mark]] = {"train": [], "test": []}

    def mark(phase: str) -> Any:
        def hook(*_: Any) -> None:
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            marks[phase].append(now())

        return hook

    train, test = mark("train"), mark("test")
    clock = LambdaCallback(
        on_train_batch_start=train, on_train_end=train, on_test_batch_start=test, on_test_batch_end=test
    )
    with tempfile.TemporaryDirectory() as folder:
        cli = VideoCLI(
            args=[*arguments, f"--trainer.default_root_dir={folder}"],
            run=False,
            trainer_defaults={"logger": False, "enable_progress_bar": False, "enable_model_summary": False},
        )
        cli.trainer.callbacks.insert(0, clock)  # type: ignore[attr-defined]
        start = since(BEGAN, now())
        cli.trainer.fit(cli.model, datamodule=cli.datamodule)
        cli.trainer.test(cli.model, datamodule=cli.datamodule, verbose=False)
        sizes = {split: len(cli.datamodule.videos(split)) for split in ("train", "val", "test")}
    # From the start of a step to that of the next, waiting for data included; the first loads what a first step loads.
    steps = [since(*pair) for pair in itertools.pairwise(marks["train"])][1:]
    batches = [since(*pair) for pair in zip(marks["test"][::2], marks["test"][1::2], strict=True)]
    file.write_text(json.dumps({"train": steps, "test": batches, "start": start, "videos": sizes}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2:])
