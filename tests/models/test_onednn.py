"""One pass of oneDNN against torch's convolution, norm, sum and ReLU, one after the other."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nl_lightning.models import conv_norm as module
from nl_lightning.models import onednn
from nl_lightning.models.conv_norm import KEPT, conv_norm, packs
from nl_lightning.models.folded import Conv3d, channels_last
from nl_lightning.models.resnet import ResNetConfig, VideoResNet

pytestmark = pytest.mark.skipif(not onednn.supports("cpu", torch.float32), reason="torch has no oneDNN here")

LAYERS = [  # kernel, stride: each fold, and strides in space and time
    ((1, 1, 1), (1, 1, 1)),
    ((1, 1, 1), (1, 2, 2)),
    ((1, 3, 3), (1, 1, 1)),
    ((1, 7, 7), (2, 2, 2)),
    ((3, 1, 1), (1, 1, 1)),
    ((3, 3, 3), (1, 2, 2)),
    ((5, 7, 7), (1, 2, 2)),
]


def layer(channels: int, out: int, kernel: Any, stride: Any) -> tuple[Conv3d, nn.BatchNorm3d]:
    torch.manual_seed(0)
    bn = nn.BatchNorm3d(out).eval()
    for values in (bn.weight, bn.bias, bn.running_mean):
        nn.init.normal_(values)  # type: ignore[arg-type]
    nn.init.uniform_(bn.running_var, 0.5, 2)  # type: ignore[arg-type]
    return Conv3d(channels, out, kernel, stride), bn


def one_by_one(x: Tensor, conv: nn.Conv3d, norm: nn.Module, shortcut: Tensor | None, relu: bool) -> Tensor:
    y: Tensor = norm(F.conv3d(x, conv.weight, None, conv.stride, conv.padding))  # type: ignore[arg-type]
    y = y if shortcut is None else y + shortcut
    return F.relu(y) if relu else y


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("layout", ["channels-last", "contiguous", "strided"])
@pytest.mark.parametrize(("kernel", "stride"), LAYERS)
@torch.no_grad()
def test_is_one_after_the_other(kernel: Any, stride: Any, layout: str, summed: bool, relu: bool) -> None:
    conv, bn = layer(3, 8, kernel, stride)
    x = torch.randn(2, 3, 4, 9, 22)
    x = x[..., ::2] if layout == "strided" else channels_last(x) if layout == "channels-last" else x
    exact = one_by_one(x, conv, bn, None, False)
    shortcut = torch.randn_like(exact) if summed else None
    y = conv_norm(x, conv, bn, shortcut, relu)
    assert packs(x)
    assert KEPT[conv][1][0].layout == torch._mkldnn
    torch.testing.assert_close(y, one_by_one(x, conv, bn, shortcut, relu), rtol=1e-5, atol=1e-5)
    assert channels_last(y) is y  # whatever the input was


@pytest.mark.parametrize("shape", [(2, 3, 5), (2, 3, 4, 5), (2, 3, 2, 4, 5)], ids=["1-D", "2-D", "3-D"])
@torch.no_grad()
def test_a_convolution_with_a_bias_in_any_dimensions(shape: tuple[int, ...]) -> None:
    """theta, phi, g and W_z of a non-local block."""
    conv = {3: nn.Conv1d, 4: nn.Conv2d, 5: nn.Conv3d}[len(shape)](3, 8, 1)
    x = torch.randn(shape)
    torch.testing.assert_close(conv_norm(x, conv, nn.Identity(), relu=False), conv(x))


@torch.no_grad()
def test_a_packed_weight_is_right_for_inputs_of_any_shape() -> None:
    conv, bn = layer(3, 8, (1, 3, 3), (1, 1, 1))
    for shape in ((1, 3, 1, 4, 4), (5, 3, 4, 16, 8), (2, 3, 3, 1, 1)):
        x = torch.randn(shape)
        torch.testing.assert_close(conv_norm(x, conv, bn), one_by_one(x, conv, bn, None, True), rtol=1e-5, atol=1e-5)


@torch.no_grad()
def test_weights_are_packed_again_when_they_have_changed() -> None:
    conv, bn = layer(3, 8, (1, 3, 3), (1, 1, 1))
    x = torch.randn(1, 3, 2, 5, 5)
    for change in (lambda: conv.weight.add_(1), lambda: bn.running_mean.add_(1), lambda: conv.weight.zero_()):  # type: ignore[union-attr, operator]
        before = conv_norm(x, conv, bn)
        assert KEPT[conv][1][0] is module.folded(x, conv, bn)[0]
        change()
        after = conv_norm(x, conv, bn)
        assert not torch.equal(before, after)
        torch.testing.assert_close(after, one_by_one(x, conv, bn, None, True), rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not onednn.supports("cpu", torch.bfloat16), reason="this processor has no bf16")
@torch.no_grad()
def test_half_precision_under_autocast() -> None:
    conv, bn = layer(3, 8, (1, 3, 3), (1, 1, 1))
    x, shortcut = torch.randn(2, 3, 4, 8, 8), torch.randn(2, 8, 4, 8, 8)
    with torch.autocast("cpu", torch.bfloat16):
        y = conv_norm(x, conv, bn, shortcut)
    assert y.dtype == torch.bfloat16
    exact = one_by_one(x, conv, bn, shortcut, True)
    assert ((y.float() - exact).abs().max() / exact.abs().max()).item() < 2e-2


def test_only_where_there_is_no_gradient_to_make() -> None:
    x = torch.randn(1, 3, 2, 5, 5)
    assert not packs(x)
    with torch.no_grad():
        assert packs(x)
        assert not packs(x.double())
        assert not packs(x.to("meta"))


@pytest.mark.parametrize("inflate", ["none", "3x1x1", "3x3x3"])
def test_a_network_tests_as_it_does_without(inflate: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The whole network, with and without the operators."""
    torch.manual_seed(0)
    net = VideoResNet(ResNetConfig(50, inflate, num_classes=7, width=0.125)).eval()
    for bn in (m for m in net.modules() if isinstance(m, nn.BatchNorm3d)):
        nn.init.normal_(bn.running_mean, std=0.1)  # type: ignore[arg-type]
    clip, same = channels_last(torch.randn(2, 3, 8, 64, 64)), copy.deepcopy(net)
    with torch.inference_mode():
        fast = net(clip)
        monkeypatch.setattr(onednn, "supports", lambda device, dtype: False)
        torch.testing.assert_close(fast, same(clip), rtol=1e-4, atol=1e-5)
