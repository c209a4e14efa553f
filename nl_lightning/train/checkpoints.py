"""Checkpoints from which a run goes on as if nothing had happened: when they are written, and what is in them.

A run that was ended at any moment, by whatever means, ends in the very weights and numbers of one that was not, on the
same machine. For that a checkpoint has, beside what Lightning keeps (weights, optimizer, schedule, counters), the state
of the random number generators of every process; the data module and the classifier add the place in the epoch and the
sums of its means. It is written between two iterations, never while gradients wait for more batches.
"""

import contextlib
import functools
import importlib.metadata
import os
import platform
import random
import re
import subprocess
import time
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytorch_lightning as L
import torch
from pytorch_lightning.callbacks import Checkpoint
from pytorch_lightning.plugins.io import TorchCheckpointIO
from torch import Tensor

from nl_lightning import __version__
from nl_lightning.errors import STOP, Postponed, Stopped, UserError, one_line, say
from nl_lightning.study.files import size_of, whole_file
from nl_lightning.study.run import CHECKPOINT, PREVIOUS
from nl_lightning.train.together import from_all
from nl_lightning.weights.file import HEADER
from nl_lightning.weights.safe import read_torch

VERSIONS = ("torch", "torchvision", "pytorch-lightning", "decord", "av", "numpy", "wandb")
"""Packages whose versions a record names: those that can change a number."""


class Saver(Checkpoint):
    """Keep the newest checkpoint and the one before: every few minutes, before validation, and after every epoch.

    Told to stop, the run ends after the iteration that it is in, with a checkpoint.

    Args:
        newest: file of the newest; the one before lies beside it.
        minutes: from one checkpoint to the next, at most.
        files: by which the trainer reads checkpoints.
        within_epochs: whether the data know their place within an epoch; else there is only one after every epoch.
        ends_again: whether a training that had ended early, as by Lightning's EarlyStopping, is over.

    Attributes:
        earlier: a line for each other version of the code that did a part of the training.
    """

    def __init__(
        self, newest: Path, minutes: float, files: "LocalFiles", within_epochs: bool = True, ends_again: bool = True
    ) -> None:
        self.newest, self.minutes, self.files, self.within_epochs = newest, minutes, files, within_epochs
        self.stop = Postponed()
        self.random_states: list[dict[str, Any]] = []
        self.ends_again, self.ended, self.monitored = ends_again, False, dict[str, Tensor]()
        self.steps, self.saved = 0, 0.0
        self.earlier: list[str] = []
        self.before: list[str] = []

    def on_sanity_check_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.files.restoring = None

    on_test_start = on_sanity_check_start  # type: ignore[assignment]  # Lightning names an argument otherwise

    def on_train_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self._draw_on(trainer)  # as late as can be: what was set up may have drawn random numbers
        self.files.restoring = None
        self.steps, self.saved = trainer.global_step, time.monotonic()
        trainer.should_stop |= self.ended and self.ends_again
        self.stop.begin()

    def on_train_epoch_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        """Begin the first epoch after a checkpoint between epochs as any other: with a new iterator of the data.

        Lightning made one before it called anything here, so with other random numbers than an undisturbed run has.
        """
        if self.random_states and not self.within_epochs:
            loop = trainer.fit_loop
            loop.epoch_loop._batches_that_stepped += loop.epoch_loop.restarting  # which it would have added itself
            loop._resuming_from_checkpoint = loop._restarting = loop.epoch_loop.restarting = False
            for one in trainer.lr_scheduler_configs:  # which Lightning moves after the checkpoint was written
                due = one.reduce_on_plateau and one.interval == "epoch" and trainer.current_epoch % one.frequency == 0
                if due and one.monitor in self.monitored:
                    module.lr_scheduler_step(one.scheduler, self.monitored[one.monitor])
            self._draw_on(trainer)
            self.random_states = []

    def _draw_on(self, trainer: L.Trainer) -> None:
        """Draw the random numbers that come after those of the checkpoint, if there is one."""
        if self.random_states:
            _set_random_state(self.random_states[trainer.global_rank % len(self.random_states)])

    def on_train_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int) -> None:
        stepped = trainer.global_step != self.steps
        self.steps = trainer.global_step
        if not self.within_epochs:
            self._stop_if_told(trainer)
            return
        due = self.stop.told is not None or time.monotonic() - self.saved >= 60 * self.minutes
        if stepped and trainer.strategy.reduce_boolean_decision(due, all=False) and not _validates_or_ends(trainer):
            self._save(trainer)

    def on_validation_start(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.files.restoring = None
        if not _fits(trainer):
            return
        # At the last step not, for then Lightning would not validate when it goes on.
        if self.within_epochs and trainer.global_step != trainer.max_steps:
            self._save(trainer)
        self.stop.end()  # nothing would be saved from here on

    def on_validation_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        if _fits(trainer):
            self.stop.begin()

    def on_train_epoch_end(self, trainer: L.Trainer, module: Any) -> None:
        if trainer.should_stop and trainer.fit_loop._can_stop_early and hasattr(module, "estimate_statistics"):
            module.estimate_statistics()  # EarlyStopping speaks after the module's own end of the epoch
        self.ended, self.monitored = trainer.should_stop, dict(trainer.callback_metrics)
        self._save(trainer)

    def on_train_end(self, trainer: L.Trainer, module: L.LightningModule) -> None:
        self.stop.end()

    def on_exception(self, trainer: L.Trainer, module: L.LightningModule, exception: BaseException) -> None:
        self.stop.end()

    def _save(self, trainer: L.Trainer) -> None:
        """Write a checkpoint; all processes of a run do, the first one to the disk.

        Stopped if one of them has been told to stop, UserError if the disk is full.
        """
        if trainer.is_global_zero:
            with whole_file(self.newest) as file:
                trainer.save_checkpoint(file, weights_only=False)
                if self.newest.exists():
                    os.replace(self.newest, self.newest.with_name(PREVIOUS))
        else:
            trainer.save_checkpoint(self.newest, weights_only=False)
        self.saved = time.monotonic()
        self._stop_if_told(trainer)

    def _stop_if_told(self, trainer: L.Trainer) -> None:
        if trainer.strategy.reduce_boolean_decision(self.stop.told is not None, all=False):
            raise self.stop.told or Stopped(STOP[1])

    def state_dict(self) -> dict[str, Any]:
        ends = {"ended": self.ended, "monitored": self.monitored}
        return {"random": from_all(_random_state()), "code": code(), "earlier": self.earlier, **ends}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        now = _random_state()
        for saved in state["random"]:  # tried here, where a mistake is still the checkpoint's
            _set_random_state(saved)
        _set_random_state(now)
        self.random_states = state["random"]
        self.ended, self.monitored = state.get("ended", False), state.get("monitored", {})
        self.earlier = [*state.get("earlier", []), *self.before]

    def on_load_checkpoint(self, trainer: L.Trainer, module: Any, checkpoint: dict[str, Any]) -> None:
        """Say, and keep for the record, that another version of the code trained until here."""
        then = checkpoint["callbacks"].get(self.state_key, {}).get("code", {})
        if trainer.state.fn == "fit" and (differ := differences(then, code())):
            self.before = [f"until step {checkpoint['global_step']}: {differ}"]
            if trainer.is_global_zero:
                say(f"the checkpoint is of other code, and the record will say so: {self.before[0]}")

    def on_save_checkpoint(self, trainer: L.Trainer, module: L.LightningModule, checkpoint: dict[str, Any]) -> None:
        """Put Lightning's counters so that it goes on from where it is."""
        counters = checkpoint["loops"]["fit_loop"]
        epochs = trainer.fit_loop.epoch_progress.current
        if trainer.validating:  # as in the middle of its first batch: at its beginning, Lightning would call it over
            total = {"ready": 1, "started": 1, "processed": 0, "completed": 0}
            counters["epoch_loop.val_loop.batch_progress"]["total"] = total
        elif trainer.max_steps != -1 and epochs.ready == epochs.processed:  # type: ignore[attr-defined]
            # As at the end of the last iteration of an epoch that is over. Where the recipe counts steps, and not
            # epochs, Lightning would end the epoch once more, or train on a batch of it.
            batches = counters["epoch_loop.batch_progress"]
            for kind in ("total", "current"):
                counters["epoch_progress"][kind]["completed"] = counters["epoch_progress"][kind]["processed"]
                batches[kind]["completed"] -= 1
            batches["is_last_batch"] = False
            counters["epoch_loop.state_dict"]["_batches_that_stepped"] -= 1


def _fits(trainer: L.Trainer) -> bool:
    return trainer.state.fn == "fit" and not trainer.sanity_checking


def _validates_or_ends(trainer: L.Trainer) -> bool:
    """Whether validation or the end of the epoch follows this iteration: both have checkpoints of their own."""
    loop = trainer.fit_loop.epoch_loop
    fetcher = trainer.fit_loop._data_fetcher
    assert fetcher is not None
    return loop._is_training_done or loop._should_check_val_fx(fetcher)


def _random_state() -> dict[str, Any]:
    """Of Python, NumPy and torch, as tensors and plain values: a checkpoint holds no code."""
    version, key, gauss = random.getstate()
    _, keys, *rest = np.random.get_state()
    return {
        "python": [version, list(key), gauss],
        "numpy": [torch.from_numpy(np.asarray(keys).astype(np.int64)), *rest],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_available() else None,
    }


def _set_random_state(state: dict[str, Any]) -> None:
    version, key, gauss = state["python"]
    random.setstate((version, tuple(key), gauss))
    keys, *rest = state["numpy"]
    np.random.set_state(("MT19937", keys.numpy().astype(np.uint32), *rest))
    torch.set_rng_state(state["torch"].cpu())
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"].cpu())


def code() -> dict[str, Any]:
    """What can change a number: the commit that this package runs from, and versions of packages."""
    return {**commit(), "versions": versions()}


def differences(then: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What the code of a checkpoint is, where that differs from the code of now; empty if nothing does."""
    if not then:
        return "by an earlier version of nl-lightning, which doesn't say which"
    pairs = [("commit", *(f"{one['commit'][:12]}{' with changes' * one['dirty']}" for one in (then, now)))]
    pairs += [(name, then["versions"].get(name), version) for name, version in now["versions"].items()]
    return ", ".join(f"{name} {old or 'none'} (now {new})" for name, old, new in pairs if old != new)


@functools.cache
def versions() -> dict[str, str]:
    """Of Python and of the packages that can change a number; of this one where no commit tells its code."""
    found = {"python": platform.python_version()}
    if commit()["commit"] == "unknown":
        found["nl-lightning"] = __version__
    for package in VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # decord has no wheel for every machine
            found[package.removeprefix("pytorch-")] = importlib.metadata.version(package)  # the name in all records
    return found


@functools.cache
def commit() -> dict[str, Any]:
    """The commit that this package runs from, if it runs from a checkout, and whether a file of it differs."""
    package = Path(__file__).parents[1]

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", __file__)  # a wheel may be installed below somebody else's repository
        changes = git("status", "--porcelain", "--untracked-files=normal", "--", ".")  # whatever a user's settings say
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(changes)}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": True}


class LocalFiles(TorchCheckpointIO):
    """Lightning's reader of checkpoints, made safe: files of this machine, and nothing that is in them is run.

    Attributes:
        ours: whether they are of our own networks, and say of which.
        restoring: the file that the trainer is being restored from; None once that is done.
    """

    def __init__(self, ours: bool = True) -> None:
        self.ours = ours
        self.restoring: Path | None = None

    def load_checkpoint(self, path: Any, *_: Any, **__: Any) -> dict[str, Any]:
        """The content of a checkpoint of ours. UserError if it is anything else; see :func:`read_torch`."""
        file = local_file(path, "ckpt_path")
        try:
            content = read_torch(file)
        except UserError as error:
            raise UserError(f"ckpt_path: {error}") from None
        state = content.get("state_dict") if isinstance(content, dict) else None
        if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
            raise UserError(f"ckpt_path: {file} is no training checkpoint: it has no tensors under 'state_dict'")
        if self.ours and HEADER not in content:
            raise UserError(
                f"ckpt_path: {file} is no checkpoint of nl-lightning; nl-lightning weights import reads those of others"
            )
        for key in ("loops", "callbacks", "optimizer_states", "lr_schedulers"):
            if key not in content:
                raise UserError(f"ckpt_path: {file} is no whole checkpoint: it has no '{key}'")
        self.restoring = file
        return dict(content)

    @contextlib.contextmanager
    def mistakes_named(self) -> Iterator[None]:
        """Within it, whatever a checkpoint makes Lightning stumble over is one line, a UserError."""
        self.restoring = None
        try:
            yield
        except (UserError, OSError):
            raise
        except Exception as error:
            if self.restoring is None:
                raise
            said = one_line(error, 200)
            raise UserError(
                f"ckpt_path: {self.restoring} can't be gone on from ({type(error).__name__}: {said}): is it of another "
                "version?"
            ) from error


def local_file(given: Any, key: str) -> Path:
    """The file that a setting names. UserError if it isn't one of this machine: nothing is ever fetched."""
    if re.match(r"[\w.+-]+:(//|:)", str(given)):
        raise UserError(f"{key}: {given} is an address; only files of this machine are read: fetch it yourself first")
    path = Path(given)
    if key == "ckpt_path" and not path.exists():
        raise UserError(f"ckpt_path: no checkpoint at {path}")
    if path.is_dir() and key == "ckpt_path":
        raise UserError(f"ckpt_path: {path} is a folder; expected a file, such as {CHECKPOINT} below it")
    return path


def newest_whole(newest: Path, speaks: bool) -> Path | None:
    """The newest checkpoint that can be gone on from, if there is one.

    Of a run's processes, the one that `speaks` for it names a damaged one and sets it aside, so that it never takes the
    place of a whole one.
    """
    for file in (newest, newest.with_name(PREVIOUS)):
        if not os.path.lexists(file):
            continue
        try:  # torch's files are archives with a checksum of every part
            size_of(file)  # a pipe would be read for ever
            with zipfile.ZipFile(file) as archive:
                if (bad := archive.testzip()) is None:
                    return file
            damage = f"bad checksum of {bad}"
        except Exception as error:  # of whatever kind: the part that is damaged may be the one that lists the parts
            damage = one_line(error)
        if speaks:
            aside = file.with_name(f"{file.stem}.damaged{file.suffix}")
            say(f"{file} is damaged ({damage}): kept as {aside.name}, going on from before it")
            os.replace(file, aside)
    return None
