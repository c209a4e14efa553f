"""Which input positions move one output position: the gradient of a feature of res5 with respect to the clip."""

import torch
from jaxtyping import Float
from torch import Tensor, nn

from nl_lightning.models.conventions import Triple
from nl_lightning.models.fast import channels_last
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.models.resnet import VideoResNet

CLIPS = 4
"""Clips of noise that a gradient is the mean over: in one, ReLUs and max pools hide some of the paths."""


def open_branches(net: VideoResNet) -> None:
    """Let every branch that starts at zero add something: scales of BN become 1, and a W_z is drawn.

    Non-local blocks start as the identity, and with some conventions residual blocks do: an untrained network would
    show the reach of its shortcuts only.
    """
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d) and not module.weight.any():
            nn.init.ones_(module.weight)
        if isinstance(module, NonLocalBlock) and not module.W_z.weight.any():
            nn.init.kaiming_normal_(module.W_z.weight)


def gradient(net: VideoResNet, clip: Triple, generator: torch.Generator) -> Float[Tensor, "T H W"]:
    """How much each position of a clip of (T, H, W) moves the centre of res5, before global pooling.

    The feature is the sum of the channels there; the gradient's absolute value is summed over colours and averaged
    over :data:`CLIPS` clips of normalised noise.
    """
    net = net.eval()
    total = torch.zeros(clip)
    for _ in range(CLIPS):
        noise = channels_last(torch.randn(1, 3, *clip, generator=generator)).requires_grad_()
        features = net.features(noise)
        t, h, w = (size // 2 for size in features.shape[2:])
        (moved,) = torch.autograd.grad(features[0, :, t, h, w].sum(), noise)
        total += moved[0].abs().sum(dim=0)
    return total / CLIPS
