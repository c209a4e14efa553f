"""PySlowFast's C2D and I3D, with and without blocks: its ``.pyth`` files, and its ``.pkl`` with Caffe2's names."""

from typing import Any

import yaml

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Conventions, Instantiation
from nl_lightning.weights import caffe2
from nl_lightning.weights.file import InputSettings
from nl_lightning.weights.names import Names
from nl_lightning.weights.source import NORM, Found, Semantics, Source

STAGE = "s{stage}.pathway0"
NAMES = Names(
    [
        ("conv1.weight", "s1.pathway0_stem.conv.weight"),
        ("bn1.{norm}", "s1.pathway0_stem.bn.{norm}"),
        ("res{stage}.blocks.{block}.conv{n}.weight", f"{STAGE}_res{{block}}.branch2.{{n}}.weight"),
        ("res{stage}.blocks.{block}.bn{n}.{norm}", f"{STAGE}_res{{block}}.branch2.{{n}}_bn.{{norm}}"),
        ("res{stage}.blocks.{block}.downsample.0.weight", f"{STAGE}_res{{block}}.branch1.weight"),
        ("res{stage}.blocks.{block}.downsample.1.{norm}", f"{STAGE}_res{{block}}.branch1_bn.{{norm}}"),
        ("res{stage}.non_local.{block}.{conv}.{tensor}", f"{STAGE}_nonlocal{{block}}.conv_{{conv}}.{{tensor}}"),
        ("res{stage}.non_local.{block}.bn.{norm}", f"{STAGE}_nonlocal{{block}}.bn.{{norm}}"),
        ("fc.{tensor}", "head.projection.{tensor}"),
    ],
    {
        "n": {"1": "a", "2": "b", "3": "c"},
        "norm": NORM,
        "conv": {"theta": "theta", "phi": "phi", "g": "g", "W_z": "out"},
        "tensor": {"weight": "weight", "bias": "bias"},
    },
)
INSTANTIATIONS: dict[str, Instantiation] = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}
NO_POOL2 = ("2d", "slow_c2d", "slow_i3d")


def semantics(found: Found) -> Semantics:
    """Padded pools and no stride in time before pool2; the rest as the file's own configuration says, if it has one."""
    cfg = configuration(found)
    data, blocks = cfg.get("DATA", {}), cfg.get("NONLOCAL", {})
    no_pool = "nopool" in found.words or cfg.get("MODEL", {}).get("ARCH") in NO_POOL2
    frames, stride = data.get("NUM_FRAMES"), data.get("SAMPLING_RATE")
    if frames is None or stride is None:
        frames, stride = map(int, found.clip(("8x8", "32x4"), default="8x8").split("x"))
    instantiation: Instantiation = "embedded_gaussian"
    if found.has_blocks:
        said = blocks.get("INSTANTIATION")
        if said is not None and said not in INSTANTIATIONS:
            raise UserError(f"slowfast: its configuration has NONLOCAL.INSTANTIATION {said!r}, which is not known")
        instantiation = INSTANTIATIONS[said] if said else found.instantiation()
        if any(size != 1 for stage in blocks.get("GROUP", []) for size in stage):
            raise UserError("slowfast: its configuration has NONLOCAL.GROUP other than 1, which is not known")
    return Semantics(
        Conventions("release", max_pool="padded_in_space"),
        (1, 1, 1) if no_pool else (1, 1, 2),
        InputSettings(frames, stride, clip_starts="slowfast", test_pool=7),
        instantiation,
        subsample=_pools(blocks),
    )


def configuration(found: Found) -> dict[str, Any]:
    """The configuration in a ``.pyth`` file, or nothing. UserError if it isn't YAML of plain values."""
    try:
        cfg = yaml.safe_load(str(found.beside.get("cfg") or "{}"))
    except yaml.YAMLError as error:
        raise UserError(
            f"slowfast: the configuration in the file can't be read: {' '.join(str(error).split())}"
        ) from None
    return cfg if isinstance(cfg, dict) else {}


def _pools(blocks: dict[str, Any]) -> bool:
    """Whether NONLOCAL.POOL is 2 x 2 in space, its default, in stages with blocks; UserError for any other pool."""
    located = [bool(stage and stage[0]) for stage in blocks.get("LOCATION", [])]
    pools = {tuple(pool[0]) for pool, used in zip(blocks.get("POOL", []), located, strict=False) if used}
    if pools - {(1, 2, 2), (1, 1, 1)} or len(pools) > 1:
        raise UserError(f"slowfast: its configuration has NONLOCAL.POOL {sorted(pools)}: expected [1, 2, 2] everywhere")
    return pools != {(1, 1, 1)}


SOURCE = Source("slowfast", NAMES, semantics)
CAFFE2 = Source("slowfast", caffe2.NAMES, semantics, ignored=caffe2.SOURCE.ignored, complete=caffe2.complete)
