"""The words of a report, chosen from its numbers: cells of tables, sentences, names. All of it is plain text.

Nothing here is escaped: that is for the formats (:mod:`~nl_lightning.report.render`, :mod:`~nl_lightning.report.html`).
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nl_lightning.report.claims import ASSUMED_DISAGREEMENT, Comparison, Report, Verdict
from nl_lightning.report.collate import DIVERGED, REPORTED_ONLY, UNREADABLE, Runs, one_line
from nl_lightning.report.uncertainty import LEVEL, Difference
from nl_lightning.study.study import Check, Study, Table

# Words in the place of numbers; set in italics, so that a hole in a table isn't overlooked.
MISSING = "missing"
HOLES = (MISSING, "stale", *(f"{of}{state}" for of in ("", "baseline ") for state in (MISSING, DIVERGED, UNREADABLE)))
NOT_RUN = "-"  # in rows that are only reported

GAIN = "+z.1f"  # points, signed; z: never -0.0
UNPAIRED = "†"  # beside an interval that had to do with accuracies alone
NO_INTERVAL = "(no interval)"
VERBS = {"holds": ("holds", "hold"), "fails": ("fails", "fail"), "undecided": ("stays undecided", "stay undecided")}
MEASURED, REPORTED = "measured", "reported"


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
    """A number as text; empty if it isn't known."""
    return "" if value is None else f"{value:{form}}{unit}"


def counted(n: int, what: str) -> str:
    """``1 video``, ``2 videos``."""
    return f"{n} {what}" if n == 1 else f"{n} {what}s"


def interval(low: float | None, high: float | None) -> str:
    """An interval as text."""
    return NO_INTERVAL if low is None or high is None else f"[{low:z.1f}, {high:z.1f}]"


def interval_of(difference: Difference) -> str:
    """The interval of a difference as text."""
    return interval(*difference.interval()) if difference.bounded else NO_INTERVAL


def p_value(p: float) -> str:
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def called(study: Study, variant: str, table: str | None = None) -> str:
    """A variant by its label in `table`, or in the first other table that has it, which is then named.

    The variant's own name is added where two rows of that table have the same label, and stands alone where no table
    has it.
    """
    for place in sorted(study.tables.values(), key=lambda one: one.name != table):
        labels = {row.variant: one_line(row.label) for row in place.rows if row.variant}
        if variant in labels:
            doubled = Counter(labels.values())[labels[variant]] > 1
            added = [variant] * doubled + [place.name] * (place.name != table)
            return labels[variant] + (f" ({', '.join(added)})" if added else "")
    return variant


# ------------------------------------------------------------------------------------------------------- tables


def title(table: Table) -> str:
    return f"Table {table.name}. {table.caption}"


def table_columns(report: Report, table: Table, beside: bool = True, costs: bool = True) -> list[Column]:
    """The columns of one table.

    Those of which the study says nothing in this table (gains, reported numbers, costs) are left out, and so are costs
    and what is shown beside the metric, such as top-5, if they aren't wanted.
    """
    runs, lines = report.runs, report.lines[table.name]
    metric = runs.study.metric
    scores = metric.shown if beside else (metric,)
    columns = [Column("", [row.label for row in table.rows], "", words=True)]
    for shown in scores:
        cells = [_score(line, shown.key) if line["n"] or shown is metric else "" for line in lines]
        columns.append(Column(shown.name, cells))
    over = "n"  # what a mean is over
    if runs.recipe.folds > 1:
        over = "splits" if len(runs.seeds) <= runs.recipe.folds else "splits x seeds"
    columns.append(Column(over, [_seeds(line, len(runs.seeds)) for line in lines]))
    columns.append(Column("gain", [_gain(report, line) for line in lines]))
    columns.append(Column("gain", [number(line["reported_gain"], GAIN) for line in lines], REPORTED))
    for shown in scores:
        columns.append(Column(shown.name, [number(line[f"reported_{shown.key}"], ".1f") for line in lines], REPORTED))
    for name, key in (("params", "params_ratio"), ("FLOPs", "flops_ratio")):
        reported = [number(line[f"reported_{key}"], ".1f", "x") for line in lines]
        if costs and any(reported):
            measured = [number(line[key], ".2f", "x") for line in lines]
            columns += [Column(name, measured), Column(name, reported, REPORTED)]
    has_baselines = any(row.baseline for row in table.rows)
    said = [column for column in columns if column.group != REPORTED or any(column.cells)]
    return [column for column in said if has_baselines or column.title != "gain"]


def _score(line: dict[str, Any], key: str) -> str:
    if line["n"]:
        spread = number(line[f"{key}_std"], ".1f")
        return number(line[key], ".1f") + (f" ± {spread}" if spread else "")
    return NOT_RUN if line["state"] == REPORTED_ONLY else str(line["state"])  # missing, stale, diverged or unreadable


def _gain(report: Report, line: dict[str, Any]) -> str:
    if line["baseline"] is None or not line["n"]:
        return ""
    if not line["gain_n"]:
        return f"baseline {report.broken.get(line['baseline'], MISSING)}"
    mark = "" if line["gain_paired"] or line["gain_low"] is None else UNPAIRED
    return f"{line['gain']:{GAIN}} {interval(line['gain_low'], line['gain_high'])}{mark}"


def _seeds(line: dict[str, Any], expected: int) -> str:
    if line["state"] == REPORTED_ONLY:
        return ""
    return f"{line['n']}" if line["n"] == expected else f"{line['n']} of {expected}"


def legend(report: Report) -> str:
    """What the numbers are, and what their intervals are over."""
    metric, folds, rows = report.runs.study.metric, report.runs.recipe.folds, report.rows
    over = "n seeds" if folds == 1 else f"the {folds} official splits of the data, each trained with a seed of its own"
    one = "seed" if folds == 1 else "split"
    how = "paired by video" if folds == 1 else "over splits"
    said = [
        f"{metric.meaning}: means over {over}, ± their sample standard deviation. Gains are points of {metric.name} "
        f"over the row's own baseline, from the {one}s that both have, with 95 % intervals, {how}."
    ]
    lone = rows["gain_paired"] == False  # noqa: E712
    if (rows["gain_n"] == 1).any():
        said.append(f"With one {one} an interval is over videos only: another training may differ by more.")
    if (lone & rows["gain_low"].notna()).any():
        said.append(f"{UNPAIRED} from accuracies alone, since the records don't say which videos were right: too wide.")
    if (lone & rows["gain_low"].isna()).any():
        said.append(f"{NO_INTERVAL[1:-1].capitalize()} where the records don't say what each video contributes.")
    if not rows["variant"].notna().all():
        said.append(f"{NOT_RUN} stands where a number is only reported, and nothing is run.")
    return " ".join(said)


def heading(report: Report) -> str:
    """Under which recipe the numbers came about, and what may be compared with the reported ones."""
    study, recipe = report.runs.study, report.runs.recipe.name
    if study.reported_on is None:
        return f"Recipe {recipe}."
    if study.comparable(recipe):
        return f"Recipe {recipe}, on {study.reported_on}, the data of the reported numbers."
    return (
        f"The reported columns are the paper's, on {study.reported_on}. This is recipe {recipe}, on other "
        "data: compare only the gains, not the accuracies."
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
    for row, line in zip(table.rows, report.lines[table.name], strict=True):
        said = [note(line)] if line["holes"] else []
        if row.baseline and 0 < line["gain_n"] < line["n"]:
            those = "the one" if line["gain_n"] == 1 else "those"
            than = called(study, row.baseline, table.name)
            said.append(f"gain from {line['gain_n']} of its {line['n']} {one}s, {those} that {than} has too")
        if row.baseline and line["gain_n"] and line["gain_dropped"]:
            said.append(f"gain without {counted(line['gain_dropped'], 'video')} that one of the two couldn't read")
        found += [f"{row.label}: {what}" for what in said if what]
    return found


def note(line: dict[str, Any]) -> str:
    """Why seeds don't count, where anything is known; when and in which process doesn't belong in a table."""
    seeds: dict[str, list[str]] = {}
    for seed, name, why in line["holes"]:
        what = f"{name}: {one_line(why)[:300]}" if why else ""
        if name in ("running", "queued", "interrupted", "preempted"):
            what = name
        elif name == "stale":
            what = "stale: made with another configuration"
        if what:
            seeds.setdefault(what, []).append(str(seed))
    return "; ".join(f"seed{'s' if len(which) > 1 else ''} {', '.join(which)} {what}" for what, which in seeds.items())


def group_columns(report: Report) -> list[Column]:
    """Top-1 by group of classes, one row a variant; no columns if no record has groups."""
    groups = report.groups
    if groups.empty:
        return []
    labels = Column("", list(groups.index), "", words=True)
    return [labels, *(Column(str(name), ["" if x != x else number(x, ".1f") for x in groups[name]]) for name in groups)]


# ------------------------------------------------------------------------------------------------------- claims


def verdict_columns(report: Report) -> list[Column]:
    """A line a claim: the verdict, its p-value among the claims of its sub-table, and why."""
    rows = [
        [v.claim.name, v.word, reason(v, report.runs.study, report.broken), p_value(v.p), p_value(v.corrected)]
        for v in report.verdicts
    ]
    return of_rows(["claim", "verdict", "why", "p", "corrected"], rows, labels=3)


def comparison_columns(report: Report, comparisons: Sequence[Comparison]) -> list[Column]:
    """A line a comparison: what is reported and what was measured, with its interval."""
    header = ["claim", "comparison", "claimed", REPORTED, MEASURED, "n", "McNemar p", "by itself"]
    return of_rows(header, [_comparison(report, comparison) for comparison in comparisons], labels=3)


def _comparison(report: Report, comparison: Comparison) -> list[str]:
    check, difference = comparison.check, comparison.difference
    cost = {"flops": ", FLOPs", "params": ", params", None: ""}[check.cost]
    form = (".2f", "x") if check.cost else (GAIN, "")
    n, exact, measured = "" if check.cost else "0", "", number(comparison.measured, *form)
    if difference is not None:
        n, exact = str(difference.seeds), "" if difference.mcnemar is None else p_value(difference.mcnemar)
        measured += f" {interval_of(difference)}{UNPAIRED if difference.bounded and not difference.paired else ''}"
    hole = next((report.broken[name] for name in comparison.missing if name in report.broken), MISSING)
    names, reported = f"{_names(comparison, report.runs.study)}{cost}", number(comparison.reported, *form)
    return [comparison.claim.name, names, expected(check), reported, measured or hole, n, exact, comparison.word]


def _names(comparison: Comparison, study: Study) -> str:
    first, second = (called(study, name, comparison.claim.table) for name in (comparison.variant, comparison.than))
    return f"{first} {'/' if comparison.check.cost else '-'} {second}"


def expected(check: Check) -> str:
    """Where the difference, in points, or the cost has to lie if what is claimed is right."""
    if check.cost is not None:
        return "below 1x"
    return f"above {check.by:g}" if check.within is None else f"within ±{check.within:g}"


def reason(verdict: Verdict, study: Study, broken: Mapping[str, str] | None = None) -> str:
    """Why a claim has its verdict, in one sentence, with figures. It says which variants are `broken`, and how."""
    comparisons, telling = verdict.comparisons, statement(verdict.telling, study)
    if verdict.word == "fails":
        return f"{telling}."
    if verdict.word == "holds":
        alone = {1: "", 2: "Both comparisons agree; the weaker: "}
        return f"{alone.get(len(comparisons), f'All {len(comparisons)} comparisons agree; the weakest: ')}{telling}."
    unknown = dict.fromkeys(name for c in comparisons for name in c.missing)
    if unknown:
        marks = {name: f" ({broken[name]})" if broken and name in broken else "" for name in unknown}
        names = [called(study, name, verdict.claim.table) + mark for name, mark in marks.items()]
        return f"Nothing is known of {', '.join(names)}."
    if verdict.p <= 1 - LEVEL:
        return f"Clear by itself (p = {verdict.p:.2g}), but not as one of {verdict.family} claims: {telling}."
    if verdict.telling.word == "fails":
        return f"Not clear as the worst of {len(comparisons)} comparisons (p = {verdict.p:.2g}): {telling}."
    open_ = sum(c.word == "undecided" for c in comparisons)
    which = f"{open_} of {len(comparisons)} comparisons {'is' if open_ == 1 else 'are'} open, such as: "
    return f"{which if len(comparisons) > 1 else ''}{telling}."


def statement(comparison: Comparison, study: Study) -> str:
    """A comparison in words and figures, beside what is claimed of it."""
    pair, difference = _names(comparison, study), comparison.difference
    if comparison.check.cost is not None:
        cost = "FLOPs" if comparison.check.cost == "flops" else "parameters"
        return f"{pair} is {number(comparison.share, '.2f', 'x')} in {cost}; claimed: below 1"
    if difference is None:
        return f"{pair}: no seed has both"
    return f"{pair} is {difference.mean:{GAIN}} {interval_of(difference)}; claimed: {expected(comparison.check)}"


def summary(report: Report) -> str:
    """How many claims hold, fail and are open, in two sentences; empty if nothing is known of any."""
    known = [v for v in report.verdicts if v.known]
    if not known:
        return ""
    named = {word: [v.claim.name for v in known if v.word == word] for word in VERBS}
    parts = [(names, VERBS[word][len(names) > 1]) for word, names in named.items() if names]
    only = ""
    if any(v.videos_only for v in known):
        only = " With one seed that is said of these trained networks: the intervals are over videos only."
    if len(known) == 1:
        return f"The one claim that the rows can check {parts[0][1]} ({known[0].claim.name}).{only}"
    counts = ", ".join(f"{len(names)} {verb} ({', '.join(names)})" for names, verb in parts)
    return f"Of {len(known)} claims that the rows can check, {counts}.{only}"


def verdict_legend(report: Report) -> str:
    """By which rules the verdicts came about."""
    said = (
        "A claim holds if each of its comparisons does, and fails if one surely does; otherwise it is undecided. The "
        "p-values of a sub-table's claims are corrected by Holm's method, so that in 95 of 100 sub-tables at least no "
        "verdict is wrong. Variants are alike only if the intervals of their differences lie within the margin."
    )
    return said if all(v.paired for v in report.verdicts) else f"{said} {UNPAIRED} from accuracies alone: too wide."


def reported_columns(report: Report) -> list[Column]:
    """A line a claim: the verdicts on the reported numbers by themselves, beside the one here."""
    header = ["claim", "table", "reported, unpaired", "reported, if paired", "here"]
    each = zip(*report.reported, report.verdicts, strict=True)
    return of_rows(header, [[v.claim.name, v.claim.table or "", one.word, two.word, v.word] for one, two, v in each], 5)


def reported_legend(report: Report) -> str:
    """What the reported numbers could decide, and under which assumptions."""
    ends = (next(c.difference for v in of for c in v.comparisons if c.difference).interval() for of in report.reported)
    first, second = ((high - low) / 2 for low, high in ends)
    return (
        f"The reported numbers judged by the same rules, as one run a row on {report.runs.study.reported_videos:,} "
        f"videos. From the accuracies alone a difference is known to ±{first:.2f} points. With the predictions, paired "
        f"by video, it would be ±{second:.2f} if two networks split on {ASSUMED_DISAGREEMENT:g} % of the videos. "
        "Neither covers the luck of a training: one run doesn't show it. (Reported numbers are rounded to 0.1.)"
    )


# --------------------------------------------------------------------------------------------------- provenance


def provenance(runs: Runs) -> list[tuple[str, str]]:
    """What a reader needs to weigh the numbers: runs, videos, views, decoder, versions, code, device, time."""
    records, folds = runs.records(), runs.recipe.folds
    several = "s" if len(runs.seeds) > 1 else ""
    seeds = f"seed{several}: {', '.join(map(str, runs.seeds))}"
    if folds > 1:
        splits = ", ".join(str(seed % folds + 1) for seed in runs.seeds)
        seeds += f", which {'are' if several else 'is'} the official split{several} {splits}"
    lines = [("recipe", f"{runs.recipe.name}; {seeds}"), ("runs", progress(runs))]
    if not records:
        return lines
    videos = [f"{_several(r.videos_expected for r in records)} expected"]
    counts = [(r.videos_present, r.videos_decodable) for r in records]
    if not any(None in count for count in counts):
        videos.append(_several(f"{present} present, {decodable} decodable" for present, decodable in counts))
    scored = f"{_several(r.videos_scored for r in records)} scored"
    unreadable = list(dict.fromkeys(name for record in records for name in record.unreadable))
    if unreadable:
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        scored += f"; unreadable, counted as wrong: {', '.join(unreadable[:5])}{more}"
    stills = runs.records(runs.study.variants.keys() - set(runs.study.compared))
    hours = [_hours(sum(getattr(r, f"{phase}_seconds") for r in records)) for phase in ("train", "test")]
    before = _hours(sum(r.train_seconds + r.test_seconds for r in stills))
    return [
        *lines,
        ("test videos", ", ".join([*videos, scored])),
        ("views of a video (clips x crops)", _several(f"{r.num_clips} x {r.num_crops}" for r in records)),
        ("decoder", _several(r.decoder for r in records)),
        ("versions", _several(", ".join(map(" ".join, sorted(r.versions.items()))) for r in records)),
        ("code", _several(r.commit[:12] + (" with uncommitted changes" if r.dirty else "") for r in records)),
        ("device", _several(r.device for r in records)),
        (
            "time in all",
            f"{hours[0]} of training, {hours[1]} of testing" + (f", {before} for stills before" if stills else ""),
        ),
    ]


def progress(runs: Runs) -> str:
    """How many runs are done, and where the others stand."""
    counts = Counter(runs.stands(*key) for key in runs.states)
    done = f"{counts.pop('done', 0)} of {len(runs.states)} done"
    return ", ".join([done, *(f"{count} {name}" for name, count in sorted(counts.items()))])


def _several(values: Iterable[object]) -> str:
    """One value as it is; different ones with the number of runs of each."""
    counts = Counter(map(str, values))
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({counted(n, 'run')})" for value, n in counts.items())


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
