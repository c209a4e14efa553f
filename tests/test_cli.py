"""The commands as a user types them: what they print, what they exit with, and what a mistake looks like."""

import json
import re
import shutil
from pathlib import Path

import pytest

from nl_lightning.cli import main

REPOSITORY = Path(__file__).parent.parent
RECIPE = REPOSITORY / "experiments" / "recipes" / "longrange.yaml"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in, with a copy of the experiments that a test may spoil."""
    shutil.copytree(REPOSITORY / "experiments", tmp_path / "experiments")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    """Everything that a command prints, its white space folded."""
    try:
        ended: object = main(arguments)
    except SystemExit as end:  # argparse and jsonargparse end the process themselves
        ended = end.code
    assert ended == code
    output = capsys.readouterr()
    assert "Traceback" not in output.err
    return " ".join((output.out + output.err).split())


def spoil(path: Path, old: str, new: str) -> None:
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def test_status_shows_every_run(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = said(capsys, "status", "table2")
    assert output.count(" 0 missing") == 29
    assert output.endswith("29 missing, in my_results")
    assert said(capsys, "status", "table2", "--table", "2e", "--seed", "0", "--seed", "1").endswith(
        "8 missing, in my_results"
    )


def test_report_writes_tables_that_show_what_is_missing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "page.md").write_text("Before\n<!-- results:start -->\nold\n<!-- results:end -->\nafter\n")
    output = said(capsys, "report", "table2", "--readme", "page.md")
    assert "Table 2g" in output
    assert "files in my_results/tables/longrange" in output
    names = {path.name for path in (home / "my_results" / "tables" / "longrange").iterdir()}
    assert names == {
        "table2.md",
        "table2.tex",
        *(f"table2{letter}.{kind}" for letter in "abcdefg" for kind in ("md", "tex", "csv")),
    }
    page = (home / "page.md").read_text()
    assert page.startswith("Before\n<!-- results:start -->\n")
    assert page.endswith("<!-- results:end -->\nafter\n")
    assert "missing" in page
    assert "old" not in page


def test_report_as_a_page(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "table2", "--html", "--results", "mine"]) == 0
    page = Path("mine/tables/longrange/table2.html")
    assert capsys.readouterr().out.endswith(f"{page}\n")
    assert "Nothing is measured yet" in page.read_text()


def test_power_names_what_it_assumes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", "table2", "--seed-noise", "0.1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert (
        "split on 10.0 % of the videos (assumed); a difference varies by 0.10 points from seed to seed (given)" in out
    )
    assert "on 19,761 videos" in out
    assert main(["power", "table2", "--disagreement", "0"]) == 2
    assert "--disagreement: expected a number above 0, up to 100, not '0'" in capsys.readouterr().err


def test_dry_run_prints_the_commands_in_order_and_makes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = said(capsys, "run", "table2", "--variant", "c2d_r50_128f", "--dry-run")
    commands = re.findall(
        r"nl-lightning (fit|test) .*?--trainer.default_root_dir=my_results/runs/longrange/(\w+)", output
    )
    assert commands == [("fit", "c2d_r50"), ("test", "c2d_r50"), ("fit", "c2d_r50_128f"), ("test", "c2d_r50_128f")]
    assert not (home / "my_results").exists()


def test_complexity_explains_how_blocks_compute(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variants = ("--variant", "c2d_r50_nl1_res4_concat", "--variant", "c2d_r50_nl5_space")
    output = said(capsys, "complexity", "table2", "--explain", "--recipe", "kinetics400_release", *variants)
    assert re.search(r"c2d_r50_nl1_res4_concat block sets .* res4.4 1 784 196 0.586 keys keys", output)
    assert "res3.1 4 784 196 2.34 keys attention" in output


def test_complexity_counts_on_the_recipes_clips(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = said(capsys, "complexity", "table2", "--recipe", "kinetics400_release", "--variant", "c2d_r50_nl5")
    params, macs = re.search(r"c2d_r50_nl5 (\S+) (\S+)", output).groups()  # type: ignore[union-attr]
    golden = json.loads((REPOSITORY / "tests" / "golden_complexity.json").read_text())
    expected = golden["release"]["c2d_r50_nl5"]
    assert float(params) == pytest.approx(expected["params"] / 1e6, abs=6e-4)
    assert float(macs) == pytest.approx(expected["macs"] / 1e9, abs=6e-4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("status", "tabel2"), "no study 'tabel2' in experiments.*did you mean 'table2'"),
        (("status", "table2", "--table", "2h"), r"no table '2h'"),
        (("run", "table2", "--variant", "c2d_r5"), "no variant 'c2d_r5'; did you mean 'c2d_r50'"),
        (("run", "table2", "--recipe", "longrnge"), "no recipe 'longrnge'.*did you mean 'longrange'"),
        (("run", "table2", "--seed", "one"), "--seed: expected a whole number of at least 0, not 'one'"),
        (("run", "table2", "--seed", "-1"), "--seed: expected (a whole number of at least 0, not '-1'|one argument)"),
        (("run", "table2", "--workers", "0"), "expected a whole number of at least 1, not '0'"),
        (("rnu", "table2"), "invalid choice: 'rnu'"),
        ((), "the following arguments are required: COMMAND"),
    ],
)
def test_a_mistyped_command_names_the_nearest(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert re.search(message, said(capsys, *arguments, code=2))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("caption:", "captoin:", "unknown key 'captoin'; did you mean 'caption'"),
        ("  c2d_r50: {", "  c2d_r50: {net: {depth: 50}}\n  c2d_r50: {", "the key 'c2d_r50' is given twice"),
        ("{res2: [1]}", "{res2: [3]}", "res2 of ResNet-50 has the residual blocks 0 to 2, not 3"),
        ("instantiation: gaussian", "instantiation: gausian", "expected one of gaussian, .*'gausian'"),
        ("baseline: c2d_r50,", "baseline: c2d_r5O,", "unknown 'c2d_r5O'; did you mean 'c2d_r50'"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_study_is_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, message: str
) -> None:
    spoil(home / "experiments" / "table2.yaml", old, new)
    output = said(capsys, "run", "table2", code=2)
    assert re.search(message, output)
    assert output.startswith("nl-lightning: experiments/table2.yaml")
    assert len(output) < 300


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--model.net.deptth=50",), "model.net.deptth=50; did you mean 'model.net.depth'"),
        (("--model.net.dropout=2",), "dropout 2.*: expected a width above 0"),
        (("--model.schedule.warmup=1",), "schedule.warmup is 1"),
        (("--data.num_frames=0",), "data.num_frames is 0: expected at least 1"),
        (("--data.batch_size=64",), "data.batch_size is 64, but .* has 33 train and 11 val videos"),
        (("--config=no.yaml",), "File does not exist: '.*no.yaml'"),
        (("--ckpt_path=no.ckpt",), "ckpt_path: no checkpoint at no.ckpt"),
        (("--model.init_from=videos",), "init_from: videos holds no weights"),
        (("--data.longrange=null", "--data.train_list=train/look_0"), "no list of videos can be read here"),
        (("--model.net.depth=34",), "model.net.depth"),
        (('--model.net.non_local={"placement": {"res9": [1]}}',), "expected a stage of .*, not 'res9'"),
        (('--model.net.non_local={"placement": {"res2": [3]}}',), "residual blocks 0 to 2, not 3"),
        (("--model.net.conventions.scale=perhaps",), "model.net.conventions.scale"),
        (("--data.crop=40",), "data.short_side is 36 to 36 and data.crop 40"),
        (("--data.num_crops=2",), "data.num_crops is 2: expected 1 .centre. or 3"),
        (("--seed_everything=one",), "seed_everything"),
        (("--model.init_from=nowhere.ckpt",), "init_from: no checkpoint at nowhere.ckpt"),
        (("--trainer.accelerator=gpu",), "trainer: No supported gpu backend found"),
        (("--model.imagenet=nowhere.pth",), "nowhere.pth"),
        (("--model.net.num_classes=3",), "label 10, but the network 3 classes"),
        (("--data.longrange=null", "--data.train_list=no.txt"), "no.txt: no list of videos can be read here"),
        (("--data.longrange=null", "--data.decoded_copy=false"), "classes of train and val differ: space_diff"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_training_command_is_named(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str, small_videos: Path
) -> None:
    root = home / "videos"
    shutil.copytree(small_videos, root)
    shutil.rmtree(root / "val" / "space_diff")
    spec = json.loads((root / "spec.json").read_text())
    longrange = f"--data.longrange={json.dumps({k: spec[k] for k in ('train', 'val', 'test')})}"
    fit = ["fit", f"--config={RECIPE}", f"--data.root={root}", longrange, "--data.decoded_copy=false"]
    output = said(capsys, *fit, "--trainer.max_epochs=1", "--trainer.logger=false", *arguments, code=2)
    assert re.search(f"nl-lightning: .*{message}", output)


def test_a_mistake_in_a_recipe_is_one_line(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is found by the process that prepares the data, before any run starts."""
    spoil(home / "experiments" / "recipes" / "longrange.yaml", "batch_size: 16", "batchsize: 16")
    output = said(capfd, "run", "table2", code=2)
    assert output == "nl-lightning: Group 'data' does not accept option 'batchsize'; did you mean 'data.batch_size'?"
    assert not list((home / "my_results").rglob("state.json"))
