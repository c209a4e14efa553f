"""A report as Markdown, LaTeX, CSV and in the terminal. Formats lay out what :mod:`~nl_lightning.report.words` says.

Each format escapes all of it, since labels, file names and errors come from outside. The same records give the same
bytes.
"""

import itertools
import os
import re
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from nl_lightning.errors import UserError, nearest
from nl_lightning.report import claim_words, words
from nl_lightning.report.claims import Report
from nl_lightning.report.collate import visible_line
from nl_lightning.report.provenance import progress, provenance
from nl_lightning.report.words import HOLES, REPORTED, Column
from nl_lightning.study.files import refuse_foreign, write_atomically, write_output
from nl_lightning.study.study import Table

if TYPE_CHECKING:
    from rich.console import Console

README_START = "<!-- results:start -->"
README_END = "<!-- results:end -->"


# ---------------------------------------------------------------------------------------------------- Markdown


def markdown_table(columns: Sequence[Column]) -> str:
    """A Markdown table, padded to be read as it is: words to the left, numbers to the right."""
    padded = []
    for column in columns:
        name, *cells = (f"*{cell}*" if cell in HOLES else _inline(cell) for cell in (column.title, *column.cells))
        width = max(3, *map(len, (name, *cells)))
        rule = "-" * width if column.words else "-" * (width - 1) + ":"
        pad = str.ljust if column.words else str.rjust
        padded.append([pad(cell, width) for cell in (name, rule, *cells)])
    return "\n".join(f"| {' | '.join(row)} |" for row in zip(*padded, strict=True))


# Punctuation that would be markup where it stands: emphasis, code, tags, entities, links.
_INLINE = re.compile(
    r"[\\`*|~]"
    r"|(?<![^\W_])_|_(?![^\W_])"  # an underscore within a word is one
    r"|<(?=[\w/!?])|&(?=#|\w+;)|(?<=\])[(\[:]|:(?=//)|(?<=www)\."
)
_BLOCK = re.compile(r"^(\d*)([\[#>=+-](?!\d)|[.)](?= |$))")  # what would begin a heading, a list, a quotation


# Python-Markdown, which makes the docs site, knows no backslash before these.
_ENTITIES = {"<": "&lt;", "&": "&amp;", "~": "&#126;", ":": "&#58;", "=": "&#61;"}


def _escaped(found: re.Match[str]) -> str:
    before, mark = found.groups() if found.re is _BLOCK else ("", found[0])
    return before + _ENTITIES.get(mark, f"\\{mark}")


def _inline(text: str) -> str:
    return _INLINE.sub(_escaped, visible_line(text))


def markdown(text: str) -> str:
    """A text in one line such that nothing in it is taken for Markdown or HTML."""
    return _BLOCK.sub(_escaped, _inline(text))


def _joined(*parts: str) -> str:
    """A page of its paragraphs; empty ones are left out."""
    return "\n\n".join(filter(None, parts))


def _bullets(lines: Iterable[str]) -> str:
    return "\n".join(f"- {markdown(line)}" for line in lines)


def claims_markdown(report: Report) -> str:
    """The claims, the verdicts with their reasons, every comparison, and what the reported numbers could decide."""
    verdicts, stated = report.verdicts, []
    for verdict in verdicts:
        stated.append(f"- **{verdict.claim.name}** {markdown(verdict.claim.text)}")
        if len(verdict.parts) > 1:
            stated += [f"  - *{name}*: {markdown(one.part.text)}" for name, one in claim_words.named(verdict)]
    parts = ["\n".join(stated)]
    if verdicts:
        comparisons = [comparison for verdict in verdicts for comparison in verdict.comparisons]
        parts += [markdown(claim_words.summary(report)), markdown_table(claim_words.verdict_columns(report))]
        parts.append(markdown(claim_words.verdict_legend(report)))
        if comparisons:
            columns = claim_words.comparison_columns(report, comparisons)
            parts += ["### The comparisons behind them", markdown_table(columns)]
    if report.reported:
        parts += ["### What the reported numbers could decide", markdown(claim_words.reported_legend(report))]
        parts.append(markdown_table(claim_words.reported_columns(report)))
    return _joined(*parts)


def table_markdown(report: Report, table: Table, beside: bool = True) -> str:
    """One table, with its remarks below it."""
    return _joined(markdown_table(words.table_columns(report, table, beside)), _bullets(words.remarks(report, table)))


def _opening(report: Report) -> list[str]:
    return [markdown(words.heading(report)), markdown(words.legend(report))]


def _tables(report: Report, mark: str, beside: bool) -> list[str]:
    parts = []
    for table in report.runs.study.tables.values():
        parts += [f"{mark} {markdown(words.title(table))}", table_markdown(report, table, beside)]
    if columns := words.group_columns(report):
        parts += [f"{mark} Top-1 by group of videos", markdown_table(columns)]
    if columns := words.learned_columns(report):
        parts += [f"{mark} How often a group is learned", markdown(words.learned_legend(report))]
        parts.append(markdown_table(columns))
    if said := words.agreement(report):
        parts.append(markdown(said))
    return parts


def study_markdown(report: Report) -> str:
    """All tables, top-1 by group of videos if there are groups, the claims, and the numbers' provenance."""
    parts = [f"# {markdown(report.runs.study.title)}", *_opening(report), *_tables(report, "##", beside=True)]
    if report.runs.study.claims:
        parts += ["## Claims", claims_markdown(report)]
    said = _bullets(f"{name}: {value}" for name, value in provenance(report.runs))
    return _joined(*parts, "## Where the numbers come from", said) + "\n"


def readme_block(report: Report, page: str) -> str:
    """The results for a README, with a link to the study's own page, which has every claim and verdict."""
    link = f"[What each claim says, and its verdict]({page})" if report.verdicts else ""
    tables, summary = _tables(report, "###", beside=False), markdown(claim_words.summary(report))
    said = _bullets(f"{name}: {value}" for name, value in provenance(report.runs))
    return _joined(*_opening(report), *tables, summary, link, said)


def update_readme(path: Path, report: Report, page: Path) -> None:
    """Put :func:`readme_block` between the marks in a file. UserError if it hasn't both, once, in order."""
    try:
        text = path.read_bytes().decode()
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: can't be read: {getattr(error, 'strerror', None) or error}") from None
    before, start, rest = text.partition(README_START)
    _, end, after = rest.partition(README_END)
    if not (start and end) or text.count(README_START) > 1 or text.count(README_END) > 1:
        raise UserError(f"{path}: expected the lines {README_START} and {README_END}, once each, in this order")
    way = quote(Path(os.path.relpath(page, path.parent)).as_posix())
    block = f"{README_START}\n{readme_block(report, way)}\n{README_END}"
    new = before + (block.replace("\n", "\r\n") if "\r\n" in text else block) + after
    if new != text:
        write_atomically(path, new)


# ------------------------------------------------------------------------------------------------------- LaTeX

LATEX_COLUMNS = ("gain", "params", "FLOPs")  # and the metric itself: what fits a column of a paper

# LaTeX disarms \@nodocument at \begin{document}. So the file can tell whether it is the document, and opens one, or is
# read by \input within one, and gives only the tables. One file serves both, since a file that can't be compiled on its
# own is found to be broken too late.
_LATEX_FILE = r"""% {what} of study {study}, recipe {recipe}. Generated: don't edit.
% It compiles as it is, with pdflatex, and is no wider than {width}. To have it in a document of yours,
% \usepackage{{booktabs,graphicx}} and \input this file within a {environment}: the rest is skipped there.
{letters}\def\nlfinish{{}}
\expandafter\ifx\csname @nodocument\endcsname\relax\else
\documentclass[twocolumn]{{article}}
\usepackage{{booktabs,graphicx}}
\setlength{{\parindent}}{{0pt}}
\begin{{document}}{columns}\sloppy
{opening}\par\medskip
\def\nlfinish{{\par\medskip {closing}\end{{document}}}}
\fi
{body}
\nlfinish
"""
_LETTERS = r"""% pdflatex shows some characters by number. xelatex and lualatex, with a font that has them, show all.
\providecommand{\nlletter}[1]{\ifdefined\Umathcode\char"#1 \else U+#1\fi}
"""
_TABULAR = r"""\begingroup\footnotesize\setlength{{\tabcolsep}}{{3pt}}\sbox0{{%
\begin{{tabular}}{{@{{}}{layout}@{{}}}}
\toprule
{head}
\midrule
{body}
\bottomrule
\end{{tabular}}}}\ifdim\wd0>\linewidth\resizebox{{\linewidth}}{{!}}{{\usebox0}}\else\usebox0\fi\endgroup"""

_LATEX = {
    "\\": r"\textbackslash{}", "{": r"\{", "}": r"\}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": "$<$", ">": "$>$", "|": "$|$", "`": "{`}",
    '"': r"\textquotedblright{}", "\u00a0": "~", "\u2013": r"\textendash{}", "\u2014": r"\textemdash{}",
    "\u2018": "{`}", "\u2019": "{'}", "\u201c": r"\textquotedblleft{}", "\u201d": r"\textquotedblright{}",
    "\u2212": "$-$", "±": r"$\pm$", "\u00d7": r"$\times$", "·": r"$\cdot$", "†": r"$\dagger$", "→": r"$\rightarrow$",
    "≤": r"$\leq$", "≥": r"$\geq$", "≈": r"$\approx$", "∞": r"$\infty$", "ß": r"\ss{}", "ø": r"\o{}", "ł": r"\l{}",
}  # fmt: skip
_ACCENTS = dict(zip("\u0300\u0301\u0302\u0303\u0308\u030a\u030c\u0327", "`'^~\"rvc", strict=True))
_GREEK = """alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau upsilon phi chi
psi omega Gamma Delta Theta Lambda Xi Pi Sigma Upsilon Phi Psi Omega"""
for _name in _GREEK.split():
    _size = "CAPITAL" if _name[0].isupper() else "SMALL"
    _LATEX[unicodedata.lookup(f"GREEK {_size} LETTER {_name.upper().replace('LAMBDA', 'LAMDA')}")] = rf"$\{_name}$"


def latex(text: str) -> str:
    r"""A text as one line of ASCII that pdflatex compiles; what it has no letter for is an ``\nlletter``."""
    if text in HOLES:
        return rf"\emph{{{text}}}"
    letters = "".join(map(_letter, unicodedata.normalize("NFC", visible_line(text))))
    whole = re.sub(r"(?<=-)-|(?<=')'|(?<=,),", r"{}\g<0>", letters)  # two of them are another letter
    return re.sub(r"(?<!\w)-(?=\d)", "$-$", re.sub(r"^[\[*]", r"{\g<0>}", whole))  # \\[ and \\* are commands


def _letter(character: str) -> str:
    if character.isascii() or character in _LATEX:
        return _LATEX.get(character, character)
    base, *marks = list(unicodedata.normalize("NFD", character))
    if len(marks) == 1 and base.isascii() and base.isalpha() and marks[0] in _ACCENTS:
        return rf"\{_ACCENTS[marks[0]]}{{" + (rf"\{base}}}" if base in "ij" else f"{base}}}")
    return rf"\nlletter{{{ord(character):04X}}}"


def latex_columns(report: Report, columns: Sequence[str]) -> set[str]:
    """The titles of the columns that LaTeX tables have: those asked for, or as many as fit a column of a paper.

    UserError with the nearest title if no table of the study has one.
    """
    tables = report.runs.study.tables.values()
    titles = dict.fromkeys(column.title for table in tables for column in words.table_columns(report, table)[1:])
    for name in columns:
        if name not in titles:
            raise UserError(f"--columns: no table has a column '{name}'{nearest(name, titles)}")
    if columns:
        return {"", *columns}
    usual = {"", report.runs.study.metric.name, *LATEX_COLUMNS}
    return usual | {f"{REPORTED} {name}" for name in usual} | ({"n"} if len(report.runs.seeds) > 1 else set())


def _tabular(report: Report, table: Table, kept: set[str]) -> str:
    found = [column for column in words.table_columns(report, table) if column.title in kept]
    order = list(dict.fromkeys(column.name for column in found))
    found.sort(key=lambda column: (column.group == REPORTED, order.index(column.name)))
    spans, rules, first = [], [], 2  # after the labels
    for group, of in itertools.groupby(found[1:], key=lambda column: column.group):
        size = len(list(of))
        spans.append(rf"\multicolumn{{{size}}}{{c}}{{{group}}}")
        rules.append(rf"\cmidrule(lr){{{first}-{first + size - 1}}}")
        first += size
    cells = [[re.sub(r" (\[[^]]*\]\S*)$", r" {\\scriptsize \1}", latex(cell)) for cell in c.cells] for c in found]
    head = [" & ".join(["", *spans]) + r" \\", "".join(rules), " & ".join(latex(c.name) for c in found) + r" \\"]
    return _TABULAR.format(
        layout="".join("l" if column.words else "r" for column in found),
        head="\n".join(head),
        body="\n".join(" & ".join(row) + r" \\" for row in zip(*cells, strict=True)),
    )


def _latex_file(report: Report, what: str, opening: list[str], body: str, closing: list[str], joint: bool) -> str:
    said = [r"\par\medskip ".join(map(latex, opening)), r"\par ".join(map(latex, closing))]
    return _LATEX_FILE.format(
        what=what,
        study=report.runs.study.name,
        recipe=report.runs.recipe.name,
        width=r"\textwidth" if joint else r"\columnwidth",
        environment="table*" if joint else "table",
        columns=r"\onecolumn" if joint else "",
        letters=_LETTERS if any(r"\nlletter" in text for text in (*said, body)) else "",
        opening=said[0],
        closing=said[1],
        body=body,
    )


def table_latex(report: Report, table: Table, columns: Sequence[str] = ()) -> str:
    """One table with booktabs rules, as wide as a column of a paper at most."""
    closing = [*words.remarks(report, table), words.legend(report)]
    body = _tabular(report, table, latex_columns(report, columns))
    return _latex_file(
        report, f"Table {table.name}", [words.title(table), words.heading(report)], body, closing, joint=False
    )


def study_latex(report: Report, columns: Sequence[str] = ()) -> str:
    """All tables of a study as one, two beside each other, as wide as the page of a paper at most."""
    kept, study = latex_columns(report, columns), report.runs.study
    parts, closing = [], []
    for i, table in enumerate(study.tables.values()):
        caption = rf"{{\footnotesize ({latex(table.name)}) {latex(table.caption)}\par}}\smallskip"
        parts += [r"\begin{minipage}[t]{.485\textwidth}\centering", caption, _tabular(report, table, kept)]
        parts.append(r"\end{minipage}" + (r"\par\bigskip" if i % 2 or i == len(study.tables) - 1 else r"\hfill"))
        closing += [f"Table {table.name}: {remark}" for remark in words.remarks(report, table)]
    opening, body = [study.title, words.heading(report)], "\n".join([r"\centering", *parts])
    return _latex_file(report, "All tables", opening, body, [*closing, words.legend(report)], joint=True)


# ------------------------------------------------------------------------------------------------ CSV and files


def table_csv(report: Report, table: Table) -> str:
    """The numbers of a table, rounded to 4 digits, as CSV. No text in it is a formula to a spreadsheet."""
    frame = report.rows[report.rows["table"] == table.name].round(max(4, report.runs.study.metric.decimals))
    frame = frame.drop(columns="holes").assign(note=[words.note(line) for line in report.lines[table.name]])
    texts = frame.select_dtypes(["object", "str"]).columns
    frame[texts] = frame[texts].map(lambda text: _csv_text(text) if isinstance(text, str) else text)
    return frame.to_csv(index=False, lineterminator="\n")


def _csv_text(text: str) -> str:
    line = visible_line(text)
    return f"'{line}" if line.startswith(("=", "+", "-", "@")) else line


def write_tables(report: Report, results: Path, columns: Sequence[str] = ()) -> list[Path]:
    """Write the study, and each of its tables, to ``<results>/tables/<recipe>/``, and return all files, its own first.

    `columns` are those of the LaTeX tables. Files whose content is the same are left alone. UserError if one of them is
    there and isn't ours.
    """
    study = report.runs.study
    folder = results / "tables" / report.runs.recipe.name
    files = {
        folder / f"{study.name}.md": study_markdown(report),
        folder / f"{study.name}.tex": study_latex(report, columns),
    }
    for table in study.tables.values():
        # "table2a" for table 2a of table2; else with the study's name, as two studies may have a table a. A table that
        # would have the study's own name, as table 5 of table5, is in the study's own files; only its CSV is apart.
        stem = f"table{table.name}" if f"table{table.name}".startswith(study.name) else f"{study.name}_{table.name}"
        opening, said = _opening(report)
        while folder / f"{stem}.csv" in files:  # tables 2_a and a of table2
            stem += "_"
        content = _joined(f"# {markdown(words.title(table))}", opening, table_markdown(report, table), said)
        files.setdefault(folder / f"{stem}.md", f"{content}\n")
        files.setdefault(folder / f"{stem}.tex", table_latex(report, table, columns))
        files[folder / f"{stem}.csv"] = table_csv(report, table)
    refuse_foreign(files)  # before one of them is written
    ours = f" of study {study.name}, recipe "
    refuse_foreign([path for path in files if path.suffix == ".tex"], ours, f" for the study {study.name}")
    for path, text in files.items():
        write_output(path, text)
    return list(files)


# ---------------------------------------------------------------------------------------------------- terminal


def print_columns(console: "Console", columns: Sequence[Column], name: str = "") -> None:
    """Print columns, each title on as many lines as it has words."""
    from rich.table import Table as RichTable
    from rich.text import Text

    shown = RichTable(title=Text(visible_line(name)) if name else None, title_justify="left", box=None)
    for column in columns:
        head = Text(column.title.replace(" ", "\n"))
        shown.add_column(head, justify="left" if column.words else "right", no_wrap=not column.words)
    for row in zip(*(column.cells for column in columns), strict=True):
        shown.add_row(*(Text(visible_line(cell), "yellow" if cell in HOLES else "") for cell in row))
    console.print(shown)


def print_study(console: "Console", report: Report, tables: Sequence[str] | None = None) -> None:
    """Print tables (default: all) of the metric alone, for 80 columns; :func:`write_tables` has it all."""
    from rich.text import Text

    def say(text: str, style: str = "") -> None:
        console.print(Text(visible_line(text), style))

    runs = report.runs
    say(words.heading(report))
    for name in dict.fromkeys(runs.study.tables if tables is None else tables):
        table = runs.study.table(name)
        console.print()
        print_columns(console, words.table_columns(report, table, beside=False, costs=False), words.title(table))
        for remark in words.remarks(report, table):
            console.print(Text(f"  {visible_line(remark)}", "dim"))
    console.print()
    if said := claim_words.summary(report):
        say(said)
    say(f"runs: {progress(runs)}")
    if not runs.records():
        say(f"nothing is measured yet: no record of recipe {runs.recipe.name} counts", "yellow")
