"""What a block can't do without: the time of its products at the machine's best rate, and the memory of its maps."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

import torch

from benchmarks.operations import POOLED
from benchmarks.ratios import Entry, ceiling, figures
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.models.operation import costs

AGAIN = 3.5
"""A training step's products of pairs as multiples of a forward's: a backward is two, and what was never kept, the
matrix, is computed again. Other products take three."""


def floor_ms(case: Mapping[str, Any], pool: str, networks: Iterable[Entry]) -> float | None:
    """Milliseconds of a block's products in float32 at the ceiling that was measured beside the networks."""
    ceilings = [top for entry in networks if (top := ceiling(figures(entry), "float32")) is not None]
    return 1e3 * products(case, pool) / statistics.median(ceilings) if ceilings else None


def products(case: Mapping[str, Any], pool: str) -> float:
    """Multiply-adds of a case of :mod:`benchmarks.operations` by the form that ours takes on a CPU."""
    with torch.device("meta"):
        block = NonLocalBlock(
            case["channels"], case["instantiation"], subsample=case["subsample"], conventions=Conventions(POOLED[pool])
        )
    shape = (1, case["channels"], case["frames"], case["side"], case["side"])
    form, sizes = block.form(shape), block.sizes(shape)
    late = pool == "after" and case["subsample"]  # the pool is after phi and g: those are of all positions
    embedded = 1 if case["instantiation"] == "gaussian" else 2
    if case["instantiation"] == "concatenation" and not late:
        embedded = 1  # of phi one number for each key is enough
    maps = embedded * (sizes.queries if late else sizes.keys) * sizes.features * sizes.values
    pairs = sizes.queries * sizes.keys * (sizes.channels + sizes.values) if form == "attention" else 0
    other = sizes.queries * sizes.values * sizes.features  # W_z
    if form != "sorted":
        other = costs(case["instantiation"], sizes)["pairs" if form == "attention" else form] - pairs
    training = case["phase"] == "training"
    return (maps + other) * (3 if training else 1) + pairs * (AGAIN if training else 1)


def maps_bytes(case: Mapping[str, Any]) -> int:
    """Of z in float32; in training also of what BN is given and of the gradient of x, which are as large."""
    positions = case["frames"] * case["side"] ** 2
    return 4 * case["channels"] * positions * (3 if case["phase"] == "training" else 1)
