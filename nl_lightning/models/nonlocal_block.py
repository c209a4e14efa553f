"""The non-local block: Eq. (1)-(6) of "Non-local Neural Networks" (Wang et al., CVPR 2018), as the paper writes them.

    y_i = 1 / C(x)  sum over j of  f(x_i, x_j) g(x_j)                                           (1)
    z_i = W_z y_i + x_i                                                                        (6)

i is a position (in space, time or spacetime) of a feature map, and j runs over all positions. The four
instantiations of f are four functions below, each returning f(x_i, x_j) / C(x) for every pair. g is one 1 x 1
convolution for all of them.

With ``kernels: definition`` a network is computed by this file. By default :mod:`nl_lightning.models.fast` computes
the same numbers in other orders. Checked in the tests against the double loop over i and j in float64.
"""

from dataclasses import dataclass
from typing import SupportsIndex

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import INSTANTIATIONS, SUM_OVER, Conventions, Instantiation, SumOver


# Subsampling (Sec. 3.3) pools the positions j, called keys (K), and not the positions i, called queries (Q).
# theta and phi are theta(x_i) and phi(x_j) for all positions. C is the number of their channels, and C(x) the factor.
def gaussian(x: Float[Tensor, "*B Q C"], keys: Float[Tensor, "*B K C"], scale: float) -> Float[Tensor, "*B Q K"]:
    """f = exp(x_i . x_j), C = sum over j of f: Eq. (2). f / C is a softmax over j; scale is 1 in the paper."""
    return torch.softmax(scale * x @ keys.mT, dim=-1)


def embedded_gaussian(
    theta: Float[Tensor, "*B Q C"], phi: Float[Tensor, "*B K C"], scale: float
) -> Float[Tensor, "*B Q K"]:
    """f = exp(theta_i . phi_j), C = sum over j of f: Eq. (3), the self-attention of a Transformer."""
    return gaussian(theta, phi, scale)


def dot_product(theta: Float[Tensor, "*B Q C"], phi: Float[Tensor, "*B K C"]) -> Float[Tensor, "*B Q K"]:
    """f = theta_i . phi_j, C = N, the number of positions j (after subsampling): Eq. (4)."""
    return theta @ phi.mT / phi.shape[-2]


def concatenation(
    theta: Float[Tensor, "*B Q C"], phi: Float[Tensor, "*B K C"], w_f: Float[Tensor, "2*C"]
) -> Float[Tensor, "*B Q K"]:
    """f = ReLU(w_f . [theta_i, phi_j]), C = N: Eq. (5).

    The product is a sum of one number for i and one for j, so no pair is ever concatenated.
    """
    w_theta, w_phi = w_f.chunk(2)
    a = theta @ w_theta  # (*B, Q)
    b = phi @ w_phi  # (*B, K)
    return torch.relu(a[..., :, None] + b[..., None, :]) / phi.shape[-2]


@dataclass(frozen=True)
class NonLocalConfig:
    """Which non-local blocks a network has: the part of a variant that Table 2a-2d vary.

    The positions j (#) that a position i is compared with, in three frames of a map, by `sum_over`::

        spacetime    # # #   # # #   # # #
                     # # #   # i #   # # #
                     # # #   # # #   # # #

        space        . . .   # # #   . . .
                     . . .   # i #   . . .
                     . . .   # # #   . . .

        time         . . .   . . .   . . .
                     . # .   . i .   . # .
                     . . .   . . .   . . .

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
        _one_of("subsample", self.subsample, (True, False))


def _one_of(key: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise UserError(f"{key}: expected one of {', '.join(map(str, known))}, not {value!r}")


def check_floats(name: str, expected: str, x: Tensor, weight: Tensor) -> None:
    """UserError unless x is dense, of floats, and of float64 just if the weights are. (Autocast mixes the others.)"""
    if not isinstance(x, Tensor) or not x.is_floating_point() or x.layout != torch.strided:
        said = f"{x.dtype}, {x.layout}" if isinstance(x, Tensor) else f"a {type(x).__name__}"
        raise UserError(f"{name}: expected {expected}, not {said}")
    if x.dtype != weight.dtype and torch.float64 in (x.dtype, weight.dtype):
        raise UserError(f"{name}: expected {weight.dtype}, as its weights are, not {x.dtype}")


class Affine(nn.Module):
    """``weight * x + bias`` for each channel of x (N, C, ...): BN, once its statistics are folded into its scale.

    The released code has it in long clips. Both are buffers: training leaves them as they are.
    """

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.ndim - 2)
        return torch.addcmul(self.bias.view(shape), self.weight.view(shape), x)


class NonLocalBlock(nn.Module):
    """A non-local operation wrapped into a residual block, Eq. (6) and Fig. 2.

    Args:
        channels: C of the input. theta, phi and g map to C / 2 channels (Sec. 3.3).
        instantiation, sum_over, subsample: see :class:`NonLocalConfig`.
        dimensions: 3 for a video (T, H, W), 2 for an image (H, W), 1 for a sequence (L). The positions of an image
            or a sequence are all space, and `sum_over` can't be ``time`` there.
        conventions: where the paper and the released code differ.

    Raises:
        UserError: an argument is out of range; in `forward`, the input has another shape.

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
        _one_of("sum_over", sum_over, SUM_OVER)
        _one_of("subsample", subsample, (True, False))
        _one_of("dimensions", dimensions, (1, 2, 3))
        if isinstance(channels, bool) or not isinstance(channels, SupportsIndex) or channels < 1:
            raise UserError(f"channels: expected at least 1, not {channels!r}")
        if not isinstance(conventions, Conventions):
            raise UserError(f"conventions: expected Conventions(...), not {conventions!r}")
        if sum_over == "time" and dimensions != 3:
            raise UserError(f"sum_over: a block over {dimensions}-D input has no time to sum over")
        conv, norm, pool = {
            1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d(2)),
            2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d(2)),
            3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d((1, 2, 2), (1, 2, 2), (0, 0, 0))),
        }[dimensions]
        self.instantiation, self.sum_over, self.rules = instantiation, sum_over, conventions.rules
        self.channels, self.dimensions, self.dim_inner = channels, dimensions, max(1, channels // 2)
        compared = channels if instantiation == "gaussian" else self.dim_inner
        self.scale = float(compared**-0.5) if self.rules.scale else 1.0  # of the exponents in Eq. (2) and (3)

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
        """He initialisation (paper, Sec. 4.1) or a Gaussian of 0.01 (release); the block starts as the identity."""
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

    # Shapes at line ends are those of a video. S sets of positions are compared among themselves, see `sets`.

    def forward(self, x: Float[Tensor, "N C *positions"]) -> Float[Tensor, "N C *positions"]:
        """Return z of Eq. (6)."""
        self.check(x)
        theta, phi, g = map(self.sets, self.embed(x))  # (N, S, Q, C/2), (N, S, K, C/2), (N, S, K, C/2)
        f = self.pairwise(theta, phi)  # (N, S, Q, K): f(x_i, x_j) / C(x)
        y = self.unite(f @ g, x)  # (N, C/2, T, H, W): Eq. (1)
        z: Tensor = self.bn(self.W_z(y)) + x  # (N, C, T, H, W): Eq. (6)
        return z

    def embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return theta(x), phi(x) and g(x) of Sec. 3.2, the last two subsampled."""
        itself = self.instantiation == "gaussian"  # theta and phi are x
        before = self.rules.subsample == "before"
        keys = self.pool(x) if before else x  # (N, C, T, H/2, W/2) or (N, C, T, H, W)
        theta = x if itself else self.theta(x)  # (N, C/2, T, H, W)
        phi, g = keys if itself else self.phi(keys), self.g(keys)
        return (theta, phi, g) if before else (theta, self.pool(phi), self.pool(g))  # (N, C/2, T, H/2, W/2)

    def pairwise(self, theta: Float[Tensor, "*B Q D"], phi: Float[Tensor, "*B K D"]) -> Float[Tensor, "*B Q K"]:
        """Return f(x_i, x_j) / C(x) for the queries and keys of each of B independent sets of positions."""
        if self.instantiation == "dot_product":
            return dot_product(theta, phi)
        if self.instantiation == "concatenation":
            return concatenation(theta, phi, self.w_f)
        return embedded_gaussian(theta, phi, self.scale)

    def sets(self, x: Float[Tensor, "N C *positions"]) -> Float[Tensor, "N S P C"]:
        """Return a map as S sets of P positions that are compared among themselves, see :class:`NonLocalConfig`."""
        x = x.movedim(1, -1)  # (N, T, H, W, C)
        if self.sum_over == "space" and self.dimensions == 3:
            return x.flatten(2, 3)  # (N, T, H W, C): each frame is a set
        if self.sum_over == "time":
            return x.flatten(2, 3).transpose(1, 2)  # (N, H W, T, C): each place is a set
        return x.flatten(1, -2)[:, None]  # (N, 1, T H W, C): all positions are one set

    def unite(self, y: Float[Tensor, "N S P C"], like: Tensor) -> Tensor:
        """Undo :meth:`sets`, for a map of the size of `like`."""
        if self.sum_over == "time":
            y = y.transpose(1, 2)  # (N, T, H W, C)
        return y.reshape(like.shape[0], *like.shape[2:], y.shape[-1]).movedim(-1, 1)  # (N, C, T, H, W)

    def check(self, x: Tensor) -> None:
        """UserError if the block can't be applied to x."""
        check_floats("NonLocalBlock", "a dense map of floats", x, self.W_z.weight)
        axes = {1: "L", 2: "H, W", 3: "T, H, W"}[self.dimensions]
        if x.ndim != self.dimensions + 2 or x.shape[1] != self.channels:
            raise UserError(f"NonLocalBlock: expected a map (N, {self.channels}, {axes}), not {tuple(x.shape)}")
        pooled = x.shape[2:] if self.dimensions < 3 else x.shape[3:]
        if 0 in x.shape[2:] or (1 in pooled and not isinstance(self.pool, nn.Identity)):
            raise UserError(
                f"NonLocalBlock: {tuple(x.shape)} is too small: subsampling needs 2 positions along each axis of space"
            )
