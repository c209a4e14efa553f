"""A few faults in the middle of a small study, and nothing is lost; ``python -m benchmarks.chaos`` has many."""

from pathlib import Path

from benchmarks import chaos


def test_nothing_is_lost(tmp_path: Path) -> None:
    report = tmp_path / "chaos.md"
    assert chaos.main(["--faults=2", "--variant=nl", "--epochs=3", f"--out={report}"]) == 0, report.read_text()
    assert "- Lost: nothing." in report.read_text()
