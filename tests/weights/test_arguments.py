"""`test --weights W` needs nothing but data: what the file says becomes the command line, in the right order."""

import json
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as L
import torch

from nl_lightning.cli import main
from nl_lightning.data.longrange import CLASSES
from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.train.lightning_cli import VideoCLI
from nl_lightning.weights.file import HEADER, InputSettings, WeightsHeader, save_weights, with_weights

NET = ResNetConfig(
    non_local=NonLocalConfig({"res3": [1]}), num_classes=11, width=1 / 64, spatial_strides=(2, 2, 1, 1, 1, 1),
    conventions=Conventions("release", subsample="after"),
)  # fmt: skip
INPUT = InputSettings(8, 1, (80, 81, 82), (60, 61, 62), 36, 36, 2, 1, "release", test_pool=7)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    save_weights(tmp_path / "w.safetensors", VideoResNet(NET).state_dict(), WeightsHeader(NET, INPUT, "ours", ""))
    return tmp_path / "w.safetensors"


def parsed(*arguments: str) -> VideoCLI:
    words = with_weights(["test", *arguments])
    return VideoCLI(args=[*words[1:], "--trainer.accelerator=cpu"], run=False, trainer_defaults={"logger": False})


def test_the_network_and_its_input_come_from_the_file(weights: Path) -> None:
    cli = parsed(f"--weights={weights}", "--data.root=.")
    config = cli.model.net.config
    assert config.conventions.rules == NET.conventions.rules
    assert config.non_local == NET.non_local
    assert (cli.model.mean, cli.model.std) == (INPUT.mean, INPUT.std)
    assert cli.model.test_pool == 7
    assert cli.datamodule.test_settings() == {
        "num_frames": 8, "frame_stride": 1, "test_short_side": 36, "test_crop": 36, "num_clips": 2, "num_crops": 1,
        "clip_starts": "release",
    }  # fmt: skip


def test_a_recipe_says_how_to_test_and_not_what_is_tested(weights: Path, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        "model: {mean: 1, net: {num_classes: 5, conventions: {profile: paper, scale: false}}}\n"
        "data: {root: ., num_frames: 64, num_clips: 5, clip_starts: paper}\n"
    )
    cli = parsed("--config", str(recipe), "--weights", str(weights), "--data.num_crops=3")
    assert cli.model.net.config.conventions.rules == NET.conventions.rules
    assert cli.model.net.config.num_classes == 11
    assert cli.model.mean == (80, 81, 82)
    settings = cli.datamodule.test_settings()
    assert (settings["num_frames"], settings["num_clips"], settings["num_crops"]) == (8, 5, 3)
    assert settings["clip_starts"] == "paper"


def test_training_does_not_take_them(weights: Path) -> None:
    words = ["fit", "--config", "a.yaml", "--model.init_from=w.safetensors"]
    assert with_weights(words) == words
    with pytest.raises(UserError, match="--model.init_from=W starts a training"):
        with_weights(["fit", f"--weights={weights}"])


def test_testing_a_weight_file(
    weights: Path, small_videos: Path, capfd: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    common = [f"--data.root={small_videos}", "--trainer.logger=false", "--trainer.accelerator=cpu"]
    common += ["--data.val_list=val.txt", "--data.test_list=test.txt"]
    assert main(["test", f"--weights={weights}", *common]) == 0
    assert "test/top1" in capfd.readouterr().out
    assert main(["test", f"--weights={weights}", *common, "--model.net.conventions.scale=false"]) == 2
    said = capfd.readouterr().err
    assert "is of another network: conventions.scale is True there, False here" in said


def test_what_is_tested_is_one_trained_network(
    weights: Path, small_videos: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Testing never uses what a training starts from."""
    common = [f"--data.root={small_videos}", "--data.val_list=val.txt", "--data.test_list=test.txt"]
    one = "expected one trained network, --weights=FILE or --ckpt_path=FILE, got"
    none = f"{one} none (model.init_from and model.imagenet are what fit starts from)"
    for words, said in (
        ([], none),
        ([f"--model.init_from={weights}"], none),
        ([f"--model.imagenet={weights}"], none),
        ([f"--weights={weights}", f"--ckpt_path={weights}"], f"{one} both"),
    ):
        for command in ("validate", "test"):
            assert main([command, *common, *words]) == 2
            assert capsys.readouterr().err == f"nl-lightning: {command}: {said}\n"
    for word, named in (("--weights=b.safetensors", "b.safetensors"), ("--model.weights=b", "--model.weights=b")):
        assert main(["test", *common, "--weights", str(weights), word]) == 2
        said = f"nl-lightning: --weights: expected one weight file, got {weights} and {named}\n"
        assert capsys.readouterr().err == said


@pytest.fixture
def of_two_classes(tmp_path: Path, small_videos: Path) -> tuple[Path, Path, list[str]]:
    """A weight file and a training checkpoint that exchange two classes of the small videos, and words for these."""
    names = (*CLASSES[:3], CLASSES[4], CLASSES[3], *CLASSES[5:11])
    header = WeightsHeader(NET, INPUT, "ours", "", classes=names)
    net = VideoResNet(NET)
    save_weights(tmp_path / "other.safetensors", net.state_dict(), header)
    lists = [f"--data.{split}_list={split}.txt" for split in ("train", "val", "test")]
    words = [f"--data.root={small_videos}", "--trainer.accelerator=cpu", *lists, "--data.batch_size=4"]
    words += ["--data.short_side=[36,36]", "--data.crop=32", "--data.test_short_side=36", "--data.test_crop=32"]
    state = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    rest: dict[str, Any] = {"loops": {}, "callbacks": {}, "optimizer_states": [], "lr_schedulers": []}
    rest |= {"pytorch-lightning_version": L.__version__, "global_step": 0, "epoch": 0, HEADER: header.to_json()}
    torch.save({"state_dict": state, **rest}, tmp_path / "other.ckpt")
    return tmp_path / "other.safetensors", tmp_path / "other.ckpt", words


def test_weights_of_other_classes_are_refused_wherever_they_meet_data(
    of_two_classes: tuple[Path, Path, list[str]], capsys: pytest.CaptureFixture[str]
) -> None:
    file, checkpoint, words = of_two_classes
    net = f"--model.net={json.dumps(json.loads(WeightsHeader(NET, INPUT, '', '').to_json())['net'])}"
    first = f"class 3 is '{CLASSES[4]}' there, '{CLASSES[3]}' here"
    for command, at in (
        (["test", f"--weights={file}"], f"weights: {file}"),
        (["fit", net, f"--model.init_from={file}"], f"init_from: {file}"),
        (["fit", net, f"--model.init_from={checkpoint}"], f"init_from: {checkpoint}"),
        (["fit", net, f"--ckpt_path={checkpoint}"], "ckpt_path"),
    ):
        assert main([*command, *words]) == 2, command
        line = capsys.readouterr().err
        assert at in line, command
        assert line.endswith(f"the classes are not those of the data: {first}\n"), command
