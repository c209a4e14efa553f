"""Controls against loops over positions, and what is promised of them: identity at start, no order, equal cost."""

import copy
import dataclasses
import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from networks import every_variant, network
from torch import Tensor, nn

from nl_lightning.errors import UserError
from nl_lightning.inspect.attention import block_named
from nl_lightning.models.complexity import complexity
from nl_lightning.models.controls import Context, HiddenLinear
from nl_lightning.models.conventions import CONTROLS, ControlConfig, Conventions
from nl_lightning.models.fast import FastVideoResNet, for_testing, use_kernels
from nl_lightning.models.nonlocal_block import NonLocalBlock, NonLocalConfig
from nl_lightning.models.resnet import Bottleneck, ResNetConfig, VideoResNet
from nl_lightning.study.recipe import load_recipe
from nl_lightning.train.start import init_from
from nl_lightning.weights.exporting import export_weights
from nl_lightning.weights.file import InputSettings, WeightsHeader, header_from_json, load_weights, save_weights

PLACED = ("average", "query_independent", "residual")
ONE = {"res4": [4]}


def control(kind: Any, **more: Any) -> ControlConfig:
    return ControlConfig(kind, {"res3": [1], **ONE} if kind in PLACED else {}, **more)


def small(given: ControlConfig | None, **net: Any) -> ResNetConfig:
    """A network of 8 x 8 positions for clips of 4 x 32 x 32; no layer has a single channel."""
    sizes: dict[str, Any] = {"temporal_strides": (1, 1, 2), "spatial_strides": (2, 2, 1, 1, 1, 1)}
    return ResNetConfig(num_classes=7, width=1 / 32, dropout=0.0, control=given, **sizes, **net)


def trained(net: VideoResNet) -> VideoResNet:
    """As after some training: no layer is as it is initialised."""
    torch.manual_seed(1)
    for parameter in net.parameters():
        nn.init.normal_(parameter, 0.2 if parameter.ndim > 1 else 0.7, 0.3)
    for norm in net.modules():
        if isinstance(norm, nn.BatchNorm3d):
            nn.init.normal_(norm.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(norm.running_var, 0.5, 2)  # type: ignore[arg-type]
    return net.eval()


def clip(count: int = 2) -> Tensor:
    return torch.randn(count, 3, 4, 32, 32, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


# ------------------------------------------------------------------------------------------- against loops


@pytest.mark.parametrize("attends", [False, True])
def test_a_context_is_a_loop_over_positions(attends: bool) -> None:
    torch.manual_seed(0)
    block = Context(6, 4, attends).double()
    for parameter in block.parameters():
        nn.init.normal_(parameter)
    x = torch.randn(2, 6, 3, 4, 5, dtype=torch.float64)
    p = {name: tensor.numpy().squeeze() for name, tensor in block.state_dict().items()}
    expected = np.empty(x.shape)
    for n, video in enumerate(x.numpy()):
        positions = list(np.ndindex(3, 4, 5))
        f = {j: np.exp(p["w.weight"] @ video[:, *j]) if attends else 1.0 for j in positions}
        y = sum(f[j] * (p["g.weight"] @ video[:, *j] + p["g.bias"]) for j in positions) / sum(f.values())
        y = (y - y.mean()) / np.sqrt(y.var() + 1e-5) * p["norm.weight"] + p["norm.bias"]
        z = p["W_z.weight"] @ np.maximum(y, 0) + p["W_z.bias"]
        for i in positions:
            expected[n][:, *i] = video[:, *i] + z
    np.testing.assert_allclose(block(x).detach().numpy(), expected, rtol=1e-9)


def normalised(y: Any, norm: Any) -> Any:
    mean, var, scale, shift = (
        tensor.detach().numpy() for tensor in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
    )
    return (y - mean) / np.sqrt(var + norm.eps) * scale + shift


def test_a_plain_residual_block_is_a_loop_over_neighbours() -> None:
    block: Any = trained(VideoResNet(small(control("residual", hidden=0.4)))).double().res3.non_local["1"]
    assert (block.conv1.out_channels, block.conv3.out_channels) == (6, 16)
    x = torch.randn(1, 16, 2, 3, 4, dtype=torch.float64)
    w1, w2, w3 = (conv.weight.detach().numpy()[:, :, 0] for conv in (block.conv1, block.conv2, block.conv3))
    a, z = np.zeros((6, 2, 5, 6)), np.empty(x.shape[1:])  # a has a border of zeros
    for t, y, k in np.ndindex(2, 3, 4):
        a[:, t, y + 1, k + 1] = np.maximum(normalised(w1[..., 0, 0] @ x[0, :, t, y, k].numpy(), block.bn1), 0)
    for t, y, k in np.ndindex(2, 3, 4):
        b = sum(w2[..., dy, dx] @ a[:, t, y + dy, k + dx] for dy, dx in itertools.product(range(3), range(3)))
        c = w3[..., 0, 0] @ np.maximum(normalised(b, block.bn2), 0)
        z[:, t, y, k] = np.maximum(normalised(c, block.bn3) + x[0, :, t, y, k].numpy(), 0)
    np.testing.assert_allclose(block(x)[0].detach().numpy(), z, rtol=1e-9)


def classified(net: VideoResNet, pooled: Any) -> Any:
    p = {name: tensor.numpy() for name, tensor in net.fc.state_dict().items()}
    return p["weight"] @ np.maximum(p["hidden.weight"] @ pooled + p["hidden.bias"], 0) + p["bias"]


def test_a_hidden_layer_after_pooling() -> None:
    net = trained(VideoResNet(small(control("hidden")))).double()
    assert isinstance(net.fc, HiddenLinear)
    assert (net.fc.hidden.in_features, net.fc.hidden.out_features) == (64, 16)
    pooled = net.features(clip(1))[0].mean(dim=(1, 2, 3)).detach().numpy()
    np.testing.assert_allclose(net(clip(1))[0].detach().numpy(), classified(net, pooled), rtol=1e-9)


def test_the_one_pixel_network_is_a_loop_over_pixels() -> None:
    net = trained(VideoResNet(small(control("pixel")))).double()
    weight, video = net.conv1.weight.detach().numpy().reshape(16, 3), clip(1)[0].numpy()
    seen = [np.maximum(normalised(weight @ video[:, *j], net.bn1), 0) for j in np.ndindex(video.shape[1:])]
    np.testing.assert_allclose(net(clip(1))[0].detach().numpy(), classified(net, np.mean(seen, axis=0)), rtol=1e-9)


# ------------------------------------------------------------------------------------- what is promised of each


@pytest.mark.parametrize("attends", [False, True])
def test_a_context_does_not_know_where_positions_are(attends: bool) -> None:
    block = Context(6, 3, attends).double()
    nn.init.normal_(block.W_z.weight)
    x = torch.randn(2, 6, 3, 4, 5, dtype=torch.float64)
    order = torch.randperm(60)
    shuffled = x.flatten(2)[..., order].unflatten(2, x.shape[2:])
    torch.testing.assert_close(block(shuffled).flatten(2), block(x).flatten(2)[..., order])
    added = (block(x) - x).flatten(2)
    torch.testing.assert_close(added, added[..., :1].expand_as(added))  # the same at every position
    assert added.abs().max() > 0.01


def test_the_one_pixel_network_does_not_know_where_pixels_are() -> None:
    x = clip()
    shuffled = x.flatten(2)[..., torch.randperm(x[0, 0].numel())].unflatten(2, x.shape[2:])
    for kind, alike in (("pixel", True), ("hidden", False)):
        net = trained(VideoResNet(small(control(kind)))).double()
        assert torch.allclose(net(shuffled), net(x), rtol=1e-9) == alike


@pytest.mark.parametrize(
    ("kind", "inflate"), [("average", "none"), ("query_independent", "3x1x1"), ("residual", "3x1x1")]
)
def test_what_stands_for_a_block_starts_as_the_identity(kind: Any, inflate: Any) -> None:
    """The network is the one without it, and a block's place is where a non-local block would be."""
    net = VideoResNet(small(control(kind), inflate=inflate)).double().eval()
    plain = VideoResNet(small(None, inflate=inflate)).double().eval()
    loaded = plain.load_state_dict(net.state_dict(), strict=False)
    assert not loaded.missing_keys
    assert {name.rpartition(".non_local.")[0] for name in loaded.unexpected_keys} == {"res3", "res4"}
    torch.testing.assert_close(net(clip()), plain(clip()), rtol=0, atol=0)
    net.train()(clip()).square().sum().backward()
    last = net.res4.non_local["4"].get_submodule("bn3" if kind == "residual" else "W_z")
    assert last.weight.grad.abs().max() > 0  # and can learn


@pytest.mark.parametrize("recipe", ["longrange", "match"])
@pytest.mark.parametrize(
    ("residual", "block", "places"),
    [("c2d_r50_residual1", "c2d_r50_nl1_res4", (0, 1)), ("c2d_r50_residual5", "c2d_r50_nl5", (2, 3))],
)
def test_plain_residual_blocks_cost_what_non_local_blocks_cost(
    recipe: str, residual: str, block: str, places: tuple[int, int]
) -> None:
    """Claim c3: multiply-adds of the study's networks under these recipes, as near as whole channels allow."""
    config = load_recipe(recipe).config
    sizes = {key: value for key, value in config["model"]["net"].items() if key not in ("conventions", "dropout")}
    nets = [dataclasses.replace(network(every_variant()[name]), **sizes) for name in ("c2d_r50", residual, block)]
    clip = (config["data"]["num_frames"], config["data"]["crop"], config["data"]["crop"])
    base, found, wanted = (complexity(net, clip).macs for net in nets)

    def cost(hidden: float) -> int:
        """256 positions of 32 channels in res3 and of 64 in res4."""
        each = [(c, round(c * hidden)) for c in (32, 64)]
        return sum(n * 256 * (2 * c * d + 9 * d * d) for n, (c, d) in zip(places, each, strict=True))

    control = nets[1].control
    assert control is not None
    assert cost(control.hidden or 0) == found - base
    nearest = min((cost(percent / 100) for percent in range(20, 80)), key=lambda macs: abs(macs - wanted + base))
    assert nearest == found - base == pytest.approx(wanted - base, rel=0.03)


def test_costs_are_counted() -> None:
    """Table 1's clip: res4 has 4 x 14 x 14 positions of 1024 channels; res5 has 2048 channels."""
    base, c, d, positions = complexity(ResNetConfig()), 1024, 512, 784
    added = {
        kind: complexity(ResNetConfig(control=ControlConfig(kind, ONE if kind in PLACED else {}))).macs - base.macs
        for kind in CONTROLS
    }
    hidden = 2048 * d + d * 400 - 2048 * 400
    pixel = 3 * d * 32 * 224 * 224 + d * d + d * 400 - base.macs
    residual = positions * (2 * c * 256 + 9 * 256 * 256)
    assert added == {
        "hidden": hidden, "average": 2 * c * d, "query_independent": 2 * c * d + 2 * positions * c,
        "residual": residual, "pixel": pixel,
    }  # fmt: skip


@pytest.mark.parametrize("kind", CONTROLS)
@torch.no_grad()
def test_fast_is_the_definition(kind: Any) -> None:
    """Also where testing slides a window over res5. (In training: `test_every_variant_is_its_definition`.)"""
    config = small(control(kind), inflate="3x1x1", conventions=Conventions("release", max_pool="padded"))
    plain = trained(VideoResNet(config)).double()
    quick = use_kernels(copy.deepcopy(plain))
    assert isinstance(quick, FastVideoResNet)
    expected = plain(clip())
    for net in (quick, for_testing(quick)):
        torch.testing.assert_close(net(clip()), expected)
    torch.testing.assert_close(quick.logits_at_places(clip(), 8), expected[:, None])
    assert quick.logits_at_places(clip(), 7).shape == (2, 4, 7)


# -------------------------------------------------------------------------------------------- settings and files


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"kind": "mean"}, "kind: expected one of hidden, average, query_independent, residual, pixel, not 'mean'"),
        ({"kind": "average"}, "placement: average stands in the place of blocks: name stages and residual blocks"),
        ({"kind": "pixel", "placement": ONE}, "placement: pixel has no place in a stage; leave it out"),
        ({"kind": "hidden", "hidden": 0}, "hidden: expected a share of the channels, above 0 and up to 8, not 0"),
        ({"kind": "residual", "placement": {"res4": [6]}}, "control.placement.res4: .* 0 to 5, not 6"),
        ({"kind": "average", "placement": {"res6": [1]}}, "control.placement: expected a stage of res2, .*not 'res6'"),
        ({"kind": "average", "placement": ONE, "blocks": True}, "control: average stands in the place of non-local"),
    ],
)
def test_bad_settings_get_one_line(given: dict[str, Any], message: str) -> None:
    blocks = NonLocalConfig(ONE) if given.pop("blocks", None) else None
    with pytest.raises(UserError, match=message) as refused:
        ResNetConfig(non_local=blocks, control=ControlConfig(**given))
    assert "\n" not in str(refused.value)


def test_a_hidden_layer_may_follow_non_local_blocks() -> None:
    net = VideoResNet(small(control("hidden", hidden=0.5), non_local=NonLocalConfig(ONE)))
    assert isinstance(net.res4.non_local["4"], NonLocalBlock)
    assert net.fc.in_features == 32


@pytest.mark.parametrize("kind", CONTROLS)
def test_weight_files_hold_controls(kind: Any, tmp_path: Path) -> None:
    config = small(control(kind, hidden=0.5))
    net = trained(VideoResNet(config))
    path = tmp_path / "control.safetensors"
    save_weights(path, net.state_dict(), WeightsHeader(config, InputSettings(8, 2), "nl-lightning", ""))
    loaded, header = load_weights(path)
    assert header.net.control == config.control
    torch.testing.assert_close(loaded(clip().float()), net(clip().float()), rtol=1e-4, atol=1e-4)
    with pytest.raises(UserError, match=f"caffe2 has no control networks, such as this one with {kind}"):
        export_weights(path, tmp_path / "caffe2.pkl", "caffe2")
    with pytest.raises(UserError, match="block: this network has no non-local block"):
        block_named(net, "res4.4")


@pytest.mark.parametrize(("kind", "new"), [("hidden", ["fc"]), ("average", ["res3.non_local.1", "res4.non_local.4"])])
def test_controls_start_from_weights_without(kind: Any, new: list[str], tmp_path: Path) -> None:
    """As non-local blocks do: what the file lacks stays new, all else is the file's."""
    plain, path = trained(VideoResNet(small(None))), tmp_path / "plain.safetensors"
    tensors = {name: tensor for name, tensor in plain.state_dict().items() if not name.startswith("fc.")}
    save_weights(path, tensors, WeightsHeader(plain.config, InputSettings(8, 2), "nl-lightning", "", classifier=False))
    net = VideoResNet(small(control(kind), inflate="3x1x1"))
    assert init_from(net, path, ["non_local"]) == [*(part for part in new if part != "fc"), "fc"]
    torch.testing.assert_close(net.res4.blocks[4].conv2.weight, plain.res4.blocks[4].conv2.weight)


def test_headers_of_other_networks_are_as_before() -> None:
    header = WeightsHeader(ResNetConfig(), InputSettings(8, 2), "nl-lightning", "")
    assert not {"control", "min_channels"} & json.loads(header.to_json())["net"].keys()
    assert header_from_json(header.to_json(), "header").net.control is None


def test_a_plain_residual_block_is_one_of_the_networks_own() -> None:
    net = VideoResNet(small(control("residual")))
    assert type(net.res4.non_local["4"]) is Bottleneck  # fast kernels know it
