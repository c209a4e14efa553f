"""The gradient of an output position: where it must be, and where it can't be."""

import torch
from torch import Tensor

from nl_lightning.inspect.receptive_field import gradient, open_branches
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet

CLIP = (8, 32, 32)


def field(opened: bool = True, **config: object) -> Tensor:
    torch.manual_seed(0)
    net = VideoResNet(
        ResNetConfig(
            num_classes=2, width=1 / 32, temporal_strides=(1, 1, 2), spatial_strides=(2, 2, 1, 1, 1, 1), **config
        )  # type: ignore[arg-type]
    )
    if opened:
        open_branches(net)
    return gradient(net, CLIP, torch.Generator().manual_seed(0))


def test_c2d_sees_the_frames_of_one_pool_and_its_blocks_all() -> None:
    """res5 has 4 frames; the centre is the third, a pool of the input's frames 3, 4 and 5."""
    c2d = field()
    assert c2d.shape == CLIP
    assert c2d.any(dim=(1, 2)).nonzero().flatten().tolist() == [3, 4, 5]
    blocks = NonLocalConfig({"res4": [1]})
    assert field(non_local=blocks).any(dim=(1, 2)).all()
    assert field(inflate="3x1x1").any(dim=(1, 2)).all()


def test_a_block_that_isn_t_opened_moves_nothing() -> None:
    blocks = NonLocalConfig({"res4": [1]})
    closed = field(opened=False, non_local=blocks)
    assert closed.any(dim=(1, 2)).nonzero().flatten().tolist() == [3, 4, 5]


def test_residual_branches_and_zero_w_z_are_opened() -> None:
    no_norm = Conventions(nonlocal_norm="none", residual_gamma=0.0)
    net = VideoResNet(
        ResNetConfig(num_classes=2, width=1 / 32, non_local=NonLocalConfig({"res4": [1]}), conventions=no_norm)
    )
    block = net.res4.non_local["1"]
    assert not block.W_z.weight.any()  # type: ignore[union-attr]
    open_branches(net)
    assert block.W_z.weight.any()  # type: ignore[union-attr]
    assert all(b.bn3.weight.all() for b in net.res3.blocks)  # type: ignore[union-attr]
