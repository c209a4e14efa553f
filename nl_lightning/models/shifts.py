"""The part in time of a convolution, y_t = sum over i of W_i x_(t + i - k // 2), taken last: all W_i x_t, then the sum.

W_0 x_t to W_(k-1) x_t are one product, of k times as many channels, for each frame by itself. Checked in the tests
against torch's convolutions.
"""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable


class ShiftedSum(torch.autograd.Function):
    """:func:`shifted_sum`, whose gradient is :func:`shifted_copies`. Differentiable once."""

    @staticmethod
    def forward(ctx: Any, each: Float[Tensor, "N T P k D"]) -> Float[Tensor, "N T P D"]:
        ctx.kernels = each.shape[3]
        return shifted_sum(each)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Float[Tensor, "N T P D"]) -> Float[Tensor, "N T P k D"]:
        return shifted_copies(dy, ctx.kernels)


def shifted_sum(each: Float[Tensor, "N T P k D"]) -> Float[Tensor, "N T P D"]:
    """y_t = sum over i of each_(t + i - k // 2, i); beyond either end there are zeros."""
    frames, kernels = each.shape[1], each.shape[3]
    y = each[:, :, :, kernels // 2].clone(memory_format=torch.contiguous_format)
    for i in range(kernels):
        shift = i - kernels // 2
        if 0 < abs(shift) < frames:
            y[:, _within(frames, -shift)] += each[:, _within(frames, shift), :, i]
    return y


def shifted_copies(y: Float[Tensor, "N T P D"], kernels: int) -> Float[Tensor, "N T P k D"]:
    """each_(t, i) = y_(t - i + k // 2), the transpose of :func:`shifted_sum`."""
    n, frames, places, channels = y.shape
    each = y.new_zeros(n, frames, places, kernels, channels)
    for i in range(kernels):
        shift = i - kernels // 2
        if abs(shift) < frames:
            each[:, _within(frames, shift), :, i] = y[:, _within(frames, -shift)]
    return each


def _within(frames: int, shift: int) -> slice:
    """The frames t + shift that exist, for all t that exist."""
    return slice(max(0, shift), frames + min(0, shift))
