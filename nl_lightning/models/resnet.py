"""C2D and I3D ResNets of "Non-local Neural Networks", Table 1 from top to bottom.

C2D treats a clip's frames as a 2-D ResNet would: every kernel spans one frame, and only the pools cross time.
I3D inflates conv1 to 5 x 7 x 7 and, in every second residual block, either the first 1 x 1 (to 3 x 1 x 1) or the 3 x 3
(to 3 x 3 x 3), Sec. 4. `Stage` inserts the non-local blocks: ``{res4: [4]}`` is right before the last of the six
residual blocks of res4, as in Table 2a.

It runs by itself (``kernels: definition``). By default :mod:`nl_lightning.models.fast` computes the same, faster.
Checked against the output sizes of Table 1, the parameters and cost ratios of Table 2e.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from numbers import Integral
from typing import Any, Literal, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from nl_lightning.errors import UserError
from nl_lightning.models.controls import put_control
from nl_lightning.models.conventions import (
    BLOCKS,
    INFLATE,
    STAGES,
    ControlConfig,
    Conventions,
    Inflate,
    Rules,
    Triple,
    check_placement,
)
from nl_lightning.models.nonlocal_block import Affine, NonLocalBlock, NonLocalConfig, check_floats

EXPANSION = 4
NORMS = {"batch": nn.BatchNorm3d, "affine": Affine}


@dataclass(frozen=True)
class ResNetConfig:
    """A network of Table 2; the defaults are Table 1's for 32 frames of 224 x 224.

    Attributes:
        depth: 50 or 101.
        inflate: ``none`` is C2D; ``3x1x1`` and ``3x3x3`` are the two kinds of I3D.
        non_local: the non-local blocks, or none.
        num_classes: outputs of the classifier.
        width: factor on the channels of every layer; 1 is the paper's network.
        temporal_strides: of conv1, pool1 and pool2. The paper's are (2, 2, 2), for 32 frames and for 128.
        spatial_strides: of conv1, pool1, res2, res3, res4 and res5.
        dropout: after global pooling, in training.
        conventions: where the paper and the released code differ.
        min_channels: no layer has fewer, however small `width` is.
        control: what is there in place of non-local blocks, for comparison; not in the paper.
    """

    depth: Literal[50, 101] = 50
    inflate: Inflate = "none"
    non_local: NonLocalConfig | None = None
    num_classes: int = 400
    width: float = 1.0
    temporal_strides: tuple[int, int, int] = (2, 2, 2)
    spatial_strides: tuple[int, int, int, int, int, int] = (2, 2, 1, 2, 2, 2)
    dropout: float = 0.5
    conventions: Conventions = Conventions()  # noqa: RUF009 - frozen
    min_channels: int = 1
    control: ControlConfig | None = None

    def __post_init__(self) -> None:
        if self.depth not in tuple(BLOCKS):
            raise UserError(f"depth: expected one of {', '.join(map(str, BLOCKS))}, not {self.depth!r}")
        if self.inflate not in INFLATE:
            raise UserError(f"inflate: expected one of {', '.join(INFLATE)}, not {self.inflate!r}")
        for name, kind in _KINDS.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, Integral if kind is int else kind):
                raise UserError(f"{name}: expected {_in_words(kind)}, not {value!r}")
        strides = (*self.temporal_strides, *self.spatial_strides)
        if len(self.temporal_strides) != 3 or len(strides) != 9 or not all(type(s) is int and s > 0 for s in strides):
            raise UserError(f"temporal_strides, spatial_strides: expected 3 and 6 whole numbers above 0, not {strides}")
        sizes = 0 < self.width <= 1000 and 1 <= self.num_classes <= 10**9 and self.min_channels <= 10**6
        if not sizes or not 0 <= self.dropout < 1:
            raise UserError(
                f"width {self.width}, num_classes {self.num_classes}, min_channels {self.min_channels}, dropout "
                f"{self.dropout}: expected a width above 0 and up to 1,000, 1 to 10^9 classes, at most 10^6 channels, "
                "and a dropout from 0 up to 1"
            )
        if self.non_local is not None:  # jsonargparse doesn't check the keys of a dict
            check_placement(self.depth, self.non_local.placement)
        if self.control is not None:
            self.control.check(self.depth, self.non_local is not None)

    def inflated(self, stage: str) -> list[bool]:
        """Which residual blocks of `stage` hold a kernel inflated in time."""
        blocks = BLOCKS[self.depth][STAGES.index(stage)]
        if self.inflate == "none":
            return [False] * blocks
        if stage == "res2" and self.conventions.rules.inflate_res2 == "all":
            return [True] * blocks
        first = 1 if stage == "res5" else 0  # the released code's pattern; the paper gives the rate only
        return [block % 2 == first for block in range(blocks)]


_KINDS = {
    "non_local": NonLocalConfig | None,
    "num_classes": int,
    "min_channels": int,
    "temporal_strides": tuple | list,
    "spatial_strides": tuple | list,
    "width": float | int,
    "dropout": float | int,
    "conventions": Conventions,
    "control": ControlConfig | None,
}
"""Types of fields that the command line checks, and Python doesn't."""


def _in_words(kind: Any) -> str:
    return " or ".join(each.__name__.replace("NoneType", "None") for each in get_args(kind) or [kind])


def convolution(channels: int, out: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> nn.Conv3d:
    """A convolution padded by half its kernel. BN follows, so it has no bias."""
    return nn.Conv3d(channels, out, kernel, stride, half(kernel), bias=False)


def half(kernel: Triple) -> Triple:
    """The padding that keeps the size."""
    t, h, w = kernel
    return t // 2, h // 2, w // 2


class Bottleneck(nn.Module):
    """A residual block 1x1, 3x3, 1x1; the spatial stride is on the 3x3, as in the released code."""

    def __init__(self, channels: int, mid: int, out: int, stride: int, inflate: str, rules: Rules) -> None:
        super().__init__()
        norm = NORMS[rules.norm]
        time1 = 3 if inflate == "3x1x1" else 1
        time2 = 3 if inflate == "3x3x3" else 1
        self.conv1 = convolution(channels, mid, (time1, 1, 1))
        self.bn1 = norm(mid)
        self.conv2 = convolution(mid, mid, (time2, 3, 3), (1, stride, stride))
        self.bn2 = norm(mid)
        self.conv3 = convolution(mid, out, (1, 1, 1))
        self.bn3 = norm(out)
        nn.init.constant_(self.bn3.weight, rules.residual_gamma)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or channels != out:
            self.downsample = nn.Sequential(convolution(channels, out, (1, 1, 1), (1, stride, stride)), norm(out))

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T h w"]:
        y = F.relu(self.bn1(self.conv1(x)))  # (N, D/4, T, H, W)
        y = F.relu(self.bn2(self.conv2(y)))  # (N, D/4, T, h, w)
        y = self.bn3(self.conv3(y))  # (N, D, T, h, w)
        return F.relu(y + self.downsample(x))


class Stage(nn.Module):
    """res2, res3, res4 or res5: residual blocks, with non-local blocks after some of them (no ReLU follows those)."""

    def __init__(self, config: ResNetConfig, name: str, channels: int, mid: int, stride: int) -> None:
        super().__init__()
        self.blocks = nn.ModuleList()
        out = EXPANSION * mid
        for inflated in config.inflated(name):
            inflate = config.inflate if inflated else "none"
            self.blocks.append(Bottleneck(channels, mid, out, stride, inflate, config.conventions.rules))
            channels, stride = out, 1
        self.recompute = False
        self.group = config.conventions.rules.res3_group if name == "res3" else 0
        self.non_local = nn.ModuleDict()
        if nl := config.non_local:
            for after in nl.placement.get(name, []):
                self.non_local[str(after)] = NonLocalBlock(
                    channels, nl.instantiation, nl.sum_over, nl.subsample, conventions=config.conventions
                )

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T h w"]:
        for index, block in enumerate(self.blocks):
            x = self._call(block, x)
            if str(index) in self.non_local:
                x = _in_groups(partial(self._call, self.non_local[str(index)]), x, self.group)
        return x

    def _call(self, block: nn.Module, x: Tensor) -> Tensor:
        if not (self.recompute and torch.is_grad_enabled()):
            y: Tensor = block(x)
            return y
        again = partial(_statistics_kept, block)
        return cast(Tensor, checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), again())))


@contextmanager
def _statistics_kept(block: nn.Module) -> Iterator[None]:
    """A second forward pass over the same clips leaves the running statistics of BN as the first one did."""
    norms = [m for m in block.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    kept = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, kept, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _in_groups(block: Callable[[Tensor], Tensor], x: Tensor, frames: int) -> Tensor:
    """`block` on each group of so many frames of x (N, C, T, H, W) by itself; 0 is all frames."""
    if frames == 0 or x.shape[2] == frames:
        return block(x)
    if x.shape[2] % frames:
        raise UserError(f"conventions.res3_group is {frames}, but res3 has {x.shape[2]} frames: no whole groups")
    groups = torch.unflatten(x, 2, (-1, frames)).transpose(1, 2)  # (N, groups, C, frames, H, W)
    y = block(groups.flatten(0, 1))  # (N groups, C, frames, H, W)
    return torch.unflatten(y, 0, groups.shape[:2]).transpose(1, 2).flatten(2, 3)


class VideoResNet(nn.Module):
    """Table 1: conv1, pool1, res2, pool2, res3, res4, res5, global average pool, fc.

    Module names are the layer names of Table 1. Initialised as He et al. (convolutions) and with a standard
    deviation of 0.01 (classifier), before ImageNet weights replace it.
    """

    res2: Stage
    res3: Stage
    res4: Stage
    res5: Stage

    def __init__(self, config: ResNetConfig) -> None:
        super().__init__()
        if not isinstance(config, ResNetConfig):
            raise UserError(f"config: expected ResNetConfig(...), not {config!r}")
        self.config = config
        mids = [max(1, config.min_channels, round(config.width * mid)) for mid in (64, 128, 256, 512)]
        t_conv1, t_pool1, t_pool2 = config.temporal_strides
        s_conv1, s_pool1, *s_stages = config.spatial_strides
        max_pool = config.conventions.rules.max_pool

        self.conv1 = convolution(3, mids[0], (1 if config.inflate == "none" else 5, 7, 7), (t_conv1, s_conv1, s_conv1))
        self.bn1 = NORMS[config.conventions.rules.norm](mids[0])
        time1 = 1 if max_pool == "padded_in_space" else _pool_kernel(t_pool1, max_pool)
        self.pool1 = _max_pool((time1, 3, 3), (t_pool1, s_pool1, s_pool1), max_pool != "unpadded")
        self.pool2 = _max_pool((_pool_kernel(t_pool2, max_pool), 1, 1), (t_pool2, 1, 1), max_pool == "padded")
        channels = mids[0]
        for name, mid, stride in zip(STAGES, mids, s_stages, strict=True):
            setattr(self, name, Stage(config, name, channels, mid, stride))
            channels = EXPANSION * mid
        self.dropout = nn.Dropout(config.dropout)
        self.fc = nn.Linear(channels, config.num_classes)
        if config.control is not None:
            put_control(self, config.control, Bottleneck)
        for name, module in self.named_modules():
            if isinstance(module, nn.Conv3d) and ".non_local." not in name:
                nn.init.kaiming_normal_(module.weight, mode="fan_out")
        nn.init.normal_(self.fc.weight, std=0.01)
        nn.init.zeros_(self.fc.bias)

    def forward(self, clip: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N classes"]:
        """Return the logits of normalised clips. UserError if they have another shape."""
        x = self.features(clip).mean(dim=(2, 3, 4))  # (N, 2048): global average pool
        logits: Tensor = self.fc(self.dropout(x))
        return logits

    # Sizes at line ends are those of Table 1, for clips of 32 x 224 x 224.

    def features(self, clip: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D t h w"]:
        """The output of res5."""
        check_floats("VideoResNet", "a tensor of floats", clip, self.conv1.weight)
        if clip.ndim != 5 or clip.shape[1] != 3:
            raise UserError(f"VideoResNet: expected clips (N, 3, T, H, W), not {tuple(clip.shape)}")
        x = self.pool1(self.stem(clip))  # (N, 64, 8, 56, 56)
        x = self.pool2(self.res2(x))  # (N, 256, 4, 56, 56)
        x = self.res3(x)  # (N, 512, 4, 28, 28)
        x = self.res4(x)  # (N, 1024, 4, 14, 14)
        features: Tensor = self.res5(x)  # (N, 2048, 4, 7, 7)
        return features

    def stem(self, clip: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D t h w"]:
        """The output of conv1, (N, 64, 16, 112, 112)."""
        return F.relu(self.bn1(self.conv1(clip)))

    def recompute(self, on: bool) -> None:
        """Whether each block computes its activations again for the backward pass instead of keeping them."""
        for stage in (self.res2, self.res3, self.res4, self.res5):
            stage.recompute = on

    def logits_at_places(self, clip: Float[Tensor, "N 3 T H W"], side: int) -> Float[Tensor, "N places classes"]:
        """The logits of the `side` x `side` window of res5 at each of its places: the classifier as a convolution.

        A window is pooled over all frames, at stride 1 (Sec. 4.1, inference: fully convolutional); `side` is that of
        res5 in training, 7 in Table 1. UserError if res5 is smaller.
        """
        x = self.features(clip).mean(dim=2)  # (N, D, h, w)
        if side > min(x.shape[2:]):
            raise UserError(
                f"test_pool is {side}, but res5 is {x.shape[2]} x {x.shape[3]} here: test on larger crops, or pool less"
            )
        windows = F.avg_pool2d(x, side, stride=1).flatten(2).mT  # (N, places, D)
        logits: Tensor = self.fc(windows)
        return logits


def _max_pool(kernel: Triple, stride: Triple, padded: bool) -> nn.MaxPool3d:
    return nn.MaxPool3d(kernel, stride, half(kernel) if padded else (0, 0, 0))


def _pool_kernel(stride: int, max_pool: str) -> int:
    """Temporal kernel of a max pool: Table 1 has 3 at stride 2, the released code 2.

    A pool that doesn't stride in time doesn't mix frames either (released code, 8 x 8 input).
    """
    if stride == 1:
        return 1
    return 3 if max_pool == "padded" else stride
