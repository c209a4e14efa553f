"""Fast layers and networks against torch's own in three dimensions, and against the definition."""

import copy
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from networks import every_variant, network
from torch import Tensor, nn
from torch.nn.modules.module import register_module_full_backward_hook

from nl_lightning.models import fast
from nl_lightning.models.controls import Context
from nl_lightning.models.conventions import BLOCKS, Conventions, Triple
from nl_lightning.models.fast import (
    FRAMES,
    PLACES,
    POSITIONS,
    FastBottleneck,
    FastConv3d,
    FastNonLocalBlock,
    FastVideoResNet,
    OnePassConv3d,
    channels_last,
    conv_norm,
    for_testing,
    has_one_pass,
    shifted_products,
    use_kernels,
)
from nl_lightning.models.nonlocal_block import NonLocalBlock, NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet, half

LAYOUTS = [torch.contiguous_format, torch.channels_last_3d]
# Every kind of kernel of Table 1's networks, with their strides in (T, H, W).
CONVOLUTIONS: list[tuple[Triple, Triple]] = [
    ((1, 1, 1), (1, 1, 1)),
    ((1, 1, 1), (1, 2, 2)),  # shortcut of a stage's first block
    ((1, 3, 3), (1, 1, 1)),
    ((1, 3, 3), (1, 2, 2)),
    ((1, 7, 7), (2, 2, 2)),  # conv1, C2D
    ((5, 7, 7), (2, 2, 2)),  # conv1, I3D
    ((3, 1, 1), (1, 1, 1)),
    ((3, 1, 1), (2, 1, 1)),
    ((3, 3, 3), (1, 2, 2)),
]
POOLS: list[tuple[Triple, Triple, Triple]] = [
    ((3, 3, 3), (2, 2, 2), (1, 1, 1)),  # pool1, Table 1
    ((2, 3, 3), (2, 2, 2), (0, 0, 0)),  # pool1, released code
    ((1, 3, 3), (1, 2, 2), (0, 1, 1)),
    ((3, 1, 1), (2, 1, 1), (1, 0, 0)),  # pool2, Table 1
    ((2, 1, 1), (2, 1, 1), (0, 0, 0)),  # pool2, released code
    ((1, 2, 2), (1, 2, 2), (0, 0, 0)),  # of non-local blocks
    ((1, 1, 1), (1, 1, 1), (0, 0, 0)),
]


def clip(layout: torch.memory_format, *shape: int) -> Tensor:
    """A random clip, of odd sizes unless `shape` is given, that wants a gradient."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(shape or (2, 4, 5, 9, 7), generator=generator, dtype=torch.float64)
    return x.contiguous(memory_format=layout).requires_grad_()


def assert_same(mine: nn.Module, theirs: nn.Module, x: Tensor) -> None:
    """Same output, and same gradients for the input and every parameter."""
    y, expected = mine(x), theirs(x)
    torch.testing.assert_close(y, expected)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
    wanted = [x, *mine.parameters()], [x, *theirs.parameters()]
    torch.testing.assert_close(
        torch.autograd.grad((y * weights).sum(), wanted[0]),
        torch.autograd.grad((expected * weights).sum(), wanted[1]),
    )


def folded(channels: int, out: int, kernel: Triple, stride: Triple = (1, 1, 1), bias: bool = False) -> FastConv3d:
    return FastConv3d(channels, out, kernel, stride, half(kernel), bias=bias)


# ------------------------------------------------------------------------------------------------------------- layers


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels-last"])
@pytest.mark.parametrize(("kernel", "stride"), CONVOLUTIONS)
def test_convolution(kernel: Triple, stride: Triple, layout: torch.memory_format, bias: bool) -> None:
    mine = folded(4, 6, kernel, stride, bias).double()
    theirs = nn.Conv3d(4, 6, kernel, stride, half(kernel), bias=bias).double()
    theirs.load_state_dict(mine.state_dict())  # same names, same shapes
    assert_same(mine, theirs, clip(layout))


@pytest.mark.parametrize("layout", LAYOUTS, ids=["contiguous", "channels-last"])
def test_one_frame(layout: torch.memory_format) -> None:
    x = clip(layout, 2, 4, 1, 5, 3)
    for kernel in [(1, 3, 3), (3, 1, 1), (3, 3, 3)]:
        mine = folded(4, 6, kernel).double()
        torch.testing.assert_close(mine(x), F.conv3d(x, mine.weight, padding=mine.padding))


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize(
    ("fold", "shape"),
    [(FRAMES, (5, 4, 9, 7)), (PLACES, (1, 4, 5, 63)), (POSITIONS, (1, 4, 45, 7))],
    ids=["frames", "places", "positions"],
)
def test_folds_of_a_channels_last_clip_are_views(fold: fast.Fold, shape: tuple[int, ...], clips: int) -> None:
    x = channels_last(torch.randn(clips, 4, 5, 9, 7))
    image = fold.image(x)
    assert image.numel() == x.numel()
    assert clips > 1 or image.shape == shape
    assert image.is_contiguous(memory_format=torch.channels_last)
    back = fold.back(image, x)
    assert torch.equal(back, x)
    assert back.is_contiguous(memory_format=torch.channels_last_3d)
    assert image.data_ptr() == back.data_ptr() == x.data_ptr()


def test_a_folded_clip_is_its_frames_in_order() -> None:
    x = torch.arange(2 * 4 * 5 * 9 * 7).view(2, 4, 5, 9, 7)
    for one in (x, channels_last(x)):
        assert torch.equal(FRAMES.image(one)[5 * 1 + 3], x[1, :, 3])
        assert torch.equal(FRAMES.back(FRAMES.image(one), one), x)


@pytest.mark.parametrize("clips", [1, 2])
@pytest.mark.parametrize(("kernel", "stride"), CONVOLUTIONS)
def test_channels_last_stays(kernel: Triple, stride: Triple, clips: int) -> None:
    """So that no layer copies its input to fold it. torch mistakes the layout of one clip if its stride is made up."""
    x = channels_last(torch.zeros(clips, 4, 5, 9, 7))
    y = folded(4, 6, kernel, stride)(x)
    assert y.is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize(("kernel", "stride", "padding"), POOLS)
def test_channels_last_stays_after_pooling(kernel: Triple, stride: Triple, padding: Triple) -> None:
    x = channels_last(torch.zeros(2, 4, 5, 9, 7))
    assert nn.MaxPool3d(kernel, stride, padding)(x).is_contiguous(memory_format=torch.channels_last_3d)


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("frames", [1, 2, 5])
def test_shifted_products(frames: int, bias: bool) -> None:
    x, weight = clip(torch.channels_last_3d, 2, 4, frames, 3, 5), torch.randn(6, 4, 3, 1, 1, dtype=torch.float64)
    added = torch.randn(6, dtype=torch.float64) if bias else None
    torch.testing.assert_close(shifted_products(x, weight, added), F.conv3d(x, weight, added, padding=(1, 0, 0)))


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_form_that_pays_in_training_only(precision: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """With 1,024 channels `shifted_products` is taken, and is the convolution."""
    calls: list[Tensor] = []
    monkeypatch.setattr(fast, "shifted_products", lambda x, *rest: calls.append(x) or shifted_products(x, *rest))
    conv = folded(1024, 2, (3, 1, 1))
    x = channels_last(torch.randn(1, 1024, 4, 6, 6))
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == torch.bfloat16):
        mine = conv(x)
        assert len(calls) == 1
        with torch.no_grad():
            conv(x)
        assert len(calls) == 1
    theirs = F.conv3d(x, conv.weight, None, conv.stride, conv.padding)
    close = {torch.float32: 1e-5, torch.bfloat16: 2e-2}[precision] * theirs.abs().max().item()
    torch.testing.assert_close(mine.float(), theirs, rtol=0, atol=close)


# ------------------------------------------------------------------------------------------- a convolution and its norm

NORMS: dict[str, Any] = {"batch": nn.BatchNorm3d, "affine": fast.Affine, "none": nn.Identity}


def layer(kernel: Triple, stride: Triple = (1, 1, 1), norm: str = "batch") -> tuple[FastConv3d, nn.Module]:
    torch.manual_seed(0)
    conv, bn = folded(3, 8, kernel, stride), NORMS[norm](8)
    for tensor in bn.state_dict().values():
        if tensor.is_floating_point():
            nn.init.uniform_(tensor, 0.5, 1.5)
    return conv, bn


def one_by_one(x: Tensor, conv: nn.Conv3d, norm: nn.Module, shortcut: Tensor | None, relu: bool) -> Tensor:
    y: Tensor = norm(F.conv3d(x, conv.weight, conv.bias, conv.stride, conv.padding))  # type: ignore[arg-type]
    y = y if shortcut is None else y + shortcut
    return F.relu(y) if relu else y


@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("kernel", [(1, 1, 1), (1, 3, 3), (3, 1, 1)])
def test_is_one_after_the_other(kernel: Triple, norm: str, training: bool, summed: bool, relu: bool) -> None:
    """Same output, gradients and state of BN."""
    conv, bn = (part.double().train(training) for part in layer(kernel, norm=norm))
    x = channels_last(torch.randn(2, 3, 4, 5, 3, dtype=torch.float64))
    shortcut = torch.randn(2, 8, 4, 5, 3, dtype=torch.float64) if summed else None
    found: list[Any] = []
    for f in (conv_norm, one_by_one):
        c, b = copy.deepcopy(conv), copy.deepcopy(bn)
        inputs = [t.detach().clone().requires_grad_() for t in (x, shortcut) if t is not None]
        y = f(inputs[0], c, b, inputs[1] if len(inputs) > 1 else None, relu)  # type: ignore[operator]
        weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(1), dtype=y.dtype)
        wanted = [*inputs, *c.parameters(), *b.parameters()]
        found.append((y.detach(), torch.autograd.grad((y * weights).sum(), wanted), b.state_dict()))
    torch.testing.assert_close(*found)


def test_a_watched_layer_is_called_and_its_map_stays() -> None:
    conv, bn = layer((1, 1, 1))
    x, seen = torch.randn(2, 3, 4, 5, 3), {}
    conv.register_forward_hook(lambda _, __, y: seen.update(conv=y))
    bn.register_forward_hook(lambda _, __, y: seen.update(bn=y))
    y = conv_norm(x, conv, bn, torch.ones(2, 8, 4, 5, 3))
    torch.testing.assert_close(seen["bn"], bn.eval().train()(conv(x)))
    torch.testing.assert_close(F.relu(seen["bn"] + 1), y)


# ------------------------------------------------------------------------------------------------------ whole networks


def random_net(config: ResNetConfig, seed: int = 0) -> VideoResNet:
    """A network whose every branch adds something, with statistics of BN that are not 0 and 1."""
    torch.manual_seed(seed)
    net = VideoResNet(config)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d | fast.Affine):
            nn.init.uniform_(module.weight, 0.5, 1.0)
        if isinstance(module, nn.BatchNorm3d):
            nn.init.normal_(module.running_mean, std=0.1)  # type: ignore[arg-type]
            nn.init.uniform_(module.running_var, 0.5, 2)  # type: ignore[arg-type]
        if isinstance(module, NonLocalBlock | Context) and not module.W_z.weight.any():
            nn.init.kaiming_normal_(module.W_z.weight)
    return net


def small(**net: Any) -> ResNetConfig:
    return ResNetConfig(num_classes=7, width=1 / 32, dropout=0.0, **net)


NAMES = [name for name in every_variant() if not name.endswith("_128f")]
DEEPER = [name for name in NAMES if "_r101" in name and name.replace("_r101", "_r50") in NAMES]


@pytest.mark.parametrize(
    ("name", "profile"), [*((name, "paper") for name in NAMES), *((n, "release") for n in NAMES if n not in DEEPER)]
)
def test_every_variant_is_its_definition(name: str, profile: Any) -> None:
    """Training step and test pass of the narrow networks, in float64: logits, gradients, state of BN."""
    config = network(every_variant()[name], profile=profile, scale=True)
    config = ResNetConfig(
        config.depth,
        config.inflate,
        config.non_local,
        7,
        1 / 32,
        (1, 1, 2),
        dropout=0.0,
        conventions=config.conventions,
        control=config.control,
    )
    plain = random_net(config).double()
    quick = use_kernels(copy.deepcopy(plain))
    assert isinstance(quick, FastVideoResNet)
    assert [*quick.state_dict()] == [*plain.state_dict()]
    x = torch.randn(1, 3, 4, 64, 64, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    with torch.no_grad():
        torch.testing.assert_close(quick.eval()(x), plain.eval()(x))
        torch.testing.assert_close(for_testing(quick)(x), plain(x))
    found: list[Any] = []
    for net in (plain.train(), quick.train()):
        logits = net(x)
        logits.square().sum().backward()
        gradients = {name: p.grad for name, p in net.named_parameters() if p.grad is not None}
        largest = max(float(g.abs().max()) for g in gradients.values())
        found.append((logits.detach(), {name: g / largest for name, g in gradients.items()}, dict(net.named_buffers())))
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-9)


def test_kernels_change_classes_only() -> None:
    net = random_net(small(non_local=NonLocalConfig({"res3": [1]})))
    state, names = net.state_dict(), [type(module) for module in net.modules()]
    assert use_kernels(net) is net
    assert {FastVideoResNet, FastBottleneck, FastConv3d, FastNonLocalBlock} <= {*map(type, net.modules())}
    assert all(net.state_dict()[name] is not None and net.state_dict()[name].data_ptr() == state[name].data_ptr()
               for name in state)  # fmt: skip
    assert [type(module) for module in use_kernels(net, "definition").modules()] == names
    assert all(isinstance(block, FastBottleneck) == isinstance(net, FastVideoResNet) for block in net.res2.blocks)
    torch.manual_seed(3)
    plain = VideoResNet(small())
    torch.manual_seed(3)
    torch.testing.assert_close(FastVideoResNet(small()).state_dict(), plain.state_dict(), rtol=0, atol=0)


def test_convolutions_of_others_stay_as_they_are() -> None:
    block = NonLocalBlock(8)
    block.g = nn.Conv3d(8, 4, 1, groups=2)
    model = nn.Sequential(nn.Conv3d(3, 8, 3), block)
    use_kernels(model)
    assert [type(part) for part in (model[0], block, block.g, block.theta)] == [
        nn.Conv3d, FastNonLocalBlock, nn.Conv3d, FastConv3d,
    ]  # fmt: skip


def test_a_bottleneck_whose_layers_are_watched_gives_every_map() -> None:
    net = random_net(small(non_local=NonLocalConfig({"res3": [1]}))).eval()
    seen: dict[str, dict[str, Tensor]] = {"definition": {}, "fast": {}}
    clip = torch.randn(1, 3, 4, 64, 64)
    for kernels, maps in seen.items():
        one = use_kernels(copy.deepcopy(net), kernels)  # type: ignore[arg-type]
        for name, module in one.named_modules():
            module.register_forward_hook(lambda _, __, y, name=name, maps=maps: maps.update({name: y}))
        with torch.no_grad():
            one(clip)
    torch.testing.assert_close(*seen.values(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("whose", ["norms", "all modules"])
def test_gradients_may_be_watched(whose: str) -> None:
    """A hook on a gradient makes the output a view, in which nothing may be done in place."""
    net = use_kernels(random_net(small(non_local=NonLocalConfig({"res3": [1]}))))
    every, seen = register_module_full_backward_hook, list[str]()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm3d)]
    at = [norm.register_full_backward_hook for norm in norms] if whose == "norms" else [every]
    hooks = [register(lambda module, _, __: seen.append(type(module).__name__)) for register in at]
    try:
        net(torch.randn(1, 3, 4, 64, 64, requires_grad=True)).sum().backward()
    finally:
        for hook in hooks:
            hook.remove()
    assert seen.count("BatchNorm3d") == len(norms)


def test_recomputing_and_groups_of_frames() -> None:
    conventions = Conventions("release", res3_group=2, nonlocal_gamma=1.0, residual_gamma=1.0)
    net = use_kernels(random_net(small(non_local=NonLocalConfig({"res3": [1]}), conventions=conventions)).double())
    clip = torch.randn(1, 3, 32, 64, 64, dtype=torch.float64)
    found: list[Any] = []
    for kernels in ("fast", "definition"):
        one = use_kernels(copy.deepcopy(net), kernels)  # type: ignore[arg-type]
        one.recompute(kernels == "fast")
        one(clip).square().sum().backward()
        found.append([p.grad for p in one.parameters() if p.grad is not None])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("kernels", ["fast", "definition"])
def test_a_compiled_network_is_the_same(kernels: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """With fewer residual blocks, each kind once: compiling takes long."""
    monkeypatch.setitem(BLOCKS, 50, (1, 2, 1, 1))
    net = random_net(small(inflate="3x1x1", non_local=NonLocalConfig({"res3": [1]}))).double()
    use_kernels(net, kernels)
    compiled = copy.deepcopy(net)
    compiled.compile(backend="aot_eager", fullgraph=True)
    clip = channels_last(torch.randn(2, 3, 4, 64, 64, dtype=torch.float64))
    assert compiled.state_dict().keys() == net.state_dict().keys()
    with torch.no_grad():  # else the backward is compiled twice
        torch.testing.assert_close(compiled.eval()(clip), net.eval()(clip))
    for one in (compiled, net):
        one.train()(clip).square().sum().backward()
    torch.testing.assert_close(*([*(p.grad for p in one.parameters()), *one.buffers()] for one in (compiled, net)))


# ------------------------------------------------------------------------------------------------------------ testing

needs_onednn = pytest.mark.skipif(not has_one_pass("cpu", torch.float32), reason="torch has no oneDNN here")


def one_pass(conv: FastConv3d, bn: nn.Module) -> tuple[OnePassConv3d, nn.Module]:
    """A convolution and its norm as `for_testing` leaves them."""
    pair = nn.Sequential(conv, bn)
    made = for_testing(pair)
    assert type(made[0]) is OnePassConv3d
    return made[0], made[1]


@needs_onednn
@pytest.mark.parametrize("relu", [True, False])
@pytest.mark.parametrize("summed", [True, False])
@pytest.mark.parametrize("norm", list(NORMS))
@pytest.mark.parametrize("layout", ["channels-last", "contiguous", "strided"])
@pytest.mark.parametrize(("kernel", "stride"), CONVOLUTIONS)
@torch.no_grad()
def test_one_pass(kernel: Triple, stride: Triple, layout: str, norm: str, summed: bool, relu: bool) -> None:
    conv, bn = layer(kernel, stride, norm)
    x = torch.randn(2, 3, 4, 9, 22)
    x = x[..., ::2] if layout == "strided" else channels_last(x) if layout == "channels-last" else x
    shortcut = torch.randn_like(one_by_one(x, conv, bn.eval(), None, False)) if summed else None
    before = copy.deepcopy((conv.state_dict(), bn.state_dict()))
    made = one_pass(conv, bn)
    y = conv_norm(x, *made, shortcut, relu)
    assert made[0].packed[torch.float32][0].layout == torch._mkldnn  # type: ignore[attr-defined]
    torch.testing.assert_close(y, one_by_one(x, conv, bn.eval(), shortcut, relu), rtol=1e-5, atol=1e-5)
    assert channels_last(y) is y  # whatever the input was
    torch.testing.assert_close((conv.state_dict(), bn.state_dict()), before, rtol=0, atol=0)


@needs_onednn
@torch.no_grad()
def test_a_packed_weight_is_right_for_inputs_of_any_shape() -> None:
    conv, bn = layer((1, 3, 3))
    made = one_pass(conv, bn)
    for shape in ((1, 3, 1, 4, 4), (5, 3, 4, 16, 8), (2, 3, 3, 1, 1), (0, 3, 2, 4, 4)):
        x = torch.randn(shape)
        torch.testing.assert_close(
            conv_norm(x, *made), one_by_one(x, conv, bn.eval(), None, True), rtol=1e-5, atol=1e-5
        )


@pytest.mark.skipif(not has_one_pass("cpu", torch.bfloat16), reason="this processor has no bf16")
@torch.no_grad()
def test_one_pass_under_autocast() -> None:
    conv, bn = layer((1, 3, 3))
    bn.eval()
    made, x, shortcut = one_pass(conv, bn), torch.randn(2, 3, 4, 8, 8), torch.randn(2, 8, 4, 8, 8)
    for added in (shortcut, shortcut.bfloat16()):
        with torch.autocast("cpu", torch.bfloat16):
            y = conv_norm(x, *made, added)
            usual = F.relu(bn(conv(x)) + added)
        assert y.dtype == usual.dtype
        exact = one_by_one(x, conv, bn.eval(), shortcut, True)
        assert ((y.float() - exact).abs().max() / exact.abs().max()).item() < 2e-2


def test_one_pass_only_where_there_is_no_gradient_to_make() -> None:
    conv, bn = layer((1, 1, 1))
    made = one_pass(conv.double(), bn.double())
    x = torch.randn(2, 3, 4, 5, 3, dtype=torch.float64, requires_grad=True)
    expected = one_by_one(x, conv, bn.eval(), None, True)
    y = conv_norm(x, *made)
    torch.testing.assert_close(y, expected)
    torch.testing.assert_close(*(torch.autograd.grad(z.sum(), x) for z in (y, expected)))
    with torch.no_grad():
        torch.testing.assert_close(conv_norm(x, *made), expected)  # no float64 in oneDNN


@pytest.mark.parametrize("norm", ["batch", "affine"])
@pytest.mark.parametrize("inflate", ["none", "3x1x1", "3x3x3"])
def test_a_copy_for_testing_tests_alike_and_leaves_the_network_alone(inflate: Any, norm: Any) -> None:
    blocks = NonLocalConfig({"res3": [1], "res4": [4]})
    conventions = Conventions(scale=True, norm=norm, nonlocal_norm=norm)
    net = use_kernels(random_net(small(inflate=inflate, non_local=blocks, conventions=conventions)))
    before, modes = copy.deepcopy(net.state_dict()), [module.training for module in net.modules()]
    clip = torch.randn(2, 3, 8, 64, 64)
    made = for_testing(net)
    assert not [module for module in made.modules() if isinstance(module, nn.BatchNorm3d | fast.Affine)]
    with torch.inference_mode():
        torch.testing.assert_close(made(clip), copy.deepcopy(net).eval()(clip), rtol=1e-4, atol=1e-5)
        for again in (copy.deepcopy(made), pickle.loads(pickle.dumps(made))):
            assert torch.equal(again(clip), made(clip))
    assert [module.training for module in net.modules()] == modes
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_what_is_watched_or_computed_by_definition_is_not_folded() -> None:
    net = use_kernels(random_net(small()))
    net.res2.blocks[0].bn1.register_forward_hook(lambda *_: None)
    made = for_testing(net)
    assert [type(made.res2.blocks[0].get_submodule(name)) for name in ("conv1", "bn1", "conv2", "bn2")] == [
        FastConv3d, nn.BatchNorm3d, OnePassConv3d, nn.Identity,
    ]  # fmt: skip
    assert {type(m) for m in for_testing(random_net(small())).modules()} & {*fast.FAST.values()} == set()


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e30])
@pytest.mark.parametrize(
    "where", ["conv1", "res2.blocks.0.conv2", "res4.blocks.5.conv3", "res3.blocks.0.downsample.0", "clip"]
)
def test_a_network_that_has_lost_its_numbers_does_not_test_as_finite(where: str, bad: float, precision: str) -> None:
    """A bad weight or pixel, or weights so large that products overflow, in every way to compute."""
    net = random_net(small(non_local=NonLocalConfig({"res3": [1]}))).eval()
    clip = torch.randn(1, 3, 4, 64, 64)
    with torch.no_grad():
        if where == "clip":
            clip[0, 1, 2, 30, 30] = bad
        else:
            weight = net.get_submodule(where).weight
            weight.mul_(1e38) if bad == 1e30 else weight[0, 0].fill_(bad)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            expected = net(clip)
            assert bad == 1e30 or not expected.isfinite().all()
            quick = use_kernels(copy.deepcopy(net))
            for one in (quick, for_testing(quick)):
                assert one(clip).isfinite().all() <= expected.isfinite().all()
