"""From numbers to text: tables as Markdown, LaTeX and CSV, the whole study as Markdown, and in the terminal.

All of it is derived from the records and says so; the same records give the same bytes.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from nl_lightning.errors import UserError
from nl_lightning.report.claims import Verdict, compare, judge
from nl_lightning.report.collate import Runs, collate
from nl_lightning.report.tables import (
    HOLES,
    Grid,
    comparison_grid,
    grid,
    groups_grid,
    heading,
    legend,
    progress,
    provenance,
    remarks,
    reported_grid,
    reported_legend,
    summary,
    title,
    verdict_grid,
    verdict_legend,
)
from nl_lightning.study.records import write_atomically
from nl_lightning.study.study import Table

if TYPE_CHECKING:
    from rich.console import Console

README_START = "<!-- results:start -->"
README_END = "<!-- results:end -->"


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
    return f"*{cell}*" if cell in HOLES else cell


def claims_markdown(runs: Runs, verdicts: Sequence[Verdict]) -> str:
    """The claims, the verdicts with their reasons, every comparison, and what the reported numbers could decide."""
    texts = [
        f"- **{claim.name}** {claim.text}" + (f" (Not compared: {claim.note}.)" if claim.note else "")
        for claim in runs.study.claims
    ]
    parts = ["\n".join(texts)]
    if verdicts:
        comparisons = [comparison for verdict in verdicts for comparison in verdict.comparisons]
        parts += [summary(verdicts), markdown_table(verdict_grid(verdicts)), verdict_legend(verdicts)]
        parts += ["### The comparisons behind them", markdown_table(comparison_grid(comparisons))]
    reported = reported_grid(runs.study, verdicts)
    if reported is not None:
        parts += ["### What the reported numbers could decide", reported_legend(runs.study), markdown_table(reported)]
    return "\n\n".join(part for part in parts if part)


def table_markdown(runs: Runs, table: Table, frame: pd.DataFrame, beside: bool = True) -> str:
    """One table, with its remarks below it."""
    parts = [markdown_table(grid(runs, table, frame, beside))]
    notes = remarks(runs, table, frame)
    if notes:
        parts.append("\n".join(f"- {note}" for note in notes))
    return "\n\n".join(parts)


def study_markdown(runs: Runs, frame: pd.DataFrame) -> str:
    """All tables, top-1 by group of classes if there are groups, the claims, and the numbers' provenance."""
    parts = [f"# {runs.study.title}", heading(runs), legend(runs, frame)]
    for table in runs.study.tables.values():
        parts += [f"## {title(table)}", table_markdown(runs, table, frame)]
    groups = groups_grid(runs)
    if groups is not None:
        parts += ["## Top-1 by group of classes", markdown_table(groups)]
    if runs.study.claims:
        parts += ["## Claims", claims_markdown(runs, judge(runs.study, compare(runs)))]
    parts += ["## Where the numbers come from", "\n".join(f"- {line}" for line in provenance(runs))]
    return "\n\n".join(parts) + "\n"


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
    notes = [_latex(note) for note in (*remarks(runs, table, frame), legend(runs, frame))]
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
            rf"\textbf{{{_latex(title(table))}}}\par\medskip {_latex(heading(runs))}\par\medskip",
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
    "_": r"\_", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "±": r"$\pm$",
    "†": r"$\dagger$", "`": "",
}  # fmt: skip


def _latex(text: str) -> str:
    if text in HOLES:
        return rf"\emph{{{text}}}"
    escaped = "".join(_LATEX.get(character, character) for character in text)
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", escaped)


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
        markdown = [f"# {title(table)}", heading(runs), table_markdown(runs, table, frame), legend(runs, frame)]
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
    """The results for a README: tables of the metric alone, groups of classes, how many claims hold, provenance."""
    frame = collate(runs)
    parts = [heading(runs), legend(runs, frame)]
    for table in runs.study.tables.values():
        parts += [f"### {title(table)}", table_markdown(runs, table, frame, beside=False)]
    groups = groups_grid(runs)
    if groups is not None:
        parts += ["### Top-1 by group of classes", markdown_table(groups)]
    said = summary(judge(runs.study, compare(runs)))
    if said:
        parts.append(said)
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


def print_grid(console: "Console", cells: Grid, name: str = "") -> None:
    """Print cells in columns, each header on as many lines as it has words."""
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=Text(name) if name else None, title_justify="left", box=None)
    for i, header in enumerate(cells.header):
        shown.add_column(header.replace(" ", "\n"), justify="left" if i < cells.labels else "right", no_wrap=True)
    for row in cells.rows:
        shown.add_row(*(Text(cell, "yellow" if cell in HOLES else "") for cell in row))
    console.print(shown)


def print_study(console: "Console", runs: Runs, tables: Sequence[str] | None = None) -> None:
    """Print tables (default: all) of the metric alone, for 80 columns; :func:`write_tables` has it all."""
    from rich.text import Text

    frame = collate(runs)
    console.print(Text(heading(runs).replace("`", "")))
    for name in tables if tables is not None else runs.study.tables:
        table = runs.study.table(name)
        cells = grid(runs, table, frame, beside=False, costs=False)
        console.print()
        print_grid(console, cells, title(table))
        for remark in remarks(runs, table, frame):
            console.print(Text(f"  {remark.replace('`', '')}", "dim"))
    console.print()
    said = summary(judge(runs.study, compare(runs)))
    if said:
        console.print(Text(said))
    console.print(Text(f"runs: {progress(runs)}"))
    if not runs.records():
        console.print(Text(f"nothing is measured yet: no record of recipe {runs.recipe.name} counts", "yellow"))
