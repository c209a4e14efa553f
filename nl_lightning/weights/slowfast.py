"""What PySlowFast's configuration says, which its ``.pyth`` files carry as `cfg`.

Checked against facebookresearch/SlowFast, 287ec00: slowfast/config/defaults.py with all its former keys,
models/video_model_builder.py, head_helper.py and nonlocal_helper.py, datasets/kinetics.py and decoder.py.
"""

from collections.abc import Mapping
from typing import Any, Literal, cast

from nl_lightning.models.conventions import Conventions, Instantiation
from nl_lightning.study.border import Length, parse_yaml
from nl_lightning.weights.file import Colour, InputSettings
from nl_lightning.weights.source import CLIPS, Found, Keys, Semantics, clip_settings, flattened

SpatialStrides = tuple[int, int, int, int, int, int]
_Three = tuple[float, float, float]
_Pools = tuple[tuple[tuple[int, int, int], ...], ...]
INSTANTIATIONS: dict[str, Instantiation] = {"softmax": "embedded_gaussian", "dot_product": "dot_product"}
NO_POOL2 = ("2d", "slow_c2d", "slow_i3d")

KEYS = Keys(
    "slowfast",
    read={
        "DATA.NUM_FRAMES": (Length, None),
        "DATA.SAMPLING_RATE": (Length, None),
        "DATA.MEAN": (_Three, (0.45, 0.45, 0.45)),
        "DATA.STD": (_Three, (0.225, 0.225, 0.225)),
        "DATA.CROP_SIZE": (Length, None),
        "DATA.TRAIN_CROP_SIZE": (Length, 224),
        "DATA.TEST_CROP_SIZE": (Length, 256),
        "DATA.TRAIN_JITTER_SCALES": (tuple[Length, Length], (256, 320)),
        "DATA.MULTI_LABEL": (bool, False),
        "MODEL.ARCH": (Literal["2d", "c2d", "slow_c2d", "i3d", "slow_i3d"], "c2d"),
        "MODEL.HEAD_ACT": (Literal["softmax", "sigmoid"], "softmax"),
        "MULTIGRID.SHORT_CYCLE": (bool, False),
        "NONLOCAL.INSTANTIATION": (Literal["softmax", "dot_product"], None),
        "NONLOCAL.LOCATION": (tuple[tuple[tuple[int, ...], ...], ...], ()),
        "NONLOCAL.POOL": (_Pools, ()),
        "RESNET.SPATIAL_STRIDES": (tuple[tuple[Length, ...], ...], ((1,), (2,), (2,), (2,))),
        "TEST.DATASET": (Literal["kinetics", "Kinetics", "ptvkinetics", "Ptvkinetics"], "kinetics"),
        "TEST.NUM_ENSEMBLE_VIEWS": (Length, 10),
        "TEST.NUM_SPATIAL_CROPS": (Literal[1, 3], 3),
        "TEST.NUM_TEMPORAL_CLIPS": (tuple[Length, ...], ()),
    },
    only={
        "BN.EPSILON": (1e-5,),
        "DATA.ENSEMBLE_METHOD": ("sum",),
        "DATA.REVERSE_INPUT_CHANNEL": (False,),
        "DATA.TARGET_FPS": (30,),
        "DATA.USE_OFFSET_SAMPLING": (False,),
        "DETECTION.ENABLE": (False,),
        "MODEL.MODEL_NAME": ("ResNet", "PTVResNet"),
        "NONLOCAL.GROUP": (1,),
        "RESNET.NUM_GROUPS": (1,),
        "RESNET.SPATIAL_DILATIONS": (1,),
        "RESNET.STRIDE_1X1": (False,),
        "RESNET.TRANS_FUNC": ("bottleneck_transform",),
        "TASK": ("", "sl"),
    },
    ignored=(
        # Told by the tensors, or by what is read.
        "DATA.INPUT_CHANNEL_NUM", "MODEL.NUM_CLASSES", "MODEL.*_PATHWAY_ARCH", "RESNET.DEPTH",
        "RESNET.NUM_BLOCK_TEMP_KERNEL", "RESNET.WIDTH_PER_GROUP", "CONTRASTIVE.*", "DETECTION.*", "BN.NORM_TYPE",
        # Of training, and of its augmentation.
        "TRAIN.*", "SOLVER.*", "AUG.*", "MIXUP.*", "MULTIGRID.*", "BN.*", "RESNET.ZERO_INIT_*", "RESNET.INPLACE_RELU",
        "MODEL.ACT_CHECKPOINT", "MODEL.DETACH_FINAL_FC", "MODEL.DROP*_RATE", "MODEL.FC_INIT_STD",
        "MODEL.FP16_ALLREDUCE", "MODEL.FROZEN_BN", "MODEL.LOSS_FUNC", "DATA.TRAIN_*", "DATA.SSL_*",
        "DATA.COLOR_RND_GRAYSCALE", "DATA.INV_UNIFORM_SAMPLE", "DATA.RANDOM_FLIP", "DATA.TIME_DIFF_PROB",
        # Where data lie and how they are read, of other data sets and networks, and of machines.
        "DATA.PATH_*", "DATA.LOADER_*", "DATA.SKIP_ROWS", "DATA.DUMMY_LOAD", "DATA.DECODING_*", "DATA.IN*_VAL*",
        "DATA.IN22K_TRAINVAL", "DATA_LOADER.*", "AVA.*", "MVIT.*", "MASK.*", "VIS_MASK.*", "X3D.*", "SLOWFAST.*",
        "TEST.BATCH_SIZE", "TEST.CHECKPOINT_*", "TEST.ENABLE", "TEST.SAVE_RESULTS_PATH", "BENCHMARK.*", "DEMO.*",
        "TENSORBOARD.*", "NUM_GPUS", "NUM_SHARDS", "SHARD_ID", "OUTPUT_DIR", "RNG_SEED", "LOG_*", "DIST_BACKEND",
    ),
)  # fmt: skip


def semantics(found: Found) -> Semantics:
    """Padded pools and no stride in time before pool2; the rest as the file's own configuration says, if it has one."""
    text = found.beside.get("cfg")
    raw = parse_yaml(text, "slowfast: its configuration") if isinstance(text, str) else None
    flat = flattened(raw) if isinstance(raw, dict) else {}
    said = KEYS.settings(flat)
    frames, stride = said["DATA.NUM_FRAMES"], said["DATA.SAMPLING_RATE"]
    if frames is None or stride is None:
        frames, stride = map(int, found.clip(("8x8", "32x4"), default="8x8").split("x"))
    if said["DATA.MULTI_LABEL"] and said["MODEL.HEAD_ACT"] == "softmax":
        KEYS.refuse("DATA.MULTI_LABEL", True, "of several labels, only sigmoids have a counterpart here")
    instantiation: Instantiation = "embedded_gaussian"
    if found.has_blocks:
        spelled = said["NONLOCAL.INSTANTIATION"]
        instantiation = INSTANTIATIONS[spelled] if spelled else found.instantiation()
    no_pool = "nopool" in found.words or ("MODEL.ARCH" in flat and said["MODEL.ARCH"] in NO_POOL2)
    return Semantics(
        Conventions("release", max_pool="padded_in_space"),
        (1, 1, 1) if no_pool else (1, 1, 2),
        _seen(said, frames, stride),
        instantiation,
        subsample=_pools(said),
        spatial_strides=_spatial_strides(said["RESNET.SPATIAL_STRIDES"]),
        notes=KEYS.notes(flat) if flat else ("no configuration is in the file: PySlowFast's defaults were taken",),
    )


def _seen(said: Mapping[str, Any], frames: int, stride: int) -> InputSettings:
    """The clip, the colours, and the views of its own test."""
    mean, std = (
        cast(Colour, tuple(round(255 * value, 9) for value in said[key])) for key in ("DATA.MEAN", "DATA.STD")
    )  # its colours are 0 to 1
    counts, crops = said["TEST.NUM_TEMPORAL_CLIPS"], said["TEST.NUM_SPATIAL_CROPS"]
    if len(counts) > 1:
        KEYS.refuse("TEST.NUM_TEMPORAL_CLIPS", list(counts), "one number of clips has a counterpart here")
    by_seconds = said["TEST.DATASET"].lower() == "ptvkinetics"
    side, in_training = said["DATA.TEST_CROP_SIZE"], said["DATA.CROP_SIZE"] or said["DATA.TRAIN_CROP_SIZE"]
    return InputSettings(
        frames,
        stride,
        mean,
        std,
        test_short_side=side if crops > 1 and not by_seconds else said["DATA.TRAIN_JITTER_SCALES"][0],
        test_crop=side,
        num_clips=counts[0] if counts else said["TEST.NUM_ENSEMBLE_VIEWS"],
        num_crops=crops,
        clip_starts="pytorchvideo" if by_seconds else "slowfast",
        # The head's window is that of res5 in training; with short cycles it is all of res5. Before September 2020,
        # CROP_SIZE said what it is.
        test_pool=None if said["MULTIGRID.SHORT_CYCLE"] else max(1, in_training // 32),
        multi_label=said["MODEL.HEAD_ACT"] == "sigmoid",
    )


def _pools(said: Mapping[str, Any]) -> bool:
    """Whether NONLOCAL.POOL is 2 x 2 in space, its default, in stages with blocks; UserError for any other pool."""
    located = [any(stage) for stage in said["NONLOCAL.LOCATION"]]
    pools = {stage[0] for stage, used in zip(said["NONLOCAL.POOL"], located, strict=False) if used and stage}
    if pools - {(1, 2, 2), (1, 1, 1)} or len(pools) > 1:
        KEYS.refuse("NONLOCAL.POOL", sorted(map(list, pools)), "expected [1, 2, 2] everywhere")
    return pools != {(1, 1, 1)}


def _spatial_strides(stages: tuple[tuple[int, ...], ...]) -> SpatialStrides:
    """Of conv1 and pool1, and of each stage."""
    if len(stages) != 4 or not all(stages):
        KEYS.refuse("RESNET.SPATIAL_STRIDES", list(map(list, stages)), "expected a stride for each of 4 stages")
    return cast(SpatialStrides, (2, 2, *(stage[0] for stage in stages)))


def configuration(seen: InputSettings, more: Mapping[str, Any]) -> dict[str, Any]:
    """What :func:`semantics` reads, from what it has read: of the input, and the dotted keys of `more` as they are."""
    flat: dict[str, Any] = {
        "DATA.NUM_FRAMES": seen.num_frames,
        "DATA.SAMPLING_RATE": seen.frame_stride,
        "DATA.MEAN": [value / 255 for value in seen.mean],
        "DATA.STD": [value / 255 for value in seen.std],
        "DATA.TRAIN_CROP_SIZE": 32 * (seen.test_pool or 7),
        "DATA.TEST_CROP_SIZE": seen.test_short_side if seen.test_crop == "whole" else seen.test_crop,
        "DATA.TRAIN_JITTER_SCALES": [seen.test_short_side, max(320, seen.test_short_side)],
        "DATA.MULTI_LABEL": seen.multi_label,
        "MODEL.HEAD_ACT": "sigmoid" if seen.multi_label else "softmax",
        "MULTIGRID.SHORT_CYCLE": seen.test_pool is None,
        "TEST.DATASET": "ptvkinetics" if seen.clip_starts == "pytorchvideo" else "kinetics",
        "TEST.NUM_ENSEMBLE_VIEWS": seen.num_clips,
        "TEST.NUM_SPATIAL_CROPS": seen.num_crops,
        **more,
    }
    nested: dict[str, Any] = {}
    for key, value in flat.items():
        section, name = key.split(".")
        nested.setdefault(section, {})[name] = value
    return nested


def pytorchvideo(found: Found) -> Semantics:
    """As PySlowFast builds it, with its configuration; without one, for 8x8, and tested as pytorchvideo samples."""
    if isinstance(found.beside.get("cfg"), str):
        return semantics(found)
    clip = found.clip(("8x8",), default="8x8")
    seen = clip_settings(clip, clip_starts="pytorchvideo", test_pool=7)
    return Semantics(Conventions("release", max_pool="padded_in_space"), CLIPS[clip], seen)
