"""Control networks: what a non-local block has beside its affinities f(x_i, x_j), without them. Not in the paper.

They are networks of Table 1 with :class:`~nl_lightning.models.conventions.ControlConfig`. What stands in the place of a
non-local block has its place in the network too (``res4.non_local.4``), and starts as the identity as that does.
Checked in the tests against loops over positions.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from nl_lightning.models.conventions import STAGES, ControlConfig, Rules


class Context(nn.Module):
    """One context of the whole map, added at every position: Eq. (1) and (6) with an f that is the same for all i.

        y = sum over j of  f(x_j) g(x_j),   z_i = W_z ReLU(LayerNorm(y)) + x_i

    f is 1 / N, or with `attends` a softmax over j of w . x_j (Cao et al., "GCNet", ICCVW 2019, Fig. 4d). As it sums to
    1, g is computed once, of the sum of f(x_j) x_j. W_z starts at zero, so the block starts as the identity.
    """

    def __init__(self, channels: int, hidden: int, attends: bool) -> None:
        super().__init__()
        self.w = nn.Conv3d(channels, 1, 1, bias=False) if attends else None
        self.g = nn.Conv3d(channels, hidden, 1)  # a kernel, as that of a block, and trained as such
        self.norm = nn.LayerNorm(hidden)
        self.W_z = nn.Conv3d(hidden, channels, 1)
        nn.init.kaiming_normal_(self.g.weight)
        for zero in ("g.bias", "W_z.weight", "W_z.bias"):
            nn.init.zeros_(self.get_parameter(zero))

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N C T H W"]:
        y = self.g(self.mean(x))  # (N, D, 1, 1, 1)
        y = F.relu(self.norm(y.flatten(1)))  # (N, D)
        z: Tensor = self.W_z(y[:, :, None, None, None]) + x
        return z

    def mean(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N C 1 1 1"]:
        """The sum of f(x_j) x_j over all positions j."""
        if self.w is None:
            return x.mean(dim=(2, 3, 4), keepdim=True)
        f = torch.softmax(self.w(x).flatten(1), dim=1)  # (N, T H W)
        return (f[:, None] @ x.movedim(1, -1).flatten(1, 3)).mT[..., None, None]

    def products(self, x: Tensor) -> int:
        """Multiply-accumulates of the sum for maps x; an average is not counted, as global pooling isn't."""
        return 0 if self.w is None else x.numel()


class HiddenLinear(nn.Linear):
    """A classifier with one hidden layer before it; ``weight`` and ``bias`` are the classifier's own."""

    def __init__(self, channels: int, hidden: int, classes: int) -> None:
        super().__init__(hidden, classes)
        self.hidden = nn.Linear(channels, hidden)
        nn.init.kaiming_normal_(self.hidden.weight)
        nn.init.zeros_(self.hidden.bias)

    def forward(self, x: Float[Tensor, "*N C"]) -> Float[Tensor, "*N classes"]:
        return super().forward(F.relu(self.hidden(x)))


def put_control(net: Any, control: ControlConfig, residual: Callable[..., Any]) -> None:
    """Turn a network of Table 1, before it is initialised, into its control.

    Args:
        net: a :class:`~nl_lightning.models.resnet.VideoResNet`.
        control: what to put there.
        residual: the class of its residual blocks.
    """
    channels = net.fc.in_features
    if control.kind == "hidden":
        net.fc = HiddenLinear(channels, control.channels(channels), net.fc.out_features)
    if control.kind == "pixel":
        _see_pixels(net, control.channels(channels))
    for name, places in control.placement.items():
        stage = getattr(net, name)
        for after in sorted(places):
            channels = stage.blocks[after].conv3.out_channels
            stage.non_local[str(after)] = stand_in(control, channels, net.config.conventions.rules, residual)


def stand_in(control: ControlConfig, channels: int, rules: Rules, residual: Callable[..., Any]) -> Any:
    """What stands in the place of a non-local block for maps of so many channels; `residual` makes a residual block."""
    hidden = control.channels(channels)
    if control.kind != "residual":
        return Context(channels, hidden, attends=control.kind == "query_independent")
    block = residual(channels, hidden, channels, 1, "none", replace(rules, residual_gamma=rules.nonlocal_gamma))
    for conv in (block.conv1, block.conv2, block.conv3):
        nn.init.kaiming_normal_(conv.weight, mode="fan_out")
    return block  # starts as the identity, as the blocks do


def _see_pixels(net: Any, hidden: int) -> None:
    """conv1 sees one pixel. All that follows is an average over the pixels that a position of res5 stands for.

    (So testing can slide a window over these places, as over res5. The global average is that of all pixels.)
    """
    config = net.config
    side = math.prod(config.spatial_strides)
    net.conv1 = nn.Conv3d(3, hidden, 1, bias=False)
    net.bn1 = type(net.bn1)(hidden)
    net.pool1 = nn.AvgPool3d((math.prod(config.temporal_strides), side, side), ceil_mode=True)
    net.pool2 = nn.Identity()
    net.fc = HiddenLinear(hidden, hidden, config.num_classes)
    for name in STAGES:
        getattr(net, name).blocks = nn.ModuleList()
