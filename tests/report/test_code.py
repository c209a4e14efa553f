"""Whether a table's records were made by code that computes alike, told by a small repository."""

import re
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nl_lightning.report import code
from nl_lightning.report.claims import report
from nl_lightning.report.code import mixed_code
from nl_lightning.report.collate import collect
from nl_lightning.report.render import table_markdown
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.records import Record
from nl_lightning.study.study import Study

Measure = Callable[..., Record]


@pytest.fixture
def commits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Three commits of a package: the second changes its documentation, the third moves a network."""
    package = tmp_path / "repository" / "package"
    monkeypatch.setattr(code, "PACKAGE", package)
    code._changed.cache_clear()

    def git(*words: str) -> str:
        who = ["-c", "user.name=a", "-c", "user.email=a@b", "-c", "commit.gpgsign=false"]
        done = subprocess.run(["git", "-C", str(package), *who, *words], capture_output=True, text=True, check=True)
        return done.stdout.strip()

    found = []
    for file in ("models/old.py", "report/words.py", "models/net.py"):
        (package / file).parent.mkdir(parents=True, exist_ok=True)
        if not found:
            git("init", "-q")
            git("config", "diff.renames", "false")  # as a user may have it: what is said of the commits stays
        (package / file).write_text("x\n")
        if found[1:]:
            (package / "models/old.py").unlink()
        git("add", ".")
        git("commit", "-q", "-m", "m")
        found.append(git("rev-parse", "HEAD"))
    return found


def test_only_files_that_compute_numbers_matter(measure: Measure, commits: list[str]) -> None:
    one, two, three = (replace(measure("plain", seed, 60.0), commit=commit) for seed, commit in enumerate(commits))
    assert mixed_code([one, one]) == mixed_code([one, two]) == mixed_code([]) == ""
    said = mixed_code([one, two, three])
    assert said.startswith("Mixed code: records are of commits ")
    # one file under two names; which comes first is up to the hashes
    assert re.search(r", which differ in models/(net|old)\.py where numbers are computed$", said)
    assert all(commit[:12] in said for commit in commits)


@pytest.mark.parametrize("other", ["f" * 40, "unknown", "--output=mine", "\x1b[31mred"])
def test_where_the_repository_does_not_tell(measure: Measure, commits: list[str], other: str) -> None:
    """Commits that aren't there; and no text of a record is an option of git's, or steers a terminal."""
    record = measure("plain", 0, 60.0)
    records = [replace(record, commit=commit) for commit in (commits[0], other)]
    said = mixed_code(records)
    assert said.endswith("; whether these compute alike isn't known here")
    assert "\x1b" not in said
    assert not list(code.PACKAGE.parent.rglob("mine"))


def test_installed_versions_are_compared(measure: Measure) -> None:
    record = replace(measure("plain", 0, 60.0), commit="unknown")
    one, two = (replace(record, versions={"nl-lightning": version}) for version in ("0.1.0", "0.2.0"))
    assert mixed_code([one, one]) == mixed_code([record, record]) == ""
    said = "Mixed code: records are of commits v0.1.0, v0.2.0; whether these compute alike isn't known here"
    assert mixed_code([one, two]) == said


def test_the_notes_of_a_table_say_it(
    study: Study, recipe: Recipe, results: Path, measure: Measure, commits: list[str]
) -> None:
    measure("plain", 0, 60.0, commit=commits[0])
    measure("i3d", 0, 60.0, commit=commits[2])
    found = report(collect(study, recipe, results))
    assert "Mixed code" in table_markdown(found, study.tables["a"])
    assert "Mixed code" not in table_markdown(found, study.tables["b"])
