"""Files of ours and of others -> weight files, and back: nothing is lost, and what is wrong is said in one line."""

import collections
import inspect
import pickle
import zipfile
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pytest
import pytorch_lightning as L
import torch

from nl_lightning.cli import main
from nl_lightning.cli.videos import weights_import
from nl_lightning.data import longrange
from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.train.classifier import VideoClassifier
from nl_lightning.train.start import init_from
from nl_lightning.weights import blocks
from nl_lightning.weights.exporting import SUFFIXES, export_weights
from nl_lightning.weights.file import (
    HEADER,
    InputSettings,
    WeightsHeader,
    differences,
    header_from_json,
    load_weights,
    read_header,
    read_weights,
    save_weights,
)
from nl_lightning.weights.importing import Imported, import_weights
from nl_lightning.weights.safe import read_others, read_pickle
from nl_lightning.weights.sources import SOURCES

SMALL = ResNetConfig(
    non_local=NonLocalConfig({"res4": [4]}), num_classes=3, width=1 / 64, conventions=Conventions(scale=True)
)
R101 = {3: (1, 3), 4: (6, 13, 20)}


def python2(content: Any, protocol: int = 2) -> bytes:
    """A pickle as Python 2 and the numpy of its time would have it: texts of one byte a letter, old module names."""
    raw = pickle.dumps(content, protocol, fix_imports=True)
    return raw.replace(b"numpy._core.multiarray", b"numpy.core.multiarray")


def arrays(tensors: dict[str, torch.Tensor]) -> dict[str, Any]:
    return {name: tensor.numpy() for name, tensor in tensors.items()}


def read(folder: Path, content: bytes, name: str = "i3d_nonlocal_32x2_IN_pretrain_400k.pkl", **kwargs: Any) -> Imported:
    (folder / name).write_bytes(content)
    return import_weights(folder / name, folder / "w.safetensors", **kwargs)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A training checkpoint of ours."""
    torch.manual_seed(0)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    model = VideoClassifier(SMALL, mean=80, std=60)
    model.trainer = trainer
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "last.ckpt", weights_only=True)
    return tmp_path / "last.ckpt"


def test_a_checkpoint_of_ours_says_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    import_weights(checkpoint, tmp_path / "w.safetensors")
    net, header = load_weights(tmp_path / "w.safetensors")
    assert differences(header.net, SMALL) == []
    assert header.input.mean == (80, 80, 80)
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, state[f"net.{name}"]) for name, tensor in net.state_dict().items())


def test_a_checkpoint_of_ours_names_the_classes(small_videos: Path) -> None:
    trainer: Any = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False)
    trainer.datamodule = VideoDataModule(str(small_videos), train_list="train.txt")
    model = VideoClassifier(SMALL)
    model.trainer = trainer
    saved: dict[str, Any] = {}
    model.on_save_checkpoint(saved)
    assert header_from_json(saved[HEADER], "here").classes == longrange.LongRange().classes()


# ------------------------------------------------------------------------------------------- the released files


@pytest.mark.parametrize(("depth", "placed", "count"), [(50, {3: (1, 3), 4: (1, 3, 5)}, 327), (101, R101, 582)])
def test_released_names_go_in_and_out_without_losing_a_bit(
    depth: int, placed: dict[int, Any], count: int, reference: Any, tmp_path: Path
) -> None:
    """With momenta, learning rate and iteration, as the files have them, and a scope before the names."""
    theirs = reference("caffe2", depth=depth, nonlocal_after=placed, width=1 / 32).tensors
    assert len(theirs) == count
    blobs = arrays(theirs)
    trained = {f"{name}_momentum": array for name, array in blobs.items() if not name.endswith(("_rm", "_riv"))}
    content = {"blobs": {**blobs, **trained, "lr": np.array([1e-4], np.float32), "model_iter": 400_001}}
    imported = read(tmp_path, python2(content))
    assert imported.matched == count
    assert imported.header.net.depth == depth
    assert imported.header.net.non_local == NonLocalConfig({f"res{s}": list(after) for s, after in placed.items()})
    assert len(imported.aside) == len(trained) + 2
    assert export_weights(tmp_path / "w.safetensors", tmp_path / "back.pkl", "caffe2") == count
    for same, match in (("w.safetensors", r"--out: expected a name that ends in \.pkl"), ("w.pkl", "to export itself")):
        before = (tmp_path / "w.safetensors").rename(tmp_path / same).read_bytes()
        with pytest.raises(UserError, match=match):
            export_weights(tmp_path / same, tmp_path / same, "caffe2")
        assert (tmp_path / same).rename(tmp_path / "w.safetensors").read_bytes() == before
    back = read_pickle(tmp_path / "back.pkl")["blobs"]
    assert back.keys() == theirs.keys() | {"lr"}
    assert all(torch.equal(back[name], tensor) for name, tensor in theirs.items())


def test_the_kinds_of_released_files(reference: Any, tmp_path: Path) -> None:
    plain = reference("caffe2", width=1 / 32)
    folded = reference("caffe2", width=1 / 32, folded=True)
    blobs = arrays(plain.tensors)

    rules = read(tmp_path, python2({"blobs": blobs})).header.net.conventions.rules
    assert (rules.norm, rules.nonlocal_norm, rules.res3_group, rules.subsample) == ("batch", "batch", 0, "before")

    long = read(tmp_path, python2({"blobs": arrays(folded.tensors)}), "i3d_nonlocal_128x1_I3D_pretrain_400k.pkl").header
    rules = long.net.conventions.rules
    assert (rules.norm, rules.nonlocal_norm, rules.res3_group) == ("affine", "none", 4)
    assert (long.input.num_frames, long.input.frame_stride, long.net.temporal_strides) == (128, 1, (2, 2, 2))

    converted = {k: v for k, v in arrays(folded.tensors).items() if "pred" not in k} | {"lr": 0.00125}
    rest = read(tmp_path, python2(converted), "affine_model_400k.pkl", variant="32x2 affine", classifier=False)
    assert rest.header.net.conventions.rules.norm == "affine"

    prepared = {k: v for k, v in blobs.items() if not k.endswith(("_rm", "_riv")) and "pred" not in k} | {"lr": 0.01}
    tuned = read(tmp_path, python2(prepared, 0), "model_8x8.pkl", classifier=False)
    assert tuned.header.net.conventions.rules.norm == "batch"
    assert tuned.header.net.temporal_strides == (1, 1, 2)
    assert set(tuned.tensors["res3.non_local.1.bn.running_var"].tolist()) == {1.0}
    assert len(tuned.filled) == 2 * sum(name.endswith("_rm") for name in blobs)


def test_imagenet_pre_training_is_inflated(reference: Any, tmp_path: Path) -> None:
    """A kernel of t frames is t copies of the image's, each divided by t."""
    image = reference("caffe2", i3d=False, nonlocal_after={}, width=1 / 32, classes=1000).tensors
    flat = {name: (tensor[:, :, 0] if tensor.ndim == 5 else tensor) for name, tensor in image.items()}
    content = {**arrays(flat), "lr": np.float32(0.1)}
    name = "r50_pretrain_c2_model_iter450450_clean.pkl"
    assert read(tmp_path, python2(content), name).header.net.inflate == "none"
    inflated = read(tmp_path, python2(content), name, variant="i3d", classifier=False).tensors
    assert inflated["conv1.weight"].shape[2] == 5
    torch.testing.assert_close(inflated["conv1.weight"].sum(dim=2), flat["conv1_w"])
    assert inflated["res2.blocks.1.conv1.weight"].shape[2] == 3
    assert "fc.weight" not in inflated


def test_a_pickle_of_python_2_itself(tmp_path: Path) -> None:
    """Written down from its protocol 0: two numbers under a name."""
    raw = (
        b"(dp0\nS'conv1_w'\np1\ncnumpy.core.multiarray\n_reconstruct\np2\n(cnumpy\nndarray\np3\n(I0\ntp4\nS'b'\np5\n"
        b"tp6\nRp7\n(I1\n(I2\ntp8\ncnumpy\ndtype\np9\n(S'f4'\np10\nI0\nI1\ntp11\nRp12\n(I3\nS'<'\np13\nNNNI-1\nI-1\n"
        b"I0\ntp14\nbI00\nS'\\x00\\x00\\x80?\\x00\\x00\\xc0\\xbf'\np15\ntp16\nbs."
    )
    (tmp_path / "two.pkl").write_bytes(raw)
    assert read_pickle(tmp_path / "two.pkl")["conv1_w"].tolist() == [1.0, -1.5]


def test_a_test_nets_classifier_is_a_convolution(reference: Any, tmp_path: Path) -> None:
    theirs = reference("caffe2", width=1 / 32).tensors
    blobs = arrays(theirs) | {"pred_w": theirs["pred_w"][..., None, None, None].numpy()}
    assert torch.equal(read(tmp_path, python2({"blobs": blobs})).tensors["fc.weight"], theirs["pred_w"])


# ------------------------------------------------------------------------------------------------- and back


def test_slowfasts_names_go_in_and_out_without_losing_a_bit(
    reference: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = reference("slowfast", width=1 / 32, strides=(1, 1, 2)).tensors
    torch.save({"model_state": theirs, "optimizer_state": {"param_groups": [], "state": {}}}, tmp_path / "a.pyth")
    imported = import_weights(tmp_path / "a.pyth", tmp_path / "w.safetensors", variant="8x8 dot_product")
    assert imported.header.net.non_local is not None
    assert imported.header.net.non_local.instantiation == "dot_product"
    assert imported.aside == ["optimizer_state"]
    export_weights(tmp_path / "w.safetensors", tmp_path / "b.pyth", "slowfast")
    back = torch.load(tmp_path / "b.pyth", weights_only=True)
    assert back["model_state"].keys() == theirs.keys()
    assert all(torch.equal(back["model_state"][name], tensor) for name, tensor in theirs.items())
    again = import_weights(tmp_path / "b.pyth", tmp_path / "again.safetensors")
    assert differences(again.header.net, imported.header.net) == []
    assert again.header.input == imported.header.input
    assert capsys.readouterr().err == ""


def test_settings_that_a_format_cannot_hold_are_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    conventions = Conventions("release", max_pool="padded_in_space")
    config = ResNetConfig(width=1 / 64, num_classes=3, temporal_strides=(1, 1, 2), conventions=conventions)
    seen = InputSettings(8, 8, (80, 81, 82.3), test_crop="whole", num_crops=1, clip_starts="paper", test_pool=7)
    save_weights(tmp_path / "w.safetensors", VideoResNet(config).state_dict(), WeightsHeader(config, seen, "ours", ""))
    export_weights(tmp_path / "w.safetensors", tmp_path / "b.pyth", "slowfast")
    lost = "test_crop whole (256), clip_starts paper (slowfast)"
    said = f"nl-lightning: files of slowfast can't hold these settings, and read back as others: {lost}\n"
    assert capsys.readouterr().err == said
    back = import_weights(tmp_path / "b.pyth", tmp_path / "again.safetensors").header.input
    assert (back.test_crop, back.clip_starts) == (256, "slowfast")


def blank_start(path: Path, reference: Any, released: str) -> Path:
    """A released starting point without blocks, as a weight file."""
    if released == "imagenet":  # 2-D, of 1,000 classes
        theirs = reference("caffe2", width=1 / 32, i3d=False, nonlocal_after={}).tensors
        theirs = {name: t[:, :, 0] if t.ndim == 5 else t for name, t in theirs.items()}
        name = "r50_pretrain_c2_i3d_32x2.pkl"
    else:
        theirs = reference("caffe2", width=1 / 32, nonlocal_after={}, folded=True).tensors
        name = "i3d_baseline_32x2_IN_pretrain_400k_affine.pkl"
    (path / name).write_bytes(python2({"blobs": arrays(theirs)}))
    import_weights(path / name, path / "w.safetensors", classifier=released != "imagenet")
    return path / "w.safetensors"


@pytest.mark.parametrize("released", ["imagenet", "affine"])
def test_released_starts_without_blocks_start_networks_with_blocks(
    released: str, reference: Any, tmp_path: Path
) -> None:
    """Strictly, unless the blocks are named as what stays new; as they begin, they change nothing."""
    file = blank_start(tmp_path, reference, released)
    plain = read_header(file).net
    with_blocks = ResNetConfig(**{**vars(plain), "non_local": NonLocalConfig({"res3": [1, 3], "res4": [5]})})
    torch.manual_seed(0)
    net = VideoResNet(with_blocks).eval()
    before = {name: t.clone() for name, t in net.state_dict().items()}
    with pytest.raises(UserError, match=r"init_from: .*missing: res3\.non_local\.1"):
        init_from(net, file)
    classifier = ["fc"] if released == "imagenet" else []
    blocks = ["res3.non_local.1", "res3.non_local.3", "res4.non_local.5"]
    assert init_from(net, file, ["non_local"]) == blocks + classifier
    start, _ = read_weights(file)
    for name, tensor in net.state_dict().items():
        assert torch.equal(tensor, start.get(name, before[name])), name
        assert (name in start) == (".non_local." not in name and (released != "imagenet" or name[:3] != "fc.")), name
    alone = VideoResNet(plain).eval()
    assert init_from(alone, file, ["non_local"]) == classifier  # a study's baselines have no blocks
    clip = torch.randn(1, 3, 32, 48, 48)
    with torch.no_grad():
        torch.testing.assert_close(net.features(clip), alone.features(clip))


def test_what_the_others_cannot_compute_is_not_exported(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "w.safetensors"
    save_weights(path, VideoResNet(SMALL).state_dict(), WeightsHeader(SMALL, InputSettings(32, 2), "ours", ""))
    with pytest.raises(UserError, match="caffe2 has no network that computes this: .*conventions.max_pool is unpadded"):
        export_weights(path, tmp_path / "out.pkl", "caffe2")
    assert not (tmp_path / "out.pkl").exists()
    assert main(["weights", "export", str(path), "--to=slowfast", f"--out={tmp_path / 'out.pyth'}"]) == 2
    assert "slowfast has no network that computes this" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("net", "clip", "to", "match"),
    [
        ({}, (8, 2), "caffe2", "caffe2 has no network for clips of 8x2, only for 32x2"),
        ({"non_local": NonLocalConfig({"res4": [1]}, "gaussian")}, (32, 2), "caffe2", "caffe2 has no gaussian blocks"),
        ({"non_local": NonLocalConfig({"res4": [1]}, sum_over="space")}, (32, 2), "caffe2", "NonLocalConfig"),
        ({}, (8, 8), "slowfast", "temporal_strides is"),
        ({"min_channels": 8}, (8, 8), "slowfast", r"no network whose layers have at least 8 channels each"),
    ],
)
def test_networks_that_the_others_do_not_have(
    net: dict[str, Any], clip: tuple[int, int], to: Any, match: str, tmp_path: Path
) -> None:
    config = ResNetConfig(**net, width=1 / 64, num_classes=3, conventions=Conventions("release"))
    header = WeightsHeader(config, InputSettings(*clip), "ours", "")
    save_weights(tmp_path / "w.safetensors", VideoResNet(config).state_dict(), header)
    with pytest.raises(UserError, match=match):
        export_weights(tmp_path / "w.safetensors", tmp_path / f"out{SUFFIXES[to]}", to)


def test_an_old_file_of_pytorch_is_told_from_a_pickle(reference: Any, tmp_path: Path) -> None:
    theirs = reference("tushar_n", width=1 / 32, nonlocal_after={}).tensors
    torch.save(theirs, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    assert import_weights(tmp_path / "old.pth", tmp_path / "w.safetensors").header.source == "tushar_n"


# --------------------------------------------------------------------------------------------------- bad input


def refused(folder: Path, content: bytes, match: str, **kwargs: Any) -> None:
    with pytest.raises(UserError, match=match) as error:
        read(folder, content, **kwargs)
    assert "\n" not in str(error.value)
    assert "32x2_IN_pretrain" in str(error.value)
    assert not (folder / "w.safetensors").exists()


def test_containers_are_read_and_other_classes_are_not(tmp_path: Path) -> None:
    ordered = collections.OrderedDict(a=np.arange(3.0))
    (tmp_path / "a.pkl").write_bytes(pickle.dumps(ordered, 2))
    assert read_pickle(tmp_path / "a.pkl")["a"].tolist() == [0, 1, 2]
    refused(tmp_path, pickle.dumps(Path("a")), "refused: reading it would run pathlib")
    refused(tmp_path, pickle.dumps({"f": eval}, 2), r"refused: reading it would run __builtin__\.eval")


def test_broken_files_are_refused(reference: Any, tmp_path: Path) -> None:
    whole = python2({"blobs": arrays(reference("caffe2", width=1 / 32).tensors)})
    refused(tmp_path, whole[: len(whole) // 2], "can't be read as a pickle .*is it whole")
    refused(tmp_path, b"", "is neither a file of PyTorch, nor of safetensors, nor a pickle")
    refused(tmp_path, b"just some text", "is neither a file of PyTorch, nor of safetensors, nor a pickle")
    torch.save({"a": torch.zeros(3)}, tmp_path / "a.pth")
    zipped = (tmp_path / "a.pth").read_bytes()
    refused(tmp_path, zipped[: len(zipped) // 2], "can't be read as a file of PyTorch")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("readme.txt", "no checkpoint")
    refused(tmp_path, (tmp_path / "b.zip").read_bytes(), "can't be read as a file of PyTorch")
    with pytest.raises(UserError, match="there is no file"):
        read_others(tmp_path / "nowhere.pkl")


def test_tensors_of_no_network_are_refused(tmp_path: Path) -> None:
    refused(
        tmp_path, pickle.dumps({"blobs": {"alpha": np.zeros(3), "beta": np.zeros(3)}}), "of no known kind.*alpha, beta"
    )
    refused(tmp_path, pickle.dumps({"state": {}, "param_groups": []}), "expected tensors by name, found none")
    refused(tmp_path, pickle.dumps([1, 2]), "expected tensors by name, found a list")


def test_another_architecture_is_named_by_its_blocks(reference: Any, tmp_path: Path) -> None:
    def blobs() -> dict[str, Any]:
        return arrays(reference("caffe2", width=1 / 32).tensors)

    def file(tensors: dict[str, Any]) -> bytes:
        return python2({"blobs": tensors})

    short = {name: array for name, array in blobs().items() if not name.startswith(("res4_5", "nonlocal_conv4_5"))}
    refused(
        tmp_path, file(short), r"its stages have \(3, 4, 5, 3\) residual blocks; known are \(3, 4, 6, 3\) of ResNet-50"
    )
    lost = {name: array for name, array in blobs().items() if name != "res3_2_branch2b_w"}
    refused(tmp_path, file(lost), r"another architecture than I3D 3x1x1 .*missing: res3\.blocks\.2\.conv2\.weight")
    more = {**blobs(), "res3_2_branch2d_w": np.zeros((1, 1))}
    refused(tmp_path, file(more), "1 of its tensors are left over: res3_2_branch2d_w")
    long = {**blobs(), f"nonlocal_conv3_{'9' * 5000}_theta_w": np.zeros((1, 1))}
    refused(tmp_path, file(long), "1 of its tensors are left over: nonlocal_conv3_9999")
    odd = {**blobs(), "res3_2_branch2b_w": np.zeros(3), "pred_w": np.zeros(())}
    refused(tmp_path, file(odd), r"weights that are no kernels: fc\.weight, res3\.blocks\.2\.conv2\.weight")
    slow = {**blobs(), "res4_1_branch2a_w": np.zeros((8, 32, 3, 1, 1), np.float32)}
    refused(
        tmp_path,
        file(slow),
        r"of another shape: res4\.blocks\.1\.conv1\.weight \[8, 32, 3, 1, 1\] for \[8, 32, 1, 1, 1\]",
    )


def test_a_tensor_under_two_names_is_refused(reference: Any, tmp_path: Path) -> None:
    theirs = reference("mmaction2", width=1 / 32, nonlocal_after={}).tensors
    block = "backbone.layer2.1.non_local_block"
    twice = {**theirs, f"{block}.g.conv.bias": torch.zeros(8), f"{block}.g.0.conv.bias": torch.zeros(8)}
    torch.save({"state_dict": twice}, tmp_path / "m.pth")
    with pytest.raises(UserError, match=r"a tensor under two names: .*g\.0\.conv\.bias"):
        import_weights(tmp_path / "m.pth", tmp_path / "w.safetensors", variant="embedded_gaussian")


def test_what_tensors_do_not_tell_has_to_be_said(reference: Any, tmp_path: Path) -> None:
    theirs = reference("caffe2", width=1 / 32)
    (tmp_path / "model.pkl").write_bytes(python2({"blobs": arrays(theirs.tensors)}))
    for variant, match in (
        (None, "say which clips"),
        ("big", "expected words of 32x2"),
        ("8x8 dotproduct", "expected"),
    ):
        with pytest.raises(UserError, match=f"--variant: {match}"):
            import_weights(tmp_path / "model.pkl", tmp_path / "w.safetensors", variant=variant)
    with pytest.raises(UserError, match="--from: expected auto or one of caffe2, slowfast, .*not 'caffe'"):
        import_weights(tmp_path / "model.pkl", tmp_path / "w.safetensors", source="caffe")
    known = get_args(inspect.signature(weights_import).parameters["from_"].annotation)
    assert set(known) == {"auto", blocks.NAME, *(kind.name for kind in SOURCES)}
    with pytest.raises(UserError, match=r"--out: expected a name that ends in \.safetensors"):
        import_weights(tmp_path / "model.pkl", tmp_path / "w.pt")


def test_what_is_not_a_number_is_refused(reference: Any, tmp_path: Path) -> None:
    blobs = arrays(reference("caffe2", width=1 / 32).tensors)
    blobs["res3_2_branch2b_w"][0, 0, 0, 0, 0] = np.nan
    refused(
        tmp_path, python2({"blobs": blobs}), r"not a number, or infinite, in 1 tensors: res3\.blocks\.2\.conv2\.weight"
    )


def test_a_classifier_of_others_is_left_out_only_when_asked(reference: Any, tmp_path: Path) -> None:
    theirs = reference("caffe2", width=1 / 32).tensors
    blobs = {name: array for name, array in arrays(theirs).items() if "pred" not in name}
    refused(tmp_path, python2({"blobs": blobs}), "there is no classifier in it; --without-classifier imports the rest")
    whole = python2({"blobs": arrays(theirs)})
    config = read(tmp_path, whole).header.net
    seven = VideoClassifier(ResNetConfig(**{**vars(config), "num_classes": 7}))
    with pytest.raises(UserError, match="has 11 classes, and this network 7: .* import --without-classifier"):
        init_from(seven.net, tmp_path / "w.safetensors")
    read(tmp_path, whole, classifier=False)
    classifier = seven.net.fc.weight.clone()
    init_from(seven.net, tmp_path / "w.safetensors")
    assert torch.equal(seven.net.fc.weight, classifier)
    assert torch.equal(seven.net.conv1.weight, theirs["conv1_w"])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_numbers_become_float32(dtype: torch.dtype, reference: Any, tmp_path: Path) -> None:
    """And what several GPUs put before the names is left out."""
    theirs = reference("tushar_n", width=1 / 32, nonlocal_after={}).tensors
    halved = {f"module.{name}": t.to(dtype) if t.is_floating_point() else t for name, t in theirs.items()}
    torch.save({"state_dict": halved, "optimizer": {"state": {}}, "epoch": 9}, tmp_path / "m.pth")
    imported = import_weights(tmp_path / "m.pth", tmp_path / "w.safetensors")
    assert imported.converted == [str(dtype).removeprefix("torch.")]
    assert imported.aside == ["epoch", "optimizer"]
    weight = imported.tensors["conv1.weight"]
    assert weight.dtype == torch.float32
    assert torch.equal(weight, halved["module.conv1.weight"].float())


def test_the_command_says_what_it_matched(reference: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "i3d_nonlocal_8x8_IN_pretrain_400k.pkl"
    path.write_bytes(python2({"blobs": arrays(reference("caffe2", width=1 / 32).tensors)}))
    out = tmp_path / "w.safetensors"
    assert main(["weights", "import", str(path), f"--out={out}"]) == 0
    said = capsys.readouterr().out
    blocks = "embedded_gaussian blocks in res3 after 1, 3 and res4 after 1, 3, 5"
    assert f"caffe2: I3D 3x1x1 ResNet-50 of width 0.03125 with {blocks}, 11 classes" in said
    assert "matched: 327 tensors" in said
    assert "clips: 8x8, temporal strides (1, 1, 2)" in said
    assert "subsample before, scale True, max_pool unpadded" in said
    assert main(["weights", "export", str(out), "--to=caffe2", f"--out={tmp_path / 'back.pkl'}"]) == 0
    assert "327 tensors written" in capsys.readouterr().out
