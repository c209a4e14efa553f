"""The report as one HTML file that needs nothing else: no network, no script, no file beside it.

``report.html.j2`` is its skeleton, ``charts.html.j2`` draws its figures. A measured cell leads to its record's line.
"""

import math
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import jinja2
from markupsafe import Markup

from nl_lightning.report import claim_words, provenance, words
from nl_lightning.report.claims import Report, Verdict
from nl_lightning.report.collate import visible_line
from nl_lightning.report.pairing import by_video, over_videos
from nl_lightning.report.uncertainty import Interval
from nl_lightning.study.files import write_output
from nl_lightning.study.metrics import Metric
from nl_lightning.study.records import Record, record_path
from nl_lightning.study.study import Table

# Beside the word, for eyes that don't tell red from green.
SIGNS = {"holds": "✓", "fails": "✗", "undecided": "?", "seen once": "○", "not testable": "-"}

# Where a line must not break: before a unit, after a sign of comparison, within an interval.
_TIGHT = re.compile(r"(?<=\d) (?=%)|(?<=\bp) (?=[<=])|(?<=[<=±]) (?=\d)|(?<=\d) (?=[±[])|(?<=\d,) (?=-?\d+\.\d+\])")


@dataclass(frozen=True)
class Axis:
    """From `low` to `high`, in the unit of what is shown, drawn from `start` to `end`."""

    low: float
    high: float
    start: float = 0.0
    end: float = 100.0

    @property
    def ticks(self) -> list[float]:
        """Three to six round numbers within the axis."""
        rough = (self.high - self.low) / 4
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
        first = math.ceil(self.low / step)
        return [step * i for i in range(first, math.floor(self.high / step) + 1)]

    def at(self, value: float) -> float:
        """Where a value lies; beyond the ends, at the end."""
        share = (value - self.low) / (self.high - self.low)
        return self.start + (self.end - self.start) * min(1.0, max(0.0, share))


def axis_for(values: Iterable[float]) -> Axis:
    """An axis with some room on either side; zero is always on it."""
    return around([0.0, *values], 0.08, 0.08)


def around(values: Sequence[float], below: float, above: float, start: float = 0.0, end: float = 100.0) -> Axis:
    """An axis around values, with a share of their range as room. Numbers without end are left out."""
    drawn = [value for value in values if abs(value) < 1e300] or [0.0]
    low, high = min(drawn), max(drawn)
    span = max((high - low) or 1.0, 1e-9 * max(abs(low), abs(high)))
    return Axis(low - below * span, high + above * span, start, end)


class Mark(NamedTuple):
    """A difference as it is drawn: with its interval, beside what is reported and where it is claimed to lie."""

    mean: float
    interval: Interval | None
    reported: float | None
    claimed: Interval | None = None


def write_html(report: Report, results: Path) -> Path:
    """Write ``<results>/tables/<recipe>/<study>.html`` and return where; the same content is left alone."""
    path = results / "tables" / report.runs.recipe.name / f"{report.runs.study.name}.html"
    write_output(path, page(report))
    return path


def page(report: Report) -> str:
    """The page."""
    study, verdicts = report.runs.study, [_verdict(report, verdict) for verdict in report.verdicts]
    return filled(
        "report.html.j2",
        title=study.title,
        report=report,
        study=study,
        metric=study.metric,
        provenance=provenance,
        claims=claim_words,
        verdicts=verdicts,
        diamonds=any(mark and mark.reported is not None for one in verdicts for mark in one["marks"]),
        tables=[table_figure(report, table) for table in study.tables.values()],
        panels=_panels(report),
        costs=_costs(report),
        census=_census(report),
        place=record_path(Path(), report.runs.recipe.name, "RUN", 0).as_posix().replace("seed0", "seedSEED"),
    )


def filled(skeleton: str, **values: Any) -> str:
    """A page from its skeleton."""
    pages = jinja2.Environment(
        loader=jinja2.PackageLoader("nl_lightning.report", "."),
        autoescape=True,
        finalize=_tight,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    style = (Path(__file__).parent / "report.css").read_text(encoding="utf-8")
    pages.globals |= {"signs": SIGNS, "style": Markup(style), "words": words}
    return f"{pages.get_template(skeleton).render(values)}\n"


def _tight(value: Any) -> Any:
    """Every text that is put into the page: in one line, and not to be broken within a number."""
    if isinstance(value, str) and not isinstance(value, Markup):
        return _TIGHT.sub("\u00a0", visible_line(value))
    return value


def table_figure(report: Report, table: Table, page: str = "") -> dict[str, Any]:
    """A table's columns, measured ones first, which lead to their runs on a `page`, and its gains as a figure."""
    lines = report.lines[table.name]
    columns = sorted(words.table_columns(report, table), key=lambda column: column.group == words.REPORTED)
    drawn = [line[key] for line in lines for key in ("gain_low", "gain_high", "reported_gain")]
    marks = [
        None if line["gain"] is None else Mark(line["gain"], _interval(line, "gain"), line["reported_gain"])
        for line in lines
    ]
    return {
        "table": table,
        "page": page,
        "columns": columns,
        "unit": report.runs.study.metric.name,
        "axis": axis_for(value for value in drawn if value is not None),
        "marks": marks,
        "after": next((i for i, column in enumerate(columns) if column.title == "gain"), None),
        "runs": [line["variant"] if line["n"] else None for line in lines],
    }


def _interval(line: dict[str, Any], key: str) -> Interval | None:
    low, high = line[f"{key}_low"], line[f"{key}_high"]
    return None if low is None else Interval(low, high)


def _census(report: Report) -> list[dict[str, Any]]:
    """A line a record: what it is, what it says, and what it was measured with."""
    found, metric = [], report.runs.study.metric
    for name in report.runs.study.compared:
        for i, record in enumerate(report.runs.records([name])):
            low, high = over_videos(record, metric) or (None, None)
            kept = record.outcomes or by_video(record, metric)
            score = words.number(record.score(metric), f".{metric.decimals}f")
            found.append(
                {
                    "id": f"run-{name}" if i == 0 else "",
                    "record": record,
                    "score": " ".join((score, words.interval(low, high, metric.decimals))),
                    "paired": bool(kept and record.videos_hash),
                }
            )
    return found


def _verdict(report: Report, verdict: Verdict) -> dict[str, Any]:
    """A claim with its comparisons, and these as a figure that follows what was measured."""
    comparisons, marks, units = verdict.comparisons, list[Mark | None](), set()
    judged = claim_words.judged_by(report).removesuffix(f" of {report.runs.group()}")  # the key has room for a group
    for c in comparisons:
        if c.difference is None or not c.difference.bounded:
            marks.append(None)
            continue
        reported = None if report.runs.soft and not c.check.in_points else c.reported  # the paper reports no soft score
        claimed = c.claimed if c.claimed and c.claimed.low <= c.claimed.high else None  # a share of what is below zero
        marks.append(Mark(c.difference.mean, c.difference.interval(), reported, claimed))
        units.add(claim_words.other_unit(report, c) or judged)
    drawn = [end for one in marks if one for end in (*(one.interval or ()), *(one.claimed or ()), one.reported)]
    axis = axis_for(end for end in drawn if end is not None and math.isfinite(end))
    columns = claim_words.comparison_columns(report, comparisons) if comparisons else []
    left_out = ("claim", "n") if len(verdict.parts) > 1 else ("claim", "part", "n")
    columns = [column for column in columns if column.title not in left_out and any(column.cells)]
    return {
        "verdict": verdict,
        "columns": columns,
        "axis": axis,
        "unit": next(iter(units)) if len(units) == 1 else None,
        "marks": marks,
        "after": next((i for i, one in enumerate(columns) if units and one.title.startswith(words.MEASURED)), None),
    }


def _panels(report: Report) -> dict[str, Any] | None:
    """A panel a variant (Fig. 4): error of training and of one-clip validation, its baseline's in grey."""
    runs, baselines = report.runs, dict[str, str | None]()
    for row in (row for table in runs.study.tables.values() for row in table.rows if row.variant is not None):
        baselines[str(row.variant)] = baselines.get(str(row.variant)) or row.baseline
    first = {name: records[0] for name in baselines if (records := runs.records([name])) and records[0].curve}
    curves = {name: _curves(record, runs.study.metric) for name, record in first.items()}
    points = [point for curve in curves.values() for line in curve.values() for point in line]
    if not points:
        return None
    panels = []
    for name, curve in curves.items():
        baseline = baselines[name] if baselines[name] in curves else None
        drawn = (("below", curves[baseline] if baseline else {}), ("above", curve))
        lines = [(look, part, line) for look, of in drawn for part, line in of.items()]
        panels.append({"name": name, "baseline": baseline, "lines": lines})
    across = around([0.0, *(step for step, _ in points)], 0.0, 0.0, 34, 184)
    up = around([0.0, *(error for _, error in points)], 0.0, 0.05, 104, 6)
    return {"x": across, "y": up, "panels": panels, "training": any("train" in one for one in curves.values())}


def _curves(record: Record, metric: Metric) -> dict[str, list[tuple[float, float]]]:
    """Training, then validation, where there is anything of it (a batch has no mAP): (iterations, error in percent).

    Of another LightningModule it is the metric itself. Points that repeat what an earlier one measured are left out.
    """
    found: dict[str, list[tuple[float, float]]] = {"train": [], "val": []}
    for part, points in found.items():
        before = None
        for point in record.curve:
            key = f"{part}/{metric.short}"
            now = (point.get(key), point.get(f"{part}/loss"))
            if key in point and now != before:
                before = now
                points.append((point["step"], metric.scale * point[key] if metric.own else 100 - point[key]))
    return {part: points for part, points in found.items() if points}


def _costs(report: Report) -> list[dict[str, Any]]:
    """Accuracy against cost, measured beside reported, for each table that reports a cost: points and their axes."""
    found, key = [], report.runs.study.metric.key
    for table in report.runs.study.tables.values():
        lines = report.lines[table.name]
        reported = [
            (line["label"], line["reported_flops_ratio"], line[f"reported_{key}"], None)
            for line in lines
            if None not in (line["reported_flops_ratio"], line[f"reported_{key}"])
        ]
        measured = [
            (line["label"], line["flops_ratio"], line[key], _interval(line, key))
            for line in lines
            if line["flops_ratio"] is not None
        ]
        if len(reported) > 1 and measured:
            costs = [point[1] for point in (*measured, *reported)]
            x = around(costs, 0.1, 0.3, 44, 374)  # room for labels, to the right
            figures = []
            for word, points, look in (("measured", measured, "mean"), (words.REPORTED, reported, "reported")):
                ends = [end for point in points for end in (point[3] or (point[2], point[2]))]
                y = around(ends, 0.08, 0.08, 222, 14)
                figures.append({"word": word, "points": points, "look": look, "x": x, "y": y})
            found.append({"name": table.name, "figures": figures})
    return found
