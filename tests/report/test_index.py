"""The page of every table, and the command that fills it."""

import dataclasses
import shutil
from pathlib import Path

import pytest

from nl_lightning.cli import main, results
from nl_lightning.cli.studies import OfStudy, Selected
from nl_lightning.errors import UserError
from nl_lightning.report import collate
from nl_lightning.report.claims import report
from nl_lightning.report.collate import Runs, collect
from nl_lightning.report.index import index
from nl_lightning.study.finding import find_study, paper_tables
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.study import Study

RESULTS = Path(__file__).parent.parent.parent / "results"
PAGES = [RESULTS / "tables" / f"index.{kind}" for kind in ("md", "html")]


def test_the_command_runs_what_cpu_cores_can_and_remakes_the_committed_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[tuple[str, str | None]] = []
    monkeypatch.setattr(results, "run", lambda of, workers: asked.append((of.study, of.recipe)) or 0)
    for recipe in ("longrange", "tags", "tags_keypoints"):
        if (records := RESULTS / "records" / recipe).is_dir():
            shutil.copytree(records, tmp_path / "records" / recipe)
    assert main(["tables", "--results", str(tmp_path)]) == 0
    assert asked == [("table2", "longrange"), ("table3", "longrange"), ("table5", "tags"), ("table6", "tags_keypoints")]
    for page in PAGES:
        assert (tmp_path / "tables" / page.name).read_bytes() == page.read_bytes()
    for link in ("longrange/table2.html", "longrange/table3.md"):
        assert (tmp_path / "tables" / link).is_file()
        assert link in (tmp_path / "tables" / f"index{Path(link).suffix}").read_text()


def test_a_failed_study_is_said_by_the_exit_code_and_the_page_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(results, "run", lambda of, workers: int(of.study == "table2"))
    assert main(["tables", "--results", str(tmp_path)]) == 1
    page = (tmp_path / "tables" / "index.md").read_text()
    assert page.count("Only reported") == len(paper_tables()) == 5  # nothing was trained
    assert "missing" not in page
    assert "| NL, 4 in head | +0.9 | 66.0 | 87.1 | 71.7 |" in " ".join(page.split())


def test_what_one_study_lacks_stops_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = []

    def run(of: Selected, workers: int) -> int:
        asked.append(of.study)
        if of.study == "table5":
            raise UserError("pycocotools isn't installed: pip install 'nl-lightning[detection]'")
        return 0

    def unreadable(study: Study, recipe: Recipe, folder: Path) -> Runs:
        if study.name == "table3":
            raise UserError("its records can't be compared")
        return collect(study, recipe, folder)

    monkeypatch.setattr(results, "run", run)
    monkeypatch.setattr(collate, "collect", unreadable)
    assert main(["tables", "--results", str(tmp_path)]) == 2
    assert asked[-1] == "table6"
    said = "nl-lightning: table3: its records can't be compared\n"
    said += "nl-lightning: table5: pycocotools isn't installed: pip install 'nl-lightning[detection]'\n"
    out, err = capsys.readouterr()
    assert err == said
    assert "table6: Table 6 of Non-local Neural Networks: keypoints on COCO" in out.splitlines()  # whose runs follow
    page = (tmp_path / "tables" / "index.md").read_text()
    assert ("## Table 3" in page, "## Table 4" in page) == (False, True)


def test_a_command_that_is_stopped_says_that_it_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stopped(of: Selected, workers: int) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(results, "run", stopped)
    assert main(["tables", "--results", str(tmp_path)]) == 130
    assert capsys.readouterr().err == "nl-lightning: stopped; the same command goes on from here\n"


def test_the_page_takes_the_place_of_its_own_and_of_nobody_elses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(results, "paper_tables", lambda: ["table4"])
    pages = [tmp_path / "tables" / f"index.{kind}" for kind in ("md", "html")]
    assert main(["tables", "--results", str(tmp_path)]) == 0
    for page in pages:
        now = page.read_text()
        page.write_text(now.replace("Charades", "of before"))
        assert main(["tables", "--results", str(tmp_path)]) == 0
        assert page.read_text() == now
        page.write_text("somebody's own")
        assert main(["tables", "--results", str(tmp_path)]) == 2
        assert f"{page.name} is there already, and nl-lightning didn't write it" in capsys.readouterr().err
        assert page.read_text() == "somebody's own"
        assert main(["tables", "--results", str(tmp_path), "--overwrite"]) == 0
        assert page.read_text() == now


def test_what_a_study_says_is_only_text(tmp_path: Path) -> None:
    study, recipe = Selected("table4", results=tmp_path).load()
    study = dataclasses.replace(study, title='<script>alert("x")</script>')
    pages = index([report(collect(study, recipe, tmp_path))])
    assert "<script" not in pages["html"]
    assert "&lt;script>" in pages["md"]
    assert "<script" not in pages["md"]


def test_recipes_for_cpu_cores_are_those_of_a_cpu() -> None:
    for name in paper_tables():
        recipe = load_study(find_study(name)).cpu_recipe
        assert recipe is None or OfStudy(name, recipe=recipe).load()[1].config["trainer"]["accelerator"] == "cpu"


def test_tables_are_studies_called_table_and_a_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("experiments").mkdir()
    for name in ("tablecloth", "table10", "table2_old"):
        Path("experiments", f"{name}.yaml").touch()
    assert paper_tables() == ["table2", "table3", "table4", "table5", "table6", "table10"]
