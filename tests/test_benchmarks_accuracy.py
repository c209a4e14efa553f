"""Two results folders are compared beside the noise of training."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks import accuracy
from nl_lightning.study.packing import pack
from nl_lightning.study.records import Record, load_records, write_record

REPOSITORY = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def record() -> Record:
    return load_records(REPOSITORY / "results" / "earlier" / "longrange", "longrange")[0][0]


def put(folder: Path, record: Record, variant: str, tops: dict[int, float]) -> None:
    """Records of a network; of 600 videos the first so many are right."""
    for seed, top1 in tops.items():
        right = np.arange(record.videos_expected) < record.videos_expected * top1 / 100
        fields = {"config": {}, "right_top5": "", "top5": 100.0, "top1_by_group": {}}
        made = replace(record, variant=variant, seed=seed, top1=top1, right_top1=pack(right.tolist()), **fields)
        write_record(folder, made)


def test_a_difference_is_set_beside_the_noise(
    tmp_path: Path, record: Record, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = tmp_path / "first", tmp_path / "second"
    put(first, record, "steady", {0: 90.0})
    put(second, record, "steady", {0: 85.0, 1: 85.5, 2: 84.5})
    put(first, record, "lucky", {0: 60.0, 1: 70.0})
    put(second, record, "lucky", {0: 65.0})
    put(first, record, "alone", {0: 50.0})
    put(second, record, "alone", {0: 51.0})
    put(first, record, "not_there", {0: 50.0})
    accuracy.main([str(first), str(second)])
    said = re.sub(" +", " ", capsys.readouterr().out)  # columns are padded
    # The variance of steady is 0.25, that of lucky 50: the median is 5.0 ^ 2.
    assert re.search(r"\| alone \| 0 \| 50.0 \| 51.0 \| \+1.0 \| \[\S+, \S+\] \| \(5.0\) \| 0.1 \|", said)
    assert re.search(r"\| lucky \| 0 \| 60.0 \| 65.0 \| \+5.0 \| .* \| 7.1 \| 0.5 \|", said)
    assert re.search(r"\| steady \| 0 \| 90.0 \| 85.0 \| -5.0 \| .* \| 0.5 \| 7.1 \|", said)
    assert "Mean difference over 3 networks: +0.33 points" in said
    assert "Further apart than 1.96 standard deviations of two trainings: 1 (0.2 would be by chance): steady." in said
    assert "- steady, second: 85.0, 85.5, 84.5" in said
    assert "not_there" not in said


def test_nothing_to_compare_is_said_in_a_line(tmp_path: Path, record: Record) -> None:
    put(tmp_path / "first", record, "a", {0: 50.0})
    put(tmp_path / "second", record, "b", {0: 50.0, 1: 60.0})
    put(tmp_path / "third", record, "a", {0: 50.0})
    for folders, message in (
        (("first", "second"), "lack a run that both have"),
        (("first", "third"), "lack a network with several seeds"),
        (("first", "nowhere"), "nowhere: no records of the recipe longrange"),
    ):
        with pytest.raises(SystemExit, match=message):
            accuracy.main([str(tmp_path / name) for name in folders])
