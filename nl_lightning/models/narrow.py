"""A residual block of few channels as one operation of autograd: the same numbers, by one node instead of two dozen.

With few channels an operator takes as long to be called as to compute, and what autograd does around each, nodes,
views and sums of gradients, counts. Here a block's maps are matrices with a row of channels for each position, and its
gradients are written out; a 1 x 1 x 1 that expands is that of :mod:`nl_lightning.models.conv_norm`.
Checked in the tests against the layers, one after the other.
"""

import itertools
from collections.abc import Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from nl_lightning.models import few_channels
from nl_lightning.models.conv_norm import KEPT, expand, expand_backward, watched
from nl_lightning.models.few_channels import FEW, follow, learns
from nl_lightning.models.folded import Conv3d, from_rows, rows
from nl_lightning.models.precision import is_half

NARROW = 32
"""Up to so many channels between its 1 x 1 x 1 a block is computed here: the most of the recipe longrange (measured: a
tenth of a training step saved)."""

threshold_backward = torch.ops.aten.threshold_backward.default
norm_backward = torch.ops.aten.native_batch_norm_backward.default
convolution_backward = torch.ops.aten.convolution_backward.default

Layers = Sequence[tuple[Conv3d, Any]]
"""A block's three convolutions with their norms, and then that of its shortcut, unless that is its input."""


def is_narrow(x: Float[Tensor, "N C T H W"], layers: Layers) -> bool:
    """Whether :func:`residual` is for a block of these layers: it trains, on a CPU, in full precision, unwatched."""
    if torch.compiler.is_compiling() or not torch.is_grad_enabled() or x.device.type != "cpu" or is_half(x):
        return False
    return (
        layers[1][0].in_channels <= NARROW
        and all(conv.stride == (1, 1, 1) and learns(norm) for conv, norm in layers)
        and all(conv.in_channels < conv.out_channels for conv, _ in layers[2:])
        and not any(watched(conv) or watched(norm) for conv, norm in layers)
    )


def residual(x: Float[Tensor, "N C T H W"], layers: Layers) -> Float[Tensor, "N D T H W"]:
    """A block's output, if :func:`is_narrow`."""
    parameters: list[Tensor] = []
    for conv, norm in layers:
        KEPT.pop(conv, None)
        parameters += [conv.weight, norm.weight, norm.bias]
    z: Tensor = Residual.apply(x, [norm for _, norm in layers], *parameters)
    return z


class Residual(torch.autograd.Function):
    """relu(BN(W3 relu(BN(W2 relu(BN(W1 x))))) + shortcut). Differentiable once."""

    @staticmethod
    def forward(ctx: Any, x: Float[Tensor, "N C T H W"], norms: Sequence[Any], *parameters: Tensor) -> Tensor:
        """`parameters` are (W, gamma, beta) of each layer."""
        first, second, third, *shortcuts = (parameters[i : i + 3] for i in range(0, len(parameters), 3))
        ctx.grid = rows(x).shape[:-1]
        x = rows(x).flatten(0, -2)
        z1, saved1 = _layer(x, first, norms[0], ctx.grid)
        z2, saved2 = _layer(z1, second, norms[1], ctx.grid)
        shortcut: Tensor = x
        of_shortcut: tuple[Tensor, ...] = ()
        for layer in shortcuts:
            shortcut, of_shortcut = _expanded(x, layer, norms[3], None)
        z, saved3 = _expanded(z2, third, norms[2], shortcut)
        saved = saved1, saved2, saved3, of_shortcut
        ctx.lengths = [*map(len, saved)]
        ctx.save_for_backward(z, *itertools.chain(*saved))
        return from_rows(z.view(*ctx.grid, -1))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Float[Tensor, "N D T H W"]) -> tuple[Tensor | None, ...]:
        z, *saved = ctx.saved_tensors
        ends = itertools.accumulate(ctx.lengths)
        first, second, third, shortcut = (saved[end - n : end] for n, end in zip(ctx.lengths, ends, strict=True))
        d = threshold_backward(rows(dz).flatten(0, -2), z, 0.0)
        dz2, *of_third = expand_backward(d, *third)
        dz1, *of_second = _layer_backward(dz2, ctx.grid, None, *second)
        of_shortcut: list[Tensor] = []
        if shortcut:
            d, *of_shortcut = expand_backward(d, *shortcut)
        dx, *of_first = _layer_backward(dz1, ctx.grid, d, *first)
        expanding = (g[..., None, None, None] if g.ndim == 2 else g for g in (*of_third, *of_shortcut))
        return from_rows(dx.view(*ctx.grid, -1)), None, *of_first, *of_second, *expanding


def _layer(
    x: Float[Tensor, "M C"], parameters: Sequence[Tensor], norm: Any, grid: torch.Size
) -> tuple[Float[Tensor, "M D"], tuple[Tensor, ...]]:
    """z = relu(BN(W x)), and what :func:`_layer_backward` takes."""
    weight, gamma, beta = parameters
    y = _convolve(x, weight, grid)
    if y.shape[1] <= FEW:
        z, mean, var, saved = few_channels.forward(y, gamma, beta, norm.eps)
        follow(norm, mean, var, len(y))
        return z, (x, weight, *saved)
    if norm.num_batches_tracked is not None:
        norm.num_batches_tracked.add_(1)
    running = norm.running_mean, norm.running_var
    z, *statistics = torch.native_batch_norm(_as_map(y), gamma, beta, *running, True, norm.momentum, norm.eps)
    z = rows(z.relu_()).view_as(y)
    return z, (x, weight, z, y, gamma, *statistics)


def _layer_backward(
    dz: Float[Tensor, "M D"],
    grid: torch.Size,
    plus: Float[Tensor, "M C"] | None,
    x: Float[Tensor, "M C"],
    weight: Tensor,
    *of_norm: Tensor,
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of x, W, gamma and beta; `plus`, which is lost, is added to that of x."""
    if dz.shape[1] <= FEW:
        dy, dgamma, dbeta = few_channels.backward(dz, *of_norm)
    else:
        z, y, gamma, *statistics = of_norm
        maps = _as_map(threshold_backward(dz, z, 0.0)), _as_map(y)
        others = None, None, *statistics, True, 0.0, [True, True, True]  # running statistics and eps are not for this
        dy, dgamma, dbeta = norm_backward(*maps, gamma, *others)
        dy = rows(dy).view_as(y)
    dx, dweight = _convolve_backward(dy, x, weight, grid, plus)
    return dx, dweight, dgamma, dbeta


def _as_map(x: Float[Tensor, "M C"]) -> Float[Tensor, "1 C M 1"]:
    """The rows as one map, channels-last in memory."""
    return from_rows(x.view(1, -1, 1, x.shape[1]))


def _expanded(
    x: Float[Tensor, "M C"], parameters: Sequence[Tensor], norm: Any, shortcut: Tensor | None
) -> tuple[Float[Tensor, "M D"], tuple[Tensor, ...]]:
    """relu(BN(W x) + shortcut), or, without a shortcut, BN(W x); and what :func:`expand_backward` takes."""
    weight, gamma, beta = parameters
    relu = shortcut is not None
    z, mean, var, saved = expand(x, weight.flatten(1), gamma, beta, norm.eps, shortcut, relu)
    follow(norm, mean, var, len(z))
    return z, saved


def _folded(weight: Tensor, grid: torch.Size) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """The sizes of the positions, and of the kernel, without the axes that the kernel doesn't cross."""
    n, t, h, w = grid
    kt, kh, kw = weight.shape[2:]
    if kt == 1:
        return (n * t, h, w), (kh, kw)
    return ((n, t, h * w), (kt, 1)) if (kh, kw) == (1, 1) else ((n, t, h, w), (kt, kh, kw))


def _convolve(x: Float[Tensor, "M C"], weight: Float[Tensor, "D C t h w"], grid: torch.Size) -> Float[Tensor, "M D"]:
    """Convolution at stride 1, padded by half the kernel."""
    if weight[0, 0].numel() == 1:
        return x @ weight.flatten(1).mT
    sizes, kernel = _folded(weight, grid)
    one, none = [1] * len(kernel), [0] * len(kernel)
    maps = from_rows(x.view(*sizes, -1)), weight.view(*weight.shape[:2], *kernel)
    y: Tensor = torch.convolution(*maps, None, one, [k // 2 for k in kernel], one, False, none, 1)
    return rows(y).flatten(0, -2)


def _convolve_backward(
    dy: Float[Tensor, "M D"],
    x: Float[Tensor, "M C"],
    weight: Float[Tensor, "D C t h w"],
    grid: torch.Size,
    plus: Float[Tensor, "M C"] | None,
) -> tuple[Float[Tensor, "M C"], Float[Tensor, "D C t h w"]]:
    """Gradients of x, with `plus` added in its place, and of W."""
    if weight[0, 0].numel() == 1:
        w = weight.flatten(1)
        dx = dy @ w if plus is None else plus.addmm_(dy, w)
        return dx, (dy.mT @ x).view_as(weight)
    sizes, kernel = _folded(weight, grid)
    one, none = [1] * len(kernel), [0] * len(kernel)
    maps = (from_rows(m.view(*sizes, -1)) for m in (dy, x))
    padding = [k // 2 for k in kernel]
    dmap, dweight, _ = convolution_backward(
        *maps, weight.view(*weight.shape[:2], *kernel), None, one, padding, one, False, none, 1, [True, True, False]
    )
    dx = rows(dmap).flatten(0, -2)
    return dx if plus is None else plus.add_(dx), dweight.view_as(weight)
