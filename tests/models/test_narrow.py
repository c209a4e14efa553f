"""A residual block as one operation, against its layers, one after the other."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from nl_lightning.conventions import Conventions
from nl_lightning.models.few_channels import has_few, norm_relu
from nl_lightning.models.folded import Conv3d
from nl_lightning.models.narrow import NARROW, is_narrow, residual
from nl_lightning.models.resnet import Bottleneck

INFLATE = ["none", "3x1x1", "3x3x3"]


def block_of(channels: int, mid: int, inflate: str, stride: int = 1) -> Any:
    block = Bottleneck(channels, mid, stride, inflate, Conventions().rules).double()
    for norm in block.modules():
        if isinstance(norm, nn.BatchNorm3d):
            for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
                nn.init.uniform_(tensor, 0.5, 1.5)
    return block


def layers_of(block: Any) -> list[Any]:
    layers = [(block.conv1, block.bn1), (block.conv2, block.bn2), (block.conv3, block.bn3)]
    return [*layers, tuple(block.downsample)] if isinstance(block.downsample, nn.Sequential) else layers


def one_by_one(x: Tensor, layers: Any) -> Tensor:
    (conv1, bn1), (conv2, bn2), (conv3, bn3), *shortcut = layers
    y = F.relu(bn2(F.conv3d(F.relu(bn1(plain(conv1, x))), conv2.weight, None, 1, conv2.padding)))
    for conv, norm in shortcut:
        x = norm(plain(conv, x))
    return F.relu(bn3(plain(conv3, y)) + x)


def plain(conv: Conv3d, x: Tensor) -> Tensor:
    return F.conv3d(x, conv.weight, None, conv.stride, conv.padding)


def trained(f: Any, block: Any, x: Tensor) -> tuple[list[Tensor], list[Tensor]]:
    """Output and state, and gradients, of a copy of the block after a pass."""
    block, x = copy.deepcopy(block), x.clone().requires_grad_()
    y = f(x, layers_of(block))
    weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
    gradients = torch.autograd.grad((y * weights).sum(), [x, *block.parameters()])
    return [y.detach(), *block.state_dict().values()], [*gradients]


@given(
    mid=st.integers(1, 9),
    expands=st.booleans(),
    inflate=st.sampled_from(INFLATE),
    size=st.tuples(*[st.integers(1, 5)] * 4),
    channels_last=st.booleans(),
)
@settings(max_examples=30, deadline=None)
def test_is_its_layers(mid: int, expands: bool, inflate: str, size: Any, channels_last: bool) -> None:
    n, *positions = size
    torch.manual_seed(0)
    block = block_of(mid if expands else 4 * mid, mid, inflate)
    x = torch.randn(n + 1, mid if expands else 4 * mid, *positions, dtype=torch.float64)
    if channels_last:
        x = x.contiguous(memory_format=torch.channels_last_3d)
    assert is_narrow(x, layers_of(block))
    torch.testing.assert_close(trained(residual, block, x), trained(one_by_one, block, x), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("inflate", INFLATE)
@pytest.mark.parametrize(("channels", "mid"), [(4, 4), (16, 4), (64, 16), (128, 32)])
def test_in_single_precision(channels: int, mid: int, inflate: str) -> None:
    """About as near to the exact numbers as the layers; none lies at the edge of a ReLU, to fall on either side."""
    torch.manual_seed(0)
    block, x = block_of(channels, mid, inflate), torch.randn(4, channels, 4, 8, 8, dtype=torch.float64)
    for _, norm in layers_of(block):
        nn.init.constant_(norm.bias, 8)
    exact = trained(one_by_one, block, x)
    ours, theirs = (trained(f, block.float(), x.float()) for f in (residual, one_by_one))
    for found, usual, wanted in zip(ours, theirs, exact, strict=True):
        error, least = (furthest(single, wanted) for single in (found, usual))
        assert error < 3 * least + 1e-5


def furthest(found: list[Tensor], wanted: list[Tensor]) -> float:
    """The largest error of any number, as a share of the largest number."""
    errors = [(a - b).abs().max() for a, b in zip(found, wanted, strict=True)]
    return float(max(errors) / max(tensor.abs().max() for tensor in wanted))


def test_a_block_takes_it_in_training_alone() -> None:
    x, block = torch.randn(2, 16, 2, 4, 4), block_of(16, 4, "none").float()
    assert is_narrow(x, layers_of(block))
    assert "Residual" in type(block(x).grad_fn).__name__
    with torch.no_grad():
        assert not is_narrow(x, layers_of(block))
    with torch.autocast("cpu", torch.bfloat16):
        assert not is_narrow(x, layers_of(block))
    assert not is_narrow(x, layers_of(block.eval()))
    frozen = block_of(16, 4, "none").train()
    frozen.bn2.eval()
    assert not is_narrow(x, layers_of(frozen))


def test_other_blocks_keep_their_layers() -> None:
    wide, strided, watched = block_of(16, 2 * NARROW, "none"), block_of(16, 4, "none", 2), block_of(16, 4, "none")
    calls: list[str] = []
    watched.bn2.register_forward_hook(lambda *_: calls.append("bn2"))
    for block in (wide, strided, watched):
        x = torch.randn(2, 16, 2, 4, 4, dtype=torch.float64)
        assert not is_narrow(x, layers_of(block))
        block(x)
    assert calls == ["bn2"]


@given(channels=st.integers(1, 7), size=st.tuples(*[st.integers(1, 6)] * 4), relu_all=st.booleans())
@settings(max_examples=40, deadline=None)
def test_bn_of_few_channels(channels: int, size: Any, relu_all: bool) -> None:
    n, *positions = size
    found = []
    y = torch.randn(n + 1, channels, *positions, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for f in (norm_relu, lambda y, norm: F.relu(norm(y))):
        norm, leaf = nn.BatchNorm3d(channels).double(), y.clone().requires_grad_()
        nn.init.constant_(norm.bias, 5 if relu_all else 0.1)
        assert has_few(leaf, norm)
        z = f(leaf, norm)
        weights = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view(z.shape)
        found.append(
            (z.detach(), torch.autograd.grad((z * weights).sum(), [leaf, *norm.parameters()]), norm.state_dict())
        )
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)
