"""What tables say, as text in cells: the same for Markdown, LaTeX, HTML and the terminal."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from nl_lightning.report.claims import ASSUMED_DISAGREEMENT, Comparison, Verdict, compare_reported, expected, judge
from nl_lightning.report.collate import REPORTED_ONLY, Runs
from nl_lightning.report.uncertainty import NO_INTERVAL, ends
from nl_lightning.study.records import RunRecord
from nl_lightning.study.study import Row, Study, Table

# Words in the place of numbers; set in italics, so that a hole in a table isn't overlooked.
MISSING, STALE, NO_BASELINE = "missing", "stale", "baseline missing"
HOLES = (MISSING, STALE, NO_BASELINE)
NOT_RUN = "-"  # in rows that are only reported

GAIN = "+z.1f"  # points, signed; z: never -0.0
UNPAIRED = "†"  # beside an interval that had to do with accuracies alone


@dataclass(frozen=True)
class Grid:
    """A table as plain text: a header, and as many cells in each row; `labels` columns of words come first."""

    header: list[str]
    rows: list[list[str]]
    labels: int = 1


def grid(runs: Runs, table: Table, frame: pd.DataFrame, beside: bool = True, costs: bool = True) -> Grid:
    """The cells of one table; `frame` is :func:`~nl_lightning.report.collate.collate`'s.

    Columns of which the study says nothing in this table (gains, reported numbers, costs) are left out, and
    so are costs and what is shown beside the metric, such as top-5, if they aren't wanted.
    """
    lines, metric = lines_of(table, frame), runs.study.metric
    scores = metric.shown if beside else (metric,)
    columns: dict[str, list[str]] = {"": [row.label for row in table.rows]}
    for shown in scores:
        columns[shown.name] = [_score(line, shown.key) if line["n"] or shown is metric else "" for line in lines]
    columns |= {
        _count(runs): [
            _seeds(line["n"], len(runs.seeds)) if row.variant else ""
            for row, line in zip(table.rows, lines, strict=True)
        ],
        "gain": [_gain(row, line) for row, line in zip(table.rows, lines, strict=True)],
        "reported gain": [number(line["reported_gain"], GAIN) for line in lines],
    }
    for shown in scores:
        columns[f"reported {shown.name}"] = [number(line[f"reported_{shown.key}"], ".1f") for line in lines]
    for name, key in (("params", "params_ratio"), ("FLOPs", "flops_ratio")):
        reported = [number(line[f"reported_{key}"], ".1f", "x") for line in lines]
        if costs and any(reported):
            columns |= {
                name: [number(line[key], ".2f", "x") for line in lines],
                f"reported {name}": reported,
            }
    has_baselines = any(row.baseline for row in table.rows)
    kept = {
        name: cells
        for name, cells in columns.items()
        if (any(cells) or not name.startswith("reported")) and (has_baselines or name != "gain")
    }
    return Grid(list(kept), [list(cells) for cells in zip(*kept.values(), strict=True)])


def lines_of(table: Table, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines of `frame` that belong to a table: one for each of its rows, in order."""
    records = frame[frame["table"] == table.name].to_dict("records")
    return [{str(key): value for key, value in record.items()} for record in records]


def number(value: float, form: str, unit: str = "") -> str:
    return "" if value != value else f"{value:{form}}{unit}"  # NaN: not known


def _spread(mean: float, std: float, form: str) -> str:
    return number(mean, form) + (f" ± {number(std, '.1f')}" if std == std else "")


def _score(line: dict[str, Any], key: str) -> str:
    if line["n"]:
        return _spread(line[key], line[f"{key}_std"], ".1f")
    return NOT_RUN if line["state"] == REPORTED_ONLY else str(line["state"])  # missing or stale


def _gain(row: Row, line: dict[str, Any]) -> str:
    if row.baseline is None or not line["n"]:
        return ""
    if not line["gain_n"]:
        return NO_BASELINE
    return f"{line['gain']:{GAIN}} {_ends(line['gain_low'], line['gain_high'], line['gain_paired'])}"


def _ends(low: float, high: float, paired: bool) -> str:
    return f"{ends(low, high)}{'' if paired or low != low else UNPAIRED}"


def _seeds(n: int, expected: int) -> str:
    return f"{n}" if n == expected else f"{n} of {expected}"


def _count(runs: Runs) -> str:
    """What a mean is over."""
    if runs.recipe.folds == 1:
        return "n"
    return "splits" if len(runs.seeds) <= runs.recipe.folds else "splits x seeds"


def legend(runs: Runs, frame: pd.DataFrame) -> str:
    """What the numbers are, and what their intervals are over."""
    metric, folds = runs.study.metric, runs.recipe.folds
    over = "n seeds" if folds == 1 else f"the {folds} official splits of the data, each trained with a seed of its own"
    both, one = ("seeds", "seed") if folds == 1 else ("splits", "split")
    how = "paired by video" if folds == 1 else "over splits"
    said = [
        f"{metric.meaning}: means over {over}, ± their sample standard deviation. Gains are points of {metric.name} "
        f"over the row's own baseline, from the {both} that both have, with 95 % intervals, {how}."
    ]
    lone = frame["gain_paired"] == False  # noqa: E712
    if (frame["gain_n"] == 1).any():
        said.append(f"With one {one} an interval is over videos only: another training may differ by more.")
    if (lone & frame["gain_low"].notna()).any():
        said.append(f"{UNPAIRED} from accuracies alone, since the records don't say which videos were right: too wide.")
    if (lone & frame["gain_low"].isna()).any():
        said.append(f"{NO_INTERVAL[1:-1].capitalize()} where the records don't say what each video contributes.")
    if not frame["variant"].notna().all():
        said.append(f"{NOT_RUN} stands where a number is only reported, and nothing is run.")
    return " ".join(said)


def heading(runs: Runs) -> str:
    """Under which recipe the numbers came about, and what may be compared with the reported ones."""
    study, recipe = runs.study, runs.recipe.name
    if study.reported_on is None:
        return f"Recipe `{recipe}`."
    if study.comparable(recipe):
        return f"Recipe `{recipe}`, on {study.reported_on}, the data of the reported numbers."
    return (
        f"The reported columns are the paper's, on {study.reported_on}. This is recipe `{recipe}`, on other "
        "data: compare only the gains, not the accuracies."
    )


def remarks(runs: Runs, table: Table, frame: pd.DataFrame) -> list[str]:
    """What is to be said about rows: baselines from outside the table, which seeds are missing and why."""
    here = set(table.variants)
    outside = [f"{row.label} over `{row.baseline}`" for row in table.rows if row.baseline and row.baseline not in here]
    found = [f"Gains are over runs outside this table: {'; '.join(outside)}"] if outside else []
    for row, line in zip(table.rows, lines_of(table, frame), strict=True):
        if line["note"]:
            found.append(f"{row.label}: {line['note']}")
        if row.baseline and 0 < line["gain_n"] < line["n"]:
            seeds = f"{line['gain_n']} of its {line['n']} {'seeds' if runs.recipe.folds == 1 else 'splits'}"
            found.append(f"{row.label}: gain from the {seeds} that `{row.baseline}` has too")
        if row.baseline and line["gain_n"] and line["gain_dropped"]:
            found.append(f"{row.label}: gain without {line['gain_dropped']} videos that one of the two couldn't read")
    return found


def title(table: Table) -> str:
    return f"Table {table.name}. {table.caption}"


def groups_grid(runs: Runs) -> Grid | None:
    """Top-1 by group of classes, one row a variant, mean over seeds; None if no record has groups."""
    names = list(dict.fromkeys(name for record in runs.records() for name in record.top1_by_group))
    if not names:
        return None
    rows = []
    for variant in runs.study.variants:
        by_seed = pd.DataFrame([record.top1_by_group for record in runs.records([variant])], columns=names)
        if by_seed.notna().any(axis=None):
            rows.append([variant, *(number(float(by_seed[name].mean()), ".1f") for name in names)])
    return Grid(["", *names], rows)


# ------------------------------------------------------------------------------------------------------- claims


def verdict_grid(verdicts: Sequence[Verdict]) -> Grid:
    """A line a claim: the verdict, its p-value among the claims of its sub-table, and why."""
    header = ["claim", "verdict", "why", "p", "corrected"]
    rows = [[v.claim.name, v.word, v.reason, p_value(v.p), p_value(v.corrected)] for v in verdicts]
    return Grid(header, rows, labels=3)


def comparison_grid(comparisons: Sequence[Comparison]) -> Grid:
    """A line a comparison: what is reported and what was measured, with its interval."""
    header = ["claim", "comparison", "claimed", "reported", "measured", "n", "McNemar p", "by itself"]
    return Grid(header, [_comparison_row(comparison) for comparison in comparisons], labels=3)


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def _comparison_row(comparison: Comparison) -> list[str]:
    check, difference = comparison.check, comparison.difference
    word = comparison.word
    if check.cost is not None:
        what = f"{comparison.variant} / {comparison.than}, {'FLOPs' if check.cost == 'flops' else 'params'}"
        reported, measured = (_or_empty(x, ".2f", "x") for x in (comparison.reported, comparison.share))
        start = [comparison.claim.name, what, "below 1x", reported]
        return [*start, measured or MISSING, "", "", word]
    what = f"{comparison.variant} - {comparison.than}"
    start = [comparison.claim.name, what, expected(check), _or_empty(comparison.reported, GAIN)]
    if difference is None:
        return [*start, MISSING, "0", "", word]
    mark = UNPAIRED if difference.bounded and not difference.paired else ""
    measured = f"{difference.mean:{GAIN}} {difference.ends}{mark}"
    exact = "" if difference.mcnemar is None else p_value(difference.mcnemar)
    return [*start, measured, str(difference.seeds), exact, word]


def _or_empty(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else number(value, form, unit)


def summary(verdicts: Sequence[Verdict]) -> str:
    """How many claims hold, fail and are open, in two sentences; empty if nothing is known of any."""
    known = [v for v in verdicts if any(c.measured is not None for c in v.comparisons)]
    if not known:
        return ""
    named = {word: [v.claim.name for v in known if v.word == word] for word in ("holds", "fails", "undecided")}
    said = {"holds": "hold", "fails": "fail", "undecided": "stay undecided"}
    parts = [f"{len(names)} {said[word]} ({', '.join(names)})" for word, names in named.items() if names]
    only = ""
    if any(v.videos_only for v in known):
        only = " With one seed that is said of these trained networks: the intervals are over videos only."
    return f"Of {len(known)} claims that the rows can check, {', '.join(parts)}.{only}"


def verdict_legend(verdicts: Sequence[Verdict]) -> str:
    """By which rules the verdicts came about."""
    said = (
        "A claim holds if each of its comparisons does, and fails if one surely does; otherwise it is undecided. The "
        "p-values of a sub-table's claims are corrected by Holm's method, so that in 95 of 100 sub-tables at least no "
        "verdict is wrong. Variants are alike only if the intervals of their differences lie within the margin."
    )
    unpaired = "" if all(v.paired for v in verdicts) else f" {UNPAIRED} from accuracies alone: too wide."
    return f"{said}{unpaired}"


def reported_grid(study: Study, verdicts: Sequence[Verdict]) -> Grid | None:
    """A line a claim: the verdict on the reported numbers by themselves, beside the one here; None without any."""
    comparisons = compare_reported(study)
    if not any(comparison.difference for comparison in comparisons):
        return None
    here = {verdict.claim.name: verdict.word for verdict in verdicts}
    unpaired = judge(study, comparisons)
    paired = judge(study, compare_reported(study, ASSUMED_DISAGREEMENT))
    rows = [
        [one.claim.name, one.claim.table or "", one.word, two.word, here.get(one.claim.name, "")]
        for one, two in zip(unpaired, paired, strict=True)
    ]
    header = ["claim", "table", "reported, unpaired", "reported, if paired", "here"]
    return Grid(header, rows, labels=5)


def reported_legend(study: Study) -> str:
    """What the reported numbers could decide, and under which assumptions."""
    unpaired, paired = (
        [c.difference for c in compare_reported(study, disagreement) if c.difference]
        for disagreement in (None, ASSUMED_DISAGREEMENT)
    )
    first, second = ((d.interval().high - d.interval().low) / 2 for d in (unpaired[0], paired[0]))
    return (
        f"The reported numbers judged by the same rules, as one run a row on {study.reported_videos:,} videos. From "
        f"the accuracies alone a difference is known to ±{first:.2f} points. With the predictions, paired by video, it "
        f"would be ±{second:.2f} if two networks split on {ASSUMED_DISAGREEMENT:g} % of the videos. Neither covers "
        "the luck of a training: one run doesn't show it. (Reported numbers are rounded to 0.1.)"
    )


# --------------------------------------------------------------------------------------------------- provenance


def provenance(runs: Runs) -> list[str]:
    """What a reader needs to weigh the numbers: runs, videos, views, decoder, versions, code, device, time."""
    records = runs.records()
    lines = [
        f"recipe: {runs.recipe.name}; seeds: {', '.join(map(str, runs.seeds))}{_splits(runs)}",
        f"runs: {progress(runs)}",
    ]
    if not records:
        return lines
    versions = [", ".join(f"{name} {number}" for name, number in sorted(r.versions.items())) for r in records]
    code = [r.commit[:12] + (" with uncommitted changes" if r.dirty else "") for r in records]
    seconds = (sum(r.train_seconds for r in records), sum(r.test_seconds for r in records))
    unreadable = list(dict.fromkeys(name for record in records for name in record.unreadable))
    lines += [
        f"test videos: {_several(r.videos_expected for r in records)} expected, "
        + _counted(records)
        + f"{_several(r.videos_scored for r in records)} scored"
        + (f"; unreadable, counted as wrong: {_listed(unreadable)}" if unreadable else ""),
        f"views of a video (clips x crops): {_several(f'{r.num_clips} x {r.num_crops}' for r in records)}",
        f"decoder: {_several(r.decoder for r in records)}",
        f"versions: {_several(versions)}",
        f"code: {_several(code)}",
        f"device: {_several(r.device for r in records)}",
        f"time in all: {_hours(seconds[0])} of training, {_hours(seconds[1])} of testing",
    ]
    return lines


def _counted(records: list[RunRecord]) -> str:
    """How many test videos were present and decodable, if all records say so."""
    counts = [(record.videos_present, record.videos_decodable) for record in records]
    if any(None in count for count in counts):
        return ""
    return f"{_several(f'{present} present, {decodable} decodable' for present, decodable in counts)}, "


def _splits(runs: Runs) -> str:
    folds = runs.recipe.folds
    if folds == 1:
        return ""
    return f", which are the official splits {', '.join(str(seed % folds + 1) for seed in runs.seeds)}"


def progress(runs: Runs) -> str:
    counts = Counter(state.name for state in runs.states.values())
    done = f"{counts.pop('done', 0)} of {len(runs.states)} done"
    return ", ".join([done, *(f"{count} {name}" for name, count in sorted(counts.items()))])


def _several(values: Iterable[object]) -> str:
    """One value as it is; different ones with the number of runs of each."""
    counts = Counter(map(str, values))
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({n} run{'s' if n > 1 else ''})" for value, n in counts.items())


def _listed(names: Sequence[str], most: int = 5) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
