"""The page as text, and, where a Chromium is installed, as a reader sees it."""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from browser import CHROMIUM, Browser

from nl_lightning.report.claims import Report, report
from nl_lightning.report.collate import collect
from nl_lightning.report.html import Axis, around, axis_for, page, write_html
from nl_lightning.report.words import interval, number
from nl_lightning.study.checks import Check, Part, Share
from nl_lightning.study.loading import load_study
from nl_lightning.study.metrics import Metric
from nl_lightning.study.packing import pack
from nl_lightning.study.recipe import Recipe, load_recipe
from nl_lightning.study.records import Record
from nl_lightning.study.study import Study

REPOSITORY = Path(__file__).parent.parent.parent
COMMITTED = REPOSITORY / "results" / "tables" / "longrange" / "table2.html"
NASTY = """<script>alert("x")</script> & 'y' 100%"""

Measure = Callable[..., Record]


class Page(HTMLParser):
    """Tags and links of a page; fails on a tag that isn't closed where it should be."""

    VOID = ("meta", "link", "br")

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.ids: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.feed(path.read_text(encoding="utf-8"))
        assert not self.open

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in self.VOID:
            self.open.append(tag)
        of = dict(attributes)
        if of.get("id"):
            self.ids.append(str(of["id"]))
        if tag == "a":
            self.links.append(str(of["href"]))

    def handle_startendtag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def resolve(page: Path) -> None:
    """Every link leads to a place in the page or to a file."""
    found = Page(page)
    assert len(set(found.ids)) == len(found.ids)
    for link in found.links:
        assert link[:1] == "#"
        assert link[1:] in found.ids, link


@pytest.fixture
def varied(study: Study, recipe: Recipe, results: Path, measure: Measure) -> Path:
    """A page with everything that can happen: three seeds, a hole, a record that is stale, a name that is nasty."""
    right = {"videos_hash": "0123456789ab", "videos_expected": 400, "videos_scored": 400}
    curve = [{"step": 10.0 * i, "train/top1": 20.0 + 5 * i, "val/top1": 30.0 + i // 2} for i in range(1, 6)]
    for seed in range(3):
        for variant, share in (("plain", 240 + seed), ("block", 280 - seed)):
            bits = pack([i < share for i in range(400)])
            measure(variant, seed, share / 4, right_top1=bits, curve=curve, top1_by_group={"look": share / 4}, **right)
    measure("i3d", 0, 65.0, params=48_000, macs=3_000_000, curve=curve[:1])
    measure("both", 0, 65.0, config_hash="0123456789ab")
    table = study.tables["a"]
    rows = (replace(table.rows[0], label=NASTY), *table.rows[1:])
    tables = {**study.tables, "a": replace(table, rows=rows, caption=NASTY)}
    shown = replace(study, title=NASTY, tables=tables, reported_videos=19_761)
    return write_html(report(collect(shown, recipe, results)), results)


def test_the_page_stands_alone_and_its_links_resolve(varied: Path) -> None:
    text = varied.read_text()
    found = Page(varied)
    assert "script" not in found.tags
    assert not re.search(r"(?:src|@import|url\()", text.replace("data:,", ""))
    assert not re.search(r"https?://", text)
    resolve(varied)
    assert all(link.startswith("#") for link in found.links)  # no other file is needed
    assert "#run-block" in found.links  # three seeds: the list of its records
    assert "<code>records/quick/RUN/seedSEED.json</code>" in varied.read_text()


def test_what_the_page_says(varied: Path) -> None:
    text = varied.read_text()
    assert "&lt;script&gt;alert(" in text
    assert "<script>" not in text
    for said in (
        "stale",
        "missing",
        "claim-helps",
        "It waits for NL_I3D (a).",
        "+9.5\u00a0[",
        "An interpretation.",
        "†",
    ):
        assert said in text, said
    assert text.count('class="mean"') >= 8
    assert "NaN" not in text
    assert "nan%" not in text


def test_curves_are_the_records(varied: Path) -> None:
    """Each polyline, read back by its frame's ticks, is what the records say: (iterations, error)."""
    drawn = [[tuple(map(float, pair.split(","))) for pair in line.split(" ")]
             for line in re.findall(r'<polyline class="above val" points="(.*?)"', varied.read_text())]  # fmt: skip
    assert len(drawn) == 2  # plain and block; i3d has one point
    x, y = Axis(0.0, 50.0, 34, 184), Axis(0.0, 1.05 * 75, 104, 6)
    expected = [(10.0 * i, 100 - (30.0 + i // 2)) for i in (1, 2, 4)]  # what repeats an earlier point is left out
    for line in drawn:
        assert line == [(pytest.approx(x.at(step), abs=0.1), pytest.approx(y.at(e), abs=0.1)) for step, e in expected]


def test_text_from_outside_is_no_html(said_by_others: Callable[[str], Report], results: Path) -> None:
    path = write_html(said_by_others(NASTY), results)
    assert "script" not in Page(path).tags
    assert path.read_text().count("&lt;script&gt;alert(") > 20
    resolve(path)


def test_numbers_do_not_break_over_lines(varied: Path) -> None:
    """A no-break space where a line must not end: p < 0.001, 95 %, +9.5 [0.3, 18.6], ± 1.0."""
    words = re.sub(r"<style>.*?</style>|<[^>]*>", "", varied.read_text(), flags=re.DOTALL)
    assert not re.search(r"\d %|\bp [<=]|[<=±] \d|\d [±\[]|\[-?[\d.]+, ", words)
    assert re.search(r"p\u00a0[<=]\u00a0\d", words)
    assert "95\u00a0%" in words.replace("&nbsp;", "\u00a0")


def test_charts_name_their_axes(varied: Path) -> None:
    text = varied.read_text()
    for name in (
        "points of top-1",
        "iterations",
        "error, %",
        "FLOPs, as multiples of the baseline&#39;s",
        "top-1, percent",
    ):
        assert f">{name}</text>" in text.replace("\u00a0", " "), name


def test_counts_are_english(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    bits = {"videos_hash": "0123456789ab", "params": 1, "macs": 1}
    for variant, right in (("plain", 200), ("block", 300), ("i3d", 200)):
        for seed in range(3):
            kept = pack([i < right for i in range(400)])
            measure(variant, seed, right / 4, right_top1=kept, **(bits | {"macs": right}))
    claims = tuple(replace(c, parts=(Part("size", "S.", c.checks[:1]),)) for c in study.claims[:2])
    text = write_html(report(collect(replace(study, claims=claims), recipe, results)), results).read_text()
    counts = re.findall(r'<li class="[\w-]+"><b>(\d)</b> ([\w ]+)</li>', text)
    assert counts == [("1", "holds"), ("1", "fails")]


def test_a_share_of_what_is_below_zero_is_no_place(
    study: Study, recipe: Recipe, results: Path, measure: Measure
) -> None:
    for variant, top1 in (("plain", 60.0), ("block", 50.0), ("i3d", 51.0)):
        measure(variant, 0, top1)
    check = Check("alike", ("block", "i3d"), within=Share(0.5, ("block", "plain")))
    claims = (replace(study.claims[1], parts=(Part("size", "S.", (check,)),)),)
    text = page(report(collect(replace(study, claims=claims), recipe, results)))
    assert text.count('class="claimed"') == 1  # that of the key
    assert 'width="-' not in text


def test_a_page_with_nothing_measured(study: Study, recipe: Recipe, results: Path) -> None:
    path = write_html(report(collect(study, recipe, results)), results)
    assert "Nothing is measured yet" in path.read_text()
    resolve(path)


def test_networks_without_an_error_have_curves(study: Study, recipe: Recipe, results: Path, measure: Measure) -> None:
    measure("plain", 0, 100.0, top5=100.0, curve=[{"step": 10.0, "val/top1": 100.0}])
    text = write_html(report(collect(study, recipe, results)), results).read_text()
    assert '<circle class="above val" cx="184.0" cy="104.0"' in text


def test_the_committed_page_is_that_of_the_committed_records() -> None:
    study = load_study(REPOSITORY / "experiments" / "table2.yaml")
    results = REPOSITORY / "results"
    runs = collect(study, load_recipe("longrange"), results)
    assert page(report(runs)) == COMMITTED.read_text()
    resolve(COMMITTED)
    found = re.findall(r'<th scope="row">(\S+)</th><td>(\d+)</td>', COMMITTED.read_text())
    assert len(found) == len(runs.records())
    assert all((results / f"records/longrange/{run}/seed{seed}.json").is_file() for run, seed in found)


def test_an_axis_has_round_ticks_and_zero() -> None:
    assert axis_for([3.0, 31.0]).ticks == [0.0, 10.0, 20.0, 30.0]
    assert axis_for([-0.4, 0.1]).ticks == pytest.approx([-0.4, -0.2, 0.0])
    assert axis_for([]).low < 0 < axis_for([]).high
    assert Axis(0.0, 10.0).at(20.0) == 100.0


@pytest.mark.parametrize("values", [[1e160, -1e160], [1e308, -1e308], [math.inf, 2.0], [math.nan], [1e200, 1e200]])
def test_an_axis_of_huge_numbers_can_be_drawn(values: list[float]) -> None:
    for axis in (axis_for(values), around(values, 0.1, 0.1)):
        assert len(axis.ticks) < 8
        assert all(0 <= axis.at(value) <= 100 for value in (*values, *axis.ticks))


def test_huge_numbers_are_short() -> None:
    assert number(1e160, ".1f") == "1e+160"
    assert number(-2.5e160, "+z.1f", "x") == "-2.5e+160x"
    assert interval(-1e160, 12.34) == "[-1e+160, 12.3]"
    assert Metric("a", "a", "A", unit="J").text(1e160) == "1e+160 J"


# --------------------------------------------------------------------------------------------------- in Chromium


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    with Browser() as one:
        yield one


@pytest.mark.parametrize(("width", "dark"), [(390, False), (390, True), (800, False), (1400, True)])
def test_the_committed_page_in_a_browser(browser: Browser, width: int, dark: bool) -> None:
    browser.open(COMMITTED, width, dark)
    assert browser.errors == []
    assert browser.run(SIDEWAYS) == 0
    assert browser.run("matchMedia('(prefers-color-scheme: dark)').matches") is dark
    assert browser.run(WEAK_CONTRAST) == []


@pytest.mark.parametrize("width", [390, 800, 1400])
def test_headers_stand_over_their_columns(browser: Browser, varied: Path, width: int) -> None:
    """Of every table that is laid out as one, as far as its header is shown; and no page scrolls sideways."""
    for path in (COMMITTED, varied):
        browser.open(path, width)
        assert browser.errors == []
        assert browser.run(OFF_COLUMN) == []
        assert browser.run(SIDEWAYS) == 0


def test_the_page_by_keyboard_and_in_print(browser: Browser) -> None:
    """Every link and every box that scrolls can be reached; in print nothing is cut off."""
    browser.open(COMMITTED, 800)
    reachable = "[...document.querySelectorAll('a[href], .scroll')].every(e => e.tabIndex === 0)"
    assert browser.run(reachable) is True
    assert browser.run("[...document.querySelectorAll('.scroll')].every(e => e.getAttribute('aria-label'))") is True
    browser.call("Input.dispatchKeyEvent", type="rawKeyDown", key="Tab", code="Tab", windowsVirtualKeyCode=9)
    assert browser.run("document.activeElement.className") == "skip"
    browser.open(COMMITTED, 720, media="print")  # A4 without its margins, in CSS pixels
    assert browser.run("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert browser.run(SIDEWAYS) == 0


# How far the page scrolls sideways.
SIDEWAYS = "document.documentElement.scrollWidth - document.documentElement.clientWidth"

# Header cells that don't span the same pixels as the cells below them, as "text: left, left below".
OFF_COLUMN = """
[...document.querySelectorAll('table')].filter(t => getComputedStyle(t).display === 'table').flatMap(t => {
  const edges = row => [...row.cells].filter(c => c.getClientRects().length).map(c => c.getBoundingClientRect());
  const head = edges(t.tHead.rows[t.tHead.rows.length - 1]), body = edges(t.tBodies[0].rows[0]);
  if (head.length !== body.length) return [`${head.length} headers over ${body.length} columns`];
  return head.map((e, i) => Math.abs(e.left - body[i].left) + Math.abs(e.right - body[i].right))
    .flatMap((off, i) => off > 1 ? [`column ${i}: ${off} pixels off`] : []);
})
"""

# Text whose contrast with the page is below WCAG's 4.5 (3 for large letters), as "tag.class ratio".
WEAK_CONTRAST = """
(() => {
  const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
  const rgb = (...layers) => {
    canvas.clearRect(0, 0, 1, 1);
    for (const layer of layers) { canvas.fillStyle = layer; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = c => c.map(v => v / 255).map(v => v <= .04045 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const backs = e => e ? [...backs(e.parentElement), getComputedStyle(e).backgroundColor] : [];
  const weak = new Set();
  for (const e of document.querySelectorAll('body *')) {
    if (![...e.childNodes].some(n => n.nodeType === 3 && n.data.trim()) || !e.getClientRects().length) continue;
    const style = getComputedStyle(e), behind = backs(e);
    const ink = e instanceof SVGElement ? style.fill : style.color;
    const [a, b] = [light(rgb(...behind, ink)), light(rgb(...behind))];
    const ratio = (Math.max(a, b) + .05) / (Math.min(a, b) + .05);
    const least = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
    if (ratio < least) weak.add(e.tagName + '.' + e.className + ' ' + ratio.toFixed(2));
  }
  return [...weak];
})()
"""
