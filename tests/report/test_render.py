import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest
from rich.console import Console

from nl_lightning.errors import UserError
from nl_lightning.report.claims import Report, report
from nl_lightning.report.collate import collect
from nl_lightning.report.html import write_html
from nl_lightning.report.render import (
    latex,
    markdown,
    markdown_table,
    print_study,
    readme_block,
    study_markdown,
    table_csv,
    table_latex,
    table_markdown,
    update_readme,
    write_tables,
)
from nl_lightning.report.words import UNSAID, Column, agreement, heading
from nl_lightning.study.checks import Check, Part
from nl_lightning.study.files import overwriting
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.packing import pack
from nl_lightning.study.recipe import Recipe, load_recipe
from nl_lightning.study.records import Record, record_path
from nl_lightning.study.study import Study

Measure = Callable[..., Record]
REPOSITORY = Path(__file__).parent.parent.parent


@pytest.fixture
def mixed(study: Study, recipe: Recipe, results: Path, measure: Measure) -> Report:
    """Three seeds: one variant whole, one of two seeds, one stale, the others missing."""
    for seed in range(3):
        measure("plain", seed, 60.0 + seed, videos_scored=399, unreadable=["b.mp4"])
        measure("i3d", seed, 60.0, config_hash="0123456789ab")
    for seed in range(2):
        measure(
            "both", seed, 70.0, params=52_000, macs=3_200_000, top1_by_group={"space": 50, "look": 90 + seed},
            decoder="PyAV 16.0.1", dirty=True,
        )  # fmt: skip
    return report(collect(study, recipe, results))


STUDY_MARKDOWN = """\
# A small study

The reported columns are the paper's, on kinetics400. This is recipe quick, on other data: \
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

- Gains are over runs outside this table: C2D over C2D (a)

## Top-1 by group of videos

|      | space | look |
| ---- | ----: | ---: |
| both |  50.0 | 90.5 |

## Claims

- **helps** A block helps, and costs less than 3D convolution.
- **alike** Blocks and 3D convolution help about as much.
- **more** More is better.
- **why** It looks further.

| claim | part      | verdict      | why                           |
| ----- | --------- | ------------ | ----------------------------- |
| helps | direction | undecided    | It waits for NL, I3D.         |
| alike | direction | undecided    | It waits for I3D (a), NL (a). |
| more  | direction | undecided    | It waits for I3D (a).         |
| why   | direction | not testable | An interpretation.            |

Claims are judged part by part, by top-1. One seed decides nothing, nor do two. From 3 seeds on a part holds if each \
of its comparisons does, and fails if one surely does; otherwise it is undecided. The p-values of all parts of the \
study are corrected together by Holm's method, so that in 95 of 100 studies at least no verdict is wrong about \
trainings like those that were seen. Variants are alike only if the intervals of their differences lie within the \
margin.

### The comparisons behind them

| claim | part      | comparison           | claimed     | reported |  measured |   n | McNemar p | by itself |
| ----- | --------- | -------------------- | ----------- | -------: | --------: | --: | --------: | --------: |
| helps | direction | NL - C2D             | above 0.5   |     +1.1 | *missing* |   0 |           | undecided |
| helps | direction | NL / I3D, FLOPs      | below 1x    |    0.80x | *missing* |     |           | undecided |
| helps | direction | NL / I3D, parameters | below 1x    |    0.90x | *missing* |     |           | undecided |
| alike | direction | I3D (a) - NL (a)     | within ±0.5 |     +0.4 | *missing* |   0 |           | undecided |
| more  | direction | I3D (a) - C2D (a)    | above 0     |     +1.5 | *missing* |   0 |           | undecided |
| more  | direction | NL_I3D (a) - I3D (a) | above 0     |          | *missing* |   0 |           | undecided |

## Where the numbers come from

- recipe: quick; seeds: 0, 1, 2
- runs: 5 of 15 done, 7 missing, 3 stale
- command: nl-lightning run small --recipe quick --seed 0 --seed 1 --seed 2; each record has its own
- test videos: 400 expected, 399 (3 runs); 400 (2 runs) scored; unreadable, counted as wrong: b.mp4
- views of a video (clips x crops): 2 x 1
- decoder: decord 0.6.0 (3 runs); PyAV 16.0.1 (2 runs)
- versions: python 3.11.7, torch 2.11.0
- code: 0123456789ab (3 runs); 0123456789ab with uncommitted changes (2 runs)
- device: CPU
- time in all: 8 min of training, 50 s of testing; by the clock, run by run
"""


def test_a_study_as_markdown(mixed: Report) -> None:
    assert study_markdown(mixed) == STUDY_MARKDOWN


@pytest.mark.usefixtures("one_seed")
def test_claims_and_long_clips_of_one_seed(study: Study, recipe: Recipe, results: Path) -> None:
    made = report(collect(study, recipe, results))
    text, block = study_markdown(made), readme_block(made, "small.md")
    assert "With one seed an interval is over videos only: another training may differ by more." in text
    counted = (
        "The 4 claims have 4 parts: 3 were seen once, open (helps, alike, more), 1 is not testable on these data "
        "(why). One seed decides nothing: its intervals are over videos only, and another training may differ.\n"
    )
    assert counted in text
    assert f"{counted}\n[What each claim says, and its verdict](small.md)\n" in block
    assert (
        """\
| helps | direction | NL - C2D             | above 0.5   |     +1.1 |  +6.5 [0.0, 12.9]† |   1 |           | seen once, open |
| helps | direction | NL / I3D, FLOPs      | below 1x    |    0.80x |              0.73x |     |           |           holds |
| helps | direction | NL / I3D, parameters | below 1x    |    0.90x |              0.92x |     |           |           holds |
| alike | direction | I3D (a) - NL (a)     | within ±0.5 |     +0.4 |  -0.2 [-6.6, 6.1]† |   1 |           | seen once, open |
| more  | direction | I3D (a) - C2D (a)    | above 0     |     +1.5 | +6.2 [-0.3, 12.7]† |   1 |           | seen once, open |
| more  | direction | NL_I3D (a) - I3D (a) | above 0     |          | +4.8 [-1.4, 10.9]† |   1 |           | seen once, open |
"""  # noqa: E501
        in text
    )
    assert "- views of a video (clips x crops): 2 x 1 (4 runs); 1 x 1 (1 run)\n" in text
    assert "by group" not in text  # no record has groups
    assert "reported numbers could decide" not in text  # the study doesn't say on how many videos


@pytest.mark.usefixtures("one_seed")
def test_what_the_reported_numbers_could_decide(study: Study, recipe: Recipe, results: Path) -> None:
    score = Part("size", "73 %.", (Check("surpasses", ("block",), against=73.0),))  # is no difference of two networks
    helps = replace(study.claims[0], parts=(score, *study.claims[0].parts))
    asked = replace(study, reported_videos=19_761, claims=(helps, *study.claims[1:]))
    text = study_markdown(report(collect(asked, recipe, results)))
    assert "a difference is known to ±0.88 points." in text
    assert "it would be ±0.44 if two networks split on 10 % of the videos." in text
    assert (
        """\
| claim | part      | reported, unpaired | reported, if paired   | here            |
| ----- | --------- | ------------------ | --------------------- | --------------- |
| helps | size      | seen once, open    | seen once, open       | seen once, open |
| helps | direction | seen once, open    | seen once, as claimed | seen once, open |
| alike | direction | seen once, open    | seen once, open       | seen once, open |
| more  | direction | undecided          | undecided             | seen once, open |
| why   | direction | not testable       | not testable          | not testable    |
"""
        in text
    )


def test_seeds_that_only_one_of_two_has(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain", 0, 60.0)
    measure("block", 0, 59.98)
    measure("block", 1, 65.0)
    measure("i3d", 1, 65.0)
    text = table_markdown(report(collect(study, recipe, results)), study.tables["a"])
    cells = {line.split("|")[1].strip(): line for line in text.splitlines() if line.startswith("|")}
    assert re.search(r"\| 62.5 ± 3.5 \| 97.0 ± 0.0 \| +2 \| +\+0.0 \[-6.8, 6.8\]† \|", cells["NL"])  # never -0.0
    assert re.search(r"\| +65.0 \| +97.0 \| 1 of 2 \| \*baseline missing\* \|", cells["I3D"])
    assert text.endswith("- NL: gain from 1 of its 2 seeds, the one that C2D has too")


def test_columns_of_which_a_study_says_nothing_are_left_out(tmp_path: Path, recipe: Recipe, results: Path) -> None:
    path = tmp_path / "bare.yaml"
    path.write_text(
        "{name: bare, title: Bare, recipe: quick, variants: {plain: {net: {depth: 50}}},"
        " tables: {t: {caption: T, rows: [{label: 'a|b', variant: plain}]}}}"
    )
    made = report(collect(load_study(path), recipe, results))
    assert study_markdown(made).startswith("# Bare\n\nRecipe quick.\n")
    assert table_markdown(made, made.runs.study.tables["t"]) == (
        "|      |     top-1 | top-5 |      n |\n"
        "| ---- | --------: | ----: | -----: |\n"
        "| a\\|b | *missing* |       | 0 of 1 |"
    )


def test_the_heading_says_what_may_be_compared(mixed: Report) -> None:
    recipe = replace(mixed.runs.recipe, name="kinetics400_paper")
    on_kinetics = replace(mixed, runs=replace(mixed.runs, recipe=recipe))
    assert heading(on_kinetics) == "Recipe kinetics400_paper, on kinetics400, the data of the reported numbers."
    assert "compare only the gains" in heading(mixed)
    unsaid = replace(mixed, runs=replace(mixed.runs, study=replace(mixed.runs.study, reported_on=None)))
    assert heading(unsaid).endswith(UNSAID)


SHARES = "The median gain is 15 % of what the baseline left to gain (100 minus its score); of the reported ones, 12 %."


@pytest.mark.parametrize(
    ("measured", "reported", "share"),
    [
        ([60] * 5, [50] * 5, f" {SHARES}"),
        ([100, 60, 60, 60, 60], [50, 50, 50, 50, 100],
         f" {SHARES} These are the medians of 3 rows: other baselines left nothing to gain."),
        ([100] * 5, [50] * 5, ""),
    ],
)  # fmt: skip
def test_gains_as_shares_of_what_was_left_to_gain(
    mixed: Report, measured: list[int], reported: list[int], share: str
) -> None:
    """A baseline of 100 % left nothing, whether it was measured or reported."""
    rows = pd.DataFrame({"variant": list("abcde"), "baseline": "plain", "gain": [2, 4, 6, 8, 10]})
    rows = rows.assign(reported_gain=rows["gain"], top1=rows["gain"] + measured, reported_top1=rows["gain"] + reported)
    said = agreement(replace(mixed, rows=rows))
    assert said == f"Over 5 rows, measured and reported gains have a rank correlation of 1.00 [1.00, 1.00].{share}"


def test_numbers_stand_to_the_right() -> None:
    assert markdown_table([Column("", ["a", "bcde"], words=True), Column("x", ["1", "-10.0"])]) == (
        "|      |     x |\n| ---- | ----: |\n| a    |     1 |\n| bcde | -10.0 |"
    )


# -------------------------------------------------------------------------------------------------- broken records


@pytest.fixture
def broken(study: Study, recipe: Recipe, results: Path, measure: Measure) -> Report:
    """A run that diverged, a record of another version, one that is cut off, and one that is sound."""
    measure("plain", 0, 0.0, top5=0.0, diverged="the loss from step 120 on", params=1)
    for variant in ("block", "i3d", "both"):
        measure(variant, 0, 70.0)
    block, i3d = (record_path(results, "quick", name, 0) for name in ("block", "i3d"))
    block.write_text(json.dumps(json.loads(block.read_text()) | {"new_field": 1}))
    i3d.write_text(i3d.read_text()[:300])
    return report(collect(study, recipe, results))


def test_broken_records_are_holes_with_their_reasons(broken: Report, results: Path) -> None:
    """In every format; and no gain, interval or verdict is computed from them."""
    text = study_markdown(broken)
    rows = {
        line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[2:]]
        for line in text.splitlines()
        if "|" in line
    }
    assert rows["C2D"][:4] == ["*missing*", "", "0 of 1", ""]  # the last of that name, in table b
    assert rows["NL"][:4] == ["*unreadable*", "", "0 of 1", ""]
    assert rows["I3D"][:4] == ["*unreadable*", "", "0 of 1", ""]
    assert rows["NL_I3D"][:4] == ["70.0", "97.0", "1", "*baseline diverged*"]
    assert re.search(r"\| C2D +\| +\*diverged\* \|", text), text
    assert "- C2D: seed 0 diverged: the loss from step 120 on\n" in text
    assert re.search(r"- NL: seed 0 unreadable: .*block/seed0.json: unknown key 'new\\?_field'", text)
    assert re.search(r"- I3D: seed 0 unreadable: .*i3d/seed0.json: isn't JSON", text)
    assert "| NL - C2D             | above 0.5   |     +1.1 | *unreadable* |" in text
    assert "Nothing is known of NL (unreadable), C2D (diverged), I3D (unreadable)." in text
    assert "- runs: 1 of 5 done, 1 diverged, 1 missing, 2 unreadable" in text
    assert broken.rows["gain"].isna().all()
    assert [verdict.word for verdict in broken.verdicts] == ["undecided"] * 3 + ["not testable"]
    shown = printed(broken)
    assert re.search(r" C2D +diverged +0 of 1", shown), shown
    assert "C2D: seed 0 diverged: the loss from step 120 on" in shown
    for path in [*write_tables(broken, results), write_html(broken, results)]:
        if path.name not in ("small_b.md", "small_b.tex", "small_b.csv"):
            content = path.read_text()
            assert "diverged: the loss from step 120 on" in content, path
            assert "isn't JSON" in content.replace("&#39;", "'"), path
            assert "nan" not in re.sub("[a-z]nan|nan[a-z]", "", content).lower(), path


def test_a_seed_that_diverged_is_left_out(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    for seed, top1 in enumerate((60.0, 62.0)):
        measure("plain", seed, top1)
        measure("block", seed, top1 + 6)
    measure("plain", 2, 0.0, top5=0.0, diverged="the logits of a test video")
    measure("block", 2, 70.0)
    made = report(collect(study, recipe, results))
    plain, block = made.lines["a"][:2]
    assert (plain["state"], plain["n"], plain["top1"]) == ("partial", 2, 61.0)
    assert (block["state"], block["n"], block["gain"], block["gain_n"]) == ("ok", 3, 6.0, 2)
    assert "- C2D: seed 2 diverged: the logits of a test video" in table_markdown(made, study.tables["a"])


# --------------------------------------------------------------------------------------------------- text from outside


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NL_I3D, c2d_r50", "NL_I3D, c2d_r50"),  # within a word, an underscore is one
        ("_a_ __b__", r"\_a\_ \_\_b\_\_"),
        ("*a* `b` ~~c~~ a|b \\", r"\*a\* \`b\` &#126;&#126;c&#126;&#126; a\|b " + 2 * "\\"),
        ("<script>x</script> <!-- results:end --> a < 1", "&lt;script>x&lt;/script> &lt;!-- results:end --> a < 1"),
        ("&lt; &#60; R & D", "&amp;lt; &amp;#60; R & D"),
        ("[a](http://b) ![c][d] [+1.0 [0.1, 2.0]]", r"\[a]\(http&#58;//b) ![c]\[d] [+1.0 [0.1, 2.0]]"),
        ("https://a www.b", r"https&#58;//a www\.b"),
        ("# a", r"\# a"),
        ("- a", r"\- a"),
        ("+ a", r"\+ a"),
        ("> a", r"\> a"),
        ("= a", "&#61; a"),
        ("1. a", r"1\. a"),
        ("12) a", r"12\) a"),
        ("[ ] a", r"\[ ] a"),
        ("+1.5 [0.1, 2.9]", "+1.5 [0.1, 2.9]"),
        ("66.8", "66.8"),
        ("-0.5", "-0.5"),
        ("two\nlines\x85 and\u2028more", "two lines and more"),
        ("\x1b[31mred\x07", r"\\x1b[31mred\\x07"),
        ("\udcff", r"\\udcff"),
    ],
)
def test_a_text_is_never_markdown(text: str, expected: str) -> None:
    assert markdown(text) == expected


OUTSIDE = "x <img src=x onerror=alert(1)> [a](http://b) | `c`\n# d\x1b[2J"


@pytest.fixture
def outside(said_by_others: Callable[[str], Report]) -> Report:
    return said_by_others(OUTSIDE)


def test_a_label_may_hold_the_mark_at_the_end_of_the_results(
    said_by_others: Callable[[str], Report], tmp_path: Path
) -> None:
    readme, found = tmp_path / "README.md", said_by_others("<!-- results:end -->")
    readme.write_text("<!-- results:start -->\n<!-- results:end -->\n")
    update_readme(readme, found, tmp_path / "small.md")
    once = readme.read_text()
    update_readme(readme, found, tmp_path / "small.md")
    assert readme.read_text() == once


def test_text_from_outside_is_no_markdown(outside: Report) -> None:
    for text in (study_markdown(outside), readme_block(outside, "small.md").replace("](small.md)", "")):
        assert not re.search(r"<img|(?<!\\)(\]\(|`|\x1b)", text)
        assert not re.search(r"(?m)^# d", text)
        body = [line for line in text.splitlines() if line.startswith("|")]
        for block in re.findall(r"(?m)(?:^\|.*\n?)+", text):  # each row has its header's cells
            assert len({len(re.findall(r"(?<!\\)\|", row)) for row in block.splitlines()}) == 1
        assert body


def test_text_from_outside_is_no_command_to_the_terminal(outside: Report) -> None:
    text = printed(outside)
    assert "\x1b" not in text
    assert r"\x1b[2J" in text


def test_text_from_outside_is_no_formula(study: Study, recipe: Recipe, results: Path) -> None:
    rows = tuple(replace(study.tables["a"].rows[0], label=label) for label in ("=1+1", "+a", "-b", "@c", " =d\ne", "f"))
    shown = replace(study, tables={"a": replace(study.tables["a"], rows=rows)}, claims=())
    text = table_csv(report(collect(shown, recipe, results)), shown.tables["a"])
    assert [line["label"] for line in csv.DictReader(io.StringIO(text))] == ["'=1+1", "'+a", "'-b", "'@c", "'=d e", "f"]


def test_counts_of_one_are_english(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    for variant, right in (("plain", 240), ("block", 300)):
        read = {"read_videos": pack([i > 0 for i in range(400)]), "videos_scored": 399} if variant == "plain" else {}
        bits = pack([0 < i <= right for i in range(400)])
        measure(variant, 0, right / 4, right_top1=bits, videos_hash="0123456789ab", **read)
    claim = replace(study.claims[0], parts=(Part("direction", "It helps.", study.claims[0].checks[:1]),))
    text = study_markdown(report(collect(replace(study, claims=(claim,)), recipe, results)))
    assert "The one claim has 1 part: 1 was seen once, as claimed (helps)." in text
    assert "- NL: gain without 1 video that one of the two couldn't read" in text
    assert "- recipe: quick; seed: 0\n" in text


# ------------------------------------------------------------------------------------------------------------ LaTeX


# "//" stands for a line that goes on.
LATEX = r"""% Table b of study small, recipe quick. Generated: don't edit.
% It compiles as it is, with pdflatex, and is no wider than \columnwidth. To have it in a document of yours,
% \usepackage{booktabs,graphicx} and \input this file within a table: the rest is skipped there.
\def\nlfinish{}
\expandafter\ifx\csname @nodocument\endcsname\relax\else
\documentclass[twocolumn]{article}
\usepackage{booktabs,graphicx}
\setlength{\parindent}{0pt}
\begin{document}\sloppy
Table b. Long clips\par\medskip The reported columns are the paper's, on kinetics400. This is recipe //
quick, on other data: compare only the gains, not the accuracies.\par\medskip
\def\nlfinish{\par\medskip Gains are over runs outside this table: C2D over C2D (a)\par Accuracies are percent of the //
test videos: means over n seeds, $\pm$ their sample standard deviation. Gains are points of top-1 over the row's own //
baseline, from the seeds that both have, with 95 \% intervals, paired by video. With one seed an interval is over //
videos only: another training may differ by more. $\dagger$ from accuracies alone, since the records don't say which //
videos were right: too wide.\end{document}}
\fi
\begingroup\footnotesize\setlength{\tabcolsep}{3pt}\sbox0{%
\begin{tabular}{@{}lrrrr@{}}
\toprule
 & \multicolumn{2}{c}{measured} & \multicolumn{2}{c}{reported} \\
\cmidrule(lr){2-3}\cmidrule(lr){4-5}
 & top-1 & gain & top-1 & gain \\
\midrule
C2D & 63.0 & $-$1.0 {\scriptsize [$-$7.7, 5.7]$\dagger$} & 73.8 & +2.0 \\
\bottomrule
\end{tabular}}\ifdim\wd0>\linewidth\resizebox{\linewidth}{!}{\usebox0}\else\usebox0\fi\endgroup
\nlfinish
""".replace("//\n", "")


@pytest.mark.usefixtures("one_seed")
def test_a_table_as_latex(study: Study, recipe: Recipe, results: Path) -> None:
    assert table_latex(report(collect(study, recipe, results)), study.tables["b"]) == LATEX


NASTY = r"5% of $x_1$ & {y} #2 ~ ^ \z <a|b> ± `c`"
LABELS = {
    NASTY: r"5\% of \$x\_1\$ \& \{y\} \#2 \textasciitilde{} \textasciicircum{} \textbackslash{}z "
    r"$<$a$|$b$>$ $\pm$ {`}c{`}",
    "[ours] NL": "{[}ours] NL",  # after the end of a row, it would be how far to skip
    "* ours": "{*} ours",
    "naïve \u03b1=0.5 → Δ": r"na\"{\i}ve $\alpha$=0.5 $\rightarrow$ $\Delta$",
    "中 \U0001f600": r"\nlletter{4E2D} \nlletter{1F600}",
    "two\nlines\r\x1b[31m": r"two lines \textbackslash{}x1b[31m",
    "a--b ''c'' -3": "a-{}-b '{}'c'{}' $-$3",
    "\udcff": r"\textbackslash{}udcff",  # half a character, as JSON can have it
    "": "",
}


@pytest.mark.parametrize(("label", "expected"), LABELS.items())
def test_a_label_is_never_latex(label: str, expected: str) -> None:
    assert latex(label) == expected
    assert latex(label).isascii()


@pytest.fixture
def latex_files(mixed: Report, results: Path) -> list[Path]:
    """Table 2 of the committed records, and the small study with everything that can go wrong in a label."""
    table = mixed.runs.study.tables["a"]
    long = "A label that is much too long for a column of any paper, whatever its letters are, " * 2
    rows = tuple(replace(table.rows[0], label=label) for label in (*LABELS, long, *(chr(c) for c in LETTERS)))
    nasty = replace(mixed.runs.study, tables={"a": replace(table, caption=NASTY, rows=(*table.rows, *rows))})
    earlier = REPOSITORY / "results" / "earlier" / "longrange"
    table2 = collect(load_study(find_study("table2")), load_recipe(earlier / "longrange.yaml"), earlier)
    made = [report(replace(mixed.runs, study=nasty)), report(table2)]
    paths = [path for one in made for path in write_tables(one, results)]
    return [path for path in paths if path.suffix == ".tex"]


# Letters of Europe and Greece, general punctuation, arrows, a few from everywhere else.
LETTERS = [
    *range(0xA1, 0x180),
    *range(0x391, 0x3CA),
    *range(0x2010, 0x2028),
    *range(0x2190, 0x2200),
    0x416,
    0x5D0,
    0xAC00,
]


def test_latex_is_well_formed(latex_files: list[Path]) -> None:
    """What a compiler would trip over, for machines without one."""
    assert [path.stem for path in latex_files] == [
        "small", "small_a", "table2", "table2a", "table2b", "table2c", "table2d", "table2e", "table2f", "table2g",
    ]  # fmt: skip
    for path in latex_files:
        text = path.read_text()
        assert text.isascii()
        code = re.sub(r"(?m)^%.*$", "", text)
        assert code.replace(r"\{", "").count("{") == code.replace(r"\}", "").count("}")
        tables = re.findall(r"(?s)\\begin{tabular}{@{}(l+r+)@{}}\n(.*?)\\end{tabular}", code)
        assert len(tables) == code.count(r"\begin{tabular}") == (7 if path.stem == "table2" else 1)
        for layout, body in tables:
            rules = [body.index(rule) for rule in (r"\toprule", r"\cmidrule", r"\midrule", r"\bottomrule")]
            assert rules == sorted(rules)
            for row in re.sub(r"\\(top|mid|bottom)rule|\\cmidrule\(lr\){\d-\d+}", "", body).splitlines():
                if row:
                    assert row.endswith(r" \\")
                    spans = [int(span) - 1 for span in re.findall(r"\\multicolumn{(\d+)}", row)]
                    assert len(re.findall(r"(?<!\\)&", row)) + sum(spans) == len(layout) - 1
                    assert not re.search(r"(?<!\\)[_#%~^]", row.replace(r"\textasciitilde{}", ""))
    assert r"\emph{missing}" in latex_files[1].read_text()


@pytest.fixture(scope="module")
def pdflatex(tmp_path_factory: pytest.TempPathFactory) -> Callable[[Path], str]:
    """Compile a file, and give what was printed."""
    if shutil.which("pdflatex") is None:
        pytest.skip("no pdflatex here: apt-get install texlive-latex-base texlive-latex-recommended")
    folder = tmp_path_factory.mktemp("latex")

    def compiled(source: Path) -> str:
        command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-no-shell-escape", str(source)]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, errors="replace", timeout=240)
        assert done.returncode == 0, done.stdout[-2000:]
        assert "Output written" in done.stdout
        return done.stdout

    return compiled


def test_latex_compiles_and_fits(latex_files: list[Path], pdflatex: Callable[[Path], str], tmp_path: Path) -> None:
    """Its own page, and a paper of two columns."""
    for source in (*latex_files[:4], latex_files[7]):  # 2e is the widest of Table 2
        assert "Overfull \\hbox" not in pdflatex(source)
    inputs = [rf"\begin{{table}}\caption{{{i}}}\input{{{path}}}\end{{table}}" for i, path in enumerate(latex_files)]
    inputs[2] = inputs[2].replace("{table}", "{table*}")  # the whole of Table 2
    own = tmp_path / "own.tex"
    for size in ("10pt", "12pt,draft"):
        start = rf"\documentclass[twocolumn,{size}]{{article}}\usepackage{{booktabs,graphicx}}\begin{{document}}"
        own.write_text("\n".join([start, *inputs[1:], r"\typeout{GOT HERE}\end{document}"]))
        said = pdflatex(own)
        assert "GOT HERE" in said
        assert "Overfull \\hbox" not in said


def test_columns_can_be_chosen(mixed: Report) -> None:
    text = table_latex(mixed, mixed.runs.study.tables["a"], ["top-1", "reported top-5", "FLOPs"])
    assert " & top-1 & FLOPs & top-5 \\\\" in text
    assert r" & \multicolumn{2}{c}{measured} & \multicolumn{1}{c}{reported} \\" in text
    with pytest.raises(UserError, match=r"--columns: no table has a column 'top1'; did you mean 'top-1'\?"):
        table_latex(mixed, mixed.runs.study.tables["a"], ["top1"])


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


def test_the_files(mixed: Report, results: Path) -> None:
    written = write_tables(mixed, results)
    folder = results / "tables" / "quick"
    names = ["small.md", "small.tex"] + [f"small_{table}.{kind}" for table in "ab" for kind in ("md", "tex", "csv")]
    assert [path.relative_to(folder).name for path in written] == names
    assert sorted(path.name for path in folder.iterdir()) == sorted(names)
    assert (folder / "small.md").read_text() == STUDY_MARKDOWN
    assert (folder / "small_a.csv").read_text() == CSV
    table_b = (folder / "small_b.md").read_text()
    assert table_b.startswith("# Table b. Long clips\n\nThe reported columns are the paper's, on kinetics400.")

    before = {path: path.stat().st_mtime_ns for path in written}
    (folder / "small_b.md").write_text(table_b + "edited")
    write_tables(mixed, results)
    assert (folder / "small_b.md").read_text() == table_b
    assert [path.name for path in written if path.stat().st_mtime_ns != before[path]] == ["small_b.md"]


def test_files_of_another_study_stay(mixed: Report, results: Path) -> None:
    """Table a of the study small, and a study small_a, ask for the same names."""
    write_tables(mixed, results)
    page = results / "tables" / "quick" / "small_a.md"
    before, other = page.read_bytes(), replace(mixed.runs.study, name="small_a")
    with pytest.raises(
        UserError, match=r"small_a\.tex is there .* didn't write it for the study small_a: name another"
    ):
        write_tables(report(replace(mixed.runs, study=other)), results)
    assert page.read_bytes() == before
    with overwriting(True):
        write_tables(report(replace(mixed.runs, study=other)), results)
    assert page.read_bytes() != before


def test_a_table_with_the_name_of_its_study_leaves_the_page_of_the_study(mixed: Report, results: Path) -> None:
    tables = {"5": replace(mixed.runs.study.tables["a"], name="5")}
    study = replace(mixed.runs.study, name="table5", tables=tables)
    written = write_tables(report(replace(mixed.runs, study=study)), results)
    assert [path.name for path in written] == ["table5.md", "table5.tex", "table5.csv"]
    assert "\n## Claims\n" in written[0].read_text()
    assert written[1].read_text().startswith("% All tables of study table5,")


def test_tables_that_ask_for_one_name_have_files_of_their_own(mixed: Report, results: Path) -> None:
    tables = {name: replace(mixed.runs.study.tables["a"], name=name) for name in ("2_a", "a")}
    written = write_tables(
        report(replace(mixed.runs, study=replace(mixed.runs.study, name="table2", tables=tables))), results
    )
    assert [path.stem for path in written[2:]] == [*["table2_a"] * 3, *["table2_a_"] * 3]


def test_the_readme_block(mixed: Report, tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("# Mine\n<!-- results:start -->\nold\n<!-- results:end -->\nafter\n")
    update_readme(readme, mixed, tmp_path / "the tables" / "small.md")
    text = readme.read_text()
    assert text == (
        f"# Mine\n<!-- results:start -->\n{readme_block(mixed, 'the%20tables/small.md')}\n<!-- results:end -->\nafter\n"
    )
    assert "old" not in text
    assert "### Table a. Blocks & costs\n\n|        |      top-1 |      n |              gain |" in text  # no top-5
    assert "claims" not in text  # nothing could be compared
    before = readme.stat().st_mtime_ns
    update_readme(readme, mixed, tmp_path / "the tables" / "small.md")
    assert readme.stat().st_mtime_ns == before
    readme.write_bytes(b"Windows\r\n<!-- results:start -->\r\n<!-- results:end -->\r\n")
    update_readme(readme, mixed, tmp_path / "small.md")
    assert readme.read_bytes().count(b"\r\n") == readme.read_bytes().count(b"\n") > 10  # as Windows ends lines


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
def test_a_readme_without_its_marks_is_left_alone(mixed: Report, tmp_path: Path, text: str) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(text)
    with pytest.raises(
        UserError, match=r"README.md: expected the lines <!-- results:start --> and <!-- results:end -->"
    ):
        update_readme(readme, mixed, tmp_path / "the tables" / "small.md")
    assert readme.read_text() == text
    with pytest.raises(UserError, match=r"NONE.md: can't be read"):
        update_readme(tmp_path / "NONE.md", mixed, readme)


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
  Gains are over runs outside this table: C2D over C2D (a)

runs: 5 of 15 done, 7 missing, 3 stale
"""


def printed(made: Report, tables: list[str] | None = None) -> str:
    console = Console(width=80, file=io.StringIO())
    print_study(console, made, tables)
    assert isinstance(console.file, io.StringIO)
    return "".join(f"{line.rstrip()}\n" for line in console.file.getvalue().splitlines())


def test_the_terminal(mixed: Report) -> None:
    assert printed(mixed) == TERMINAL
    assert "Table a" not in printed(mixed, ["b"])
    assert printed(mixed, ["b", "b"]) == printed(mixed, ["b"])
    with pytest.raises(UserError, match="no table 'c'"):
        printed(mixed, ["c"])


def test_an_empty_folder_is_said(study: Study, recipe: Recipe, results: Path) -> None:
    assert printed(report(collect(study, recipe, results))).endswith(
        "\nruns: 0 of 5 done, 5 missing\nnothing is measured yet: no record of recipe quick counts\n"
    )


def test_table2_fits_80_columns(recipe: Recipe, results: Path) -> None:
    text = printed(report(collect(load_study(find_study("table2")), recipe, results, seeds=[0, 1, 2])))
    assert all(len(line) <= 80 for line in text.splitlines())
    assert " R101 C2D baseline  missing  0 of 3            +2.2      75.3\n" in text
