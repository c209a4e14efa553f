"""BN and ReLU of a map of fewer channels than fill a vector of the CPU, several positions at a time.

torch's BN goes along the channels of a channels-last map; 4 of them cost it as much as 32. Here a row holds the
channels of several positions, and the statistics of its columns are summed up for each channel in the end.
Checked in the tests against BN and ReLU of torch.
"""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nl_lightning.models.folded import from_rows, rows
from nl_lightning.models.precision import is_half

FEW = 7
"""Up to so many channels this is faster (measured: 4 channels two to four times, 8 half as fast)."""

WIDTH = 64
"""Numbers in a row of several positions."""

BatchNorm = nn.modules.batchnorm._BatchNorm


def learns(norm: nn.Module) -> bool:
    """Whether it is BN that normalises by its own clips, and keeps running means of their statistics."""
    usual = isinstance(norm, BatchNorm) and norm.track_running_stats and norm.momentum is not None
    return usual and norm.training


def follow(norm: Any, mean: Float[Tensor, " C"], var: Float[Tensor, " C"], count: int) -> None:
    """The running statistics of BN go on with the mean and the variance of `count` positions."""
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    norm.running_mean.lerp_(mean, norm.momentum)
    norm.running_var.lerp_(var * (count / max(1, count - 1)), norm.momentum)


def has_few(y: Float[Tensor, "N C ..."], norm: nn.Module) -> bool:
    """Whether :class:`NormReLU` is for this map: on a CPU in full precision."""
    plain = y.device.type == "cpu" and not torch.compiler.is_compiling() and not is_half(y)
    return plain and y.shape[1] <= FEW and learns(norm)


def norm_relu(y: Float[Tensor, "N C ..."], norm: Any) -> Float[Tensor, "N C ..."]:
    """``relu(norm(y))``, if :func:`has_few`."""
    z, mean, var = NormReLU.apply(rows(y).flatten(0, -2), norm.weight, norm.bias, norm.eps)
    with torch.no_grad():
        follow(norm, mean, var, len(z))
    return from_rows(z.view(rows(y).shape))


class NormReLU(torch.autograd.Function):
    """z = relu(gamma (y - mean) / sqrt(var + eps) + beta), the mean and the variance. Differentiable once.

    For d, the gradient of what the ReLU was given: dbeta = sum of d, dgamma = sum of d (y - mean) / sqrt(var + eps),
    and dy = s (d - dbeta / M - (y - mean) dgamma / sqrt(var + eps) / M), with s = gamma / sqrt(var + eps).
    """

    @staticmethod
    def forward(
        ctx: Any, y: Float[Tensor, "M C"], gamma: Float[Tensor, " C"], beta: Float[Tensor, " C"], eps: float
    ) -> tuple[Tensor, Tensor, Tensor]:
        count, channels = y.shape
        many = math.gcd(count, WIDTH // channels)  # positions in a row
        wide = y.reshape(-1, many * channels)
        mean = _by_channel(wide.sum(0), channels) / count
        centred = wide - mean.repeat(many)
        var = _by_channel((centred * centred).sum(0), channels) / count
        inverse = (var + eps).rsqrt()
        s = gamma * inverse
        z = torch.addcmul(beta.repeat(many), centred, s.repeat(many)).relu_()
        ctx.save_for_backward(z, centred, s, inverse)
        ctx.mark_non_differentiable(mean, var)
        return z.view(count, channels), mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Float[Tensor, "M C"], *_: Tensor) -> tuple[Tensor | None, ...]:
        z, centred, s, inverse = ctx.saved_tensors
        count, channels = dz.shape
        many = count // len(z)
        d = torch.ops.aten.threshold_backward(dz.reshape(z.shape), z, 0.0)
        dbeta = _by_channel(d.sum(0), channels)
        dgamma = inverse * _by_channel((d * centred).sum(0), channels)
        mean, slope = s * dbeta / -count, s * inverse * dgamma / -count
        dy = torch.addcmul(mean.repeat(many), centred, slope.repeat(many)).addcmul_(d, s.repeat(many))
        return dy.view(count, channels), dgamma, dbeta, None


def _by_channel(sums: Float[Tensor, " many*C"], channels: int) -> Float[Tensor, " C"]:
    return sums.view(-1, channels).sum(0)
