"""insert_non_local: nothing changes but what was asked for, on networks of others, and it can be undone."""

import copy
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock
from torchvision.models.video.mvit import MSBlockConfig

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import INSTANTIATIONS, Conventions
from nl_lightning.models.fast import FastVideoResNet, for_testing
from nl_lightning.models.insert import insert_after, insert_non_local, remove_non_local
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.models.resnet import ResNetConfig


class Residual(nn.Sequential):
    """A Sequential with a forward pass of its own: a block inside it would be at the wrong place."""

    def forward(self, x: Tensor) -> Tensor:
        return x + super().forward(x)


class Sound(nn.Module):
    """A user's own 1-D network."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv1d(2, 8, 3), nn.BatchNorm1d(8), nn.ReLU())
        self.body = Residual(nn.Conv1d(8, 8, 1), nn.Hardswish())
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        y: Tensor = self.head(self.body(self.stem(gain * x)).mean(-1))
        return y


def images() -> nn.Module:
    first = nn.Conv2d(8, 16, 1, 2)
    return nn.Sequential(nn.Conv2d(3, 8, 3), BasicBlock(8, 16, 2, first), BasicBlock(16, 16), nn.Conv2d(16, 3, 1))


def clips() -> nn.Module:
    return nn.Sequential(nn.Conv3d(3, 8, 3), nn.BatchNorm3d(8), nn.Sequential(nn.Conv3d(8, 8, 1), nn.ReLU()))


def small_mvit() -> nn.Module:
    block = MSBlockConfig(1, 8, 8, [3, 3, 3], [1, 1, 1], [1, 2, 2], [1, 1, 1])
    return torchvision.models.video.MViT((32, 32), 4, [block] * 2, False, False, False, False, num_classes=5)


NETWORKS: dict[str, tuple[Callable[[], nn.Module], list[str], tuple[int, ...]]] = {
    "resnet18": (torchvision.models.resnet18, ["layer3.1", "layer2"], (2, 3, 48, 48)),
    "mobilenet": (torchvision.models.mobilenet_v3_small, ["features.4"], (1, 3, 64, 64)),
    "r3d_18": (torchvision.models.video.r3d_18, ["layer3.1"], (1, 3, 4, 32, 32)),
    "r2plus1d_18": (torchvision.models.video.r2plus1d_18, ["layer2.0"], (1, 3, 4, 32, 32)),
    "mvit": (small_mvit, ["conv_proj"], (1, 3, 4, 32, 32)),
    "images": (images, ["1", "2"], (2, 3, 16, 16)),
    "clips": (clips, ["1", "2"], (2, 3, 6, 8, 8)),
    "sound": (Sound, ["stem", "body"], (2, 2, 20)),
}


def network(name: str) -> tuple[nn.Module, list[str], Tensor]:
    torch.manual_seed(0)
    make, layers, shape = NETWORKS[name]
    return make().eval(), layers, torch.randn(shape)


def learn(model: nn.Module) -> nn.Module:
    """As if the blocks had learned: their BN has other numbers than those that make them the identity."""
    for module in model.modules():
        if isinstance(module, NonLocalBlock):
            nn.init.normal_(module.bn.weight)
    return model


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("by_example", [False, True])
def test_a_new_block_changes_no_bit_and_no_old_name_and_can_be_undone(name: str, by_example: bool) -> None:
    model, layers, x = network(name)
    old = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    classes = [type(module) for module in model.modules()]
    with torch.no_grad():
        before = model(x)
        assert insert_non_local(model, layers, example=x if by_example else None) is model
        assert torch.equal(model(x), before)
        report = model.load_state_dict(old, strict=False)
        assert report.unexpected_keys == []
        new = {key for key in model.state_dict().keys() - old.keys() if not key.endswith("num_batches_tracked")}
        assert set(report.missing_keys) == new  # torch fills in the counter of a BN by itself
        assert {key.split(".non_local.")[0] for key in report.missing_keys} == set(layers)
        assert not torch.equal(learn(model)(x), before)
        assert remove_non_local(model) is model
        assert torch.equal(model(x), before)
    assert [type(module) for module in model.modules()] == classes
    assert list(model.state_dict()) == list(old)


@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
@pytest.mark.parametrize("profile", ["paper", "release"])
def test_the_output_stays_in_training_too(instantiation: Any, profile: Any) -> None:
    model, layers, x = network("clips")
    before = copy.deepcopy(model).train()(x)
    insert_non_local(model, layers, instantiation=instantiation, conventions=Conventions(profile=profile))
    assert torch.equal(model.train()(x), before)


def test_a_block_follows_its_whole_layer() -> None:
    for layer, following in (("layer3", "layer4"), ("layer3.0", "layer3.1")):
        model, _, x = network("resnet18")
        inputs: list[Tensor] = []
        model.get_submodule(following).register_forward_pre_hook(lambda _, args, inputs=inputs: inputs.append(args[0]))
        with torch.no_grad():
            model(x)
            block = learn(insert_non_local(model, layer)).get_submodule(f"{layer}.non_local")
            model(x)
            plain, z = inputs
            assert torch.equal(z, block(plain))


def test_a_sequential_keeps_its_parts() -> None:
    model, _, _ = network("resnet18")
    stage = model.layer3
    parts = list(stage)
    insert_non_local(model, ["layer3"])
    assert isinstance(stage, nn.Sequential)
    assert list(stage) == parts
    assert len(stage) == 2
    assert stage[-1] is parts[-1]


@pytest.mark.parametrize(
    "edit",
    [
        lambda stage: stage + nn.Sequential(nn.Identity()),
        lambda stage: nn.Sequential(nn.Identity()) + stage,
        lambda stage: 2 * stage,
        lambda stage: stage[:1],
        lambda stage: stage.pop(-1),
        lambda stage: stage.insert(1, nn.Identity()),
        lambda stage: stage.extend([nn.Identity()]),
        lambda stage: stage.__iadd__(nn.Sequential(nn.Identity())),
        lambda stage: stage.__delitem__(0),
    ],
)
def test_a_sequential_with_a_block_is_edited_without_it(edit: Callable[[Any], Any]) -> None:
    """By torch's own code each of these would lose the block, break it, or rename its tensors."""
    model = insert_non_local(clips(), "2")
    names = list(model.state_dict())
    with pytest.raises(UserError, match="has a non-local block: remove_non_local first"):
        edit(model.get_submodule("2"))
    assert list(model.state_dict()) == names
    edit(remove_non_local(model).get_submodule("2"))


def test_a_lazy_layer_is_run_first() -> None:
    def lazy() -> nn.Sequential:
        return nn.Sequential(nn.LazyConv2d(8, 3), nn.Sequential(nn.LazyBatchNorm2d(), nn.ReLU()))

    x = torch.randn(2, 3, 8, 8)
    for layer in ("0", "1"):
        with pytest.raises(UserError, match=f"layer '{layer}' is lazy .* run the network once, or give an example"):
            insert_non_local(lazy(), layer)
        assert insert_non_local(lazy(), layer, example=x)(x).shape == (2, 8, 6, 6)


def test_a_layer_that_was_parametrised_since_keeps_its_block() -> None:
    model, layers, x = network("clips")
    layer = insert_non_local(model, ["0", *layers]).get_submodule("0")
    before = copy.deepcopy(model)(x)
    nn.utils.parametrizations.weight_norm(layer)
    with pytest.raises(UserError, match="layer '0' was parametrised .* undo that first"):
        remove_non_local(model)
    torch.testing.assert_close(model(x), before)
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    torch.testing.assert_close(remove_non_local(model)(x), before)


def test_blocks_learn_and_the_old_part_may_be_frozen() -> None:
    model, _, x = network("sound")
    model.requires_grad_(False)
    insert_non_local(model, ["stem"], sum_over="space", subsample=False)
    model.train()
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=1.0)
    before = model(x)
    for _ in range(2):
        optimizer.zero_grad()
        model(x).square().sum().backward()
        optimizer.step()
    assert not torch.equal(model(x), before)


@pytest.mark.parametrize(("name", "mode"), [("images", "eval"), ("clips", "train"), ("sound", "eval")])
def test_it_compiles_as_one_graph(name: str, mode: str) -> None:
    model, layers, x = network(name)
    learn(insert_non_local(model, layers)).train(mode == "train")
    expected = copy.deepcopy(model)(x)
    torch._dynamo.reset()
    got = torch.compile(model, fullgraph=True, backend="aot_eager")(x)
    torch.testing.assert_close(got, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("name", ["images", "clips", "sound"])
@pytest.mark.parametrize("strict", [False, True])
def test_it_exports(name: str, strict: bool) -> None:
    model, layers, x = network(name)
    learn(insert_non_local(model, layers))
    with torch.no_grad():
        program = torch.export.export(model, (x,), strict=strict)
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("instantiation", INSTANTIATIONS)
@pytest.mark.parametrize(("side", "other"), [(16, 96), (96, 12)])
def test_it_exports_for_any_number_of_clips_of_any_size(instantiation: Any, side: int, other: int) -> None:
    model, _, _ = network("images")
    learn(insert_non_local(model, "0", instantiation=instantiation))
    any_size = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        sizes = ({0: any_size, 2: any_size, 3: any_size},)
        program = torch.export.export(model, (torch.randn(2, 3, side, side),), dynamic_shapes=sizes)
        x = torch.randn(5, 3, other, other - 3)
        torch.testing.assert_close(program.module()(x), model(x), rtol=1e-4, atol=1e-4)


def test_concatenation_of_many_positions_compiles() -> None:
    model, _, _ = network("images")
    learn(insert_non_local(model, "0", instantiation="concatenation"))
    x = torch.randn(1, 3, 50, 50)
    torch._dynamo.reset()
    compiled: Any = torch.compile(copy.deepcopy(model), fullgraph=True, backend="aot_eager")
    found = []
    for one in (compiled, model):
        one(x).square().sum().backward()
        found.append([parameter.grad for parameter in one.parameters()])
    torch.testing.assert_close(*found)


@pytest.mark.parametrize("layer", ["res4.blocks.0", *(f"res4.blocks.0.{part}" for part in ("conv2", "bn2", "bn3"))])
def test_it_goes_with_the_networks_of_the_paper_and_their_copy_for_testing(layer: str) -> None:
    """Which folds BN into convolutions: not where a block stands between them."""
    torch.manual_seed(0)
    net: nn.Module = FastVideoResNet(ResNetConfig(width=1 / 16, num_classes=5)).eval()
    x = torch.randn(1, 3, 8, 32, 32)
    with torch.no_grad():
        plain = net(x)
        assert torch.equal(insert_non_local(net, layer)(x), plain)
        learned = learn(net)(x)
        assert not torch.equal(learned, plain)
        torch.testing.assert_close(for_testing(net)(x), learned, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("again", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_it_can_be_copied_and_pickled_and_undone_after_that(again: Callable[[nn.Module], nn.Module]) -> None:
    model, layers, x = network("resnet18")
    plain = list(model.state_dict())
    learn(insert_non_local(model, layers))
    copied = again(model)
    with torch.no_grad():
        expected = model(x)
        remove_non_local(model)
        assert torch.equal(copied(x), expected)
    assert list(remove_non_local(copied).state_dict()) == plain


def test_blocks_can_be_put_in_again() -> None:
    model, layers, _ = network("resnet18")
    for _ in range(2):
        remove_non_local(insert_non_local(model, layers))
    insert_non_local(model, layers)
    insert_non_local(model, ["layer4.1"])
    assert sum(isinstance(module, NonLocalBlock) for module in model.modules()) == 3


@pytest.fixture
def one_process(tmp_path: Path) -> Iterator[None]:
    store = torch.distributed.FileStore(str(tmp_path / "store"), 1)
    torch.distributed.init_process_group("gloo", store=store, rank=0, world_size=1)
    yield
    torch.distributed.destroy_process_group()


@pytest.mark.usefixtures("one_process")
def test_it_trains_under_ddp() -> None:
    model, layers, x = network("sound")
    insert_non_local(model, layers)
    wrapped = nn.parallel.DistributedDataParallel(model.train())
    for _ in range(2):  # the second pass fails if a parameter got no gradient in the first
        wrapped(x).sum().backward()
    assert all(p.grad is not None for p in model.parameters())
    with pytest.raises(UserError, match="before wrapping the network in DistributedDataParallel"):
        insert_non_local(wrapped, ["module.body.0"])


def test_the_block_is_as_its_layer_is() -> None:
    model = insert_non_local(Sound().double().train(), ["stem"])
    block = model.get_submodule("stem.non_local")
    assert block.training
    assert {t.dtype for t in block.state_dict().values()} == {torch.float64, torch.int64}
    with torch.device("meta"):
        meta = Sound()
    assert insert_non_local(meta, ["stem"]).get_submodule("stem.non_local.g").weight.device.type == "meta"


class Counting(nn.BatchNorm1d):
    """Always in training, and with counters that a forward pass changes in place and anew."""

    calls: Tensor
    again: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.register_buffer("calls", torch.zeros(()))
        self.register_buffer("again", torch.zeros(()), persistent=False)

    def train(self, mode: bool = True) -> "Counting":
        return super().train()

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.again = self.again + 1
        return super().forward(x)


def test_a_dry_run_changes_neither_buffers_nor_the_example() -> None:
    model = nn.Sequential(nn.ReLU(inplace=True), nn.Conv1d(2, 4, 1), Counting(4))
    buffers = dict(model.named_buffers())
    values = copy.deepcopy(buffers)
    x = torch.randn(2, 2, 9)
    kept = x.clone()
    remove_non_local(insert_non_local(model, "1", example=x))
    assert torch.equal(x, kept)
    for name, buffer in model.named_buffers():
        assert buffer is buffers[name]
        assert torch.equal(buffer, values[name])


def test_a_dry_run_leaves_no_trace() -> None:
    model = Sound().train()
    model.body.eval()
    modes = [module.training for module in model.modules()]
    state = copy.deepcopy(model.state_dict())
    random = torch.random.get_rng_state()
    insert_non_local(model, ["stem"], example={"x": torch.randn(2, 2, 20), "gain": 2.0}, conventions=Conventions())
    remove_non_local(model)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(tensor, state[key]) for key, tensor in model.state_dict().items())
    assert not any(module._forward_hooks for module in model.modules())
    assert len(random) == len(torch.random.get_rng_state())


class Tokens(nn.Module):
    """A Transformer's layer: (N, L, C), channels last."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.mix, self.act = nn.LayerNorm(4), nn.Linear(4, 4), nn.ReLU()
        self.conv = nn.Conv1d(4, 5, 1)
        self.unused = nn.Conv1d(4, 4, 1)
        self.parts = nn.ModuleList([nn.Conv1d(4, 4, 1)])
        self.attend = nn.MultiheadAttention(4, 1, batch_first=True)
        self.odd = nn.Sequential(nn.BatchNorm1d(5), nn.Conv1d(5, 4, 1), nn.BatchNorm1d(3))
        self.embed = nn.Conv2d(1, 4, 8, 8)
        self.head = nn.Linear(4, 2)

    def forward(self, x: Tensor) -> Tensor:  # (N, 1, H, W)
        x = self.embed(x).flatten(2).mT
        x = self.act(self.act(self.mix(self.norm(x))))
        x, _ = self.attend(x, x, x)
        self.conv(x.mT)
        y: Tensor = self.head(x.mean(1))
        return y


@pytest.mark.parametrize(
    ("layers", "example", "options", "said"),
    [
        ([], False, {}, r"layers: expected the name of at least one layer"),
        (["conw"], False, {}, r"layer 'conw': the network has no such layer; did you mean 'conv'\?"),
        (["conv", "conv"], False, {}, r"layer 'conv' is named twice; expected each layer once"),
        (["conv", "shared"], False, {}, r"layer 'shared' is the same module as 'conv'"),
        (["parts"], False, {}, r"layer 'parts' is a ModuleList without a forward pass; name one of its parts \(0\)"),
        (["act"], False, {}, r"layer 'act': it has no convolution that tells .* give an example input: example="),
        (["odd"], False, {}, r"layer 'odd': its last convolution and norm have 4 and 3 channels; give an example"),
        (["act"], True, {}, r"layer 'act' runs 2 times in a forward pass; expected a layer that runs once"),
        (["unused"], True, {}, r"layer 'unused' is not called in a forward pass"),
        (["attend"], True, {}, r"layer 'attend': expected an output \(N, C, ...\) .* got a tuple"),
        (["head"], True, {}, r"layer 'head': expected an output .* got float32 \(2, 2\)"),
        (["mix"], True, {}, r"layer 'mix': expected an output .* got \(2, 16, 4\) with the channels last"),
        (["embed"], False, {"sum_over": "time"}, r"layer 'embed': sum_over: a block over 2-D input has no time"),
        (["conv"], False, {"instantiation": "dot"}, r"layer 'conv': instantiation: expected one of .* not 'dot'"),
    ],
)
def test_what_cannot_be_done_is_said_and_nothing_is_changed(
    layers: list[str], example: bool, options: dict[str, Any], said: str
) -> None:
    model = Tokens()
    model.shared = model.conv
    before = [(type(module), list(module._modules)) for module in model.modules()]
    with pytest.raises(UserError, match=said) as caught:
        insert_non_local(model, layers, example=torch.zeros(2, 1, 32, 32) if example else None, **options)
    assert "\n" not in str(caught.value)
    assert [(type(module), list(module._modules)) for module in model.modules()] == before


def test_a_transformers_layers_have_no_maps() -> None:
    model, _, x = network("mvit")
    with pytest.raises(UserError, match=r"layer 'blocks.0': expected an output \(N, C, ...\) .* got a tuple"):
        insert_non_local(model, ["blocks.0"], example=x)
    with pytest.raises(UserError, match=r"layer 'blocks.0.mlp': .* got \(1, 33, 8\) with the channels last"):
        insert_non_local(model, ["blocks.0.mlp"], example=x)


def test_what_has_a_block_or_another_forward_pass_is_refused() -> None:
    model, layers, _ = network("resnet18")
    insert_non_local(model, layers)
    with pytest.raises(UserError, match=r"layer 'layer3.1' has a non-local block already; remove_non_local\(model\)"):
        insert_non_local(model, ["layer3.1"])
    layer: Any = model.get_submodule("layer4.1")
    layer.forward = lambda x: x
    with pytest.raises(UserError, match=r"layer 'layer4.1' has a forward pass that was put onto the instance"):
        insert_non_local(model, ["layer4.1"])


@pytest.mark.parametrize("layers", [None, [None], [0], nn.Sequential(nn.Identity())])
def test_layers_are_names(layers: Any) -> None:
    with pytest.raises(UserError, match="layers: expected names"):
        insert_non_local(clips(), layers)
    with pytest.raises(UserError, match="model: expected a torch.nn.Module, not a str"):
        insert_after("clips", ["0"], NonLocalBlock)  # type: ignore[type-var, arg-type]
    with torch.inference_mode(), pytest.raises(UserError, match="outside torch.inference_mode"):
        insert_non_local(clips(), "0")


def test_an_example_that_does_not_fit_is_said() -> None:
    with pytest.raises(UserError, match=re.escape("example: the network can't run on it: Given groups=1")):
        insert_non_local(Sound(), ["stem"], example=torch.zeros(1, 5, 20))
    with pytest.raises(UserError, match=r"layer 'layer4.1', output \(1, 512, 1, 1\): "):
        insert_non_local(torchvision.models.resnet18(), ["layer4.1"], example=torch.zeros(1, 3, 32, 32))


class Dense(nn.ModuleDict):
    """As torchvision's _DenseBlock: it runs its parts one by one."""

    def forward(self, x: Tensor) -> Tensor:
        for part in self.values():
            x = part(x)
        return x


class Loop(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        for part in self.children():
            x = part(x)
        return x


class Named(nn.Sequential):
    def forward(self, x: Tensor) -> Tensor:
        for part in self._modules.values():
            x = part(x)  # type: ignore[misc]
        return x


@pytest.mark.parametrize("kind", [Dense, Loop, Named])
def test_a_list_that_runs_its_parts_is_refused(kind: Any) -> None:
    network = nn.Sequential(kind(OrderedDict(one=nn.Conv2d(3, 8, 3))))
    with pytest.raises(UserError, match=f"layer '0' is a {kind.__name__}, which would run the block as one of its par"):
        insert_non_local(network, "0", example=torch.zeros(1, 3, 8, 8))
    insert_non_local(network, "0.one")


def test_what_was_traced_is_refused() -> None:
    """It can't be copied as another class than its own."""
    traced = nn.Sequential(torch.fx.symbolic_trace(nn.Sequential(nn.Conv2d(3, 8, 3))))
    with pytest.raises(UserError, match=r"layer '0' is compiled by TorchScript or traced by torch\.fx"):
        insert_non_local(traced, "0")


def test_whole_numbers_of_numpy_are_whole_numbers() -> None:
    assert NonLocalBlock(np.int64(8)).bn.num_features == 8
    assert ResNetConfig(num_classes=np.int64(5)).num_classes == 5
