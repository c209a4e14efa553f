"""Initial weights by name: what two networks of one seed share is equal, and each is distributed as in order."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor

from nl_lightning.models.initial import Init
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig
from nl_lightning.train.classifier import VideoClassifier

SMALL = {"width": 1 / 16, "num_classes": 11}
NETS = {
    "c2d": ResNetConfig(**SMALL),
    "nl": ResNetConfig(**SMALL, non_local=NonLocalConfig({"res2": [0], "res4": [4]}, instantiation="concatenation")),
    "i3d": ResNetConfig(**SMALL, inflate="3x1x1", non_local=NonLocalConfig({"res4": [4]})),
}


def started(name: str, init: Init, seed: int = 0) -> tuple[dict[str, Tensor], Tensor]:
    """The initial weights of a network by name, and the random number after them."""
    torch.manual_seed(seed)
    net = VideoClassifier(NETS[name], init=init).net
    return {key: value.detach() for key, value in net.named_parameters()}, torch.rand(1)


def varied(tensors: dict[str, Tensor]) -> list[str]:
    """Those that are drawn: the others are constant."""
    return [key for key, value in tensors.items() if value.unique().numel() > 1]


def test_networks_of_one_seed_share_what_they_can() -> None:
    c2d, nl, i3d = (started(name, "by_name") for name in NETS)
    assert c2d[1] == nl[1] == i3d[1]  # and so do dropout and all that is drawn later
    assert all(torch.equal(value, nl[0][key]) for key, value in c2d[0].items())
    shared = [key for key, value in nl[0].items() if key in i3d[0] and i3d[0][key].shape == value.shape]
    assert {"res4.non_local.4.g.weight", "res3.blocks.1.conv2.weight", "fc.weight"} < set(shared)
    assert all(torch.equal(nl[0][key], i3d[0][key]) for key in shared)


def test_in_order_a_block_shifts_all_that_follow() -> None:
    c2d, nl = started("c2d", "in_order")[0], started("nl", "in_order")[0]
    assert not any(torch.equal(c2d[key], nl[key]) for key in varied(c2d))


@pytest.mark.parametrize("name", NETS)
def test_each_tensor_is_distributed_as_in_order(name: str) -> None:
    ordered, named, other = started(name, "in_order")[0], started(name, "by_name")[0], started(name, "by_name", 1)[0]
    assert varied(named) == varied(ordered) != []
    for key in varied(named):
        assert not torch.equal(named[key], other[key])
        if named[key].numel() > 500:
            assert named[key].std() == pytest.approx(float(ordered[key].std()), rel=0.15)
            assert abs(named[key].mean()) < 5 * named[key].std() / named[key].numel() ** 0.5
    constant = named.keys() - varied(named)
    assert all(torch.equal(named[key], ordered[key]) for key in constant)
    of_one_shape = [key for key in varied(named) if named[key].shape == named["res4.blocks.1.conv3.weight"].shape]
    assert not any(torch.equal(named[one], named[two]) for one, two in pairwise(of_one_shape))
