"""A study of anybody's LightningModule: the documented example, from its folder to verdicts, and what can be wrong."""

import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from nl_lightning.cli import main
from nl_lightning.errors import UserError
from nl_lightning.runs import worker
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.packing import unpack_outcomes
from nl_lightning.study.recipe import load_recipe
from nl_lightning.study.records import read_record, record_path
from nl_lightning.study.run import plan

EXAMPLE = Path(__file__).parents[1] / "docs" / "spirals"
STUDY, RECIPE = "experiments/depth.yaml", "experiments/recipes/spirals.yaml"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example in a folder of its own, which is the working folder; what it imports is forgotten afterwards."""
    with there(tmp_path / "own", monkeypatch):
        yield tmp_path / "own"


class there:
    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        shutil.copytree(EXAMPLE, folder)
        patch.chdir(folder)
        patch.setattr(sys, "path", [*sys.path])
        patch.setenv("WANDB_MODE", "disabled")

    def __enter__(self) -> None:
        sys.modules.pop("spirals", None)

    def __exit__(self, *_: object) -> None:
        sys.modules.pop("spirals", None)


def change(file: str, there: str, instead: str) -> None:
    text = Path(file).read_text()
    assert there in text
    Path(file).write_text(text.replace(there, instead))
    sys.modules.pop("spirals", None)


def train(seeds: list[int], variants: list[str] | None = None) -> None:
    """Every run, in this process."""
    study, recipe = load_study(Path(STUDY)), load_recipe(RECIPE)
    for run in plan(study, recipe, seeds, Path("my_results"), variants=variants):
        assert worker.main(["run", *run.identity()[:-1], "none"]) == 0


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The documented example, three seeds of three variants, trained and reported."""
    folder = tmp_path_factory.mktemp("documented") / "own"
    with pytest.MonkeyPatch.context() as patch, there(folder, patch):
        assert worker.main(["check", STUDY, RECIPE]) == 0
        train([0, 1, 2])
        assert main(["report", "depth", "--html"]) == 0
    return folder


def test_the_documented_example_ends_in_a_compared_table_with_verdicts(trained: Path) -> None:
    text = (trained / "my_results/tables/spirals/depth.md").read_text()
    assert re.search(r"\| two hidden layers +\| +\d\d\.\d ± \d\.\d \| +3 \| \+\d+\.\d \[\d+\.\d, \d+\.\d\] ", text)
    assert "95 % intervals, paired by item" in text
    assert "2 hold (depth direction 1, depth direction 2)" in text
    for foreign in ("video", "clips", "FLOPs", "params", "decoder", "soft score"):
        assert foreign not in text.partition("Claims are judged")[0], foreign
    assert "accuracy is test/accuracy as the module logs it, in %; higher is better" in text
    page = (trained / "my_results/tables/spirals/depth.html").read_text()
    assert "accuracy against iterations" in page
    assert "video" not in page.partition("<body")[2]
    tex = (trained / "my_results/tables/spirals/depth.tex").read_text()
    assert re.search(r"two hidden layers & \d\d\.\d \$\\pm\$", tex)
    assert "1,two hidden layers,deep,linear,ok,3," in (trained / "my_results/tables/spirals/depth_1.csv").read_text()


def test_its_record_says_what_was_measured_of_each_item(trained: Path) -> None:
    record = read_record(record_path(trained / "my_results", "spirals", "deep", 0))
    assert record.module == "spirals.Net"
    assert set(record.metrics) == {"test/loss", "test/accuracy"}
    assert record.videos_expected == 1000
    right = unpack_outcomes(record.outcomes, 1000)
    assert np.mean(right) == pytest.approx(record.metrics["test/accuracy"])
    assert record.evidence is not None
    assert set(record.evidence.source) == {"spirals.Net", "spirals.Spirals"}
    assert [set(point) for point in record.curve][-1] == {
        "step", "train/loss", "train/accuracy", "val/loss", "val/accuracy",
    }  # fmt: skip
    assert record.config["arguments"] == []
    assert record.config["recipe"]["model"] == {"class_path": "spirals.Net"}


def test_looking_imports_nothing_of_the_user(trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(trained)
    for words in (["status", "depth"], ["report", "depth"], ["run", "depth", "--dry-run"], ["sweeps", "depth"]):
        assert main(words) == 0
    assert "spirals" not in sys.modules
    assert "metric: {name: test/accuracy, goal: maximize}" in (trained / "sweeps" / "depth.yaml").read_text()


def test_settings_are_columns(own: Path) -> None:
    study = load_study(find_study("depth"))
    assert study.columns("linear") == {"variant": "linear", "model.layers": "0"}
    assert study.columns("deep") == {"variant": "deep", "model.layers": "default"}
    assert study.where({"model.layers": "1"}) == ["shallow"]
    with pytest.raises(UserError, match=r"no column 'model\.layer'; did you mean 'model\.layers'"):
        study.where({"model.layer": "1"})
