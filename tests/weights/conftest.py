"""Networks of others, written from what is documented of them, and random weights for them.

A reference network is the released graph as functions of tensors by name: what differs between code bases is how they
spell the names, their pools, their strides and their blocks. Nothing of ours is used in it.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

Tensors = dict[str, Tensor]
STAGES, BLOCKS = (2, 3, 4, 5), {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
EVERY_OTHER = {2: (1, 1, 1), 3: (1, 0) * 2, 4: (1, 0) * 12, 5: (0, 1, 0)}
"""The released code's inflation: 1 where the first convolution of a residual block spans 3 frames."""


@dataclass(frozen=True)
class Spelling:
    """How a code base names the tensors of a layer: {s} is the stage from 2, {b} the block, {c} a, b or c."""

    conv1: str
    bn1: str
    conv: str
    bn: str
    shortcut: str
    shortcut_bn: str
    block: str
    fc: str
    weight: str = ".weight"
    bias: str = ".bias"
    norms: tuple[str, ...] = (".weight", ".bias", ".running_mean", ".running_var")
    parts: tuple[str, ...] = ("theta", "phi", "g", "out", "bn")
    counter: str = ".num_batches_tracked"


CAFFE2 = Spelling(
    "conv1", "res_conv1_bn", "res{s}_{b}_branch2{c}", "res{s}_{b}_branch2{c}_bn", "res{s}_{b}_branch1",
    "res{s}_{b}_branch1_bn", "nonlocal_conv{s}_{b}_{part}", "pred", "_w", "_b", ("_s", "_b", "_rm", "_riv"), counter="",
)  # fmt: skip
SLOWFAST = Spelling(
    "s1.pathway0_stem.conv", "s1.pathway0_stem.bn", "s{s}.pathway0_res{b}.branch2.{c}",
    "s{s}.pathway0_res{b}.branch2.{c}_bn", "s{s}.pathway0_res{b}.branch1", "s{s}.pathway0_res{b}.branch1_bn",
    "s{s}.pathway0_nonlocal{b}.{part}", "head.projection",
    parts=("conv_theta", "conv_phi", "conv_g", "conv_out", "bn"),
)  # fmt: skip
TUSHAR_N = Spelling(
    "conv1", "bn1", "layer{s_1}.{b}.conv{n}", "layer{s_1}.{b}.bn{n}", "layer{s_1}.{b}.downsample.0",
    "layer{s_1}.{b}.downsample.1", "layer{s_1}.{b}.nl.{part}", "fc",
)  # fmt: skip
MMACTION2 = Spelling(
    "backbone.conv1.conv", "backbone.conv1.bn", "backbone.layer{s_1}.{b}.conv{n}.conv",
    "backbone.layer{s_1}.{b}.conv{n}.bn", "backbone.layer{s_1}.{b}.downsample.conv",
    "backbone.layer{s_1}.{b}.downsample.bn", "backbone.layer{s_1}.{b}.non_local_block", "cls_head.fc_cls",
)  # fmt: skip
SPELLINGS = {"caffe2": CAFFE2, "slowfast": SLOWFAST, "tushar_n": TUSHAR_N, "mmaction2": MMACTION2}
Block = Callable[[Tensor], Tensor]


@dataclass
class Reference:
    """A network of a code base with random weights that are far from their start.

    Attributes:
        spelling: of its names.
        depth, width, classes: of the network.
        i3d: whether it is inflated in time as the released code does.
        nonlocal_after: the residual blocks that a block follows, by stage.
        strides: in time, of conv1, pool1 and pool2.
        spatial: strides in space, of res2 to res5.
        pool1, pool1_padding: its kernel in time, and its padding in space.
        folded: whether BN is an affine layer, and blocks have none.
        dot_product: whether the blocks divide by the number of keys in place of a softmax.
        group: frames that the blocks of res3 see together; 0 is all.
        modules: blocks that are a peer's own modules, in place of the written ones.
    """

    spelling: Spelling
    depth: int = 50
    width: float = 1 / 8
    classes: int = 11
    i3d: bool = True
    nonlocal_after: dict[int, tuple[int, ...]] = field(default_factory=lambda: {3: (1, 3), 4: (1, 3, 5)})
    strides: tuple[int, int, int] = (2, 2, 2)
    spatial: tuple[int, int, int, int] = (1, 2, 2, 2)
    pool1: int = 2
    pool1_padding: int = 0
    folded: bool = False
    dot_product: bool = False
    group: int = 0
    modules: Callable[[int], torch.nn.Module] | None = None
    tensors: Tensors = field(default_factory=dict)
    seen: Tensors = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.generator = torch.Generator().manual_seed(0)
        self.blocks: dict[tuple[int, int], torch.nn.Module] = {}
        channels = mid = round(64 * self.width)
        self._conv(self.spelling.conv1, channels, 3, (5 if self.i3d else 1, 7, 7))
        self._norm(self.spelling.bn1, channels)
        for stage, count in zip(STAGES, BLOCKS[self.depth], strict=True):
            for b in range(count):
                time = 3 if self.i3d and EVERY_OTHER[stage][b] else 1
                sizes = (("a", mid, channels, (time, 1, 1)), ("b", mid, mid, (1, 3, 3)), ("c", 4 * mid, mid, (1, 1, 1)))
                for c, out, into, kernel in sizes:
                    self._conv(self._named(self.spelling.conv, stage, b, c), out, into, kernel)
                    self._norm(self._named(self.spelling.bn, stage, b, c), out, 0.3 if c == "c" else 1)
                if b == 0:
                    self._conv(self._named(self.spelling.shortcut, stage, b), 4 * mid, channels, (1, 1, 1))
                    self._norm(self._named(self.spelling.shortcut_bn, stage, b), 4 * mid)
                channels = 4 * mid
                if b in self.nonlocal_after.get(stage, ()):
                    self._non_local(stage, b, channels)
            mid *= 2
        self.tensors[self.spelling.fc + self.spelling.weight] = self._random(self.classes, channels) * channels**-0.5
        self.tensors[self.spelling.fc + self.spelling.bias] = self._random(self.classes)

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, generator=self.generator)

    def _named(self, template: str, stage: int, b: int, c: str = "a", part: str = "") -> str:
        return template.format(s=stage, s_1=stage - 1, b=b, c=c, n="abc".index(c) + 1, part=part)

    def _conv(self, name: str, out: int, into: int, kernel: tuple[int, ...]) -> None:
        scale = (2 / (into * np.prod(kernel))) ** 0.5
        self.tensors[name + self.spelling.weight] = self._random(out, into, *kernel) * scale

    def _norm(self, name: str, channels: int, scale: float = 1) -> None:
        gamma, beta, mean, var = (name + ending for ending in self.spelling.norms)
        self.tensors[gamma] = scale * (0.5 + torch.rand(channels, generator=self.generator))
        self.tensors[beta] = 0.3 * self._random(channels)
        if not self.folded:
            self.tensors[mean] = 0.3 * self._random(channels)
            self.tensors[var] = 0.5 + torch.rand(channels, generator=self.generator)
            if self.spelling.counter:
                self.tensors[name + self.spelling.counter] = torch.tensor(17)

    def _non_local(self, stage: int, b: int, channels: int) -> None:
        if self.modules is not None:
            block = self.blocks[stage, b] = self.modules(channels).eval()
            for key, tensor in block.state_dict().items():
                size = 0.2 / tensor[:1].numel() ** 0.5 if tensor.ndim > 1 else 0.1
                fresh = size * self._random(*tensor.shape) if tensor.is_floating_point() else tensor
                self.tensors[f"{self._named(self.spelling.block, stage, b)}.{key}"] = tensor.copy_(
                    fresh.abs() + 0.5 if key.endswith("running_var") else fresh
                )
            return
        *maps, norm = (self._named(self.spelling.block, stage, b, part=part) for part in self.spelling.parts)
        for name, out, into in zip(
            maps, [channels // 2] * 3 + [channels], [channels] * 3 + [channels // 2], strict=True
        ):
            self._conv(name, out, into, (1, 1, 1))
            self.tensors[name + self.spelling.weight] *= 0.2  # a softmax that isn't one winner's
            self.tensors[name + self.spelling.bias] = 0.1 * self._random(out)
        if not self.folded:
            self._norm(norm, channels)

    def __call__(self, clip: Tensor) -> Tensor:
        """Logits of a clip; activations go to `seen`, under the names of our layers."""
        stride, pool_stride, pool2 = self.strides
        x = self._convolved(clip, self.spelling.conv1, (stride, 2, 2))
        x = self._keep("conv1", F.relu(self._normed(x, self.spelling.bn1)))
        p = self.pool1_padding
        x = F.max_pool3d(x, (self.pool1, 3, 3), (pool_stride, 2, 2), (0, p, p))
        for stage, count in zip(STAGES, BLOCKS[self.depth], strict=True):
            for b in range(count):
                x = self._residual(x, stage, b)
                if b in self.nonlocal_after.get(stage, ()):
                    x = self._grouped(x, stage, b)
            self._keep(f"res{stage}", x)
            if stage == 2:
                x = F.max_pool3d(x, (pool2, 1, 1), (pool2, 1, 1))
        weight, bias = (self.tensors[self.spelling.fc + end] for end in (self.spelling.weight, self.spelling.bias))
        return F.linear(x.mean(dim=(2, 3, 4)), weight.flatten(1), bias)

    def _keep(self, name: str, x: Tensor) -> Tensor:
        self.seen[name] = x
        return x

    def _convolved(self, x: Tensor, name: str, stride: tuple[int, int, int] = (1, 1, 1)) -> Tensor:
        weight = self.tensors[name + self.spelling.weight]
        padding = [size // 2 for size in weight.shape[2:]]
        return F.conv3d(x, weight, self.tensors.get(name + self.spelling.bias), stride, padding)

    def _normed(self, x: Tensor, name: str) -> Tensor:
        gamma, beta, mean, var = (self.tensors.get(name + ending) for ending in self.spelling.norms)
        if mean is None:
            assert gamma is not None
            assert beta is not None
            return x * gamma.view(-1, 1, 1, 1) + beta.view(-1, 1, 1, 1)
        return F.batch_norm(x, mean, var, gamma, beta, eps=1e-5)

    def _residual(self, x: Tensor, stage: int, b: int) -> Tensor:
        step = self.spatial[stage - 2] if b == 0 else 1
        stride = (1, step, step)
        y = x
        for c in "abc":
            y = self._convolved(y, self._named(self.spelling.conv, stage, b, c), stride if c == "b" else (1, 1, 1))
            y = self._normed(y, self._named(self.spelling.bn, stage, b, c))
            y = F.relu(y) if c != "c" else y
        if b == 0:
            x = self._convolved(x, self._named(self.spelling.shortcut, stage, b), stride)
            x = self._normed(x, self._named(self.spelling.shortcut_bn, stage, b))
        return self._keep(f"res{stage}.blocks.{b}", F.relu(x + y))

    def _grouped(self, x: Tensor, stage: int, b: int) -> Tensor:
        """The block on each group of frames of a clip by itself."""
        groups = x.split(self.group if self.group and stage == 3 else x.shape[2], dim=2)
        z = self._keep(f"res{stage}.non_local.{b}", self._block(torch.cat(groups), stage, b))
        return torch.cat(z.split(len(x)), dim=2)

    def _block(self, x: Tensor, stage: int, b: int) -> Tensor:
        if (stage, b) in self.blocks:
            y: Tensor = self.blocks[stage, b](x)
            return y
        names = [self._named(self.spelling.block, stage, b, part=part) for part in self.spelling.parts]
        pooled = F.max_pool3d(x, (1, 2, 2))  # before the convolutions of the keys
        theta = self._keep(f"res{stage}.non_local.{b}.theta", self._convolved(x, names[0]))
        phi = self._keep(f"res{stage}.non_local.{b}.phi", self._convolved(pooled, names[1]))
        g = self._keep(f"res{stage}.non_local.{b}.g", self._convolved(pooled, names[2]))
        pairs = theta.flatten(2).mT @ phi.flatten(2)
        pairs = pairs / pairs.shape[2] if self.dot_product else (pairs * theta.shape[1] ** -0.5).softmax(dim=2)
        y = (g.flatten(2) @ pairs.mT).view_as(theta)
        y = self._keep(f"res{stage}.non_local.{b}.W_z", self._convolved(y, names[3]))
        return x + (y if self.folded else self._normed(y, names[4]))


@pytest.fixture(scope="session")
def make_reference() -> Callable[..., Reference]:
    """Makes the reference network of a code base by name: ``make_reference("caffe2", depth=101)``."""
    return lambda name, **kwargs: Reference(SPELLINGS[name], **kwargs)


@pytest.fixture
def reference(make_reference: Any) -> Iterator[Any]:
    """The same, for a test without gradients."""
    with torch.no_grad():
        yield make_reference
