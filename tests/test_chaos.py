"""A fault in the middle of a small study, and nothing is lost; with NL_LIGHTNING_FAULTS=40, so many in a larger one.

``python -m benchmarks.chaos`` is the same with a report.
"""

import os
import sys
from pathlib import Path

import pytest

from benchmarks import chaos

FAULTS = int(os.environ.get("NL_LIGHTNING_FAULTS", "0"))
SHORT = ["--faults=1", "--seed=13", "--variant=nl", "--epochs=3"]
"""Seed 13 kills a run's process."""
PROGRAM = """
import sys
from nl_lightning import cli
from nl_lightning.runs import schedule

schedule.prepare = lambda study, recipe: 0
sys.exit(cli.main())
"""
"""``nl-lightning`` without the process that looks at the data before a study begins, and each time that it goes on."""


def test_nothing_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    report = tmp_path / "chaos.md"
    if not FAULTS:
        monkeypatch.setattr(chaos, "PROGRAM", [sys.executable, "-c", PROGRAM])
    how = [f"--faults={FAULTS}"] if FAULTS else SHORT
    assert chaos.main([*how, f"--out={report}"]) == 0, report.read_text()
    assert "- Lost: nothing." in report.read_text()
