"""What a block can't do without: the time of its products at the machine's best rate, and the memory of its maps."""

import statistics
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.ratios import Entry, ceiling, figures
from nl_lightning.models.forms import form_of

AGAIN = 3.5
"""A training step's products of pairs as multiples of a forward's: a backward is two, and what was never kept, the
matrix, is computed again. Other products take three."""


def floor_ms(case: Mapping[str, Any], pool: str, networks: Iterable[Entry]) -> float | None:
    """Milliseconds of a block's products in float32 at the ceiling that was measured beside the networks."""
    ceilings = [top for entry in networks if (top := ceiling(figures(entry), "float32")) is not None]
    return 1e3 * products(case, pool) / statistics.median(ceilings) if ceilings else None


def products(case: Mapping[str, Any], pool: str) -> float:
    """Multiply-adds of a case of :mod:`benchmarks.operations` by the form that ours takes on a CPU."""
    queries = case["frames"] * case["side"] ** 2
    keys = case["frames"] * (case["side"] // 2) ** 2 if case["subsample"] else queries
    features, values = case["channels"], case["channels"] // 2
    channels = features if case["instantiation"] == "gaussian" else values
    form = form_of(case["instantiation"], (1, 1, queries, channels), (1, 1, keys, channels))
    late = pool == "after" and case["subsample"]  # the pool is after phi and g: those are of all positions
    of_keys, of_queries = (1, 1) if case["instantiation"] == "gaussian" else (2, 2)  # g, phi; W_z, theta
    maps = (of_queries * queries + of_keys * (queries if late else keys)) * features * values
    similarity = 0 if case["instantiation"] == "concatenation" else channels
    pairs = queries * keys * (similarity + values) if form in ("pairs", "attention") else 0
    if form == "associated":
        maps += (queries + keys) * values**2
    if case["phase"] != "training":
        return maps + pairs
    return 3 * maps + (AGAIN if form == "attention" else 3) * pairs


def maps_bytes(case: Mapping[str, Any]) -> int:
    """Of z in float32; in training also of what BN is given and of the gradient of x, which are as large."""
    positions = case["frames"] * case["side"] ** 2
    return 4 * case["channels"] * positions * (3 if case["phase"] == "training" else 1)
