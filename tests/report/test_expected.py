"""What ``run`` says beside a finished row: whether what is committed for it agrees."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from nl_lightning.report.expected import as_expected, committed, committed_folder
from nl_lightning.study.metrics import Metric
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.records import Record
from nl_lightning.study.run import Run
from nl_lightning.study.study import Study

Measure = Callable[..., Record]


@pytest.fixture
def run(study: Study, recipe: Recipe, tmp_path: Path) -> Run:
    return Run(study, study.variant("plain"), recipe, 7, tmp_path / "mine")


def test_within_the_spread_of_seeds(measure: Measure) -> None:
    """Of 60, 62 and 64, one more seed is expected within 62 +- 4.303 x 2 x sqrt(4 / 3) = 9.9."""
    others = [measure("plain", seed, 60.0 + 2 * seed) for seed in range(3)]
    for top1, said in ((52.1, "as expected"), (71.9, "as expected"), (52.0, "not as expected"), (72.0, "not")):
        assert as_expected(replace(others[0], top1=top1), others).startswith(said)
    assert as_expected(others[0], others) == "as expected: 62.0 +- 9.9 %, the spread of 3 committed seeds"


def test_one_committed_seed_is_compared_by_the_intervals_over_videos(measure: Measure) -> None:
    other = measure("plain", 0, 60.0)  # Wilson's interval of 240 in 400 videos: 55.1 to 64.7
    assert as_expected(replace(other, top1=65.0), [other]) == (
        "as expected: 60.0 % is committed (seed 0); the intervals over videos overlap"
    )
    assert as_expected(replace(other, top1=75.0), [other]) == (
        "not as expected: 60.0 % is committed (seed 0); the intervals over videos don't overlap"
    )
    assert as_expected(other, []) == ""


def test_committed_seeds_that_agree_say_nothing_of_the_spread(measure: Measure) -> None:
    others = [measure("plain", seed, 63.3) for seed in range(3)]
    for top1, said in ((63.3, "as expected"), (64.0, "as expected"), (80.0, "not as expected")):
        assert as_expected(replace(others[0], top1=top1), others).startswith(f"{said}: 63.3 % is committed (seed 0)")


def test_other_test_videos_are_not_compared(measure: Measure) -> None:
    """As of other official splits, or of data of one's own under a recipe that names no data."""
    others = [measure("plain", seed, 60.0 + seed, videos_hash=f"{seed}" * 12) for seed in range(3)]
    said = as_expected(replace(others[1], top1=63.0), others)
    assert said == "as expected: 61.0 % is committed (seed 1); the intervals over videos overlap"
    other = replace(others[0], videos_hash="f" * 12)
    assert as_expected(other, others) == "what is committed was tested on other videos"
    assert as_expected(replace(other, videos_hash=""), others).endswith("the spread of 3 committed seeds")


def test_runs_that_diverged(measure: Measure) -> None:
    sound = measure("plain", 0, 60.0)
    diverged = replace(sound, top1=None, top5=None, diverged="the loss from step 7 on")
    assert as_expected(diverged, [sound]) == "not as expected: one of this and the committed diverged"
    assert as_expected(sound, [diverged]) == "not as expected: one of this and the committed diverged"
    assert as_expected(diverged, [diverged]) == "as expected: both diverged"
    assert as_expected(replace(sound, top1=None, metrics={"test/f1": 0.5}), [sound], Metric("test/f1", "f1")) == ""


def test_only_records_of_todays_configuration_are_compared(run: Run, results: Path, measure: Measure) -> None:
    measure("plain", 0, 60.0)
    measure("plain", 1, 60.0, config_hash="0123456789ab")
    measure("block", 0, 60.0)
    assert [(one.variant, one.seed) for one in committed(run, results)] == [("plain", 0)]
    assert committed(replace(run, results=results), results) == []  # its own folder: nothing but itself
    assert committed(run, results / "nowhere") == []
    assert committed_folder(run) == run.study.path.parent.parent / "results"
