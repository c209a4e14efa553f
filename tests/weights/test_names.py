"""Names by pairs of patterns: every tensor of our networks has one name in each code base, and it leads back."""

import pytest
import torch

from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.weights.source import Names, Source
from nl_lightning.weights.sources import CAFFE2, MMACTION2, PYTORCHVIDEO, SLOWFAST, TORCHVISION, TUSHAR_N

PEERS = [CAFFE2, SLOWFAST, MMACTION2, PYTORCHVIDEO, TORCHVISION, TUSHAR_N]


@pytest.mark.parametrize("source", PEERS, ids=lambda source: source.name)
def test_every_tensor_has_one_name_that_leads_back(source: Source) -> None:
    """In ResNet-101, whose residual blocks have two digits."""
    blocks = NonLocalConfig({"res3": [1, 3], "res4": [6, 13, 20]})
    without = source.names.ours(source.names.theirs("res3.non_local.1.g.weight") or "") is None
    config = ResNetConfig(101, non_local=None if without else blocks, width=1 / 64, conventions=Conventions("release"))
    with torch.device("meta"):
        ours = VideoResNet(config).state_dict().keys()
    if source is CAFFE2:
        ours = {name for name in ours if not name.endswith("num_batches_tracked")}  # type: ignore[assignment]
    theirs = {name: source.names.theirs(name) for name in ours}
    assert None not in theirs.values()
    assert len(set(theirs.values())) == len(ours)
    assert {name: source.names.ours(str(spelled)) for name, spelled in theirs.items()} == {name: name for name in ours}


def test_what_is_in_no_pair_has_no_name() -> None:
    names = Names([("a{n}.{word}", "b_{n}_{word}")], {"word": {"x": "y"}})
    assert names.theirs("a12.x") == "b_12_y"
    assert names.ours("b_12_y") == "a12.x"
    for name in ("a.x", "a1.y", "a1.x.more", "xa1.x"):
        assert names.theirs(name) is None
    assert names.ours("b_1_x") is None
