"""What the docs site has beside the pages that are written by hand. MkDocs calls the functions named ``on_...``.

The site mirrors the repository: a link that leads from one file to another on a code host leads there on the site too.
Pages of the nav are the Markdown files themselves. What they link to becomes a page: code, a notebook, a folder.
Commands and the API get pages of their own, made of what the program prints and of its docstrings.
"""

import contextlib
import html
import inspect
import io
import os
import re
import tempfile
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

import nbformat
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files
from mkdocs.structure.pages import Page

import nl_lightning
from nl_lightning.cli import main, table

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"(?<=\]\()(?![a-z]+:|#)([^)\s#]+)")
EXAMPLES = {
    "init": ["init mine"],
    "run": ["run table2 --variant c2d_r50_nl5 --seed 1 --dry-run"],
    "status": ["status table2 --table 2a", "status table2 --where depth=50 sum_over=space", "status tabel2"],
    "report": ["report table2"],
    "sweeps": ["sweeps table2"],
    "power": ["power table2"],
    "complexity": ["complexity table2 --table 2a", "complexity table2 --variant c2d_r50_nl1_res2 --explain"],
}
"""Cheap commands, run while the site is built, on the committed records."""
WORD = re.compile(r"<[^>]*>|[^\s<>]*-[^\s<>]*")
"""A tag, or a word with a hyphen."""
SOURCE = "---\nsearch: {boost: 0.1}\n---\n"
"""The head of a page of code: a search finds it after what explains it."""
NETWORKS = "[The published networks](../results/weights/longrange/README.md): their names, blocks, maps and scores."
BESIDE = dict.fromkeys(("predict", "attend", "reach", "test", "weights"), NETWORKS)
"""What else a reader of a command's page needs."""
AS_THE_PAPER = {"NonLocalBlock": "nonlocal_block", "VideoResNet": "resnet"}
"""Public classes that are faster forms of the paper's."""
FORMATS = {
    "The file of a study": ["study.study.Study", "study.study.Variant", "study.study.Row", "study.checks.Claim"],
    "The file of a recipe": ["study.recipe.Recipe"],
    "The file of a record": ["study.records.Record"],
}


def on_config(config: MkDocsConfig) -> None:
    """Fill the sections of the nav whose pages are made here."""
    made = {"Commands": list(command_pages(run=False)), "API": list(api_pages())}
    for section in config.nav:
        for title, pages in section.items():
            if title in made:
                pages[:] = made[title]


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """The pages, and whatever they link to."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    made = {**command_pages(), **api_pages()}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    written = [path for path in _written(config.nav) if path not in made]
    todo = [*written, *config.extra_css, *config.extra["polyfills"]]
    todo += [path.relative_to(ROOT).as_posix() for path in ROOT.glob("docs/**/*.md")]
    seen = set[str]()
    while todo:
        path = todo.pop()
        if path in seen or not (ROOT / path).exists():
            continue  # a link that leads nowhere is MkDocs' to report
        seen.add(path)
        name, text = _page(path)
        if text is not None:
            files.append(File.generated(config, name, content=text))
        elif name != path:  # a folder that has a page of its own
            todo.append(name)
            continue
        else:
            files.append(File(path, str(ROOT), config.site_dir, config.use_directory_urls))
        if name.endswith(".md"):
            text = (ROOT / path).read_text(encoding="utf-8") if text is None else text
            todo += [_target(name, link) for link in LINK.findall(text)]
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Links to code, notebooks and folders lead to the pages of these."""
    here = PurePosixPath(page.file.src_uri).parent

    def there(match: re.Match[str]) -> str:
        target = _target(page.file.src_uri, match[1])
        name = _page(target, content=False)[0] if (ROOT / target).exists() else target
        return match[1] if name == target else os.path.relpath(name, here)

    return LINK.sub(there, markdown)


def on_page_content(html_text: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Mathematics as MathML, options that no line break parts, no roles of reStructuredText before names."""
    commands = r'(?<=<div class="language-text highlight">)<pre>.*?</pre>'
    html_text = re.sub(commands, lambda m: WORD.sub(_whole, m[0]), html_text, flags=re.S)
    for pattern, display in ((r"\\\((.+?)\\\)", "inline"), (r"\\\[(.+?)\\\]", "block")):
        found = rf'(?<=class="arithmatex">){pattern}(?=</)'
        html_text = re.sub(found, lambda m, d=display: convert(html.unescape(m[1]), display=d), html_text, flags=re.S)
    return re.sub(r":(?:class|func|meth|mod|data|attr):(?=<code>)", "", html_text)


def _whole(word: re.Match[str]) -> str:
    return word[0] if word[0].startswith("<") else f'<span class="word">{word[0]}</span>'


def _written(nav: Any) -> Iterator[str]:
    """The files that the nav names."""
    if isinstance(nav, str):
        yield nav.replace(".ipynb.md", ".ipynb")
    else:
        for part in nav.values() if isinstance(nav, dict) else nav:
            yield from _written(part)


def _target(path: str, link: str) -> str:
    return os.path.normpath(os.path.join(os.path.dirname(path), link))


def _page(path: str, content: bool = True) -> tuple[str, str | None]:
    """The name of the page of a file or folder, and its text, if it isn't the file itself."""
    file = ROOT / path
    if file.is_dir():
        if (file / "README.md").exists():
            return f"{path}/README.md", None
        return f"{path}/files.md", _listing(file) if content else None
    if file.suffix in (".py", ".yaml", ".cff"):
        language = "python" if file.suffix == ".py" else "yaml"
        return f"{path}.md", f"{SOURCE}# {path}\n\n```{language}\n{file.read_text()}```\n" if content else None
    if file.suffix == ".ipynb":
        return f"{path}.md", _notebook(file) if content else None
    return path, None


def _listing(folder: Path) -> str:
    names = (
        f"[{path.name}]({path.name})" if path.suffix in (".md", ".yaml") else path.name
        for path in sorted(folder.iterdir())
    )
    return f"# {folder.relative_to(ROOT)}/\n\n" + "\n".join(f"- {name}" for name in names) + "\n"


def _notebook(file: Path) -> str:
    parts = []
    for cell in nbformat.read(file, as_version=4)["cells"]:
        parts.append(cell["source"] if cell["cell_type"] == "markdown" else f"```python\n{cell['source']}\n```")
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                parts.append(f"![what the cell draws](data:image/png;base64,{data['image/png'].strip()})")
            elif text := output.get("text") or data.get("text/plain"):
                parts.append(f"```console\n{text.rstrip()}\n```")
    return "\n\n".join(parts) + "\n"


# ------------------------------------------------------------------------------------------- commands and the API


def command_pages(run: bool = True) -> dict[str, str]:
    """A page for each command: what it is for, examples with what they print, and its help."""
    pages = {"commands/index.md": _console("--help") if run else ""}
    with _place() if run else contextlib.nullcontext():
        for name, entry in table.COMMANDS.items():
            verbs = [f"{name} {verb}" for verb in entry] if isinstance(entry, dict) else [name]
            said = [_console(f"{each} --help") for each in verbs] if run else []
            examples = [_console(each) for each in EXAMPLES.get(name, [])] if run else []
            about = table.PURPOSES.get(name) or (inspect.getdoc(entry) or "").splitlines()[0].rstrip(".")
            pages[f"commands/{name}.md"] = "\n\n".join(
                [f"# {name}", f"{about}.", *([BESIDE[name]] if name in BESIDE else []), *examples, *said]
            )
    pages["commands/index.md"] = f"# Commands\n\n{pages['commands/index.md']}\n"
    return pages


@contextlib.contextmanager
def _place() -> Iterator[None]:
    """A folder to stand in, where the committed records are one's own results."""
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        Path("my_results").mkdir()
        Path("my_results/records").symlink_to(ROOT / "results" / "records")
        yield


def _console(command: str) -> str:
    """A command and what it prints."""
    said = io.StringIO()
    before = os.environ.get("COLUMNS")
    os.environ["COLUMNS"] = "100"
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            main(command.split())
    finally:
        os.environ.pop("COLUMNS") if before is None else os.environ.update(COLUMNS=before)
    lines = [line.rstrip() for line in said.getvalue().replace(str(ROOT), ".").splitlines()]
    return "\n".join(["```console", f"$ nl-lightning {command}", *lines, "```"])


def api_pages() -> dict[str, str]:
    """The public names, the paper's two files, the hub, and the classes behind the files of a study."""
    names = [name for name in nl_lightning.__all__ if not name.startswith("_")]
    public = "\n\n".join(
        f"## {name} {{#nl_lightning.{name}}}\n\n[The paper's class]({page}.md) says its arguments and shapes. "
        "This one computes the same by the cheapest exact forms."
        if (page := AS_THE_PAPER.get(name))
        else f"::: nl_lightning.{name}"
        for name in names
    )
    formats = "\n\n".join(
        f"## {title}\n\n"
        + "\n\n".join(f"::: nl_lightning.{name}\n    options: {{heading_level: 3}}" for name in classes)
        for title, classes in FORMATS.items()
    )
    modules = {
        "models.nonlocal_block": "The non-local block, as the paper writes it",
        "models.resnet": "The networks of Table 1, as the paper writes them",
        "weights.hub": "Networks on the Hugging Face hub",
    }
    return {
        "api/index.md": f"# Public names\n\n`import nl_lightning as nl` gives these.\n\n{public}\n",
        **{
            f"api/{name.split('.')[1]}.md": f"# {title}\n\n::: nl_lightning.{name}\n"
            "    options: {show_root_heading: false, show_source: true}\n"
            for name, title in modules.items()
        },
        "api/formats.md": f"# Studies, recipes, records\n\n{formats}\n",
    }
