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
    copy = batches(module, module.train_dataloader())
    module.decoded_copy = False
    files, held = (batches(module, module.train_dataloader(), reader) for reader in (None, Held(module)))
    clips = decoded(module)
    batch = next(copy)
    model: VideoClassifier = cli.model.to(settings.device).train()
    optimizer = model.optimizer(parameter_groups(model.net, model.decay_one_dimensional))

    def train(clips: Tensor, labels: Any) -> None:
        optimizer.zero_grad()
        F.cross_entropy(model(clips.to(settings.device)), torch.as_tensor(labels, device=settings.device)).backward()
        optimizer.step()

    return Contest(
        {
            "decoded": lambda: [next(clips) for _ in range(module.batch_size)],
            "augmented": lambda: next(held),
            "trained": lambda: train(*batch),
            "all, from files": lambda: train(*next(files)),
            "all, from the decoded copy": lambda: train(*next(copy)),
        }
    )


def batches(module: VideoDataModule, loader: Any, reader: "Held | None" = None) -> Iterator[tuple[Tensor, Any]]:
    """Batches of training clips and labels without end, as the data module's loader makes them."""
    if reader is not None:
        loader.dataset.reader = reader
    while True:
        for batch in loader:
            moved = module.on_after_batch_transfer(batch, 0)
            yield moved.views.flatten(0, 1), moved.label


def decoded(module: VideoDataModule) -> Iterator[Frames]:
    """The frames of a random clip of each video, out of its file, without end."""
    rng = np.random.default_rng(0)
    for path in itertools.cycle(module.videos("train").paths):
        length = decoding.num_frames(path)
        start = train_start(rng, length, module.num_frames, module.frame_stride)
        yield decoding.frames(path, clip_indices(start, length, module.num_frames, module.frame_stride))


class Held:
    """A reader that has some videos in memory, decoded, and gives them for all the others too."""

    def __init__(self, module: VideoDataModule) -> None:
        paths = module.videos("train").paths
        few = itertools.islice(paths, 2 * module.batch_size)
        self.some = [decoding.frames(path, np.arange(decoding.num_frames(path))) for path in few]
        self.row = {path: index % len(self.some) for index, path in enumerate(paths)}

    def num_frames(self, path: Path) -> int:
        return len(self.some[self.row[path]])

    def frames(self, path: Path, indices: npt.NDArray[np.int64]) -> Frames:
        return np.asarray(self.some[self.row[path]][indices])
