"""The benchmarks run from measuring to the page, on tiny shapes; nothing here looks at how long anything takes."""

import json
from pathlib import Path

import pytest

from benchmarks import machine, networks, operations, run

MACHINE = "tiny"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything small, and the machine's folder."""
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    monkeypatch.setattr(operations, "MAPS", {"res4": (2, 4, 8)})
    monkeypatch.setattr(operations, "GROWTH", {"frames": [(1, 4), (2, 4)]})
    monkeypatch.setattr(operations, "GROWTH_CHANNELS", 8)
    monkeypatch.setattr(networks, "CLIP", (4, 64))
    monkeypatch.setattr(networks, "WIDTH", 1 / 16)
    return tmp_path / MACHINE / "quick"


def measure(*parts: str) -> None:
    run.main(["--quick", "--repeats=1", f"--machine={MACHINE}", "--part", *parts])


def test_blocks(tiny: Path) -> None:
    """Every contestant is measured once, agrees with the definition, and stands in the page."""
    measure("operations")
    entries = json.loads((tiny / "operations.json").read_text())
    assert len(entries) == 2 * 4 * 2
    for entry in entries:
        names = {figure["name"] for figure in entry["figures"]}
        assert names >= {"ours, pool before", "ours, pool after", "plain, pool before", "all pairs"}
        assert ("pytorchvideo" in names) == (entry["case"]["instantiation"] in ("embedded_gaussian", "dot_product"))
        for figure in entry["figures"]:
            assert len(figure["seconds"]) == 1
            assert figure["error"] < 1e-3, (entry["case"], figure["name"])
    page = (tiny / "speed.md").read_text()
    assert "| any instantiation at any shape " in page
    assert (tiny / "operations.svg").stat().st_size
    print(page)


def test_other_parts(tiny: Path) -> None:
    """All on one page; the parts that were not measured again keep their figures."""
    measure("networks", "growth")
    before = (tiny / "networks.json").read_text()
    measure("pipeline", "study")
    measure("networks")  # has been measured with this very code
    assert (tiny / "networks.json").read_text() == before
    page = (tiny / "speed.md").read_text()
    print(page)
    for title in ("Targets", "Whole networks", "Growth with N", "The pipeline", "The whole of Table 2"):
        assert f"## {title}\n" in page
    assert "failed: " not in page
