"""Whole networks, ResNet-50 on 8 frames of 224 pixels: ours beside pytorchvideo's, with blocks at the same places.

Like with like: our networks take the conventions of the released code, and the pools of pytorchvideo's builders, so
that every map has the same size. The machine's own ceiling is measured in the same rounds: a large matrix product and
a large convolution in both precisions.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from pytorchvideo.layers.nonlocal_net import create_nonlocal
from pytorchvideo.models.resnet import create_resnet
from torch import Tensor, nn

from benchmarks.contest import Call, Contest, Figures, Settings, measure
from nl_lightning.models.complexity import complexity
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.fast import FastVideoResNet, channels_last, for_testing
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig

CLIP = (8, 224)  # frames, side
WIDTH = 1.0
CLASSES = 400
PLACEMENT: dict[tuple[int, int], dict[str, list[int]]] = {  # as in Table 2, by depth and number of blocks
    (50, 0): {},
    (50, 5): {"res3": [1, 3], "res4": [1, 3, 5]},
    (50, 10): {"res3": [0, 1, 2, 3], "res4": [0, 1, 2, 3, 4, 5]},
    (101, 5): {"res3": [1, 3], "res4": [6, 13, 20]},
}
PHASES = ("testing", "training")
INFLATE: dict[str, Any] = {"C2D": "none", "I3D": "3x1x1"}
# What differs between c2d_r50 and i3d_r50 of pytorchvideo's hub.
PYTORCHVIDEO: dict[str, dict[str, Any]] = {
    "C2D": {"stem_conv_kernel_size": (1, 7, 7), "stage_conv_a_kernel_size": ((1, 1, 1),) * 4},
    "I3D": {
        "stem_conv_kernel_size": (5, 7, 7),
        "stage_conv_a_kernel_size": (
            (3, 1, 1), [(3, 1, 1), (1, 1, 1)], [(3, 1, 1), (1, 1, 1)], [(1, 1, 1), (3, 1, 1)],
        ),
    },
}  # fmt: skip
SHIPPED = "pytorchvideo as shipped"
SETTINGS = {  # of a peer: memory layout, precision
    SHIPPED: (torch.contiguous_format, "float32"),
    "pytorchvideo, channels-last": (torch.channels_last_3d, "float32"),
    "pytorchvideo, bf16": (torch.contiguous_format, "bf16"),
    "pytorchvideo, channels-last, bf16": (torch.channels_last_3d, "bf16"),
}
OURS = {"ours": "float32", "ours, bf16": "bf16"}
DTYPES = {"float32": torch.float32, "bf16": torch.bfloat16}
MATRIX = 2048  # side
IMAGES, CHANNELS, SIDE = 8, 256, 56  # of the convolution, with as many channels in as out


@dataclass(frozen=True)
class Case:
    """A network and what is done with it. `clips` is the batch."""

    backbone: str
    blocks: int
    phase: str
    depth: Any = 50
    frames: int = 8
    side: int = 224
    width: float = 1.0
    clips: int = 1

    @property
    def config(self) -> ResNetConfig:
        placement = PLACEMENT[self.depth, self.blocks]
        return ResNetConfig(
            depth=self.depth,
            inflate=INFLATE[self.backbone],
            non_local=NonLocalConfig(placement) if placement else None,
            num_classes=CLASSES,
            width=self.width,
            temporal_strides=(1, 1, 2) if self.frames <= 8 else (2, 2, 2),
            conventions=Conventions("release", max_pool="padded_in_space"),
        )

    @property
    def macs(self) -> int:
        """Of one forward."""
        return self.clips * complexity(self.config, (self.frames, self.side, self.side)).macs


def cases(settings: Settings) -> Iterator[tuple[dict[str, Any], partial[Figures]]]:
    """Each with its multiply-adds, so that rates can be told from the figures alone."""
    size: dict[str, Any] = {"frames": CLIP[0], "side": CLIP[1], "width": WIDTH}
    axes = itertools.product((5,) if settings.quick else (5, 0, 10), INFLATE, PHASES)
    all_cases = [Case(backbone, blocks, phase, **size) for blocks, backbone, phase in axes]
    for case in [*all_cases, *([LONG] if settings.device == "cuda" and not settings.quick else [])]:
        yield asdict(case) | {"macs": case.macs, "passes": 3 if case.phase == "training" else 1}, partial(run, case)


LONG = Case("I3D", 5, "training", depth=101, frames=128, clips=2)
"""What the paper trains on long clips, two on a GPU: for its memory."""


def run(case: Case, settings: Settings) -> Figures:
    return measure(partial(contest, case, settings), settings)


def contest(case: Case, settings: Settings) -> Contest:
    calls: dict[str, Call] = {}
    for name, precision in OURS.items():
        calls[name] = Entrant(FastVideoResNet(case.config), case, settings, torch.channels_last_3d, precision)
    if case != LONG:
        for name, (layout, precision) in SETTINGS.items():
            calls[name] = Entrant(pytorchvideo(case), case, settings, layout, precision)
    for precision in DTYPES:
        calls[f"matrix product, {precision}"] = MatrixProduct(precision, settings)
        calls[f"convolution, {precision}"] = Convolution(precision, settings)
    return Contest(calls)


def pytorchvideo(case: Case) -> nn.Module:
    """The network of its hub, with its own blocks after the residual blocks that ours has them after."""
    net = create_resnet(
        model_depth=case.depth,
        model_num_class=CLASSES,
        stem_dim_out=max(1, round(64 * case.width)),
        stage1_pool=nn.MaxPool3d,
        head_pool_kernel_size=(case.frames // 2, math.ceil(case.side / 32), math.ceil(case.side / 32)),
        **PYTORCHVIDEO[case.backbone],
    )
    stages = {"res3": net.blocks[3], "res4": net.blocks[4]}
    for name, after in PLACEMENT[case.depth, case.blocks].items():
        blocks = stages[name].res_blocks
        for index in after:
            channels = blocks[index].branch2.conv_c.out_channels
            block = create_nonlocal(dim_in=channels, dim_inner=channels // 2, pool_size=(1, 2, 2))
            blocks[index] = nn.Sequential(blocks[index], block)
    return net


class Entrant:
    """A network with its clips; called, it does a step of training, or tests them."""

    def __init__(self, net: nn.Module, case: Case, settings: Settings, layout: Any, precision: str) -> None:
        ours = isinstance(net, FastVideoResNet)
        self.net = net.to(settings.device) if ours else net.to(settings.device, memory_format=layout)  # type: ignore[call-overload]
        self.device, self.bf16 = settings.device, precision == "bf16"
        clips = torch.randn(case.clips, 3, case.frames, case.side, case.side)
        clips = channels_last(clips) if layout is torch.channels_last_3d else clips
        self.clips = clips.to(settings.device)
        self.labels = torch.zeros(case.clips, dtype=torch.long, device=settings.device)
        self.training = case.phase == "training"
        self.net.train(self.training)
        if ours and not self.training:
            self.net = for_testing(self.net)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9) if self.training else None

    def forward(self) -> Tensor:
        with torch.autocast(self.device, torch.bfloat16, enabled=self.bf16):
            logits: Tensor = self.net(self.clips)
        return logits

    def __call__(self) -> None:
        if self.optimizer is None:
            with torch.no_grad():
                self.forward()
            return
        self.optimizer.zero_grad()
        F.cross_entropy(self.forward().float(), self.labels).backward()
        self.optimizer.step()


class MatrixProduct:
    """What the machine can do: a product of two large matrices of `macs` multiply-adds."""

    def __init__(self, precision: str, settings: Settings) -> None:
        side = MATRIX // 8 if settings.quick else MATRIX
        self.macs = side**3
        self.a, self.b = torch.randn(2, side, side, device=settings.device, dtype=DTYPES[precision])

    def __call__(self) -> Tensor:
        return self.a @ self.b


class Convolution:
    """The same of a large 3 x 3 convolution, channels-last."""

    def __init__(self, precision: str, settings: Settings) -> None:
        side, channels = (SIDE // 4 if settings.quick else SIDE), CHANNELS
        self.macs = IMAGES * side**2 * 9 * channels**2
        made: dict[str, Any] = {"device": settings.device, "dtype": DTYPES[precision]}
        self.x = torch.randn(IMAGES, channels, side, side, **made).to(memory_format=torch.channels_last)
        self.weight = torch.randn(channels, channels, 3, 3, **made).to(memory_format=torch.channels_last)

    @torch.no_grad()
    def __call__(self) -> Tensor:
        return F.conv2d(self.x, self.weight, padding=1)
