"""The commands as a user types them: what they print, what they exit with, and what a mistake looks like."""

import argparse
import dataclasses
import json
import os
import re
import shutil
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from nl_lightning.cli import main, output, table
from nl_lightning.errors import UserError
from nl_lightning.study import finding
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import load_recipe, run_hash
from nl_lightning.study.records import load_records, write_record
from nl_lightning.tracking import log
from nl_lightning.train import lightning_cli

REPOSITORY = Path(__file__).parent.parent
RECIPE = REPOSITORY / "experiments" / "recipes" / "longrange.yaml"
SMOKE = RECIPE.with_stem("longrange_smoke")


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
    assert output.count(" 0 missing") == 31  # two of stills
    assert output.endswith("31 missing, in my_results")
    assert said(capsys, "status", "table2", "--table", "2e", "--seed", "0", "--seed", "1").endswith(
        "10 missing, in my_results"
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
    assert "\nold\n" not in page


def test_report_as_a_page(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["report", "table2", "--html", "--results", "mine"]) == 0
    page = Path("mine/tables/longrange/table2.html")
    assert capsys.readouterr().out.endswith(f"{page}\n")
    assert "Nothing is measured yet" in page.read_text()


def test_power_names_what_it_assumes(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["power", "table2", "--seed-noise", "0.1"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    assert "split on 10.0 % of the videos (assumed, as on Kinetics); a difference varies by 0.10 points from " in out
    assert "from seed to seed (given)" in out
    assert "on 19,761 videos" in out


@pytest.mark.parametrize("ignored", ["--dry-run", "--compare=.", "--cluster=local"])
def test_the_command_of_an_agent_ignores_nothing(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, ignored: str
) -> None:
    """A dry run trained."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "some")
    told: list[str] = []
    monkeypatch.setattr(log, "refuse", told.append)
    output = said(capsys, "run", "table2", "--variant", "c2d_r50", ignored, code=2)
    line = f"{ignored.partition('=')[0]} has no effect as the command of a W&B agent: leave it out"
    assert (output, told) == (f"nl-lightning: {line}", [line])


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("--table 2a --table 2e --where depth=101", ["c2d_r101", "c2d_r101_nl5", "i3d333_r101", "i3d311_r101"]),
        ("--where depth=101 --variant c2d_r50 --variant c2d_r101", ["c2d_r101"]),
        ("--table 2e --variant c2d_r50 --variant c2d_r101", ["c2d_r101"]),
    ],
)
def test_an_option_that_is_repeated_widens_and_others_narrow(
    home: Path, capsys: pytest.CaptureFixture[str], words: str, names: list[str]
) -> None:
    output = said(capsys, "status", "table2", "--recipe", "longrange_smoke", *words.split())
    assert re.findall(r"(\w+) 0 missing", output) == names


def test_dry_run_prints_the_commands_in_order_and_makes_nothing(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = said(capsys, "run", "table2", "--variant", "c2d_r50_128f", "--dry-run")
    commands = re.findall(
        r"nl-lightning (fit|test) .*?--trainer.default_root_dir=my_results/runs/longrange/(\w+)", output
    )
    assert commands == [(verb, of) for of in ("stills_r50", "c2d_r50", "c2d_r50_128f") for verb in ("fit", "test")]
    assert not (home / "my_results").exists()


def test_complexity_explains_how_blocks_compute(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    variants = ("--variant", "c2d_r50_nl1_res4_concat", "--variant", "c2d_r50_nl5_space")
    output = said(capsys, "complexity", "table2", "--explain", "--recipe", "kinetics400_release", *variants)
    assert re.search(r"c2d_r50_nl1_res4_concat block sets .* res4.4 1 784 196 0.586 pairs pairs", output)
    assert "res3.1 4 784 196 2.34 pairs attention" in output


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
        (("run", "table2", "--variant", "c2d_r5", "--where", "depth=50"), "no variant 'c2d_r5'; did you mean"),
        (
            ("status", "table2", "--table", "2e", "--variant", "c2d_r101", "--where", "depth=50", "seed=1"),
            "no variant fits --table 2e and --variant c2d_r101 and --where depth=50 seed=1: a variant has to fit each",
        ),
        (("run", "table2", "--recipe", "longrnge"), "no recipe 'longrnge'.*did you mean 'longrange'"),
        (("run", "table2", "--seed", "one"), "--seed: expected a whole number of at least 0, not 'one'"),
        (("run", "table2", "--seed", "-1"), "--seed: expected (a whole number of at least 0, not '-1'|one argument)"),
        (("run", "table2", "--workers", "0"), "expected a whole number of at least 1, not '0'"),
        (("tables", "--report-only", "--seed", "1"), "--seed and --workers have no effect with --report-only"),
        (("reach", "--weights", "w", "--recipe", "match"), "--weights: trained networks are drawn in place of"),
        (("rnu", "table2"), "invalid choice: 'rnu'"),
        ((), "the following arguments are required: COMMAND"),
    ],
)
def test_a_mistyped_command_names_the_nearest(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str
) -> None:
    assert re.search(message, said(capsys, *arguments, code=2))


@pytest.mark.parametrize("choices", ["'init', 'run'", "init, run"])  # as Python 3.11 says it, and 3.14
def test_the_nearest_choice_is_found_in_what_argparse_says(choices: str) -> None:
    with pytest.raises(UserError, match="did you mean 'run'"):
        table.parser().error(f"argument COMMAND: invalid choice: 'rnu' (choose from {choices})")


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
        (('--model.net.non_local={"placement": {"res9": [1]}}',), "expected a stage of .*, not 'res9'"),
        (("--model.net.conventions.scale=perhaps",), "model.net.conventions.scale"),
        (("--data.crop=40",), "data.short_side is 36 to 36 and data.crop 40"),
        (("--data.num_crops=2",), "data.num_crops is 2: expected 1 .centre. or 3"),
        (("--model.init_from=nowhere.ckpt",), "init_from: no checkpoint at nowhere.ckpt"),
        (("--trainer.accelerator=gpu",), "trainer: No supported gpu backend found"),
        (("--model.imagenet=nowhere.pth",), "nowhere.pth"),
        (("--model.net.num_classes=3",), "label 10, but the network 3 classes"),
        (("--data.longrange=null", "--data.train_list=no.txt"), "no.txt: no list of videos can be read here"),
        (("--data.longrange=null", "--data.decoded_copy=false"), "classes of train and val differ: context_space_diff"),
    ],
)  # fmt: skip
def test_a_mistake_in_a_training_command_is_named(
    home: Path, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], message: str, small_videos: Path
) -> None:
    root = home / "videos"
    shutil.copytree(small_videos, root)
    shutil.rmtree(root / "val" / "context_space_diff")
    spec = json.loads((root / "spec.json").read_text())
    longrange = f"--data.longrange={json.dumps({k: spec[k] for k in ('train', 'val', 'test')})}"
    fit = ["fit", f"--config={SMOKE}", f"--data.root={root}", longrange, "--data.decoded_copy=false"]
    output = said(capsys, *fit, "--trainer.max_epochs=1", "--trainer.logger=false", *arguments, code=2)
    assert re.search(f"nl-lightning: .*{message}", output)


def test_a_mistake_in_a_recipe_is_one_line(home: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """It is found by the process that prepares the data, before any run starts."""
    spoil(home / "experiments" / "recipes" / "longrange.yaml", "batch_size: 16", "batchsize: 16")
    output = said(capfd, "run", "table2", code=2)
    assert output.endswith(
        "nl-lightning: Group 'data' does not accept option 'batchsize'; did you mean 'data.batch_size'?"
    )
    assert not list((home / "my_results").rglob("state.json"))


@pytest.mark.parametrize(
    ("command", "recipe"),
    [
        ("complexity table5", "coco"),
        ("weights publish table5", "coco"),
        ("reach mask_r50 --study table5 --recipe tags", "tags"),
        ("data check tags", "tags"),
        ("data prepare coco --out copies", "coco"),
    ],
)
def test_what_only_our_own_networks_have_is_said_of_no_other(
    home: Path, capsys: pytest.CaptureFixture[str], command: str, recipe: str
) -> None:
    output = said(capsys, *command.split(), code=2)
    assert output.endswith(f"{recipe}.yaml: is of another LightningModule: this command is of our own networks")


# ------------------------------------------------------------------------------------------------ what is printed


def test_status_prints_what_a_marker_says_as_it_is(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    marker = home / "my_results" / "runs" / "longrange" / "c2d_r50" / "seed0" / "state.json"
    marker.parent.mkdir(parents=True)
    marker.write_text(json.dumps({"state": "failed", "error": "[/data] [red]x \x1b[2J :smile:"}))
    assert r"failed [/data] [red]x \x1b[2J :smile:" in said(capsys, "status", "table2", "--variant", "c2d_r50")
    results = home / "my [draft] run[/]"
    assert said(capsys, "status", "table2", "--results", str(results)).endswith(f"31 missing, in {results}")
    assert said(capsys, "status", "no \x1b]0;x", code=2).startswith(r"nl-lightning: no study 'no \x1b]0;x'")


def test_status_shows_every_seed_that_was_begun(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Those of records and of folders; --failed looks at as many."""
    smoke = ("table2", "--recipe", "longrange_smoke", "--variant", "c2d_r50")
    write_done(home, "c2d_r50", seed=2)
    marker = home / "my_results/runs/longrange_smoke/c2d_r50/seed1/state.json"
    marker.parent.mkdir(parents=True)
    marker.write_text('{"state": "failed"}')
    (home / "my_results/records/longrange_smoke/c2d_r50/seed9999999999.json").write_text("{}")
    assert said(capsys, "status", *smoke).endswith("seeds 0, 1, 2: 1 missing, 1 failed, 1 done, in my_results")
    assert said(capsys, "status", *smoke, "--seed", "2").endswith("seed 2: 1 done, in my_results")
    assert "# c2d_r50 seed 1: failed" in said(capsys, "run", *smoke, "--failed", "--dry-run")


def write_done(home: Path, variant: str, seed: int = 0) -> None:
    """A record of a variant as it is defined now, under a recipe without stills."""
    study, recipe = load_study(find_study("table2")), load_recipe("longrange_smoke")
    record = next(
        r
        for r in load_records(REPOSITORY / "results" / "earlier" / "longrange", "longrange")[0]
        if r.variant == variant
    )
    hashed = run_hash(study, recipe, variant, seed)
    record = dataclasses.replace(record, recipe=recipe.name, config={}, config_hash=hashed, seed=seed)
    write_record(home / "my_results", record)


def test_dry_run_leaves_out_what_is_done(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_done(home, "c2d_r50")
    smoke = ("--recipe", "longrange_smoke")
    output = said(capsys, "run", "table2", "--variant", "c2d_r50", "--variant", "c2d_r50_nl5", *smoke, "--dry-run")
    assert output.startswith("# 1 of 2 runs are done already # c2d_r50_nl5 seed 0: missing nl-lightning fit ")
    assert "runs/longrange_smoke/c2d_r50/" not in output
    assert (
        said(capsys, "run", "table2", "--variant", "c2d_r50", *smoke, "--dry-run") == "# 1 of 1 runs are done already"
    )


def test_failed_says_what_it_found(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_done(home, "c2d_r50")
    two = ("--recipe", "longrange_smoke", "--variant", "c2d_r50", "--variant", "c2d_r50_nl5", "--failed")
    output = said(capsys, "run", "table2", *two, code=2)
    assert output == (
        "nl-lightning: nothing has failed or was interrupted: 1 done, 1 missing; 'nl-lightning status' shows each run"
    )


@pytest.mark.parametrize("state", ["running", "preempted"])
def test_what_a_killed_process_left_is_run_again_with_failed(
    home: Path, capsys: pytest.CaptureFixture[str], state: str
) -> None:
    marker = home / "my_results" / "runs" / "longrange_smoke" / "c2d_r50" / "seed0" / "state.json"
    marker.parent.mkdir(parents=True)
    marker.write_text(json.dumps({"state": state, "pid": 2**22 + 1, "host": "a"}))
    output = said(capsys, "run", "table2", "--recipe", "longrange_smoke", "--failed", "--dry-run")
    assert output.startswith(
        f"# 0 of 1 runs are done already # c2d_r50 seed 0: {'interrupted' if state == 'running' else state}"
    )


@pytest.mark.parametrize("words", ["status table2 --seed 0 --seed 1 --seed 2", "fit --help"])
def test_a_reader_that_has_enough_ends_a_command_quietly(home: Path, words: str) -> None:
    """As ``| head -1`` does."""
    receive, send = os.pipe()
    os.close(receive)
    ended = subprocess.run(
        [sys.executable, "-m", "nl_lightning.cli", *words.split()], stdout=send, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )  # fmt: skip
    os.close(send)
    assert ended.stderr == ""
    assert ended.returncode in (0, 1, 141)  # 1: rich ends a command so


def test_output_that_cannot_be_written_is_one_line(home: Path) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "nl_lightning.cli", "status", "table2"]
        environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
        ended = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, env=environment)
    assert ended.stderr == "nl-lightning: writing: No space left on device; free some space and call again\n"
    assert ended.returncode == 2


def test_names_that_are_no_text_are_printed(home: Path) -> None:
    command = [sys.executable, "-m", "nl_lightning.cli", "status", "table2", "--results", b"r\xff"]
    ended = subprocess.run(
        command, capture_output=True, env={**os.environ, "PYTHONPATH": str(REPOSITORY), "PYTHONIOENCODING": "ascii"}
    )
    assert ended.stderr == b""
    assert rb"31 missing, in r\udcff" in ended.stdout


LOOKING = (
    "--help", "--version", "run --help", "fit --help", "status study.yaml", "report study.yaml --html",
    "sweeps study.yaml", "run study.yaml --dry-run", "run study.yaml --failed", "power study.yaml",
)  # fmt: skip


def test_what_only_looks_imports_nothing_that_a_study_names(home: Path, small_study: None) -> None:
    """Nor torch, which takes seconds."""
    (home / "evil.py").write_text("open('imported', 'w')\nclass Evil: pass\n")
    script = (
        "import sys\nfrom nl_lightning.cli import main\n"
        "for words in sys.argv[1:]:\n"
        "    main(words.split())\n"
        "    print('LOADED', words, *(n for n in ('torch', 'pytorch_lightning', 'evil') if n in sys.modules), sep=': ')"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script, *LOOKING], capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{home}"},
    )  # fmt: skip
    loaded = [line for line in ended.stdout.splitlines() if line.startswith("LOADED")]
    assert loaded == [f"LOADED: {words}" for words in LOOKING], ended.stderr
    assert not (home / "imported").exists()


@pytest.fixture
def small_study(home: Path) -> None:
    """A study and a recipe that name a class to import wherever they can."""
    evil = "{class_path: evil.Evil}"
    (home / "study.yaml").write_text(
        "name: small\ntitle: t\nrecipe: tiny.yaml\nvariants: {a: {net: {depth: 50}}}\n"
        "tables: {one: {caption: c, rows: [{label: a, variant: a}]}}\n"
    )
    (home / "tiny.yaml").write_text(
        f"model: {{optimizer: {evil}}}\ndata: {{num_frames: 8}}\ntrainer: {{callbacks: [{evil}], logger: {evil}}}\n"
    )


@pytest.mark.parametrize("name", ["n" * 300, "/dev/null/x", "/proc/self/mem", "loop/x", "unreadable", "."])
@pytest.mark.parametrize("command", ["status", "report", "rescore", "results", "readme", "offline"])
def test_paths_that_the_system_refuses_are_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], command: str, name: str, small_study: None
) -> None:
    study = "study.yaml"
    (home / "loop").symlink_to("loop")
    (home / "unreadable").write_bytes(b"\xff\0\xfe")
    words = {
        "status": ["status", name], "report": ["report", "table2", "--recipe", name], "rescore": ["rescore", name],
        "results": ["report", study, "--results", f"{name}/x"], "readme": ["report", study, "--readme", name],
        "offline": ["report", study, "--wandb-offline", name],
    }[command]  # fmt: skip
    if (command, name) in (("results", "."), ("results", "unreadable"), ("offline", ".")):
        pytest.skip("a folder can be made, or is there")
    output = said(capsys, *words, code=2)
    assert output.count("nl-lightning: ") == 1
    assert len(output) < 5000


@pytest.mark.parametrize(
    "words",
    [
        ["status", "table2", "--where", "seed=abc"], ["status", "table2", "--where", "seed=\N{SUPERSCRIPT TWO}"],
        ["status", "table2", "--where", "seed=-1"], ["status", "table2", "--where", "seed"],
        ["status", "table2", "--where", "=1"], ["run", "table2", "--seed", "9" * 400],
        ["run", "table2", "--seed", "4294967296"],
        ["run", "table2", "--workers", "9" * 5000], ["run", "table2", "--checkpoint-minutes", "nan"],
        ["run", "table2", "--checkpoint-minutes", "1e999"],
        ["status", "table2", "--results", ""], ["status", "ta\0ble2"],
        ["attend", "v", "--weights", "w", "--block", "b", "--query", "9" * 400 + ",1,1"],
        ["data", "shards", "longrange", "--out", "o", "--shard-mb", "9" * 30], ["status", "table2", "--seeed=1"],
        ["status", "table2", "--where", "seed=1", "--seed", "2"],
        ["status", "table2", "--where", "depth=50", "depth=101"],
        ["data", "chekc", "longrange"], ["report", "table2", "--wandb", "a/b", "--wandb-offline", "."],
    ],
)  # fmt: skip
def test_values_that_make_no_sense_are_one_line(
    home: Path, capsys: pytest.CaptureFixture[str], words: list[str]
) -> None:
    output = said(capsys, *words, code=2)
    assert output.startswith("nl-lightning: ")
    assert len(output) < 600


def test_a_seed_may_be_given_as_a_column(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    output = said(capsys, "status", "table2", "--where", "seed=007", "depth=101")
    assert " 7 missing" in output
    assert " 0 missing" not in output


@pytest.mark.parametrize("command", ["fit", "validate", "test"])
def test_the_help_of_lightnings_commands_begins_with_ours(
    home: Path, capsys: pytest.CaptureFixture[str], command: str
) -> None:
    page = said(capsys, command, "--help")
    assert page.startswith(f"usage: nl-lightning {command} [--config RECIPE] [--KEY=VALUE ...]")
    assert f"nl-lightning {command} --help-all" in page
    of = {
        "--data.batch_size": "fit validate",
        "--data.num_clips": "test",
        "--weights": "validate test",
        "--trainer.max": "fit",
    }
    assert {option for option in of if option in page} == {option for option in of if command in of[option]}
    if command == "fit":
        every = said(capsys, command, "--help-all")
        assert "--data.root" in every
        assert "URL" not in every  # of a checkpoint, which is never fetched


def test_every_option_has_a_help() -> None:
    def check(parser: argparse.ArgumentParser) -> None:
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                for each in action.choices.values():
                    check(each)
            else:
                assert action.help, (parser.prog, action.dest)

    check(table.parser())


def test_work_that_takes_longer_shows_signs_of_life(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what is quick does not."""
    shown = threading.Event()
    monkeypatch.setattr(output, "say", lambda line: (print(line, file=sys.stderr), shown.set()))
    monkeypatch.setattr(output, "PATIENCE", 0.0)
    with output.working("counting"):
        assert shown.wait(600)
    assert capsys.readouterr().err == "counting ...\n"
    monkeypatch.setattr(output, "PATIENCE", 600.0)
    with output.working("counting"):
        pass
    assert capsys.readouterr().err == ""


def test_files_of_ones_own_stand_for_those_that_come_with_the_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also those that ``init`` writes; whose a file is is said where it matters."""
    monkeypatch.chdir(tmp_path)
    said(capsys, "init", ".")
    assert said(capsys, "status", "mine").endswith("2 missing, in my_results")
    spoil(tmp_path / "experiments" / "mine.yaml", "Does one", "Would one")
    assert "mine.yaml is there already" in said(capsys, "init", ".", code=2)
    assert "Would one" in (tmp_path / "experiments" / "mine.yaml").read_text()
    for name, written in (("same", ""), ("other", "# of my own\n")):
        text = (RECIPE.parent / "longrange_smoke.yaml").read_text()
        own = tmp_path / name / "experiments" / "recipes" / "longrange_smoke.yaml"
        own.parent.mkdir(parents=True)
        own.write_text(text + written)
        monkeypatch.chdir(tmp_path / name)
        finding._say_whose.cache_clear()
        output = said(capsys, "status", "table2", "--recipe", "longrange_smoke", "--variant", "c2d_r50")
        line = "experiments/recipes/longrange_smoke.yaml is taken in place of nl-lightning's own 'longrange_smoke'"
        assert (line in output) == bool(written)


def test_a_recipe_is_named_to_fit_as_to_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    named = lightning_cli.with_recipes(["fit", "--config", "longrange", "--config=folder", "--config=x.yaml", "--a=b"])
    assert named[1:] == ["--config", str(RECIPE), f"--config={RECIPE.with_stem('folder')}", "--config=x.yaml", "--a=b"]
    assert "no recipe 'longrang' in" in said(capsys, "fit", "--config=longrang", code=2)


def test_a_recipe_may_lie_beside_its_study(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["init", "own"]) == 0
    assert main(["status", "own/experiments/mine.yaml", "--recipe", "mine"]) == 0
    assert main(["status", "own/experiments/mine.yaml"]) == 0
    assert "missing" in capsys.readouterr().out
