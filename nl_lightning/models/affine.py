"""Affine: what BN becomes once its statistics are folded into its scale and shift (released code, long clips)."""

import torch
from torch import Tensor, nn


class Affine(nn.Module):
    """``weight * x + bias`` for each channel of x (N, C, ...). Both are buffers: training leaves them as they are."""

    weight: Tensor
    bias: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("weight", torch.ones(channels))
        self.register_buffer("bias", torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        shape = (-1,) + (1,) * (x.ndim - 2)
        return torch.addcmul(self.bias.view(shape), self.weight.view(shape), x)
