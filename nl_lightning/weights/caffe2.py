"""The released code's ``.pkl`` files (facebookresearch/video-nonlocal-net): networks of the profile ``release``.

All kinds: plain, with BN folded into affine layers (long clips), prepared for fine-tuning (no statistics, no
classifier), and 2-D ImageNet pre-training.
"""

import re

import numpy as np
import torch
from torch import Tensor

from nl_lightning.models.conventions import Conventions
from nl_lightning.weights.names import Names
from nl_lightning.weights.source import CLIPS, Found, Semantics, Source, clip_settings

NAMES = Names(
    [
        ("conv1.weight", "conv1_w"),
        ("bn1.{norm}", "res_conv1_bn_{norm}"),
        ("res{stage}.blocks.{block}.conv{n}.weight", "res{stage}_{block}_branch2{n}_w"),
        ("res{stage}.blocks.{block}.bn{n}.{norm}", "res{stage}_{block}_branch2{n}_bn_{norm}"),
        ("res{stage}.blocks.{block}.downsample.0.weight", "res{stage}_{block}_branch1_w"),
        ("res{stage}.blocks.{block}.downsample.1.{norm}", "res{stage}_{block}_branch1_bn_{norm}"),
        ("res{stage}.non_local.{block}.{conv}.{tensor}", "nonlocal_conv{stage}_{block}_{conv}_{tensor}"),
        ("res{stage}.non_local.{block}.bn.{norm}", "nonlocal_conv{stage}_{block}_bn_{norm}"),
        ("fc.{tensor}", "pred_{tensor}"),
    ],
    {
        "n": {"1": "a", "2": "b", "3": "c"},
        "norm": {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"},  # riv: a variance
        "conv": {"theta": "theta", "phi": "phi", "g": "g", "W_z": "out"},
        "tensor": {"weight": "w", "bias": "b"},
    },
)
FINE_TUNING_RATE, AFFINE_RATE = 0.01, 0.00125
"""The learning rates in files prepared for fine-tuning, and in those with folded BN: all that tells them apart."""


def is_for_fine_tuning(found: Found) -> bool:
    """Whether the statistics of BN were left out for a training to make new ones, and not folded into its scales."""
    if "bn1.running_mean" in found.tensors or "affine" in found.words:
        return False
    rate = float(np.asarray(found.beside.get("lr", 0)).reshape(-1)[0])
    unclassified = "fc.weight" not in found.tensors
    return "finetune" in found.words or (unclassified and abs(rate - FINE_TUNING_RATE) < 1e-6)


def semantics(found: Found) -> Semantics:
    """The released code's: groups of 4 frames in res3 where BN is folded, its clips that wrap, its 7 x 7 pool."""
    clip = found.clip(CLIPS, default="32x2" if found.flat else None)
    affine = "bn1.running_mean" not in found.tensors and not is_for_fine_tuning(found)
    return Semantics(
        Conventions("release", res3_group=4 if affine else 0),
        CLIPS[clip],
        clip_settings(clip, clip_starts="release", test_pool=7),
        "dot_product" if "dot_product" in found.words else "embedded_gaussian",
    )


def complete(found: Found) -> dict[str, Tensor]:
    """The statistics that a file for fine-tuning lacks, as a new BN has them."""
    if not is_for_fine_tuning(found):
        return {}
    start = {"running_mean": torch.zeros_like, "running_var": torch.ones_like}
    scales = {
        n.removesuffix("weight"): t for n, t in found.tensors.items() if re.search(r"(bn\d?|sample\.1)\.weight$", n)
    }
    return {f"{norm}{name}": fill(scale) for norm, scale in scales.items() for name, fill in start.items()}


SOURCE = Source("caffe2", NAMES, semantics, video=None, ignored=r".*_momentum|lr|model_iter", complete=complete)
