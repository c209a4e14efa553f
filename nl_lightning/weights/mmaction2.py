"""What mmaction2's configuration says, which its checkpoints carry in `meta`.

Checked against open-mmlab/mmaction2, 4d6c934: the arguments of ResNet3d, I3DHead, BaseHead, BaseRecognizer,
ActionDataPreprocessor, SampleFrames, DenseSampleFrames, Resize, CenterCrop and ThreeCrop; and NonLocal3d of mmcv 2.2.
"""

import ast
from collections.abc import Mapping
from fnmatch import fnmatchcase
from typing import Any, Literal

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Conventions
from nl_lightning.study.border import Length
from nl_lightning.weights.file import InputSettings
from nl_lightning.weights.source import CLIPS, Found, Keys, Semantics, clip_settings, flattened

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
_Floats = tuple[float, float, float] | None
_BACKBONE, _NON_LOCAL = "model.backbone.", "model.backbone.non_local_cfg."
_NORMS = ("BN3d", "SyncBN", "BN")

KEYS = Keys(
    "mmaction2",
    read={
        "model.backbone.spatial_strides": (tuple[Length, Length, Length, Length], (1, 2, 2, 2)),
        "model.backbone.conv1_stride_s": (Length, 2),
        "model.backbone.conv1_stride_t": (Length, 1),
        "model.backbone.pool1_stride_s": (Length, 2),
        "model.backbone.pool1_stride_t": (Length, 1),
        "model.backbone.with_pool2": (bool, True),
        "model.backbone.non_local_cfg.mode": (
            Literal["embedded_gaussian", "dot_product", "gaussian", "concatenation"], "embedded_gaussian",
        ),
        "model.backbone.non_local_cfg.use_scale": (bool, True),
        "model.data_preprocessor.mean": (_Floats, None),
        "model.data_preprocessor.std": (_Floats, None),
        "pipeline.Normalize.mean": (_Floats, None),
        "pipeline.Normalize.std": (_Floats, None),
        "pipeline.SampleFrames.clip_len": (Length, None),
        "pipeline.SampleFrames.frame_interval": (Length, 1),
        "pipeline.SampleFrames.num_clips": (Length, 1),
        "pipeline.DenseSampleFrames.clip_len": (Length, None),
        "pipeline.DenseSampleFrames.frame_interval": (Length, 1),
        "pipeline.DenseSampleFrames.sample_range": (Length, 64),
        "pipeline.DenseSampleFrames.num_sample_positions": (Length, 10),
        "pipeline.Resize.scale": (tuple[Literal[-1], Length] | tuple[Length, Literal[-1]], (-1, 256)),
        "pipeline.CenterCrop.crop_size": (Length, None),
        "pipeline.ThreeCrop.crop_size": (Length, None),
        "dataset_meta.classes": (tuple[str, ...] | None, None),
    },
    only={
        "model.type": ("Recognizer3D",),
        "model.backbone.type": ("ResNet3d",),
        "model.backbone.out_indices": (3,),
        "model.backbone.temporal_strides": (1,),
        "model.backbone.dilations": (1,),
        "model.backbone.with_pool1": (True,),
        "model.backbone.style": ("pytorch",),
        "model.backbone.conv_cfg.type": ("Conv3d",),
        "model.backbone.norm_cfg.type": _NORMS,
        "model.backbone.norm_cfg.eps": (1e-5,),
        "model.backbone.act_cfg.type": ("ReLU",),
        "model.backbone.non_local_cfg.norm_cfg.type": _NORMS,
        "model.backbone.non_local_cfg.norm_cfg.eps": (1e-5,),
        "model.cls_head.type": ("I3DHead",),
        "model.cls_head.spatial_type": ("avg",),
        "model.cls_head.multi_class": (False,),
        "model.cls_head.average_clips": ("prob", None),
        "model.data_preprocessor.type": ("ActionDataPreprocessor",),
        "model.data_preprocessor.to_rgb": (False,),
        "model.neck": (None,),
        "model.test_cfg.average_clips": ("prob", None),
        "model.test_cfg.feature_extraction": (False,),
        "pipeline.Normalize.to_bgr": (False,),
        "pipeline.SampleFrames.temporal_jitter": (False,),
        "pipeline.SampleFrames.twice_sample": (False,),
        "pipeline.SampleFrames.out_of_bound_opt": ("loop",),
        "pipeline.SampleFrames.target_fps": (None,),
        "pipeline.DenseSampleFrames.num_clips": (1,),
        "pipeline.DenseSampleFrames.temporal_jitter": (False,),
        "pipeline.DenseSampleFrames.out_of_bound_opt": ("loop",),
        "pipeline.DenseSampleFrames.target_fps": (None,),
        "pipeline.Resize.keep_ratio": (True,),
        "pipeline.Resize.interpolation": ("bilinear",),
        "pipeline.Flip.flip_ratio": (0,),
    },
    ignored=(
        # Told by the tensors.
        "model.backbone.depth", "model.backbone.stage_blocks", "model.backbone.in_channels",
        "model.backbone.num_stages", "model.backbone.base_channels", "model.backbone.conv1_kernel",
        "model.backbone.inflate", "model.backbone.inflate_style", "model.backbone.non_local",
        "model.backbone.non_local_cfg", "model.backbone.non_local_cfg.sub_sample",
        "model.backbone.non_local_cfg.reduction", "model.backbone.non_local_cfg.in_channels",
        "model.cls_head.num_classes", "model.cls_head.in_channels",
        # Of training.
        "model.backbone.pretrained*", "model.backbone.frozen_stages", "model.backbone.norm_cfg.requires_grad",
        "model.backbone.act_cfg.inplace", "model.backbone.norm_eval", "model.backbone.with_cp",
        "model.backbone.zero_init_residual", "*init_cfg*", "model.backbone.non_local_cfg.norm_cfg.requires_grad",
        "model.backbone.non_local_cfg.conv_cfg.type", "model.backbone.non_local_cfg.std",
        "model.backbone.non_local_cfg.zeros_init", "model.cls_head.loss_cls*", "model.cls_head.label_smooth_eps",
        "model.cls_head.topk", "model.cls_head.dropout_ratio", "model.cls_head.init_std", "model.train_cfg*",
        "model.data_preprocessor.blending*",
        # How numbers lie, how files are read, and what else changes nothing.
        "model.data_preprocessor.to_float32", "model.data_preprocessor.format_shape", "model.test_cfg",
        "model.test_cfg.fcn_test", "model.test_cfg.max_testing_views", "pipeline.*SampleFrames.test_mode",
        "pipeline.*SampleFrames.keep_tail_frames", "pipeline.DenseSampleFrames.twice_sample", "pipeline.*.lazy",
        "pipeline.Flip.*", "dataset_meta.*",
    ),
)  # fmt: skip
HARMLESS = ("*Init", "*Decode", "FormatShape", "Pack*", "Collect", "ToTensor", "Fuse")
"""Steps of a test pipeline that change no pixel that a network sees."""
KNOWN_STEPS = ("SampleFrames", "DenseSampleFrames", "Resize", "CenterCrop", "ThreeCrop", "Normalize", "Flip")


def semantics(found: Found) -> Semantics:
    """Its I3D: one global pool, and pool1 of one frame; the rest as its configuration says, else as its 32x2 has it."""
    if found.flat:
        raise UserError("mmaction2: 2-D weights are of its C2D or TSN, which are not imported; its I3D is")
    flat = _read(found.beside.get("meta"))
    subsample = any(".g.0." in name for name in found.theirs)
    if not flat:
        clip = found.clip(("32x2",), default="32x2")
        seen = clip_settings(clip, mean=IMAGENET_MEAN, std=IMAGENET_STD, clip_starts="mmaction2")
        instantiation = found.instantiation() if found.untold else "embedded_gaussian"
        notes = ("no configuration is in the file: that of mmaction2's I3D for 32x2 was taken",)
        return Semantics(_of_mmcv(scale=False), CLIPS[clip], seen, instantiation, subsample, notes=notes)
    said = KEYS.settings(flat)
    mode = said[f"{_NON_LOCAL}mode"]
    strides = {axis: [said[f"{_BACKBONE}{layer}_stride_{axis}"] for layer in ("conv1", "pool1")] for axis in "ts"}
    return Semantics(
        _of_mmcv(scale=mode == "embedded_gaussian" and said[f"{_NON_LOCAL}use_scale"]),
        (*strides["t"], 2 if said[f"{_BACKBONE}with_pool2"] else 1),
        _seen(said, found),
        mode,
        subsample,
        (*strides["s"], *said[f"{_BACKBONE}spatial_strides"]),
        classes=said["dataset_meta.classes"] or (),
        notes=KEYS.notes(flat),
    )


def _of_mmcv(scale: bool) -> Conventions:
    return Conventions("release", subsample="after", scale=scale, max_pool="padded_in_space")


def _read(meta: object) -> dict[str, Any]:
    """The keys of the model, of the test pipeline's steps and of the data set; nothing if there is no configuration."""
    if not isinstance(meta, Mapping):
        return {}
    text = next((meta[key] for key in ("cfg", "config") if isinstance(meta.get(key), str)), None)
    if text is None:
        return {}
    values = python_values(text, "mmaction2: its configuration")
    if not isinstance(values.get("model"), dict):
        raise UserError("mmaction2: its configuration has no model")
    flat = flattened({"model": values["model"]})
    does: dict[str, str] = {}
    for step in _test_pipeline(values):
        kind = str(step.get("type"))
        if kind not in KNOWN_STEPS and not any(fnmatchcase(kind, harmless) for harmless in HARMLESS):
            KEYS.refuse("test_pipeline", kind, "no such step has a counterpart here")
        if kind in KNOWN_STEPS:
            what = kind.removeprefix("Dense").replace("Three", "Center")  # steps that do the same to a video
            if what in does:
                KEYS.refuse("test_pipeline", f"{does[what]}, {kind}", "only one step of a kind has a counterpart here")
            does[what] = kind
            flat |= {f"pipeline.{kind}.{key}": value for key, value in step.items() if key != "type"}
    about = meta.get("dataset_meta")
    return flat | (flattened({"dataset_meta": about}) if isinstance(about, dict) else {})


def _test_pipeline(values: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The steps that a test video goes through, wherever this version of mmaction2 has them."""
    for path in (("test_dataloader", "dataset", "pipeline"), ("data", "test", "pipeline"), ("test_pipeline",)):
        value: Any = values
        for key in path:
            value = value.get(key) if isinstance(value, Mapping) else None
        if isinstance(value, list):
            return [step for step in value if isinstance(step, dict)]
    return []


def _seen(said: Mapping[str, Any], found: Found) -> InputSettings:
    """The clip, the colours, and the views of its own test."""
    colours: dict[str, Any] = {}
    for name, none in (("mean", (0.0, 0.0, 0.0)), ("std", (1.0, 1.0, 1.0))):
        first, then = said[f"pipeline.Normalize.{name}"], said[f"model.data_preprocessor.{name}"]
        if first and then:
            KEYS.refuse(f"pipeline.Normalize.{name}", first, "model.data_preprocessor would do the same again")
        colours[name] = first or then or none
    dense = said["pipeline.DenseSampleFrames.clip_len"] is not None
    step = "pipeline.DenseSampleFrames" if dense else "pipeline.SampleFrames"
    frames, stride = said[f"{step}.clip_len"], said[f"{step}.frame_interval"]
    if frames is None:  # no test is described
        return clip_settings(found.clip(("32x2",), default="32x2"), **colours, clip_starts="mmaction2")
    if dense and said[f"{step}.sample_range"] != frames * stride:
        KEYS.refuse(f"{step}.sample_range", said[f"{step}.sample_range"], f"expected {frames * stride}")
    three, centre = said["pipeline.ThreeCrop.crop_size"], said["pipeline.CenterCrop.crop_size"]
    return InputSettings(
        frames,
        stride,
        **colours,
        test_short_side=max(said["pipeline.Resize.scale"]),
        test_crop=three or centre or "whole",
        num_clips=said[f"{step}.num_sample_positions" if dense else f"{step}.num_clips"],
        num_crops=3 if three else 1,
        clip_starts="mmaction2_dense" if dense else "mmaction2",
    )


MOST_CHARACTERS = 1 << 20


def python_values(text: str, at: str) -> dict[str, Any]:
    """The assignments ``name = value`` of a Python text whose values are plain, or calls of `dict`; nothing is run.

    A value that isn't plain, such as a call of something else, becomes its source text. UserError if it is no Python.
    """
    if len(text) > MOST_CHARACTERS:
        raise UserError(f"{at}: has {len(text)} characters; at most {MOST_CHARACTERS} are read")
    try:
        body = ast.parse(text).body
        return {
            target.id: _value(statement.value)
            for statement in body
            if isinstance(statement, ast.Assign)
            for target in statement.targets
            if isinstance(target, ast.Name)
        }
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise UserError(f"{at}: isn't the Python of a configuration ({type(error).__name__})") from None


def _value(node: ast.expr) -> Any:
    if isinstance(node, ast.List | ast.Tuple):
        return [_value(item) for item in node.elts]
    if isinstance(node, ast.Dict):
        keys = [None if key is None else _value(key) for key in node.keys]
        return {str(key): _value(value) for key, value in zip(keys, node.values, strict=True)}
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "dict" and not node.args:
        return {str(word.arg): _value(word.value) for word in node.keywords}
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError):
        return ast.unparse(node)
