"""The report as one HTML file that needs nothing else: no network, no script. ``report.html.j2`` is its skeleton.

What it shows is what the tables show (:mod:`~nl_lightning.report.tables`), with intervals drawn, and every measured
cell linked to its record.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd
from markupsafe import Markup

from nl_lightning.report.charts import Axis, Line, Point, around, axis_for, curves, forest, forest_axis, scatter
from nl_lightning.report.claims import Comparison, Verdict, compare, judge
from nl_lightning.report.collate import Runs, collate, over_videos
from nl_lightning.report.tables import (
    Grid,
    comparison_grid,
    grid,
    groups_grid,
    heading,
    legend,
    lines_of,
    p_value,
    provenance,
    remarks,
    reported_grid,
    reported_legend,
    summary,
    verdict_legend,
)
from nl_lightning.report.uncertainty import NO_INTERVAL, Interval, ends
from nl_lightning.study.records import RunRecord, record_path, write_atomically
from nl_lightning.study.study import Check, Table

WORDS = {"holds": "✓", "fails": "✗", "undecided": "?"}  # beside the word, for eyes that don't tell red from green


@dataclass(frozen=True)
class Cell:
    """A cell of a table: its text, where it leads, a picture in place of the text, a percentage to shade it by."""

    text: str
    href: str = ""
    picture: Markup | None = None
    share: float | None = None


@dataclass(frozen=True)
class Shown:
    """A table as the page shows it: `groups` span columns, as (name, columns)."""

    header: list[Cell]
    rows: list[list[Cell]]
    groups: list[tuple[str, int]] | None = None


def write_html(runs: Runs, results: Path) -> Path:
    """Write ``<results>/tables/<recipe>/<study>.html`` and return where; the same content is left alone."""
    path = results / "tables" / runs.recipe.name / f"{runs.study.name}.html"
    text = page(runs, results, path.parent)
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
    return path


def page(runs: Runs, results: Path, folder: Path) -> str:
    """The page; links lead from `folder` to the records in `results`, if they lie there."""
    frame = collate(runs)
    verdicts = judge(runs.study, compare(runs))
    links = _Links(runs, results, folder)
    groups = groups_grid(runs)
    reported = reported_grid(runs.study, verdicts)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nl_lightning.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
    )
    return (
        environment.get_template("report.html.j2").render(
            style=Markup((Path(__file__).parent / "report.css").read_text(encoding="utf-8")),
            words=WORDS,
            study=runs.study,
            heading=_plain(heading(runs)),
            legend=legend(runs, frame),
            summary=summary(verdicts),
            counts=[(word, sum(v.word == word for v in verdicts)) for word in WORDS],
            verdicts=[_verdict(verdict) for verdict in verdicts],
            verdict_legend=verdict_legend(verdicts),
            unchecked=[claim for claim in runs.study.claims if claim.note],
            tables=[_table(runs, table, frame, links) for table in runs.study.tables.values()],
            curves=_curves(runs),
            costs=_costs(runs, frame),
            groups=_groups(groups),
            reported=reported,
            reported_legend=reported_legend(runs.study) if reported else "",
            provenance=[line.partition(": ")[::2] for line in provenance(runs)],
            census=_census(runs, links),
        )
        + "\n"
    )


def _plain(text: str) -> str:
    return text.replace("`", "")


class _Links:
    """Where the measured cells of a variant lead: to its record, or to the list of them if there are several."""

    def __init__(self, runs: Runs, results: Path, folder: Path) -> None:
        self.runs, self.results, self.folder = runs, results, folder

    def record(self, record: RunRecord) -> str:
        """The record's file, relative to the page; empty if it isn't there."""
        path = record_path(self.results, record.recipe, record.variant, record.seed)
        return Path(os.path.relpath(path, self.folder)).as_posix() if path.is_file() else ""

    def variant(self, name: str) -> str:
        records = self.runs.records([name])
        if len(records) == 1 and self.record(records[0]):
            return self.record(records[0])
        return f"#run-{name}" if records else ""


# ------------------------------------------------------------------------------------------------------- tables


def _table(runs: Runs, table: Table, frame: pd.DataFrame, links: _Links) -> dict[str, Any]:
    cells = grid(runs, table, frame)
    lines = lines_of(table, frame)
    measured = [name for name in cells.header[1:] if not name.startswith("reported")]
    reported = [name for name in cells.header if name.startswith("reported")]
    axis = axis_for(
        value
        for line in lines
        for value in (line["gain_low"], line["gain_high"], line["reported_gain"])
        if value == value and value is not None
    )
    header, rows = [Cell("")], [[Cell(row[0])] for row in cells.rows]
    for name in [*measured, *reported]:
        column = cells.header.index(name)
        header.append(Cell(name))
        for shown, row, line in zip(rows, cells.rows, lines, strict=True):
            shown.append(
                Cell(
                    row[column],
                    links.variant(line["variant"]) if name in measured and line["n"] and row[column] else "",
                )
            )
        if name == "gain":
            header.append(Cell("", picture=forest_axis(axis)))
            for shown, line in zip(rows, lines, strict=True):
                shown.append(Cell("", picture=_gain_forest(axis, line)))
    groups = [("", 1), ("measured", len(header) - 1 - len(reported)), ("reported", len(reported))]
    return {
        "name": table.name,
        "caption": table.caption,
        "shown": Shown(header, rows, groups if reported else None),
        "remarks": [_plain(remark) for remark in remarks(runs, table, frame)],
    }


def _gain_forest(axis: Axis, line: dict[str, Any]) -> Markup:
    if line["gain"] != line["gain"]:  # NaN: the baseline's own row, or nothing measured
        return forest(axis)
    reported = None if line["reported_gain"] != line["reported_gain"] else line["reported_gain"]
    if line["gain_low"] != line["gain_low"]:
        return forest(axis, reported=reported)
    return forest(axis, (line["gain"], Interval(line["gain_low"], line["gain_high"])), reported)


def _groups(cells: Grid | None) -> Shown | None:
    if cells is None:
        return None
    rows = [[Cell(row[0]), *(Cell(cell, share=float(cell or 0)) for cell in row[1:])] for row in cells.rows]
    return Shown([Cell(name) for name in cells.header], rows)


def _census(runs: Runs, links: _Links) -> list[dict[str, Any]]:
    """A line a record: what it is, what it says, and what it was measured with."""
    found = []
    for name in runs.study.variants:
        for i, record in enumerate(runs.records([name])):
            interval, metric = over_videos(record, runs.study.metric), runs.study.metric
            kept = record.right_top1 if metric.counts_videos else record.mAP_by_video
            found.append(
                {
                    "id": f"run-{name}" if i == 0 else "",
                    "record": record,
                    "href": links.record(record),
                    "score": f"{record.score(metric):.1f} {ends(*interval) if interval else NO_INTERVAL}",
                    "paired": bool(kept and record.videos_hash),
                }
            )
    return found


# ------------------------------------------------------------------------------------------------------- claims


def _verdict(verdict: Verdict) -> dict[str, Any]:
    differences = [c.difference for c in verdict.comparisons if c.difference is not None and c.difference.bounded]
    axis = axis_for(
        [end for difference in differences for end in difference.interval()]
        + [c.reported for c in verdict.comparisons if c.reported is not None and not c.check.cost]
    )
    cells = comparison_grid(verdict.comparisons)
    kept = [i for i, name in enumerate(cells.header) if name not in ("claim", "n") and _says(cells, i)]
    header = [Cell(cells.header[i]) for i in kept]
    rows = [[Cell(row[i]) for i in kept] for row in cells.rows]
    if differences:
        at = [cell.text for cell in header].index("measured") + 1
        header.insert(at, Cell("", picture=forest_axis(axis)))
        for shown, comparison in zip(rows, verdict.comparisons, strict=True):
            shown.insert(at, Cell("", picture=_claim_forest(axis, comparison)))
    return {
        "claim": verdict.claim,
        "word": verdict.word,
        "reason": verdict.reason,
        "p": p_value(verdict.corrected),
        "family": verdict.family,
        "shown": Shown(header, rows),
    }


def _says(cells: Grid, column: int) -> bool:
    return any(row[column] for row in cells.rows)


def _claim_forest(axis: Axis, comparison: Comparison) -> Markup:
    if comparison.difference is None or not comparison.difference.bounded:
        return Markup("")
    difference, claimed = comparison.difference, _claimed(comparison.check, axis)
    return forest(axis, (difference.mean, difference.interval()), comparison.reported, claimed)


def _claimed(check: Check, axis: Axis) -> Interval:
    if check.within is not None:
        return Interval(-check.within, check.within)
    return Interval(check.by, axis.high)


# ------------------------------------------------------------------------------------------------------ figures


def _curves(runs: Runs) -> list[dict[str, Any]]:
    """A panel a variant (Fig. 4): error of training and of one-clip validation, its baseline's in grey."""
    baselines: dict[str, str | None] = {}
    for table in runs.study.tables.values():
        for row in table.rows:
            if row.variant is not None:
                baselines[row.variant] = baselines.get(row.variant) or row.baseline
    first = {name: records[0] for name in baselines if (records := runs.records([name])) and records[0].curve}
    metric = runs.study.metric.key
    errors = [point for record in first.values() for line in _lines("", record, metric) for point in line.points]
    if not errors:
        return []
    upward = Axis(0.0, 1.05 * max(error for _, error in errors))
    across = Axis(0.0, float(max(step for step, _ in errors)))
    panels = []
    for name, record in first.items():
        baseline = first.get(baselines[name] or "")
        lines = [*(_lines("below", baseline, metric) if baseline else []), *_lines("above", record, metric)]
        panels.append(
            {
                "name": name,
                "baseline": baselines[name] if baseline else None,
                "figure": curves(name, lines, across, upward),
            }
        )
    return panels


def _lines(look: str, record: RunRecord, metric: str) -> list[Line]:
    """Training, then validation, where there is anything of it: a batch has no mAP."""
    lines = [Line(f"{look} {part}", _errors(record, part, metric)) for part in ("train", "val")]
    return [line for line in lines if line.points]


def _errors(record: RunRecord, part: str, metric: str) -> list[tuple[float, float]]:
    """(iterations, error in percent), where it was measured: a point may repeat what an earlier one measured."""
    key, loss = f"{part}/{metric}", f"{part}/loss"
    points, before = [], None
    for point in record.curve:
        if key in point and (point[key], point.get(loss)) != before:
            before = (point[key], point.get(loss))
            points.append((point["step"], 100 - point[key]))
    return points


def _costs(runs: Runs, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Accuracy against cost, measured beside reported, for each table that reports a cost."""
    found, metric = [], runs.study.metric
    for table in runs.study.tables.values():
        lines = lines_of(table, frame)
        reported = [
            Point(line["label"], line["reported_flops_ratio"], line[f"reported_{metric.key}"])
            for line in lines
            if line["reported_flops_ratio"] == line["reported_flops_ratio"]
        ]
        measured = [
            Point(line["label"], line["flops_ratio"], line[metric.key], _score_interval(line, metric.key))
            for line in lines
            if line["n"]
        ]
        if len(reported) > 1 and measured:
            axis = around([point.x for point in (*measured, *reported)], 0.1, 0.3)  # room for labels, to the right
            figures = {
                word: scatter(f"Table {table.name}, {word}", points, axis, look, metric.name)
                for word, points, look in (("measured", measured, "mean"), ("reported", reported, "reported"))
            }
            found.append({"name": table.name} | figures)
    return found


def _score_interval(line: dict[str, Any], key: str) -> Interval | None:
    low, high = line[f"{key}_low"], line[f"{key}_high"]
    return Interval(low, high) if low == low else None
