"""Inflated ImageNet weights against torchvision's 2-D network (Sec. 4), with random weights and BN statistics."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision  # type: ignore[import-untyped]
from torch import Tensor, nn

from nl_lightning.errors import UserError
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.weights.imagenet import inflate_imagenet, load_imagenet

STAGES_2D = {"maxpool": "pool1", "layer1": "res2", "layer2": "res3", "layer3": "res4", "layer4": "res5"}
"""torchvision's name of a layer, and ours."""


@pytest.fixture(scope="module")
def imagenet() -> nn.Module:
    """torchvision's ResNet-50 in float64 with random weights, scales, shifts and statistics."""
    torch.manual_seed(0)
    net: nn.Module = torchvision.models.resnet50(weights=None).double().eval()
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.5, 0.5)
            module.get_buffer("running_mean").uniform_(-0.5, 0.5)
            module.get_buffer("running_var").uniform_(0.5, 1.5)
    return net


def outputs(net: nn.Module, x: Tensor, names: list[str]) -> list[Tensor]:
    """What the named layers of `net` return for x."""
    found: dict[str, Tensor] = {}
    hooks = [
        net.get_submodule(name).register_forward_hook(lambda _, __, out, name=name: found.update({name: out}))
        for name in names
    ]
    with torch.no_grad():
        net(x)
    for hook in hooks:
        hook.remove()
    return [found[name] for name in names]


def video_net(imagenet: nn.Module, *args: Any, **kwargs: Any) -> VideoResNet:
    """Our network in float64 with the weights of `imagenet`, inflated."""
    net = VideoResNet(ResNetConfig(*args, **kwargs)).double().eval()
    net.load_state_dict(inflate_imagenet(net, imagenet.state_dict()), strict=False)
    return net


def differences(net: VideoResNet, clip: Tensor, imagenet: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """How far our maps of a clip are from torchvision's of its images, or its one image, by layer: (1, C, T, H, W)."""
    ours = outputs(net, clip, list(STAGES_2D.values()))
    theirs = (maps.transpose(0, 1)[None] for maps in outputs(imagenet, images, list(STAGES_2D)))
    return {
        name: (mine - expected).abs() / expected.abs().max()
        for name, mine, expected in zip(STAGES_2D.values(), ours, theirs, strict=True)
    }


def test_c2d_sees_each_frame_as_the_2d_network_does(imagenet: nn.Module) -> None:
    """With temporal strides of 1, no layer of C2D mixes frames, so the frames may differ."""
    clip = torch.randn(1, 3, 3, 64, 48, dtype=torch.float64)
    net = video_net(imagenet, 50, temporal_strides=(1, 1, 1))
    for name, difference in differences(net, clip, imagenet, clip[0].transpose(0, 1)).items():
        assert difference.max() < 1e-12, f"{name}: max {difference.max():.1e}, mean {difference.mean():.1e}"


def test_c2d_sees_a_still_video_as_the_2d_network_sees_its_frame(imagenet: nn.Module) -> None:
    """With Table 1's strides in time: the maximum of equal frames is that frame."""
    frame = torch.randn(1, 3, 64, 48, dtype=torch.float64)
    still = frame[:, :, None].expand(-1, -1, 16, -1, -1)
    for name, difference in differences(video_net(imagenet, 50), still, imagenet, frame).items():
        assert difference.max() < 1e-12, f"{name}: max {difference.max():.1e}, mean {difference.mean():.1e}"


@pytest.mark.parametrize("inflate", ["3x1x1", "3x3x3"])
def test_i3d_sees_a_still_video_as_the_2d_network_sees_its_frame(imagenet: nn.Module, inflate: Any) -> None:
    """But for the frames near its two ends, whose kernels reach into the zeros of the padding.

    conv1 reaches 2 frames far and each inflated block 1: 2 in res2, 2 in res3, 3 in res4, 1 in res5.
    """
    reach = {"pool1": 2, "res2": 4, "res3": 6, "res4": 9, "res5": 10}
    frames = 2 * reach["res5"] + 2
    frame = torch.randn(1, 3, 32, 40, dtype=torch.float64)
    net = video_net(imagenet, 50, inflate, temporal_strides=(1, 1, 1))
    still = frame[:, :, None].expand(-1, -1, frames, -1, -1)
    for name, difference in differences(net, still, imagenet, frame).items():
        inner = difference[:, :, reach[name] : frames - reach[name]]
        assert inner.max() < 1e-12, f"{name}: max {inner.max():.1e}, mean {inner.mean():.1e}"
        assert difference[:, :, reach[name] - 1].max() > 1e-9, f"{name}: the ends should differ"


def test_kernels_are_repeated_and_divided(imagenet: nn.Module) -> None:
    net = video_net(imagenet, 50, "3x3x3")
    flat = imagenet.state_dict()
    for ours, theirs, frames in [
        ("conv1.weight", "conv1.weight", 5),
        ("res4.blocks.2.conv2.weight", "layer3.2.conv2.weight", 3),
        ("res4.blocks.3.conv2.weight", "layer3.3.conv2.weight", 1),
    ]:
        kernel = net.get_parameter(ours)
        assert kernel.shape[2] == frames
        torch.testing.assert_close(kernel.sum(dim=2), flat[theirs])
        assert torch.equal(kernel, kernel[:, :, :1].expand_as(kernel))


def test_everything_but_new_layers_is_filled(tmp_path: Path) -> None:
    flat = torchvision.models.resnet101(weights=None)
    for tensor in flat.state_dict().values():
        tensor.fill_(3)
    torch.save(flat.state_dict(), tmp_path / "imagenet.pth")
    blocks = NonLocalConfig({"res3": [1], "res4": [4]}, "concatenation")
    net = VideoResNet(ResNetConfig(101, "3x1x1", blocks, num_classes=7))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    kept = load_imagenet(net, tmp_path / "imagenet.pth")
    for name, tensor in net.state_dict().items():
        if ".non_local." in name or name.startswith("fc."):
            assert name in kept
            assert torch.equal(tensor, before[name]), name
        else:
            assert name not in kept
            frames = tensor.shape[2] if tensor.ndim == 5 else 1
            assert torch.allclose(tensor.float(), torch.tensor(3 / frames)), name
    assert any(name.endswith("w_f") for name in kept)
    assert {"fc.weight", "fc.bias"} < set(kept)


def state(depth: int = 50) -> dict[str, Tensor]:
    """Shapes of torchvision's state dict."""
    with torch.device("meta"):
        return dict(torchvision.models.get_model(f"resnet{depth}", weights=None).state_dict())


def meta_net(*args: Any, **kwargs: Any) -> VideoResNet:
    with torch.device("meta"):
        return VideoResNet(ResNetConfig(*args, **kwargs))


def test_old_files_without_counters_load() -> None:
    """torchvision's resnet50-19c8e357.pth was saved before BN had `num_batches_tracked`."""
    old = {name: tensor for name, tensor in state().items() if not name.endswith("num_batches_tracked")}
    net = meta_net(50)
    absent = set(net.state_dict()) - set(inflate_imagenet(net, old))
    assert {name.rpartition(".")[2] for name in absent if not name.startswith("fc.")} == {"num_batches_tracked"}


def without(name: str) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in state().items() if key != name}


@pytest.mark.parametrize(
    ("weights", "network", "message"),
    [
        (state(101), {}, r"\(3, 4, 23, 3\) residual blocks, and a ResNet-50 has \(3, 4, 6, 3\); left over: layer3.6"),
        (state(50), {"depth": 101}, r"\(3, 4, 6, 3\) residual .* a ResNet-101 .*; missing: layer3.6.conv1.weight, "),
        (state(34), {}, r"missing: layer1.0.conv3.weight, .* of another shape: layer1.0.conv1.weight, "),
        (state(50), {"width": 0.5}, "of width 1, and this network is of width 0.5; of another shape: conv1.weight, "),
        (state(50) | {"layer1.0.conv4.weight": torch.ones(1)}, {}, "network's; left over: layer1.0.conv4.weight$"),
        (without("layer2.3.bn2.running_var"), {}, "network's; missing: layer2.3.bn2.running_var$"),
        (state(50) | {"bn1.bias": torch.ones(63)}, {}, "network's; of another shape: bn1.bias$"),
        (dict(meta_net(50).state_dict()), {}, r"missing: layer1.0.conv1.weight, .*; left over: res2.blocks.0.conv1"),
        ({}, {}, "missing: conv1.weight, "),
    ],
    ids=["101", "50", "34", "width", "left over", "missing", "shape", "ours", "empty"],
)  # fmt: skip
def test_weights_of_another_network_are_refused(
    weights: dict[str, Tensor], network: dict[str, Any], message: str
) -> None:
    with pytest.raises(UserError, match=message) as refused:
        inflate_imagenet(meta_net(**network), weights)
    assert len(str(refused.value)) < 400
    assert "\n" not in str(refused.value)


def test_unusable_files_are_refused(tmp_path: Path) -> None:
    net = meta_net(50)
    path = tmp_path / "weights.pth"

    def refusal() -> str:
        with pytest.raises(UserError) as refused:
            load_imagenet(net, path)
        message = str(refused.value)
        assert message.startswith("imagenet: ")
        assert str(path) in message
        assert "\n" not in message
        return message

    assert "there is no file" in refusal()
    path.mkdir()
    assert "can't be read as weights of PyTorch" in refusal()
    path.rmdir()
    for content in (b"", b"not weights", b"PK\x03\x04 cut", b"\x80\x02}q\x00X"):
        path.write_bytes(content)
        assert "can't be read as weights of PyTorch" in refusal()
    torch.save(state(), path)
    path.write_bytes(path.read_bytes()[:-100])
    assert "can't be read as weights of PyTorch" in refusal()
    others: list[Any] = [[torch.ones(1)], {"state_dict": {"conv1.weight": torch.ones(1)}}, {7: torch.ones(1)}]
    for other in others:
        torch.save(other, path)
        assert "holds no state dict" in refusal()
    torch.save({"conv1.weight": torch.ones(1)}, path)
    assert "these weights are not this network's" in refusal()
    torch.save({"conv1.weight": torch.ones(1), "fc.bias": torch.ones(1) / 0}, path)
    assert "not a number, or infinite, in 1 tensors: fc.bias" in refusal()


def test_a_refused_file_changes_nothing(tmp_path: Path) -> None:
    net = VideoResNet(ResNetConfig(50, width=0.0625))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    torch.save({"bn1.bias": torch.ones(4)}, tmp_path / "weights.pth")
    with pytest.raises(UserError):
        load_imagenet(net, tmp_path / "weights.pth")
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, before[name]), name
