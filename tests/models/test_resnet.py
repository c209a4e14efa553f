"""VideoResNet against Table 1, Sec. 3.3 and Sec. 4."""

from typing import Any

import jaxtyping
import pytest
import torch
from torch import Tensor, nn

from nl_lightning.models.conventions import BLOCKS, STAGES, Conventions
from nl_lightning.models.fast import channels_last
from nl_lightning.models.nonlocal_block import NonLocalBlock, NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet, _in_groups

RELEASE = Conventions(profile="release")


def build(*args: Any, device: str = "meta", **kwargs: Any) -> VideoResNet:
    with torch.device(device):
        return VideoResNet(ResNetConfig(*args, **kwargs)).eval()


def sizes(net: VideoResNet, clip: tuple[int, int, int]) -> dict[str, tuple[int, ...]]:
    """Channels and sizes (T, H, W) of every layer's output for one clip of (T, H, W), by name."""
    found: dict[str, tuple[int, ...]] = {}
    for name, layer in net.named_children():
        layer.register_forward_hook(lambda _, __, out, name=name: found.update({name: tuple(out.shape[1:])}))
    net(torch.empty(1, 3, *clip, device=net.fc.weight.device))
    return found


TABLE_1 = {
    "conv1": (64, 16, 112, 112),
    "pool1": (64, 8, 56, 56),
    "res2": (256, 8, 56, 56),
    "pool2": (256, 4, 56, 56),
    "res3": (512, 4, 28, 28),
    "res4": (1024, 4, 14, 14),
    "res5": (2048, 4, 7, 7),
    "fc": (400,),
}


@pytest.mark.parametrize("inflate", ["none", "3x1x1", "3x3x3"])
@pytest.mark.parametrize("depth", [50, 101])
def test_sizes_of_table_1(depth: Any, inflate: Any) -> None:
    found = sizes(build(depth, inflate), (32, 224, 224))
    assert {name: found[name] for name in TABLE_1} == TABLE_1


@pytest.mark.parametrize("inflate", ["none", "3x1x1"])
def test_sizes_of_the_released_code(inflate: Any) -> None:
    """Unpadded pools: 55 x 55 in res2, and Table 1's sizes after it."""
    found = sizes(build(50, inflate, conventions=RELEASE), (32, 224, 224))
    small = {"pool1": (64, 8, 55, 55), "res2": (256, 8, 55, 55), "pool2": (256, 4, 55, 55)}
    assert {name: found[name] for name in TABLE_1} == TABLE_1 | small
    testing = sizes(build(50, inflate, conventions=RELEASE), (32, 256, 256))
    assert testing["res2"] == (256, 8, 63, 63)
    assert testing["res5"] == (2048, 4, 8, 8)


@pytest.mark.parametrize("profile", ["paper", "release"])
def test_128_frames_are_four_times_as_long_in_every_layer(profile: Any) -> None:
    short, long = (
        sizes(build(50, "3x1x1", conventions=Conventions(profile=profile)), (frames, 224, 224)) for frames in (32, 128)
    )
    for name in TABLE_1.keys() - {"fc"}:
        channels, t, *places = short[name]
        assert long[name] == (channels, 4 * t, *places)


@pytest.mark.parametrize("profile", ["paper", "release"])
def test_pools_without_stride_in_time_keep_frames_apart(profile: Any) -> None:
    """With temporal strides of 1, a frame's features in C2D are its own."""
    conventions = Conventions(profile=profile)
    net = build(50, width=0.0625, temporal_strides=(1, 1, 1), conventions=conventions, device="cpu")
    found: list[Tensor] = []
    net.res5.register_forward_hook(lambda _, __, out: found.append(out))
    clip = torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        net(clip)
        net(clip[:, :, [3, 1, 0, 2]])
    torch.testing.assert_close(found[0][:, :, [3, 1, 0, 2]], found[1])
    assert found[0].std(dim=2).max() > 0.01


def kernels(net: VideoResNet) -> dict[str, list[tuple[int, int]]]:
    """Temporal sizes of the first 1x1 and of the 3x3 of each residual block, by stage."""
    return {
        stage: [(b.conv1.kernel_size[0], b.conv2.kernel_size[0]) for b in getattr(net, stage).blocks]
        for stage in STAGES
    }


@pytest.mark.parametrize("depth", [50, 101])
@pytest.mark.parametrize(("inflate", "inflated"), [("3x1x1", (3, 1)), ("3x3x3", (1, 3))])
def test_inflated_kernels(inflate: Any, inflated: tuple[int, int], depth: Any) -> None:
    """One for every two residual blocks (Sec. 4); the released code inflates all of res2."""
    yes, no = inflated, (1, 1)
    res4 = [yes, no] * 3 if depth == 50 else [yes, no] * 11 + [yes]
    alternate = {"res2": [yes, no, yes], "res3": [yes, no] * 2, "res4": res4, "res5": [no, yes, no]}
    assert kernels(build(depth, inflate)) == alternate
    assert kernels(build(depth, inflate, conventions=RELEASE)) == alternate | {"res2": [yes] * 3}
    assert build(depth, inflate).conv1.kernel_size == (5, 7, 7)


def test_c2d_has_no_kernel_in_time() -> None:
    convolutions = [m for m in build(101).modules() if isinstance(m, nn.Conv3d)]
    assert len(convolutions) == 1 + 3 * 33 + 4  # conv1, residual blocks, shortcuts
    assert {conv.kernel_size[0] for conv in convolutions} == {1}


def test_the_3x3_strides() -> None:
    net = build(50)
    for stage, stride in zip(STAGES, (1, 2, 2, 2), strict=True):
        first = net.get_submodule(f"{stage}.blocks.0")
        assert first.conv1.stride == (1, 1, 1)
        assert first.conv2.stride == first.get_submodule("downsample.0").stride == (1, stride, stride)


@pytest.mark.parametrize(
    ("depth", "placement"),
    [
        (50, {"res4": [4]}),
        (50, {"res3": [1, 3], "res4": [1, 3, 5]}),
        (101, {"res3": [1, 3], "res4": [6, 13, 20]}),
        (101, {"res2": [2], "res3": [0, 1, 2, 3], "res4": [22], "res5": [1]}),
    ],
)
def test_non_local_blocks_follow_the_residual_blocks_of_the_placement(
    depth: Any, placement: dict[str, list[int]]
) -> None:
    net = build(depth, non_local=NonLocalConfig(placement, "dot_product", "space", subsample=False))
    called: list[str] = []
    for name, module in net.named_modules():
        if name.count(".") == 2 and name.startswith("res"):
            module.register_forward_hook(lambda _, __, ___, name=name: called.append(name))
    net(torch.empty(1, 3, 32, 64, 64, device="meta"))
    expected = []
    for stage, blocks in zip(STAGES, BLOCKS[depth], strict=True):
        for block in range(blocks):
            expected.append(f"{stage}.blocks.{block}")
            if block in placement.get(stage, []):
                expected.append(f"{stage}.non_local.{block}")
    assert called == expected
    for module in net.modules():
        if isinstance(module, NonLocalBlock):
            assert module.instantiation == "dot_product"
            assert module.sum_over == "space"
            assert isinstance(module.pool, nn.Identity)
            assert module.dim_inner == module.W_z.out_channels // 2


def test_new_non_local_blocks_change_nothing() -> None:
    placement = {"res3": [1, 3], "res4": [1, 3, 5]}
    plain = build(50, width=0.125, device="cpu")
    grown = build(50, width=0.125, non_local=NonLocalConfig(placement), device="cpu")
    absent = grown.load_state_dict(plain.state_dict(), strict=False)
    assert not absent.unexpected_keys
    assert all(".non_local." in name for name in absent.missing_keys)
    clip = torch.randn(2, 3, 8, 32, 32)
    with torch.no_grad():
        assert torch.equal(plain(clip), grown(clip))


@pytest.mark.parametrize("inflate", ["none", "3x1x1", "3x3x3"])
def test_memory_layout_does_not_matter(inflate: Any) -> None:
    net = build(50, inflate, width=0.125, num_classes=7, device="cpu").double()
    clip = torch.randn(2, 3, 9, 33, 31, dtype=torch.float64)
    with torch.no_grad():
        contiguous, last = net(clip), net.to(memory_format=torch.channels_last_3d)(channels_last(clip))
    assert contiguous.shape == (2, 7)
    torch.testing.assert_close(contiguous, last)


@pytest.mark.parametrize(("width", "channels"), [(1.0, 64), (0.5, 32), (0.25, 16), (0.0625, 4)])
def test_width_scales_every_layer(width: float, channels: int) -> None:
    found = sizes(build(50, width=width), (32, 224, 224))
    factors = {"conv1": 1, "res2": 4, "res3": 8, "res4": 16, "res5": 32}
    assert {name: found[name][0] for name in factors} == {k: channels * f for k, f in factors.items()}


def test_initialisation() -> None:
    torch.manual_seed(0)
    for conventions, gamma in ((Conventions(), 1.0), (RELEASE, 0.0)):
        net = build(50, "3x1x1", conventions=conventions, width=0.5, device="cpu")
        for name, module in net.named_modules():
            if isinstance(module, nn.Conv3d):  # He et al., by the outputs of a kernel
                fan_out = module.out_channels * module.weight[0, 0].numel()
                sampling = 5 / (2 * module.weight.numel()) ** 0.5
                assert module.weight.std().item() == pytest.approx((2 / fan_out) ** 0.5, rel=sampling), name
            if isinstance(module, nn.BatchNorm3d):
                assert (module.weight == (gamma if name.endswith("bn3") else 1.0)).all(), name
                assert not module.bias.any(), name
        assert net.fc.weight.std().item() == pytest.approx(0.01, rel=0.01)
        assert not net.fc.bias.any()


def test_dropout_acts_in_training_only() -> None:
    net = build(50, width=0.0625, dropout=0.5, device="cpu")
    kept: list[Tensor] = []
    net.dropout.register_forward_hook(lambda _, inputs, out: kept.append(out[inputs[0] != 0]))  # ReLU gives zeros, too
    clip = torch.randn(2, 3, 8, 64, 64)
    with torch.no_grad():
        net.eval()(clip)
        net.train()(clip)
    zeros = [(features == 0).float().mean().item() for features in kept]
    assert zeros[0] == 0
    assert 0.4 < zeros[1] < 0.6


@pytest.mark.parametrize(
    ("placement", "message"),
    [
        ({"res4": [6]}, "res4 of ResNet-50 has the residual blocks 0 to 5, not 6"),
        ({"res2": [-1]}, "res2 of ResNet-50 has the residual blocks 0 to 2, not -1"),
        ({"conv4": [1]}, "placement: expected a stage of res2, res3, res4, res5, not 'conv4'"),
        ({"res3": [1, 3, 1]}, "placement.res3: residual block 1 is named twice"),
    ],
)
def test_bad_placements_are_refused(placement: dict[str, list[int]], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        ResNetConfig(non_local=NonLocalConfig(placement))


def test_unknown_networks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)  # a user doesn't have the tests' type checks
    with pytest.raises(ValueError, match="depth: expected one of 50, 101, not 34"):
        ResNetConfig(34)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="inflate: expected one of none, 3x1x1, 3x3x3, not '3x3'"):
        ResNetConfig(inflate="3x3")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("frames", "strides", "res2", "res3"),
    [(32, (2, 2, 2), 8, 4), (8, (1, 1, 2), 8, 4), (128, (2, 2, 2), 32, 16), (32, (1, 1, 2), 32, 16)],
    ids=["32x2", "8x8", "128x1", "32x4"],
)
def test_frames_of_the_released_inputs(frames: int, strides: Any, res2: int, res3: int) -> None:
    """Features of 32x2 and 8x8 are of one length, and those of 128x1 and 32x4."""
    net = build(50, conventions=RELEASE, temporal_strides=strides)
    found = sizes(net, (frames, 64, 64))
    assert (found["res2"][1], found["res3"][1], found["res5"][1]) == (res2, res3, res3)


def test_pools_of_the_ports() -> None:
    """pool1 takes every other frame alone where it strides in time, and both pools give the sizes of Table 1."""
    net = build(50, conventions=Conventions("release", max_pool="padded_in_space"))
    found = sizes(net, (32, 224, 224))
    assert (found["pool1"][1:], found["pool2"][1:], found["res5"][1:]) == ((8, 56, 56), (4, 56, 56), (4, 7, 7))
    x = torch.randn(1, 2, 4, 6, 6)
    torch.testing.assert_close(net.pool1(x), nn.functional.max_pool3d(x, (1, 3, 3), (2, 2, 2), (0, 1, 1)))


def test_groups_of_frames_see_nothing_of_each_other() -> None:
    """Released code, long clips: blocks of res3 on 4 frames each, those of res4 on all."""
    torch.manual_seed(0)
    blocks = NonLocalConfig({"res3": [1], "res4": [1]})
    conventions = Conventions("release", res3_group=4, nonlocal_gamma=1.0)
    net = build(50, width=1 / 32, non_local=blocks, conventions=conventions, device="cpu").eval()
    block = net.res3.non_local["1"]
    x = torch.randn(2, net.res3.blocks[1].conv3.out_channels, 8, 6, 6)
    with torch.no_grad():
        whole = torch.cat([block(x[:, :, :4]), block(x[:, :, 4:])], dim=2)
        torch.testing.assert_close(_in_groups(block, x, 4), whole)
        assert not torch.allclose(_in_groups(block, x, 0), whole)
        assert (net.res3.group, net.res4.group) == (4, 0)
        net(torch.randn(1, 3, 64, 32, 32))
        with pytest.raises(ValueError, match="res3_group is 4, but res3 has 6 frames"):
            net(torch.randn(1, 3, 48, 32, 32))


def test_affine_blocks_have_no_statistics_and_start_as_the_identity() -> None:
    torch.manual_seed(0)
    blocks = NonLocalConfig({"res4": [1]})
    for norm in ("none", "affine"):
        conventions = Conventions("release", norm="affine", nonlocal_norm=norm)  # type: ignore[arg-type]
        net = build(50, width=1 / 32, non_local=blocks, conventions=conventions, device="cpu")
        assert not [name for name in net.state_dict() if "running" in name]
        x = torch.randn(1, net.res4.blocks[1].conv3.out_channels, 2, 4, 4)
        torch.testing.assert_close(net.res4.non_local["1"](x), x)


def test_the_classifier_at_every_place_of_a_larger_frame() -> None:
    """Each place is the network's answer for the features of that window; a window of all is the plain network."""
    torch.manual_seed(0)
    net = build(50, width=1 / 32, device="cpu").eval()
    clip = torch.randn(2, 3, 8, 64, 128)  # res5 is 2 x 4
    with torch.no_grad():
        places = net.logits_at_places(clip, 2)
        features = net.features(clip)
        expected = [net.fc(features[..., left : left + 2].mean(dim=(2, 3, 4))) for left in range(3)]
        torch.testing.assert_close(places, torch.stack(expected, dim=1))
        square = clip[..., :64]
        torch.testing.assert_close(net.logits_at_places(square, 2)[:, 0], net(square))
        with pytest.raises(ValueError, match="test_pool is 3, but res5 is 2 x 4 here"):
            net.logits_at_places(clip, 3)


def trained(net: VideoResNet, clip: Tensor) -> list[Tensor]:
    """The gradients of one step, and the state of BN after it."""
    net.zero_grad()
    net.train()(clip).square().sum().backward()
    return [*(p.grad for p in net.parameters() if p.grad is not None), *net.buffers()]


def test_recomputed_activations_change_nothing() -> None:
    """Gradients and BN's statistics are those of keeping everything, bit for bit."""
    blocks = NonLocalConfig({"res3": [1]})
    clip = channels_last(torch.randn(2, 3, 4, 32, 32, generator=torch.Generator().manual_seed(0)))
    found = []
    for recompute in (False, True):
        torch.manual_seed(0)
        net = build(50, "3x1x1", blocks, device="cpu", width=0.0625, dropout=0.0)
        net.recompute(recompute)
        found.append(trained(net, clip))
    torch.testing.assert_close(*found, rtol=0, atol=0)


def test_no_layer_is_narrower_than_the_fewest_channels() -> None:
    """conv1 and res2 of a sixteenth have 4 channels; nothing else differs."""
    narrow, wider = (ResNetConfig(width=1 / 16, min_channels=least) for least in (1, 8))
    shapes = [{name: t.shape for name, t in VideoResNet(config).state_dict().items()} for config in (narrow, wider)]
    assert shapes[0]["res2.blocks.0.conv2.weight"][:2] == (4, 4)
    assert shapes[1]["res2.blocks.0.conv2.weight"][:2] == (8, 8)
    assert shapes[1]["res2.blocks.2.conv3.weight"][:2] == (32, 8)
    differ = {name.split(".")[0] for name in shapes[0] if shapes[0][name] != shapes[1][name]}
    assert differ == {"conv1", "bn1", "res2", "res3"}  # res3 takes what res2 gives
    assert all(min(shape[:1]) >= 8 for name, shape in shapes[1].items() if name.endswith("conv1.weight"))
    assert VideoResNet(ResNetConfig(min_channels=8)).conv1.weight.shape[0] == 64
