"""The non-local block as others have it, with the weights of ours: pytorchvideo's, mmcv's, and the plain N x N form.

All of them hold the matrix of all pairs. pytorchvideo pools x before phi and g, as the released code does; the others
pool phi and g, as the paper says.
"""

from typing import Any, cast

import torch
from mmcv.cnn.bricks.non_local import NonLocal3d
from pytorchvideo.layers.nonlocal_net import create_nonlocal
from torch import Tensor, nn

from nl_lightning.models.nonlocal_block import NonLocalBlock


class AllPairs(nn.Module):
    """The form of the best-known port (AlexHex7/Non-local_pytorch): 3-D convolutions, f / C for all pairs, times g.

    For concatenation theta_i and phi_j are laid beside each other for every pair.
    """

    def __init__(self, channels: int, instantiation: str, subsample: bool) -> None:
        super().__init__()
        self.instantiation, self.inner = instantiation, channels // 2
        pool: nn.Module = nn.MaxPool3d((1, 2, 2)) if subsample else nn.Identity()
        self.theta: nn.Module
        self.phi: nn.Module
        self.g = nn.Sequential(nn.Conv3d(channels, self.inner, 1), pool)
        if instantiation == "gaussian":
            self.theta, self.phi = nn.Identity(), pool
        else:
            self.theta = nn.Conv3d(channels, self.inner, 1)
            self.phi = nn.Sequential(nn.Conv3d(channels, self.inner, 1), pool)
        if instantiation == "concatenation":
            self.project = nn.Sequential(nn.Conv2d(2 * self.inner, 1, 1, bias=False), nn.ReLU())
        self.W = nn.Sequential(nn.Conv3d(self.inner, channels, 1), nn.BatchNorm3d(channels))

    def forward(self, x: Tensor) -> Tensor:
        theta, phi, g = (part(x).flatten(2) for part in (self.theta, self.phi, self.g))  # (N, C, positions)
        y = self.pairs(theta, phi) @ g.permute(0, 2, 1)
        z: Tensor = self.W(y.permute(0, 2, 1).contiguous().view(len(x), self.inner, *x.shape[2:]))
        return z + x

    def pairs(self, theta: Tensor, phi: Tensor) -> Tensor:
        if self.instantiation == "concatenation":
            queries, keys = theta.shape[2], phi.shape[2]
            both = torch.cat([theta[..., None].repeat(1, 1, 1, keys), phi[:, :, None].repeat(1, 1, queries, 1)], dim=1)
            f = self.project(both)[:, 0]
        else:
            f = theta.permute(0, 2, 1) @ phi
        return f / f.shape[-1] if self.instantiation in ("dot_product", "concatenation") else f.softmax(dim=-1)


def all_pairs(ours: NonLocalBlock, channels: int, subsample: bool) -> nn.Module:
    """:class:`AllPairs` with the weights of our block."""
    theirs = AllPairs(channels, ours.instantiation, subsample)
    embeddings = {} if ours.instantiation == "gaussian" else {"theta": theirs.theta, "phi": next(theirs.phi.children())}
    _take(ours, g=theirs.g[0], W_z=theirs.W[0], bn=theirs.W[1], **embeddings)
    if ours.instantiation == "concatenation":
        _fill(theirs.project.get_parameter("0.weight"), ours.w_f)
    return theirs


def mmcv(ours: NonLocalBlock, channels: int, subsample: bool) -> nn.Module:
    """mmcv's block with the weights of ours."""
    theirs = NonLocal3d(
        channels, sub_sample=subsample, use_scale=False, norm_cfg={"type": "BN3d"}, mode=ours.instantiation
    )
    names = ("g",) if ours.instantiation == "gaussian" else ("g", "theta", "phi")
    modules = {name: getattr(theirs, name) for name in names}
    convs = {name: (part[0] if isinstance(part, nn.Sequential) else part).conv for name, part in modules.items()}
    _take(ours, W_z=theirs.conv_out.conv, bn=theirs.conv_out.bn, **convs)
    if ours.instantiation == "concatenation":
        _fill(theirs.concat_project.conv.weight, ours.w_f)
    return cast(nn.Module, theirs)


PYTORCHVIDEO = {"embedded_gaussian": "softmax", "dot_product": "dot_product"}
"""What it calls the two instantiations that it has."""


def pytorchvideo(ours: NonLocalBlock, channels: int, subsample: bool) -> nn.Module:
    """pytorchvideo's block with the weights of ours."""
    theirs = create_nonlocal(
        dim_in=channels,
        dim_inner=channels // 2,
        pool_size=(1, 2, 2) if subsample else None,
        instantiation=PYTORCHVIDEO[ours.instantiation],
    )
    _take(ours, theta=theirs.conv_theta, phi=theirs.conv_phi, g=theirs.conv_g, W_z=theirs.conv_out, bn=theirs.norm)
    return cast(nn.Module, theirs)


def _take(ours: NonLocalBlock, **theirs: Any) -> None:
    """Give modules of a peer the weights of those of ours that have the argument's name."""
    for name, module in theirs.items():
        state = getattr(ours, name).state_dict()
        for key, tensor in module.state_dict().items():  # mmcv has no bias before its BN
            _fill(tensor, state[key])


@torch.no_grad()
def _fill(theirs: Tensor, ours: Tensor) -> None:
    theirs.copy_(ours.view_as(theirs))
