"""What `import nl_lightning` gives, and what it costs."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from weight_files import write_weights

import nl_lightning as nl

ROOT = Path(__file__).parent.parent
TABLE2 = yaml.safe_load((ROOT / "experiments/table2.yaml").read_text())["variants"]


def test_importing_it_imports_nothing_heavy() -> None:
    said = subprocess.run(
        [sys.executable, "-c", "import sys, nl_lightning; dir(nl_lightning); print(*sys.modules)"],
        capture_output=True, text=True, check=True,
    ).stdout.split()  # fmt: skip
    heavy = {"torch", "numpy", "pytorch_lightning", "jsonargparse", "importlib.metadata", "yaml", "pandas"}
    assert not heavy & set(said)
    assert [name for name in said if name.startswith("nl_lightning")] == ["nl_lightning"]


def test_every_public_name_is_there() -> None:
    assert set(nl.__all__) <= set(dir(nl))
    for name in nl.__all__:
        assert getattr(nl, name) is not None
    with pytest.raises(AttributeError, match="module 'nl_lightning' has no attribute 'NonLocalBlok'"):
        nl.NonLocalBlok  # noqa: B018
    assert (Path(nl.__file__).parent / "py.typed").exists()


def config_of(net: dict[str, Any]) -> nl.ResNetConfig:
    blocks = net.get("non_local")
    return nl.ResNetConfig(**{**net, "non_local": nl.NonLocalConfig(**blocks) if blocks else None})


CALLS = {
    "c2d_r50": lambda: nl.c2d_r50(),
    "c2d_r50_nl1_res4_gaussian": lambda: nl.c2d_r50(non_local=1, instantiation="gaussian"),
    "c2d_r50_nl1_res4": lambda: nl.c2d_r50(non_local=1),
    "c2d_r50_nl1_res4_dot": lambda: nl.c2d_r50(non_local=1, instantiation="dot_product"),
    "c2d_r50_nl1_res4_concat": lambda: nl.c2d_r50(non_local=1, instantiation="concatenation"),
    "c2d_r50_nl1_res2": lambda: nl.c2d_r50(non_local=1, stage="res2"),
    "c2d_r50_nl1_res3": lambda: nl.c2d_r50(non_local=1, stage="res3"),
    "c2d_r50_nl1_res5": lambda: nl.c2d_r50(non_local=1, stage="res5"),
    "c2d_r50_nl5": lambda: nl.c2d_r50(non_local=5),
    "c2d_r50_nl10": lambda: nl.c2d_r50(non_local=10),
    "c2d_r101": lambda: nl.c2d_r101(),
    "c2d_r101_nl1_res4": lambda: nl.c2d_r101(non_local=1),
    "c2d_r101_nl5": lambda: nl.c2d_r101(non_local=5),
    "c2d_r101_nl10": lambda: nl.c2d_r101(non_local=10),
    "c2d_r50_nl5_space": lambda: nl.c2d_r50(non_local=5, sum_over="space"),
    "c2d_r50_nl5_time": lambda: nl.c2d_r50(non_local=5, sum_over="time"),
    "c2d_r101_nl5_space": lambda: nl.c2d_r101(non_local=5, sum_over="space"),
    "c2d_r101_nl5_time": lambda: nl.c2d_r101(non_local=5, sum_over="time"),
    "i3d333_r101": lambda: nl.i3d_r101(inflate="3x3x3"),
    "i3d311_r101": lambda: nl.i3d_r101(),
    "i3d311_r50": lambda: nl.i3d_r50(),
    "i3d311_r50_nl5": lambda: nl.i3d_r50(non_local=5),
    "i3d311_r101_nl5": lambda: nl.i3d_r101(non_local=5),
}


@pytest.mark.parametrize("variant", TABLE2)
def test_the_factories_make_the_networks_of_table_2(variant: str) -> None:
    with torch.device("meta"):
        network = CALLS[variant.removesuffix("_128f")]()
    assert network.config == config_of(TABLE2[variant]["net"])


def test_other_settings_reach_the_network() -> None:
    conventions = nl.Conventions(profile="release")
    network = nl.c2d_r50(1, subsample=False, num_classes=7, width=1 / 16, dropout=0.1, conventions=conventions)
    assert network.fc.out_features == 7
    assert network.config.non_local is not None
    assert not network.config.non_local.subsample
    assert (network.config.width, network.config.dropout, network.config.conventions) == (1 / 16, 0.1, conventions)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"non_local": 3}, "non_local: expected 0, 1, 5 or 10 blocks as in Table 2, not 3"),
        ({"non_local": 1, "stage": "res6"}, "stage: expected one of res2, res3, res4, res5, not 'res6'"),
        ({"non_local": 5, "stage": "res3"}, "stage: res3 is for one block, but non_local is 5"),
        ({"non_local": 1, "instantiation": "dot"}, "instantiation: expected one of"),
        ({"inflate": "3x1"}, "inflate: expected one of"),
        ({"instantiation": "dot_product"}, "these are for blocks, but non_local is 0"),
        ({"sum_over": "time"}, "these are for blocks, but non_local is 0"),
        ({"subsample": False}, "these are for blocks, but non_local is 0"),
        ({"instantiation": "x"}, "instantiation: expected one of"),
        ({"num_classes": 2.5}, "num_classes: expected int, not 2.5"),
        ({"num_classes": "10"}, "num_classes: expected int, not '10'"),
        ({"control": 1}, "control: expected ControlConfig or None, not 1"),
        ({"spatial_strides": (0,) * 6}, "spatial_strides: expected 3 and 6 whole numbers above 0"),
        ({"width": float("nan")}, "expected a width above 0"),
        ({"width": 1e15}, "width 1000000000000000.*: expected a width above 0 and up to 1,000"),
        ({"num_classes": 10**18}, "expected .* 1 to 10.9 classes"),
        ({"temporal_strides": 2}, "temporal_strides: expected tuple or list, not 2"),
    ],
)
def test_settings_that_table_2_does_not_have_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(nl.UserError, match=said):
        nl.i3d_r50(**options)


@pytest.mark.parametrize(
    ("placement", "said"),
    [({"res4": 4}, "placement.res4: expected numbers of residual blocks, got 4"), (["res4"], "as {'res4': ")],
)
def test_a_placement_is_stages_with_residual_blocks(placement: Any, said: str) -> None:
    with pytest.raises(nl.UserError, match=said):
        nl.ResNetConfig(non_local=nl.NonLocalConfig(placement))


@pytest.mark.parametrize(
    ("call", "given", "said"),
    [
        (nl.VideoResNet, 50, "config: expected ResNetConfig(...), not 50"),
        (lambda hidden: nl.ControlConfig("hidden", hidden=hidden), "x", "hidden: expected a share of the channels"),
        (nl.ControlConfig, {}, "kind: expected one of hidden, average"),
        (nl.Conventions, None, "profile: expected one of paper, release, not None"),
        (lambda classes: nl.c2d_r50(num_classes=classes), True, "num_classes: expected int, not True"),
        (nl.for_testing, None, "model: expected a torch.nn.Module, not a NoneType"),
        (nl.use_kernels, "net", "model: expected a torch.nn.Module, not a str"),
        (nl.remove_non_local, "net", "model: expected a torch.nn.Module, not a str"),
    ],
)
def test_a_wrong_type_is_one_line(call: Callable[[Any], object], given: Any, said: str) -> None:
    with pytest.raises(nl.UserError, match=re.escape(said)):
        call(given)


@pytest.mark.parametrize(
    "clip", [None, torch.zeros(1, 3, 4, 32, 32, dtype=torch.uint8), torch.zeros(1, 3, 4, 32, 32).to_sparse()]
)
def test_clips_are_floats(clip: Any) -> None:
    said = "VideoResNet: expected a tensor of floats, not (a NoneType|torch.uint8|.*sparse_coo)"
    with pytest.raises(nl.UserError, match=said):
        nl.c2d_r50(width=1 / 64)(clip)


@pytest.mark.parametrize("kernels", ["fast", "definition"])
def test_float64_is_for_weights_of_float64(kernels: Any) -> None:
    for module, size in ((nl.c2d_r50(width=1 / 64), (2, 3, 4, 32, 32)), (nl.NonLocalBlock(8), (1, 8, 2, 4, 4))):
        nl.use_kernels(module, kernels)
        x = torch.zeros(size, dtype=torch.float64)
        with pytest.raises(nl.UserError, match=r": expected torch\.float32, as its weights are, not torch\.float64"):
            module(x)
        with pytest.raises(nl.UserError, match=r": expected torch\.float64, as its weights are, not torch\.float32"):
            module.double()(x.float())
        assert module(x).dtype == torch.float64


def test_load_weights_gives_a_network_that_is_ready_to_run(tmp_path: Path) -> None:
    path = write_weights(tmp_path / "w.safetensors", nl.NonLocalConfig({"res3": [1]}))
    network, header = nl.load_weights(str(path))
    assert not network.training
    frames, crop = header.input.num_frames, header.input.test_crop
    assert isinstance(crop, int)
    with torch.no_grad():
        assert network(torch.zeros(1, 3, frames, crop, crop)).shape == (1, 11)
    with pytest.raises(nl.UserError, match="there is no file"):
        nl.load_weights(tmp_path / "other.safetensors")
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(nl.UserError, match=r"pipe\.safetensors: expected a file, got a device"):
        nl.load_weights(tmp_path / "pipe.safetensors")
    for folder in ("", tmp_path):
        with pytest.raises(nl.UserError, match="is a folder; expected a .safetensors file"):
            nl.load_weights(folder)
    with pytest.raises(nl.UserError, match="weights: expected a file or the name of a published network, not None"):
        nl.load_weights(None)  # type: ignore[arg-type]
