"""The docs site is built strict, without a network, and its pages say what is true now."""

import contextlib
import importlib.util
import io
import re
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
from browser import CHROMIUM, PATIENCE, Browser
from mkdocs.commands.build import build
from mkdocs.config import load_config

import nl_lightning as nl
from nl_lightning.cli import table

ROOT = Path(__file__).parent.parent
PLAIN = ("", "text")  # languages of blocks whose lines are wrapped
WIDTH = 80  # characters of a block between the two columns of links; a page of 800 pixels shows some more
PAGES = ["docs/start.md", "docs/block.md"]  # tests/test_wheel.py runs that of README.md


def module(name: str) -> ModuleType:
    """A script of docs/."""
    spec = importlib.util.spec_from_file_location(f"docs_{name}", ROOT / "docs" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = made
    spec.loader.exec_module(made)
    return made


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The site. MkDocs stops at a link that leads nowhere, and at a page that the nav lacks."""
    folder = tmp_path_factory.mktemp("site")
    config = load_config(str(ROOT / "mkdocs.yml"), site_dir=str(folder))
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(ROOT)
        config.plugins.on_startup(command="build", dirty=False)
        build(config)
    return folder


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_site_needs_no_network(site: Path) -> None:
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        text = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="?([^" >]+)|<link[^>]* href="?([^" >]+)', text)
        assert not [one for pair in loaded for one in pair if one.startswith(("http", "//"))], page


def test_every_page_has_its_place(site: Path) -> None:
    for page in (ROOT / "docs").rglob("*.md"):
        assert (site / page.relative_to(ROOT)).with_suffix(".html").exists()
    for command in table.COMMANDS:
        assert f"nl-lightning {command}" in (site / f"commands/{command}.html").read_text(encoding="utf-8")
    api = (site / "api/index.html").read_text(encoding="utf-8")
    assert not [name for name in nl.__all__ if name[0] != "_" and f'id="nl_lightning.{name}"' not in api]


@pytest.mark.skipif(CHROMIUM is None, reason="no browser")
def test_it_can_be_searched_from_a_disk(site: Path) -> None:
    search = """document.getElementById("__search").click()
    const box = document.querySelector(".md-search__input")
    box.focus(), box.value = "softmax", box.dispatchEvent(new KeyboardEvent("keyup"))"""
    end = time.monotonic() + PATIENCE
    with Browser() as browser:
        browser.open(site / "index.html", 1300)
        browser.run(search)
        while not browser.run("document.querySelectorAll('.md-search-result__item').length"):
            assert time.monotonic() < end
            time.sleep(0.1)
        assert not browser.errors


def test_the_first_page_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").split()) <= 1500


def test_code_fits_on_a_narrow_page() -> None:
    """That of pages written by hand; commands are wrapped."""
    for page in [ROOT / "README.md", ROOT / "experiments/README.md", *ROOT.glob("docs/**/*.md")]:
        for language, block in re.findall(r"^```(\w*)\n(.*?)^```", page.read_text(encoding="utf-8"), re.M | re.S):
            long = [line for line in block.splitlines() if len(line) > WIDTH and language not in PLAIN]
            assert not long, page


def test_output_and_formulas_are_made(site: Path) -> None:
    assert "did you mean" in (site / "commands/status.html").read_text(encoding="utf-8")
    formulas = (site / "docs/mathematics.html").read_text(encoding="utf-8")
    assert formulas.count('<math xmlns="http://www.w3.org/1998/Math/MathML" display="block"') == 7
    assert 'arithmatex">\\' not in formulas
    for page in site.rglob("*.html"):
        assert str(ROOT) not in page.read_text(encoding="utf-8"), page


def test_the_figures_are_those_that_the_script_draws() -> None:
    """But for the last digits of coordinates, which differ between processors."""
    draw, number = module("draw"), re.compile(rb"-?\d+(?:\.\d+)?")
    for name, function in draw.DRAWN.items():
        drawn, shown = draw.svg(function()), (ROOT / "docs/figures" / f"{name}.svg").read_bytes()
        assert number.sub(b"#", drawn) == number.sub(b"#", shown)
        of = (list(map(float, number.findall(each))) for each in (drawn, shown))
        assert max(abs(a - b) for a, b in zip(*of, strict=True)) < 1e-4


@pytest.mark.parametrize("page", PAGES)
def test_the_python_of_a_page_runs(page: str) -> None:
    names: dict[str, object] = {}
    said = io.StringIO()
    with contextlib.redirect_stdout(said):
        for block in re.findall(r"```python\n(.*?)```", (ROOT / page).read_text(encoding="utf-8"), flags=re.S):
            exec(compile(block, page, "exec"), names)
    assert not said.getvalue() or said.getvalue().startswith("tensor(0.")
