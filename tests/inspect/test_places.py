"""Places against what a network's outputs really depend on."""

import pytest
import torch
from torch import nn

from nl_lightning.inspect.attention import Places, places_in
from nl_lightning.inspect.receptive_field import open_branches
from nl_lightning.models.conventions import STAGES, Conventions
from nl_lightning.models.resnet import ResNetConfig, VideoResNet


def test_a_position_is_behind_its_kernel() -> None:
    first = Places().behind(nn.Conv3d(1, 1, (1, 3, 3), (1, 2, 2), (0, 1, 1)))
    assert first.centre((2, 1, 0)).tolist() == [2, 2, 0]
    pooled = first.behind(nn.MaxPool3d(2))
    assert pooled.centre((0, 0, 0)).tolist() == [0.5, 1, 1]
    assert pooled.centre((1, 1, 2)).tolist() == [2.5, 5, 9]


@pytest.mark.parametrize("profile", ["paper", "release"])
@pytest.mark.parametrize("stage", STAGES[:2])
def test_a_position_is_centred_on_what_it_depends_on(stage: str, profile: str) -> None:
    """The first and last input that move an output are as far from its place, away from the borders."""
    torch.manual_seed(0)
    config = ResNetConfig(width=1 / 16, num_classes=2, conventions=Conventions(profile))  # type: ignore[arg-type]
    net = VideoResNet(config).eval()
    open_branches(net)
    clip = torch.zeros(1, 3, 48, 160, 160)
    total = torch.zeros(clip.shape[2:])
    reached: list[torch.Tensor] = []
    getattr(net, stage).register_forward_hook(lambda _, __, output: reached.append(output))
    for _ in range(4):  # max pools choose one path at a time
        clip = torch.randn(clip.shape, requires_grad=True)
        net.features(clip)
        t, h, w = (size // 2 for size in reached[-1].shape[2:])
        total += torch.autograd.grad(reached[-1][0, :, t, h, w].sum(), clip)[0][0].abs().sum(dim=0)
    place = places_in(net, stage).centre((t, h, w))
    for axis, at in enumerate(place):
        moved = total.sum(dim=[other for other in range(3) if other != axis]).nonzero()
        assert (moved.min() + moved.max()) / 2 == pytest.approx(at), axis
