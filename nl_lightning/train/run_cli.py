"""What every command line of a training has: LightningCLI that is safe with files, and goes on where it was stopped.

A recipe may name classes, as of an optimiser: such a recipe is code. Nothing else that is given here is run or fetched:
checkpoints, weights and recipes are files of this machine, and of checkpoints only tensors and plain values are read.
"""

import argparse
import contextlib
import ctypes
import itertools
import logging
import os
import re
import shlex
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import jsonargparse
import pytorch_lightning as L
import yaml
from lightning_fabric.utilities.warnings import PossibleUserWarning
from pytorch_lightning.callbacks import Callback, ModelCheckpoint, ProgressBar
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from torch.nn.parameter import is_lazy

from nl_lightning.errors import Stopped, UserError, nearest, one_line, say, visible
from nl_lightning.study.border import load_yaml, parse_yaml, weigh_yaml
from nl_lightning.study.files import set_aside
from nl_lightning.study.recipe import find_recipe
from nl_lightning.study.run import CHECKPOINT, CHECKPOINT_MINUTES, PREVIOUS
from nl_lightning.train.callbacks import Bar, FitCurve
from nl_lightning.train.checkpoints import LocalFiles, Saver, local_file

ANY_MACHINE = ["--trainer.accelerator=cpu", "--trainer.devices=1", "--trainer.strategy=auto", "--trainer.precision=32"]
"""For what needs the recipe but not its hardware."""

FITS = Path("my_results/fit")
"""Where ``fit`` writes unless it is told a folder: a folder for each training."""


_load = jsonargparse.get_loader("yaml")


def _read_yaml(text: str) -> Any:
    """Refuses what is small and would become huge, and a key that is given twice."""
    _refuse_twice(parse_yaml(text, "YAML"), "YAML")
    return _load(text)


def _refuse_twice(config: Any, at: str) -> None:
    """UserError for a key that is given as parts within each other and with dots: one of the two would be lost."""
    for key, count in Counter(_keys(config)).items():
        if count > 1:
            raise UserError(f"{at}: {key} is given twice, also with dots: leave one of them out")


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    for key, value in config.items() if isinstance(config, dict) else ():
        if isinstance(value, dict) and value:
            yield from _keys(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


jsonargparse.set_parsing_settings(
    config_read_mode_urls_enabled=False,
    config_read_mode_fsspec_enabled=False,  # LightningCLI allows it: a recipe would be fetched
    instantiate_subclass_spec_in_any=False,
)
jsonargparse.set_loader("yaml", _read_yaml, (yaml.YAMLError, UserError))


class RunCLI(LightningCLI):
    """LightningCLI with checkpoints that a run goes on from; one seed for weights and data. Others inherit from it.

    Args:
        checkpoint_minutes: from one checkpoint to the next, at most.
        command: the words of the command line, to say how a training that was stopped goes on.
    """

    ours = True
    """Whether the network is ours: its checkpoints say what it is, and its data know the place within an epoch."""

    def __init__(
        self, checkpoint_minutes: float = CHECKPOINT_MINUTES, command: Sequence[str] = (), **kwargs: Any
    ) -> None:
        keep_freed_memory()
        self.checkpoint_minutes, self.command = checkpoint_minutes, command
        self.files = LocalFiles(self.ours)
        # It warns of `args` in a process with arguments of its own; every command here passes them on.
        warnings.filterwarnings("ignore", "LightningCLI's args parameter")
        super().__init__(
            # SaveConfigCallback and the W&B logger would both write config.yaml; a run keeps its own, see `execute`.
            save_config_callback=None,
            seed_everything_default=0,
            auto_configure_optimizers=False,  # `--optimizer` would take the place of the model's own in silence
            **kwargs,
        )

    # ------------------------------------------------------------------------------------------------------- arguments

    def subcommands(self) -> dict[str, set[str]]:  # type: ignore[override]
        """The command, and arguments of the Trainer's methods that it doesn't take: files are read safely, always.

        A parser takes a while to make, so the other commands have none; without a command all have one.
        """
        every = ("fit", "validate", "test")
        theirs = {"model", "datamodule", "weights_only", "dataloaders", "train_dataloaders", "val_dataloaders"}
        return {name: set(theirs) for name in ([name for name in self.command[:1] if name in every] or every)}

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        checkpoint = next(action for action in parser._actions if action.dest == "ckpt_path")
        checkpoint.help = f"a checkpoint, a file of this machine; last: {CHECKPOINT} of trainer.default_root_dir"
        return parser

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        self.keys = [action.dest for action in parser._actions]

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        return super().init_parser(**{**kwargs, "exit_on_error": False})

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and check what was parsed, whichever file or word it came from."""
        for word in args:  # parts of the parser read YAML by another way than its reader
            with contextlib.suppress(yaml.YAMLError):
                weigh_yaml(word.partition("=")[2] or word, word[:60])
        for file in config_files(args):
            _refuse_twice(load_yaml(file), str(file))
        try:
            super().parse_arguments(parser, args)
        except (argparse.ArgumentError, ValueError, TypeError, KeyError, RecursionError, OSError) as error:
            if isinstance(error, UserError):
                raise
            raise UserError(self.said(error)) from None
        config = self.config.get(self.config.get("subcommand") or "", self.config)
        seed = config["seed_everything"]
        if not isinstance(seed, bool) and not 0 <= seed < 2**32:
            raise UserError(f"seed_everything is {seed}: expected 0 to {2**32 - 1}")
        if (given := config.get("ckpt_path")) is not None:
            if given == "last" and config["trainer.default_root_dir"] is not None:
                given = Path(config["trainer.default_root_dir"]) / CHECKPOINT
            elif given in ("last", "best", "hpc"):
                raise UserError(
                    f"ckpt_path is {given}: only the newest checkpoint is kept; give its file, {CHECKPOINT}"
                )
            config["ckpt_path"] = str(local_file(given, "ckpt_path"))
        self.check(config)

    def said(self, error: Exception) -> str:
        """What the parser says, in one line, with the nearest known key for one that it doesn't know."""
        line = one_line(error)
        unknown = re.findall(r"--([\w.]+)", line)
        unknown += [".".join(found) for found in re.findall(r"Group '(\S+)' does not accept option '(\S+)'", line)]
        hints = (nearest(key, self.keys, otherwise_all=False) for key in unknown if key not in self.keys)
        return line[:500] + "".join(hints)

    def check(self, config: Any) -> None:
        """UserError if what was parsed can't be."""

    def _parse_ckpt_path(self) -> None:
        """Not as Lightning does: a checkpoint would change the arguments, and name classes to import."""

    # --------------------------------------------------------------------------------------------------------- trainer

    def instantiate_classes(self) -> None:
        try:
            super().instantiate_classes()
        except (UserError, OSError):
            raise
        except Exception as error:  # Lightning's own checks raise anything
            raise UserError(f"{type(error).__name__}: {one_line(error, 500)}") from error

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """A trainer that keeps ``<default_root_dir>/checkpoints/last.ckpt``.

        That is of the newest iterate, which the paper reports, never of the best on validation.
        """
        try:
            trainer = super().instantiate_trainer(**kwargs)
        except (UserError, OSError):
            raise
        except Exception as error:  # no GPU, or fewer than the recipe asks for, or any other of Lightning's own checks
            raise UserError(f"trainer: {one_line(error, 500)}; see --trainer.accelerator and .devices") from error
        callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
        self.root = Path(trainer.default_root_dir)
        newest, a_run = self.root / CHECKPOINT, not self.command  # `fit` may be told to go on
        saver = Saver(newest, self.checkpoint_minutes, self.files, within_epochs=self.ours, ends_again=a_run)
        if self._get(self.config, "trainer.default_root_dir") is not None:
            callbacks[:] = [*(c for c in callbacks if not isinstance(c, ModelCheckpoint)), saver]
        callbacks[:] = [Bar() if isinstance(each, ProgressBar) else each for each in callbacks]
        trainer.strategy.checkpoint_io = self.files
        return trainer

    # -------------------------------------------------------------------------------------------------------- commands

    def fit(self, **kwargs: Any) -> None:
        """Train; say what, how far it came, and by which command it goes on or is tested."""
        newest = self.root / CHECKPOINT
        if self.trainer.is_global_zero:
            self._make_room(newest, kwargs["ckpt_path"])
            print(visible(f"{self.cost()}; into {self.root}"))
        curve = FitCurve(self.root / "curve.csv")
        self.trainer.callbacks.insert(0, curve)  # type: ignore[attr-defined]
        try:
            with self.files.mistakes_named():
                self.trainer.fit(**kwargs, weights_only=True)
        except Stopped as stopped:
            if self.trainer.is_global_zero:
                stopped.said = self._how_it_goes_on(newest)
            raise
        finally:
            if self.root.parent == FITS:
                with contextlib.suppress(OSError):
                    self.root.rmdir()  # if it is empty: nothing came of it
        if self.trainer.is_global_zero:
            words = [*self._words("--ckpt_path"), f"--ckpt_path={newest}"]
            print(visible(f"test it: nl-lightning test {shlex.join(words)}"))

    def cost(self) -> str:
        """What the network costs."""
        made = (one for one in self.model.parameters() if not is_lazy(one))  # others get their size in the first step
        return f"{sum(one.numel() for one in made) / 1e6:.3g} M parameters"

    def _make_room(self, newest: Path, resumed: str | None) -> None:
        """Take the folder; checkpoints of another training in it are kept under other names."""
        if self.root.parent == FITS and not newest.parent.exists():
            self.root.mkdir(parents=True)
        for file in (newest, newest.with_name(PREVIOUS)):
            if resumed is not None and file.exists() and file.samefile(resumed):
                return
            set_aside(file)

    def _how_it_goes_on(self, newest: Path) -> str:
        if not newest.exists():
            return "stopped before the first checkpoint: the same command begins again"
        words = self._words("--ckpt_path", "--trainer.default_root_dir")
        words += [f"--trainer.default_root_dir={self.root}", f"--ckpt_path={newest}"]
        return f"stopped; it goes on with: nl-lightning fit {shlex.join(words)}"

    def _words(self, *without: str) -> list[str]:
        """The words of the command line, without the command and some of its options."""
        words: list[str] = []
        skip = False
        for word in self.command[1:]:
            if not skip and word.partition("=")[0] not in without:
                words.append(word)
            skip = word in without
        return words

    def validate(self, verbose: bool = True, **kwargs: Any) -> None:
        self._measure("val", self.trainer.validate, verbose, kwargs)

    def test(self, verbose: bool = True, **kwargs: Any) -> None:
        self._measure("test", self.trainer.test, verbose, kwargs)

    def tested(self, split: str) -> str:
        """What the numbers of a split are of."""
        return split

    def _measure(self, split: str, by: Callable[..., Any], verbose: bool, options: dict[str, Any]) -> None:
        """Measure on a split, and print the numbers, once of all processes."""
        with self.files.mistakes_named():
            found = by(**options, weights_only=True, verbose=False)
        if verbose and self.trainer.is_global_zero:
            measured = [self.number(name, value) for numbers in found for name, value in numbers.items()]
            print(visible(f"{', '.join(measured)} ({self.tested(split)})"))
            if diverged := getattr(self.model, "diverged", ""):
                say(f"diverged: {diverged}")

    def number(self, name: str, value: float) -> str:
        """A measured number in words."""
        return f"{name} {value:.4g}"


def config_files(words: Sequence[str]) -> list[Path]:
    """The files that ``--config`` names."""
    given = [word.removeprefix("--config=") for word in words if word.startswith("--config=")]
    given += [after for word, after in itertools.pairwise(words) if word == "--config"]
    return [Path(name) for name in given if os.path.isfile(name)]


def with_recipes(words: Sequence[str]) -> list[str]:
    """The words, with the file of a recipe where ``--config`` gives its name. UserError if there is none."""
    found = []
    for before, word in itertools.pairwise(["", *words]):
        option, equals, given = word.rpartition("=")
        named = (option == "--config" or (before == "--config" and not equals)) and re.fullmatch(r"[\w-]+", given)
        found.append(f"{option}{equals}{find_recipe(given)}" if named and not os.path.isfile(given) else word)
    return found


def be_quiet() -> None:
    """Leave out what Lightning says of itself; warnings that stay are one line, without a place in a file."""
    for logger in ("pytorch_lightning", "lightning_fabric"):
        logging.getLogger(logger).setLevel(logging.WARNING)  # devices, seeds, advertisements
    without_advice()
    for category in (PossibleUserWarning, FutureWarning, DeprecationWarning):
        warnings.filterwarnings("ignore", category=category)
    warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`")  # a test has no use for a curve
    warnings.formatwarning = lambda message, *rest, **more: f"nl-lightning: {visible(message)}\n"


def without_advice() -> None:
    """Leave out what Lightning advertises, and its advice to call srun; all else that it says stays."""
    logging.getLogger("pytorch_lightning.utilities.rank_zero").addFilter(_is_no_tip)
    warnings.filterwarnings("ignore", "The `srun` command is available")


def _is_no_tip(record: logging.LogRecord) -> bool:
    return "Tip: " not in record.getMessage()


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
