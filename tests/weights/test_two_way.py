"""Weights of others, imported, compute what the others compute: logits, every layer, and inside every block.

pytorchvideo's, torchvision's and mmcv's own code is run; the other networks are written in conftest.py from what is
documented of them. All have random weights and random BN statistics.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from nl_lightning.models.resnet import VideoResNet
from nl_lightning.weights.file import load_weights
from nl_lightning.weights.importing import import_weights, translate
from nl_lightning.weights.wrappers import unwrapped

RELATIVE = 1e-4


def imported(content: Any, tmp_path: Path, **kwargs: Any) -> VideoResNet:
    """Save, import, load."""
    torch.save(content, tmp_path / "theirs.pth")
    import_weights(tmp_path / "theirs.pth", tmp_path / "ours.safetensors", **kwargs)
    return load_weights(tmp_path / "ours.safetensors")[0]


def assert_close(ours: Tensor, theirs: Tensor, name: str) -> None:
    assert ours.shape == theirs.shape, name
    assert (ours - theirs).abs().max() <= RELATIVE * theirs.abs().max(), name
    assert theirs.std() > 0, name


def clip(*shape: int) -> Tensor:
    """A random clip (N, 3, T, H, W), or image."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(1))


def watch(module: nn.Module, name: str, seen: dict[str, Tensor]) -> None:
    """Keep what the module puts out first, under a name."""

    def keep(_: nn.Module, __: Any, out: Tensor) -> None:
        seen.setdefault(name, out.clone())

    module.register_forward_hook(keep)


def activations(net: VideoResNet, x: Tensor) -> tuple[Tensor, dict[str, Tensor]]:
    """Logits, and the outputs of every layer, residual block and block, by our names."""
    seen: dict[str, Tensor] = {}
    net.pool1.register_forward_pre_hook(lambda _, inputs: seen.update(conv1=inputs[0].clone()))
    for name, module in net.named_modules():
        watch(module, name, seen)
    with torch.no_grad():
        logits = net(x)
    return logits, seen


def compare(net: VideoResNet, theirs: Any, x: Tensor, inside: tuple[str, ...] = ("theta", "phi", "g", "W_z")) -> None:
    """A reference network of conftest.py against ours."""
    expected = theirs(x)
    logits, seen = activations(net, x)
    assert_close(logits, expected, "logits")
    for name, activation in theirs.seen.items():
        assert_close(seen[name], activation, name)
    layers = {"conv1", "res2", "res3", "res4", "res5"}
    blocks = {f"res{s}.non_local.{b}" for s, after in theirs.nonlocal_after.items() for b in after}
    assert theirs.seen.keys() >= layers | blocks | {f"{block}.{part}" for block in blocks for part in inside}


CLIPS = {"32x2": (2, 2, 2), "8x8": (1, 1, 2)}


@pytest.mark.parametrize("variant", CLIPS)
@pytest.mark.parametrize("i3d", [True, False])
def test_released_code(variant: str, i3d: bool, reference: Any, tmp_path: Path) -> None:
    strides = CLIPS[variant]
    theirs = reference("caffe2", i3d=i3d, strides=strides, pool1=strides[1])
    net = imported({"blobs": theirs.tensors}, tmp_path, variant=variant)
    frames = int(variant.split("x")[0]) // 2
    compare(net, theirs, clip(2, 3, frames, 64, 96))


def test_released_code_on_long_clips(reference: Any, tmp_path: Path) -> None:
    """BN folded, no BN in the blocks, those of res3 on 4 frames at a time."""
    theirs = reference("caffe2", folded=True, group=4)
    net = imported({"blobs": theirs.tensors}, tmp_path, variant="128x1")
    compare(net, theirs, clip(1, 3, 64, 64, 64))


def test_released_code_with_dot_products(reference: Any, tmp_path: Path) -> None:
    theirs = reference("caffe2", dot_product=True)
    net = imported({"blobs": theirs.tensors}, tmp_path, variant="32x2 dot_product")
    compare(net, theirs, clip(1, 3, 16, 64, 64))


@pytest.mark.parametrize("said", ["softmax", "dot_product"])
def test_slowfast(said: str, reference: Any, tmp_path: Path) -> None:
    theirs = reference(
        "slowfast", dot_product=said == "dot_product", strides=(1, 1, 2), pool1=1, pool1_padding=1
    )  # fmt: skip
    cfg = f"DATA: {{NUM_FRAMES: 8, SAMPLING_RATE: 8}}\nMODEL: {{ARCH: i3d}}\nNONLOCAL: {{INSTANTIATION: {said}}}\n"
    net = imported({"epoch": 3, "model_state": theirs.tensors, "cfg": cfg}, tmp_path)
    compare(net, theirs, clip(2, 3, 8, 64, 80))


def test_slowfast_with_strides_of_its_configuration(reference: Any, tmp_path: Path) -> None:
    """res5 doesn't stride, as where its features are wanted in detail."""
    theirs = reference("slowfast", strides=(1, 1, 2), pool1=1, pool1_padding=1, spatial=(1, 2, 2, 1))
    cfg = "RESNET: {SPATIAL_STRIDES: [[1], [2], [2], [1]]}\nNONLOCAL: {INSTANTIATION: softmax}\n"
    compare(imported({"model_state": theirs.tensors, "cfg": cfg}, tmp_path), theirs, clip(1, 3, 8, 64, 80))


def test_slowfasts_caffe2_files(reference: Any, tmp_path: Path) -> None:
    """The released code's names, and PySlowFast's pools."""
    theirs = reference("caffe2", strides=(1, 1, 2), pool1=1, pool1_padding=1)
    net = imported(theirs.tensors, tmp_path, source="slowfast", variant="8x8 embedded_gaussian")
    compare(net, theirs, clip(1, 3, 8, 64, 64))


def test_tushar_n(reference: Any, tmp_path: Path) -> None:
    theirs = reference("tushar_n")
    compare(imported(theirs.tensors, tmp_path), theirs, clip(1, 3, 16, 64, 64))


@pytest.mark.parametrize("mode", ["embedded_gaussian", "dot_product", "gaussian", "concatenation", "none"])
def test_mmaction2(mode: str, reference: Any, tmp_path: Path) -> None:
    """With mmcv's own block, in its place in the network."""
    from mmcv.cnn.bricks.non_local import NonLocal3d

    def block(channels: int) -> nn.Module:
        return NonLocal3d(channels, sub_sample=True, use_scale=False, norm_cfg={"type": "BN3d"}, mode=mode)

    placed = {} if mode == "none" else {3: (1, 3), 4: (1, 3, 5)}
    theirs = reference("mmaction2", modules=block, pool1=1, pool1_padding=1, width=1 / 16, nonlocal_after=placed)
    said = mode if mode in ("embedded_gaussian", "dot_product") else None  # tensors tell the others
    state = {**theirs.tensors, "data_preprocessor.mean": torch.zeros(3, 1, 1, 1)}  # as its training leaves it
    net = imported({"meta": {"epoch": 1}, "state_dict": state}, tmp_path, variant=said)
    compare(net, theirs, clip(1, 3, 16, 64, 64), inside=())


@pytest.mark.parametrize("said", ["", "use_scale=True, ", "use_scale=False, "])
def test_mmaction2_with_the_scale_of_its_configuration(said: str, reference: Any, tmp_path: Path) -> None:
    """mmcv scales unless it is told not to."""
    from mmcv.cnn.bricks.non_local import NonLocal3d

    scaled = {} if not said else {"use_scale": "True" in said}
    theirs = reference(
        "mmaction2", pool1=1, pool1_padding=1, width=1 / 16,
        modules=lambda channels: NonLocal3d(channels, sub_sample=True, norm_cfg={"type": "BN3d"}, **scaled),
    )  # fmt: skip
    cfg = (
        "model = dict(type='Recognizer3D', backbone=dict(type='ResNet3d', conv1_stride_t=2, pool1_stride_t=2, "
        f"non_local_cfg=dict({said}sub_sample=True, norm_cfg=dict(type='BN3d'), mode='embedded_gaussian')))\n"
    )
    net = imported({"meta": {"cfg": cfg}, "state_dict": theirs.tensors}, tmp_path)
    compare(net, theirs, clip(1, 3, 16, 64, 64), inside=())


@pytest.mark.parametrize("name", ["c2d_r50", "i3d_r50"])
def test_pytorchvideo(name: str, tmp_path: Path) -> None:
    """Its own networks, at full width."""
    from pytorchvideo.models.hub import resnet

    theirs = getattr(resnet, name)(head_pool_kernel_size=(4, 2, 2)).eval()
    randomise(theirs)
    net = imported({"model_state": theirs.state_dict()}, tmp_path)
    seen: dict[str, Tensor] = {}
    stages = {f"res{s}": theirs.blocks[max(1, s if s > 2 else 1)] for s in (2, 3, 4, 5)}
    parts = {"conv1": theirs.blocks[0].activation, **stages}
    parts |= {f"{s}.blocks.{b}": block for s, stage in stages.items() for b, block in enumerate(stage.res_blocks)}
    for part, module in parts.items():
        watch(module, part, seen)
    x = clip(1, 3, 8, 64, 64)
    with torch.no_grad():
        expected = theirs(x)
    logits, ours = activations(net, x)
    assert_close(logits, expected, "logits")
    for part in parts:
        assert_close(ours[part], seen[part], part)


def test_torchvision(tmp_path: Path) -> None:
    """Its own ResNet-50 on an image, and ours on a video of that image repeated; I3D's ends in time see black."""
    from torchvision.models import resnet50

    theirs = resnet50(num_classes=13).eval()
    randomise(theirs)
    i3d = translate(unwrapped(theirs.state_dict()), frozenset({"i3d"})).tensors["conv1.weight"]
    assert i3d.shape[2] == 5
    torch.testing.assert_close(i3d.sum(dim=2), theirs.conv1.weight, rtol=1e-5, atol=1e-6)
    net = imported(theirs.state_dict(), tmp_path, variant="c2d")
    image = clip(2, 3, 64, 64)
    video = image[:, :, None].expand(-1, -1, 8, -1, -1)
    with torch.no_grad():
        expected = theirs(image)
    logits, _ = activations(net, video)
    assert_close(logits, expected, "logits")


def randomise(net: nn.Module) -> None:
    """Random weights and BN statistics that keep the size of activations."""
    torch.manual_seed(0)
    for module in net.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor, low, high in ((module.weight, 0.3, 0.9), (module.bias, -0.5, 0.5)):
                nn.init.uniform_(tensor, low, high)
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.uniform_(module.running_mean, -0.5, 0.5)
            nn.init.uniform_(module.running_var, 0.5, 2)
        elif isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.02)
            nn.init.normal_(module.bias)
