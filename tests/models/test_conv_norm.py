"""Convolution, BN, sum and ReLU as one operation, against torch's one after the other."""

import copy
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nl_lightning.models.affine import Affine
from nl_lightning.models.conv_norm import KEPT, ExpandNorm, conv_norm, folded
from nl_lightning.models.folded import Conv3d

KERNELS = [(1, 1, 1), (1, 3, 3), (3, 1, 1)]
NORMS: dict[str, Any] = {"batch": nn.BatchNorm3d, "affine": Affine, "none": nn.Identity}


def layer(channels: int, out: int, kernel: Any, norm: str = "batch") -> tuple[Conv3d, nn.Module]:
    torch.manual_seed(0)
    conv, bn = Conv3d(channels, out, kernel).double(), NORMS[norm](out).double()
    for name, tensor in bn.state_dict().items():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
            assert name
    return conv, bn


def one_by_one(x: Tensor, conv: nn.Module, norm: nn.Module, shortcut: Tensor | None, relu: bool) -> Tensor:
    y = norm(conv(x))
    if shortcut is not None:
        y = y + shortcut
    return F.relu(y) if relu else y


def assert_same(conv: nn.Module, norm: nn.Module, x: Tensor, shortcut: Tensor | None, relu: bool) -> None:
    """Same output, gradients and state of BN."""
    found = []
    for f in (conv_norm, one_by_one):
        c, b = copy.deepcopy(conv), copy.deepcopy(norm)
        inputs = [t.detach().clone().requires_grad_() for t in (x, shortcut) if t is not None]
        y = f(inputs[0], c, b, inputs[1] if len(inputs) > 1 else None, relu)
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
        wanted = [*inputs, *c.parameters(), *b.parameters()]
        found.append((y.detach(), torch.autograd.grad((y * weights).sum(), wanted), b.state_dict()))
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("kernel", KERNELS)
def test_is_one_after_the_other(kernel: Any, norm: str, training: bool, summed: bool, relu: bool) -> None:
    conv, bn = layer(3, 8, kernel, norm)
    x = torch.randn(2, 3, 4, 5, 3, dtype=torch.float64).contiguous(memory_format=torch.channels_last_3d)
    shortcut = torch.randn(2, 8, 4, 5, 3, dtype=torch.float64) if summed else None
    assert_same(conv.train(training), bn.train(training), x, shortcut, relu)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 5), (2, 3, 4, 5)], ids=["0-D", "1-D", "2-D"])
def test_a_convolution_with_a_bias_in_fewer_dimensions(shape: tuple[int, ...]) -> None:
    """W_z of a non-local block over images and sequences."""
    if len(shape) == 2:
        shape = (*shape, 1)
    conv: Any = {3: nn.Conv1d, 4: nn.Conv2d}[len(shape)](3, 8, 1).double()
    bn: Any = {3: nn.BatchNorm1d, 4: nn.BatchNorm2d}[len(shape)](8).double()
    x = torch.randn(shape, dtype=torch.float64)
    shortcut = torch.randn(shape[0], 8, *shape[2:], dtype=torch.float64)
    for training in (True, False):
        assert_same(conv.train(training), bn.train(training), x, shortcut, False)


def test_gradcheck_of_the_expansion() -> None:
    torch.manual_seed(0)
    x, weight, gamma, beta, shortcut = (
        torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in [(7, 3), (5, 3), (5,), (5,), (7, 5)]
    )
    assert torch.autograd.gradcheck(
        lambda *t: ExpandNorm.apply(*t[:4], 1e-5, t[4], True, None)[0], (x, weight, gamma, beta, shortcut)
    )


def test_statistics_of_a_nearly_constant_channel_keep_their_digits() -> None:
    """Channels far from zero with little spread: x is centred before its covariance is taken."""
    conv, bn = layer(3, 8, (1, 1, 1))
    x = 100 + 0.01 * torch.randn(4, 3, 4, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    exact = one_by_one(x, conv, bn, None, False)
    single = conv_norm(x.float(), conv.float(), bn.float(), relu=False)
    theirs = one_by_one(x.float(), conv, bn, None, False)
    error, usual = ((y.double() - exact).abs().max() / exact.abs().max() for y in (single, theirs))
    assert error < max(2 * usual, 1e-4)


def test_a_watched_layer_is_called() -> None:
    conv, bn = layer(3, 8, (1, 1, 1))
    x = torch.randn(2, 3, 4, 5, 3, dtype=torch.float64)
    calls: list[str] = []
    conv.register_forward_hook(lambda *_: calls.append("conv"))
    bn.register_forward_pre_hook(lambda *_: calls.append("bn"))
    conv_norm(x, conv, bn)
    assert calls == ["conv", "bn"]


def test_in_testing_the_weights_are_not_changed() -> None:
    conv, bn = layer(3, 8, (1, 3, 3))
    before = copy.deepcopy((conv.state_dict(), bn.state_dict()))
    with torch.inference_mode():
        conv_norm(torch.randn(1, 3, 2, 5, 5, dtype=torch.float64), conv.eval(), bn.eval())
    torch.testing.assert_close((conv.state_dict(), bn.state_dict()), before, rtol=0, atol=0)


def test_folded_weights_follow_what_they_are_made_of() -> None:
    conv, bn = layer(3, 8, (1, 3, 3))
    x = torch.randn(1, 3, 2, 5, 5, dtype=torch.float64)

    @torch.no_grad()
    def assert_current() -> None:
        torch.testing.assert_close(conv_norm(x, conv.eval(), bn.eval()), one_by_one(x, conv, bn, None, True))

    assert_current()
    with torch.no_grad():
        conv.weight += 1
    assert_current()
    bn.train()(conv(x))  # moves the running statistics
    assert_current()
    conv.load_state_dict({"weight": torch.randn_like(conv.weight)})
    assert_current()
    conv.weight.data = torch.randn_like(conv.weight)
    assert_current()


def test_folded_weights_are_kept_in_testing_alone() -> None:
    conv, bn = layer(3, 8, (1, 3, 3))
    x = torch.randn(1, 3, 2, 5, 5, dtype=torch.float64)
    for learns in (True, False):  # BN's statistics alone are followed without a gradient
        with torch.inference_mode():
            conv_norm(x, conv.eval(), bn.eval())
            assert folded(x, conv, bn) is folded(x, conv, bn)
        with torch.set_grad_enabled(learns):
            conv_norm(x, conv.train(), bn.train())
        assert conv not in KEPT
    assert copy.deepcopy(conv).state_dict().keys() == {"weight"}


@pytest.mark.parametrize("norm", [*NORMS, "identity"])
def test_a_fused_optimizer_changes_what_is_tested(norm: str) -> None:
    """It writes to the weights without counting a version. A network is validated, trained on, and validated again."""
    conv, bn = layer(3, 8, (1, 1, 1), norm) if norm in NORMS else (layer(3, 8, (1, 1, 1))[0], nn.Identity())
    conv, bn = conv.float(), bn.float()
    x = torch.randn(1, 3, 2, 5, 5)
    optimizer = torch.optim.AdamW(conv.parameters(), lr=0.1, fused=True)
    for _ in range(2):
        with torch.no_grad():
            exact = one_by_one(x, conv.eval(), bn.eval(), None, True)
            torch.testing.assert_close(conv_norm(x, conv, bn), exact, rtol=1e-5, atol=1e-5)
        version = conv.weight._version
        conv_norm(x, conv.train(), bn.train()).sum().backward()
        optimizer.step()
        assert conv.weight._version == version  # else this test could not fail
