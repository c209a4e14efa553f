"""A convolution, its BN, a shortcut and a ReLU as one operation: the same numbers in fewer passes over memory.

On a CPU a narrow or an early layer is bound by memory: reading and writing its output a dozen times for BN, the sum and
the ReLU costs more than the convolution. Two identities avoid most of it.

In testing BN is an affine map of each channel, and folds into the convolution's weights; on a CPU oneDNN then adds the
shortcut and does the ReLU on its way out.

In training, the statistics of y = W x are those of x carried through W: with S = cov(x), var(y) = diag(W S W^T).
Where W expands few channels to many (the last 1 x 1 x 1 of a residual block, the shortcut of a stage, W_z of a
non-local block), S is small and cheap, and BN never reads y; nor does its backward, see :class:`ExpandNorm`.
Checked in the tests against the convolution, BN, sum and ReLU of torch, one after the other.
"""

from collections.abc import Callable
from typing import Any, cast
from weakref import WeakKeyDictionary

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from nl_lightning.models import onednn
from nl_lightning.models.affine import Affine
from nl_lightning.models.few_channels import BatchNorm, follow, has_few, learns, norm_relu
from nl_lightning.models.folded import Conv3d, from_rows, pointwise, rows
from nl_lightning.models.precision import is_half, product_dtype

MOST_CHANNELS = 128
"""Up to so many input channels their covariance costs less than the passes that it saves (measured; 256: the same)."""


def conv_norm(
    x: Float[Tensor, "N C T H W"],
    conv: nn.Module,
    norm: nn.Module,
    shortcut: Float[Tensor, "N D t h w"] | None = None,
    relu: bool = True,
) -> Float[Tensor, "N D t h w"]:
    """``relu(norm(conv(x)) + shortcut)``, by the cheapest exact form.

    A convolution or norm that somebody watches by a hook is called as it is.
    """
    in_place = True  # nobody else has y
    fixed = _is_affine(norm)
    if torch.is_grad_enabled() or not fixed:
        forget()
    if watched(conv) or watched(norm):
        y = norm(conv(x))
        in_place = False
    elif fixed:
        weight, bias = folded(x, conv, norm)
        if packs(x):
            return onednn.convolve(x, conv, weight, bias, shortcut, relu)
        y = convolve(x, conv, weight, bias)
        in_place = not torch.is_grad_enabled()  # y may be a view, and changing one costs autograd a copy
    elif _expands(x, conv, norm):
        return _expand(x, conv, cast(BatchNorm, norm), shortcut, relu)
    else:
        y = convolve(x, conv, conv.weight, conv.bias)  # type: ignore[arg-type]
        if relu and shortcut is None and has_few(y, norm):
            return norm_relu(y, norm)
        y = norm(y)
    if shortcut is not None:
        y = y.add_(shortcut) if in_place else y + shortcut
    return F.relu(y, inplace=in_place) if relu else y


def norm_of(
    apply: Callable[[Tensor, Tensor | None], Tensor], conv: nn.Module, norm: nn.Module, shortcut: Tensor
) -> Tensor:
    """``norm(conv(y)) + shortcut`` where `apply` makes conv(y), given a weight and a bias, without there being a y."""
    fixed = _is_affine(norm)
    y = apply(*(fold(conv, norm) if fixed else (conv.weight, conv.bias)))
    return (y if fixed else cast(Tensor, norm(y))).add_(shortcut)  # nobody else has it, and no gradient needs it


def watched(module: nn.Module) -> bool:
    """Whether somebody has hung a hook on the module, and so wants it called."""
    return bool(module._forward_hooks or module._forward_pre_hooks)


def _is_affine(norm: nn.Module) -> bool:
    """Whether the norm is the same map whatever it is given."""
    fixed = isinstance(norm, BatchNorm) and not norm.training and norm.track_running_stats
    return fixed or isinstance(norm, Affine | nn.Identity)


def packs(x: Tensor) -> bool:
    """Whether oneDNN does a layer in one pass, with a weight laid out for it: in testing on a CPU."""
    free = not torch.is_grad_enabled() and not torch.compiler.is_compiling()
    return free and onednn.supports(x.device.type, product_dtype(x))


KEPT: WeakKeyDictionary[nn.Module, tuple[object, tuple[Tensor, Tensor | None]]] = WeakKeyDictionary()
"""Folded weights of convolutions, and of which tensors in which versions they were made: in testing they are the same
for all clips, and making them takes as long as a tenth of a clip. A second copy of the weights, until training."""


def forget() -> None:
    """Let all folded weights go: in training any of them may change, and a fused optimizer counts no versions."""
    if KEPT and not torch.compiler.is_compiling():
        KEPT.clear()


def folded(x: Tensor, conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor | None]:
    """:func:`fold`, in the precision of a product with x, packed if oneDNN is to have it.

    Made once where no gradient is asked for.
    """
    if torch.is_grad_enabled() or torch.compiler.is_compiling():
        return fold(conv, norm)
    dtype, to_pack = product_dtype(x), packs(x)
    tensors = [*conv.parameters(), *norm.parameters(), *norm.buffers()]
    made_of = (dtype, to_pack, id(norm), *((t.data_ptr(), t._version) for t in tensors))
    if conv not in KEPT or KEPT[conv][0] != made_of:
        with torch.inference_mode(False), torch.no_grad():
            weight, bias = fold(conv, norm)
            weight, bias = weight.to(dtype), None if bias is None else bias.to(dtype)
            KEPT[conv] = made_of, (onednn.pack(conv, weight, x) if to_pack else weight, bias)
    return KEPT[conv][1]


def fold(conv: nn.Module, norm: nn.Module) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of the convolution that does what `conv` and a norm that is an affine map do."""
    weight, bias = cast(Tensor, conv.weight), cast(Tensor | None, conv.bias)
    if isinstance(norm, nn.Identity):
        return weight, bias
    if isinstance(norm, BatchNorm):
        mean, var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
        scale = norm.weight * (var + norm.eps).rsqrt()
        shift = norm.bias - mean * scale
    else:
        scale, shift = cast(Tensor, norm.weight), cast(Tensor, norm.bias)
    weight = weight * scale.view(-1, *(1,) * (weight.ndim - 1))
    return weight, shift if bias is None else shift + scale * bias


def convolve(x: Tensor, conv: nn.Module, weight: Tensor, bias: Tensor | None) -> Tensor:
    """`conv` with other weights: a convolution of the network, or a 1 x 1 x 1 of a non-local block."""
    return conv.convolve(x, weight, bias) if isinstance(conv, Conv3d) else pointwise(x, weight, bias)


def _expands(x: Tensor, conv: nn.Module, norm: nn.Module) -> bool:
    """Whether :class:`ExpandNorm` is for this layer: on a CPU in full precision, few channels to more of them."""
    if torch.compiler.is_compiling() or x.device.type != "cpu" or is_half(x) or not learns(norm):
        return False
    out, channels, *kernel = cast(Tensor, conv.weight).shape
    one = set(kernel) == {1} and set(cast(tuple[int, ...], conv.stride)) == {1}
    return one and channels < out and channels <= MOST_CHANNELS


def _expand(x: Tensor, conv: nn.Module, norm: BatchNorm, shortcut: Tensor | None, relu: bool) -> Tensor:
    bias = cast(Tensor | None, conv.bias)
    z, mean, var = ExpandNorm.apply(
        rows(x).flatten(0, -2), cast(Tensor, conv.weight).flatten(1), norm.weight, norm.bias, norm.eps,
        None if shortcut is None else rows(shortcut).flatten(0, -2), relu, bias,
    )  # fmt: skip
    with torch.no_grad():
        follow(norm, mean if bias is None else mean + bias, var, len(z))
    return from_rows(z.unflatten(0, rows(x).shape[:-1]))


TURNED = 8
"""Up to so many channels the transpose of their gradient is made and turned, in half the time (measured; 16: in 1.3 of
it)."""


class ExpandNorm(torch.autograd.Function):
    """z = relu(BN(x W^T) + shortcut) for rows x (M, C) and W (D, C), D > C, with BN's statistics of these M rows.

    With x centred and S = x^T x / M: y = x W^T has mean 0 and variance v = diag(W S W^T), so that

        z = relu(x (s W)^T + beta + shortcut),  s = gamma / sqrt(v + eps)

    is one matrix product. For d, the gradient of what the ReLU was given, and P = d^T x (which the gradient of W needs
    anyway), BN's own backward becomes products of small matrices; r / M is gamma's gradient over sqrt(v + eps) and M:

        dbeta = sum of d,  dgamma = diag(P W^T) / sqrt(v + eps),  dW = s (P - r W S)
        dx = d (s W) - x (W^T (s r / M) W) - (s dbeta / M) W

    A bias of the convolution is taken away by BN: its gradient is 0.
    """

    @staticmethod
    def forward(
        ctx: Any,
        x: Float[Tensor, "M C"],
        weight: Float[Tensor, "D C"],
        gamma: Float[Tensor, " D"],
        beta: Float[Tensor, " D"],
        eps: float,
        shortcut: Float[Tensor, "M D"] | None,
        relu: bool,
        bias: Float[Tensor, " D"] | None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return z, and the mean (without the bias) and variance (over M) of y."""
        mean = x.mean(0)
        x = x - mean
        spread = weight @ (x.mT @ x / len(x))  # W S
        var = (spread * weight).sum(1)
        inverse = (var + eps).rsqrt()
        s = gamma * inverse
        scaled = weight * s[:, None]
        z = torch.addmm(beta, x, scaled.mT) if shortcut is None else (shortcut + beta).addmm_(x, scaled.mT)
        if relu:
            z.relu_()
        ctx.save_for_backward(x, weight, spread, s, inverse, scaled, z if relu else None)
        ctx.has = shortcut is not None, bias is not None
        mean = weight @ mean
        ctx.mark_non_differentiable(mean, var)
        return z, mean, var

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dz: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, spread, s, inverse, scaled, z = ctx.saved_tensors
        shortcut, bias = ctx.has
        d = dz if z is None else torch.ops.aten.threshold_backward(dz, z, 0.0)
        p = (x.mT @ d).mT  # with the few channels first the library is up to five times as fast
        dbeta = d.sum(0)
        dgamma = inverse * (p * weight).sum(1)
        r = inverse * dgamma
        dweight = s[:, None] * (p - r[:, None] * spread)
        mixed = weight.mT @ ((r / len(x))[:, None] * scaled)
        constant = (dbeta / -len(x)) @ scaled
        if x.shape[1] <= TURNED:
            dx = torch.addmm(constant[:, None], scaled.mT, d.mT).addmm_(mixed.mT, x.mT, alpha=-1).mT.contiguous()
        else:
            dx = torch.addmm(constant, d, scaled).addmm_(x, mixed, alpha=-1)
        dbias = torch.zeros_like(dbeta) if bias else None
        return dx, dweight, dgamma, dbeta, None, d if shortcut else None, None, dbias
