"""A folded BN is the BN, and training leaves it alone."""

import torch
from torch import nn

from nl_lightning.models.affine import Affine


def test_it_is_the_bn_that_was_folded_into_it() -> None:
    torch.manual_seed(0)
    bn = nn.BatchNorm3d(5).eval()
    for tensor in (bn.weight, bn.bias, bn.running_mean):
        assert tensor is not None
        nn.init.normal_(tensor)
    assert bn.running_var is not None
    nn.init.uniform_(bn.running_var, 0.5, 2)
    affine = Affine(5)
    affine.weight = bn.weight.detach() / torch.sqrt(bn.running_var + bn.eps)
    assert bn.running_mean is not None
    affine.bias = bn.bias.detach() - bn.running_mean * affine.weight
    x = torch.randn(2, 5, 3, 4, 4)
    torch.testing.assert_close(affine(x), bn(x))


def test_nothing_of_it_is_trained_and_everything_is_saved() -> None:
    affine = Affine(3)
    assert list(affine.parameters()) == []
    assert affine.state_dict().keys() == {"weight", "bias"}
