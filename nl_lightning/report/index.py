"""One page of several studies, as of every table of a paper: what was measured beside what is reported, or that alone.

It has the tables and a line on the claims, as Markdown and as HTML; each study's own page has all else.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from nl_lightning.report import claim_words, words
from nl_lightning.report.claims import Report
from nl_lightning.report.html import filled, table_figure
from nl_lightning.report.render import markdown, markdown_table
from nl_lightning.study.files import MARK, write_output

TITLE = "Every table: measured, and reported"


def places(results: Path) -> list[Path]:
    """Where the page is, as Markdown and as HTML."""
    return [results / "tables" / f"index.{kind}" for kind in ("md", "html")]


def write_index(reports: Sequence[Report], results: Path) -> list[Path]:
    """Write ``<results>/tables/index.md`` and ``index.html``, and return where; the same content is left alone."""
    files = places(results)
    for path, text in zip(files, index(reports).values(), strict=True):
        write_output(path, text)
    return files


def index(reports: Sequence[Report]) -> dict[str, str]:
    """The page of these studies, as ``md`` and as ``html``."""
    studies, parts = [_study(one) for one in reports], [f"# {TITLE}"]
    for of in studies:
        parts += [f"## {markdown(of['study'].title)}", *map(markdown, of["said"])]
        for one in of["tables"]:
            parts += [f"### {markdown(words.title(one['table']))}", markdown_table(one["columns"])]
        if of["measured"]:
            way = f"{of['report'].runs.recipe.name}/{of['study'].name}.md"
            parts.append(f"[Every verdict, and where the numbers come from]({way})")
    return {
        "md": "\n\n".join([*parts, f"This page was {MARK}."]) + "\n",
        "html": filled("index.html.j2", studies=studies, title=TITLE, mark=MARK),
    }


def _study(report: Report) -> dict[str, Any]:
    """What the page says of a study; where nothing is measured, its tables have reported columns only."""
    study, recipe = report.runs.study, report.runs.recipe.name
    measured = bool(report.runs.records())
    tables = [table_figure(report, table, f"{recipe}/{study.name}.html") for table in study.tables.values()]
    said = [words.heading(report), report.runs.recipe.about, claim_words.summary(report)]
    if not measured:
        needs = "" if study.cpu_recipe else ", which needs its data set and GPUs"
        said = [f"Only reported: nothing of this study is measured here. Its recipe is {recipe}{needs}."]
        for one in tables:
            columns = one["columns"][:1] + [each for each in one["columns"] if each.group == words.REPORTED]
            one |= {"columns": columns, "after": None, "runs": [None] * len(one["runs"])}
    return {"study": study, "report": report, "said": [*filter(None, said)], "tables": tables, "measured": measured}
