"""What follows from figures: ratios to the best peer, rates, exponents, hours. All from the stored JSON."""

import math
import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from nl_lightning.study.study import Variant

Entry = Mapping[str, Any]
Figure = Mapping[str, Any]

LIKE = {"ours, pool before": ("pytorchvideo",), "ours, pool after": ("mmcv", "all pairs")}
"""Who is like whom: the peers that pool where ours does."""


def figures(entry: Entry) -> dict[str, Figure]:
    """By name, those that were measured."""
    return {figure["name"]: figure for figure in entry["figures"] if "skipped" not in figure}


def seconds(figure: Figure) -> float:
    return statistics.median(figure["seconds"])


@dataclass(frozen=True)
class Ratio:
    """How many times faster ours is than the best peer, and its memory as a share of the thriftiest peer's.

    None where nobody was measured. `peer` is the best one, and `least` the thriftiest one's bytes.
    """

    faster: float | None
    memory: float | None
    peer: str = ""
    least: int | None = None


def against(found: Mapping[str, Figure], ours: str, peers: Iterable[str]) -> Ratio:
    """One of ours against the best of some peers."""
    there = {name: found[name] for name in peers if name in found}
    if ours not in found or not there:
        return Ratio(None, None)
    best = min(there, key=lambda name: seconds(there[name]))
    least = min((peer["bytes"] for peer in there.values() if peer["bytes"] is not None), default=None)
    own = found[ours]["bytes"]
    memory = None if own is None or not least else own / least
    return Ratio(seconds(there[best]) / max(seconds(found[ours]), 1e-9), memory, best, least)


def operation_ratio(entry: Entry) -> Ratio:
    """Like against like, and of these the worse for us, in time and in memory by itself."""
    ratios = [against(figures(entry), ours, peers) for ours, peers in LIKE.items()]
    timed = [ratio for ratio in ratios if ratio.faster is not None]
    if not timed:
        return Ratio(None, None)
    worst = min(timed, key=lambda ratio: ratio.faster or 0.0)
    largest = max(timed, key=lambda ratio: ratio.memory or 0.0)
    return Ratio(worst.faster, largest.memory, worst.peer, largest.least)


# ------------------------------------------------------------------------------------------------------- networks


def ceiling(found: Mapping[str, Figure], precision: str) -> float | None:
    """Multiply-adds a second of the faster of the large matrix product and the large convolution."""
    tops = [found[name] for of in ("matrix product", "convolution") if (name := f"{of}, {precision}") in found]
    return max((top["macs"] / seconds(top) for top in tops), default=None)


def rate(entry: Entry, figure: Figure) -> float:
    """Multiply-adds a second; those of a backward are twice those of a forward."""
    return float(entry["case"]["macs"] * entry["case"]["passes"] / seconds(figure))


def fraction(entry: Entry, name: str) -> float | None:
    """The share of the machine's ceiling, in the same precision, that a network reaches."""
    found = figures(entry)
    top = ceiling(found, "bf16" if name.endswith("bf16") else "float32")
    return None if top is None or name not in found else rate(entry, found[name]) / top


# --------------------------------------------------------------------------------------------------------- growth


def exponent(points: Iterable[tuple[float, float]]) -> float | None:
    """The slope of a line through the logarithms; None with fewer than two different sizes."""
    there = sorted((x, y) for x, y in points if x > 0 and y > 0)
    if len({x for x, _ in there}) < 2:
        return None
    x, y = (np.log([point[axis] for point in there]) for axis in (0, 1))
    return float(np.polyfit(x, y, 1)[0])


@dataclass(frozen=True)
class Growth:
    """One contestant's figures against N, along more ``frames`` or larger ``sides``."""

    along: str
    instantiation: str
    phase: str
    name: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    bytes: tuple[int, ...]

    @property
    def time(self) -> float | None:
        return exponent(zip(self.sizes, self.seconds, strict=True))

    @property
    def memory(self) -> float | None:
        return exponent(zip(self.sizes, self.bytes, strict=True))


def growths(entries: Iterable[Entry]) -> list[Growth]:
    points: dict[tuple[str, str, str, str], list[tuple[int, float, int]]] = {}
    for entry in entries:
        case = entry["case"]
        for name, figure in figures(entry).items():
            key = case["place"], case["instantiation"], case["phase"], name.partition(",")[0]
            points.setdefault(key, []).append((case["positions"], seconds(figure), figure["bytes"] or 0))
    return [
        Growth(*key, *(tuple(column) for column in zip(*sorted(there), strict=True))) for key, there in points.items()
    ]


# ---------------------------------------------------------------------------------------------------------- study


def laptop_hours(entry: Entry, name: str = "ours") -> float | None:
    """Of one variant by the measured steps: training, validation, testing and the start of the process."""
    found = figures(entry)
    if name not in found or not found[name]["seconds"]:
        return None
    case, figure = entry["case"], found[name]
    videos = figure["videos"]
    view = statistics.median(figure["test_seconds"]) / (min(case["test_batch_size"], videos["test"]) * case["views"])
    steps = case["epochs"] * (videos["train"] // case["batch_size"])
    views = case["epochs"] // case["validate_every"] * videos["val"] + case["views"] * videos["test"]
    return (steps * seconds(figure) + views * view + statistics.median(figure["start_seconds"])) / 3600


Rates = Callable[[Variant, str], float | None]


def rates(networks: Iterable[Entry]) -> Rates:
    """Multiply-adds a second of the measured network that is most like a variant, in its better precision."""
    known = [
        (entry["case"], max(rate(entry, figure) for figure in ours)) for entry in networks
        if (ours := [figure for name, figure in figures(entry).items() if name in ("ours", "ours, bf16")])
    ]  # fmt: skip

    def of(variant: Variant, phase: str) -> float | None:
        columns = variant.columns()
        wanted = {"depth": 50, "phase": phase, "backbone": str(columns["backbone"]).upper()}
        alike = [
            (abs(case["blocks"] - int(columns["blocks"])), of) for case, of in known if wanted.items() <= case.items()
        ]
        return min(alike, key=lambda pair: pair[0], default=(0, None))[1]

    return of


def paper_hours(figure: Figure, variant: Variant, of: Rates) -> float | None:
    """Of one variant by the paper's schedule: every clip forward and backward, and the test."""
    training, testing = of(variant, "training"), of(variant, "testing")
    if training is None or testing is None:
        return None
    trained, tested = 3 * figure["macs"] * figure["clips"], figure["test_macs"] * figure["test_clips"]
    return (trained / training + tested / testing) / 3600


def total(hours: Iterable[float | None]) -> float | None:
    """The sum, or None if one is missing."""
    there = list(hours)
    known = [value for value in there if value is not None]
    return math.fsum(known) if there and len(known) == len(there) else None


def within(entries: Iterable[Entry], **case: Any) -> list[Entry]:
    """Those whose case has these values."""
    return [entry for entry in entries if case.items() <= entry["case"].items()]
