"""What follows a training and a test from beside it: progress, curve, time, unreadable videos."""

import math
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytorch_lightning as L
from pytorch_lightning.callbacks import Callback, RichProgressBar
from pytorch_lightning.utilities import rank_zero_warn

from nl_lightning.data.datasets import Sample
from nl_lightning.errors import UserError, visible
from nl_lightning.study.files import set_aside, write_atomically
from nl_lightning.study.lock import Lock
from nl_lightning.study.run import Run
from nl_lightning.train.together import from_all

MOST = 10**9
"""Of a training that has no end."""


class Progress(Callback):
    """Say in the run's marker how far it is, for the runner's bars; stop if the claim is lost.

    It says so about once a second, and at once when testing begins.
    """

    def __init__(self, run: Run, held: Lock | None) -> None:
        self.run, self.held, self.said, self.phase = run, held, 0.0, ""
        self.started = datetime.now(UTC).isoformat(timespec="seconds")

    def say(self, phase: str, done: int, total: int) -> None:
        if self.held is None or (phase == self.phase and time.monotonic() - self.said < 1):
            return
        if self.held.lost:
            raise UserError(f"{self.run.name}: another process took over, as this one gave no sign of life for long")
        self.said, self.phase = time.monotonic(), phase
        self.run.say("running", started=self.started, phase=phase, done=done, total=total)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.say("train", trainer.global_step, int(min(trainer.estimated_stepping_batches, MOST)))

    def on_test_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int, *_: int) -> None:
        self.say("test", index + 1, int(min(sum(trainer.num_test_batches), MOST)))


class Curve(Callback):
    """The training curve, a point an epoch (Fig. 4); kept in the checkpoint, so that a resumed run has it whole.

    A point has the means of training over its epoch, and what validation found if there was one after that epoch.
    """

    def __init__(self) -> None:
        self.points: list[dict[str, float]] = []
        self.validated: dict[str, float] = {}

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            metrics = trainer.callback_metrics.items()
            self.validated = _rounded({name: float(value) for name, value in metrics if name.startswith("val/")})

    def on_train_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        if hasattr(module, "epoch_means"):  # our networks say them, others log them as ``train/...``
            means = module.epoch_means()
        else:
            logged = [name for name in trainer.callback_metrics if name.startswith("train/")]
            means = {name: float(trainer.callback_metrics[name]) for name in logged if not name.endswith("_step")}
        self.points.append({"step": trainer.global_step, **_rounded(means), **self.validated})
        self.validated = {}

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points, "validated": self.validated}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points, self.validated = state["points"], state["validated"]


class FitCurve(Curve):
    """The curve of a training without a record: a line an epoch for people, and a CSV file with all points.

    The file's columns are ``step`` and what was measured.
    """

    def __init__(self, file: Path) -> None:
        super().__init__()
        self.file = file

    def _content(self) -> bytes:
        columns = list(dict.fromkeys(name for point in self.points for name in point))
        lines = [",".join(str(point.get(name, "")) for name in columns) for point in self.points]
        return "\n".join([",".join(columns), *lines, ""]).encode() if lines else b""

    def on_train_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        before = self._content()
        super().on_train_epoch_end(trainer, module)
        if trainer.is_global_zero:
            if not (before and self.file.is_file() and self.file.read_bytes().startswith(before)):
                set_aside(self.file)
            write_atomically(self.file, self._content(), durable=False)
            said = [f"{name} {value:.4g}" for name, value in self.points[-1].items() if name != "step"]
            line = f"epoch {trainer.current_epoch + 1}, step {trainer.global_step}: {', '.join(said)}"
            print(visible(line), flush=True)

    @property
    def state_key(self) -> str:
        return Curve.__qualname__  # a run's checkpoint goes on in `fit`, and the other way round


class Bar(RichProgressBar):
    """Lightning's bar with the means of the epoch so far; they are asked for once a second, as that waits for a GPU."""

    def __init__(self) -> None:
        super().__init__()
        self.asked, self.means = 0.0, dict[str, float]()

    def on_train_epoch_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.asked = 0.0
        super().on_train_epoch_end(trainer, module)

    def get_metrics(self, trainer: L.Trainer, module: Any) -> dict[str, Any]:
        if not hasattr(module, "sums"):
            return dict(super().get_metrics(trainer, module))
        if time.monotonic() - self.asked >= 1:
            self.asked, sums = time.monotonic(), module.sums()
            clips = sums.pop("clips", 0)
            self.means = {name: value / clips for name, value in sums.items()} if clips else {}
        return {**self.means, **trainer.progress_bar_metrics}


class Clock(Callback):
    """Seconds spent training, in this process and in those that it goes on from, and how many of them waiting for data.

    From one iteration to the next it is a wait, unless validation or a new epoch comes between them.
    """

    def __init__(self) -> None:
        self.seconds = self.waited = self.stepped = 0.0
        self.last = time.monotonic()

    @property
    def data_wait(self) -> float:
        """Percent of the time of iterations that went into waiting for data."""
        return round(100 * self.waited / max(1e-9, self.waited + self.stepped), 1)

    def _lap(self) -> float:
        """Seconds since the last call."""
        began, self.last = self.last, time.monotonic()
        self.seconds += self.last - began
        return self.last - began

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.last = time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._lap()

    def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, index: int) -> None:
        self.waited += self._lap()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        self.stepped += self._lap()

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if not trainer.sanity_checking:
            self._lap()

    def state_dict(self) -> dict[str, Any]:
        return {"seconds": self.seconds, "waited": self.waited, "stepped": self.stepped}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.seconds, self.waited, self.stepped = state["seconds"], state["waited"], state["stepped"]


def _rounded(values: Mapping[str, float]) -> dict[str, float]:
    """The finite ones, to four decimals; small ones to three digits."""
    finite = {name: value for name, value in values.items() if math.isfinite(value)}
    return {name: round(value, 4) if abs(value) > 0.01 else float(f"{value:.3g}") for name, value in finite.items()}


class UnreadableVideos(Callback):
    """Name each unreadable video once, and stop the run when there are too many to call it the same data set."""

    def __init__(self) -> None:
        self.names: dict[str, set[str]] = {"train": set(), "val": set(), "test": set()}

    def everywhere(self) -> dict[str, list[str]]:
        """The names that any process of the run has met, by split; all processes have to ask."""
        met = from_all(self.names)
        return {split: sorted(set().union(*(names[split] for names in met))) for split in self.names}

    def state_dict(self) -> dict[str, Any]:
        return {"names": self.everywhere()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.names = {split: set(names) for split, names in state["names"].items()}

    def on_test_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.names["test"] = set()

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Sample, index: int) -> None:
        self._note(trainer, batch, "train", "left out")

    def on_validation_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Sample, *_: int) -> None:
        self._note(trainer, batch, "val", "left out")

    def on_test_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Sample, *_: int) -> None:
        self._note(trainer, batch, "test", "counted as wrong")

    def _note(self, trainer: L.Trainer, batch: Sample, split: str, consequence: str) -> None:
        errors: Any = batch.error  # collated: a list
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        named = self.names[split]
        for path, error in zip(batch.path, errors, strict=True):
            if error and path not in named:
                named.add(path)
                rank_zero_warn(f"{error} ({consequence})")
        videos = len(data.videos(split))
        if len(named) > data.max_unreadable * videos:
            raise UserError(
                f"{len(named)} of {videos} {split} videos can't be read, more than {data.max_unreadable:.0%} "
                f"(data.max_unreadable), {min(named)} among them: mend or remove them"
            )
