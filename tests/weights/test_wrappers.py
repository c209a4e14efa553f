"""What tools put around a network's tensors comes off, and is said; two networks in a file are named."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from torch import Tensor, nn

from nl_lightning.errors import UserError
from nl_lightning.weights.importing import Imported, import_weights, translate
from nl_lightning.weights.wrappers import unwrapped


def read(folder: Path, content: Any, **kwargs: Any) -> Imported:
    torch.save(content, folder / "m.pth")
    imported = import_weights(folder / "m.pth", folder / "w.safetensors", **kwargs)
    assert isinstance(imported, Imported)
    return imported


@pytest.fixture(scope="module")
def theirs(make_reference: Any) -> dict[str, Tensor]:
    """torchvision's names, and a small network's tensors: of a video, as Tushar-N's without blocks."""
    tensors: dict[str, Tensor] = make_reference("tushar_n", width=1 / 32, nonlocal_after={}).tensors
    return tensors


def prefixed(prefix: str) -> Callable[[dict[str, Tensor]], Any]:
    return lambda state: {prefix + name: tensor for name, tensor in state.items()}


def beside_others(state: dict[str, Tensor]) -> dict[str, Any]:
    """A momentum encoder's file: the network that is trained, its average, and a queue."""
    halves = {
        prefix: {f"module.{prefix}.{name}": t for name, t in state.items()} for prefix in ("encoder_q", "encoder_k")
    }
    averaged = {name: t + 1 if t.is_floating_point() else t for name, t in halves["encoder_k"].items()}
    return {"epoch": 3, "state_dict": {**averaged, **halves["encoder_q"], "module.queue": torch.zeros(4, 5)}}


@pytest.mark.parametrize(
    ("wrap", "said"),
    [
        (prefixed("_orig_mod."), "'_orig_mod.' of torch.compile"),
        (prefixed("module."), "'module.' before every name"),
        (prefixed("module._orig_mod."), "'_orig_mod.' of torch.compile"),
        (prefixed("_orig_mod.module."), "'module.' before every name"),
        (lambda s: {"state_dict": prefixed("model.")(s), "epoch": 1}, "the prefix 'model.'"),
        (lambda s: {"state_dict": prefixed("net.")(s) | {"loss.weight": torch.ones(3)}}, "the prefix 'net.'"),
        (lambda s: {"state_dict": prefixed("model._orig_mod.backbone.")(s)}, "the prefix 'model.backbone.'"),
        (lambda s: {n.replace("layer2.", "layer2._orig_mod."): t for n, t in s.items()}, "of torch.compile"),
        (lambda s: {"model": s, "ema": {n: t + 1 for n, t in s.items()}}, "the key model"),
        (lambda s: {"ema": s}, "the key ema"),
        (lambda s: {"student": prefixed("module.backbone.")(s), "teacher": s}, "the key student"),
        (lambda s: {"model_state_dict": s, "optimizer_state_dict": {"state": {0: {"step": torch.tensor(1.0)}}}},
         "the key model_state_dict"),
        (lambda s: {"my_weights": s, "epoch": 1}, "the key my_weights"),
        (lambda s: {"checkpoint": {"model": prefixed("module.")(s)}}, "the key checkpoint / model"),
        (lambda s: s | {"layer1.total_ops": torch.ones(1), "total_params": torch.ones(1)}, "2 counters (layer1.total_"),
        (lambda s: prefixed("module.")(s) | {"n_averaged": torch.tensor(5)}, "1 counters (n_averaged)"),
        (beside_others, "the prefix 'encoder_q.'"),
    ],
)  # fmt: skip
def test_wrappers_come_off_and_are_said(
    wrap: Callable[[dict[str, Tensor]], Any], said: str, theirs: dict[str, Tensor]
) -> None:
    imported = translate(unwrapped(wrap(theirs)), frozenset())
    assert torch.equal(imported.tensors["res3.blocks.1.conv2.weight"], theirs["layer2.1.conv2.weight"])
    assert torch.equal(imported.tensors["fc.bias"], theirs["fc.bias"])
    assert imported.matched == len(theirs)
    assert any(line.startswith("note: taken off: ") and said in line for line in imported.lines()), imported.lines()


def test_image_networks_of_torchvision_under_any_prefix(tmp_path: Path) -> None:
    """torch's own: a compiled ResNet-50 that several GPUs trained, in somebody's Lightning module."""
    from torchvision.models import resnet50

    state = resnet50(num_classes=13).state_dict()
    imported = read(
        tmp_path, {"state_dict": {"module._orig_mod.model." + name: tensor for name, tensor in state.items()}}
    )
    assert imported.header.source == "torchvision"
    assert imported.header.net.num_classes == 13


def test_a_compiled_network_saves_names_that_are_read(theirs: dict[str, Tensor], tmp_path: Path) -> None:
    """What torch.compile itself makes of names."""
    layers = nn.Sequential(nn.Conv2d(3, 3, 1))
    compiled: Any = torch.compile(layers)
    assert unwrapped(compiled.state_dict()).tensors.keys() == layers.state_dict().keys()


def test_safetensors_of_others_are_read(theirs: dict[str, Tensor], tmp_path: Path) -> None:
    whole = {name: tensor.contiguous() for name, tensor in theirs.items()}
    safetensors.torch.save_file(whole, tmp_path / "model.safetensors", {"format": "pt"})
    imported = import_weights(tmp_path / "model.safetensors", tmp_path / "w.safetensors")
    assert isinstance(imported, Imported)
    assert imported.matched == len(theirs)
    with pytest.raises(UserError, match="is a weight file of ours already"):
        import_weights(tmp_path / "w.safetensors", tmp_path / "again.safetensors")
    content = (tmp_path / "model.safetensors").read_bytes()
    (tmp_path / "cut.safetensors").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match="can't be read as a .safetensors file .*: is it whole?"):
        import_weights(tmp_path / "cut.safetensors", tmp_path / "again.safetensors")


@pytest.mark.parametrize(
    ("wrap", "match"),
    [
        (lambda s: {"first": s, "second": s}, "tensors lie under several keys, first, second: save the"),
        (lambda s: prefixed("left.")(s) | prefixed("right.")(s), "holds 2 networks, with the prefixes left., right."),
        (lambda s: s | prefixed("_orig_mod.")(s), "tensors under two names each, with and without a wrapper's prefix"),
        (lambda s: {"\x1b[2J.": s["fc.bias"]}, r"no known kind of network: \\x1b\[2J\."),
        (lambda s: s | {"conv1.weight": torch.eye(3).to_sparse()}, "the tensor conv1.weight is torch.sparse_coo"),
        (lambda s: s | {"conv1.weight": torch.empty(3, device="meta")}, "the tensor conv1.weight is .* on meta"),
        (lambda s: s | {"conv1.weight": torch.zeros(3, dtype=torch.complex64)}, "complex64, on cpu: not plain numbers"),
        (lambda s: {"optimizer": {"state": {0: torch.ones(1)}}}, "expected tensors by name, found none"),
    ],
)  # fmt: skip
def test_what_cannot_be_told_apart_is_named(
    wrap: Callable[[dict[str, Tensor]], Any], match: str, theirs: dict[str, Tensor], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=match) as refused:
        read(tmp_path, wrap(theirs))
    assert str(refused.value).isprintable()


def test_a_projection_head_is_left_out_on_demand(theirs: dict[str, Tensor], tmp_path: Path) -> None:
    """Of two layers, as momentum contrast's second version has it."""
    state = {name: tensor for name, tensor in theirs.items() if not name.startswith("fc.")}
    head = {"fc.0.weight": torch.ones(4, 4), "fc.2.weight": torch.ones(4, 4)}
    with pytest.raises(UserError, match=r"left over: fc\.0\.weight, fc\.2\.weight; --without-classifier leaves"):
        read(tmp_path, state | head)
    imported = read(tmp_path, state | head, classifier=False)
    assert not any(name.startswith("fc.") for name in imported.tensors)
    assert set(head) <= set(imported.aside)
