"""The non-local operation of Eq. (1), y_i = sum over j of f(x_i, x_j) g(x_j) / C(x), without the N x N matrix.

Each form below is exact: equal to building f / C for all pairs and multiplying by g, in another order.

- `attention`: the softmax of (embedded) Gaussian by ``scaled_dot_product_attention``, which goes through the keys in
  blocks and keeps a running maximum and sum; Gaussian averages the keys themselves and embeds the average by g,
  because the rows of a softmax sum to 1.
- `associated`: theta (phi^T g) / N instead of (theta phi^T) g / N, O(N C^2) instead of O(N^2 C).
- `sorted`: ReLU(a_i + b_j) is a_i + b_j for the j with the largest b_j, else 0: with b sorted once, prefix
  sums of g and b g answer every query by one look-up, see :mod:`nl_lightning.models.sorted_relu`.
- `pairs`: the definition, where the matrix of all pairs is so small that nothing is cheaper.

Which one is taken is a function of the sizes, the device and the precision, :func:`form_of`. Checked in the tests against the definition.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nl_lightning.conventions import Instantiation
from nl_lightning.models.sorted_relu import sorted_relu

Form = Literal["pairs", "attention", "associated", "sorted"]

FEW_KEYS = 400
"""Up to so many keys the matrix of ReLU(a_i + b_j) is cheaper than sorting (measured)."""

FEW_PAIRS = {"embedded_gaussian": 1 << 20, "gaussian": 1 << 25}
"""Up to so many pairs in all a CPU makes their matrix: in the caches it costs no more than going through it in blocks.
The Gaussian's limit is higher, as averaging keys instead of g doubles the work."""

FEW_PAIRS_IN_HALF = 1 << 24
"""The same for half precision, where torch goes through the blocks at half the speed of two matrix products (measured
without AMX). Above it the matrix, 32 MiB, costs more memory than time is worth."""


@dataclass(frozen=True)
class Sizes:
    """How much there is to do.

    Attributes:
        sets: of positions that are compared among themselves.
        queries, keys: positions i and j of each set.
        channels: of theta and phi.
        values: channels of g.
    """

    sets: int
    queries: int
    keys: int
    channels: int
    values: int


def form_of(instantiation: Instantiation, sizes: Sizes, device: str = "cpu", half: bool = False) -> Form:
    """The cheapest exact form on a type of device, ``cpu`` or ``cuda``, for products in single or in half precision."""
    if instantiation == "dot_product":
        cost = costs(sizes)
        return "associated" if cost["associated"] <= cost["pairs"] else "pairs"
    if instantiation == "concatenation":
        return "pairs" if sizes.keys <= FEW_KEYS else "sorted"
    most = max(FEW_PAIRS[instantiation], FEW_PAIRS_IN_HALF if half else 0)
    few = sizes.sets * sizes.queries * sizes.keys <= most
    return "pairs" if device == "cpu" and few else "attention"


def costs(sizes: Sizes) -> dict[str, int]:
    """Multiply-adds of the matrix products of dot product's two forms."""
    q, k, c, v = sizes.queries, sizes.keys, sizes.channels, sizes.values
    return {"pairs": sizes.sets * q * k * (c + v), "associated": sizes.sets * (q + k) * c * v}


def softmax_average(
    theta: Float[Tensor, "N S Q C"], phi: Float[Tensor, "N S K C"], values: Float[Tensor, "N S K V"], scale: float
) -> Float[Tensor, "N S Q V"]:
    """sum over j of softmax_j(scale theta_i . phi_j) v_j: Eq. (2) and (3), never holding Q x K numbers if V = C.

    N clips of S sets of positions each, of any strides.
    """
    return F.scaled_dot_product_attention(theta, phi, values, scale=scale)


def associated(
    theta: Float[Tensor, "*B Q C"], phi: Float[Tensor, "*B K C"], g: Float[Tensor, "*B K V"]
) -> Float[Tensor, "*B Q V"]:
    """theta (phi^T g) / N: Eq. (4) by associativity. 1 / N goes on the smallest factor."""
    return theta @ (phi.mT @ g / phi.shape[-2])


def relu_average(
    a: Float[Tensor, "*B Q"], b: Float[Tensor, "*B K"], g: Float[Tensor, "*B K V"], form: Form
) -> Float[Tensor, "*B Q V"]:
    """sum over j of ReLU(a_i + b_j) g_j / N: Eq. (5), where a_i + b_j = w_f . [theta_i, phi_j]."""
    if form == "sorted":
        return sorted_relu(a, b, g)
    return torch.relu(a[..., :, None] + b[..., None, :]) @ (g / g.shape[-2])
