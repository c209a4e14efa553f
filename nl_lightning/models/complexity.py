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

import torch
from torch import Tensor, nn

from nl_lightning.errors import UserError
from nl_lightning.models.controls import Context
from nl_lightning.models.conventions import Triple
from nl_lightning.models.forms import Form, form_of
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.models.resnet import ResNetConfig, VideoResNet

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


def complexity(config: ResNetConfig, clip: Triple = (32, 224, 224)) -> Complexity:
    """Cost of the network of `config` for one clip of (T, H, W).

    Raises:
        UserError: the clip is too small or too large for the network.
    """
    net = _on_meta(config)
    macs = _count(net, clip)
    weights = {name: m.weight.numel() for name, m in net.named_modules() if isinstance(m, CONV_FC)}
    return Complexity(
        params=sum(p.numel() for p in net.parameters()),
        params_conv_fc=sum(weights.values()),
        macs=sum(macs.values()),
        macs_conv_fc=sum(macs[name] for name in weights),
    )


def check_clip(config: ResNetConfig, clip: Triple) -> None:
    """UserError if a clip of (T, H, W) is too small or too large for the network."""
    _call(_on_meta(config), clip)


@dataclass(frozen=True)
class BlockCost:
    """What a non-local block has to compare for one clip, and how it goes about it.

    Attributes:
        name: the residual block that it follows, such as ``res3.1``.
        sets: of positions that are compared among themselves, over all groups of frames that the block sees apart.
        queries, keys: positions i and j of each set.
        map: frames, rows and columns of what the block sees.
        form: the form of the operation that is taken, see :mod:`nl_lightning.models.forms`.
    """

    name: str
    sets: int
    queries: int
    keys: int
    map: Triple
    form: Form

    @property
    def matrix(self) -> int:
        """Numbers in the N x N matrices of f(x_i, x_j) that the definition makes."""
        return self.sets * self.queries * self.keys


def block_costs(config: ResNetConfig, clip: Triple, device: str = "cpu", half: bool = False) -> list[BlockCost]:
    """The non-local blocks of a network, in order, for one clip of (T, H, W), a type of device and a precision."""
    net = _on_meta(config)
    found: list[BlockCost] = []

    def note(block: nn.Module, inputs: tuple[Tensor], name: str) -> None:
        assert isinstance(block, NonLocalBlock)
        theta, phi = (block.sets(maps).shape for maps in block.embed(inputs[0])[:2])
        frames, height, width = inputs[0].shape[-3:]
        form = form_of(block.instantiation, theta, phi, device, half)
        found.append(BlockCost(name, theta[:2].numel(), theta[2], phi[2], (frames, height, width), form))

    for name, module in net.named_modules():
        if isinstance(module, NonLocalBlock):
            module.register_forward_pre_hook(partial(note, name=name.replace("non_local.", "")))
    _call(net, clip)
    return found


def _on_meta(config: ResNetConfig) -> VideoResNet:
    with torch.device("meta"):
        net = VideoResNet(config).eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d):  # it changes no shape, and takes half of the time
            module.forward = nn.Identity().forward  # type: ignore[method-assign]
    return net


def _count(net: VideoResNet, clip: Triple) -> dict[str, int]:
    """Call `net` with one clip of (T, H, W) and return the MACs of each of its modules, without those inside it."""
    macs: dict[str, int] = {}

    def record(module: nn.Module, inputs: tuple[Tensor], output: Tensor, name: str) -> None:
        places = output.shape[0] * output.shape[2:].numel()  # groups of frames come as several maps
        if isinstance(module, CONV_FC):
            macs[name] = module.weight.numel() * places
        elif isinstance(module, NonLocalBlock):
            macs[name] = _products(module, inputs[0])
        elif isinstance(module, Context):
            macs[name] = module.products(inputs[0])

    for name, module in net.named_modules():
        module.register_forward_hook(partial(record, name=name))
    _call(net, clip)
    return macs


def _call(net: VideoResNet, clip: Triple) -> None:
    try:
        with torch.no_grad():
            net(torch.empty(1, 3, *clip, device="meta"))
    except RuntimeError as error:  # nothing else can go wrong where there are only shapes
        size = "x".join(map(str, clip))
        wrong = "large" if "verflow" in str(error) else "small"
        raise UserError(f"clip: {size} (frames, height, width) is too {wrong} for this network") from error


def _products(block: NonLocalBlock, x: Tensor) -> int:
    """MACs of f(x_i, x_j) and of its product with g(x_j), over all pairs, for maps x (groups of frames, C, T, H, W)."""
    theta, phi, g = (block.sets(maps).shape for maps in block.embed(x))
    (n, s, queries, channels), keys, values = theta, phi[2], g[3]
    # w_f . [theta_i, phi_j] is a number for i plus a number for j.
    similarity = queries + keys if block.instantiation == "concatenation" else queries * keys
    return n * s * (similarity * channels + queries * keys * values)
