"""A study as a report at W&B, against the stand-in; and what W&B is not told of errors."""

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import matplotlib.image
import numpy as np
import pytest
import wandb
from wandb_standin import ENTITY, WandbServer

from nl_lightning.cli import main
from nl_lightning.errors import UserError
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.study import Study, Variant
from nl_lightning.tracking import overview


def test_a_study_becomes_a_report_with_its_tables_and_pictures(
    online: WandbServer,
    study: Study,
    recipe: Recipe,
    one_seed: None,
    results: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    matplotlib.image.imsave(tmp_path / "affinity.png", np.zeros((4, 4, 3)))
    of = [str(study.path), "--recipe", str(recipe.files[0]), "--results", str(results)]
    assert main(["wandb-report", *of, f"{ENTITY}/ablation", "--picture", "affinity.png"]) == 0
    wandb.teardown()
    assert f"{ENTITY}/ablation/reports/" in capsys.readouterr().out
    (view,) = online.state.views
    spec = json.loads(view["spec"])
    panels = [
        grid["metadata"]["panelBankSectionConfig"]["panels"] for grid in spec["blocks"] if "panel" in grid["type"]
    ]
    assert panels[0][0]["viewType"] == "Parallel Coordinates Plot"
    text = json.dumps(spec)
    for table in study.tables.values():
        assert table.caption in text
    (run,) = online.state.runs.values()
    kept = " ".join(run.files)
    assert all(f"media/html/tables/{name}" in kept for name in study.tables)
    assert "media/images/pictures/affinity" in kept


def test_settings_of_other_modules_are_axes_too(study: Study, recipe: Recipe) -> None:
    variants = {name: Variant(name, {"model.layers": i}) for i, name in enumerate(study.variants)}
    made = overview.overview(replace(study, variants=variants), recipe, ENTITY, "ablation", {})
    assert "model.layers" in str(made.blocks[1])


def test_pictures_of_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview.log, "logged_in", lambda: True)
    with pytest.raises(UserError, match="and a name of its own"):
        overview.publish(None, {}, [Path(__file__).with_suffix(".png"), Path("other") / Path(__file__).name])


def test_who_is_not_logged_in_is_told_how(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(overview.log, "logged_in", lambda: False)
    with pytest.raises(UserError, match="log in with 'wandb login'"):
        overview.publish(None, {}, [])


def test_errors_are_not_sent_to_wandbs_maker() -> None:
    program = "import nl_lightning.tracking.log\nfrom wandb import env\nprint(env.error_reporting_enabled())"
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_ERROR_REPORTING"}
    said = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "False"
