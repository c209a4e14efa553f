"""From numbers to text: tables as Markdown, LaTeX and CSV, the whole study as Markdown, and in the terminal.

All of it is derived from the records and says so; the same records give the same bytes.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from nl_lightning.errors import UserError
from nl_lightning.records import write_atomically
from nl_lightning.report.claims import Comparison, compare
from nl_lightning.report.collate import Runs, collate
from nl_lightning.study import Row, Table

if TYPE_CHECKING:
    from rich.console import Console

README_START = "<!-- results:start -->"
README_END = "<!-- results:end -->"

# Words in the place of numbers; set in italics, so that a hole in a table isn't overlooked.
MISSING, STALE, NO_BASELINE = "missing", "stale", "baseline missing"

GAIN = "+z.1f"  # points, signed; z: never -0.0

LEGEND = (
    "Accuracies are percent of the test videos: means over n seeds, ± their sample standard deviation. "
    "Gains are points of top-1 over the row's own baseline, from the seeds that both have."
)
CLAIMS_LEGEND = (
    "Differences (-) are points of top-1, quotients (/) compare costs. Same direction: the measured difference "
    "points where the reported one does; for variants said to be alike, both lie within the margin, or both "
    "beyond it. This is no verdict: a direction can be chance."
)


# --------------------------------------------------------------------------------------------- cells and grids


@dataclass(frozen=True)
class Grid:
    """A table as plain text: a header, and as many cells in each row; `labels` columns of words come first."""

    header: list[str]
    rows: list[list[str]]
    labels: int = 1


def grid(runs: Runs, table: Table, frame: pd.DataFrame, top5: bool = True, costs: bool = True) -> Grid:
    """The cells of one table; `frame` is :func:`~nl_lightning.report.collate.collate`'s.

    Columns of which the study says nothing in this table (gains, reported numbers, costs) are left out, and
    so are top-5 and costs if they aren't wanted.
    """
    lines = _lines(table, frame)
    columns: dict[str, list[str]] = {
        "": [row.label for row in table.rows],
        "top-1": [_accuracy(line, "top1") for line in lines],
        "top-5": [_accuracy(line, "top5") if line["n"] else "" for line in lines],
        "n": [_seeds(line["n"], len(runs.seeds)) for line in lines],
        "gain": [_gain(row, line) for row, line in zip(table.rows, lines, strict=True)],
        "reported gain": [_number(line["reported_gain"], GAIN) for line in lines],
        "reported top-1": [_number(line["reported_top1"], ".1f") for line in lines],
        "reported top-5": [_number(line["reported_top5"], ".1f") for line in lines],
    }
    for name, key in (("params", "params_ratio"), ("FLOPs", "flops_ratio")):
        reported = [_number(line[f"reported_{key}"], ".1f", "x") for line in lines]
        if costs and any(reported):
            columns |= {
                name: [_number(line[key], ".2f", "x") for line in lines],
                f"reported {name}": reported,
            }
    has_baselines = any(row.baseline for row in table.rows)
    kept = {
        name: cells
        for name, cells in columns.items()
        if (any(cells) or not name.startswith("reported"))
        and (has_baselines or name != "gain")
        and (top5 or not name.endswith("top-5"))
    }
    return Grid(list(kept), [list(cells) for cells in zip(*kept.values(), strict=True)])


def _lines(table: Table, frame: pd.DataFrame) -> list[dict[str, Any]]:
    """The lines of `frame` that belong to a table: one for each of its rows, in order."""
    records = frame[frame["table"] == table.name].to_dict("records")
    return [{str(key): value for key, value in record.items()} for record in records]


def _number(value: float, form: str, unit: str = "") -> str:
    return "" if value != value else f"{value:{form}}{unit}"  # NaN: not known


def _spread(mean: float, std: float, form: str) -> str:
    return _number(mean, form) + (f" ± {_number(std, '.1f')}" if std == std else "")


def _accuracy(line: dict[str, Any], key: str) -> str:
    if line["n"]:
        return _spread(line[key], line[f"{key}_std"], ".1f")
    return str(line["state"])  # missing or stale


def _gain(row: Row, line: dict[str, Any]) -> str:
    if row.baseline is None or not line["n"]:
        return ""
    return _spread(line["gain"], line["gain_std"], GAIN) if line["gain_n"] else NO_BASELINE


def _seeds(n: int, expected: int) -> str:
    return f"{n}" if n == expected else f"{n} of {expected}"


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
    here = {row.variant for row in table.rows}
    outside = [f"{row.label} over `{row.baseline}`" for row in table.rows if row.baseline and row.baseline not in here]
    found = [f"Gains are over runs outside this table: {'; '.join(outside)}"] if outside else []
    for row, line in zip(table.rows, _lines(table, frame), strict=True):
        if line["note"]:
            found.append(f"{row.label}: {line['note']}")
        if row.baseline and 0 < line["gain_n"] < line["n"]:
            seeds = f"{line['gain_n']} of its {line['n']} seeds"
            found.append(f"{row.label}: gain from the {seeds} that `{row.baseline}` has too")
    return found


# ---------------------------------------------------------------------------------------------------- Markdown


def markdown_table(cells: Grid) -> str:
    """A Markdown table, padded to be read as it is: words to the left, numbers to the right."""
    rows = [[_markdown(cell) for cell in row] for row in (cells.header, *cells.rows)]
    columns = []
    for i, column in enumerate(zip(*rows, strict=True)):
        width = max(3, *map(len, column))
        rule = "-" * width if i < cells.labels else "-" * (width - 1) + ":"
        pad = str.ljust if i < cells.labels else str.rjust
        columns.append([pad(cell, width) for cell in (column[0], rule, *column[1:])])
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(*columns, strict=True))


def _markdown(cell: str) -> str:
    cell = cell.replace("|", "\\|")
    return f"*{cell}*" if cell in (MISSING, STALE, NO_BASELINE) else cell


def table_markdown(runs: Runs, table: Table, frame: pd.DataFrame, top5: bool = True) -> str:
    """One table, with its remarks below it."""
    parts = [markdown_table(grid(runs, table, frame, top5))]
    notes = remarks(runs, table, frame)
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def _title(table: Table) -> str:
    return f"Table {table.name}. {table.caption}"


def study_markdown(runs: Runs, frame: pd.DataFrame) -> str:
    """All tables, top-1 by group of classes if there are groups, the claims, and the numbers' provenance."""
    parts = [f"# {runs.study.title}", heading(runs), LEGEND]
    for table in runs.study.tables.values():
        parts += [f"## {_title(table)}", table_markdown(runs, table, frame)]
    groups = groups_grid(runs)
    if groups is not None:
        parts += ["## Top-1 by group of classes", markdown_table(groups)]
    if runs.study.claims:
        parts += ["## Claims", claims_markdown(runs, compare(runs))]
    parts += ["## Where the numbers come from", "\n".join(f"- {line}" for line in provenance(runs))]
    return "\n\n".join(parts) + "\n"


def groups_grid(runs: Runs) -> Grid | None:
    """Top-1 by group of classes, one row a variant, mean over seeds; None if no record has groups."""
    names = list(dict.fromkeys(name for record in runs.records() for name in record.top1_by_group))
    if not names:
        return None
    rows = []
    for variant in runs.study.variants:
        by_seed = pd.DataFrame([record.top1_by_group for record in runs.records([variant])], columns=names)
        if by_seed.notna().any(axis=None):
            rows.append([variant, *(_number(float(by_seed[name].mean()), ".1f") for name in names)])
    return Grid(["", *names], rows)


def claims_markdown(runs: Runs, comparisons: Sequence[Comparison]) -> str:
    """The claims, and their comparisons: the reported difference beside the measured one. No verdicts."""
    texts = [
        f"- **{claim.name}** {claim.text}" + (f" (Not compared: {claim.note}.)" if claim.note else "")
        for claim in runs.study.claims
    ]
    header = ["claim", "comparison", "reported", "measured", "n", "same direction"]
    parts = ["\n".join(texts)]
    if comparisons:
        cells = Grid(header, [_comparison_row(comparison) for comparison in comparisons], labels=2)
        parts += [CLAIMS_LEGEND, markdown_table(cells)]
    return "\n\n".join(parts)


def _comparison_row(comparison: Comparison) -> list[str]:
    check = comparison.check
    if check.cost is not None:
        what = f"{comparison.variant} / {comparison.than}, {'FLOPs' if check.cost == 'flops' else 'params'}"
        reported, measured = (_or_empty(x, ".2f", "x") for x in (comparison.reported, comparison.measured))
    else:
        what = f"{comparison.variant} - {comparison.than}"
        if check.within is not None:
            what += f", alike within {check.within:g}"
        if check.by:
            what += f", by {check.by:g} or more"
        reported = _or_empty(comparison.reported, GAIN)
        measured = _or_empty(comparison.measured, GAIN)
        if comparison.std is not None:
            measured += f" ± {comparison.std:.1f}"
    if comparison.measured is None:
        measured = MISSING
    same = {True: "yes", False: "no", None: "-"}[comparison.same_direction]
    n = "" if check.cost is not None else str(comparison.n)
    return [comparison.claim.name, what, reported, measured, n, same]


def _or_empty(value: float | None, form: str, unit: str = "") -> str:
    return "" if value is None else _number(value, form, unit)


def provenance(runs: Runs) -> list[str]:
    """What a reader needs to weigh the numbers: runs, videos, views, decoder, versions, code, device, time."""
    records = runs.records()
    lines = [
        f"recipe: {runs.recipe.name}; seeds: {', '.join(map(str, runs.seeds))}",
        f"runs: {_progress(runs)}",
    ]
    if not records:
        return lines
    versions = [", ".join(f"{name} {number}" for name, number in sorted(r.versions.items())) for r in records]
    code = [r.commit[:12] + (" with uncommitted changes" if r.dirty else "") for r in records]
    seconds = (sum(r.train_seconds for r in records), sum(r.test_seconds for r in records))
    unreadable = list(dict.fromkeys(name for record in records for name in record.unreadable))
    lines += [
        f"test videos: {_several(r.videos_expected for r in records)} expected, "
        f"{_several(r.videos_scored for r in records)} scored"
        + (f"; unreadable, counted as wrong: {_listed(unreadable)}" if unreadable else ""),
        f"views of a video (clips x crops): {_several(f'{r.num_clips} x {r.num_crops}' for r in records)}",
        f"decoder: {_several(r.decoder for r in records)}",
        f"versions: {_several(versions)}",
        f"code: {_several(code)}",
        f"device: {_several(r.device for r in records)}",
        f"time in all: {_hours(seconds[0])} of training, {_hours(seconds[1])} of testing",
    ]
    return lines


def _progress(runs: Runs) -> str:
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


# ------------------------------------------------------------------------------------------------------- LaTeX


def table_latex(runs: Runs, table: Table, frame: pd.DataFrame) -> str:
    """One table with booktabs rules, in a file that compiles as it is and can also be read in by another.

    LaTeX disarms ``\\@nodocument`` at ``\\begin{document}``. So the file can tell whether it is the document,
    and opens one, or is read by ``\\input`` within one, and gives only the tabular. One file serves both, since
    a file that can't be compiled on its own is found to be broken too late.
    """
    cells = grid(runs, table, frame)
    head = [rf"\shortstack[r]{{{_latex(cell).replace(' ', chr(92) * 2, 1)}}}" for cell in cells.header[1:]]
    body = [" & ".join(_latex(cell) for cell in row) + r" \\" for row in cells.rows]
    notes = [_latex(note) for note in (*remarks(runs, table, frame), LEGEND)]
    return "\n".join(
        [
            f"% Table {table.name} of study {runs.study.name}, recipe {runs.recipe.name}. Generated: don't edit.",
            "% It compiles as it is. To have the tabular in a document of yours, \\usepackage{booktabs} and",
            "% \\input this file in its place: the rest is skipped there.",
            r"\def\nlfinish{}",
            r"\expandafter\ifx\csname @nodocument\endcsname\relax\else",
            r"\documentclass[a4paper]{article}",
            r"\usepackage[margin=1.5cm]{geometry}",
            r"\usepackage{booktabs}",
            r"\setlength{\parindent}{0pt}",
            r"\setlength{\tabcolsep}{4pt}",
            r"\begin{document}\footnotesize",
            rf"\textbf{{{_latex(_title(table))}}}\par\medskip {_latex(heading(runs))}\par\medskip",
            r"\def\nlfinish{\par\medskip " + r"\par ".join(notes) + r"\end{document}}",
            r"\fi",
            rf"\begin{{tabular}}{{l{'r' * (len(cells.header) - 1)}}}",
            r"\toprule",
            " & ".join(["", *head]) + r" \\",
            r"\midrule",
            *body,
            r"\bottomrule",
            r"\end{tabular}",
            r"\nlfinish",
            "",
        ]
    )


_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#",
    "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "±": r"$\pm$", "`": "",
}  # fmt: skip


def _latex(text: str) -> str:
    if text in (MISSING, STALE, NO_BASELINE):
        return rf"\emph{{{text}}}"
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return f"$-${escaped[1:]}" if escaped[:1] == "-" and escaped[1:2].isdigit() else escaped


# -------------------------------------------------------------------------------------- files, README, terminal


def write_tables(runs: Runs, results: Path) -> list[Path]:
    """Write the study as Markdown, and each table as Markdown, LaTeX and CSV: ``<results>/tables/<recipe>/``.

    Files whose content is the same are left alone. Returns all of them, the study's own first.
    """
    frame = collate(runs)
    folder = results / "tables" / runs.recipe.name
    files = {folder / f"{runs.study.name}.md": study_markdown(runs, frame)}
    for table in runs.study.tables.values():
        stem = folder / _stem(runs.study.name, table.name)
        markdown = [f"# {_title(table)}", heading(runs), table_markdown(runs, table, frame), LEGEND]
        files[stem.with_suffix(".md")] = "\n\n".join(markdown) + "\n"
        files[stem.with_suffix(".tex")] = table_latex(runs, table, frame)
        lines = frame[frame["table"] == table.name]
        files[stem.with_suffix(".csv")] = lines.round(4).to_csv(index=False, lineterminator="\n")
    for path, text in files.items():
        if not path.is_file() or path.read_text(encoding="utf-8") != text:
            write_atomically(path, text)
    return list(files)


def _stem(study: str, table: str) -> str:
    """``table2a`` for table 2a of table2; else with the study's name, as two studies may have a table a."""
    return f"table{table}" if f"table{table}".startswith(study) else f"{study}_{table}"


def readme_block(runs: Runs) -> str:
    """The results for a README: tables without top-5, groups of classes, how many comparisons agree, provenance."""
    frame = collate(runs)
    parts = [heading(runs), LEGEND]
    for table in runs.study.tables.values():
        parts += [f"### {_title(table)}", table_markdown(runs, table, frame, top5=False)]
    groups = groups_grid(runs)
    if groups is not None:
        parts += ["### Top-1 by group of classes", markdown_table(groups)]
    directions = [comparison.same_direction for comparison in compare(runs)]
    known = [direction for direction in directions if direction is not None]
    if known:
        parts.append(
            f"The claims come to {len(directions)} comparisons. {len(known)} can be made here, and {sum(known)} of "
            "them point in the reported direction; how surely is not said."
        )
    parts.append("\n".join(f"- {line}" for line in provenance(runs)))
    return "\n\n".join(parts)


def update_readme(path: Path, runs: Runs) -> None:
    """Put :func:`readme_block` between the marks in a file. UserError if it hasn't both, once, in order."""
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
    before, start, rest = text.partition(README_START)
    _, end, after = rest.partition(README_END)
    if not (start and end) or text.count(README_START) > 1 or text.count(README_END) > 1:
        raise UserError(f"{path}: expected the lines {README_START} and {README_END}, once each, in this order")
    new = f"{before}{README_START}\n{readme_block(runs)}\n{README_END}{after}"
    if new != text:
        write_atomically(path, new)


def print_study(console: "Console", runs: Runs, tables: Sequence[str] | None = None) -> None:
    """Print tables (default: all) without top-5 and costs, for 80 columns; :func:`write_tables` has it all."""
    from rich.table import Table as RichTable
    from rich.text import Text

    frame = collate(runs)
    console.print(Text(heading(runs).replace("`", "")))
    for name in tables if tables is not None else runs.study.tables:
        table = runs.study.table(name)
        cells = grid(runs, table, frame, top5=False, costs=False)
        shown = RichTable(title=Text(_title(table)), title_justify="left", box=None)
        for i, header in enumerate(cells.header):
            shown.add_column(header.replace(" ", "\n"), justify="left" if i == 0 else "right", no_wrap=True)
        for row in cells.rows:
            shown.add_row(*(Text(cell, "yellow" if cell in (MISSING, STALE, NO_BASELINE) else "") for cell in row))
        console.print()
        console.print(shown)
        for remark in remarks(runs, table, frame):
            console.print(Text(f"  {remark.replace('`', '')}", "dim"))
    console.print()
    console.print(Text(f"runs: {_progress(runs)}"))
