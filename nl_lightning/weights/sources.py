"""The code bases whose weights are imported: a table of names for each, and what its networks compute.

Checked against (owner/name on GitHub): facebookresearch/video-nonlocal-net, lib/models (Caffe2);
facebookresearch/SlowFast, slowfast/models; open-mmlab/mmaction2, mmaction/models/backbones/resnet3d.py, with mmcv's
NonLocal3d; facebookresearch/pytorchvideo, pytorchvideo/models/resnet.py; Tushar-N/pytorch-resnet3d, models/resnet.py;
pytorch/vision, torchvision/models/resnet.py. The tests run pytorchvideo's, torchvision's and mmcv's own code.
"""

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from nl_lightning.models.conventions import Conventions
from nl_lightning.weights import mmaction2, slowfast
from nl_lightning.weights.source import CLIPS, Found, Names, Semantics, Source, clip_settings

OURS = (
    "conv1.weight", "bn1.{norm}", "res{stage}.blocks.{block}.conv{n}.weight", "res{stage}.blocks.{block}.bn{n}.{norm}",
    "res{stage}.blocks.{block}.downsample.0.weight", "res{stage}.blocks.{block}.downsample.1.{norm}", "fc.{tensor}",
    "res{stage}.non_local.{block}.{conv}.{tensor}", "res{stage}.non_local.{block}.bn.{norm}",
)  # fmt: skip
"""Our names, in the order of the tables below; the last two are those of non-local blocks."""


def _same(*words: str) -> dict[str, str]:
    return {word: word for word in words}


ABC = {"1": "a", "2": "b", "3": "c"}
FROM_1 = {"2": "1", "3": "2", "4": "3", "5": "4"}
NORM = _same("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
TENSOR = _same("weight", "bias")
CONV = _same("theta", "phi", "g") | {"W_z": "out"}

CAFFE2_NAMES = Names(
    zip(OURS, (
        "conv1_w", "res_conv1_bn_{norm}", "res{stage}_{block}_branch2{n}_w", "res{stage}_{block}_branch2{n}_bn_{norm}",
        "res{stage}_{block}_branch1_w", "res{stage}_{block}_branch1_bn_{norm}", "pred_{tensor}",
        "nonlocal_conv{stage}_{block}_{conv}_{tensor}", "nonlocal_conv{stage}_{block}_bn_{norm}",
    ), strict=True),
    {"n": ABC, "norm": {"weight": "s", "bias": "b", "running_mean": "rm", "running_var": "riv"},  # riv: a variance
     "conv": CONV, "tensor": {"weight": "w", "bias": "b"}},
)  # fmt: skip
SLOWFAST_NAMES = Names(
    zip(OURS, (
        "s1.pathway0_stem.conv.weight", "s1.pathway0_stem.bn.{norm}",
        "s{stage}.pathway0_res{block}.branch2.{n}.weight", "s{stage}.pathway0_res{block}.branch2.{n}_bn.{norm}",
        "s{stage}.pathway0_res{block}.branch1.weight", "s{stage}.pathway0_res{block}.branch1_bn.{norm}",
        "head.projection.{tensor}",
        "s{stage}.pathway0_nonlocal{block}.conv_{conv}.{tensor}", "s{stage}.pathway0_nonlocal{block}.bn.{norm}",
    ), strict=True),
    {"n": ABC, "norm": NORM, "conv": CONV, "tensor": TENSOR},
)  # fmt: skip
MMACTION2_NAMES = Names(
    [
        *zip(OURS, (
            "backbone.conv1.conv.weight", "backbone.conv1.bn.{norm}",
            "backbone.layer{stage}.{block}.conv{n}.conv.weight", "backbone.layer{stage}.{block}.conv{n}.bn.{norm}",
            "backbone.layer{stage}.{block}.downsample.conv.weight",
            "backbone.layer{stage}.{block}.downsample.bn.{norm}", "cls_head.fc_cls.{tensor}",
            "backbone.layer{stage}.{block}.non_local_block.{conv}.conv.{tensor}",
            "backbone.layer{stage}.{block}.non_local_block.conv_out.bn.{norm}",
        ), strict=True),
        (OURS[-2], "backbone.layer{stage}.{block}.non_local_block.{conv}.0.conv.{tensor}"),  # then a pool
        ("res{stage}.non_local.{block}.w_f",
         "backbone.layer{stage}.{block}.non_local_block.concat_project.conv.weight"),
    ],
    {"stage": FROM_1, "norm": NORM, "conv": CONV | {"W_z": "conv_out"}, "tensor": TENSOR},
)  # fmt: skip
PYTORCHVIDEO_NAMES = Names(
    zip(OURS[:-2], (
        "blocks.0.conv.weight", "blocks.0.norm.{norm}", "blocks.{stage}.res_blocks.{block}.branch2.conv_{n}.weight",
        "blocks.{stage}.res_blocks.{block}.branch2.norm_{n}.{norm}",
        "blocks.{stage}.res_blocks.{block}.branch1_conv.weight",
        "blocks.{stage}.res_blocks.{block}.branch1_norm.{norm}", "blocks.6.proj.{tensor}",
    ), strict=True),
    {"stage": {"2": "1", "3": "3", "4": "4", "5": "5"}, "n": ABC, "norm": NORM, "tensor": TENSOR},  # 2 is pool2
)  # fmt: skip
TORCHVISION_PAIRS = tuple(
    zip(OURS[:-2], (
        "conv1.weight", "bn1.{norm}", "layer{stage}.{block}.conv{n}.weight", "layer{stage}.{block}.bn{n}.{norm}",
        "layer{stage}.{block}.downsample.0.weight", "layer{stage}.{block}.downsample.1.{norm}", "fc.{tensor}",
    ), strict=True)
)  # fmt: skip
TORCHVISION_NAMES = Names(TORCHVISION_PAIRS, {"stage": FROM_1, "norm": NORM, "tensor": TENSOR})
TUSHAR_N_NAMES = Names(
    [
        *TORCHVISION_PAIRS,
        (OURS[-2], "layer{stage}.{block}.nl.{conv}.{tensor}"),
        (OURS[-1], "layer{stage}.{block}.nl.bn.{norm}"),
    ],
    {"stage": FROM_1, "norm": NORM, "conv": CONV, "tensor": TENSOR},
)

# ------------------------------------------------------------------------- the released code (Caffe2), .pkl files

FINE_TUNING_RATE, AFFINE_RATE = 0.01, 0.00125
"""The learning rates in files prepared for fine-tuning, and in those with folded BN: all that tells them apart."""


def _is_for_fine_tuning(found: Found) -> bool:
    """Whether the statistics of BN were left out for a training to make new ones, and not folded into its scales."""
    if "bn1.running_mean" in found.tensors or "affine" in found.words:
        return False
    unclassified = "fc.weight" not in found.tensors
    return "finetune" in found.words or (unclassified and abs(_rate(found.beside.get("lr")) - FINE_TUNING_RATE) < 1e-6)


def _rate(said: object) -> float:
    """The learning rate: a number, or an array of one."""
    if isinstance(said, Tensor) and said.numel() == 1:
        return float(said)
    return float(said) if isinstance(said, int | float) else 0.0


def _caffe2(found: Found) -> Semantics:
    """The released code's: groups of 4 frames in res3 where BN is folded, its clips that wrap, its 7 x 7 pool."""
    clip = found.clip(CLIPS, default="32x2" if found.flat else None)
    affine = "bn1.running_mean" not in found.tensors and not _is_for_fine_tuning(found)
    return Semantics(
        Conventions("release", res3_group=4 if affine else 0),
        CLIPS[clip],
        clip_settings(clip, clip_starts="release", test_pool=7),
        "dot_product" if "dot_product" in found.words else "embedded_gaussian",
    )


def _statistics(found: Found) -> dict[str, Tensor]:
    """The statistics that a file for fine-tuning lacks, as a new BN has them."""
    if not _is_for_fine_tuning(found):
        return {}
    start = {"running_mean": torch.zeros_like, "running_var": torch.ones_like}
    scales = {
        n.removesuffix("weight"): t for n, t in found.tensors.items() if re.search(r"(bn\d?|sample\.1)\.weight$", n)
    }
    return {f"{norm}{name}": fill(scale) for norm, scale in scales.items() for name, fill in start.items()}


# ------------------------------------------------------------------------------------------------------ the others


def _zero_biases(found: Found) -> Mapping[str, Tensor]:
    """A bias of 0 for every W_z: mmcv's has none before its BN."""
    outputs = {name: t for name, t in found.tensors.items() if name.endswith(".W_z.weight")}
    return {f"{name.removesuffix('weight')}bias": t.new_zeros(t.shape[0]) for name, t in outputs.items()}


def _torchvision(found: Found) -> Semantics:
    """The paper's (Sec. 4): a video of one frame repeated is seen as the 2-D network sees that frame."""
    clip = found.clip(CLIPS, default="32x2")
    seen = clip_settings(clip, mean=mmaction2.IMAGENET_MEAN, std=mmaction2.IMAGENET_STD, num_crops=1)
    return Semantics(Conventions("paper"), CLIPS[clip], seen)


def _tushar_n(found: Found) -> Semantics:
    """The released code's 32x2. (Its own test reads 32 consecutive frames, which these weights were not made for.)"""
    clip = found.clip(("32x2",), default="32x2")
    return Semantics(Conventions("release"), CLIPS[clip], clip_settings(clip, clip_starts="release"))


CAFFE2 = Source("caffe2", CAFFE2_NAMES, _caffe2, "pred_", None, r".*_momentum|lr|model_iter", _statistics)
"""facebookresearch/video-nonlocal-net: plain, with BN folded into affine layers (long clips), prepared for
fine-tuning (no statistics, no classifier), and 2-D ImageNet pre-training."""
SLOWFAST = Source("slowfast", SLOWFAST_NAMES, slowfast.semantics, "head.")
"""PySlowFast's C2D and I3D, with and without blocks: its ``.pyth`` files."""
SLOWFAST_CAFFE2 = Source("slowfast", CAFFE2_NAMES, slowfast.semantics, "pred_", True, CAFFE2.ignored, _statistics)
"""PySlowFast's ``.pkl`` files, which have the released code's names."""
MMACTION2 = Source(
    "mmaction2", MMACTION2_NAMES, mmaction2.semantics, "cls_head.", None, r"data_preprocessor\.(mean|std)", _zero_biases
)
"""mmaction2's I3D, with and without mmcv's blocks: keys are pooled after their convolution."""
PYTORCHVIDEO = Source("pytorchvideo", PYTORCHVIDEO_NAMES, slowfast.pytorchvideo, "blocks.6.")
"""pytorchvideo's C2D and I3D ResNet-50 for 8x8."""
TORCHVISION = Source("torchvision", TORCHVISION_NAMES, _torchvision, "fc.", video=False)
"""torchvision's ImageNet ResNets: 2-D, to be inflated; their pools are Table 1's in space."""
TUSHAR_N = Source("tushar_n", TUSHAR_N_NAMES, _tushar_n, "fc.")
"""Tushar-N/pytorch-resnet3d: the released I3D ResNet-50, with and without five blocks, in PyTorch."""

SOURCES = (CAFFE2, SLOWFAST, SLOWFAST_CAFFE2, MMACTION2, PYTORCHVIDEO, TORCHVISION, TUSHAR_N)
"""In the order in which they are tried; ``--from slowfast`` also reads Caffe2's names."""
