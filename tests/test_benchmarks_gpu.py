"""The script for a GPU: its recipes are understood, and it stops in time."""

import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
from understood import understand

from benchmarks import gpu
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import load_recipe
from nl_lightning.study.run import plan
from nl_lightning.train.run_cli import ANY_MACHINE


def test_its_recipe_is_twice_as_wide(tmp_path: Path) -> None:
    on_gpu = load_recipe(gpu.write_recipes(tmp_path / "on_gpu", "cuda")).config
    recipe = load_recipe(gpu.write_recipes(tmp_path / "recipes", "cpu"))
    differs = {"accelerator": "gpu", "precision": "bf16-mixed"}
    assert on_gpu == recipe.config | {"trainer": recipe.config["trainer"] | differs}
    runs = {run.variant.name: run for run in plan(load_study(find_study("table2")), recipe, [0], tmp_path)}
    assert len(runs) == 31
    for name, frames, root in (
        ("stills_r50", 1, "data/longrange64_stills"), ("c2d_r50", 8, "data/longrange64"),
        ("i3d311_r101_nl5_128f", 16, "data/longrange64"),
    ):  # fmt: skip
        config = understand([*runs[name].arguments(), *ANY_MACHINE])
        assert config.model.net.width == 0.125
        assert (config.data.root, config.data.num_frames, config.data.crop) == (root, frames, 64)
        made = config.data.stills if name == "stills_r50" else config.data.longrange
        assert (made.size, made.crop) == (72, 64)


def test_what_is_not_done_in_time_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    begun = []

    class Kept(subprocess.Popen[bytes]):
        def __init__(self, *given: Any, **more: Any) -> None:
            super().__init__(*given, **more)
            begun.append(self)

    monkeypatch.setattr(gpu.subprocess, "Popen", Kept)
    gpu.stopped_at(["-c", "import time; time.sleep(6000)"], time.monotonic())
    assert begun[0].poll() in (-signal.SIGINT, 1)  # 1: Python had not quite started
    gpu.stopped_at(["-c", "raise SystemExit(3)"], time.monotonic() + 6000)
    assert begun[1].poll() == 3
