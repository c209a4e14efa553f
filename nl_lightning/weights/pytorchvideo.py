"""pytorchvideo's C2D and I3D ResNet-50 for 8x8."""

from nl_lightning.models.conventions import Conventions
from nl_lightning.weights.names import Names
from nl_lightning.weights.source import CLIPS, NORM, Found, Semantics, Source, clip_settings

BLOCK = "blocks.{stage}.res_blocks.{block}"
NAMES = Names(
    [
        ("conv1.weight", "blocks.0.conv.weight"),
        ("bn1.{norm}", "blocks.0.norm.{norm}"),
        ("res{stage}.blocks.{block}.conv{n}.weight", f"{BLOCK}.branch2.conv_{{n}}.weight"),
        ("res{stage}.blocks.{block}.bn{n}.{norm}", f"{BLOCK}.branch2.norm_{{n}}.{{norm}}"),
        ("res{stage}.blocks.{block}.downsample.0.weight", f"{BLOCK}.branch1_conv.weight"),
        ("res{stage}.blocks.{block}.downsample.1.{norm}", f"{BLOCK}.branch1_norm.{{norm}}"),
        ("fc.{tensor}", "blocks.6.proj.{tensor}"),
    ],
    {
        "stage": {"2": "1", "3": "3", "4": "4", "5": "5"},  # 2 is pool2
        "n": {"1": "a", "2": "b", "3": "c"},
        "norm": NORM,
        "tensor": {"weight": "weight", "bias": "bias"},
    },
)


def semantics(found: Found) -> Semantics:
    """Padded pools; its head pools 7 x 7 places at stride 1."""
    clip = found.clip(("8x8",), default="8x8")
    return Semantics(
        Conventions("release", max_pool="padded_in_space"),
        CLIPS[clip],
        clip_settings(clip, clip_starts="pytorchvideo", test_pool=7),
    )


SOURCE = Source("pytorchvideo", NAMES, semantics)
