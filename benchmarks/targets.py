"""The targets, and whether the figures meet them: computed, never typed."""

import itertools
import statistics
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from benchmarks.networks import OURS, SETTINGS, SHIPPED
from benchmarks.ratios import (
    LIKE,
    Entry,
    Ratio,
    against,
    ceiling,
    figures,
    fraction,
    growths,
    laptop_hours,
    operation_ratio,
    seconds,
    total,
    within,
)
from benchmarks.study_cost import STUDY
from nl_lightning.models.forms import form_of
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study

Figures = Mapping[str, list[Entry]]
"""The entries of each part."""


@dataclass(frozen=True)
class Target:
    """What should be: at least so many times faster, at most such a share of memory, or other limits; and what is.

    `met` is None where it isn't measured.
    """

    what: str
    wanted: str
    measured: str
    met: bool | None
    note: str = ""


def targets(parts: Figures, cuda: bool) -> list[Target]:
    networks = parts["networks"]
    found = [*_operations(parts["operations"], networks), *_networks(networks, cuda), *_growth(parts["growth"], cuda)]
    return [*found, *([_long(networks)] if cuda else []), _table2(parts["study"])]


def _ratio(what: str, ratio: Ratio, faster: float, memory: float | None, note: str = "") -> Target:
    wanted = f">= {faster:g}x" + ("" if memory is None else f", memory <= {share(memory)}")
    if ratio.faster is None:
        return Target(what, wanted, "not measured" if not note else "no peer", None, note)
    measured = f"{times(ratio.faster)}" + ("" if memory is None else f", memory {share(ratio.memory)}")
    enough = memory is None or (ratio.memory is not None and ratio.memory <= memory)
    return Target(what, wanted, measured, ratio.faster >= faster and enough, note or f"best peer: {ratio.peer}")


def times(factor: float) -> str:
    return f"{factor:.2g}x" if factor >= 10 else f"{factor:.2f}x"


def share(of: float | None) -> str:
    """A share of memory, as 1/13 or 0.8."""
    if of is None:
        return "not measured"
    return f"1/{1 / of:.0f}" if 0 < of <= 0.2 else f"{of:.2f}"


# ----------------------------------------------------------------------------------------------------- operations

BLOCKS = [  # instantiation, place, all keys too, phases, times faster, share of memory
    ("concatenation", "res4", (True, False), ("training",), 40.0, 1 / 50),
    ("concatenation", "res3", (True, False), ("training",), 40.0, 1 / 50),
    ("dot_product", "res2", (True,), ("forward", "training"), 10.0, 1 / 10),
    ("dot_product", "res3", (False,), ("forward", "training"), 2.0, 1 / 10),
    ("embedded_gaussian", "res2", (True,), ("training",), 2.2, 1 / 10),
]


def _operations(entries: list[Entry], networks: list[Entry]) -> Iterator[Target]:
    for instantiation, place, keys, phases, faster, memory in BLOCKS:
        for subsample, phase in itertools.product(keys, phases):
            case = {"instantiation": instantiation, "place": place, "subsample": subsample, "phase": phase}
            yield from _block(entries, networks, case, faster, memory)
    yield _every_shape(entries)


def _block(
    entries: list[Entry], networks: list[Entry], case: dict[str, Any], faster: float, memory: float
) -> Iterator[Target]:
    """A target at the paper's 32 frames of 224 pixels; where no peer could train, that of the forward beside it."""
    there = within(entries, pixels=224, clip_frames=32, **case)[-1:]
    what = f"{case['instantiation']}, {case['place']}, {_keys(case)}, {case['phase']}"
    ratio, nobody = (operation_ratio(there[0]), _nobody(there[0])) if there else (Ratio(None, None), "")
    floors = "" if ratio.faster is None else _floors(there[0], ratio, faster, memory, networks)
    yield _ratio(what, ratio, faster, memory, nobody if ratio.faster is None else f"best peer: {ratio.peer}{floors}")
    if nobody and case["phase"] == "training":
        yield from _block(entries, networks, case | {"phase": "forward"}, faster, memory)


def _floors(entry: Entry, ratio: Ratio, faster: float, memory: float, networks: list[Entry]) -> str:
    """Beside a missed target, what can't be done without."""
    pool = next(ours for ours, peers in LIKE.items() if ratio.peer in peers).rpartition(" ")[2]
    said, least = "", floor_ms(entry["case"], pool, networks)
    if (ratio.faster or 0) < faster and least is not None:
        wanted = 1e3 * seconds(figures(entry)[ratio.peer]) / faster
        said += f"; the target is {wanted:,.0f} ms, of which our products take {least:,.0f} at the machine's ceiling"
    if (ratio.memory or 0) > memory and ratio.least:
        maps = "z, BN's input and x's gradient take" if entry["case"]["phase"] == "training" else "z takes"
        wanted, taken = memory * ratio.least / 2**20, maps_bytes(entry["case"]) / 2**20
        said += f"; the target is {wanted:,.1f} MiB, of which {maps} {taken:,.1f}"
    return said


def _nobody(entry: Entry) -> str:
    """Why no peer could be measured, where none could."""
    peers = [f for f in entry["figures"] if not f["name"].startswith(("ours", "plain"))]
    reasons = {f["skipped"] for f in peers if "skipped" in f}
    return "" if len(reasons) < 1 or any("skipped" not in f for f in peers) else "; ".join(sorted(reasons))


def _every_shape(entries: list[Entry]) -> Target:
    ratios = [(operation_ratio(entry), entry["case"]) for entry in entries]
    timed = [(ratio, case) for ratio, case in ratios if ratio.faster is not None]
    what, wanted = "any instantiation at any shape", ">= 0.95x, memory <= 1"
    if not timed:
        return Target(what, wanted, "not measured", None)
    slowest, at = min(timed, key=lambda pair: pair[0].faster or 0.0)
    largest, where = max(timed, key=lambda pair: pair[0].memory or 0.0)
    bad = [r for r, _ in timed if (r.faster or 0.0) < 0.95 or (r.memory or 0.0) > 1]
    measured = f"{times(slowest.faster or 0.0)}, memory {share(largest.memory)}"
    note = f"worst in time: {_name(at)}; in memory: {_name(where)}; {len(timed) - len(bad)} of {len(timed)} within"
    return Target(what, wanted, measured, not bad, note)


def _name(case: Mapping[str, Any]) -> str:
    size = f"{case['place']} {case['clip_frames']} frames of {case['pixels']}"
    return f"{case['instantiation']} {size}, {_keys(case)}, {case['phase']}"


def _keys(case: Mapping[str, Any]) -> str:
    return "subsampled" if case["subsample"] else "all keys"


# ----------------------------------------------------------------------------- what a block can't do without

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


# ------------------------------------------------------------------------------------------------------- networks


def _networks(entries: list[Entry], cuda: bool) -> Iterator[Target]:
    full = [name for name, (_, precision) in SETTINGS.items() if precision == "float32"]
    half = [name for name, (_, precision) in SETTINGS.items() if precision == "bf16"]
    bounds = [  # phase, ours, peers, what is said of them, times faster, share of memory
        ("testing", ["ours"], full, "float32", 1.5, 1.0),
        ("testing", ["ours, bf16"], half, "bf16", 1.6, 1.0),
        ("training", ["ours"], full, "float32", 1.2, 1.0),
        ("training", ["ours, bf16"], half, "bf16", 1.2, 1.0),
        ("testing", list(OURS), [SHIPPED], "against the peer as shipped", 4.0, None),
        ("training", list(OURS), [SHIPPED], "against the peer as shipped", 2.5, None),
    ]
    if cuda:
        bounds.append(("training", list(OURS), list(SETTINGS), "against the peer's best setting", 1.3, None))
    for (phase, ours, peers, said, faster, memory), backbone in itertools.product(bounds, ("C2D", "I3D")):
        what = f"{backbone}, 5 blocks, {phase}, {said}"
        there = within(entries, phase=phase, depth=50, backbone=backbone, blocks=5)[-1:]
        ratios = [(against(figures(entry), name, peers), entry, name) for entry in there for name in ours]
        ratios = [ratio for ratio in ratios if ratio[0].faster is not None]
        if not ratios:
            yield _ratio(what, Ratio(None, None), faster, memory)
            continue
        best, entry, name = max(ratios, key=lambda ratio: ratio[0].faster or 0.0)
        yield _ratio(what, best, faster, memory, f"best peer: {best.peer}{_share(entry, name, best, faster)}")


def _share(entry: Entry, name: str, ratio: Ratio, faster: float) -> str:
    """What share of the machine's ceiling is reached, and what share a missed target is."""
    reached = fraction(entry, name)
    if reached is None or ratio.faster is None:
        return ""
    wanted = "" if ratio.faster >= faster else f", the target is {reached * faster / ratio.faster:.0%}"
    return f"; {reached:.0%} of the machine's ceiling{wanted}"


def _long(entries: list[Entry]) -> Target:
    """What the paper trains two clips of on a GPU."""
    found = [figures(e).get("ours, bf16") for e in within(entries, depth=101, frames=128)]
    what, wanted = "I3D ResNet-101, 5 blocks, 128 frames, 2 clips: memory of a training step", "< 40 GB"
    if not found or found[-1] is None:
        return Target(what, wanted, "not measured", None)
    gigabytes = found[-1]["bytes"] / 1e9
    return Target(what, wanted, f"{gigabytes:.1f} GB", gigabytes < 40)


# --------------------------------------------------------------------------------------------------------- growth


def _growth(entries: list[Entry], cuda: bool) -> Iterator[Target]:
    ours = [growth for growth in growths(entries) if growth.name == "ours"]
    for instantiation in ("concatenation", "dot_product"):
        curves = [growth for growth in ours if growth.instantiation == instantiation]
        yield _exponent(f"growth of {instantiation} with N, time", 1.15, [curve.time for curve in curves])
        yield _exponent(f"growth of {instantiation} with N, memory", 1.1, [curve.memory for curve in curves])
    if cuda:
        yield _exponent("growth of every instantiation with N, memory", 1.1, [curve.memory for curve in ours])


def _exponent(what: str, limit: float, measured: Iterable[float | None]) -> Target:
    known = [value for value in measured if value is not None]
    if not known:
        return Target(what, f"exponent <= {limit:g}", "not measured", None)
    note = f"of {len(known)} curves, forward and training: {', '.join(f'{value:.2f}' for value in sorted(known))}"
    return Target(what, f"exponent <= {limit:g}", f"{max(known):.2f}", max(known) <= limit, note)


# ---------------------------------------------------------------------------------------------------------- study


def _table2(entries: list[Entry]) -> Target:
    what, wanted = "the whole of make table2, against the code before", ">= 1.8x"
    runs = [entry for entry in entries if "epochs" in entry["case"]]
    now, before = (total(laptop_hours(entry, name) for entry in runs) for name in ("ours", "before"))
    if now is None or before is None:
        return Target(what, wanted, "not measured", None, "measured with --before COMMIT")
    count = f"{len(runs)} of {len(load_study(find_study(STUDY)).select())} networks"
    note = f"{count}: {before:.2f} h before, {now:.2f} h now, on one core"
    return Target(what, wanted, f"{times(before / now)}", before / now >= 1.8, note)
