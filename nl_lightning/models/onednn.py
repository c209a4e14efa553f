"""A convolution, its bias, a shortcut and a ReLU as one pass over memory, for testing on a CPU.

oneDNN, the library by which torch convolves on a CPU, can do the sum and the ReLU while the convolution's output is
still in the caches, with a weight that is laid out once. The operators are those that torch.compile calls on a CPU, for
float32 and, where the processor has instructions for it, bf16. They have no gradient.
Checked in the tests against torch's convolution, sum and ReLU, one after the other.
"""

import functools

import torch
from torch import Tensor, nn

from nl_lightning.models.folded import POSITIONS, Conv3d, Fold

OPERATORS = ("_convolution_pointwise", "_reorder_convolution_weight", "_is_mkldnn_bf16_supported")


@functools.cache
def supports(device: str, dtype: torch.dtype) -> bool:
    """Whether the operators are there for a type of device, ``cpu`` or another, and a precision."""
    if device != "cpu" or not torch._C._has_mkldnn:
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in OPERATORS):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())


def pack(conv: nn.Module, weight: Tensor, x: Tensor) -> Tensor:
    """A weight of `conv` laid out as is best for inputs of x's shape; it is right for inputs of any other, too."""
    fold, stride, padding = _fold_of(conv)
    shape = list(fold.image(_kept_frames(conv, x)).shape)
    packed: Tensor = torch.ops.mkldnn._reorder_convolution_weight(
        fold.kernel(weight), padding, stride, [1] * len(stride), 1, shape
    )
    return packed


def convolve(
    x: Tensor, conv: nn.Module, packed: Tensor, bias: Tensor | None, shortcut: Tensor | None, relu: bool
) -> Tensor:
    """relu(conv(x) + shortcut), with a packed weight and a bias for `conv`, in their precision."""
    fold, stride, padding = _fold_of(conv)
    x = _kept_frames(conv, x).to(packed.dtype)
    geometry = padding, stride, [1] * len(stride), 1
    operator = torch.ops.mkldnn._convolution_pointwise
    if shortcut is None:
        y = operator(fold.image(x), packed, bias, *geometry, "relu" if relu else "none", [], "")
    else:
        after = "relu" if relu else None
        other = fold.image(shortcut.to(packed.dtype))
        y = operator.binary(fold.image(x), other, packed, bias, *geometry, "add", 1.0, after, [], None)
    return fold.back(y, x)


def _fold_of(conv: nn.Module) -> tuple[Fold, list[int], list[int]]:
    """Of a convolution of the network, or of a 1 x 1 x 1 of a non-local block, of any number of dimensions."""
    return conv.fold() if isinstance(conv, Conv3d) else (POSITIONS, [1, 1], [0, 0])


def _kept_frames(conv: nn.Module, x: Tensor) -> Tensor:
    return conv.kept_frames(x) if isinstance(conv, Conv3d) else x
