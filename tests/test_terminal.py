"""Text from outside never reaches the terminal as markup, or as a command to it: there is one way to print."""

import ast
import io
from pathlib import Path

import pytest

import nl_lightning
from nl_lightning.errors import bars, terminal

PACKAGE = Path(nl_lightning.__file__).parent
MODULES = sorted(path.relative_to(PACKAGE) for path in PACKAGE.rglob("*.py"))
RAW = {
    "cli/__init__.py", "cli/parsing.py", "cli/table.py",  # the version and our own pages
    "cli/videos.py",  # JSON, which escapes
    "errors.py",
}  # fmt: skip
"""Modules that may call print(): with nothing from outside, or through visible()."""


@pytest.mark.parametrize("module", MODULES, ids=str)
def test_whatever_is_printed_goes_through_the_terminal(module: Path) -> None:
    tree = list(ast.walk(ast.parse((PACKAGE / module).read_text())))
    calls = [node for node in tree if isinstance(node, ast.Call)]
    names = {ast.unparse(call.func).rpartition(".")[2] for call in calls}
    imports = [node for node in tree if isinstance(node, ast.ImportFrom) and str(node.module).startswith("rich")]
    from_rich = {name.name for node in imports for name in node.names}
    if str(module) != "errors.py":
        assert not names & from_rich & {"Console", "Progress", "track"}, "use errors.terminal, errors.bars"
    assert "from_markup" not in names
    markup = [keyword for call in calls for keyword in call.keywords if keyword.arg in ("markup", "emoji")]
    assert all(ast.unparse(keyword.value) == "False" for keyword in markup)
    printed = [call for call in calls if ast.unparse(call.func) == "print"]
    raw = [call for call in printed if not all(ast.unparse(word).startswith("visible(") for word in call.args)]
    assert str(module) in RAW or not raw, "use errors.say, or errors.visible"


def test_the_names_of_bars_are_no_markup() -> None:
    console = terminal()
    console.file = io.StringIO()
    with bars(console=console) as shown:
        shown.add_task("decoding [/data] [red]x\x1b[2J", total=1)
        list(shown.track([1], description="[/]"))
    assert "decoding [/data] [red]x\\x1b[2J" in console.file.getvalue()
    assert "\n[/]" in console.file.getvalue()
