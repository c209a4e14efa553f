"""``nl-lightning reach``: which networks it sets side by side, and what it says of them."""

from pathlib import Path

import pytest
from weight_files import write_weights

from nl_lightning.cli import main
from nl_lightning.errors import UserError
from nl_lightning.inspect.receptive_field import side_by_side
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.study.loading import load_study
from nl_lightning.study.study import Study

REPOSITORY = Path(__file__).parents[2]


@pytest.fixture
def table2() -> Study:
    return load_study(REPOSITORY / "experiments" / "table2.yaml")


def test_the_four_networks_of_the_papers_argument_are_found(table2: Study) -> None:
    assert side_by_side(table2) == ["c2d_r50", "c2d_r50_nl5", "i3d311_r50", "i3d311_r50_nl5"]


def test_a_study_without_them_asks_for_names(table2: Study) -> None:
    del table2.variants["c2d_r50_nl5"], table2.variants["c2d_r101_nl5"]  # type: ignore[attr-defined]
    with pytest.raises(UserError, match="name variants"):
        side_by_side(table2)


def test_variants_are_drawn_and_c2d_reaches_three_of_eight_frames(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    variants = ["c2d_r50", "c2d_r50_nl1_res4"]
    for given in ([*variants, "c2d_r50"], variants):  # the same figure, which is drawn again
        assert main(["reach", *given, "--recipe", "longrange_smoke", "--out", str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "c2d_r50: 37.5 % of the clip's positions" in lines
    assert "c2d_r50_nl1_res4: 100.0 % of the clip's positions" in lines
    assert any(line.startswith("untrained; branches that start at zero") for line in lines)
    assert {path.name for path in tmp_path.iterdir()} == {"reach_longrange_smoke.png", "reach_longrange_smoke.svg"}


def test_trained_networks_are_drawn_as_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Untrained here: the block is the identity, and isn't opened."""
    weights = write_weights(tmp_path / "mine.safetensors", NonLocalConfig({"res3": [1]}))
    assert main(["reach", "--weights", str(weights), "--out", str(tmp_path / "out")]) == 0
    share, state = capsys.readouterr().out.splitlines()[:2]
    assert share.endswith(" % of the clip's positions")
    assert 30 < float(share.split()[1]) <= 37.5  # three of eight frames, less what ReLUs hide
    assert (share.split()[0], state) == ("mine:", "trained networks; mean over 4 clips of noise")
    assert (tmp_path / "out" / "reach_mine.png").exists()
    write_weights(tmp_path / "mine.safetensors", NonLocalConfig({"res3": [0]}))
    assert main(["reach", "--weights", str(weights), "--out", str(tmp_path / "out")]) == 2
    assert "nl-lightning didn't write it from these weights and videos" in capsys.readouterr().err


def test_two_files_of_one_name_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "a").mkdir()
    first, second = (write_weights(tmp_path / name, None) for name in ("w.safetensors", "a/w.safetensors"))
    assert main(["reach", "--weights", str(first), "--weights", str(second), "--out", str(tmp_path / "out")]) == 2
    assert "two files are called w," in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["c2d_r5"], "did you mean 'c2d_r50'?"),
        (["c2d_r50", "--weights", "w.safetensors"], "give one or the other"),
        (["--weights", "w.safetensors"], "there is no file w.safetensors"),
        (["c2d_r50", "c2d_r50_128f"], "clips of different sizes"),
    ],
)
def test_a_mistake_is_one_line(words: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    recipe = [] if words[0] == "--weights" else ["--recipe", "longrange_smoke"]
    assert main(["reach", *words, *recipe, "--out", str(tmp_path)]) == 2
    said = [said for said in capsys.readouterr().err.splitlines() if said.startswith("nl-lightning: ")]
    assert len(said) == 1
    assert line in said[0]
