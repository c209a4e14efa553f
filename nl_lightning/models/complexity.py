"""What a network of Table 2 costs: parameters and multiply-accumulates, counted without running it.

The network is built and called on torch's meta device, which knows shapes but holds no numbers, so that even
ResNet-101 on 128 frames takes half a second. A multiply-accumulate (MAC) is what the paper calls a FLOP.

Two counts, because the paper doesn't say whether its FLOPs hold the matrix products of non-local blocks, and
the released code's counter leaves them out. The 1.2x of Table 2e's five blocks is either `macs` with the
pool before phi and g (release, 1.23x) or `macs_conv_fc` with the pool after them (paper, 1.23x); the other
two pairs make 1.15x and 1.32x. The 1.5x and 1.8x of the I3Ds need all of res2 inflated (release).
Checked in the tests against Table 2e, torch's own counter, and a golden file of every variant.
"""

from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor, nn

from nl_lightning.errors import UserError
from nl_lightning.models.folded import Triple
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.models.resnet import ResNetConfig, VideoResNet

LAYERS = ("conv1", "pool1", "res2", "pool2", "res3", "res4", "res5", "fc")
"""The rows of Table 1. The BN after conv1 counts as conv1's, a stage's non-local blocks as the stage's."""

CONV_FC = (nn.Conv3d, nn.Linear)


@dataclass(frozen=True)
class Complexity:
    """Cost of a network for one clip.

    Attributes:
        params: all parameters.
        params_conv_fc: weights of convolutions and classifier, without biases and BN (released code's count).
        macs: multiply-accumulates of convolutions, classifier, and the matrix products of non-local blocks.
        macs_conv_fc: without those products (released code's count).
    """

    params: int
    params_conv_fc: int
    macs: int
    macs_conv_fc: int


class Layer(NamedTuple):
    """A row of Table 1: name, size (T, H, W) of the output, parameters, and MACs with matrix products."""

    name: str
    size: Triple
    params: int
    macs: int


def complexity(config: ResNetConfig, clip: Triple = (32, 224, 224)) -> Complexity:
    """Cost of the network of `config` for one clip of (T, H, W).

    Raises:
        UserError: the clip is too small for the network.
    """
    net = _on_meta(config)
    calls = _call(net, clip)
    weights = {name: m.weight.numel() for name, m in net.named_modules() if isinstance(m, CONV_FC)}
    return Complexity(
        params=sum(p.numel() for p in net.parameters()),
        params_conv_fc=sum(weights.values()),
        macs=sum(call.macs for call in calls.values()),
        macs_conv_fc=sum(calls[name].macs for name in weights),
    )


def layer_table(config: ResNetConfig, clip: Triple = (32, 224, 224)) -> list[Layer]:
    """The rows of Table 1, in its order, for the network of `config` and one clip of (T, H, W).

    Raises:
        UserError: the clip is too small for the network.
    """
    net = _on_meta(config)
    calls = _call(net, clip)
    return [
        Layer(
            name,
            size=calls[name].size,
            params=sum(p.numel() for key, p in net.named_parameters() if _layer(key) == name),
            macs=sum(call.macs for key, call in calls.items() if _layer(key) == name),
        )
        for name in LAYERS
    ]


class _Call(NamedTuple):
    """What one module did: size (T, H, W) of its output, and its MACs without those of modules inside."""

    size: Triple
    macs: int


def _layer(name: str) -> str:
    """The row of Table 1 that the module or parameter `name` belongs to."""
    return name.partition(".")[0].replace("bn1", "conv1")


def _on_meta(config: ResNetConfig) -> VideoResNet:
    with torch.device("meta"):
        return VideoResNet(config).eval()


def _call(net: VideoResNet, clip: Triple) -> dict[str, _Call]:
    """Call `net` with one clip of (T, H, W) and return what each of its modules did, by name."""
    calls: dict[str, _Call] = {}

    def record(module: nn.Module, inputs: tuple[Tensor], output: Tensor, name: str) -> None:
        t, h, w = output.shape[2:] if output.ndim == 5 else (1, 1, 1)
        macs = 0
        if isinstance(module, CONV_FC):
            macs = module.weight.numel() * t * h * w
        elif isinstance(module, NonLocalBlock):
            macs = _products(module, inputs[0])
        calls[name] = _Call((t, h, w), macs)

    for name, module in net.named_modules():
        module.register_forward_hook(partial(record, name=name))
    try:
        with torch.no_grad():
            net(torch.empty(1, 3, *clip, device="meta"))
    except RuntimeError as error:  # nothing else can go wrong where there are only shapes
        size = "x".join(map(str, clip))
        raise UserError(f"clip: {size} (frames, height, width) is too small for this network") from error
    return calls


def _products(block: NonLocalBlock, x: Tensor) -> int:
    """MACs of f(x_i, x_j) and of its product with g(x_j), over all pairs, for a map x (1, C, T, H, W)."""
    _, channels, t, h, w = x.shape
    h_keys, w_keys = block.pool(x).shape[3:]
    queries, keys, sets = {
        "spacetime": (t * h * w, t * h_keys * w_keys, 1),
        "space": (h * w, h_keys * w_keys, t),
        "time": (t, t, h * w),
    }[block.sum_over]
    if block.instantiation == "concatenation":  # w_f . [theta_i, phi_j] is a number for i plus a number for j
        similarity = (queries + keys) * block.dim_inner
    else:
        similarity = queries * keys * (channels if block.instantiation == "gaussian" else block.dim_inner)
    return int(sets * (similarity + queries * keys * block.dim_inner))
