"""The non-local block: Eq. (1)-(6) of "Non-local Neural Networks" (Wang et al., CVPR 2018).

    y_i = 1 / C(x)  sum over j of  f(x_i, x_j) g(x_j)                                           (1)
    z_i = W_z y_i + x_i                                                                        (6)

i is a position (in space, time or spacetime) of a feature map, and j runs over all positions. The four
instantiations of f are four functions below, each returning f(x_i, x_j) / C(x) for every pair.
Checked in the tests against the double loop over i and j in float64, for every instantiation, mode and dimension.
"""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nl_lightning.conventions import INSTANTIATIONS, SUM_OVER, Conventions, Instantiation, SumOver
from nl_lightning.errors import UserError
from nl_lightning.models.affine import Affine


# Keys are pooled when they are subsampled, so there may be fewer of them (K) than queries (Q).
def gaussian(x: Float[Tensor, "B Q C"], keys: Float[Tensor, "B K C"], scale: float) -> Float[Tensor, "B Q K"]:
    """f = exp(x_i . x_j), C = sum over j of f: Eq. (2). Together: a softmax over j."""
    return torch.softmax(scale * x @ keys.mT, dim=-1)


def embedded_gaussian(
    theta: Float[Tensor, "B Q C"], phi: Float[Tensor, "B K C"], scale: float
) -> Float[Tensor, "B Q K"]:
    """f = exp(theta_i . phi_j), C = sum over j of f: Eq. (3), the self-attention of a Transformer."""
    return gaussian(theta, phi, scale)


def dot_product(theta: Float[Tensor, "B Q C"], phi: Float[Tensor, "B K C"]) -> Float[Tensor, "B Q K"]:
    """f = theta_i . phi_j, C = N, the number of positions j: Eq. (4)."""
    return theta @ phi.mT / phi.shape[1]


def concatenation(
    theta: Float[Tensor, "B Q C"], phi: Float[Tensor, "B K C"], w_f: Float[Tensor, "2*C"]
) -> Float[Tensor, "B Q K"]:
    """f = ReLU(w_f . [theta_i, phi_j]), C = N: Eq. (5).

    w_f . [theta_i, phi_j] is a sum of one number for i and one for j, so the pairs of vectors are never built.
    """
    w_theta, w_phi = w_f.chunk(2)
    a = theta @ w_theta  # (B, Q)
    b = phi @ w_phi  # (B, K)
    return torch.relu(a[:, :, None] + b[:, None, :]) / phi.shape[1]


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
            1: (nn.Conv1d, nn.BatchNorm1d, nn.MaxPool1d),
            2: (nn.Conv2d, nn.BatchNorm2d, nn.MaxPool2d),
            3: (nn.Conv3d, nn.BatchNorm3d, nn.MaxPool3d),
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
        pools = subsample and sum_over != "time"
        kernel: int | tuple[int, ...] = (1, 2, 2) if dimensions == 3 else 2
        self.pool: nn.Module = pool(kernel) if pools else nn.Identity()
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
        """Return z of Eq. (6)."""
        theta, phi, g = self._embed(x)
        pairs = self._pairwise(self._positions(theta), self._positions(phi))  # (B, Q, K)
        y = self._restore(pairs @ self._positions(g), x)  # (N, C / 2, ...)
        z: Tensor = x + self.bn(self.W_z(y))
        return z

    def _embed(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """theta(x), phi(x) and g(x), the last two subsampled."""
        keys = self.pool(x) if self.rules.subsample == "before" else x
        embedded = self.instantiation != "gaussian"
        theta = self.theta(x) if embedded else x
        phi = self.phi(keys) if embedded else keys
        g = self.g(keys)
        if self.rules.subsample == "after":
            phi, g = self.pool(phi), self.pool(g)
        return theta, phi, g

    def _pairwise(self, theta: Tensor, phi: Tensor) -> Tensor:
        """f(x_i, x_j) / C(x) for the queries and keys of each of B independent sets of positions."""
        if self.instantiation == "dot_product":
            return dot_product(theta, phi)
        if self.instantiation == "concatenation":
            return concatenation(theta, phi, self.w_f)
        scale = theta.shape[-1] ** -0.5 if self.rules.scale else 1.0
        return embedded_gaussian(theta, phi, scale)

    def _positions(self, x: Tensor) -> Tensor:
        """(N, C, ...) as (B, positions, C): B sets of positions that are compared among themselves."""
        if self.sum_over == "space" and x.ndim == 5:
            return x.permute(0, 2, 3, 4, 1).flatten(2, 3).flatten(0, 1)  # (N T, H W, C)
        if self.sum_over == "time":
            return x.permute(0, 3, 4, 2, 1).flatten(0, 2)  # (N H W, T, C)
        return x.flatten(2).mT  # (N, T H W, C)

    def _restore(self, y: Tensor, like: Tensor) -> Tensor:
        """Undo :meth:`_positions` for a map of the size of `like`."""
        n, positions = like.shape[0], like.shape[2:]
        if self.sum_over == "space" and like.ndim == 5:
            return y.view(n, *positions, -1).permute(0, 4, 1, 2, 3)
        if self.sum_over == "time":
            return y.view(n, *positions[1:], positions[0], -1).permute(0, 4, 3, 1, 2)
        return y.mT.view(n, -1, *positions)
