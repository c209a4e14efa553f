# ruff: noqa: E501 - what is changed and what is said of it stand side by side
"""A study of anybody's LightningModule: the documented example, from its folder to verdicts, and what can be wrong."""

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from functools import wraps
from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as pl
import torch

from nl_lightning.cli import main
from nl_lightning.errors import UserError
from nl_lightning.report.pairing import over_videos, weighted
from nl_lightning.runs import worker
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.packing import pack_outcomes, unpack_outcomes
from nl_lightning.study.recipe import load_recipe
from nl_lightning.study.records import read_record, record_path
from nl_lightning.study.run import plan
from nl_lightning.train import callbacks, modules

PAGE = Path(__file__).parents[1] / "docs" / "reproduce.md"
STUDY, RECIPE = "experiments/depth.yaml", "experiments/recipes/spirals.yaml"


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The example of the page in a folder of its own, which is the working folder; what it imports is forgotten afterwards."""
    with there(tmp_path / "own", monkeypatch):
        yield tmp_path / "own"


class there:
    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        for file, text in re.findall(r"Save this as `([\w./]+)`:\n\n```\w+\n(.*?)```", PAGE.read_text(), re.DOTALL):
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_text(text)
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
    assert "metric:\n  name: test/accuracy\n  goal: maximize\n" in (trained / "sweeps" / "depth.yaml").read_text()


def test_another_module_may_have_a_net_and_report_what_is_no_percentage(own: Path) -> None:
    change(STUDY, "layers: 0}", "net.hidden: 0}")
    change(STUDY, "layers: 1}", "net.hidden: 1}")
    change(STUDY, "{settings: {}}", "{settings: {model.net.hidden: 2}}")
    change(STUDY, "tables:", "also_reported: {fps: frames a second}\ntables:")
    change(STUDY, "{accuracy: 44.0}", "{accuracy: 44.0, fps: 250}")
    change(STUDY, ', unit: "%"', "")
    change(STUDY, "by: 10", "by: 150")
    assert main(["status", "depth", "--where", "model.net.hidden=1"]) == 0


def test_settings_are_columns(own: Path) -> None:
    study = load_study(find_study("depth"))
    assert study.columns("linear") == {"variant": "linear", "model.layers": "0"}
    assert study.columns("deep") == {"variant": "deep", "model.layers": "default"}
    assert study.where({"model.layers": "1"}) == ["shallow"]
    with pytest.raises(UserError, match=r"no column 'model\.layer'; did you mean 'model\.layers'"):
        study.where({"model.layer": "1"})


# ---------------------------------------------------------------------------------------- compared by something else


def compared(trained: Path, folder: Path, study: str, capsys: pytest.CaptureFixture[str]) -> str:
    """The report on the trained runs by a changed study, and what it printed; nothing of it is trained again."""
    path = folder / STUDY
    path.write_text(study)
    shutil.copytree(trained / "my_results" / "records", folder / "my_results" / "records", dirs_exist_ok=True)
    code = main(["report", "depth"])
    said = capsys.readouterr()
    return (folder / "my_results/tables/spirals/depth.md").read_text() if code == 0 else said.err


def test_where_lower_is_better_a_gain_is_what_it_is_lower_by(
    trained: Path, own: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = (own / STUDY).read_text()
    study = study.replace('test/accuracy, better: higher, unit: "%", scale: 100', "test/loss, better: lower")
    study = re.sub(r"reported: \{accuracy: ([\d.]+)\}", r"reported: {loss: 1\1}", study).replace(
        ", by: 10", ", by: 0.1"
    )
    text = compared(trained, own, study, capsys)
    losses = {
        name: np.array(
            [read_record(p).metrics["test/loss"] for p in (own / "my_results/records/spirals" / name).iterdir()]
        )
        for name in ("linear", "deep")
    }
    gain = losses["linear"].mean() - losses["deep"].mean()
    (row,) = [line for line in text.splitlines() if line.startswith("| two hidden")]
    assert f"{losses['deep'].mean():.3f} ± {losses['deep'].std(ddof=1):.3f}" in row
    assert f"{gain:+.3f} [" in row
    assert gain > 0
    assert "-46.000" in row  # 144 to 190: reported as worse
    assert "Gains are points of loss, what it is lower by, over the row's own baseline" in text
    assert "95 % intervals, over seeds." in text
    assert "Where it is over seeds, the records have no outcome of each test item whose mean is the metric." in text
    assert "| depth | direction 1 | holds " in text
    assert "paired by" not in text


def test_a_gain_over_seeds_has_students_interval(trained: Path, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = (
        (own / STUDY)
        .read_text()
        .replace('test/accuracy, better: higher, unit: "%", scale: 100', "test/loss, better: lower")
    )
    study = re.sub(r",?\s+reported: \{[^}]*\}", "", study).replace("by: 10", "by: 0.1")
    text = compared(trained, own, study, capsys)
    by_seed = [
        read_record(own / f"my_results/records/spirals/linear/seed{seed}.json").metrics["test/loss"]
        - read_record(own / f"my_results/records/spirals/deep/seed{seed}.json").metrics["test/loss"]
        for seed in range(3)
    ]
    half = 4.302653 * np.std(by_seed, ddof=1) / 3**0.5
    assert f"[{np.mean(by_seed) - half:.3f}, {np.mean(by_seed) + half:.3f}]" in text


def test_outcomes_of_other_items_are_not_compared(trained: Path, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shutil.copytree(trained / "my_results" / "records", own / "my_results" / "records")
    path = record_path(own / "my_results", "spirals", "deep", 1)
    kept = json.loads(path.read_text())
    for change, said in (
        ({"videos_hash": "0123456789ab"}, "they can't be compared"),
        ({"videos_expected": 900, "videos_scored": 900}, "outcomes: not a number for each of 900 items"),
        ({"outcomes": ""}, "paired by item, or, marked †, over seeds"),
        ({"metrics": {"test/accuracy": 0.5}}, "outcomes: the items' mean is"),
        ({"metrics": {}}, "metrics: expected one or more, got none"),
        ({"module": ""}, "metrics: there are some, but no 'module' that logged them"),
    ):
        path.write_text(json.dumps(kept | change))
        main(["report", "depth"])
        printed = capsys.readouterr()
        written = own / "my_results/tables/spirals/depth.md"
        text = written.read_text() if written.exists() else ""
        assert said in (printed.err + printed.out + text).replace("\n", " "), change


# ----------------------------------------------------------------------------------------------------- what is wrong


def checked_first() -> str:
    """What is said before anything is trained."""
    with pytest.raises(UserError) as caught:
        modules.check_variants(load_study(Path(STUDY)), load_recipe(RECIPE))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ("spirals.Net}", "spiral.Net}", "model.class_path: there is no module 'spiral': expected spiral.py in "),
        ("spirals.Net}", "spirals.Nett}", "model.class_path: spirals has no class 'Nett'; did you mean 'Net'?"),
        ("spirals.Net}", "spirals.Spirals}", "model.class_path: spirals.Spirals is no LightningModule"),
        ("spirals.Net}", "pathlib.Path}", "model.class_path: pathlib.Path is no LightningModule"),
        ("spirals.Spirals}", "spirals.Net}", "data.class_path: spirals.Net is no LightningDataModule"),
        ("model.layers: 1", "model.layer: 1", "shallow: model.layer: Net has no such setting; did you mean 'model.layers'?"),
        ("model.layers: 1", "model.layers: many", "shallow: model.layers: expected a int. Got value: many"),
        ("model.layers: 1", "data.batchsize: 1", "data.batchsize: Spirals has no such setting; did you mean 'data.batch_size'?"),
        ("model.layers: 1", "trainer.max_epoch: 1", "did you mean 'trainer.max_epochs'?"),
    ],
)  # fmt: skip
def test_mistakes_are_found_before_anything_is_trained(own: Path, there: str, instead: str, said: str) -> None:
    change(STUDY, there, instead)
    assert said in checked_first()


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ("import torch\n", "import torch\nimport torchh\n", "spirals imports 'torchh', which isn't installed"),
        ("import torch\n", "import torch\n1 / 0\n", "spirals can't be imported: ZeroDivisionError: division by zero (spirals.py, line 7)"),
        ("import torch\n", "import torch\n1 +\n", "spirals can't be imported: SyntaxError: "),
        ("def test_step", "def tests", "spirals.Net has no test_step, so it never logs what it is compared by"),
    ],
)  # fmt: skip
def test_mistakes_in_the_module_are_found_as_well(own: Path, there: str, instead: str, said: str) -> None:
    change("spirals.py", there, instead)
    assert said in checked_first()


def test_a_module_of_the_other_lightning_says_so(own: Path) -> None:
    other = "class LightningModule:\n    pass\nLightningModule.__module__ = 'lightning.pytorch.core.module'\n"
    Path("other.py").write_text(f"{other}class Net(LightningModule):\n    pass\n")
    change(STUDY, "spirals.Net}", "other.Net}")
    assert "other.Net is a LightningModule of the package 'lightning'" in checked_first()
    sys.modules.pop("other")


@pytest.mark.parametrize(
    ("file", "there", "instead", "said"),
    [
        (STUDY, "test/accuracy", "test/acuracy", "metric: spirals.Net never logged test/acuracy in testing; did you mean 'test/accuracy'?; it logged test/loss, test/accuracy"),
        ("spirals.py", "enumerate(self.right)", "enumerate(self.right[1:])", "Net.test_outcomes: gave numbers of 999 items, and 1000 were tested"),
        ("spirals.py", "return dict(enumerate(self.right))", "return self.right", "Net.test_outcomes: expected a number by the name of each test item, as a dict, got "),
        ("spirals.py", "enumerate(self.right)", "enumerate([float('nan')] * 1000)", "Net.test_outcomes: expected a finite number for item 0, got nan"),
        ("spirals.py", "enumerate(self.right)", "enumerate([2.0] * 1000)", "Net.test_outcomes: the mean of its numbers is 2, but test/accuracy is "),
    ],
)  # fmt: skip
def test_mistakes_that_a_test_shows(
    own: Path, capsys: pytest.CaptureFixture[str], file: str, there: str, instead: str, said: str
) -> None:
    change(RECIPE, "max_epochs: 15", "max_epochs: 1")
    if file == STUDY:
        Path(STUDY).write_text(re.sub(r",?\s+reported: \{[^}]*\}", "", Path(STUDY).read_text()))
    change(file, there, instead)
    (run,) = plan(load_study(Path(STUDY)), load_recipe(RECIPE), [0], Path("my_results"), variants=["linear"])
    assert worker.main(["run", *run.identity()[:-1], "none"]) == 2
    assert said in capsys.readouterr().err
    assert said[:60] in run.state().note
    assert run.state().name == "failed"


def test_a_run_says_why_its_folder_cannot_be_made(own: Path) -> None:
    (run,) = plan(load_study(Path(STUDY)), load_recipe(RECIPE), [0], Path("my_results"), variants=["linear"])
    run.prepare_folder()
    run.checkpoint.parent.rmdir()
    run.checkpoint.parent.symlink_to("a disk that is away")
    assert worker.main(["run", *run.identity()[:-1], "none"]) == 2
    assert run.state().note.endswith(
        "checkpoints: File exists; take another place, or mend the link if it leads nowhere"
    )


def test_a_metric_that_is_no_number_is_of_a_run_that_diverged(own: Path) -> None:
    change(RECIPE, "max_epochs: 15", "max_epochs: 1")
    change("spirals.py", '"test/accuracy": right.mean()', '"test/accuracy": right.mean() * torch.nan')
    train([0], ["linear"])
    record = read_record(record_path(Path("my_results"), "spirals", "linear", 0))
    assert (record.diverged, record.outcomes) == ("test/accuracy", "")
    assert set(record.metrics) == {"test/loss"}


@pytest.mark.parametrize(
    ("limit", "loader", "items"),
    [
        ("max_steps: 0", "500)", 1000),  # as of a baseline that isn't trained
        ("limit_test_batches: 1", "500)", 500),
        ("", "500, sampler=torch.utils.data.SubsetRandomSampler(range(200)))", 200),
        ("", "300, drop_last=True)", 900),
    ],
)
def test_a_test_of_some_items_has_their_outcomes(own: Path, limit: str, loader: str, items: int) -> None:
    change(RECIPE, "max_epochs: 15", f"max_epochs: 1\n  {limit}")
    change("spirals.py", "500)", loader)
    change("spirals.py", "class Net(L.LightningModule)", "class Other(L.LightningModule)")
    Path("spirals.py").write_text(Path("spirals.py").read_text() + "\n\nclass Net(Other): ...\n")
    change(STUDY, "model.layers: 0", "model.layers: 0, model.class_path: spirals.Other")
    train([0], ["linear"])
    record = read_record(record_path(Path("my_results"), "spirals", "linear", 0))
    assert (record.videos_expected, record.module) == (items, "spirals.Other")
    assert main(["report", "depth"]) == 0


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ("def test_outcomes", "def outcomes", ""),
        ("enumerate(self.right)", "enumerate([self.trainer.callback_metrics['test/loss']] * 1000)", "Net.test_outcomes: gave those of test/loss: test/accuracy has intervals over seeds\n"),
    ],
)  # fmt: skip
def test_a_module_without_the_hook_or_with_another_metrics_has_intervals_over_seeds(
    own: Path, capsys: pytest.CaptureFixture[str], there: str, instead: str, said: str
) -> None:
    change(RECIPE, "max_epochs: 15", "max_epochs: 1")
    change("spirals.py", there, instead)
    train([0], ["linear"])
    assert said in capsys.readouterr().err
    record = read_record(record_path(Path("my_results"), "spirals", "linear", 0))
    assert (record.outcomes, record.videos_expected, record.videos_hash) == ("", 0, "")


@pytest.mark.parametrize(
    ("there", "instead", "said"),
    [
        ("spirals.Net}", "Net}", "model.class_path: expected a class such as digits.Net, got 'Net'"),
        ("better: higher", "better: more", "metric: better: expected higher or lower, got 'more'"),
        ("name: test/accuracy, ", "name: accuracy, ", "metric: name: expected a metric such as test/accuracy, got 'accuracy'"),
        (", better: higher", "", "metric: the key 'better' is missing"),
        ("{accuracy: 44.0}", "{acuracy: 44.0}", "reported: unknown key 'acuracy'; did you mean 'accuracy'?"),
        ("{accuracy: 44.0}", "{accuracy: 144.0}", "reported.accuracy: expected percent, 0 to 100, got 144"),
        ("{settings: {model.layers: 0}}", "{settings: {layers: 0}}", "expected a key such as model.hidden, got 'layers'"),
        ("{settings: {model.layers: 0}}", "{settings: {model.layers: 'null'}}", "variants.linear.settings.model.layers: the text 'null' would become None; choose another"),
        ("{settings: {model.layers: 0}}", "{}", "variants.linear: the key 'net' is missing; of another LightningModule, give 'settings'"),
        ("{settings: {model.layers: 0}}", "{study: table22}", "variants.linear.study: no study 'table22' in "),
        ("{settings: {model.layers: 0}}", "{study: table2}", "unknown 'linear'"),
    ],
)  # fmt: skip
def test_mistakes_in_a_study_are_named(own: Path, there: str, instead: str, said: str) -> None:
    change(STUDY, there, instead)
    with pytest.raises(UserError) as caught:
        load_study(Path(STUDY))
    assert said in str(caught.value)


def test_a_dry_runs_commands_find_a_class_beside_the_study(own: Path) -> None:
    run = plan(load_study(Path(STUDY)), load_recipe(RECIPE), [0], Path())[0]
    assert run.commands()[0].startswith("nl-lightning fit ")
    Path("spirals.py").rename(Path(STUDY).with_name("spirals.py"))
    for verb, command in zip(("fit", "test"), run.commands(), strict=True):
        assert command.startswith(f"PYTHONPATH={own / 'experiments'}:$PYTHONPATH nl-lightning {verb} ")
    shutil.copy(Path(STUDY).with_name("spirals.py"), Path(STUDY).with_name("other.py"))
    Path(STUDY).with_name("spirals.py").unlink()
    change(STUDY, "{settings: {model.layers: 0}}", "{settings: {model.class_path: other.Net}}")
    assert plan(load_study(Path(STUDY)), load_recipe(RECIPE), [0], Path())[0].commands()[0].startswith("PYTHONPATH=")


def test_a_study_and_a_recipe_of_different_kinds_are_refused(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = Path(STUDY).read_text()
    for change_, said in (
        (("{settings: {}}", "{net: {depth: 50}}"), "variants.deep.net: is of our own networks; of spirals.Net, give 'settings'"),
        (("model: {class_path: spirals.Net}", ""), "the key 'net' is missing, and neither study nor recipe names a class"),
        (('metric: {name: test/accuracy, better: higher, unit: "%", scale: 100}', "metric: top1"), "metric: top1 isn't what spirals.Net can be compared by: expected for example"),
    ):  # fmt: skip
        text = study.replace(*change_)
        if "metric: top1" in change_[1]:
            text = text.replace("reported: {accuracy", "reported: {top1")
        Path(STUDY).write_text(text)
        assert main(["status", "depth"]) == 2
        assert said in capsys.readouterr().err


ADAM = "return torch.optim.Adam(self.parameters(), self.lr)"
PLATEAU = """opt = torch.optim.Adam(self.parameters(), self.lr)
        plateau = torch.optim.lr_scheduler.ReduceLROnPlateau(opt, patience=0, threshold=0.5)
        return {"optimizer": opt, "lr_scheduler": {"scheduler": plateau, "monitor": "train/loss"}}"""
EARLY = "class_path: EarlyStopping, init_args: {monitor: val/loss, patience: 1, min_delta: 0.5}"


@pytest.mark.parametrize(
    ("workers", "until", "optimizer", "steps"),
    [
        ("", "max_epochs: 2", ADAM, [12, 24]),
        (", num_workers=1", "max_epochs: -1\n  max_steps: 30", ADAM, [12, 24, 30]),
        (", num_workers=1, persistent_workers=True", "max_epochs: 2", ADAM, [12, 24]),
        ("", "max_epochs: 3", PLATEAU, [12, 24, 36]),
        ("", f"max_epochs: 9\n  callbacks: [{{{EARLY}}}]", ADAM, [12, 24]),  # stopped in its test
    ],
)
def test_a_stopped_run_goes_on_after_its_last_epoch_and_ends_the_same(
    own: Path, monkeypatch: pytest.MonkeyPatch, workers: str, until: str, optimizer: str, steps: list[int]
) -> None:
    change("spirals.py", ADAM, optimizer)
    change(RECIPE, "max_epochs: 15", until)
    change("spirals.py", "shuffle=True", f"shuffle=True{workers}")
    draws = "def on_train_start(self): torch.rand(1)\n    on_train_epoch_start = on_train_start\n"
    change("spirals.py", "    def test_step", f"    {draws}    def test_step")
    records = []
    for results in ("whole", "my_results"):
        (run,) = plan(load_study(Path(STUDY)), load_recipe(RECIPE), [0], Path(results), variants=["deep"])
        words = ["run", *run.identity()[:-1], "none"]
        with monkeypatch.context() as patch:
            if results != "whole":
                what, where, when = (pl.Trainer, "test", 0) if "Early" in until else (torch.optim.Adam, "step", 18)
                patch.setattr(what, where, stops_at(when, getattr(what, where)))
                with pytest.raises(RuntimeError, match="enough"):
                    worker.main(words)
        assert worker.main(words) == 0
        records.append(read_record(record_path(Path(results), "spirals", "deep", 0)))
    whole, stopped = ((one.evidence and one.evidence.weights, one.metrics, one.curve, one.steps) for one in records)
    assert stopped == whole
    assert [point["step"] for point in records[1].curve] == steps


def stops_at(step: int, original: object) -> object:
    calls = 0

    def stepping(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls > step:
            raise RuntimeError("enough")
        return original(*args, **kwargs)  # type: ignore[operator]

    return stepping


def test_what_lightnings_cli_writes_is_a_recipe(own: Path) -> None:
    program = "from spirals import *; from pytorch_lightning.cli import LightningCLI\n"
    program += "LightningCLI(Net, Spirals, subclass_mode_model=True, subclass_mode_data=True)"
    words = ["fit", "--model=spirals.Net", "--data=spirals.Spirals", "--trainer.max_epochs=1", "--print_config"]
    environment = os.environ | {"PYTHONPATH": str(own)}
    said = subprocess.run([sys.executable, "-c", program, *words], env=environment, capture_output=True, check=True)
    Path(RECIPE).write_bytes(said.stdout)
    for part in ("model: {class_path: spirals.Net}", "data: {class_path: spirals.Spirals}"):
        change(STUDY, part, "")
    train([0], ["linear"])
    change(RECIPE, "optimizer: null", "optimizer: torch.optim.SGD")
    with pytest.raises(UserError, match="optimizer"):
        modules.module_cli(plan(load_study(Path(STUDY)), load_recipe(RECIPE), [0], Path())[0], parse_only=True)


@pytest.mark.parametrize(
    "words",
    [["--model=spirals.Net", "--data=spirals.Spirals"], ["--model", "spirals.Net", "--data", "spirals.Spirals"]],
)
@pytest.mark.parametrize("config", [["--config", RECIPE], ["-c", RECIPE], [f"-c={RECIPE}"]])
def test_a_class_is_understood_however_it_is_said(
    own: Path, words: list[str], config: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(modules.ModuleCLI, "fit", lambda *_, **__: None)
    assert main(["fit", *config, *words, "--model.layers=0"]) == 0


def test_fit_takes_layers_without_a_size(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change("spirals.py", "*parts, nn.Linear(width, 3)", "*parts, nn.LazyLinear(3)")
    monkeypatch.setattr(pl.Trainer, "fit", wraps(pl.Trainer.fit)(lambda *_, **__: None))
    assert main(["fit", "--config", RECIPE, "--model=spirals.Net", "--data=spirals.Spirals"]) == 0


def test_fit_takes_the_module_too(own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    change(RECIPE, "max_epochs: 15", "max_epochs: 1")
    assert main(["fit", "--config", RECIPE, "--model=spirals.Net", "--data=spirals.Spirals", "--model.layers=0"]) == 0
    said = capsys.readouterr().out
    assert "9e-06 M parameters; into my_results/fit/1" in said
    assert "epoch 1, step 12: train/loss" in said
    assert main(["test", "--config", RECIPE, "--model=spirals.Net", "--data=spirals.Spirals", "--model.layers=0", "--ckpt_path=my_results/fit/1/checkpoints/last.ckpt"]) == 0  # fmt: skip
    assert "test/accuracy 0." in capsys.readouterr().out


# ------------------------------------------------------------------------------------------------------------ Table 3


def test_table_3_takes_the_long_networks_of_table_2() -> None:
    study, other = load_study(find_study("table3")), load_study(find_study("table2"))
    assert study.select() == ["i3d311_r50_nl5", "i3d311_r50_nl5_128f", "i3d311_r101_nl5", "i3d311_r101_nl5_128f"]
    assert all(study.variants[name] == other.variants[name] for name in study.variants)
    recipe = load_recipe("kinetics400_paper")
    hashes = [
        [run.config_hash for run in plan(one, recipe, [0], Path(), variants=study.select())] for one in (study, other)
    ]
    assert hashes[0] == hashes[1]
    for name in study.variants:
        if name.endswith("128f"):
            assert study.reported(name).keys() == {"top1", "top5"}


def test_table_3_says_what_the_paper_says() -> None:
    tables = load_study(find_study("table3")).tables
    assert [tuple(row.reported.values()) for row in tables["3-val"].rows] == [
        (72.1, 90.3), (75.7, 92.0), (73.0, 90.9), (74.9, 91.6), (77.1, 93.2), (77.7, 93.2), (76.5, 92.6), (77.7, 93.3),
    ]  # fmt: skip
    assert [tuple(row.reported.values()) for row in tables["3-test"].rows] == [
        (71.1, 89.3, 80.2),
        (74.2, 91.3, 82.8),
        (83.8,),
    ]


def test_a_claim_can_be_about_what_others_report(trained: Path, own: Path, capsys: pytest.CaptureFixture[str]) -> None:
    study = (own / STUDY).read_text()
    claims = """  - id: others
    text: It is ahead of one that reports 50, and level with one that reports 88.
    parts:
      - direction: It is ahead.
        checks:
          - surpasses: {variant: deep, reported: 50, by: 5}
      - size: It is level.
        checks:
          - matches: {variant: deep, reported: 88, within: 20}
      - direction: It is ahead of a perfect one.
        checks:
          - surpasses: {variant: deep, reported: 99.9}
"""
    text = compared(trained, own, study + claims, capsys)
    scores = [
        read_record(path).score(load_study(Path(STUDY)).metric)
        for path in (own / "my_results/records/spirals/deep").iterdir()
    ]
    assert f"two hidden layers (1) - 50.0 %, reported is {np.mean(scores) - 50:+.1f} [" in text
    for part, word in (("direction 1", "holds"), ("size", "holds"), ("direction 2", "fails")):
        assert re.search(rf"\| others \| {part} +\| {word} ", text), part


@pytest.mark.parametrize(("unit", "scale"), [("%", 100.0), ("", 1.0), ("", 100.0)])
def test_a_score_without_mistakes_on_few_items_is_not_sure(trained: Path, unit: str, scale: float) -> None:
    record = read_record(record_path(trained / "my_results", "spirals", "deep", 0))
    record = replace(record, outcomes=pack_outcomes([1.0] * 20), videos_expected=20, metrics={"test/accuracy": 1.0})
    metric = replace(load_study(trained / STUDY).metric, unit=unit, scale=scale)
    found = weighted([(record, record, record)], [1], metric, False, "")
    assert (found.mean, found.paired) == (scale, True)
    assert found.interval().low < 0.9 * scale
    assert over_videos(record, metric) == (pytest.approx(0.839 * scale, rel=1e-3), scale)  # Wilson's
    alike = weighted([(record, record, record)] * 2, [1, -1], metric, False, "")
    assert alike.interval().high == pytest.approx(0.129 * scale, rel=1e-2)
    assert alike.limit == scale


def test_points_of_a_curve_are_short_and_no_small_one_is_zero() -> None:
    assert callbacks._rounded({"a": 3.14159e-5, "b": 1.23456, "c": 0.0}) == {"a": 3.14e-5, "b": 1.2346, "c": 0.0}


def test_records_of_a_changed_file_are_named(trained: Path, own: Path) -> None:
    shutil.copytree(trained / "my_results", own / "my_results")
    path = record_path(own / "my_results", "spirals", "deep", 1)
    record = json.loads(path.read_text())
    record["evidence"]["source"]["spirals.Net"] = "0123456789ab"
    path.write_text(json.dumps(record))
    assert main(["report", "depth"]) == 0
    text = (own / "my_results/tables/spirals/depth.md").read_text()
    assert "Mixed code: the file of spirals.Net was changed between these records" in text
