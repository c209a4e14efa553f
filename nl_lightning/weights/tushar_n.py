"""Tushar-N/pytorch-resnet3d: the released I3D ResNet-50, with and without five blocks, in PyTorch."""

from nl_lightning.models.conventions import Conventions
from nl_lightning.weights import torchvision
from nl_lightning.weights.names import Names
from nl_lightning.weights.source import CLIPS, Found, Semantics, Source, clip_settings

NAMES = Names(
    [
        *torchvision.PAIRS,
        ("res{stage}.non_local.{block}.{conv}.{tensor}", "layer{stage}.{block}.nl.{conv}.{tensor}"),
        ("res{stage}.non_local.{block}.bn.{norm}", "layer{stage}.{block}.nl.bn.{norm}"),
    ],
    torchvision.WORDS | {"conv": {"theta": "theta", "phi": "phi", "g": "g", "W_z": "out"}},
)


def semantics(found: Found) -> Semantics:
    """The released code's 32x2. (Its own test reads 32 consecutive frames, which these weights were not made for.)"""
    clip = found.clip(("32x2",), default="32x2")
    return Semantics(Conventions("release"), CLIPS[clip], clip_settings(clip, clip_starts="release"))


SOURCE = Source("tushar_n", NAMES, semantics)
