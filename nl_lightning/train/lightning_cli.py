"""The command line's view of a network and its data: LightningCLI for ours, and what its arguments describe.

``fit``, ``validate`` and ``test`` are Lightning's own commands, with less noise.
"""

import re
from collections.abc import Sequence
from typing import Any

import pytorch_lightning as L
from pytorch_lightning.cli import LightningArgumentParser

from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.errors import UserError, stop_on_signals
from nl_lightning.models.complexity import complexity
from nl_lightning.models.conventions import Triple
from nl_lightning.models.resnet import VideoResNet
from nl_lightning.study.run import Run
from nl_lightning.train.callbacks import UnreadableVideos
from nl_lightning.train.checkpoints import local_file
from nl_lightning.train.classifier import VideoClassifier
from nl_lightning.train.modules import ModuleCLI, named_classes
from nl_lightning.train.run_cli import ANY_MACHINE, FITS, RunCLI, be_quiet, with_recipes
from nl_lightning.weights.file import with_weights


class VideoCLI(RunCLI):
    """The command line of :class:`VideoClassifier` and :class:`VideoDataModule`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, model_class=VideoClassifier, datamodule_class=VideoDataModule, **kwargs)

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        said = "nl-lightning run starts networks from 2-D ones that it trains on single frames; fit takes no notice"
        parser.add_argument("--stills", type=bool, default=False, help=said)
        super().add_arguments_to_parser(parser)
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("model.net.num_classes", "data.num_classes")
        parser.link_arguments("model.multi_label", "data.multi_label")

    def check(self, config: Any) -> None:
        for name in ("init_from", "weights", "imagenet"):
            if config[f"model.{name}"] is not None:
                local_file(config[f"model.{name}"], name)
        command = self.config.get("subcommand")
        given = [config["model.weights"], config.get("ckpt_path")]
        if command in ("validate", "test") and given.count(None) != 1:
            none = "none (model.init_from and model.imagenet are what fit starts from)"
            raise UserError(
                f"{command}: expected one trained network, --weights=FILE or --ckpt_path=FILE, "
                f"got {none if given.count(None) else 'both'}"
            )

    def instantiate_trainer(self, **kwargs: Any) -> L.Trainer:
        """A trainer that names unreadable videos as well."""
        kwargs["use_distributed_sampler"] = False  # the data module gives each process its part
        trainer: L.Trainer = super().instantiate_trainer(**kwargs)
        trainer.callbacks.insert(0, UnreadableVideos())  # type: ignore[attr-defined]
        return trainer

    def cost(self) -> str:
        net = complexity(self.model.net.config, self.datamodule.clip_shape)
        return f"{net.params / 1e6:.3g} M parameters, {net.macs / 1e9:.3g} G multiply-adds a clip"

    def tested(self, split: str) -> str:
        if split == "val":
            return "one clip of each video of val"
        return f"{self.datamodule.num_clips} x {self.datamodule.num_crops} views of each video"

    def number(self, name: str, value: float) -> str:
        return f"{name} {value:.2f}{'' if 'loss' in name else ' %'}"


def lightning_command(arguments: list[str]) -> int:
    """``nl-lightning fit | validate | test``: LightningCLI with our classifier and data; an exit code."""
    stop_on_signals()
    arguments = [re.sub("^-c(?==|$)", "--config", word) for word in arguments]
    words = with_weights(with_recipes(arguments))
    defaults: dict[str, Any] = {"logger": False, "enable_model_summary": False}
    if words[0] == "fit":  # into a folder that no other training has
        taken = [int(folder.name) for folder in FITS.glob("*") if folder.name.isdecimal()]
        defaults["default_root_dir"] = str(FITS / str(max(taken, default=0) + 1))
    be_quiet()
    kind: type[RunCLI] = ModuleCLI if "model" in named_classes(words) else VideoCLI
    kind(command=arguments, args=words, trainer_defaults=defaults)
    return 0


def data_of(arguments: Sequence[str]) -> VideoDataModule:
    """The data that these arguments describe; nothing of it is made yet."""
    return _described(arguments).datamodule  # type: ignore[no-any-return]


def _described(arguments: Sequence[str]) -> VideoCLI:
    """Network and data of these arguments, as on any machine, without a word."""
    be_quiet()
    return VideoCLI(args=[*arguments, *ANY_MACHINE], run=False, trainer_defaults={"logger": False})


def network(run: Run) -> tuple[VideoResNet, Triple]:
    """A run's network as it starts, but for weights from files, and (T, H, W) of the clips of its recipe."""
    cli = _described(run.arguments())
    return cli.model.net, cli.datamodule.clip_shape
