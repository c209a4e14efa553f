"""A study that is a real product: every instantiation x place x extent of the sum, from a few lines. No torch here.

How many blocks a stage takes depends on the stage, so the two are one axis: ``res4x2`` is two blocks in res4. Places
that can't be are left out, and named.
"""

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nl_lightning.models.conventions import BLOCKS, STAGES

AXES = ("instantiation", "stage", "blocks", "sum_over")
"""What a grid lists values of."""


@dataclass(frozen=True)
class Grid:
    """The product that a study has beside its own variants.

    Attributes:
        variants: names of its variants, the last axis fastest.
        axes: values of each axis: ``instantiation``, ``placement`` (``res4x2``), ``sum_over``.
        impossible: places that are left out, with the reason.
    """

    variants: tuple[str, ...]
    axes: Mapping[str, Sequence[str]]
    impossible: Mapping[str, str]


def spread(depth: int, stage: str, blocks: int) -> list[int]:
    """The residual blocks, from 0, that so many non-local blocks follow (paper, Sec. 5).

    One comes right before the last residual block; more are spread evenly, as in the released code: every other
    residual block of res4 takes three. Empty if the stage has too few.
    """
    residual = _residual(depth, stage)
    if blocks == 1:
        return [residual - 2]
    step = residual // blocks
    return [step * (i + 1) - 1 for i in range(blocks)] if step else []


def product(net: Mapping[str, Any], axes: Mapping[str, Sequence[Any]]) -> tuple[dict[str, Any], Grid]:
    """The variants of a product, as a study states them, and the grid.

    Args:
        net: what all of them share: ``depth``, and maybe ``inflate`` and more.
        axes: values of each of :data:`AXES`.
    """
    places, impossible = {}, {}
    for stage, blocks in itertools.product(axes["stage"], axes["blocks"]):
        after = spread(net["depth"], stage, blocks)
        if after:
            places[placement_name(stage, blocks)] = {stage: after}
        else:
            impossible[placement_name(stage, blocks)] = f"{stage} has {_residual(net['depth'], stage)} residual blocks"
    listed = {"instantiation": axes["instantiation"], "placement": list(places), "sum_over": axes["sum_over"]}
    variants = dict(_variants(net, places, listed))
    return variants, Grid(tuple(variants), listed, impossible)


def placement_name(stage: str, blocks: int) -> str:
    """``res4x2``: two blocks in res4."""
    return f"{stage}x{blocks}"


def _residual(depth: int, stage: str) -> int:
    return BLOCKS[depth][STAGES.index(stage)]


def _variants(
    net: Mapping[str, Any], places: Mapping[str, Any], axes: Mapping[str, Sequence[str]]
) -> Iterator[tuple[str, Any]]:
    for instantiation, place, sum_over in itertools.product(*axes.values()):
        non_local = {"placement": places[place], "instantiation": instantiation, "sum_over": sum_over}
        yield f"{instantiation}_{place}_{sum_over}", {"net": {**net, "non_local": non_local}}
