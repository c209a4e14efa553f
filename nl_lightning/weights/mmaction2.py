"""mmaction2's I3D, with and without the blocks of mmcv: keys are pooled after their convolution and nothing is scaled.

The blocks' W_z has no bias there; ours is 0.
"""

from torch import Tensor

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Conventions
from nl_lightning.weights.names import Names
from nl_lightning.weights.source import CLIPS, NORM, Found, Semantics, Source, clip_settings
from nl_lightning.weights.torchvision import IMAGENET_MEAN, IMAGENET_STD

BLOCK = "backbone.layer{stage}.{block}"
NON_LOCAL = f"{BLOCK}.non_local_block"
NAMES = Names(
    [
        ("conv1.weight", "backbone.conv1.conv.weight"),
        ("bn1.{norm}", "backbone.conv1.bn.{norm}"),
        ("res{stage}.blocks.{block}.conv{n}.weight", f"{BLOCK}.conv{{n}}.conv.weight"),
        ("res{stage}.blocks.{block}.bn{n}.{norm}", f"{BLOCK}.conv{{n}}.bn.{{norm}}"),
        ("res{stage}.blocks.{block}.downsample.0.weight", f"{BLOCK}.downsample.conv.weight"),
        ("res{stage}.blocks.{block}.downsample.1.{norm}", f"{BLOCK}.downsample.bn.{{norm}}"),
        ("res{stage}.non_local.{block}.{conv}.{tensor}", f"{NON_LOCAL}.{{conv}}.conv.{{tensor}}"),
        ("res{stage}.non_local.{block}.{conv}.{tensor}", f"{NON_LOCAL}.{{conv}}.0.conv.{{tensor}}"),  # then a pool
        ("res{stage}.non_local.{block}.w_f", f"{NON_LOCAL}.concat_project.conv.weight"),
        ("res{stage}.non_local.{block}.bn.{norm}", f"{NON_LOCAL}.conv_out.bn.{{norm}}"),
        ("fc.{tensor}", "cls_head.fc_cls.{tensor}"),
    ],
    {
        "stage": {"2": "1", "3": "2", "4": "3", "5": "4"},
        "norm": NORM,
        "conv": {"theta": "theta", "phi": "phi", "g": "g", "W_z": "conv_out"},
        "tensor": {"weight": "weight", "bias": "bias"},
    },
)


def semantics(found: Found) -> Semantics:
    """Its I3D for 32x2: one global pool, and pool1 of one frame that leaves every other one out."""
    if found.flat:
        raise UserError("mmaction2: 2-D weights are of its C2D or TSN, which are not imported; its I3D is")
    clip = found.clip(("32x2",), default="32x2")
    return Semantics(
        Conventions("release", subsample="after", scale=False, max_pool="padded_in_space"),
        CLIPS[clip],
        clip_settings(clip, mean=IMAGENET_MEAN, std=IMAGENET_STD, clip_starts="mmaction2"),
        found.instantiation() if found.untold else "embedded_gaussian",
        subsample=any(".g.0." in name for name in found.theirs),
    )


def complete(found: Found) -> dict[str, Tensor]:
    """A bias of 0 for every W_z."""
    outputs = {name: t for name, t in found.tensors.items() if name.endswith(".W_z.weight")}
    return {f"{name.removesuffix('weight')}bias": t.new_zeros(t.shape[0]) for name, t in outputs.items()}


SOURCE = Source("mmaction2", NAMES, semantics, video=None, ignored=r"data_preprocessor\.(mean|std)", complete=complete)
