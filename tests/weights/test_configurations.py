"""What a file's own configuration says is read, or refused by the key's name: no key goes unnoticed."""

import copy
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from nl_lightning.errors import UserError
from nl_lightning.models.resnet import ResNetConfig
from nl_lightning.weights import mmaction2, slowfast
from nl_lightning.weights.file import InputSettings
from nl_lightning.weights.importing import Imported, import_weights, translate
from nl_lightning.weights.mmaction2 import python_values
from nl_lightning.weights.source import Keys
from nl_lightning.weights.wrappers import unwrapped

SMALL = {"width": 1 / 32, "nonlocal_after": {3: (1,)}}

# ------------------------------------------------------------------------------------------------------ PySlowFast

CFG: dict[str, Any] = {
    "DATA": {
        "NUM_FRAMES": 8, "SAMPLING_RATE": 8, "TRAIN_CROP_SIZE": 224, "TEST_CROP_SIZE": 256, "MEAN": [0.45] * 3,
        "STD": [0.225] * 3, "TRAIN_JITTER_SCALES": [256, 320], "TARGET_FPS": 30,
    },
    "RESNET": {"STRIDE_1X1": False, "SPATIAL_STRIDES": [[1], [2], [2], [2]], "SPATIAL_DILATIONS": [[1]] * 4},
    "NONLOCAL": {"LOCATION": [[[]], [[1]], [[]], [[]]], "GROUP": [[1]] * 4, "INSTANTIATION": "softmax",
                 "POOL": [[[1, 2, 2], [1, 2, 2]]] * 4},
    "MODEL": {"ARCH": "i3d", "MODEL_NAME": "ResNet", "HEAD_ACT": "softmax"},
    "TEST": {"NUM_ENSEMBLE_VIEWS": 10, "NUM_SPATIAL_CROPS": 3, "DATASET": "kinetics"},
    "CONTRASTIVE": {"DELTA_CLIPS_MIN": -float("inf")},
}  # fmt: skip


def with_key(tree: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """A copy of nested dictionaries with a value at a dotted key."""
    changed = here = copy.deepcopy(tree)
    *sections, last = key.split(".")
    for section in sections:
        here = here.setdefault(section, {})
    here[last] = value
    return changed


@pytest.fixture(scope="module")
def tensors(make_reference: Any) -> Any:
    """Of PySlowFast's I3D with a block."""
    return make_reference("slowfast", strides=(1, 1, 2), **SMALL).tensors


def network(tensors: Any, cfg: object) -> Imported:
    """What a file with this configuration is read as, without the file."""
    return translate(unwrapped({"epoch": 3, "model_state": tensors, "cfg": cfg}), frozenset())


def pyth(folder: Path, tensors: Any, cfg: object, **kwargs: Any) -> Imported:
    torch.save({"epoch": 3, "model_state": tensors, "cfg": cfg}, folder / "m.pyth")
    imported = import_weights(folder / "m.pyth", folder / "w.safetensors", **kwargs)
    assert isinstance(imported, Imported)
    return imported


def test_every_key_of_pyslowfast_is_decided() -> None:
    """`slowfast_keys.txt` has the names of all keys that its defaults have had since 2019."""
    text = Path(__file__).with_name("slowfast_keys.txt").read_text().partition("\n")[2].replace("\n ", "")
    lines = [line.split(": ") for line in text.splitlines()]
    keys = [name if section == "-" else f"{section}.{name}" for section, names in lines for name in names.split()]
    assert len(keys) > 350
    assert [key for key in keys if not slowfast.KEYS.decides(key)] == []
    decided = slowfast.KEYS.read.keys() | slowfast.KEYS.only.keys()
    assert decided <= set(keys)  # none of a misspelt name
    assert not slowfast.KEYS.decides("RESNET.NEW")


def test_the_defaults_of_pyslowfast_are_read(tensors: Any, tmp_path: Path) -> None:
    imported = pyth(tmp_path, tensors, yaml.safe_dump(CFG))
    assert imported.header.input == InputSettings(8, 8, clip_starts="slowfast", test_pool=7)
    assert imported.header.net.temporal_strides == (1, 1, 2)
    assert not any("not known" in note or "no configuration" in note for note in imported.notes)


@pytest.mark.parametrize(
    ("key", "value", "name", "expected"),
    [
        ("DATA.NUM_FRAMES", 16, "num_frames", 16),
        ("DATA.SAMPLING_RATE", 4, "frame_stride", 4),
        ("DATA.MEAN", [0.485, 0.456, 0.406], "mean", (123.675, 116.28, 103.53)),
        ("DATA.STD", [0.229, 0.224, 0.225], "std", (58.395, 57.12, 57.375)),
        ("DATA.TRAIN_CROP_SIZE", 256, "test_pool", 8),
        ("DATA.CROP_SIZE", 160, "test_pool", 5),
        ("MULTIGRID.SHORT_CYCLE", True, "test_pool", None),
        ("DATA.TEST_CROP_SIZE", 224, "test_crop", 224),
        ("DATA.TEST_CROP_SIZE", 224, "test_short_side", 224),
        ("TEST.NUM_ENSEMBLE_VIEWS", 4, "num_clips", 4),
        ("TEST.NUM_TEMPORAL_CLIPS", [5], "num_clips", 5),
        ("TEST.NUM_SPATIAL_CROPS", 1, "num_crops", 1),
        ("MODEL.HEAD_ACT", "sigmoid", "multi_label", True),
        ("TEST.DATASET", "ptvkinetics", "clip_starts", "pytorchvideo"),
    ],
)
def test_what_pyslowfast_sees_goes_into_the_header(
    key: str, value: Any, name: str, expected: Any, tensors: Any
) -> None:
    imported = network(tensors, yaml.safe_dump(with_key(CFG, key, value)))
    assert getattr(imported.header.input, name) == expected


def test_one_crop_of_pyslowfast_is_cut_from_the_jitters_smallest_side(tensors: Any) -> None:
    cfg = with_key(with_key(CFG, "TEST.NUM_SPATIAL_CROPS", 1), "DATA.TEST_CROP_SIZE", 224)
    seen = network(tensors, yaml.safe_dump(cfg)).header.input
    assert (seen.test_short_side, seen.test_crop, seen.num_crops) == (256, 224, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("RESNET.STRIDE_1X1", True),
        ("RESNET.SPATIAL_DILATIONS", [[1], [1], [1], [2]]),
        ("RESNET.NUM_GROUPS", 32),
        ("RESNET.TRANS_FUNC", "basic_transform"),
        ("NONLOCAL.GROUP", [[1], [4], [1], [1]]),
        ("NONLOCAL.INSTANTIATION", "gaussian"),
        ("NONLOCAL.POOL", [[[1, 2, 2]], [[2, 2, 2]], [[1, 2, 2]], [[1, 2, 2]]]),
        ("DATA.REVERSE_INPUT_CHANNEL", True),
        ("DATA.TARGET_FPS", 25),
        ("DATA.USE_OFFSET_SAMPLING", True),
        ("DATA.ENSEMBLE_METHOD", "max"),
        ("DATA.MULTI_LABEL", True),
        ("DETECTION.ENABLE", True),
        ("MODEL.ARCH", "slowfast"),
        ("MODEL.MODEL_NAME", "ContrastiveModel"),
        ("MODEL.HEAD_ACT", "none"),
        ("BN.EPSILON", 1e-3),
        ("TEST.NUM_SPATIAL_CROPS", 2),
        ("TEST.NUM_TEMPORAL_CLIPS", [5, 10]),
        ("TEST.DATASET", "charades"),
        ("TASK", "ssl"),
        ("DATA.NUM_FRAMES", "eight"),
        ("DATA.NUM_FRAMES", 0),
        ("DATA.NUM_FRAMES", 1_000_000_000),
        ("DATA.TEST_CROP_SIZE", 1_000_000_000),
        ("DATA.MEAN", [0.45]),
        ("DATA.STD", None),
        ("RESNET.SPATIAL_STRIDES", [[1], [2]]),
    ],
)
def test_what_pyslowfast_has_and_we_do_not_is_refused_by_its_name(key: str, value: Any, tensors: Any) -> None:
    with pytest.raises(UserError) as refused:
        network(tensors, yaml.safe_dump(with_key(CFG, key, value)))
    assert str(refused.value).startswith("slowfast: its configuration")
    assert key in str(refused.value)
    assert "\n" not in str(refused.value)


def test_keys_of_a_fork_are_named(tensors: Any, tmp_path: Path) -> None:
    imported = pyth(tmp_path, tensors, yaml.safe_dump(with_key(CFG, "RESNET.SQUEEZE", True)))
    assert "note: its configuration has keys that are not known, and were not read: RESNET.SQUEEZE" in imported.lines()


@pytest.mark.parametrize(
    "cfg", ["[" * 3000, "a: &a [*a]", "x: [1", "RESNET: !!python/object:os.system {}", "a: 1\na: 2"]
)
def test_configurations_that_are_no_plain_yaml_are_refused(cfg: str, tensors: Any, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"m\.pyth: slowfast: its configuration"):
        pyth(tmp_path, tensors, cfg)


def test_a_file_without_a_configuration_says_so(tensors: Any, tmp_path: Path) -> None:
    imported = pyth(tmp_path, tensors, None, variant="8x8 embedded_gaussian")
    assert "note: no configuration is in the file: PySlowFast's defaults were taken" in imported.lines()


# ------------------------------------------------------------------------------------------------------- mmaction2

NON_LOCAL = "dict(sub_sample=True, use_scale=False, norm_cfg=dict(type='BN3d', requires_grad=True), mode='dot_product')"
STEPS = [
    "dict(type='DecordInit')",
    "dict(type='SampleFrames', clip_len=32, frame_interval=2, num_clips=10, test_mode=True)",
    "dict(type='DecordDecode')",
    "dict(type='Resize', scale=(-1, 256))",
    "dict(type='ThreeCrop', crop_size=256)",
    "dict(type='FormatShape', input_format='NCTHW')",
    "dict(type='PackActionInputs')",
]
BACKBONE = {
    "type": "'ResNet3d'", "pretrained2d": "True", "pretrained": "'torchvision://resnet50'", "depth": "50",
    "conv1_kernel": "(5, 7, 7)", "conv1_stride_t": "2", "pool1_stride_t": "2", "conv_cfg": "dict(type='Conv3d')",
    "norm_eval": "False", "inflate": "((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0))",
    "zero_init_residual": "False", "non_local": "((0, 0, 0), (0, 1, 0, 0), (0, 0, 0, 0, 0, 0), (0, 0, 0))",
    "non_local_cfg": NON_LOCAL,
}  # fmt: skip
HEAD = {
    "type": "'I3DHead'", "num_classes": "11", "in_channels": "64", "spatial_type": "'avg'", "dropout_ratio": "0.5",
    "init_std": "0.01", "average_clips": "'prob'",
}  # fmt: skip
PIXELS = {
    "type": "'ActionDataPreprocessor'", "mean": "[123.675, 116.28, 103.53]", "std": "[58.395, 57.12, 57.375]",
    "format_shape": "'NCTHW'",
}  # fmt: skip


def written(parts: Mapping[str, str]) -> str:
    return f"dict({', '.join(f'{key}={value}' for key, value in parts.items())})"


def configuration(steps: Sequence[str] = STEPS, **parts: Mapping[str, str]) -> str:
    """The text of a configuration as mmengine writes it."""
    backbone, head, pixels = (
        written(usual | parts.get(name, {}))
        for name, usual in (("backbone", BACKBONE), ("head", HEAD), ("pixels", PIXELS))
    )
    model = f"dict(type='Recognizer3D', backbone={backbone}, cls_head={head}, data_preprocessor={pixels})"
    return (
        f"dataset_type = 'VideoDataset'\nmodel = {model}\ntest_pipeline = [{', '.join(steps)}]\n"
        "test_dataloader = dict(batch_size=1, dataset=dict(type='VideoDataset', pipeline=[\n"
        f"    {', '.join(steps)}], test_mode=True))\noptim_wrapper = dict(optimizer=dict(lr=0.01, type='SGD'))\n"
    )


@pytest.fixture(scope="module")
def i3d(make_reference: Any) -> Any:
    """Tensors of mmaction2's I3D with a block of mmcv's, which are the same for both modes with theta."""
    from mmcv.cnn.bricks.non_local import NonLocal3d

    made = {"sub_sample": True, "norm_cfg": {"type": "BN3d"}}
    return make_reference("mmaction2", modules=lambda channels: NonLocal3d(channels, **made), **SMALL).tensors


def mmaction(tensors: Any, text: str, **meta: Any) -> Imported:
    """What a file with this configuration is read as, without the file."""
    return translate(unwrapped({"meta": {"cfg": text, "epoch": 1, **meta}, "state_dict": tensors}), frozenset())


def test_every_argument_of_mmaction2_is_decided() -> None:
    """The arguments, written down from its code, of all that its I3D and that network's test are made of."""
    keys = {
        "model.": "type neck train_cfg test_cfg",
        "model.backbone.": (
            "type depth pretrained stage_blocks pretrained2d in_channels num_stages base_channels out_indices "
            "spatial_strides temporal_strides dilations conv1_kernel conv1_stride_s conv1_stride_t pool1_stride_s "
            "pool1_stride_t with_pool1 with_pool2 style frozen_stages inflate inflate_style norm_eval with_cp "
            "non_local non_local_cfg zero_init_residual init_cfg conv_cfg.type norm_cfg.type norm_cfg.requires_grad "
            "act_cfg.type act_cfg.inplace"
        ),
        "model.cls_head.": (
            "type num_classes in_channels loss_cls.type spatial_type dropout_ratio init_std multi_class "
            "label_smooth_eps topk average_clips init_cfg"
        ),
        "model.data_preprocessor.": "type mean std to_rgb to_float32 blending format_shape",
        "model.test_cfg.": "average_clips fcn_test max_testing_views feature_extraction",
        "pipeline.SampleFrames.": (
            "clip_len frame_interval num_clips temporal_jitter twice_sample out_of_bound_opt test_mode "
            "keep_tail_frames target_fps"
        ),
        "pipeline.DenseSampleFrames.": (
            "clip_len frame_interval num_clips temporal_jitter twice_sample out_of_bound_opt test_mode "
            "keep_tail_frames target_fps sample_range num_sample_positions"
        ),
        "pipeline.Resize.": "scale keep_ratio interpolation lazy",
        "pipeline.CenterCrop.": "crop_size lazy",
        "pipeline.ThreeCrop.": "crop_size",
        "pipeline.Normalize.": "mean std to_bgr",
    }  # fmt: skip
    named = {prefix + name for prefix, names in keys.items() for name in names.split()}
    assert sorted(key for key in named if not mmaction2.KEYS.decides(key)) == []
    assert not mmaction2.KEYS.decides("model.backbone.new")


def test_every_argument_of_mmcvs_block_is_decided() -> None:
    from mmcv.cnn.bricks import non_local

    arguments = {
        *inspect.signature(non_local.NonLocal3d).parameters,
        *inspect.signature(non_local._NonLocalNd).parameters,
    }
    arguments |= {*inspect.signature(non_local._NonLocalNd.init_weights).parameters}
    spelled = {"conv_cfg": "conv_cfg.type", "norm_cfg": "norm_cfg.type"}
    keys = [f"model.backbone.non_local_cfg.{spelled.get(key, key)}" for key in arguments - {"self", "kwargs"}]
    assert len(keys) > 6
    assert [key for key in keys if not mmaction2.KEYS.decides(key)] == []


def test_the_i3d_of_mmaction2_is_read(i3d: Any) -> None:
    imported = mmaction(i3d, configuration())
    assert imported.header.input == InputSettings(
        32, 2, (123.675, 116.28, 103.53), (58.395, 57.12, 57.375), clip_starts="mmaction2"
    )  # fmt: skip
    net = imported.header.net
    assert net.non_local is not None
    assert (net.non_local.instantiation, net.temporal_strides) == ("dot_product", (2, 2, 2))
    assert not any("not known" in note for note in imported.notes)


def test_what_mmaction2_sees_goes_into_the_header(i3d: Any) -> None:
    steps = [
        STEPS[0], "dict(type='DenseSampleFrames', clip_len=8, frame_interval=8, num_sample_positions=5)", STEPS[2],
        "dict(type='Resize', scale=(-1, 240))", "dict(type='CenterCrop', crop_size=224)",
    ]  # fmt: skip
    pixels = {"mean": "[1, 2, 3]", "std": "[4., 5., 6.]"}
    strides = {"conv1_stride_t": "1", "pool1_stride_t": "1", "with_pool2": "False", "spatial_strides": "(1, 2, 2, 1)"}
    imported = mmaction(i3d, configuration(steps, backbone=strides, pixels=pixels))
    assert imported.header.input == InputSettings(
        8, 8, (1, 2, 3), (4, 5, 6), 240, 224, 5, 1, "mmaction2_dense"
    )  # fmt: skip
    assert imported.header.net.temporal_strides == (1, 1, 1)
    assert imported.header.net.spatial_strides == (2, 2, 1, 2, 2, 1)


def test_colours_that_mmaction2_would_normalise_twice_are_refused(i3d: Any) -> None:
    twice = configuration([*STEPS, "dict(type='Normalize', mean=[1., 2., 3.], std=[4., 5., 6.])"])
    with pytest.raises(UserError, match=r"pipeline\.Normalize\.mean .*: model\.data_preprocessor would do the same"):
        mmaction(i3d, twice)


def test_class_names_of_mmaction2_are_kept(i3d: Any) -> None:
    names = [f"class {number}" for number in range(11)]
    assert mmaction(i3d, configuration(), dataset_meta={"classes": names}).header.classes == tuple(names)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("backbone", "style", "'caffe'"),
        ("backbone", "type", "'ResNet3dSlowOnly'"),
        ("backbone", "temporal_strides", "(1, 1, 2, 1)"),
        ("backbone", "dilations", "(1, 1, 1, 2)"),
        ("backbone", "with_pool1", "False"),
        ("backbone", "norm_cfg", "dict(type='BN3d', eps=1e-3)"),
        ("backbone", "act_cfg", "dict(type='GELU')"),
        ("backbone", "conv_cfg", "dict(type='Conv2plus1d')"),
        ("backbone", "out_indices", "(2, 3)"),
        ("head", "type", "'SlowFastHead'"),
        ("head", "spatial_type", "'max'"),
        ("head", "multi_class", "True"),
        ("head", "average_clips", "'score'"),
        ("pixels", "to_rgb", "True"),
        ("pixels", "mean", "[1.0]"),
    ],
)
def test_what_mmaction2_has_and_we_do_not_is_refused_by_its_name(part: str, key: str, value: str, i3d: Any) -> None:
    with pytest.raises(UserError, match=rf"^mmaction2: its configuration.*\b{key}\b"):
        mmaction(i3d, configuration(**{part: {key: value}}))


@pytest.mark.parametrize(
    ("step", "name"),
    [
        ("dict(type='TenCrop', crop_size=256)", "TenCrop"),
        ("dict(type='SampleFrames', clip_len=32, twice_sample=True)", "twice_sample"),
        ("dict(type='SampleFrames', clip_len=32, target_fps=30)", "target_fps"),
        ("dict(type='DenseSampleFrames', clip_len=32, frame_interval=2, sample_range=128)", "sample_range"),
        ("dict(type='Resize', scale=(256, 256), keep_ratio=False)", "keep_ratio"),
        ("dict(type='Flip', flip_ratio=0.5)", "flip_ratio"),
        ("dict(type='UniformSample', clip_len=32)", "UniformSample"),
        ("dict(type='Resize', scale=(-1, 256)), dict(type='Resize', scale=(-1, 128))", "Resize, Resize"),
        ("dict(type='ThreeCrop', crop_size=256), dict(type='CenterCrop', crop_size=224)", "ThreeCrop, CenterCrop"),
        ("dict(type='SampleFrames', clip_len=8), dict(type='DenseSampleFrames', clip_len=8)", "DenseSampleFrames"),
    ],
)
def test_steps_of_a_test_that_we_do_not_have_are_refused(step: str, name: str, i3d: Any) -> None:
    with pytest.raises(UserError, match=rf"^mmaction2: its configuration.*{name}"):
        mmaction(i3d, configuration(steps=[step]))


def test_a_python_configuration_is_read_and_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = "import os\nos.mkdir('a')\nx = dict(a=[1, -2.5], b={'c': (None, True)}, d=os.mkdir('b'))\ny = z = 1\n"
    values = python_values(text, "here")
    assert values == {"x": {"a": [1, -2.5], "b": {"c": [None, True]}, "d": "os.mkdir('b')"}, "y": 1, "z": 1}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "text", ["x = (", "(" * 10000, "-" * 100_000 + "1", "x = " + "1+" * 100_000 + "1", "\0", "x" * (1 << 21)]
)
def test_bombs_of_python_text_are_refused(text: str) -> None:
    with pytest.raises(UserError, match="here: "):
        python_values(text, "here")


def test_keys_that_are_read_have_sound_defaults() -> None:
    """What is taken where a configuration doesn't have a key is of the key's type."""
    from nl_lightning.study.border import checked

    for keys in (slowfast.KEYS, mmaction2.KEYS):
        assert isinstance(keys, Keys)
        for key, (kind, default) in keys.read.items():
            if default is not None:
                checked(kind, default, key)
    assert ResNetConfig().spatial_strides == (2, 2, 1, 2, 2, 2)
