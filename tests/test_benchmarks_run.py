"""The benchmarks run from measuring to the page, on tiny shapes; nothing here looks at how long anything takes."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from benchmarks import contest, machine, networks, operations, ratios, run, store
from benchmarks.targets import products, targets

MACHINE = "tiny"


@pytest.fixture
def tiny(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything small and in this process, and the machine's folder."""
    monkeypatch.setattr(machine, "RESULTS", tmp_path)
    monkeypatch.setattr(run, "alone", lambda work, settings: work(settings))
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


def test_only_some_cases(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each in a process of its own, as a user measures."""
    monkeypatch.setattr(contest, "PRELOAD", ["benchmarks.operations"])
    monkeypatch.setattr(run, "alone", contest.alone)
    run.main(
        ["--quick", "--repeats=1", f"--machine={MACHINE}", "--part=operations", "--only", "dot_product", "forward"]
    )
    cases = [entry["case"] for entry in json.loads((tiny / "operations.json").read_text())]
    assert [(case["instantiation"], case["phase"], case["subsample"]) for case in cases] == [
        ("dot_product", "forward", True),
        ("dot_product", "forward", False),
    ]


@pytest.mark.parametrize(("parts", "named"), [(["--part=operations"], "operations"), ([], "operations, networks, .*")])
def test_values_that_no_case_has(tiny: Path, parts: list[str], named: str) -> None:
    """One line, with the values of a case to take instead; nothing is measured."""
    words = ["--quick", f"--machine={MACHINE}", *parts, "--only", "res4", "dotproduct"]
    with pytest.raises(SystemExit, match=rf"--only res4 dotproduct: no case of {named} has all of these; one is: res4"):
        run.main(words)
    assert not (tiny / "operations.json").exists()


def test_parts_without_such_a_case_are_passed_over(tiny: Path) -> None:
    run.main(
        ["--quick", "--repeats=1", f"--machine={MACHINE}", "--part", "networks", "operations", "--only", "gaussian"]
    )
    assert not (tiny / "networks.json").exists()
    assert len(json.loads((tiny / "operations.json").read_text())) == 4


def test_other_parts(tiny: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All on one page; the parts that were not measured again keep their figures."""
    monkeypatch.setattr(operations, "INSTANTIATIONS", ("dot_product",))
    measure("networks")
    with monkeypatch.context() as patch:  # what a process keeps from earlier cases would hide the memory of small ones
        patch.setattr(contest, "PRELOAD", ["benchmarks.operations"])
        patch.setattr(run, "alone", contest.alone)
        measure("growth")
    before = (tiny / "networks.json").read_text()
    measure("pipeline", "study")
    measure("networks")  # has been measured with this very code
    assert (tiny / "networks.json").read_text() == before
    page = (tiny / "speed.md").read_text()
    print(page)
    for title in ("Targets", "Whole networks", "Growth with N", "The pipeline", "The whole of Table 2"):
        assert f"## {title}\n" in page
    assert "failed: " not in page


def block(phase: str, **figures: tuple[float, int] | str) -> dict[str, Any]:
    """An entry of concatenation in res4 with these (seconds, bytes), or reasons why not."""
    case = {"place": "res4", "pixels": 224, "clip_frames": 32, "instantiation": "concatenation", "subsample": True}
    found = [
        {"name": name, "skipped": figure} if isinstance(figure, str) else
        {"name": name, "seconds": [figure[0], figure[0], 99.0], "bytes": figure[1], "error": None}
        for name, figure in figures.items()
    ]  # fmt: skip
    return {"case": case | {"phase": phase, "channels": 1024, "frames": 4, "side": 14}, "figures": found}


@pytest.mark.parametrize(
    ("peer", "measured", "met"),
    [
        ((50.0, 100), "50x, memory 1/100", True),
        ((39.0, 100), "39x, memory 1/100", False),
        ((50.0, 40), "50x, memory 1/40", False),
    ],
)
def test_a_target_is_met_in_time_and_in_memory(peer: tuple[float, int], measured: str, met: bool) -> None:
    """By medians, and against those that pool where ours does."""
    figures = {"ours, pool before": (9.0, 9), "ours, pool after": (1.0, 1), "all pairs": peer}
    parts = {"operations": [block("training", **figures)], "networks": [], "growth": [], "study": []}
    first = targets(parts, cuda=False)[0]
    assert (first.measured, first.met) == (measured, met)


def test_beside_a_missed_target_stands_what_the_products_take() -> None:
    """Concatenation at res4, pooled after: theta, phi, g and W_z of 784 positions, and f g of 784 x 196 pairs."""
    entry = block("training", **{"ours, pool after": (1.0, 1), "all pairs": (20.0, 100)})
    ceiling = {"name": "convolution, float32", "seconds": [1.0], "macs": 1e12, "bytes": None}
    network = {"case": {}, "figures": [ceiling]}
    parts = {"operations": [entry], "networks": [network], "growth": [], "study": []}
    macs = 3 * (4 * 784 * 1024 * 512 + 784 * 196 * 512)
    first = targets(parts, cuda=False)[0]
    assert (first.measured, first.met) == ("20x, memory 1/100", False)
    assert f"the target is 500 ms, of which our products take {macs / 1e9:.0f} at" in first.note


def test_beside_a_missed_share_of_memory_stand_the_maps() -> None:
    """Of 784 positions of 1,024 channels: 3.1 MiB each."""
    entry = block("training", **{"ours, pool after": (1.0, 2**20), "all pairs": (50.0, 10 * 2**20)})
    parts = {"operations": [entry], "networks": [], "growth": [], "study": []}
    first = targets(parts, cuda=False)[0]
    assert first.met is False
    assert first.note.endswith("the target is 0.2 MiB, of which z, BN's input and x's gradient take 9.2")


def test_the_share_of_memory_is_of_the_peer_that_it_is_missed_against() -> None:
    """Slowest against one peer, and largest against another that pools elsewhere."""
    entry = block(
        "forward",
        **{"ours, pool after": (1.0, 2**20), "mmcv": (2.0, 100 * 2**20)},
        **{"ours, pool before": (1.0, 2**20), "pytorchvideo": (20.0, 2 * 2**20)},
    )
    entry["case"] |= {"instantiation": "dot_product", "place": "res2"}
    parts = {"operations": [entry], "networks": [], "growth": [], "study": []}
    found = next(target for target in targets(parts, cuda=False) if target.what.startswith("dot_product, res2"))
    assert found.measured == "2.00x, memory 0.50"
    assert found.note == "best peer: mmcv; the target is 0.2 MiB, of which z takes 3.1"


@pytest.mark.parametrize(
    ("instantiation", "subsample", "expected"),
    [
        ("embedded_gaussian", False, 3 * 4 * 784 * 1024 * 512 + 3 * 784**2 * 1024),  # pairs
        ("gaussian", True, 3 * ((196 + 784) * 1024 * 512 + 784 * 196 * (1024 + 512))),  # pairs
    ],
)
def test_products_of_a_training_step(instantiation: str, subsample: bool, expected: int) -> None:
    """theta, phi, g, W_z and two products of pairs; once forward and twice backward."""
    case = {"channels": 1024, "frames": 4, "side": 14, "subsample": subsample, "phase": "training"}
    assert products({**case, "instantiation": instantiation}, "before") == expected


def test_figures_make_no_code_dirty(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run writes its own figures into the tree; only a change of the code is one."""

    def commit() -> str:
        return store.commit.__wrapped__()  # as a new process would see it

    monkeypatch.setattr(store, "REPOSITORY", tmp_path)
    assert commit() == "unknown"
    code, figures = tmp_path / "nl_lightning" / "block.py", tmp_path / "benchmarks" / "results" / "speed.md"
    for path in (code, figures):
        path.parent.mkdir(parents=True)
        path.touch()
    identity = ["-c", "user.name=n", "-c", "user.email=n@example.com", "-c", "commit.gpgsign=false"]
    for words in (["init", "--quiet"], ["add", "."], [*identity, "commit", "--quiet", "--message=first"]):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    figures.write_text("fast")
    clean = commit()
    assert clean.isalnum()
    code.write_text("pass")
    assert commit() == f"{clean}-dirty"


def test_a_peer_that_does_not_fit_is_no_victory() -> None:
    """Its reason is shown, and the forward, where it fits, stands beside it."""
    training = block("training", **{"ours, pool after": (1.0, 1), "all pairs": "needs 14 GiB"})
    forward = block("forward", **{"ours, pool after": (1.0, 1), "all pairs": (60.0, 60)})
    parts = {"operations": [training, forward], "networks": [], "growth": [], "study": []}
    first, second, *_ = targets(parts, cuda=False)
    assert (first.measured, first.met, first.note) == ("no peer", None, "needs 14 GiB")
    assert (second.what.split(", ")[-1], second.measured, second.met) == ("forward", "60x, memory 1/60", True)


def test_exponent() -> None:
    assert ratios.exponent([(10, 3.0), (20, 12.0), (40, 48.0)]) == pytest.approx(2)
    assert ratios.exponent([(10, 3.0), (10, 4.0)]) is None
