"""Clips per second through each stage of the pipeline by itself, and through all: decoded, augmented, trained.

The data are the generated recipe's, through the project's own datamodule. Rates are of one process that does one thing
after the other, as that recipe has it.
"""

import itertools
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks import data
from benchmarks.contest import Contest, Figures, Settings, measure
from nl_lightning.data import decoding
from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.data.decoding import Frames
from nl_lightning.data.sampling import clip_indices, train_start
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import load_recipe
from nl_lightning.train.classifier import VideoClassifier
from nl_lightning.train.lightning_cli import VideoCLI
from nl_lightning.train.optimization import parameter_groups
from nl_lightning.train.run_cli import ANY_MACHINE

VARIANTS = ("c2d_r50", "i3d311_r50_nl5")
STAGES = ("decoded", "augmented", "trained")


def cases(settings: Settings) -> Iterator[tuple[dict[str, Any], partial[Figures]]]:
    clips = load_recipe(data.RECIPE).config["data"]["batch_size"]
    for variant in VARIANTS[: 1 if settings.quick else None]:
        yield {"recipe": data.RECIPE, "variant": variant, "clips": clips}, partial(run, variant)


def run(variant: str, settings: Settings) -> Figures:
    return measure(partial(contest, variant, settings), settings)


def contest(variant: str, settings: Settings) -> Contest:
    """A batch of clips through each stage, and through all of them from the files and from their decoded copy."""
    arguments = [f"--config={file}" for file in load_recipe(data.RECIPE).files]
    arguments += load_study(find_study("table2")).variant(variant).arguments()
    arguments += [*ANY_MACHINE, *data.arguments(settings.quick)]
    cli = VideoCLI(args=arguments, run=False, trainer_defaults={"logger": False, "enable_progress_bar": False})
    module: VideoDataModule = cli.datamodule
    module.prepare_data()
    module.setup("fit")
    train = Training(cli.model, settings.device)
    copy = Batches(module)
    module.decoded_copy = False
    files = Batches(module)
    batch = copy()
    return Contest(
        {
            "decoded": Decoding(module),
            "augmented": Batches(module, Held(module)),
            "trained": lambda: train(*batch),
            "all, from files": lambda: train(*files()),
            "all, from the decoded copy": lambda: train(*copy()),
        }
    )


class Held:
    """A reader that has some videos in memory, decoded, and gives them for all the others too."""

    def __init__(self, module: VideoDataModule) -> None:
        paths = module.videos("train").paths
        self.some = [_decoded(path) for path in itertools.islice(paths, 2 * module.batch_size)]
        self.row = {path: index % len(self.some) for index, path in enumerate(paths)}

    def num_frames(self, path: Path) -> int:
        return len(self.some[self.row[path]])

    def frames(self, path: Path, indices: npt.NDArray[np.int64]) -> Frames:
        return np.asarray(self.some[self.row[path]][indices])


def _decoded(path: Path) -> Frames:
    return decoding.frames(path, np.arange(decoding.num_frames(path)))


class Decoding:
    """The frames of a random clip of each of so many videos, out of their files."""

    def __init__(self, module: VideoDataModule) -> None:
        self.module, self.rng, self.next = module, np.random.default_rng(0), 0

    def __call__(self) -> None:
        module, paths = self.module, self.module.videos("train").paths
        for _ in range(module.batch_size):
            path = paths[self.next % len(paths)]
            self.next += 1
            length = decoding.num_frames(path)
            start = train_start(self.rng, length, module.num_frames, module.frame_stride)
            decoding.frames(path, clip_indices(start, length, module.num_frames, module.frame_stride))


class Batches:
    """Batches of training clips and labels, as the data module's loader makes them, from this reader or its own."""

    def __init__(self, module: VideoDataModule, reader: Held | None = None) -> None:
        self.module, self.loader = module, module.train_dataloader()
        if reader is not None:
            clips: Any = self.loader.dataset
            clips.reader = reader
        self.batches = iter(self.loader)

    def __call__(self) -> tuple[Tensor, Tensor]:
        batch: Any = next(self.batches, None)
        if batch is None:
            self.batches = iter(self.loader)
            batch = next(self.batches)
        moved = self.module.on_after_batch_transfer(batch, 0)
        return moved.views.flatten(0, 1), moved.label  # type: ignore[return-value]


class Training:
    """A step of training on a batch."""

    def __init__(self, model: VideoClassifier, device: str) -> None:
        self.model, self.device = model.to(device).train(), device
        self.optimizer = model.optimizer(parameter_groups(model.net, model.decay_one_dimensional))

    def __call__(self, clips: Tensor, labels: Any) -> None:
        self.optimizer.zero_grad()
        F.cross_entropy(self.model(clips.to(self.device)), torch.as_tensor(labels, device=self.device)).backward()
        self.optimizer.step()
