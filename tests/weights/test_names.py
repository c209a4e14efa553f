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


@pytest.mark.parametrize(
    ("source", "ours", "theirs"),
    [
        (CAFFE2, "res4.blocks.22.bn3.running_var", "res4_22_branch2c_bn_riv"),
        (CAFFE2, "bn1.weight", "res_conv1_bn_s"),
        (CAFFE2, "res3.non_local.1.W_z.bias", "nonlocal_conv3_1_out_b"),
        (CAFFE2, "res2.blocks.0.downsample.1.running_mean", "res2_0_branch1_bn_rm"),
        (SLOWFAST, "res3.non_local.1.theta.weight", "s3.pathway0_nonlocal1.conv_theta.weight"),
        (SLOWFAST, "res2.blocks.0.bn1.bias", "s2.pathway0_res0.branch2.a_bn.bias"),
        (MMACTION2, "res4.non_local.5.bn.weight", "backbone.layer3.5.non_local_block.conv_out.bn.weight"),
        (PYTORCHVIDEO, "res2.blocks.2.conv2.weight", "blocks.1.res_blocks.2.branch2.conv_b.weight"),
        (TORCHVISION, "res5.blocks.0.downsample.0.weight", "layer4.0.downsample.0.weight"),
        (TUSHAR_N, "res3.non_local.3.g.bias", "layer2.3.nl.g.bias"),
    ],
)
def test_names_as_they_are_documented(source: Source, ours: str, theirs: str) -> None:
    assert source.names.theirs(ours) == theirs
    assert source.names.ours(theirs) == ours


def test_what_is_in_no_pair_has_no_name() -> None:
    names = Names([("a{n}.{word}", "b_{n}_{word}")], {"word": {"x": "y"}})
    assert names.theirs("a12.x") == "b_12_y"
    assert names.ours("b_12_y") == "a12.x"
    for name in ("a.x", "a1.y", "a1.x.more", "xa1.x"):
        assert names.theirs(name) is None
    assert names.ours("b_1_x") is None
