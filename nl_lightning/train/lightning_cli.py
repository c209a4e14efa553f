"""The command line's view of a network and its data: LightningCLI for ours, and what its arguments describe."""

import argparse
import contextlib
import ctypes
import logging
import re
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning as L
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.errors import UserError, nearest, stop_on_signals
from nl_lightning.models.complexity import BlockCost, Complexity, block_costs, complexity
from nl_lightning.models.conventions import Triple
from nl_lightning.models.resnet import VideoResNet
from nl_lightning.study.run import CHECKPOINT, CHECKPOINT_MINUTES, Run
from nl_lightning.train.callbacks import UnreadableVideos
from nl_lightning.train.checkpoints import Saver
from nl_lightning.train.classifier import VideoClassifier
from nl_lightning.weights.file import with_weights

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


def run_complexity(run: Run) -> Complexity:
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


TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
MOST = 32 << 20  # glibc takes no higher threshold


def keep_freed_memory() -> None:
    """From now on freed blocks up to 32 MiB stay with the process; nothing happens where the C library is not glibc.

    glibc gives large freed blocks back to the system, which hands out, and zeroes, the same pages again at every step:
    5,000 page faults a step for C2D of the recipe longrange, a fifth of its time.
    """
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, MOST)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(TOP_PAD, 2 * MOST)
