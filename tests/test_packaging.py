"""What is said of the project to tools: dependencies, pins, versions, images, templates."""

import ast
import importlib
import importlib.metadata
import json
import re
import shlex
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from tiny_study import write_tiny_study

import nl_lightning as nl
from nl_lightning.cli import main
from nl_lightning.errors import UserError
from nl_lightning.runs.slurm import Local

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
PINNED = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line[0] != "#"]
PINS = dict(line.split("==") for line in PINNED)
EXTRAS: dict[str, list[str]] = PROJECT["optional-dependencies"]
OF_THE_BUILD = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
OF_USERS = [extra for extra in EXTRAS if extra not in ("all", "docs", "dev")]
"""Extras that commands ask for."""


def requirements(*extras: str) -> list[Requirement]:
    """Of the package and of extras, without those on itself."""
    stated = [*PROJECT["dependencies"], *(line for extra in extras for line in EXTRAS[extra])]
    return [one for one in map(Requirement, stated) if one.name != PROJECT["name"]]


def test_every_dependency_is_pinned_within_its_bounds() -> None:
    pinned = {canonicalize_name(name): version for name, version in PINS.items()}
    assert len(pinned) == len(PINS)
    assert sorted(PINNED, key=str.lower) == PINNED
    for one in requirements(*EXTRAS):
        assert one.specifier, one  # oldest version tried
        assert one.specifier.contains(pinned[canonicalize_name(one.name)]), one


def test_what_is_pinned_is_what_the_tests_run_on() -> None:
    for one in requirements(*OF_USERS):
        assert importlib.metadata.version(one.name).partition("+")[0] == PINS[one.name]


def test_the_base_is_what_every_user_needs() -> None:
    base = {one.name for one in requirements()}
    assert base >= {"pytorch-lightning", "torch", "torchvision", "decord", "wandb", "pandas"}
    for extra in OF_USERS:
        assert not base & {Requirement(line).name for line in EXTRAS[extra]}
    assert {extra for line in EXTRAS["all"] for extra in Requirement(line).extras} == set(OF_USERS)
    assert "all" in {extra for line in EXTRAS["dev"] for extra in Requirement(line).extras}


def imports(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module or ""


def test_the_package_imports_only_what_it_depends_on() -> None:
    ships = importlib.metadata.packages_distributions()
    declared = {canonicalize_name(one.name) for one in requirements(*OF_USERS)}
    taken = {
        module.partition(".")[0]
        for path in (ROOT / "nl_lightning").rglob("*.py")
        for module in imports(ast.parse(path.read_text()))
    }
    others = taken - sys.stdlib_module_names - {"nl_lightning"}
    assert [name for name in others if not declared & {canonicalize_name(one) for one in ships[name]}] == []


def test_a_missing_extra_is_one_line_with_the_command(
    tmp_path: Path, small_videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delitem(sys.modules, "nl_lightning.weights.hub", raising=False)
    monkeypatch.delitem(sys.modules, "nl_lightning.detection", raising=False)
    for module in ("submitit", "webdataset", "tensorboard", "huggingface_hub", "pycocotools"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=r"^pycocotools isn't installed here: pip install 'nl-lightning\[detection\]'$"):
        importlib.import_module("nl_lightning.detection")
    with pytest.raises(UserError, match=r"^submitit isn't installed here: pip install 'nl-lightning\[slurm\]'$"):
        Local(tmp_path, workers=1)
    with pytest.raises(UserError, match=r"^huggingface_hub isn't installed here: pip install 'nl-lightning\[hub\]'$"):
        importlib.import_module("nl_lightning.weights.hub")
    write_tiny_study(tmp_path, small_videos)
    monkeypatch.chdir(tmp_path)
    assert main(["status", "study.yaml", "--recipe", "tiny.yaml"]) == 0
    assert main(["run", "study.yaml", "--recipe", "tiny.yaml", "--logger", "tensorboard"]) == 2
    assert "tensorboard isn't installed here: pip install 'nl-lightning[tensorboard]'" in capsys.readouterr().err
    assert main(["data", "shards", "tiny.yaml", "--out", "packed"]) == 2
    assert "webdataset isn't installed here: pip install 'nl-lightning[shards]'" in capsys.readouterr().err


def test_one_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert PROJECT["dynamic"] == ["version"]
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"nl-lightning {nl.__version__}\n"
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == nl.__version__
    assert f"## [{nl.__version__}]" in (ROOT / "CHANGELOG.md").read_text()


def test_the_readme_cites_what_the_citation_file_says() -> None:
    stated = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    (paper,), found = stated["references"], (ROOT / "README.md").read_text().partition("```bibtex")[2]
    said = " ".join(found.partition("```")[0].split())
    software = {"title": stated["title"], "author": f"{{{stated['authors'][0]['name']}}}"}
    software |= {"version": stated["version"], "year": str(stated["date-released"].year)}
    authors = " and ".join(f"{one['family-names']}, {one['given-names']}" for one in paper["authors"])
    of_paper = {"title": paper["title"], "author": authors, "booktitle": paper["collection-title"]}
    for name, value in [*software.items(), *of_paper.items(), ("year", str(paper["year"]))]:
        assert f"{name} = {{{value}}}," in said


def workflow() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((ROOT / ".github" / "workflows" / "test.yml").read_text())
    return found["jobs"]["make"]


def test_one_python() -> None:
    """The oldest that is allowed is the one that everything runs on."""
    (python,) = Requirement(f"python{PROJECT['requires-python']}").specifier
    config = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]
    named = {
        config["mypy"]["python_version"],
        re.sub(r"py(\d)(\d+)", r"\1.\2", config["ruff"]["target-version"]),
        json.loads((ROOT / ".devcontainer" / "devcontainer.json").read_text())["image"].rpartition(":")[2],
        *(step["with"]["python-version"] for step in workflow()["steps"] if "python-version" in step.get("with", {})),
        *(re.findall(r"^FROM python:([\d.]+)-slim$", file.read_text(), re.M)[0] for file in ROOT.glob("Dockerfile*")),
    }
    assert named == {python.version}


def test_pinned_versions_run_on_the_oldest_python() -> None:
    """On its first patch release, too: Debian 12 has 3.11.2. Without it `make` could not set up its environment."""
    (python,) = Requirement(f"python{PROJECT['requires-python']}").specifier
    installed = {canonicalize_name(of.metadata["Name"]): of for of in importlib.metadata.distributions()}
    asked = {name: installed[key].metadata.json.get("requires_python")
             for name in PINS if (key := canonicalize_name(name)) in installed}  # fmt: skip
    assert len(asked) > 100
    assert [name for name, of in asked.items() if of and f"{python.version}.0" not in SpecifierSet(str(of))] == []


@pytest.mark.parametrize("name", ["Dockerfile", "Dockerfile.cuda"])
def test_images_are_built_from_files_that_are_there(name: str) -> None:
    text = (ROOT / name).read_text()
    copied = [word for line in re.findall(r"^COPY (.*) \S+$", text, re.M) for word in line.split()]
    assert all((ROOT / path).exists() for path in copied)
    assert set(copied) >= set(OF_THE_BUILD) | {"constraints.txt"}
    kept = {line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line[0] == "!"}
    assert {path.partition("/")[0] for path in copied} == kept
    assert "--constraint constraints.txt" in text


def test_make_study_trains_what_the_results_show(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = re.findall(r"^study:.*\n.*for of in (.*); do", (ROOT / "Makefile").read_text(), re.M)[0]
    recipes = []
    for of in shlex.split(words):
        assert main(["run", *of.split(), "--results", str(tmp_path), "--dry-run"]) == 0
        out = capsys.readouterr().out
        recipes.append((of.split()[0], re.findall(r"--config=\S*?(\w+)\.yaml", out)[0]))
    assert recipes == [(study, recipe) for recipe in ("longrange", "match") for study in ("table2", "controls")]


def test_workflows_hooks_and_pages_name_what_is_there() -> None:
    targets = set(re.findall(r"^([\w.-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(workflow()["strategy"]["matrix"]["target"]) == {"lint", "test", "docs", "wheel"} <= targets
    (hooks,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    linters = re.findall(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), re.M)[0].count("$(BIN)/")
    assert len(hooks["hooks"]) == linters
    for form in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"):
        assert {"name", "description", "body"} <= yaml.safe_load(form.read_text()).keys()
    for path in re.findall(r"`(nl_lightning/[\w/.]+)`|\]\(([\w/.]+)\)", (ROOT / "CONTRIBUTING.md").read_text()):
        assert (ROOT / "".join(path)).exists()
    dated = re.findall(rf"## \[{nl.__version__}\] - (\S+)", (ROOT / "CHANGELOG.md").read_text())
    assert dated == [str(yaml.safe_load((ROOT / "CITATION.cff").read_text())["date-released"])]
