"""What the whole of Table 2 costs: seconds of a step of each of its networks, here and, as a control, by older code.

The recipe for a laptop is measured, a few training steps and a test batch of every variant. For Kinetics only the
multiply-adds are counted; what they take follows from the rates of the networks part, of this machine or of others.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks import data
from benchmarks.contest import Figures, Settings
from benchmarks.machine import REPOSITORY
from nl_lightning.models.complexity import complexity
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import load_recipe
from nl_lightning.study.run import Run
from nl_lightning.study.study import Study, Variant
from nl_lightning.train.lightning_cli import network

STUDY, PAPERS = "table2", "kinetics400_paper"
STEPS, TEST_BATCHES = 12, 2
SCALED_TO = 256, 340
"""Height and width of the whole frame that the paper tests on, of an ordinary video."""


def cases(settings: Settings, before: Path | None = None) -> Iterator[tuple[dict[str, Any], partial[Figures]]]:
    """`before` is a checkout of the code as it was, to measure the same steps by."""
    study = load_study(find_study(STUDY))
    names = ["i3d311_r50_nl5_128f"] if settings.quick else study.select()
    for name in names:
        yield case_of(study, name), partial(steps, name, before)
    for name in names:
        yield {"recipe": PAPERS, "variant": name}, partial(counts, name)


def case_of(study: Study, name: str) -> dict[str, Any]:
    """A variant under the recipe, and how often it does what is measured."""
    variant = study.variant(name)
    config = load_recipe(data.RECIPE).with_clip(variant.clip).config
    batch, trainer = config["data"], config["trainer"]
    return {
        "recipe": data.RECIPE,
        "variant": name,
        "epochs": trainer["max_epochs"],
        "validate_every": trainer.get("check_val_every_n_epoch", 1),
        "batch_size": batch["batch_size"],
        "test_batch_size": batch["test_batch_size"],
        "views": batch["num_clips"] * batch["num_crops"],
    }


def steps(name: str, before: Path | None, settings: Settings) -> Figures:
    """Steps of a variant by the code as it is and as it was, in turn."""
    trees = {"ours": REPOSITORY} | ({"before": before} if before else {})
    variant = load_study(find_study(STUDY)).variant(name)
    found: dict[str, list[dict[str, Any]]] = {tree: [] for tree in trees}
    for _ in range(1 if settings.quick else 2):
        for tree, root in trees.items():
            found[tree].append(_steps(root, variant, settings))
    return [{"name": tree, **_together(runs)} for tree, runs in found.items()]


def _together(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The steps of several processes; `seconds` are those of the training steps."""
    clock = 0 if runs[0]["device"] == "cuda" else 1  # of the wall, of the CPU
    said = {phase: [pair[clock] for run in runs for pair in run[phase]] for phase in ("train", "test")}
    start = [run["start"][clock] for run in runs]
    return {"seconds": said["train"], "test_seconds": said["test"], "start_seconds": start, "videos": runs[0]["videos"]}


def _steps(tree: Path, variant: Variant, settings: Settings) -> dict[str, Any]:
    names = [data.RECIPE, *([f"{data.RECIPE}_{variant.clip}"] if variant.clip else [])]
    files = [tree / "experiments" / "recipes" / f"{name}.yaml" for name in names]
    count = 3 if settings.quick else STEPS
    with tempfile.TemporaryDirectory() as folder:
        arguments = [f"--config={file}" for file in files] + variant.arguments()
        arguments += data.arguments(settings.quick)
        arguments += [f"--trainer.max_steps={count}", "--trainer.limit_val_batches=0", "--trainer.devices=1"]
        arguments += [f"--trainer.limit_test_batches={1 if settings.quick else TEST_BATCHES}"]
        if settings.device == "cuda":
            arguments += ["--trainer.accelerator=gpu"]
        said = Path(folder) / "said.json"
        command = [sys.executable, "-P", str(Path(__file__).parent / "steps.py"), str(said), *arguments]
        environment = {**os.environ, "PYTHONPATH": str(tree)}
        environment |= {"OMP_NUM_THREADS": "1"} if settings.device == "cpu" else {}
        # A tree has the data of its own recipe: another version's are refused.
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{variant.name}: {done.stderr.strip().splitlines()[-1]}")
        return {**json.loads(said.read_text()), "device": settings.device}


def counts(name: str, settings: Settings) -> Figures:
    """Clips and multiply-adds of a variant by the paper's schedule; testing is on whole frames."""
    study, recipe = load_study(find_study(STUDY)), load_recipe(PAPERS)
    run = Run(study, study.variant(name), recipe, 0, Path("unused"))
    (net, clip), data, trainer = network(run), run.recipe.config["data"], run.recipe.config["trainer"]
    return [{"name": name, "clips": trainer["max_steps"] * data["batch_size"] * trainer["devices"],
             "macs": complexity(net.config, clip).macs,
             "test_macs": complexity(net.config, (clip[0], *SCALED_TO)).macs,
             "test_clips": (study.reported_videos or 0) * data["num_clips"]}]  # fmt: skip
