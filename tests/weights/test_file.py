"""The weight file: what goes in comes out, bit by bit and word by word; what is broken is named."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
import safetensors.torch
import torch

from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.weights.file import (
    InputSettings,
    WeightsHeader,
    check_classes,
    checked_numbers,
    differences,
    fill,
    header_from_json,
    load_weights,
    read_header,
    read_weights,
    save_weights,
)

SMALL = ResNetConfig(
    inflate="3x1x1", non_local=NonLocalConfig({"res3": [1]}, "dot_product"), num_classes=7, width=1 / 32,
    conventions=Conventions("release", scale=False),
)  # fmt: skip
HEADER = WeightsHeader(SMALL, InputSettings(8, 8, mean=(1.5, 2.0, 3.0), test_crop="whole"), "caffe2", "00ff")


@pytest.fixture
def file(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", VideoResNet(SMALL).state_dict(), HEADER)
    return tmp_path / "w.safetensors"


def test_a_network_comes_back_bit_by_bit_in_eval_mode(file: Path) -> None:
    torch.manual_seed(0)
    expected = VideoResNet(SMALL).state_dict()
    net, header = load_weights(file)
    assert not net.training
    assert net.state_dict().keys() == expected.keys()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in net.state_dict().items())
    assert header.input == HEADER.input
    assert header.net.conventions.rules == SMALL.conventions.rules
    assert differences(header.net, SMALL) == []
    assert (header.net.num_classes, header.source, header.source_sha256) == (7, "caffe2", "00ff")


def test_every_convention_is_spelled_out() -> None:
    """So that the file means the same if a profile should ever change."""
    conventions = header_from_json(HEADER.to_json(), "here").net.conventions
    assert None not in vars(conventions).values()


def test_a_file_without_a_classifier_is_not_tested(tmp_path: Path) -> None:
    path = tmp_path / "w.safetensors"
    tensors = {name: t for name, t in VideoResNet(SMALL).state_dict().items() if not name.startswith("fc.")}
    save_weights(path, tensors, WeightsHeader(SMALL, HEADER.input, "caffe2", "", classifier=False))
    with pytest.raises(UserError, match="has no classifier: it can start a training"):
        load_weights(path)
    net = VideoResNet(SMALL)
    classifier = net.fc.weight.clone()
    fill(net, read_weights(path)[0], "here", new=["fc"])
    assert torch.equal(net.fc.weight, classifier)
    assert torch.equal(net.conv1.weight, tensors["conv1.weight"])


def test_what_a_file_lacks_or_has_too_much_is_named() -> None:
    net = VideoResNet(SMALL)
    tensors = net.state_dict()
    tensors["conv9.weight"] = tensors.pop("conv1.weight")
    tensors["fc.bias"] = torch.zeros(8)
    wrong = "missing: conv1.weight; left over: conv9.weight; of another shape: fc.bias [8] for [7]"
    with pytest.raises(UserError) as refused:
        fill(net, tensors, "w")
    assert str(refused.value) == f"w: the tensors are not this network's: {wrong}"


def test_blocks_may_stay_new_whole_or_not_at_all() -> None:
    config = ResNetConfig(**{**vars(SMALL), "non_local": NonLocalConfig({"res3": [1, 3], "res4": [4]})})
    net = VideoResNet(config)
    plain = {name: t + 1 for name, t in net.state_dict().items() if ".non_local." not in name}
    one = {name: t + 1 for name, t in net.state_dict().items() if name.startswith("res3.non_local.3.")}
    assert fill(net, {**plain, **one}, "w", new=["non_local"]) == ["res3.non_local.1", "res4.non_local.4"]
    assert all(torch.equal(net.state_dict()[name], tensor) for name, tensor in {**plain, **one}.items())
    one.popitem()  # a block of which something is there
    with pytest.raises(UserError, match=r"w: .*missing: res3\.non_local\.3\.\S+$"):
        fill(net, {**plain, **one}, "w", new=["non_local"])
    del plain["conv1.weight"]
    with pytest.raises(UserError, match=r"missing: conv1\.weight$"):
        fill(net, plain, "w", new=["non_local"])


@pytest.mark.parametrize(
    ("there", "here", "said"),
    [
        (["a", "b", "c"], ["a", "c", "b"], "class 1 is 'b' there, 'c' here"),
        (["a", "b", "c"], ["a", "b"], "class 2 is 'c' there, none here"),
        (["a"], ["a", "b\x1b[2J"], r"class 1 is none there, 'b\x1b[2J' here"),
    ],
)
def test_the_first_class_that_differs_is_named(there: list[str], here: list[str], said: str) -> None:
    with pytest.raises(UserError) as refused:
        check_classes(there, here, "w")
    assert str(refused.value) == f"w: the classes are not those of the data: {said}"


def test_classes_with_odd_bytes_are_those_of_their_weights() -> None:
    """As of a folder whose name isn't UTF-8: JSON can't hold it."""
    classes = VideoList.of(Path(), [], [], [os.fsdecode(b"a\xff")]).classes
    check_classes(header_from_json(replace(HEADER, classes=classes).to_json(), "w").classes, classes, "w")


def test_classes_without_names_are_not_compared() -> None:
    for there, here in (([], ["a"]), (["a"], []), (["a", "b"], ["a", "b"])):
        check_classes(there, here, "w")


def test_networks_differ_in_what_they_compute_only() -> None:
    other = ResNetConfig(**{**vars(SMALL), "conventions": Conventions("release"), "dropout": 0.0})
    assert differences(SMALL, other) == ["conventions.scale is False there, True here"]
    trained = ResNetConfig(**{**vars(SMALL), "conventions": Conventions("release", scale=False, decay_bn=True)})
    assert differences(SMALL, trained) == []


@pytest.mark.parametrize("kept", [0, 5, 2000, -100])
def test_a_truncated_file_is_refused_in_one_line(file: Path, kept: int) -> None:
    file.write_bytes(file.read_bytes()[:kept])
    with pytest.raises(UserError, match="w.safetensors is no whole .safetensors file") as refused:
        load_weights(file)
    assert "\n" not in str(refused.value)


def test_other_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="there is no file"):
        load_weights(tmp_path / "nowhere.safetensors")
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "foreign.safetensors")
    with pytest.raises(UserError, match="was not written by nl-lightning weights import"):
        load_weights(tmp_path / "foreign.safetensors")
    broken = {"format": "nl-lightning 1", "nl_lightning": HEADER.to_json().replace("depth", "height")}
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "new.safetensors", broken)
    with pytest.raises(UserError, match="the header: net: unknown key 'height'; known: depth, "):
        load_weights(tmp_path / "new.safetensors")


@pytest.mark.parametrize(
    ("path", "value", "match"),
    [
        (["input"], "zz", "input: expected"),
        (["input", "mean"], [1.0], "input.mean: expected"),
        (["input", "mean"], "114", "input.mean: expected a list"),
        (["input", "std"], [1.0, 0.0, 1.0], "std: expected numbers other than 0"),
        (["input", "num_frames"], 0, "input.num_frames: expected a whole number, 1 to 100000, got 0"),
        (["input", "clip_starts"], "papers", "did you mean 'paper'"),
        (["input", "num_crops"], 2, "input.num_crops: expected"),
        (["net"], None, "net: expected"),
        (["net", "depth"], "50", "net.depth: expected"),
        (["net", "conventions", "subsample"], "in between", "net.conventions.subsample: expected"),
        (["net", "non_local", "placement"], {"res3": ["a"]}, "net.non_local.placement.res3"),
        (["net", "non_local", "placement"], {"res9": [1]}, "res9"),
        (["net", "width"], -1, "width -1"),
        (["classes"], ["a", 3], r"classes\[1\]: expected a text"),
        (["source"], 5, "source: expected a text"),
        (["more"], 5, "unknown key 'more'"),
    ],
)
def test_a_header_of_other_types_is_refused_by_its_key(
    path: list[str], value: object, match: str, tmp_path: Path
) -> None:
    raw = here = json.loads(HEADER.to_json())
    for key in path[:-1]:
        here = here[key]
    here[path[-1]] = value
    said = {"format": "nl-lightning 1", "nl_lightning": json.dumps(raw)}
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", said)
    for read in (read_header, load_weights):
        with pytest.raises(UserError, match=f"w.safetensors: the header.*{match}") as refused:
            read(tmp_path / "w.safetensors")
        assert str(refused.value).isprintable()


@pytest.mark.parametrize("text", ["", "[" * 100_000, "null", "[]", '{"net": 1, "net": 2}', "\x1b[2J", "9" * 5000])
def test_a_header_that_is_no_json_is_refused(text: str, tmp_path: Path) -> None:
    said = {"format": "nl-lightning 1", "nl_lightning": text}
    safetensors.torch.save_file({"a": torch.zeros(1)}, tmp_path / "w.safetensors", said)
    with pytest.raises(UserError, match="w.safetensors: the header") as refused:
        read_header(tmp_path / "w.safetensors")
    assert str(refused.value).isprintable()


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (
            {"a": torch.tensor([1, float("nan")]), "b": torch.tensor(1e300, dtype=torch.float64)},
            "not a number, or infinite, in 2 tensors: a, b",
        ),
        ({"fc.bias": torch.ones(7, dtype=torch.int64)}, "no plain floats in 1 tensors: fc.bias"),
        ({"fc.bias": torch.ones(7).to_sparse()}, "no plain floats in 1 tensors: fc.bias"),
        ({"bn1.running_var": torch.tensor([1, -1e-9])}, "a variance below zero in 1 tensors: bn1.running_var"),
    ],
)
def test_what_no_weights_can_be_is_named(broken: dict[str, torch.Tensor], said: str) -> None:
    good = {"huge": torch.full((3,), 3e38), "bn1.num_batches_tracked": torch.tensor(7), "running_mean": -torch.ones(3)}
    checked_numbers(good, "w")
    with pytest.raises(UserError) as refused:
        checked_numbers({**good, **broken}, "w")
    assert str(refused.value) == f"w: {said}"


def test_weights_of_any_precision_are_used_in_float32(file: Path) -> None:
    tensors, header = read_weights(file)
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        save_weights(file, {name: t.to(dtype) if t.is_floating_point() else t for name, t in tensors.items()}, header)
        net, _ = load_weights(file)
        assert {parameter.dtype for parameter in net.parameters()} == {torch.float32}
        assert torch.equal(net.fc.weight, tensors["fc.weight"].to(dtype).float())


def test_a_file_of_broken_weights_is_not_read(file: Path) -> None:
    tensors, header = read_weights(file)
    save_weights(file, {**tensors, "fc.bias": tensors["fc.bias"] / 0}, header)
    with pytest.raises(UserError, match=r"w\.safetensors: not a number, or infinite, in 1 tensors: fc\.bias"):
        load_weights(file)
