"""sum over j of ReLU(a_i + b_j) v_j for all i, in O((Q + K) log K + (Q + K) V) time and O((Q + K) V) memory.

The j with a_i + b_j > 0 are the first n_i of the keys sorted by falling b, so that the sum is

    a_i G(n_i) + H(n_i),   G(n) = sum of the first n of v_j,   H(n) = sum of the first n of b_j v_j

and n_i is one binary search. Its gradients are sums of the same kind: for v_j the roles of i and j are swapped (the i
with b_j + a_i > 0 are the first of the queries sorted by falling a), for a_i it is dy_i . G(n_i), for b_j it is
v_j . (the sum of dy_i over those i). Checked in the tests against the definition and by gradcheck.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable


def sorted_relu(a: Float[Tensor, "*B Q"], b: Float[Tensor, "*B K"], v: Float[Tensor, "*B K V"]) -> Tensor:
    """Return the mean over j, (*B, Q, V), in the dtype of `v`; sums are at least float32, whatever autocast says."""
    with torch.autocast(v.device.type, enabled=False):
        wide = torch.promote_types(v.dtype, torch.float32)
        y: Tensor = SortedReLU.apply(a.to(wide), b.to(wide), v.to(wide) / v.shape[-2])  # type: ignore[no-untyped-call]
        return y.to(v.dtype)


class SortedReLU(torch.autograd.Function):
    """See the module. Differentiable once."""

    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor, v: Tensor) -> Tensor:
        y, over_keys = _sums(a, b, v)
        ctx.save_for_backward(a, b, v, over_keys)
        return y

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        a, b, v, over_keys = ctx.saved_tensors
        dv, over_queries = _sums(b, a, dy)
        return (dy * over_keys).sum(-1), (v * over_queries).sum(-1), dv


def _sums(
    a: Float[Tensor, "*B Q"], b: Float[Tensor, "*B K"], v: Float[Tensor, "*B K V"]
) -> tuple[Float[Tensor, "*B Q V"], Float[Tensor, "*B Q V"]]:
    """For each i, the sum of (a_i + b_j) v_j and that of v_j, over the j with a_i + b_j > 0."""
    order = b.argsort(dim=-1, descending=True)
    b = b.gather(-1, order)
    count = torch.searchsorted(-b, a.contiguous())  # of the j with -b_j < a_i
    middle = b.mean(dim=-1, keepdim=True)  # a_i + b_j is the same, but large parts of a and b that cancel are gone
    a, b = a + middle, b - middle
    v = _rows_of(v, order)
    alone = _rows_of(_prefix_sums(v), count)
    weighted = _rows_of(_prefix_sums(b[..., None] * v), count)
    return weighted.addcmul_(a[..., None], alone), alone


def _prefix_sums(v: Float[Tensor, "*B K V"]) -> Float[Tensor, "*B K+1 V"]:
    """Sums of the first 0, 1, ... K rows. (torch adds float32 up in float64 here.)"""
    sums = v.new_zeros(*v.shape[:-2], v.shape[-2] + 1, v.shape[-1])
    torch.cumsum(v, dim=-2, out=sums[..., 1:, :])
    return sums


def _rows_of(v: Float[Tensor, "*B K V"], index: Int[Tensor, "*B Q"]) -> Float[Tensor, "*B Q V"]:
    """Rows by their numbers in each of the B matrices; whole rows are copied at once."""
    rows = v.flatten(0, -2)
    first = torch.arange(0, len(rows), v.shape[-2], device=v.device).view(*v.shape[:-2], 1)
    return F.embedding(index + first, rows)
