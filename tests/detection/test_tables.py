"""Tables 5 and 6 as studies: every variant builds under every recipe, and reported numbers are the paper's."""

from pathlib import Path

import pytest
import torch
from torch import nn

from nl_lightning.detection import CocoData, Detector
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import load_recipe
from nl_lightning.study.run import plan
from nl_lightning.train.modules import ModuleCLI, module_cli

EXPERIMENTS = Path(__file__).parents[2] / "experiments"
REPORTED = {
    "table5": """
        38.0 59.6 41.0 34.6 56.4 36.5 / 39.0 61.1 41.9 35.5 58.0 37.4 / 39.5 61.4 42.9 36.0 58.1 38.3
        40.8 63.1 44.5 37.1 59.9 39.2 / 44.1 66.4 48.4 39.7 63.2 42.2 / 45.0 67.8 48.9 40.3 64.4 42.8""",
    "table6": "65.1 86.8 70.4 / 66.0 87.1 71.7 / 66.5 87.3 72.8",
}


def built(study: str, recipe: str) -> dict[str, ModuleCLI]:
    """Each variant's command line, made, on the meta device, which holds no numbers."""
    runs = plan(load_study(EXPERIMENTS / f"{study}.yaml"), load_recipe(recipe), [0], Path())
    with torch.device("meta"):
        return {run.variant.name: module_cli(run, parse_only=True) for run in runs}


@pytest.mark.parametrize("study", ["table5", "table6"])
def test_reported_is_what_the_paper_reports(study: str) -> None:
    (table,) = load_study(EXPERIMENTS / f"{study}.yaml").tables.values()
    found = [number for row in table.rows for number in row.reported.values()]
    assert found == [float(number) for number in REPORTED[study].replace("/", " ").split()]


@pytest.mark.parametrize(
    ("study", "recipe"),
    [
        ("table5", "coco"),
        ("table5", "tags"),
        ("table6", "coco_keypoints"),
        ("table6", "tags_keypoints"),
        ("controls_objects", "tags"),
        ("controls_keypoints", "tags_keypoints"),
    ],
)
def test_every_variant_builds(study: str, recipe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nl_lightning.detection.detector.load_start", lambda net, path: [])  # no such files here
    for draw in ("kaiming_normal_", "kaiming_uniform_"):  # no numbers to draw
        monkeypatch.setattr(nn.init, draw, lambda tensor, *_, **__: tensor)
    for name, cli in built(study, recipe).items():
        config = cli.config
        with torch.device("meta"):
            made = cli.parser.instantiate_classes(config)
        assert isinstance(made["model"], Detector)
        assert isinstance(made["data"], CocoData)
        assert made["data"].keypoints == bool(made["model"].num_keypoints)
        names = [name for name, _ in made["model"].net.named_modules() if name.endswith(".non_local")]
        placed = name.removesuffix("_grey")
        assert len(names) == (int(placed[-1]) if placed[-1].isdigit() and placed.count("_") > 1 else 0)
        assert made["data"].tags is None or made["data"].tags.grey == name.endswith("_grey")
        depth = sum(
            part.startswith("backbone.body.layer3.") and part.count(".") == 3
            for part, _ in made["model"].net.named_modules()
        )
        assert depth == {"r50": 6, "r101": 23}[name.split("_")[1]]
