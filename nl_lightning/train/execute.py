"""One run: a variant, a recipe and a seed, trained and tested, ending in one record.

Everything a run needs is in its arguments, and everything it leaves lies in its own folder
(``<results>/runs/<recipe>/<variant>/seed<k>/``) until the record and the predictions are written, whole, at the end.
:mod:`nl_lightning.runs.worker` is the process around it.
"""

import argparse
import contextlib
import importlib.metadata
import logging
import math
import platform
import re
import subprocess
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import lightning as L
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import WandbLogger

from nl_lightning.data.datamodule import UnreadableVideos, VideoDataModule
from nl_lightning.data.videos import below
from nl_lightning.errors import UserError, nearest, stop_on_signals
from nl_lightning.models.complexity import BlockCost, Complexity, block_costs, complexity
from nl_lightning.models.folded import Triple
from nl_lightning.models.resnet import VideoResNet
from nl_lightning.study.lock import Claim
from nl_lightning.study.records import RunRecord, pack, pack_numbers, portable, videos_hash, write_record
from nl_lightning.study.run import CHECKPOINT, CHECKPOINT_MINUTES, Run
from nl_lightning.train.checkpoints import Saver, newest_whole
from nl_lightning.train.classifier import VideoClassifier
from nl_lightning.train.memory import keep_freed_memory
from nl_lightning.weights.arguments import with_weights

C = TypeVar("C", bound=Callback)
VERSIONS = ("torch", "torchvision", "lightning", "decord", "av", "numpy", "wandb")
"""Packages whose versions a record names: those that can change a number."""

ANY_MACHINE = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto", "--trainer.precision=32"]
"""For what needs the recipe but not its hardware."""


class VideoCLI(LightningCLI):
    """LightningCLI for :class:`VideoClassifier` and :class:`VideoDataModule`; one seed for weights and data."""

    def __init__(self, checkpoint_minutes: float = CHECKPOINT_MINUTES, **kwargs: Any) -> None:
        keep_freed_memory()
        self.checkpoint_minutes = checkpoint_minutes
        # It warns of `args` in a process with arguments of its own; every command here passes them on.
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        # SaveConfigCallback and the W&B logger would both write config.yaml; a run keeps its own, see `execute`.
        super().__init__(
            VideoClassifier, VideoDataModule, save_config_callback=None, seed_everything_default=0, **kwargs
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        self.keys = [action.dest for action in parser._actions]
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("model.net.num_classes", "data.num_classes")
        parser.link_arguments("model.multi_label", "data.multi_label")

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**{**kwargs, "exit_on_error": False})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        try:
            super().parse_arguments(parser, args)
        except argparse.ArgumentError as error:
            raise UserError(_with_nearest(str(error), self.keys)) from None

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """A trainer that names unreadable videos, and keeps ``<default_root_dir>/checkpoints/last.ckpt``.

        That is of the newest iterate, which the paper reports, never of the best on validation. Where no
        `default_root_dir` is given, Lightning's own folder and name stay.
        """
        kwargs["use_distributed_sampler"] = False  # the data module gives each process its part
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except MisconfigurationException as error:  # no GPU, or fewer than the recipe asks for
            raise UserError(
                f"trainer: {' '.join(str(error).split())}; see --trainer.accelerator and .devices"
            ) from None
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        root = self._get(self.config, "trainer.default_root_dir")
        if root is not None:
            saver = Saver(Path(root) / CHECKPOINT, self.checkpoint_minutes)
            callbacks[:] = [*(c for c in callbacks if not isinstance(c, ModelCheckpoint)), saver]
        callbacks.insert(0, UnreadableVideos())
        return trainer


def _with_nearest(message: str, known: Sequence[str]) -> str:
    """What the parser says, in one line, with the nearest known key for one that it doesn't know."""
    line = " ".join(message.split())
    unknown = re.findall(r"--([\w.]+)", line)
    unknown += [".".join(found) for found in re.findall(r"Group '(\S+)' does not accept option '(\S+)'", line)]
    hints = "".join(nearest(key, known) for key in unknown if key not in known)
    return line[:500] + (hints if "did you mean" in hints else "")


class Tracker(Protocol):
    """Follows a run from outside, as W&B does (:mod:`nl_lightning.tracking.log`)."""

    def begin(self, run: Run, /) -> Any:
        """The run at the tracker, as Lightning's W&B logger wants it."""

    def end(self, record: RunRecord, /) -> None:
        """File the record with the tracker."""


class Progress(Callback):
    """Say in the run's marker how far it is, about once a second, for the runner's bars; stop if the claim is lost."""

    def __init__(self, run: Run, held: Claim | None) -> None:
        self.run, self.held, self.said = run, held, 0.0
        self.started = datetime.now(UTC).isoformat(timespec="seconds")

    def say(self, phase: str, done: int, total: int) -> None:
        if self.held is None or time.monotonic() - self.said < 1:
            return
        if self.held.lost:
            raise UserError(f"{self.run.name}: another process took over, as this one gave no sign of life for long")
        self.said = time.monotonic()
        self.run.say("running", started=self.started, phase=phase, done=done, total=total)

    def on_train_batch_end(self, trainer: L.Trainer, *args: Any) -> None:
        self.say("train", trainer.global_step, int(trainer.estimated_stepping_batches))

    def on_test_batch_end(self, trainer: L.Trainer, module: Any, outputs: Any, batch: Any, index: int, *_: int) -> None:
        self.say("test", index + 1, int(sum(trainer.num_test_batches)))


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
        self.points.append({"step": trainer.global_step, **_rounded(module.epoch_means()), **self.validated})
        self.validated = {}

    def state_dict(self) -> dict[str, Any]:
        return {"points": self.points, "validated": self.validated}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.points, self.validated = state["points"], state["validated"]


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
    """The finite ones."""
    return {name: round(value, 4) for name, value in values.items() if math.isfinite(value)}


def execute(run: Run, held: Claim | None, tracker: Tracker) -> RunRecord | None:
    """Train, test and record a run; goes on from its last checkpoint if it has one of the same configuration.

    Of several processes, the first one has the claim (`held`), and returns the record. `tracker` follows the run.

    Raises:
        UserError: what the user can mend, in one line.
    """
    progress, curve, clock = Progress(run, held), Curve(), Clock()
    progress.say("start", 0, 1)
    quiet = {"logger": False, "enable_progress_bar": False}
    cli = VideoCLI(run.checkpoint_minutes, args=run.arguments(), run=False, trainer_defaults=quiet)
    trainer, model, data = cli.trainer, cli.model, cli.datamodule
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks[:] = [progress, curve, *callbacks, clock]  # the saver, which keeps the curve, comes after it
    if held is not None:
        (run.folder / "resolved.yaml").write_text(cli.parser.dump(cli.config, skip_none=False))
        trainer.loggers = [WandbLogger(experiment=tracker.begin(run), save_dir=run.folder, log_model=False)]

    from_checkpoint = newest_whole(run.checkpoint, speaks=held is not None)
    trainer.fit(model, datamodule=data, ckpt_path=from_checkpoint, weights_only=True if from_checkpoint else None)
    trained = time.monotonic()
    metrics = trainer.test(model, datamodule=data, verbose=False)[0]
    unreadable = _callback(trainer, UnreadableVideos).everywhere()
    if not trainer.is_global_zero:
        return None
    record = _record(run, cli, metrics, unreadable, test_seconds=round(time.monotonic() - trained, 1))
    write_record(run.results, record)
    tracker.end(record)
    return record


def _callback(trainer: L.Trainer, kind: type[C]) -> C:
    """The trainer's callback of a kind that it has one of."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    (found,) = (callback for callback in callbacks if isinstance(callback, kind))
    return found


def _record(
    run: Run, cli: VideoCLI, metrics: Mapping[str, float], unreadable: Mapping[str, Sequence[str]], test_seconds: float
) -> RunRecord:
    """The record of a run that has just been tested."""
    trainer, model, data = cli.trainer, cli.model, cli.datamodule
    curve, clock = _callback(trainer, Curve), _callback(trainer, Clock)
    read = [model.tested[video].scores is not None for video in sorted(model.tested)]
    return RunRecord(
        study=run.study.name,
        recipe=run.recipe.name,
        variant=run.variant.name,
        seed=run.seed,
        config_hash=run.config_hash,
        config={"recipe": portable(run.recipe.config), "arguments": run.variant.arguments()},
        videos_expected=len(data.videos("test")),
        videos_scored=sum(read),
        unreadable=sorted(below(Path(p), data.root) for p in set().union(*unreadable.values())),
        num_clips=data.num_clips,
        num_crops=data.num_crops,
        params=sum(p.numel() for p in model.net.parameters()),
        macs=complexity(model.net.config, data.clip_shape).macs,
        steps=trainer.global_step,
        train_seconds=round(clock.seconds, 1),
        data_wait=clock.data_wait,
        test_seconds=test_seconds,
        videos_hash=videos_hash(data.listed("test")),
        **_measured(model, metrics, data.groups),
        read_videos="" if all(read) else pack(read),
        curve=curve.points,
        device=_device(trainer),
        decoder=data.files.decoder,
        versions={"python": platform.python_version(), **_versions()},
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        init_from=run.variant.init_from,
        **_videos(data, scored=sum(read)),
        **_commit(),
    )


def _measured(model: VideoClassifier, metrics: Mapping[str, float], groups: Sequence[str]) -> dict[str, Any]:
    """Fields of a record that say what testing gave: of all videos, of each, and of groups of classes."""
    scores = {name.removeprefix("test/"): round(score, 4) for name, score in metrics.items()}
    if model.multi_label:
        return {**scores, "mAP_by_video": pack_numbers(model.contributions().tolist())}
    return {
        **scores,
        "right_top1": pack(model.right(1)),
        "right_top5": pack(model.right(5)),
        "top1_by_group": model.top1_by(groups),
    }


def _videos(data: VideoDataModule, scored: int) -> dict[str, Any]:
    """How many videos were there and decodable: as a census found, or else as testing did."""
    present, decodable = data.found("test")
    train = {"expected": len(data.videos("train"))}
    if data.manifest is not None:
        train["present"], train["decodable"] = data.manifest.counts(data.videos("train").paths)
    return {
        "videos_present": present,
        "videos_decodable": scored if decodable is None else decodable,
        "train_videos": train,
    }


def lightning_command(arguments: list[str]) -> int:
    """``nl-lightning fit | validate | test``: LightningCLI with our classifier and data."""
    stop_on_signals()
    for path in (word.removeprefix("--ckpt_path=") for word in arguments if word.startswith("--ckpt_path=")):
        if not Path(path).is_file() and path not in ("best", "last", "null"):
            raise UserError(f"ckpt_path: no checkpoint at {path}")
    VideoCLI(args=with_weights(arguments))
    return 0


def data_of(arguments: Sequence[str]) -> VideoDataModule:
    """The data that these arguments describe; nothing of it is made yet."""
    data: VideoDataModule = _described(arguments).datamodule
    return data


def _described(arguments: Sequence[str]) -> VideoCLI:
    """Network and data of these arguments, as on any machine, without a word."""
    for logger in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(logger).setLevel(logging.WARNING)  # seeds and devices are no news here
    warnings.filterwarnings("ignore", "The `srun` command is available")  # Lightning's advice where jobs are submitted
    return VideoCLI(args=[*arguments, *ANY_MACHINE], run=False, trainer_defaults={"logger": False})


def costs(run: Run) -> Complexity:
    """Parameters and multiply-adds of a run's network, on the clips of its recipe."""
    net, clip = network(run)
    return complexity(net.config, clip)


def block_costs_of(run: Run, device: str) -> list[BlockCost]:
    """What the non-local blocks of a run's network compare, on the clips and in the precision of its recipe."""
    net, clip = network(run)
    half = "16" in str(run.recipe.config["trainer"].get("precision", ""))  # 16-mixed, bf16-true ...
    return block_costs(net.config, clip, device, half)


def network(run: Run) -> tuple[VideoResNet, Triple]:
    """A run's network as it starts, but for weights from files, and (T, H, W) of the clips of its recipe."""
    cli = _described(run.arguments())
    return cli.model.net, cli.datamodule.clip_shape


def _versions() -> dict[str, str]:
    versions = {}
    for package in VERSIONS:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # decord has no wheel for every machine
            versions[package] = importlib.metadata.version(package)
    return versions


def _device(trainer: L.Trainer) -> str:
    if trainer.strategy.root_device.type == "cuda":
        return f"{trainer.num_devices} x {torch.cuda.get_device_name()}"
    return f"CPU ({platform.machine()}), {torch.get_num_threads()} thread(s)"


def _commit() -> Mapping[str, Any]:
    """The commit that this package runs from, if it runs from a checkout, and whether files differ from it."""

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(Path(__file__).parent), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    try:
        return {"commit": git("rev-parse", "HEAD"), "dirty": bool(git("status", "--porcelain", "--", "."))}
    except (OSError, subprocess.CalledProcessError):
        return {"commit": "unknown", "dirty": True}
