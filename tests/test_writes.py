"""No command overwrites or deletes what it didn't write.

For each command that writes where the user wants it: a file of somebody else that has the name of an output stays as it
is, the command says so in a line, and goes on only when it is told to overwrite. Other files beside the outputs stay
untouched whatever happens, and the command can be repeated over its own files.
"""

import os
import re
import shutil
from pathlib import Path

import pytest
from tiny_study import write_tiny_study
from weight_files import write_weights

from nl_lightning.cli import main
from nl_lightning.cli.table import COMMANDS
from nl_lightning.data.longrange import LongRange
from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.study.files import overwriting, refuse_foreign, write_output
from nl_lightning.weights.exporting import export_weights
from nl_lightning.weights.file import InputSettings, WeightsHeader, save_weights

REPOSITORY = Path(__file__).parents[1]
PRECIOUS = "somebody's own\n"
NEIGHBOURS = ("thesis.tar", "notes.txt", "index.html", ".hidden", "census.parquet.bak", "000007.tar.old")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of weight files: for small videos, and of the released networks' kind."""
    folder = tmp_path_factory.mktemp("weights")
    write_weights(folder / "w.safetensors", NonLocalConfig({"res3": [1]}))
    config = ResNetConfig(
        num_classes=11, width=1 / 64, conventions=Conventions(profile="release"), temporal_strides=(2, 2, 2)
    )
    header = WeightsHeader(
        config, InputSettings(32, 2, (115.0,) * 3, (57.0,) * 3), "nl-lightning", "", classes=LongRange().classes()
    )
    save_weights(folder / "released.safetensors", VideoResNet(config).state_dict(), header)
    export_weights(folder / "released.safetensors", folder / "theirs.pkl", "caffe2")
    return folder


@pytest.fixture(scope="module")
def few_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A video of each class for each split."""
    root = tmp_path_factory.mktemp("few")
    LongRange(train=11, val=11, test=11).generate(root)
    return root


@pytest.fixture
def here(tmp_path: Path, few_videos: Path, weights: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder: a small study and its videos, weights, and records of two networks of the real study."""
    write_tiny_study(tmp_path, few_videos)
    shutil.copytree(weights, tmp_path, dirs_exist_ok=True)
    for variant in ("c2d_r50", "c2d_r50_nl5"):
        records = Path("results", "records", "longrange", variant)
        shutil.copytree(REPOSITORY / records, tmp_path / records)
    shutil.copy(sorted((few_videos / "test").rglob("*.mp4"))[0], tmp_path / "video.mp4")
    monkeypatch.chdir(tmp_path)
    return tmp_path


WRITERS: dict[str, tuple[str, str]] = {
    # the command as typed, and the folder in which it writes
    "init": ("init out", "out"),
    "report": ("report table2 --results results --html", "results/tables/longrange"),
    "sweeps": ("sweeps study.yaml --recipe tiny.yaml", "sweeps"),
    "weights import": ("weights import theirs.pkl --variant 32x2 --out out/w.safetensors", "out"),
    "weights export": ("weights export released.safetensors --to caffe2 --out out/w.pkl", "out"),
    "attend": ("attend video.mp4 --weights w.safetensors --block res3.1 --query 1,3,4 --out out", "out"),
    "reach": ("reach --weights w.safetensors --out out", "out"),
    "data prepare": ("data prepare tiny.yaml --out out --workers 1", "out"),
    "data shards": ("data shards tiny.yaml --out out", "out"),
    "data check": ("data check tiny.yaml --out out/census.parquet --workers 1", "out"),
}
NO_WORD = {"data shards", "data check"}
"""These take another place in any case."""
MARKED = {"report", "sweeps", "weights import", "attend", "reach"}
"""Their files are told from those of others, and are written again when their content has changed."""
TRAIN = {"run", "fit", "test", "validate"}
"""Write below a folder of results; see the tests below."""
ONLY_LOOK = {"status", "power", "complexity", "rescore", "predict"}
ELSEWHERE = {"tables", "weights publish", "wandb-report"}
"""tests/report/test_index.py has the first; the second needs a finished run (tests/train/test_execute.py); the third
writes at W&B only."""


def test_every_command_is_on_one_of_the_lists() -> None:
    named = set()
    for name, entry in COMMANDS.items():
        named |= {f"{name} {verb}" for verb in entry} if isinstance(entry, dict) else {name}
    assert named == {*WRITERS, *TRAIN, *ONLY_LOOK, *ELSEWHERE}


def contents(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


@pytest.mark.parametrize("name", WRITERS)
def test_files_of_somebody_else_stay(name: str, here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command, where = WRITERS[name]
    words, folder = command.split(), here / where
    assert main(words) == 0
    outputs = contents(folder)
    assert outputs
    refuse_foreign(folder / output for output in outputs if name in MARKED or output.endswith(".mp4"))
    if name == "data shards":
        assert main(words) == 2
        assert "holds a packed data set already" in capsys.readouterr().err
    else:
        assert main(words) == 0
    assert contents(folder).keys() == outputs.keys()

    for output in one_of_each_kind(outputs):
        shutil.rmtree(folder)
        foreign = dict.fromkeys((output, *NEIGHBOURS), PRECIOUS.encode())
        for other in foreign:
            (folder / other).parent.mkdir(parents=True, exist_ok=True)
            (folder / other).write_text(PRECIOUS)
            os.utime(folder / other, (0, 0))
        assert main(words) == 2
        assert re.search(rf"{re.escape(Path(output).name)}|thesis\.tar", capsys.readouterr().err)
        assert contents(folder).items() >= foreign.items()
        if name not in NO_WORD:
            assert main([*words, "--overwrite"]) == 0
            left = contents(folder)
            assert left.pop(output) != foreign.pop(output)
            assert left.items() >= foreign.items()


def one_of_each_kind(outputs: dict[str, bytes]) -> list[str]:
    """An output with each suffix; a video and a list are two kinds."""
    return list({Path(output).suffix: output for output in sorted(outputs)}.values())


def test_a_file_is_ours_by_its_content(tmp_path: Path) -> None:
    """Wherever it was moved to, however long it is, and with whichever line ends."""
    path = tmp_path / "x"
    for ours in (
        b"% Table 1 of study s, recipe r. Generated: don't edit.\r\n" + b"x" * 3_000_000,
        b"# Table\n" + b"x" * 3_000_000 + b"\n\nThis page was written by nl-lightning.\n",
    ):
        path.write_bytes(ours)
        write_output(path, "new")
        path.write_bytes(b"new")
        write_output(path, "new")  # what is there already
    with pytest.raises(UserError, match=r"x is there already, and nl-lightning didn't write it: .*--overwrite"):
        write_output(path, "other")
    with overwriting(True):
        write_output(path, "other")
    assert path.read_text() == "other"


def test_committed_files_are_ours() -> None:
    refuse_foreign((REPOSITORY / "results" / "tables").rglob("*.*"))
    refuse_foreign((REPOSITORY / "results" / "weights").rglob("*.safetensors"))
    refuse_foreign((REPOSITORY / "sweeps").glob("*.yaml"))


LEGEND = "Accuracies are percent: means over n seeds, ± their sample standard deviation. Gains are points of top-1."


@pytest.mark.parametrize(
    "text",
    [
        "Table 1 was written by nl-lightning on Monday.\n",
        "# Notes\n\nThis page was written by nl-lightning.\nI changed it.\n",
        f"# Thesis\n\nIt says:\n\n{LEGEND}\n\nSo do we.\n",
        f"{LEGEND}\n",
        "# sweep: 3\n# Written by 'nl-lightning sweeps'.\n",
        "\\input{a}\n% Table 1 of study s, recipe r. Generated: don't edit.\n",
        "name,table,label,variant,baseline,state,n,\n",
        '{"format":"nl-lightning 1"}',
        f"<!DOCTYPE html>\n<p>{LEGEND}</p><!-- written by nl-lightning -->",
    ],
)
def test_a_phrase_of_ours_makes_no_file_ours(text: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_text(text)
    with pytest.raises(UserError, match="x is there already"):
        refuse_foreign([tmp_path / "x"])


@pytest.mark.parametrize("kind", ["folder", "pipe", "broken link", "link"])
def test_what_is_no_file_is_not_ours(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "x"
    if kind == "folder":
        path.mkdir()
    elif kind == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(tmp_path / "y")
    if kind == "link":
        (tmp_path / "y").write_text(PRECIOUS)
    with pytest.raises(UserError, match="x is there already"):
        refuse_foreign([path])
