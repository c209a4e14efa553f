"""A fault in the middle of a small study, and nothing is lost; with NL_LIGHTNING_FAULTS=40, so many in a larger one.

``python -m benchmarks.chaos`` is the same with a report.
"""

import os
from pathlib import Path

from benchmarks import chaos

FAULTS = int(os.environ.get("NL_LIGHTNING_FAULTS", "0"))
SHORT = ["--faults=1", "--seed=7", "--variant=nl", "--epochs=3"]
"""Seed 7 kills a run's process and spoils its newest checkpoint."""


def test_nothing_is_lost(tmp_path: Path) -> None:
    report = tmp_path / "chaos.md"
    how = [f"--faults={FAULTS}"] if FAULTS else SHORT
    assert chaos.main([*how, f"--out={report}"]) == 0, report.read_text()
    assert "- Lost: nothing." in report.read_text()
