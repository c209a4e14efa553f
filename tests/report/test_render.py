import io
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from nl_lightning.errors import UserError
from nl_lightning.report.collate import Runs, collate, collect
from nl_lightning.report.render import (
    Grid,
    heading,
    markdown_table,
    print_study,
    readme_block,
    study_markdown,
    table_latex,
    table_markdown,
    update_readme,
    write_tables,
)
from nl_lightning.study.records import RunRecord
from nl_lightning.study.study import Recipe, Study, find_study, load_study

Measure = Callable[..., RunRecord]


@pytest.fixture
def mixed(study: Study, recipe: Recipe, results: Path, measure: Measure) -> Runs:
    """Three seeds: one variant whole, one of two seeds, one stale, the others missing."""
    for seed in range(3):
        measure("plain", seed, 60.0 + seed, videos_scored=399, unreadable=["b.mp4"])
        measure("i3d", seed, 60.0, config_hash="0123456789ab")
    for seed in range(2):
        measure(
            "both", seed, 70.0, params=52_000, macs=3_200_000, top1_by_group={"space": 50, "look": 90 + seed},
            decoder="PyAV 16.0.1", dirty=True,
        )  # fmt: skip
    return collect(study, recipe, results)


STUDY_MARKDOWN = """\
# A small study

The reported columns are the paper's, on kinetics400. This is recipe `quick`, on other data: \
compare only the gains, not the accuracies.

Accuracies are percent of the test videos: means over n seeds, ± their sample standard deviation. Gains are points \
of top-1 over the row's own baseline, from the seeds that both have, with 95 % intervals, paired by video. † from \
accuracies alone, since the records don't say which videos were right: too wide.

## Table a. Blocks & costs

|        |      top-1 |      top-5 |      n |              gain | reported gain | reported top-1 | reported top-5 \
| params | reported params | FLOPs | reported FLOPs |
| ------ | ---------: | ---------: | -----: | ----------------: | ------------: | -------------: | -------------: \
| -----: | --------------: | ----: | -------------: |
| C2D    | 61.0 ± 1.0 | 97.0 ± 0.0 |      3 |                   |               |           71.8 |           89.7 \
|  1.00x |            1.0x | 1.00x |           1.0x |
| NL     |  *missing* |            | 0 of 3 |                   |          +1.1 |           72.9 |           90.3 \
|        |            1.1x |       |           1.2x |
| I3D    |    *stale* |            | 0 of 3 |                   |          +1.5 |           73.3 |           90.7 \
|        |            1.2x |       |           1.5x |
| NL_I3D | 70.0 ± 0.0 | 97.0 ± 0.0 | 2 of 3 | +9.5 [0.3, 18.6]† |               |                |                \
|  1.30x |                 | 1.60x |                |

- I3D: seeds 0, 1, 2 stale: made with another configuration

## Table b. Long clips

|     |     top-1 | top-5 |      n | gain | reported gain | reported top-1 | reported top-5 |
| --- | --------: | ----: | -----: | ---: | ------------: | -------------: | -------------: |
| C2D | *missing* |       | 0 of 3 |      |          +2.0 |           73.8 |           91.2 |

- Gains are over runs outside this table: C2D over `plain`

## Top-1 by group of classes

|      | space | look |
| ---- | ----: | ---: |
| both |  50.0 | 90.5 |

## Claims

- **helps** A block helps, and costs less than 3D convolution.
- **alike** Blocks and 3D convolution help about as much.
- **more** More is better.
- **why** It looks further. (Not compared: an interpretation.)

| claim | verdict   | why                             |     p | corrected |
| ----- | --------- | ------------------------------- | ----: | --------: |
| helps | undecided | Nothing is known of block, i3d. | 1.000 |     1.000 |
| alike | undecided | Nothing is known of i3d, block. | 1.000 |     1.000 |
| more  | undecided | Nothing is known of i3d.        | 1.000 |     1.000 |

A claim holds if each of its comparisons does, and fails if one surely does; otherwise it is undecided. The p-values \
of a sub-table's claims are corrected by Holm's method, so that in 95 of 100 sub-tables at least no verdict is wrong. \
Variants are alike only if the intervals of their differences lie within the margin.

### The comparisons behind them

| claim | comparison          | claimed     | reported |  measured |   n | McNemar p | by itself |
| ----- | ------------------- | ----------- | -------: | --------: | --: | --------: | --------: |
| helps | block - plain       | above 0.5   |     +1.1 | *missing* |   0 |           | undecided |
| helps | block / i3d, FLOPs  | below 1x    |    0.80x | *missing* |     |           | undecided |
| helps | block / i3d, params | below 1x    |    0.90x | *missing* |     |           | undecided |
| alike | i3d - block         | within ±0.5 |     +0.4 | *missing* |   0 |           | undecided |
| more  | i3d - plain         | above 0     |     +1.5 | *missing* |   0 |           | undecided |
| more  | both - i3d          | above 0     |          | *missing* |   0 |           | undecided |

## Where the numbers come from

- recipe: quick; seeds: 0, 1, 2
- runs: 5 of 15 done, 7 missing, 3 stale
- test videos: 400 expected, 399 (3 runs); 400 (2 runs) scored; unreadable, counted as wrong: b.mp4
- views of a video (clips x crops): 2 x 1
- decoder: decord 0.6.0 (3 runs); PyAV 16.0.1 (2 runs)
- versions: python 3.11.7, torch 2.11.0
- code: 0123456789ab (3 runs); 0123456789ab with uncommitted changes (2 runs)
- device: CPU
- time in all: 8 min of training, 1 min of testing
"""


def test_a_study_as_markdown(mixed: Runs) -> None:
    assert study_markdown(mixed, collate(mixed)) == STUDY_MARKDOWN


@pytest.mark.usefixtures("one_seed")
def test_claims_and_long_clips_of_one_seed(study: Study, recipe: Recipe, results: Path) -> None:
    runs = collect(study, recipe, results)
    text = study_markdown(runs, collate(runs))
    assert "With one seed an interval is over videos only: another training may differ by more." in text
    assert (
        "Of 3 claims that the rows can check, 3 stay undecided (helps, alike, more). With one seed that is said of "
        "these trained networks: the intervals are over videos only.\n"
    ) in text
    assert (
        """\
| helps | block - plain       | above 0.5   |     +1.1 |  +6.5 [0.0, 12.9]† |   1 |           | undecided |
| helps | block / i3d, FLOPs  | below 1x    |    0.80x |              0.73x |     |           |     holds |
| helps | block / i3d, params | below 1x    |    0.90x |              0.92x |     |           |     holds |
| alike | i3d - block         | within ±0.5 |     +0.4 |  -0.2 [-6.6, 6.1]† |   1 |           | undecided |
| more  | i3d - plain         | above 0     |     +1.5 | +6.2 [-0.3, 12.7]† |   1 |           | undecided |
| more  | both - i3d          | above 0     |          | +4.8 [-1.4, 10.9]† |   1 |           | undecided |
"""
        in text
    )
    assert "- views of a video (clips x crops): 2 x 1 (4 runs); 1 x 1 (1 run)\n" in text
    assert "by group" not in text  # no record has groups
    assert "reported numbers could decide" not in text  # the study doesn't say on how many videos


@pytest.mark.usefixtures("one_seed")
def test_what_the_reported_numbers_could_decide(study: Study, recipe: Recipe, results: Path) -> None:
    runs = collect(replace(study, reported_videos=19_761), recipe, results)
    text = study_markdown(runs, collate(runs))
    assert "a difference is known to ±0.88 points." in text
    assert "it would be ±0.44 if two networks split on 10 % of the videos." in text
    assert (
        """\
| claim | table | reported, unpaired | reported, if paired | here      |
| ----- | ----- | ------------------ | ------------------- | --------- |
| helps | a     | undecided          | holds               | undecided |
| alike |       | undecided          | undecided           | undecided |
| more  |       | undecided          | undecided           | undecided |
"""
        in text
    )


def test_seeds_that_only_one_of_two_has(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain", 0, 60.0)
    measure("block", 0, 59.98)
    measure("block", 1, 65.0)
    measure("i3d", 1, 65.0)
    runs = collect(study, recipe, results)
    text = table_markdown(runs, study.tables["a"], collate(runs))
    cells = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert re.search(r"\| 62.5 ± 3.5 \| 97.0 ± 0.0 \| +2 \| +\+0.0 \[-6.8, 6.8\]† \|", cells["NL"])  # never -0.0
    assert re.search(r"\| +65.0 \| +97.0 \| 1 of 2 \| \*baseline missing\* \|", cells["I3D"])
    assert text.endswith("- NL: gain from the 1 of its 2 seeds that `plain` has too")


def test_columns_of_which_a_study_says_nothing_are_left_out(tmp_path: Path, recipe: Recipe, results: Path) -> None:
    path = tmp_path / "bare.yaml"
    path.write_text(
        "{name: bare, title: Bare, recipe: quick, variants: {plain: {net: {depth: 50}}},"
        " tables: {t: {caption: T, rows: [{label: 'a|b', variant: plain}]}}}"
    )
    runs = collect(load_study(path), recipe, results)
    assert study_markdown(runs, collate(runs)).startswith("# Bare\n\nRecipe `quick`.\n")
    assert table_markdown(runs, runs.study.tables["t"], collate(runs)) == (
        "|      |     top-1 | top-5 |      n |\n"
        "| ---- | --------: | ----: | -----: |\n"
        "| a\\|b | *missing* |       | 0 of 1 |"
    )


def test_the_heading_says_what_may_be_compared(mixed: Runs) -> None:
    on_kinetics = replace(mixed, recipe=replace(mixed.recipe, name="kinetics400_paper"))
    assert heading(on_kinetics) == "Recipe `kinetics400_paper`, on kinetics400, the data of the reported numbers."
    assert "compare only the gains" in heading(mixed)


def test_numbers_stand_to_the_right() -> None:
    assert markdown_table(Grid(["", "x"], [["a", "1"], ["bcde", "-10.0"]])) == (
        "|      |     x |\n| ---- | ----: |\n| a    |     1 |\n| bcde | -10.0 |"
    )


# ------------------------------------------------------------------------------------------------------------ LaTeX


# "//" stands for a line that goes on.
LATEX = r"""% Table b of study small, recipe quick. Generated: don't edit.
% It compiles as it is. To have the tabular in a document of yours, \usepackage{booktabs} and
% \input this file in its place: the rest is skipped there.
\def\nlfinish{}
\expandafter\ifx\csname @nodocument\endcsname\relax\else
\documentclass[a4paper]{article}
\usepackage[margin=1.5cm]{geometry}
\usepackage{booktabs}
\setlength{\parindent}{0pt}
\setlength{\tabcolsep}{4pt}
\begin{document}\footnotesize
\textbf{Table b. Long clips}\par\medskip The reported columns are the paper's, on kinetics400. This is recipe //
quick, on other data: compare only the gains, not the accuracies.\par\medskip
\def\nlfinish{\par\medskip Gains are over runs outside this table: C2D over plain\par Accuracies are percent of the //
test videos: means over n seeds, $\pm$ their sample standard deviation. Gains are points of top-1 over the row's own //
baseline, from the seeds that both have, with 95 \% intervals, paired by video. With one seed an interval is over //
videos only: another training may differ by more. $\dagger$ from accuracies alone, since the records don't say which //
videos were right: too wide.\end{document}}
\fi
\begin{tabular}{lrrrrrrr}
\toprule
 & \shortstack[r]{top-1} & \shortstack[r]{top-5} & \shortstack[r]{n} & \shortstack[r]{gain} & //
\shortstack[r]{reported\\gain} & \shortstack[r]{reported\\top-1} & \shortstack[r]{reported\\top-5} \\
\midrule
C2D & 63.0 & 97.0 & 1 & $-$1.0 [$-$7.7, 5.7]$\dagger$ & +2.0 & 73.8 & 91.2 \\
\bottomrule
\end{tabular}
\nlfinish
""".replace("//\n", "")


@pytest.mark.usefixtures("one_seed")
def test_a_table_as_latex(study: Study, recipe: Recipe, results: Path) -> None:
    runs = collect(study, recipe, results)
    assert table_latex(runs, study.tables["b"], collate(runs)) == LATEX


NASTY = r"5% of $x_1$ & {y} #2 ~ ^ \z <a|b> ± `c`"


@pytest.fixture
def latex_files(mixed: Runs, results: Path) -> list[Path]:
    """Table 2 with nothing measured, and a table of the small study with everything that can go wrong in a label."""
    table = mixed.study.tables["a"]
    rows = (replace(table.rows[0], label=NASTY), *table.rows[1:])
    nasty = replace(mixed.study, tables={"a": replace(table, caption=NASTY, rows=rows)})
    table2 = collect(load_study(find_study("table2")), mixed.recipe, results / "nothing")
    paths = [*write_tables(replace(mixed, study=nasty), results), *write_tables(table2, results)]
    return [path for path in paths if path.suffix == ".tex"]


def test_latex_is_well_formed(latex_files: list[Path]) -> None:
    """What a compiler would trip over, for machines without one; and the exact text of a nasty label."""
    assert len(latex_files) == 8
    for path in latex_files:
        text = path.read_text()
        code = re.sub(r"(?m)^%.*$", "", text)
        assert code.replace(r"\{", "").count("{") == code.replace(r"\}", "").count("}")
        assert code.count(r"\begin{tabular}") == code.count(r"\end{tabular}") == 1
        columns = re.search(r"\\begin{tabular}{(l+r+)}", code)
        assert columns
        rules = [code.index(rule) for rule in (r"\toprule", r"\midrule", r"\bottomrule")]
        assert rules == sorted(rules)
        body = code[rules[0] : rules[2]].replace(r"\toprule", "").replace(r"\midrule", "").strip().splitlines()
        for row in body:
            if row:
                assert row.endswith(r" \\")
                assert len(re.findall(r"(?<!\\)&", row)) == len(columns[1]) - 1
                assert not re.search(r"(?<!\\)[_#%~^]", row.replace(r"\textasciitilde{}", ""))
    assert (
        r"5\% of \$x\_1\$ \& \{y\} \#2 \textasciitilde{} \textasciicircum{} \textbackslash{}z $<$a|b$>$ $\pm$ c &"
        in latex_files[0].read_text()
    )
    assert r"\emph{missing}" in latex_files[1].read_text()


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex here: only test_latex_is_well_formed looks")
def test_latex_compiles_alone_and_within_a_document(latex_files: list[Path], tmp_path: Path) -> None:
    inputs = "\n".join(
        rf"\begin{{table}}\caption{{{i}}}\input{{{path}}}\end{{table}}" for i, path in enumerate(latex_files[:3])
    )
    own = tmp_path / "own.tex"
    start, end = r"\documentclass{article}\usepackage{booktabs}\begin{document}", r"\typeout{GOT HERE}\end{document}"
    own.write_text(f"{start}{inputs}{end}")
    for source in (own, latex_files[0], latex_files[5]):
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", str(source)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, errors="replace", timeout=120)
        assert done.returncode == 0, done.stdout[-2000:]
        assert "Output written" in done.stdout
        assert ("GOT HERE" in done.stdout) == (source == own)
        assert source != latex_files[5] or "Overfull" not in done.stdout  # 2e, the widest of Table 2


# ------------------------------------------------------------------------------------------ files, README, terminal


CSV = """\
table,label,variant,baseline,state,n,top1,top1_std,top1_low,top1_high,top5,top5_std,gain,gain_std,gain_low,gain_high,\
gain_n,gain_paired,gain_dropped,params,macs,params_ratio,flops_ratio,reported_top1,reported_top5,reported_gain,\
reported_params_ratio,reported_flops_ratio,note
a,C2D,plain,,ok,3,61.0,1.0,,,97.0,0.0,,,,,,,,40000,2000000,1.0,1.0,71.8,89.7,,1.0,1.0,
a,NL,block,plain,missing,0,,,,,,,,,,,0,,,,,,,72.9,90.3,1.1,1.1,1.2,
a,I3D,i3d,plain,stale,0,,,,,,,,,,,0,,,,,,,73.3,90.7,1.5,1.2,1.5,"seeds 0, 1, 2 stale: made with another configuration"
a,NL_I3D,both,plain,partial,2,70.0,0.0,,,97.0,0.0,9.5,0.7071,0.3251,18.5804,2,False,0,52000,3200000,1.3,1.6,,,,,,
"""


def test_the_files(mixed: Runs, results: Path) -> None:
    written = write_tables(mixed, results)
    folder = results / "tables" / "quick"
    names = ["small.md"] + [f"small_{table}.{kind}" for table in "ab" for kind in ("md", "tex", "csv")]
    assert [path.relative_to(folder).name for path in written] == names
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert (folder / "small.md").read_text() == STUDY_MARKDOWN
    assert (folder / "small_a.csv").read_text() == CSV
    table_b = (folder / "small_b.md").read_text()
    assert table_b.startswith("# Table b. Long clips\n\nThe reported columns are the paper's, on kinetics400.")

    before = {path: path.stat().st_mtime_ns for path in written}
    (folder / "small_b.md").write_text("edited")
    write_tables(mixed, results)
    assert (folder / "small_b.md").read_text() == table_b
    assert [path.name for path in written if path.stat().st_mtime_ns != before[path]] == ["small_b.md"]


def test_the_files_of_table2_have_its_names(recipe: Recipe, results: Path) -> None:
    written = write_tables(collect(load_study(find_study("table2")), recipe, results), results)
    assert [path.stem for path in written if path.suffix != ".csv" and path.suffix != ".tex"] == [
        "table2", "table2a", "table2b", "table2c", "table2d", "table2e", "table2f", "table2g",
    ]  # fmt: skip


def test_the_readme_block(mixed: Runs, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Mine\n<!-- results:start -->\nold\n<!-- results:end -->\nafter\n")
    update_readme(readme, mixed)
    text = readme.read_text()
    assert text == (f"# Mine\n<!-- results:start -->\n{readme_block(mixed)}\n<!-- results:end -->\nafter\n")
    assert "old" not in text
    assert "### Table a. Blocks & costs\n\n|        |      top-1 |      n |              gain |" in text  # no top-5
    assert "claims" not in text  # nothing could be compared
    before = readme.stat().st_mtime_ns
    update_readme(readme, mixed)
    assert readme.stat().st_mtime_ns == before


@pytest.mark.usefixtures("one_seed")
def test_the_readme_counts_verdicts(study: Study, recipe: Recipe, results: Path) -> None:
    block = readme_block(collect(study, recipe, results))
    assert "Of 3 claims that the rows can check, 3 stay undecided (helps, alike, more)." in block


@pytest.mark.parametrize(
    "text",
    [
        "no marks",
        "<!-- results:start -->",
        "<!-- results:end --> <!-- results:start -->",
        "<!-- results:start --> <!-- results:end --> <!-- results:start --> <!-- results:end -->",
        "<!-- results:start --> <!-- results:end --> <!-- results:end -->",
    ],
)
def test_a_readme_without_its_marks_is_left_alone(mixed: Runs, tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(
        UserError, match=r"README.md: expected the lines <!-- results:start --> and <!-- results:end -->"
    ):
        update_readme(readme, mixed)
    assert readme.read_text() == text
    with pytest.raises(UserError, match=r"NONE.md: can't be read"):
        update_readme(tmp_path / "NONE.md", mixed)


TERMINAL = """\
The reported columns are the paper's, on kinetics400. This is recipe quick, on
other data: compare only the gains, not the accuracies.

Table a. Blocks & costs
                                                reported  reported
              top-1       n               gain      gain     top-1
 C2D     61.0 ± 1.0       3                                   71.8
 NL         missing  0 of 3                         +1.1      72.9
 I3D          stale  0 of 3                         +1.5      73.3
 NL_I3D  70.0 ± 0.0  2 of 3  +9.5 [0.3, 18.6]†
  I3D: seeds 0, 1, 2 stale: made with another configuration

Table b. Long clips
                             reported  reported
        top-1       n  gain      gain     top-1
 C2D  missing  0 of 3            +2.0      73.8
  Gains are over runs outside this table: C2D over plain

runs: 5 of 15 done, 7 missing, 3 stale
"""


def printed(runs: Runs, tables: list[str] | None = None) -> str:
    console = Console(width=80, file=io.StringIO())
    print_study(console, runs, tables)
    assert isinstance(console.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def test_the_terminal(mixed: Runs) -> None:
    assert printed(mixed) == TERMINAL
    assert "Table a" not in printed(mixed, ["b"])
    with pytest.raises(UserError, match="no table 'c'"):
        printed(mixed, ["c"])


def test_an_empty_folder_is_said(study: Study, recipe: Recipe, results: Path) -> None:
    assert printed(collect(study, recipe, results)).endswith(
        "\nruns: 0 of 5 done, 5 missing\nnothing is measured yet: no record of recipe quick counts\n"
    )


def test_table2_fits_80_columns(recipe: Recipe, results: Path) -> None:
    text = printed(collect(load_study(find_study("table2")), recipe, results, seeds=[0, 1, 2]))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert " R101 C2D baseline  missing  0 of 3            +2.2      75.3\n" in text
