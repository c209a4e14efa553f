"""The non-local operation of Eq. (1), y_i = sum over j of f(x_i, x_j) g(x_j) / C(x), without the N x N matrix.

Each form below is exact: equal to building f / C for all pairs and multiplying by g, in another order.

- `attention`: the softmax of (embedded) Gaussian by ``scaled_dot_product_attention``, which goes through the keys in
  blocks and keeps a running maximum and sum; Gaussian averages the keys themselves and embeds the average by g,
  because the rows of a softmax sum to 1.
- `associated`: theta (phi^T g) / N instead of (theta phi^T) g / N, O(N C^2) instead of O(N^2 C).
- `sorted`: ReLU(a_i + b_j) is a_i + b_j for the j with the largest b_j, else 0: with b sorted once, prefix
  sums of g and b g answer every query by one look-up, see :mod:`nl_lightning.models.sorted_relu`.
- `pairs`: the definition, where the matrix of all pairs is so small that nothing is cheaper.

Two more compute W_z y of Eq. (6) at once, because W_theta and W_z are linear:

- `keys`: pairs, with both matrices carried over to the keys, of which subsampling leaves a quarter:
  theta_i . phi_j = x_i . (W_theta^T phi_j) + b_theta . phi_j, and W_z sum over j of f g_j = sum over j of f (W_z g_j).
- `map`: the dot product's W_z y_i = (W_z g^T phi W_theta / N) x_i, a 1 x 1 x 1 convolution of x whose weight is a
  function of x.

Which one is taken is a function of the sizes, the device and the precision, :func:`form_of`. Checked in the tests
against the definition.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from nl_lightning.models.conventions import Instantiation
from nl_lightning.models.sorted_relu import sorted_relu

Form = Literal["pairs", "keys", "attention", "associated", "map", "sorted"]

OF_Y: dict[Form, Form] = {"keys": "pairs", "map": "associated"}
"""The forms that compute W_z y, and what each is without W_z."""

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
        features: channels of x.
    """

    sets: int
    queries: int
    keys: int
    channels: int
    values: int
    features: int


def form_of(instantiation: Instantiation, sizes: Sizes, device: str = "cpu", half: bool = False) -> Form:
    """The cheapest exact form on a type of device, ``cpu`` or ``cuda``, for products in single or in half precision."""
    cost = costs(instantiation, sizes)
    if instantiation == "concatenation" and sizes.keys > FEW_KEYS:
        return "sorted"
    if instantiation in FEW_PAIRS:
        most = max(FEW_PAIRS[instantiation], FEW_PAIRS_IN_HALF if half else 0)
        if device != "cpu" or sizes.sets * sizes.queries * sizes.keys > most:
            return "attention"
    return min(cost, key=cost.__getitem__)


def costs(instantiation: Instantiation, sizes: Sizes) -> dict[Form, int]:
    """Multiply-adds of theta, f, the average of g and W_z, in the forms that are nothing but matrix products."""
    q, k, d, c = sizes.queries, sizes.keys, sizes.values, sizes.features
    embeds = instantiation in ("embedded_gaussian", "dot_product")
    f = 0 if instantiation == "concatenation" else sizes.channels
    f_of_keys = 0 if instantiation == "concatenation" else c
    found: dict[Form, int] = {
        "pairs": q * c * d * embeds + q * k * (f + d) + q * d * c,
        "keys": k * d * c * embeds + q * k * (f_of_keys + c) + k * d * c,
    }
    if instantiation == "dot_product":
        found["associated"] = q * c * d + (q + k) * d * d + q * d * c
        found["map"] = k * d * d + c * d * d + c * d * c + q * c * c
    return {form: sizes.sets * cost for form, cost in found.items()}


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


def similarity_by_keys(
    x: Float[Tensor, "*B Q C"],
    phi: Float[Tensor, "*B K D"],
    weight: Float[Tensor, "D C"],
    bias: Float[Tensor, " D"],
    scale: float,
) -> Float[Tensor, "*B Q K"]:
    """scale theta_i . phi_j without theta = weight x + bias."""
    phi = scale * phi
    return x @ (phi @ weight).mT + (phi @ bias)[..., None, :]


def product_map(
    phi: Float[Tensor, "*B K D"],
    g: Float[Tensor, "*B K D"],
    weight: Float[Tensor, "D C"],
    bias: Float[Tensor, " D"],
    w_z: Float[Tensor, "C D"],
) -> tuple[Float[Tensor, "*B C C"], Float[Tensor, "*B 1 C"]]:
    """The matrix M and the vector m by which W_z y_i = x_i M + m, for the dot product and theta = weight x + bias."""
    rest = (phi.mT @ g / phi.shape[-2]) @ w_z.mT  # (*B, D, C)
    return weight.mT @ rest, bias[None] @ rest


def relu_average(
    a: Float[Tensor, "*B Q"], b: Float[Tensor, "*B K"], g: Float[Tensor, "*B K V"], form: Form
) -> Float[Tensor, "*B Q V"]:
    """sum over j of ReLU(a_i + b_j) g_j / N: Eq. (5), where a_i + b_j = w_f . [theta_i, phi_j]."""
    if form == "sorted":
        return sorted_relu(a, b, g)
    f = torch.relu(a[..., :, None] + b[..., None, :])
    return f.to(g.dtype) @ (g / g.shape[-2])  # a and b are in single precision, whatever g is in
