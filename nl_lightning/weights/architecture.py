"""Which of our networks a set of tensors is, told from their names (ours) and shapes."""

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from torch import Tensor

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import BLOCKS, STAGES, Inflate
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig
from nl_lightning.weights.source import Found, Semantics

Tensors = Mapping[str, Tensor]
CLASSES_OF_NONE = 400
"""Stands for the number of classes where there is no classifier."""


def architecture(found: Found, semantics: Semantics) -> ResNetConfig:
    """The network of the tensors, with what `semantics` says of it.

    Raises:
        UserError: no ResNet-50 or -101 has these residual blocks.
    """
    tensors = found.tensors
    inflate = found.inflate() if found.flat else _inflate(tensors)
    conventions: dict[str, Any] = {"norm": "batch" if "bn1.running_mean" in tensors else "affine"}
    if inflate != "none" and not found.flat:
        conventions["inflate_res2"] = "all" if all(_inflated(tensors, "res2", inflate)) else "alternate"
    if found.has_blocks:
        conventions["nonlocal_norm"] = _nonlocal_norm(tensors)
    fc = tensors.get("fc.weight")
    return ResNetConfig(
        depth=_depth(tensors),
        inflate=inflate,
        non_local=_non_local(found, semantics),
        num_classes=CLASSES_OF_NONE if fc is None else fc.shape[0],
        width=tensors["conv1.weight"].shape[0] / 64,
        temporal_strides=semantics.temporal_strides,
        conventions=replace(semantics.conventions, **conventions),
    )


def _depth(tensors: Tensors) -> Any:
    blocks = tuple(len(_blocks(tensors, stage, "blocks")) for stage in STAGES)
    for depth, expected in BLOCKS.items():
        if blocks == expected:
            return depth
    known = " and ".join(f"{expected} of ResNet-{depth}" for depth, expected in BLOCKS.items())
    raise UserError(f"its stages have {blocks} residual blocks; known are {known}")


def _blocks(tensors: Tensors, stage: str, kind: str) -> list[int]:
    """The numbers of a stage's residual (``blocks``) or non-local (``non_local``) blocks."""
    found = (re.match(rf"{stage}\.{kind}\.(\d+)\.", name) for name in tensors)
    return sorted({int(match[1]) for match in found if match})


def _inflated(tensors: Tensors, stage: str, inflate: Inflate) -> list[bool]:
    """Which residual blocks of a stage have the kernel of 3 frames that `inflate` gives them."""
    conv = "conv1" if inflate == "3x1x1" else "conv2"
    weights = [tensors.get(f"{stage}.blocks.{block}.{conv}.weight") for block in _blocks(tensors, stage, "blocks")]
    return [weight is not None and weight.shape[2] == 3 for weight in weights]


def _inflate(tensors: Tensors) -> Inflate:
    kinds: tuple[Inflate, Inflate] = ("3x1x1", "3x3x3")
    for kind in kinds:
        if any(any(_inflated(tensors, stage, kind)) for stage in STAGES):
            return kind
    return "none"


def _nonlocal_norm(tensors: Tensors) -> str:
    names = [name for name in tensors if re.search(r"\.non_local\.\d+\.bn\.", name)]
    if any(name.endswith("running_mean") for name in names):
        return "batch"
    return "affine" if names else "none"


def _non_local(found: Found, semantics: Semantics) -> NonLocalConfig | None:
    if not found.has_blocks:
        return None
    placed = {stage: _blocks(found.tensors, stage, "non_local") for stage in STAGES}
    instantiation = semantics.instantiation
    if any(name.endswith(".w_f") for name in found.tensors):
        instantiation = "concatenation"
    elif not any(".theta." in name for name in found.tensors):
        instantiation = "gaussian"
    return NonLocalConfig(
        {stage: blocks for stage, blocks in placed.items() if blocks}, instantiation, subsample=semantics.subsample
    )


def describe(config: ResNetConfig) -> str:
    """The network in a few words, for people."""
    kind = "C2D" if config.inflate == "none" else f"I3D {config.inflate}"
    words = [f"{kind} ResNet-{config.depth}"]
    if config.width != 1:
        words.append(f"of width {config.width:g}")
    if config.non_local is not None:
        placed = " and ".join(
            f"{stage} after {', '.join(map(str, after))}" for stage, after in config.non_local.placement.items()
        )
        words.append(f"with {config.non_local.instantiation} blocks in {placed}")
    return " ".join(words)
