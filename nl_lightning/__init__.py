"""Non-local blocks and the networks of "Non-local Neural Networks" (Wang et al., CVPR 2018).

>>> import nl_lightning as nl
>>> net = nl.c2d_r50(non_local=5)                            # a network of Table 2, untrained
>>> net, header = nl.load_weights("weights.safetensors")     # a trained one, with what its input is
>>> nl.insert_non_local(torchvision.models.resnet50(), ["layer3.4"])  # blocks in a network of your own

torch is imported when a name is first used.
"""

import importlib
from typing import TYPE_CHECKING, Any, Literal, TypedDict, Unpack

if TYPE_CHECKING:
    from nl_lightning.errors import UserError as UserError
    from nl_lightning.models.conventions import ControlConfig as ControlConfig
    from nl_lightning.models.conventions import Conventions as Conventions
    from nl_lightning.models.conventions import Inflate, Instantiation, SumOver
    from nl_lightning.models.fast import FastNonLocalBlock as NonLocalBlock  # noqa: F401
    from nl_lightning.models.fast import FastVideoResNet as VideoResNet
    from nl_lightning.models.fast import for_testing as for_testing
    from nl_lightning.models.fast import use_kernels as use_kernels
    from nl_lightning.models.insert import insert_non_local as insert_non_local
    from nl_lightning.models.insert import remove_non_local as remove_non_local
    from nl_lightning.models.nonlocal_block import NonLocalConfig as NonLocalConfig
    from nl_lightning.models.resnet import ResNetConfig as ResNetConfig
    from nl_lightning.weights.file import load_weights as load_weights

    Blocks = Literal[0, 1, 5, 10]
    Stage = Literal["res2", "res3", "res4", "res5"]

__version__ = "0.2.0"

_HOMES = {
    "ControlConfig": "models.conventions.ControlConfig",
    "Conventions": "models.conventions.Conventions",
    "NonLocalBlock": "models.fast.FastNonLocalBlock",
    "NonLocalConfig": "models.nonlocal_block.NonLocalConfig",
    "ResNetConfig": "models.resnet.ResNetConfig",
    "UserError": "errors.UserError",
    "VideoResNet": "models.fast.FastVideoResNet",
    "for_testing": "models.fast.for_testing",
    "insert_non_local": "models.insert.insert_non_local",
    "load_weights": "weights.file.load_weights",
    "remove_non_local": "models.insert.remove_non_local",
    "use_kernels": "models.fast.use_kernels",
}

__all__ = [*_HOMES, "__version__", "c2d_r50", "c2d_r101", "i3d_r50", "i3d_r101"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'nl_lightning' has no attribute '{name}'")
    home, _, attribute = _HOMES[name].rpartition(".")
    value = globals()[name] = getattr(importlib.import_module(f"nl_lightning.{home}"), attribute)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})


class _Options(TypedDict, total=False):
    instantiation: "Instantiation"
    sum_over: "SumOver"
    subsample: bool
    stage: "Stage"
    num_classes: int
    width: float
    temporal_strides: tuple[int, int, int]
    spatial_strides: tuple[int, int, int, int, int, int]
    dropout: float
    conventions: "Conventions"
    control: "ControlConfig"


def c2d_r50(non_local: "Blocks" = 0, **options: Unpack[_Options]) -> "VideoResNet":
    """C2D ResNet-50 of Table 1, with random weights. It takes clips (N, 3, T, H, W) and returns logits (N, classes).

    Args:
        non_local: 0, 1, 5 or 10 non-local blocks, at the places of Table 2c.
        instantiation: ``embedded_gaussian`` (default), ``gaussian``, ``dot_product`` or ``concatenation``.
        sum_over: ``spacetime`` (default), ``space`` or ``time``.
        subsample: whether phi and g are max-pooled by 2 x 2 in space (default: yes).
        stage: where a single block is: before the last residual block of this stage (default: ``res4``).
        num_classes, width, temporal_strides, spatial_strides, dropout, conventions, control: see :class:`ResNetConfig`.

    Raises:
        UserError: Table 2 has no such number of blocks, or a setting is out of range.
    """
    return _network(50, "none", non_local, **options)


def c2d_r101(non_local: "Blocks" = 0, **options: Unpack[_Options]) -> "VideoResNet":
    """C2D ResNet-101. Options and errors as :func:`c2d_r50`."""
    return _network(101, "none", non_local, **options)


def i3d_r50(
    non_local: "Blocks" = 0, inflate: Literal["3x1x1", "3x3x3"] = "3x1x1", **options: Unpack[_Options]
) -> "VideoResNet":
    """I3D ResNet-50: C2D with kernels inflated in time (Sec. 4). Options and errors as :func:`c2d_r50`.

    Args:
        inflate: the kernel that spans three frames in every other residual block: the first 1 x 1, or the 3 x 3.
    """
    return _network(50, inflate, non_local, **options)


def i3d_r101(
    non_local: "Blocks" = 0, inflate: Literal["3x1x1", "3x3x3"] = "3x1x1", **options: Unpack[_Options]
) -> "VideoResNet":
    """I3D ResNet-101. Arguments and errors as :func:`i3d_r50`."""
    return _network(101, inflate, non_local, **options)


_PLACEMENTS: dict[tuple[int, int], dict[str, list[int]]] = {
    (50, 5): {"res3": [1, 3], "res4": [1, 3, 5]},
    (50, 10): {"res3": [0, 1, 2, 3], "res4": [0, 1, 2, 3, 4, 5]},
    (101, 5): {"res3": [1, 3], "res4": [6, 13, 20]},
    (101, 10): {"res3": [0, 1, 2, 3], "res4": [2, 6, 10, 14, 18, 22]},  # inferred: the paper only says "corresponding"
}


def _network(
    depth: Literal[50, 101],
    inflate: "Inflate",
    number: int,
    instantiation: "Instantiation" = "embedded_gaussian",
    sum_over: "SumOver" = "spacetime",
    subsample: bool = True,
    stage: "Stage" = "res4",
    **net: Any,
) -> "VideoResNet":
    from nl_lightning.errors import UserError
    from nl_lightning.models.conventions import BLOCKS, STAGES
    from nl_lightning.models.fast import FastVideoResNet
    from nl_lightning.models.nonlocal_block import NonLocalConfig
    from nl_lightning.models.resnet import ResNetConfig

    if number not in (0, 1, 5, 10):
        raise UserError(
            f"non_local: expected 0, 1, 5 or 10 blocks as in Table 2, not {number!r}; "
            "NonLocalConfig takes any other placement"
        )
    if stage not in STAGES:
        raise UserError(f"stage: expected one of {', '.join(STAGES)}, not {stage!r}")
    if stage != "res4" and number != 1:
        raise UserError(f"stage: {stage} is for one block, but non_local is {number}")
    before_last = BLOCKS[depth][STAGES.index(stage)] - 2
    placement = _PLACEMENTS.get((depth, number), {stage: [before_last]})
    blocks = NonLocalConfig(placement, instantiation, sum_over, subsample)
    if not number and blocks != NonLocalConfig(placement):
        raise UserError("instantiation, sum_over, subsample: these are for blocks, but non_local is 0")
    return FastVideoResNet(ResNetConfig(depth, inflate, blocks if number else None, **net))
