"""Small weight files for the tests of what uses them, and what hostile files hold."""

import os
from pathlib import Path
from typing import Any

import torch

from nl_lightning.data.longrange import LongRange
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.weights.file import InputSettings, WeightsHeader, save_weights

INPUT = InputSettings(8, 2, (80.0,) * 3, (60.0,) * 3, test_short_side=36, test_crop=32, num_clips=2, num_crops=3)


def write_weights(
    path: Path, non_local: NonLocalConfig | None, classes: tuple[str, ...] = LongRange().classes(), **net: Any
) -> Path:
    """An untrained network for the generated videos; its clips have 8 frames of 32 x 32."""
    torch.manual_seed(0)
    config = ResNetConfig(
        non_local=non_local, num_classes=11, width=1 / 64, temporal_strides=(1, 1, 2),
        spatial_strides=(2, 2, 1, 1, 1, 1), conventions=Conventions(scale=True), **net,
    )  # fmt: skip
    header = WeightsHeader(config, INPUT, "nl-lightning", "", classes=classes)
    save_weights(path, VideoResNet(config).state_dict(), header)
    return path


class Runs:
    """A pickle of it makes a folder when it is read."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("ran",)


def shared(levels: int) -> dict[str, Any]:
    """Dictionaries of dictionaries: as many values as 2 to the power of the levels, in a few hundred bytes."""
    bomb: dict[str, Any] = {}
    for _ in range(levels):
        bomb = {"a": bomb, "b": bomb}
    return bomb
