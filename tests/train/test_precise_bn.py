"""Statistics over many batches: by hand for one BN, and nothing else is touched in a network."""

import torch
from torch import Tensor, nn

from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.train.precise_bn import estimate_statistics


def batches(*shape: int, count: int = 3) -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(*shape, generator=generator) * (k + 1) + k for k in range(count)]


def test_means_of_the_batches_means_and_mean_squares() -> None:
    bn = nn.BatchNorm3d(4).eval()
    given = batches(2, 4, 3, 5, 5)
    estimate_statistics(nn.Sequential(nn.Conv3d(4, 4, 1), bn).eval(), [])
    assert torch.equal(bn.running_mean, torch.zeros(4))  # type: ignore[arg-type]
    net = nn.Sequential(bn, nn.ReLU())
    estimate_statistics(net, given)
    mean = torch.stack([x.mean(dim=(0, 2, 3, 4)) for x in given]).mean(dim=0)
    square = torch.stack([(x**2).mean(dim=(0, 2, 3, 4)) for x in given]).mean(dim=0)
    torch.testing.assert_close(bn.running_mean, mean)
    torch.testing.assert_close(bn.running_var, square - mean**2)


def test_a_later_layer_sees_what_it_sees_in_training() -> None:
    """The second BN's statistics are those of batches that the first has normalised by their own."""
    torch.manual_seed(0)
    first, second = nn.BatchNorm3d(4), nn.BatchNorm3d(4)
    given = batches(2, 4, 3, 5, 5)
    estimate_statistics(nn.Sequential(first, nn.ReLU(), second).eval(), given)
    seen = [nn.functional.batch_norm(x, None, None, first.weight, first.bias, training=True).relu() for x in given]
    torch.testing.assert_close(second.running_mean, torch.stack([x.mean(dim=(0, 2, 3, 4)) for x in seen]).mean(dim=0))


def test_the_rest_of_a_network_stays_as_it_is() -> None:
    torch.manual_seed(0)
    net = VideoResNet(ResNetConfig(width=1 / 32, non_local=NonLocalConfig({"res3": [1]}), num_classes=3)).eval()
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    estimate_statistics(net, batches(2, 3, 8, 32, 32))
    after = net.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    counters = {name for name in before if name.endswith("num_batches_tracked")}
    assert changed - counters == {name for name in before if "running" in name}
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm3d)]
    assert {norm.momentum for norm in norms} == {0.1}
    assert not any(norm.training for norm in norms)
