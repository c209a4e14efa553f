"""Folded convolutions and pools against torch's own in three dimensions."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from nl_lightning.models.folded import (
    Conv3d,
    MaxPool3d,
    Triple,
    channels_last,
    fold_frames,
    shifted_products,
    stacked_frames,
    summed_frames,
    unfold_frames,
)
from nl_lightning.models.shifts import shifted_copies, shifted_sum

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]
# Every kind of kernel of Table 1's networks, with their strides in (T, H, W).
CONVOLUTIONS: list[tuple[Triple, Triple]] = [
    ((1, 1, 1), (1, 1, 1)),
    ((1, 1, 1), (1, 2, 2)),  # shortcut of a stage's first block
    ((1, 3, 3), (1, 2, 2)),
    ((1, 7, 7), (2, 2, 2)),  # conv1, C2D
    ((5, 7, 7), (2, 2, 2)),  # conv1, I3D
    ((3, 1, 1), (1, 1, 1)),
    ((3, 1, 1), (2, 1, 1)),
    ((3, 3, 3), (1, 2, 2)),
]
POOLS: list[tuple[Triple, Triple, bool]] = [
    ((3, 3, 3), (2, 2, 2), True),  # pool1, Table 1
    ((2, 3, 3), (2, 2, 2), False),  # pool1, released code
    ((1, 3, 3), (1, 2, 2), True),
    ((3, 1, 1), (2, 1, 1), True),  # pool2, Table 1
    ((2, 1, 1), (2, 1, 1), False),  # pool2, released code
    ((1, 1, 1), (1, 1, 1), False),
]


def clip(layout: torch.memory_format, *shape: int) -> Tensor:
    """A random clip, of odd sizes unless `shape` is given, that wants a gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape or (2, 4, 5, 9, 7), generator=generator, dtype=torch.float64)
    return x.contiguous(memory_format=layout).requires_grad_()


def assert_same(mine: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Same output, and same gradients for the input and every parameter."""
    y, expected = mine(x), theirs(x)
    torch.testing.assert_close(y, expected)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    wanted = [x, *mine.parameters()], [x, *theirs.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad((y * weights).sum(), wanted[0]),
        torch.autograd.grad((expected * weights).sum(), wanted[1]),
    )


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels-last"])
@pytest.mark.parametrize(("kernel", "stride"), CONVOLUTIONS)
def test_convolution(kernel: Triple, stride: Triple, layout: torch.memory_format) -> None:
    mine = Conv3d(4, 6, kernel, stride).double()
    padding = tuple(k // 2 for k in kernel)
    theirs = nn.Conv3d(4, 6, kernel, stride, padding, bias=False).double()  # type: ignore[arg-type]
    theirs.load_state_dict(mine.state_dict())  # same names, same shapes
    assert_same(mine, theirs, clip(layout))


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels-last"])
@pytest.mark.parametrize(("kernel", "stride", "padded"), POOLS)
def test_pool(kernel: Triple, stride: Triple, padded: bool, layout: torch.memory_format) -> None:
    padding = tuple(k // 2 if padded else 0 for k in kernel)
    assert_same(MaxPool3d(kernel, stride, padded), nn.MaxPool3d(kernel, stride, padding), clip(layout))


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels-last"])
def test_one_frame(layout: torch.memory_format) -> None:
    x = clip(layout, 2, 4, 1, 5, 3)
    for kernel in [(1, 3, 3), (3, 1, 1), (3, 3, 3)]:
        mine = Conv3d(4, 6, kernel).double()
        torch.testing.assert_close(mine(x), F.conv3d(x, mine.weight, padding=mine.padding))


def test_folds_of_a_channels_last_clip_are_views() -> None:
    x = channels_last(torch.zeros(2, 4, 5, 9, 7))
    frames = fold_frames(x)
    assert frames.shape == (10, 4, 9, 7)
    assert frames.is_contiguous(memory_format=torch.channels_last)
    places = x.flatten(3)
    assert places.shape == (2, 4, 5, 63)
    assert places.is_contiguous(memory_format=torch.channels_last)
    back = unfold_frames(frames, 5)
    assert back.shape == x.shape
    assert back.stride() == x.stride()
    assert frames.data_ptr() == places.data_ptr() == back.data_ptr() == x.data_ptr()


def test_a_folded_clip_is_its_frames_in_order() -> None:
    x = torch.arange(2 * 4 * 5 * 9 * 7).view(2, 4, 5, 9, 7)
    for one in (x, channels_last(x)):
        assert torch.equal(fold_frames(one)[5 * 1 + 3], x[1, :, 3])
        assert torch.equal(unfold_frames(fold_frames(one), 5), x)


@pytest.mark.parametrize(("kernel", "stride"), CONVOLUTIONS)
def test_channels_last_stays(kernel: Triple, stride: Triple) -> None:
    """So that no layer of a network copies its input to fold it."""
    x = channels_last(torch.zeros(2, 4, 5, 9, 7))
    conv = Conv3d(4, 6, kernel, stride).to(memory_format=torch.channels_last_3d)
    assert conv(x).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(("kernel", "stride", "padded"), POOLS)
def test_channels_last_stays_after_pooling(kernel: Triple, stride: Triple, padded: bool) -> None:
    x = channels_last(torch.zeros(2, 4, 5, 9, 7))
    assert MaxPool3d(kernel, stride, padded)(x).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_shifted_products(frames: int, bias: bool) -> None:
    x, weight = clip(torch.channels_last_3d, 2, 4, frames, 3, 5), torch.randn(6, 4, 3, 1, 1, dtype=torch.float64)
    added = torch.randn(6, dtype=torch.float64) if bias else None
    torch.testing.assert_close(shifted_products(x, weight, added), F.conv3d(x, weight, added, padding=(1, 0, 0)))


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("frames", "stride"), [(1, 1), (3, 2), (8, 2)])
def test_stacked_frames(frames: int, stride: int, bias: bool) -> None:
    x, weight = clip(torch.channels_last_3d, 2, 3, frames, 9, 8), torch.randn(6, 3, 5, 7, 7, dtype=torch.float64)
    added = torch.randn(6, dtype=torch.float64) if bias else None
    expected = F.conv3d(x, weight, added, (1, stride, stride), (2, 3, 3))
    torch.testing.assert_close(stacked_frames(x, weight, added, stride), expected)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("frames", "stride"), [(1, 1), (3, 2), (8, 2)])
def test_summed_frames(frames: int, stride: int, bias: bool) -> None:
    conv = nn.Conv3d(3, 4, (5, 7, 7), (1, stride, stride), (2, 3, 3), bias=bias).double()
    x = clip(torch.channels_last_3d, 2, 3, frames, 9, 7)
    found = []
    for y in (summed_frames(x, conv.weight, conv.bias, stride), conv(x)):
        weights = torch.linspace(-1, 1, y.numel(), dtype=y.dtype).view(y.shape)
        found.append((y.detach(), torch.autograd.grad((y * weights).sum(), [x, *conv.parameters()])))
    torch.testing.assert_close(*found)


@given(kernels=st.sampled_from([1, 3, 5]), frames=st.integers(1, 6))
def test_shifted_copies_are_the_transpose_of_the_shifted_sum(kernels: int, frames: int) -> None:
    generator = torch.Generator().manual_seed(0)
    each = torch.randn(2, frames, 3, kernels, 2, generator=generator, dtype=torch.float64)
    y = torch.randn(2, frames, 3, 2, generator=generator, dtype=torch.float64)
    products = (shifted_sum(each) * y).sum(), (each * shifted_copies(y, kernels)).sum()
    torch.testing.assert_close(*products)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_forms_that_pay_in_training_only(precision: torch.dtype) -> None:
    """256 and 1,024 channels, and conv1 of I3D: the forms above are taken, and are the convolution."""
    for channels, out, kernel, stride in [(1024, 2, (3, 1, 1), (1, 1, 1)), (3, 4, (5, 7, 7), (1, 2, 2))]:
        conv = Conv3d(channels, out, kernel, stride)  # type: ignore[arg-type]
        x = channels_last(torch.randn(1, channels, 4, 6, 6))
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
            mine = conv(x)
        theirs = F.conv3d(x, conv.weight, None, conv.stride, conv.padding)
        close = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[precision] * theirs.abs().max().item()
        torch.testing.assert_close(mine.float(), theirs, rtol=0, atol=close)


def test_the_layout_of_one_clip_is_known_to_torch() -> None:
    """torch takes a map for channels-first when the stride of a single clip is made up, and then copies it."""
    for kernel in [(1, 1, 1), (1, 3, 3), (3, 1, 1), (3, 3, 3)]:
        y = Conv3d(4, 6, kernel)(channels_last(torch.zeros(1, 4, 5, 9, 7)))
        assert y.is_contiguous(memory_format=torch.channels_last_3d), kernel


@pytest.mark.parametrize("kernel", [(2, 1, 1), (1, 2, 2), (2, 2, 2)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_maxima_without_their_places(kernel: Triple, layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, 5, 7, 6).contiguous(memory_format=layout)
    with torch.no_grad():
        y = MaxPool3d(kernel, kernel, padded=False)(x)
    assert torch.equal(y, F.max_pool3d(x, kernel))
