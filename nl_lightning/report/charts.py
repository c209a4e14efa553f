"""The report's figures as SVG: small, in the page's own colours and letters (CSS), so they follow dark mode and print.

Positions along an axis are percents of its width, so that a figure in a table's cell takes whatever room there is.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

from nl_lightning.report.uncertainty import Interval


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, with round ticks."""

    low: float
    high: float

    @property
    def ticks(self) -> list[float]:
        """Three to six round numbers within the axis."""
        rough = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step)
        return [step * i for i in range(first, math.floor(self.high / step) + 1)]

    def percent(self, value: float) -> str:
        """Where a value lies, as an SVG length; beyond the ends, at the end."""
        share = (value - self.low) / (self.high - self.low)
        return f"{100 * min(max(share, 0.0), 1.0):.2f}%"


def axis_for(values: Iterable[float], room: float = 0.08) -> Axis:
    """An axis with some room on either side; zero is always on it."""
    values = [0.0, *values]
    low, high = min(values), max(values)
    spare = room * ((high - low) or 1.0)
    return Axis(low - spare, high + spare)


def forest_axis(axis: Axis) -> Markup:
    """Ticks and numbers, for the head of a column of :func:`forest`."""
    labels = [
        Markup('<text x="{}" y="12" text-anchor="middle">{}</text>').format(
            axis.percent(tick), f"{tick:+z.3g}" if tick else "0"
        )
        for tick in axis.ticks
    ]
    return Markup('<svg class="axis" height="16" aria-hidden="true">{}</svg>').format(Markup("").join(labels))


def forest(
    axis: Axis,
    measured: tuple[float, Interval] | None = None,
    reported: float | None = None,
    claimed: Interval | None = None,
) -> Markup:
    """A difference with its interval, beside zero, what is reported of it, and where it is claimed to lie.

    The numbers stand in the cells beside it, so readers of the page's text are spared the picture.
    """
    parts = []
    if claimed is not None:
        left, right = (min(max(end, axis.low), axis.high) for end in claimed)
        width = 100 * max(right - left, 0) / (axis.high - axis.low)
        parts.append(
            Markup('<rect class="claimed" x="{}" width="{}%" y="0" height="100%"/>').format(
                axis.percent(left), f"{width:.2f}"
            )
        )
    parts.append(Markup('<line class="zero" x1="{0}" x2="{0}" y1="0" y2="100%"/>').format(axis.percent(0.0)))
    if measured is not None:
        mean, interval = measured
        low, high, middle = (axis.percent(value) for value in (interval.low, interval.high, mean))
        parts.append(Markup('<line class="whisker" x1="{}" x2="{}" y1="50%" y2="50%"/>').format(low, high))
        parts.append(Markup('<circle class="mean" cx="{}" cy="50%" r="3.6"/>').format(middle))
    if reported is not None:
        # An svg of its own, for a shape that is moved by percents.
        parts.append(
            Markup(
                '<svg x="{}" y="50%" overflow="visible"><path class="reported" d="M0-4.6 4.6 0 0 4.6-4.6 0z"/></svg>'
            ).format(axis.percent(reported))
        )
    return Markup('<svg class="forest" aria-hidden="true">{}</svg>').format(Markup("").join(parts))


# ------------------------------------------------------------------------------------------------------ figures


@dataclass(frozen=True)
class Line:
    """Points of a line in a figure, with the CSS class of its look."""

    look: str
    points: Sequence[tuple[float, float]]


def curves(name: str, lines: Sequence[Line], across: Axis, upward: Axis) -> Markup:
    """A small panel of error (percent) against iterations."""
    width, height, left, bottom = 190.0, 120.0, 26.0, 16.0

    def place(x: float, y: float) -> tuple[float, float]:
        right = left + (width - left - 8) * (x - across.low) / (across.high - across.low)
        return right, (height - bottom) - (height - bottom - 6) * (y - upward.low) / (upward.high - upward.low)

    parts = []
    for tick in upward.ticks:
        _, y = place(0, tick)
        parts.append(_text(left - 4, y + 3, f"{tick:g}", "end"))
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>').format(left, width - 8, y=y)
        )
    for tick in across.ticks:
        x, _ = place(tick, 0)
        parts.append(_text(x, height - 3, f"{tick / 1000:g}k" if tick >= 1000 else f"{tick:g}", "middle"))
    for line in lines:
        placed = " ".join(f"{x:.1f},{y:.1f}" for x, y in (place(*point) for point in line.points))
        parts.append(Markup('<polyline class="{}" points="{}"/>').format(line.look, placed))
        if len(line.points) == 1:
            parts.append(Markup('<circle class="{}" cx="{}" cy="{}" r="2.2"/>').format(line.look, *placed.split(",")))
    return _figure(width, height, name, "Error in percent against iterations.", parts)


@dataclass(frozen=True)
class Point:
    """A point of :func:`scatter`, with its label and, if it is known, the interval of `y`."""

    label: str
    x: float
    y: float
    interval: Interval | None = None


def scatter(name: str, points: Sequence[Point], horizontal: Axis, look: str, metric: str) -> Markup:
    """Points with labels: a metric against FLOPs as multiples of the baseline's."""
    width, height, left, bottom, top = 380.0, 260.0, 44.0, 38.0, 14.0
    ends = [end for point in points for end in (point.interval or (point.y, point.y))]
    vertical = around(ends, 0.08, 0.08)
    across, upward = "FLOPs, as multiples of the baseline's", f"{metric}, percent"

    def place(x: float, y: float) -> tuple[float, float]:
        right = left + (width - left - 6) * (x - horizontal.low) / (horizontal.high - horizontal.low)
        up = (height - bottom - top) * (y - vertical.low) / (vertical.high - vertical.low)
        return right, height - bottom - up

    parts = [
        _text((left + width) / 2, height - 4, across, "middle", "name"),
        Markup('<text class="name" transform="translate(11 {}) rotate(-90)" text-anchor="middle">{}</text>').format(
            (height - bottom + top) / 2, upward
        ),
    ]
    for tick in vertical.ticks:
        _, y = place(horizontal.low, tick)
        parts.append(_text(left - 5, y + 3.5, f"{tick:g}", "end"))
        parts.append(
            Markup('<line class="grid" x1="{}" x2="{}" y1="{y:.1f}" y2="{y:.1f}"/>').format(left, width - 6, y=y)
        )
    for tick in horizontal.ticks:
        x, _ = place(tick, vertical.low)
        parts.append(_text(x, height - bottom + 15, f"{tick:.2g}x", "middle"))
    for point in points:
        x, y = place(point.x, point.y)
        if point.interval is not None:
            (_, low), (_, high) = place(point.x, point.interval.low), place(point.x, point.interval.high)
            parts.append(
                Markup('<line class="whisker" x1="{x:.1f}" x2="{x:.1f}" y1="{:.1f}" y2="{:.1f}"/>').format(
                    low, high, x=x
                )
            )
        parts.append(Markup('<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="4.2"/>').format(look, x, y))
        parts.append(_text(x + 8, y + 4, point.label, "start", "name"))
    return _figure(width, height, name, f"{upward} against {across}.", parts)


def around(values: Sequence[float], below: float, above: float) -> Axis:
    """An axis around values, with a share of their range as room."""
    low, high = min(values), max(values)
    span = (high - low) or 1.0
    return Axis(low - below * span, high + above * span)


def _text(x: float, y: float, text: str, anchor: str, look: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.1f}" y="{:.1f}" text-anchor="{}">{}</text>').format(look, x, y, anchor, text)


def _figure(width: float, height: float, name: str, description: str, parts: Sequence[Markup]) -> Markup:
    return Markup(
        '<svg class="figure" viewBox="0 0 {:g} {:g}" role="img"><title>{}</title><desc>{}</desc>{}</svg>'
    ).format(width, height, escape(name), description, Markup("").join(parts))
