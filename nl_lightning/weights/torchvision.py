"""torchvision's ImageNet ResNets: 2-D, to be inflated (paper, Sec. 4); their pools are Table 1's in space."""

from nl_lightning.models.conventions import Conventions
from nl_lightning.weights.names import Names
from nl_lightning.weights.source import CLIPS, NORM, Found, Semantics, Source, clip_settings

PAIRS = [
    ("conv1.weight", "conv1.weight"),
    ("bn1.{norm}", "bn1.{norm}"),
    ("res{stage}.blocks.{block}.conv{n}.weight", "layer{stage}.{block}.conv{n}.weight"),
    ("res{stage}.blocks.{block}.bn{n}.{norm}", "layer{stage}.{block}.bn{n}.{norm}"),
    ("res{stage}.blocks.{block}.downsample.0.weight", "layer{stage}.{block}.downsample.0.weight"),
    ("res{stage}.blocks.{block}.downsample.1.{norm}", "layer{stage}.{block}.downsample.1.{norm}"),
    ("fc.{tensor}", "fc.{tensor}"),
]
WORDS = {
    "stage": {"2": "1", "3": "2", "4": "3", "5": "4"},
    "norm": NORM,
    "tensor": {"weight": "weight", "bias": "bias"},
}
NAMES = Names(PAIRS, WORDS)
IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def semantics(found: Found) -> Semantics:
    """The paper's: a video of one frame repeated is seen as the 2-D network sees that frame."""
    clip = found.clip(CLIPS, default="32x2")
    return Semantics(
        Conventions("paper"), CLIPS[clip], clip_settings(clip, mean=IMAGENET_MEAN, std=IMAGENET_STD, num_crops=1)
    )


SOURCE = Source("torchvision", NAMES, semantics, video=False)
