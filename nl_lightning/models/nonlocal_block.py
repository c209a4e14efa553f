"""The non-local block: Eq. (1)-(6) of "Non-local Neural Networks" (Wang et al., CVPR 2018).

    y_i = 1 / C(x)  sum over j of  f(x_i, x_j) g(x_j)                                           (1)
    z_i = W_z y_i + x_i                                                                        (6)

i is a position (in space, time or spacetime) of a feature map, and j runs over all positions. The four
instantiations of f are four functions below, each returning f(x_i, x_j) / C(x) for every pair.
Checked in the tests against the double loop over i and j in float64, for every instantiation, mode and dimension.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nl_lightning.errors import UserError
from nl_lightning.models.affine import Affine
from nl_lightning.models.conv_norm import conv_norm, norm_of, watched
from nl_lightning.models.conventions import INSTANTIATIONS, SUM_OVER, Conventions, Instantiation, SumOver
from nl_lightning.models.folded import MaxPool3d, from_rows, pointwise, rows
from nl_lightning.models.operation import (
    OF_Y,
    Form,
    Sizes,
    associated,
    form_of,
    product_map,
    relu_average,
    similarity_by_keys,
    softmax_average,
)
from nl_lightning.models.precision import is_half, no_autocast


# Keys are pooled when they are subsampled, so there may be fewer of them (K) than queries (Q).
def gaussian(x: Float[Tensor, "*B Q C"], keys: Float[Tensor, "*B K C"], scale: float) -> Float[Tensor, "*B Q K"]:
    """f = exp(x_i . x_j), C = sum over j of f: Eq. (2). Together: a softmax over j."""
    return torch.softmax(scale * x @ keys.mT, dim=-1)


def embedded_gaussian(
    theta: Float[Tensor, "*B Q C"], phi: Float[Tensor, "*B K C"], scale: float
) -> Float[Tensor, "*B Q K"]:
    """f = exp(theta_i . phi_j), C = sum over j of f: Eq. (3), the self-attention of a Transformer."""
    return gaussian(theta, phi, scale)


def dot_product(theta: Float[Tensor, "*B Q C"], phi: Float[Tensor, "*B K C"]) -> Float[Tensor, "*B Q K"]:
    """f = theta_i . phi_j, C = N, the number of positions j: Eq. (4)."""
    return theta @ phi.mT / phi.shape[-2]


def concatenation(
    theta: Float[Tensor, "*B Q C"], phi: Float[Tensor, "*B K C"], w_f: Float[Tensor, "2*C"]
) -> Float[Tensor, "*B Q K"]:
    """f = ReLU(w_f . [theta_i, phi_j]), C = N: Eq. (5).

    w_f . [theta_i, phi_j] is a sum of one number for i and one for j, so the pairs of vectors are never built.
    """
    w_theta, w_phi = w_f.chunk(2)
    a = theta @ w_theta  # (*B, Q)
    b = phi @ w_phi  # (*B, K)
    return torch.relu(a[..., :, None] + b[..., None, :]) / phi.shape[-2]


@dataclass(frozen=True)
class NonLocalConfig:
    """Which non-local blocks a network has: the part of a variant that Table 2a-2d vary.

    Attributes:
        placement: for each stage, the residual blocks (from 0) that a non-local block follows, after their ReLU.
        instantiation: the pairwise function f.
        sum_over: which positions j a position i is compared with: all (``spacetime``), those of its own frame
            (``space``), or its own place in all frames (``time``).
        subsample: max-pool phi and g by 2 x 2 in space, which leaves a quarter of the pairs (Sec. 3.3).
    """

    placement: dict[str, list[int]]
    instantiation: Instantiation = "embedded_gaussian"
    sum_over: SumOver = "spacetime"
    subsample: bool = True

    def __post_init__(self) -> None:
        _one_of("instantiation", self.instantiation, INSTANTIATIONS)
        _one_of("sum_over", self.sum_over, SUM_OVER)


def _one_of(key: str, value: str, known: tuple[str, ...]) -> None:
    if value not in known:
        raise UserError(f"{key}: expected one of {', '.join(known)}, not {value!r}")


class NonLocalBlock(nn.Module):
    """A non-local operation wrapped into a residual block, Eq. (6) and Fig. 2.

    Args:
        channels: C of the input. theta, phi and g map to C / 2 channels (Sec. 3.3).
        instantiation, sum_over, subsample: see :class:`NonLocalConfig`.
        dimensions: 3 for a video (T, H, W), 2 for an image (H, W), 1 for a sequence (L). The positions of an image
            or a sequence are all space, and `sum_over` can't be ``time`` there.
        conventions: where the paper and the released code differ.

    Time-only blocks never subsample: j is i's own place in other frames, and a pooled map has no such place. (The
    paper doesn't say how the two go together, and the released code has no time-only block.)
    """

    def __init__(
        self,
        channels: int,
        instantiation: Instantiation = "embedded_gaussian",
        sum_over: SumOver = "spacetime",
        subsample: bool = True,
        dimensions: int = 3,
        conventions: Conventions = Conventions(),  # noqa: B008 - frozen
    ) -> None:
        super().__init__()
        _one_of("instantiation", instantiation, INSTANTIATIONS)
        if sum_over == "time" and dimensions != 3:
            raise UserError(f"sum_over: a block over {dimensions}-D input has no time to sum over")
        conv, norm, pool = {
            1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d(2)),
            2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d(2)),
            3: (nn.Conv3d, nn.BatchNorm3d, MaxPool3d((1, 2, 2), (1, 2, 2), padded=False)),
        }[dimensions]
        self.instantiation, self.sum_over, self.rules = instantiation, sum_over, conventions.rules
        self.dim_inner = max(1, channels // 2)

        self.g = conv(channels, self.dim_inner, 1)
        if instantiation != "gaussian":  # Gaussian compares x with itself
            self.theta = conv(channels, self.dim_inner, 1)
            self.phi = conv(channels, self.dim_inner, 1)
        if instantiation == "concatenation":
            self.w_f = nn.Parameter(torch.empty(2 * self.dim_inner))
        self.W_z = conv(self.dim_inner, channels, 1)
        norms = {"batch": norm, "affine": Affine, "none": nn.Identity}
        self.bn: nn.Module = norms[self.rules.nonlocal_norm](channels)
        self.pool: nn.Module = pool if subsample and sum_over != "time" else nn.Identity()
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """He initialisation (paper, Sec. 4) or a Gaussian of 0.01 (release); the block starts as the identity."""
        for name, parameter in self.named_parameters():
            if name.startswith("bn."):
                continue
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif self.rules.nonlocal_init == "gaussian":
                nn.init.normal_(parameter, std=0.01)
            else:
                # w_f maps 2C channels to one; kaiming_normal_ needs it as a matrix.
                nn.init.kaiming_normal_(parameter if parameter.ndim > 1 else parameter[None], mode="fan_in")
        if isinstance(self.bn, nn.modules.batchnorm._BatchNorm):
            nn.init.constant_(self.bn.weight, self.rules.nonlocal_gamma)
        else:  # a scale that doesn't learn would keep a zero for ever
            nn.init.zeros_(self.W_z.weight)

    def forward(self, x: Float[Tensor, "N C *positions"]) -> Float[Tensor, "N C *positions"]:
        """Return z of Eq. (6), by the cheapest exact form for these sizes, see :mod:`nl_lightning.models.operation`."""
        form = self._form(x)
        if form not in OF_Y:
            return conv_norm(self.operation(x), self.W_z, self.bn, shortcut=x, relu=False)
        return norm_of(partial(self._w_z_of_y, x, form), self.W_z, self.bn, shortcut=x)

    def by_definition(self, x: Float[Tensor, "N C *positions"]) -> Float[Tensor, "N C *positions"]:
        """The same z, with f(x_i, x_j) / C(x) built for all pairs: what every fast form is checked against."""
        return conv_norm(self.definition(x), self.W_z, self.bn, shortcut=x, relu=False)

    def operation(self, x: Float[Tensor, "N C *positions"]) -> Float[Tensor, "N D *positions"]:
        """Return y of Eq. (1), by a form that makes y."""
        form = self._form(x)
        form = OF_Y.get(form, form)
        if form == "pairs" and (self.instantiation != "concatenation" or self._is_watched):
            return self.definition(x)  # concatenation has a shorter way to its pairs, if nobody wants every map
        if self.instantiation == "concatenation":
            a, b, g = self._projections(x)
            y = relu_average(a, b, g, form)
        elif self.instantiation == "gaussian":
            y = self._average_of_keys(x)
        else:
            theta, phi, g = map(self._sets, self.embed(x))
            dot = self.instantiation == "dot_product"
            y = associated(theta, phi, g) if dot else softmax_average(theta, phi, g, self._scale)
        return self._restore(y, x)

    def definition(self, x: Float[Tensor, "N C *positions"]) -> Float[Tensor, "N D *positions"]:
        """The same y, with f(x_i, x_j) / C(x) built for all pairs."""
        theta, phi, g = map(self._sets, self.embed(x))
        return self._restore(self.pairwise(theta, phi) @ g, x)

    def _w_z_of_y(self, x: Tensor, form: Form, weight: Tensor, bias: Tensor | None) -> Tensor:
        """W_z y, with the weight and bias of W_z, in which BN may be folded, by a form that needs no y."""
        w_z = weight.flatten(1)
        queries = self._sets(x)
        if form == "map":
            phi, g = map(self._sets, self._embedded_keys(x))
            matrix, vector = product_map(phi, g, *self._w_theta, w_z)
            y = queries @ matrix
            bias = vector if bias is None else vector + bias
        elif self.instantiation == "concatenation":
            a, b, g = self._projections(x)
            y = relu_average(a, b, F.linear(g, w_z), "pairs")
        else:
            phi, g = map(self._sets, self._embedded_keys(x))
            y = self._pairwise_by_keys(queries, phi) @ F.linear(g, w_z)
        return self._restore(y if bias is None else y.add_(bias), x)

    def _pairwise_by_keys(self, queries: Float[Tensor, "*B Q C"], phi: Float[Tensor, "*B K D"]) -> Tensor:
        """:meth:`pairwise`, with W_theta carried over to the keys."""
        if self.instantiation == "gaussian":
            return gaussian(queries, phi, self._scale)
        dot = self.instantiation == "dot_product"
        scale = 1 / phi.shape[-2] if dot else self._scale
        f = similarity_by_keys(queries, phi, *self._w_theta, scale)
        return f if dot else torch.softmax(f, dim=-1)

    @property
    def _w_theta(self) -> tuple[Tensor, Tensor]:
        """W_theta (D, C) and its bias."""
        theta: Any = self.theta
        return theta.weight.flatten(1), theta.bias

    @property
    def _is_watched(self) -> bool:
        """Whether somebody watches a layer by a hook, and so wants every map: the definition makes them."""
        return any(map(watched, self.children()))

    def _form(self, x: Tensor) -> Form:
        return "pairs" if self._is_watched else self.form(x.shape, x.device.type, is_half(x))

    def form(self, shape: Sequence[int], device: str = "cpu", half: bool = False) -> Form:
        """The form of the operation that is taken for an input of this shape on a type of device, see `form_of`."""
        return form_of(self.instantiation, self.sizes(shape), device, half)

    def sizes(self, shape: Sequence[int]) -> Sizes:
        """How many positions are compared for an input (N, C, ...) of this shape."""
        n, channels, *positions = shape
        pooled = [1, 2, 2][-len(positions) :] if not isinstance(self.pool, nn.Identity) else [1] * len(positions)
        keys = [size // factor for size, factor in zip(positions, pooled, strict=True)]
        sets = 1
        if self.sum_over == "space" and len(positions) == 3:
            sets, positions, keys = positions[0], positions[1:], keys[1:]
        elif self.sum_over == "time":
            sets, positions, keys = positions[1] * positions[2], positions[:1], keys[:1]
        inner = channels if self.instantiation == "gaussian" else self.dim_inner
        return Sizes(n * sets, math.prod(positions), math.prod(keys), inner, self.dim_inner, channels)

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """theta(x), phi(x) and g(x), the last two subsampled."""
        theta = x if self.instantiation == "gaussian" else _pointwise(self.theta, x)
        return theta, *self._embedded_keys(x)

    def _embedded_keys(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """phi(x) and g(x), subsampled."""
        keys = self._keys(x)
        phi = keys if self.instantiation == "gaussian" else _pointwise(self.phi, keys)
        g = _pointwise(self.g, keys)
        return (self.pool(phi), self.pool(g)) if self.rules.subsample == "after" else (phi, g)

    @property
    def _pools_after(self) -> bool:
        """Whether phi(x) and g(x) are subsampled, and not x."""
        return self.rules.subsample == "after" and not isinstance(self.pool, nn.Identity)

    def _keys(self, x: Tensor) -> Tensor:
        """What phi and g are given: x, subsampled if that comes first."""
        pooled: Tensor = self.pool(x) if self.rules.subsample == "before" else x
        return pooled

    def pairwise(self, theta: Tensor, phi: Tensor) -> Tensor:
        """f(x_i, x_j) / C(x) for the queries and keys of each of B independent sets of positions."""
        if self.instantiation == "dot_product":
            return dot_product(theta, phi)
        if self.instantiation == "concatenation":
            return concatenation(theta, phi, self.w_f)
        return embedded_gaussian(theta, phi, self._scale)

    @property
    def _scale(self) -> float:
        """Of the exponent: 1, or one over the root of theta's channels."""
        channels = self.W_z.weight.shape[0] if self.instantiation == "gaussian" else self.dim_inner
        return float(channels**-0.5) if self.rules.scale else 1.0

    def _projections(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """a_i = w_theta . theta_i and b_j = w_phi . phi_j, of one channel each, and g.

        w_theta . (W_theta x_i + bias) is one vector times x_i, so that the map theta is never made; nor is phi, unless
        a maximum is taken over it.
        """
        w_theta, w_phi = self.w_f.chunk(2)
        keys = self._keys(x)
        g = _pointwise(self.g, keys)
        if self._pools_after:
            g = self.pool(g)
            b = _projected(self.pool(_pointwise(self.phi, x)), w_phi[None], None)
        else:
            b = _projected(keys, *_collapsed(self.phi, w_phi))
        a = _projected(x, *_collapsed(self.theta, w_theta))
        return self._sets(a).squeeze(-1), self._sets(b).squeeze(-1), self._sets(g)

    def _average_of_keys(self, x: Tensor) -> Tensor:
        """The Gaussian's y without pairs: the average of keys, then g; of g itself where it was pooled after."""
        keys = self._keys(x)
        theta = self._sets(x)
        if self._pools_after:
            phi, g = self._sets(self.pool(keys)), self._sets(self.pool(_pointwise(self.g, keys)))
            wide = F.pad(g, (0, theta.shape[-1] - g.shape[-1]))  # the kernels want as many values as channels
            return softmax_average(theta, phi, wide, self._scale)[..., : g.shape[-1]]
        phi = self._sets(keys)
        average = softmax_average(theta, phi, phi, self._scale)
        return F.linear(average, self.g.weight.flatten(1), self.g.bias)

    def _sets(self, x: Tensor) -> Float[Tensor, "N S P C"]:
        """(N, C, ...) as S sets of P positions that are compared among themselves; a view of a channels-last map."""
        channels = rows(x)  # (N, ..., C)
        if self.sum_over == "space" and x.ndim == 5:
            return channels.flatten(2, 3)  # (N, T, H W, C)
        if self.sum_over == "time":
            return channels.flatten(2, 3).transpose(1, 2)  # (N, H W, T, C)
        return channels.flatten(1, -2)[:, None]  # (N, 1, T H W, C)

    def _restore(self, y: Float[Tensor, "N S P C"], like: Tensor) -> Tensor:
        """Undo :meth:`_sets` for a map of the size of `like`."""
        if self.sum_over == "time":
            y = y.transpose(1, 2)
        return from_rows(y.reshape(like.shape[0], *like.shape[2:], y.shape[-1]))


NO_NORM = nn.Identity()  # always the same one, by which a packed weight is known again


def _pointwise(conv: nn.Module, x: Tensor) -> Tensor:
    """A 1 x 1 x 1 convolution of any number of dimensions."""
    return conv_norm(x, conv, NO_NORM, relu=False)


def _projected(x: Tensor, weight: Float[Tensor, "1 C"], bias: Float[Tensor, " 1"] | None) -> Tensor:
    """One number for each position; at least in single precision, as a_i + b_j decides which pairs count at all."""
    wide = torch.promote_types(x.dtype, torch.float32)
    with no_autocast(x):
        return pointwise(x.to(wide), weight.to(wide), None if bias is None else bias.to(wide))


def _collapsed(conv: nn.Module, w: Float[Tensor, " D"]) -> tuple[Tensor, Tensor]:
    """Weight (1, C) and bias (1,) of x -> w . conv(x)."""
    weight: Any = conv.weight
    bias: Any = conv.bias
    with no_autocast(w):
        return (w @ weight.flatten(1))[None], (w @ bias)[None]
