"""The words of a report, chosen from its numbers: cells of tables, sentences, names. All of it is plain text.

Nothing here is escaped: that is for the formats (:mod:`~nl_lightning.report.render`, :mod:`~nl_lightning.report.html`).
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nl_lightning.errors import nearest
from nl_lightning.report.claims import Report
from nl_lightning.report.code import mixed_code, mixed_source
from nl_lightning.report.collate import DIVERGED, REPORTED_ONLY, UNREADABLE, Runs, Times, visible_line
from nl_lightning.report.uncertainty import Difference, clopper_pearson, rank_correlation
from nl_lightning.study.metrics import HUGE, TOP1, Metric
from nl_lightning.study.study import Study, Table

# Words in the place of numbers; set in italics, so that a hole in a table isn't overlooked.
MISSING = "missing"
HOLES = (MISSING, "stale", *(f"{of}{state}" for of in ("", "baseline ") for state in (MISSING, DIVERGED, UNREADABLE)))
NOT_RUN = "-"  # in rows that are only reported

SEEDS = "over seeds"
UNPAIRED = "†"  # beside an interval that had to do with accuracies alone
NO_INTERVAL = "(no interval)"
MEASURED, REPORTED = "measured", "reported"
UNSAID = "The study doesn't say on which data the reported numbers were measured (reported_on)."


@dataclass(frozen=True)
class Column:
    """A column of a table: words, or numbers as text, under a name, within a group of columns."""

    name: str
    cells: list[str]
    group: str = MEASURED
    words: bool = False

    @property
    def title(self) -> str:
        """Its name where groups aren't shown."""
        return f"{REPORTED} {self.name}" if self.group == REPORTED else self.name


def of_rows(header: Sequence[str], rows: Iterable[Sequence[str]], labels: int = 1) -> list[Column]:
    """The columns of a table that is given by rows; the first `labels` are words."""
    cells = zip(*rows, strict=True)
    return [Column(name, list(of), words=i < labels) for i, (name, of) in enumerate(zip(header, cells, strict=True))]


def number(value: float | None, form: str, unit: str = "") -> str:
    """A number as text; empty if it isn't known. Of one that has no sense to be written out, three digits."""
    if value is None:
        return ""
    return f"{value:{form if abs(value) < HUGE else form[: form[0] == '+'] + '.3g'}}{unit}"


def counted(n: int, what: str) -> str:
    """``1 video``, ``2 videos``."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def interval(low: float | None, high: float | None, decimals: int = 1) -> str:
    """An interval as text."""
    if low is None or high is None:
        return NO_INTERVAL
    return f"[{number(low, form := f'z.{decimals}f')}, {number(high, form)}]"


def points_of(difference: Difference, metric: Metric = TOP1, unit: str = "") -> str:
    """A difference and its interval, with as many digits as it takes to tell the ends apart."""
    low, high = difference.interval()
    most = max(4, metric.decimals)
    digits = next((n for n in range(metric.decimals, most) if high - low >= 3 * 10**-n or high == low), most)
    found = interval(low, high, digits) if difference.bounded else NO_INTERVAL
    return f"{number(difference.mean, f'+z.{digits}f', unit)} {found}"


def soft_score(runs: Runs) -> str:
    """The soft score by the videos that are judged."""
    return "soft score" + (f" of {group}" if (group := runs.group()) else "")


def gain_form(metric: Metric) -> str:
    """How a difference is written: signed; z: never -0.0."""
    return f"+z.{metric.decimals}f"


def p_value(p: float) -> str:
    """A p-value in words."""
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def called(study: Study, variant: str, table: str | None = None) -> str:
    """A variant by its label in `table`, or in the first other table that has it, which is then named.

    Its own name is added where two rows have the same label, and stands alone where no table has it.
    """
    for place in sorted(study.tables.values(), key=lambda one: one.name != table):
        labels = {row.variant: visible_line(row.label) for row in place.rows if row.variant}
        if variant in labels:
            doubled = Counter(labels.values())[labels[variant]] > 1
            added = [variant] * doubled + [place.name] * (place.name != table)
            return labels[variant] + (f" ({', '.join(added)})" if added else "")
    return variant


def title(table: Table) -> str:
    """The heading of a table."""
    return f"Table {table.name}. {table.caption}"


def table_columns(report: Report, table: Table, beside: bool = True, costs: bool = True) -> list[Column]:
    """The columns of one table, without those of which the study says nothing in this table.

    `beside`: with what is shown beside the metric, such as top-5.
    """
    runs, lines = report.runs, report.lines[table.name]
    metric = runs.study.metric
    scores = metric.shown if beside else (metric,)
    columns = [Column("", [row.label for row in table.rows], "", words=True)]
    for shown in scores:
        cells = [_score(line, shown) if line["n"] or shown is metric else "" for line in lines]
        columns.append(Column(shown.name, cells))
    over = "n"  # what a mean is over
    if runs.recipe.folds > 1:
        over = "splits" if len(runs.seeds) <= runs.recipe.folds else "splits x seeds"
    columns.append(Column(over, [_seeds(line, len(runs.seeds)) for line in lines]))
    columns.append(Column("gain", [_gain(report, line) for line in lines]))
    columns.append(Column("gain", [number(line["reported_gain"], gain_form(metric)) for line in lines], REPORTED))
    also = runs.study.also_reported if beside else {}
    for name, key in (*((shown.name, shown.key) for shown in scores), *((name, key) for key, name in also.items())):
        cells = [number(line[f"reported_{key}"], f".{metric.decimals}f") for line in lines]
        columns.append(Column(name, cells, REPORTED))
    for name, key in (("params", "params_ratio"), ("FLOPs", "flops_ratio")):
        reported = [number(line[f"reported_{key}"], ".1f", "x") for line in lines]
        if costs and any(reported):
            measured = [number(line[key], ".2f", "x") for line in lines]
            columns += [Column(name, measured), Column(name, reported, REPORTED)]
    has_baselines = any(row.baseline for row in table.rows)
    said = [column for column in columns if column.group != REPORTED or any(column.cells)]
    return [column for column in said if has_baselines or column.title != "gain"]


def _score(line: dict[str, Any], metric: Metric) -> str:
    if line["n"]:
        spread = number(line[f"{metric.key}_std"], form := f".{metric.decimals}f")
        return number(line[metric.key], form) + (f" ± {spread}" if spread else "")
    return NOT_RUN if line["state"] == REPORTED_ONLY else str(line["state"])  # missing, stale, diverged or unreadable


def _gain(report: Report, line: dict[str, Any]) -> str:
    if line["baseline"] is None or not line["n"]:
        return ""
    if not line["gain_n"]:
        return f"baseline {report.broken.get(line['baseline'], MISSING)}"
    metric = report.runs.study.metric
    mark = "" if line["gain_paired"] or line["gain_low"] is None else UNPAIRED
    bounds = interval(line["gain_low"], line["gain_high"], metric.decimals)
    return f"{number(line['gain'], gain_form(metric))} {bounds}{mark}"


def _seeds(line: dict[str, Any], expected: int) -> str:
    if line["state"] == REPORTED_ONLY:
        return ""
    return f"{line['n']}" if line["n"] == expected else f"{line['n']} of {expected}"


def legend(report: Report) -> str:
    """What the numbers are, and what their intervals are over."""
    metric, folds, rows = report.runs.study.metric, report.runs.recipe.folds, report.rows
    splits = {seed % folds + 1 for seed in report.runs.seeds}
    which = "the" if len(splits) == folds else f"{', '.join(map(str, sorted(splits)))} of the"
    over = (
        "n seeds" if folds == 1 else f"{which} {folds} official splits of the data, each trained with a seed of its own"
    )
    one = "seed" if folds == 1 else "split"
    how = f"paired by {metric.item}" if len(splits) == 1 else "over splits"
    lone = rows["gain_paired"].eq(False).fillna(False)
    if metric.own and lone.any():
        how = SEEDS if lone.sum() == rows["gain_paired"].count() else f"{how}, or, marked {UNPAIRED}, {SEEDS}"
    gains = f"Gains are points of {metric.name}{', what it is lower by,' if metric.sign < 0 else ''}"
    said = [
        f"{metric.meaning}: means over {over}, ± their sample standard deviation. {gains} "
        f"over the row's own baseline, from the {one}s that both have, with 95 % intervals, {how}."
    ]
    if (rows["gain_n"] == 1).any():
        said.append(f"With one {one} an interval is over {metric.item}s only: another training may differ by more.")
    if metric.own:
        if lone.any():
            said.append(f"Where it is {SEEDS}, the records have no outcome of each test item whose mean is the metric.")
    elif (lone & rows["gain_low"].notna()).any():
        said.append(f"{UNPAIRED} from accuracies alone, since the records don't say which videos were right: too wide.")
    if not metric.own and (lone & rows["gain_low"].isna()).any():
        said.append(f"{NO_INTERVAL[1:-1].capitalize()} where the records don't say what each video contributes.")
    if (~lone & rows["gain"].notna() & rows["gain_low"].isna()).any():
        said.append(f"{NO_INTERVAL[1:-1].capitalize()} where all differences are equal: their noise isn't known.")
    if not rows["variant"].notna().all():
        said.append(f"{NOT_RUN} stands where a number is only reported, and nothing is run.")
    return " ".join(said)


def heading(report: Report) -> str:
    """Under which recipe the numbers came about, and what may be compared with the reported ones."""
    study, recipe = report.runs.study, report.runs.recipe.name
    if study.reported_on is None:
        unsaid = any(row.reported for table in study.tables.values() for row in table.rows)
        return f"Recipe {recipe}." + f" {UNSAID}" * unsaid
    if study.comparable(recipe):
        return f"Recipe {recipe}, on {study.reported_on}, the data of the reported numbers."
    gains = any(row.baseline for table in study.tables.values() for row in table.rows)
    compare = "compare only the gains, not the accuracies" if gains else "the scores do not compare"
    return (
        f"The reported columns are the paper's, on {study.reported_on}. This is recipe {recipe}, on other data: "
        f"{compare}."
    )


def remarks(report: Report, table: Table) -> list[str]:
    """What is to be said about rows: baselines from outside the table, which seeds are missing and why."""
    study, one = report.runs.study, "seed" if report.runs.recipe.folds == 1 else "split"
    outside = [
        f"{row.label} over {called(study, row.baseline, table.name)}"
        for row in table.rows
        if row.baseline and row.baseline not in table.variants
    ]
    found = [f"Gains are over runs outside this table: {'; '.join(outside)}"] if outside else []
    has_costs = study.costs and any("flops_ratio" in row.reported for row in table.rows)
    if has_costs and not study.comparable(report.runs.recipe.name):
        found.append("Measured costs are those of this recipe's small networks; verdicts take those of the paper's own")
    for row, line in zip(table.rows, report.lines[table.name], strict=True):
        said = [note(line)] if line["holes"] else []
        if row.baseline and 0 < line["gain_n"] < line["n"]:
            those = "the one" if line["gain_n"] == 1 else "those"
            than = called(study, row.baseline, table.name)
            said.append(f"gain from {line['gain_n']} of its {line['n']} {one}s, {those} that {than} has too")
        if row.baseline and line["gain_n"] and line["gain_dropped"]:
            said.append(f"gain without {counted(line['gain_dropped'], 'video')} that one of the two couldn't read")
        if (soft := line["soft_gain"]) is not None:
            said.append(f"by {soft_score(report.runs)} the gain is {points_of(soft)}")
        found += [f"{row.label}: {what}" for what in said if what]
    shown = [*table.variants, *(row.baseline for row in table.rows if row.baseline)]
    records = report.runs.records(shown)
    return [*found, *filter(None, (mixed_code(records), mixed_source(records))), *unknown_groups(report)]


def unknown_groups(report: Report) -> list[str]:
    """Which names of groups look like slips: records have groups, and none has these.

    A study may name groups of several data sets. So a name under both keys is meant, and so are names under `learned`
    beside known ones, unless they come near a group that isn't named.
    """
    study, groups = report.runs.study, {str(name) for name in report.groups}
    if not groups:
        return []
    judged = dict.fromkeys((study.judged_on, *(part.judged_on for claim in study.claims for part in claim.parts)))
    slips = [("judged_on", name) for name in judged if name and name not in groups | study.learned.keys()]
    odd = [name for name in study.learned if name not in groups]
    near = [name for name in odd if nearest(name, groups - study.learned.keys(), otherwise_all=False)]
    slips += [("learned", name) for name in near or (odd[:1] if len(odd) == len(study.learned) else ())]
    return [f"{key}: no record has a group '{name}'{nearest(name, sorted(groups))}" for key, name in slips]


def note(line: dict[str, Any]) -> str:
    """Why seeds don't count, where anything is known; when and in which process doesn't belong in a table."""
    seeds: dict[str, list[str]] = {}
    for seed, name, why in line["holes"]:
        if name in ("running", "queued", "interrupted", "preempted"):
            seeds.setdefault(name, []).append(str(seed))
        elif name == "stale":
            seeds.setdefault("stale: made with another configuration", []).append(str(seed))
        elif why:
            seeds.setdefault(f"{name}: {visible_line(why)[:300]}", []).append(str(seed))
    return "; ".join(f"seed{'s' if len(which) > 1 else ''} {', '.join(which)} {what}" for what, which in seeds.items())


def group_columns(report: Report) -> list[Column]:
    """Top-1 by group of videos, one row a variant; no columns if no record has groups."""
    groups = report.groups
    if groups.empty:
        return []
    labels = Column("", list(groups.index), "", words=True)
    return [labels, *(Column(str(name), ["" if x != x else number(x, ".1f") for x in groups[name]]) for name in groups)]


def learned_columns(report: Report) -> list[Column]:
    """How often each variant learned a group, and how good it is when it has; no columns if nothing says so."""
    found = report.learned
    columns = [Column("", list(found), "", words=True)]
    for name in report.runs.study.learned:
        each = [of.get(name) for of in found.values()]
        if any(each):
            columns.append(Column(name, [_times(one) if one else "" for one in each]))
            columns.append(Column(f"{name}, learned", [number(one.mean, ".1f") if one else "" for one in each]))
    return columns if len(columns) > 1 else []


def _times(one: Times) -> str:
    low, high = clopper_pearson(one.times, one.seeds)
    return f"{one.times} of {one.seeds} [{low:.0f}, {high:.0f}]"


def learned_legend(report: Report) -> str:
    """When a group counts as learned."""
    ways = dict.fromkeys(report.runs.study.learned.values())
    bounds = "; ".join(f"{one.threshold:g} %, half-way from {one.floor:g} to {one.ceiling:g}" for one in ways)
    score = "soft score" if report.runs.soft else "score"
    return (
        f"How many trainings learned a group, with the exact 95 % interval of how often one would, in percent; and the "
        f"mean {score} of those that did. A group counts as learned where its {score} is beyond {bounds}, as the study "
        "says. Groups of which the study doesn't say when they are learned are left out."
    )


def agreement(report: Report) -> str:
    """How measured and reported gains agree as a whole; empty if too few are known."""
    rows, key = report.rows, report.runs.study.metric.key
    both = rows[rows["gain"].notna() & rows["reported_gain"].notna()].drop_duplicates(["variant", "baseline"])
    if len(both) < 5:
        return ""
    metric = report.runs.study.metric
    found, around = rank_correlation(both["gain"].to_numpy(), both["reported_gain"].to_numpy())
    correlation = (
        f"Over {len(both)} rows, measured and reported gains have a rank correlation of {found:.2f} "
        f"[{around.low:.2f}, {around.high:.2f}]."
    )
    if not metric.bounded or metric.sign < 0:  # nothing says how much there was to gain
        return correlation
    ways = (("gain", key), ("reported_gain", f"reported_{key}"))
    left = pd.DataFrame({gain: 100 - (both[score] - both[gain]) for gain, score in ways})
    left = left[(left > 1e-9).all(axis=1)]  # of nothing there are no shares
    if left.empty:
        return correlation
    shares = (100 * both[left.columns] / left).median()
    of_some = f" These are the medians of {counted(len(left), 'row')}: other baselines left nothing to gain."
    return (
        f"{correlation} The median gain is {shares['gain']:.0f} % of what the baseline left to gain (100 minus its "
        f"score); of the reported ones, {shares['reported_gain']:.0f} %.{of_some * (len(left) < len(both))}"
    )
