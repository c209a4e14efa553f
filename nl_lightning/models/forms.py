"""Exact forms of Eq. (1), y_i = sum over j of f(x_i, x_j) g(x_j) / C(x), that never make the Q x K matrix of pairs.

- `attention`: the softmax of (embedded) Gaussian by torch's ``scaled_dot_product_attention``, which goes through the
  keys in blocks and keeps a running maximum and sum.
- `associated`: the dot product as theta (phi^T g) / N, O(N C^2), instead of (theta phi^T) g / N, O(N^2 C).
- `sorted`: concatenation's ReLU(a_i + b_j) is a_i + b_j for the j with the largest b_j, else 0. With b sorted once,
  prefix sums of g and b g answer every query by one look-up.
- `pairs`: the definition, where there are so few pairs that nothing is cheaper.

What each buys is in benchmarks/results, forms.md. Checked in the tests against the definition; NaN in is NaN out.
"""

import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import once_differentiable

from nl_lightning.models.conventions import Instantiation

Form = Literal["pairs", "attention", "associated", "sorted"]

FEW_KEYS = 400
"""Up to so many keys the matrix of ReLU(a_i + b_j) is cheaper than sorting (measured)."""

FEW_PAIRS = {"embedded_gaussian": 1 << 20, "gaussian": 1 << 25}
"""Up to so many pairs a CPU makes their matrix: in its caches that costs no more than going through it in blocks.
The Gaussian's limit is higher, as `attention` has to widen its g to the C channels of x (measured)."""

FEW_PAIRS_IN_HALF = 1 << 24
"""The same for half precision, where going through the blocks has half the speed of two matrix products (measured)."""

EXPORTED: dict[Instantiation, Form] = {
    "gaussian": "attention", "embedded_gaussian": "attention", "dot_product": "associated", "concatenation": "pairs",
}  # fmt: skip
"""For any number of positions: the sort of `sorted` would fix it."""


def form_of(
    instantiation: Instantiation, theta: Sequence[int], phi: Sequence[int], device: str = "cpu", half: bool = False
) -> Form:
    """The cheapest form for sets of these shapes, (N, S, Q, C) and (N, S, K, C), on a type of device.

    `half`: products are computed in half precision.
    """
    if torch.compiler.is_exporting():  # the numbers of clips and of positions may be left open
        return EXPORTED[instantiation]
    *sets, queries, channels = theta
    keys = phi[-2]
    if instantiation == "concatenation":
        return "sorted" if keys > FEW_KEYS else "pairs"
    if instantiation == "dot_product":
        return "associated" if (queries + keys) * channels < 2 * queries * keys else "pairs"
    most = max(FEW_PAIRS[instantiation], FEW_PAIRS_IN_HALF if half else 0)
    return "pairs" if device == "cpu" and math.prod(sets) * queries * keys <= most else "attention"


def attention(
    theta: Float[Tensor, "N S Q C"], phi: Float[Tensor, "N S K C"], g: Float[Tensor, "N S K V"], scale: float
) -> Float[Tensor, "N S Q V"]:
    """sum over j of softmax_j(scale theta_i . phi_j) g_j: Eq. (2) and (3).

    A whole test pass with a block in res2 (25,088 x 6,272 pairs) is 1.8 times as fast, in 1/13 of the memory.
    """
    if theta.device.type == "cpu":  # where every exponent is -inf, torch's kernel gives 0, and the definition NaN
        g = g + (0 * (_largest(theta) * _largest(phi) * theta.shape[-1])).to(g.dtype)
    wide = F.pad(g, (0, theta.shape[-1] - g.shape[-1]))  # the kernels want as many values as channels
    return F.scaled_dot_product_attention(theta, phi, wide, scale=scale)[..., : g.shape[-1]]


def _largest(x: Tensor) -> Tensor:
    """The largest absolute value, in single precision at least."""
    largest: Tensor = torch.linalg.vector_norm(x.detach(), math.inf)
    return largest.to(torch.promote_types(x.dtype, torch.float32))


def associated(
    theta: Float[Tensor, "*B Q C"], phi: Float[Tensor, "*B K C"], g: Float[Tensor, "*B K V"]
) -> Float[Tensor, "*B Q V"]:
    """theta (phi^T g) / N: Eq. (4) by associativity, 4 times as fast for a whole test pass with a block in res2.

    Half of 1 / N goes on each of phi and g. After the sum over N keys it would be too late for float16, and all of it
    on g would make some of g too small.
    """
    half: float = phi.shape[-2] ** -0.5
    return theta @ ((half * phi).mT @ (half * g))


def sorted_average(
    theta: Float[Tensor, "*B Q C"], phi: Float[Tensor, "*B K C"], g: Float[Tensor, "*B K V"], w_f: Float[Tensor, "2*C"]
) -> Float[Tensor, "*B Q V"]:
    """sum over j of ReLU(a_i + b_j) g_j / N, a_i + b_j = w_f . [theta_i, phi_j]: Eq. (5), in the dtype of g.

    A whole test pass with a block in res2 is 3.5 times as fast. Sums are at least float32, whatever autocast says.
    """
    kind = g.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        wide = torch.promote_types(g.dtype, torch.float32)
        w_theta, w_phi = w_f.to(wide).chunk(2)
        a, b = theta.to(wide) @ w_theta, phi.to(wide) @ w_phi
        y: Tensor = SortedReLU.apply(a, b, g.to(wide) / g.shape[-2])
        return y.to(g.dtype)


class SortedReLU(torch.autograd.Function):
    """sum over j of ReLU(a_i + b_j) v_j for all i, in O((Q + K) (log K + V)) time and O((Q + K) V) memory.

    The j with a_i + b_j > 0 are the first n_i of the keys sorted by falling b, so that the sum is

        a_i G(n_i) + H(n_i),   G(n) = sum of the first n of v_j,   H(n) = sum of the first n of b_j v_j

    and n_i is one binary search. Its gradients are sums of the same kind. For v_j the roles of i and j are swapped: the
    i with b_j + a_i > 0 are the first of the queries sorted by falling a. For a_i it is dy_i . G(n_i). For b_j it is
    v_j . (the sum of dy_i over those i). Differentiable once.
    """

    @staticmethod
    def forward(ctx: Any, a: Float[Tensor, "*B Q"], b: Float[Tensor, "*B K"], v: Float[Tensor, "*B K V"]) -> Tensor:
        y, over_keys = _sums(a, b, v)
        ctx.save_for_backward(a, b, v, over_keys)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, dy: Float[Tensor, "*B Q V"]) -> tuple[Tensor, Tensor, Tensor]:
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
    sums = _prefix_sums(v)
    alone = _rows_of(sums, count)
    weighted = _rows_of(_prefix_sums(b[..., None] * v), count)
    lost = 0 * sums[..., -1:, :]  # NaN where a v_j is NaN or infinite: 0 times it is NaN in the definition
    return weighted.addcmul_(a[..., None], alone).add_(lost), alone


def _prefix_sums(v: Float[Tensor, "*B K V"]) -> Float[Tensor, "*B K+1 V"]:
    """Sums of the first 0, 1, ... K rows. (torch adds float32 up in float64 here.)"""
    return torch.cumsum(F.pad(v, (0, 0, 1, 0)), dim=-2)


def _rows_of(v: Float[Tensor, "*B K V"], index: Int[Tensor, "*B Q"]) -> Float[Tensor, "*B Q V"]:
    """Rows by their numbers in each of the B matrices; whole rows are copied at once."""
    rows = v.flatten(0, -2)
    first = torch.arange(0, len(rows), v.shape[-2], device=v.device).view(*v.shape[:-2], 1)
    return F.embedding(index + first, rows)
