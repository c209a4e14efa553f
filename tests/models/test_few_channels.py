"""BN and ReLU of few channels against torch's own."""

from typing import Any

import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from nl_lightning.models.few_channels import has_few, norm_relu


@given(channels=st.integers(1, 7), size=st.tuples(*[st.integers(1, 6)] * 4), relu_all=st.booleans())
@settings(max_examples=40, deadline=None)
def test_bn_of_few_channels(channels: int, size: Any, relu_all: bool) -> None:
    n, *positions = size
    found = []
    y = torch.randn(n + 1, channels, *positions, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    for f in (norm_relu, lambda y, norm: F.relu(norm(y))):
        norm, leaf = nn.BatchNorm3d(channels).double(), y.clone().requires_grad_()
        nn.init.constant_(norm.bias, 5 if relu_all else 0.1)
        assert has_few(leaf, norm)
        z = f(leaf, norm)
        weights = torch.linspace(-1, 1, z.numel(), dtype=z.dtype).view(z.shape)
        found.append(
            (z.detach(), torch.autograd.grad((z * weights).sum(), [leaf, *norm.parameters()]), norm.state_dict())
        )
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-8)
