"""fit, validate and test: nothing is fetched or run, a bad file is one line, and a stop says how it goes on."""

import ctypes
import http.server
import logging
import os
import pickle
import platform
import resource
import shlex
import shutil
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from tiny_study import write_tiny_study
from weight_files import Runs, shared

from nl_lightning.cli import main
from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.train.lightning_cli import lightning_command
from nl_lightning.train.run_cli import MMAP_THRESHOLD, keep_freed_memory, without_advice
from nl_lightning.weights import safe


def page_faults() -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        [np.ones(1 << 20) for _ in range(3)]  # 8 MiB each
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_freed_memory_is_used_again_without_page_faults() -> None:
    """In a process of its own: from then on it stays so."""
    receive, send = os.pipe()
    if (child := os.fork()) == 0:
        try:
            ctypes.CDLL(None).mallopt(MMAP_THRESHOLD, 128 << 10)  # as where nobody has said anything
            given_back = page_faults()
            keep_freed_memory()
            page_faults()
            os.write(send, f"{given_back} {page_faults()}".encode())
        finally:
            os._exit(0)
    os.close(send)
    given_back, kept = map(int, os.read(receive, 100).split())
    os.close(receive)
    os.waitpid(child, 0)
    assert kept < given_back / 10, f"{kept} page faults with freed memory kept, {given_back} without"


@pytest.fixture
def home(tmp_path: Path, small_videos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with a recipe and its videos."""
    write_tiny_study(tmp_path, small_videos)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def address(home: Path) -> Iterator[tuple[str, list[str]]]:
    """A server of this machine that serves what would run, and the paths that it has been asked for."""
    asked: list[str] = []
    torch.save({"state_dict": {}, "loops": {}, "evil": Runs()}, home / "evil.ckpt")

    class Handler(http.server.SimpleHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            super().do_GET()

        def do_HEAD(self) -> None:
            asked.append(self.path)
            super().do_HEAD()

        def log_message(self, *_: Any) -> None: ...

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_address[1]}", asked
    server.shutdown()
    server.server_close()


def refusal(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    """The one line that a command ends with."""
    capsys.readouterr()
    assert main([words[0], "--config=tiny.yaml", "--model.net.depth=50", *words[1:]]) == 2
    line = capsys.readouterr().err.strip()
    assert line.startswith("nl-lightning: ")
    assert "\n" not in line
    return line.removeprefix("nl-lightning: ")


def test_no_address_is_fetched(home: Path, address: tuple[str, list[str]], capsys: pytest.CaptureFixture[str]) -> None:
    server, asked = address
    (home / "with_path.yaml").write_text(f"ckpt_path: {server}/evil.ckpt\n")
    everywhere = [
        ["--ckpt_path", f"{server}/evil.ckpt"],
        [f"--ckpt_path={server}/evil.ckpt"],
        ["--config=with_path.yaml"],
    ]
    to_train = [
        [f"--ckpt_path=simplecache::{server}/evil.ckpt"],
        [f"--ckpt_path=file://{home}/evil.ckpt"],
        ["--config", "with_path.yaml", "--ckpt_path=null", "--config=with_path.yaml"],
        [f"--model.init_from={server}/evil.ckpt"],
        ["--model.imagenet", f"{server}/evil.ckpt"],
        [f"--model.weights={server}/evil.safetensors"],
        [f"--config={server}/with_path.yaml"],
        [f"--model={server}/with_path.yaml"],
    ]
    for verb, spellings in {"fit": everywhere + to_train, "validate": everywhere, "test": everywhere}.items():
        for words in spellings:
            line = refusal(capsys, verb, *words)
            assert not asked, words
            assert not (home / "ran").exists(), words
            named = "with_path.yaml" if f"{server}/with_path.yaml" in words[0] else "is an address; only files of this"
            assert named in line, words


def fit(home: Path, *words: str) -> Path:
    """The checkpoint that a training of one epoch leaves."""
    command = ["fit", f"--config={home}/tiny.yaml", "--model.net.depth=50", "--trainer.max_epochs=1", *words]
    assert lightning_command([*command, f"--trainer.default_root_dir={home}/fitted"]) == 0
    return home / "fitted" / "checkpoints" / "last.ckpt"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory, small_videos: Path) -> Path:
    """The checkpoint of one training, to be read."""
    folder = tmp_path_factory.mktemp("trained")
    write_tiny_study(folder, small_videos)
    return fit(folder)


def test_every_bad_checkpoint_is_one_line(
    home: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(safe, "MOST_VALUES", 50_000)  # the bomb goes off sooner
    whole = torch.load(checkpoint, weights_only=True)
    saver = whole["callbacks"]["Saver"]
    file = home / "x.ckpt"
    (home / "folder").mkdir()
    torch.save(whole, file)
    content = file.read_bytes()
    bad: dict[str, tuple[Any, str]] = {
        "text": (b"just some text", "is no file of PyTorch"),
        "empty": (b"", "is no file of PyTorch"),
        "cut off": (content[: len(content) // 2], "is it whole"),
        "a pickle": (pickle.dumps({"state_dict": {}}), "is no file of PyTorch"),
        "a pickle with code": (pickle.dumps({"state_dict": Runs()}), r"reading it would run posix\.mkdir"),
        "an archive with code": ({**whole, "evil": Runs()}, r"reading it would run posix\.mkdir"),
        "a bomb": ({**whole, "optimizer_states": shared(40)}, "too many values within each other"),
        "a list": ([1, 2], "no tensors under 'state_dict'"),
        "weights": ({"conv1.weight": torch.zeros(3)}, "no tensors under 'state_dict'"),
        "another library's": ({"state_dict": {"conv1.weight": torch.zeros(3)}}, "is no checkpoint of nl-lightning"),
        "other tensors": ({**whole, "state_dict": {"net.fc.bias": torch.zeros(3)}}, "of another network: .* tensors"),
        "no tensors": ({**whole, "state_dict": {"net.fc.bias": 3}}, "no tensors under 'state_dict'"),
        "no loops": ({k: v for k, v in whole.items() if k != "loops"}, "is no whole checkpoint: it has no 'loops'"),
        "odd loops": ({**whole, "loops": {"fit_loop": 3}}, "can't be gone on from"),
        "odd callbacks": (
            {**whole, "callbacks": {"Saver": {**saver, "random": [{"python": 1}]}}},
            "can't be gone on from",
        ),
        "odd callback": ({**whole, "callbacks": [3]}, "can't be gone on from"),
        "odd optimizer": ({**whole, "optimizer_states": [{"state": {}, "param_groups": []}]}, "can't be gone on from"),
        "odd version": ({**whole, "pytorch-lightning_version": "none"}, "can't be gone on from"),
        "odd header": ({**whole, "trained": 3}, "can't be gone on from"),
    }
    for name, (spoilt, message) in bad.items():
        if isinstance(spoilt, bytes):
            file.write_bytes(spoilt)
        else:
            torch.save(spoilt, file)
        line = refusal(capsys, "fit", "--ckpt_path=x.ckpt", "--trainer.max_epochs=2")
        assert pytest.RaisesExc(ValueError, match=message).matches(ValueError(line)), f"{name}: {line}"
        assert line.startswith("ckpt_path: "), f"{name}: {line}"
        assert len(line) < 500, f"{name}: {line}"
    for given, message in {
        "folder": "folder is a folder; expected a file",
        "nowhere": "no checkpoint at nowhere",
        "best": "only the newest checkpoint is kept",
        "last": "no checkpoint at my_results/fit/",
        "hpc": "only the newest checkpoint is kept",
        "registry:a": "no checkpoint at registry:a",
        "a\0b": "",
        "x" * 300: "",
    }.items():
        assert message in refusal(capsys, "fit", f"--ckpt_path={given}"), given
    assert "only the newest checkpoint is kept" in refusal(capsys, "test", "--ckpt_path=last")
    assert not (home / "ran").exists()
    assert not list((home / "my_results" / "fit").iterdir())  # nothing came of any of them


def test_a_checkpoint_changes_no_argument(home: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Lightning takes arguments of the network from it, and imports the classes that it names."""
    whole = torch.load(checkpoint, weights_only=True)
    torch.save({**whole, "hyper_parameters": {"_class_path": "os.mkdir", "mean": 0.0}}, home / "x.ckpt")
    said = []
    for file in ("x.ckpt", checkpoint):
        capsys.readouterr()
        assert main(["test", "--config=tiny.yaml", "--model.net.depth=50", f"--ckpt_path={file}"]) == 0
        said.append([line for line in capsys.readouterr().out.splitlines() if line.startswith("test/top1")])
    assert said[0] == said[1] != []


def test_a_recipe_that_would_become_huge_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    lines = ["a0: &a0 [x, x]", *(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]" for k in range(1, 40))]
    (home / "bomb.yaml").write_text("\n".join(lines))
    assert "more than 100000 values" in refusal(capsys, "fit", "--config=bomb.yaml")
    (home / "deep.yaml").write_text(f"model: {'[' * 200}{']' * 200}")
    assert "deep.yaml, line 1: lists and mappings lie more than 60 levels deep" in refusal(
        capsys, "fit", "--config", "deep.yaml"
    )
    assert "model.net.depth" in refusal(capsys, "fit", f"--model.net.depth={'[' * 100_000}")


def test_a_key_that_is_given_twice_is_refused(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In a recipe, and in what a recipe or a word names or holds."""
    (home / "twice.yaml").write_text("model:\n  test_pool: 1\n  test_pool: 2\n")
    (home / "model.yaml").write_text("test_pool: 1\ntest_pool: 2\n")
    (home / "within.yaml").write_text("model: model.yaml\n")
    said = "twice.yaml, line 3: the key 'test_pool' is given twice"
    assert said in refusal(capsys, "fit", "--config=twice.yaml")
    assert said in refusal(capsys, "test", "--config", "twice.yaml")
    (home / "dotted.yaml").write_text("model: {test_pool: 1}\nmodel.test_pool: 2\n")
    said = "dotted.yaml: model.test_pool is given twice, also with dots: leave one of them out"
    assert refusal(capsys, "fit", "--config=dotted.yaml") == said
    for word in ("--config=within.yaml", "--model=model.yaml", "--model={test_pool: 1, test_pool: 2}"):
        assert "model" in refusal(capsys, "fit", word)


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("--seed_everything=-1", "seed_everything is -1: expected 0 to 4294967295"),
        (f"--seed_everything={2**32}", "seed_everything is 4294967296"),
        ("--model.std=0", "model.std is 0"),
        ("--model.std=[1, .nan, 1]", "model.std is nan"),
        ("--model.mean=.inf", "model.mean is inf"),
        ("--model.net.width=100", "model.net.width is 100.0: expected 0 to 16"),
        ("--model.net.width=1e9", "width 1000000000.0, num_classes 11"),
        ("--model.net.num_classes=1000000000", "model.net.num_classes is 1000000000"),
        ("--model.lr_batch=0", "model.lr_batch is 0"),
        ("--model.init_new=[nonlocal]", "model.init_new: a network has no part 'nonlocal'; did you mean 'non_local'?"),
        ("--model.test_pool=0", "model.test_pool is 0"),
        ("--model.precise_bn=-1", "model.precise_bn is -1"),
        ("--model.views_per_forward=0", "model.views_per_forward is 0"),
        ("--model.schedule.gamma=0", "schedule.gamma is 0"),
        ("--model.schedule.milestones=[-5]", "schedule.milestones are [-5]"),
        ("--model.optimizer.init_args.lr=-1", "model.optimizer: Invalid learning rate: -1"),
        ("--trainer.devices=-1", "trainer: "),
        ("--trainer.max_epochs=-7", "trainer: "),
        ("--trainer.precision=7", "trainer.precision"),
        ("--config=videos/spec.json", "does not accept option 'seeds.train'"),
        ("--config=videos", "videos"),
        ("--config=videos/test/look_0", "look_0"),
    ],
)
def test_a_setting_out_of_range_is_named(
    home: Path, capsys: pytest.CaptureFixture[str], word: str, message: str
) -> None:
    assert message in refusal(capsys, "fit", word)


def test_fit_is_quiet_and_says_what_it_does(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fit", "--config=tiny.yaml", "--model.net.depth=50"]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    lines = [line for line in said.out.splitlines() if line.strip()]
    assert "M parameters" in lines[0]
    assert "into my_results/fit/1" in lines[0]
    assert [line.partition(":")[0] for line in lines if line.startswith("epoch")] == [
        "epoch 1, step 3", "epoch 2, step 6", "epoch 3, step 9",
    ]  # fmt: skip
    bar = next(line for line in lines if line.startswith("Epoch 2/2"))
    assert "loss:" in bar
    for advert in ("Tip", "FLOPs", "GPU available", "Seed set", "litlogger", "deprecat"):
        assert advert not in said.out
    header, *points = (home / "my_results" / "fit" / "1" / "curve.csv").read_text().splitlines()
    assert header == "step,train/loss,train/top1,val/loss,val/top1,val/top5"
    assert [point.partition(",")[0] for point in points] == ["3", "6", "9"]
    assert {path.name for path in home.iterdir()} == {
        "my_results", "study.yaml", "tiny.yaml", "tiny_128f.yaml", "videos"
    }  # fmt: skip
    (test,) = (line.removeprefix("test it: nl-lightning ") for line in lines if line.startswith("test it: "))
    assert main(shlex.split(test)) == 0
    assert "test/top1 " in capsys.readouterr().out


def test_a_fit_that_is_stopped_says_how_it_goes_on_and_ends_the_same(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = VideoDataModule.on_after_batch_transfer
    command = ["fit", "--config", "tiny.yaml", "--model.net.depth=50"]
    assert main([*command, "--trainer.default_root_dir=whole"]) == 0

    def stop(self: VideoDataModule, batch: Any, index: int) -> Any:
        if self.trainer is not None and self.trainer.global_step == 4 and self.trainer.training:
            monkeypatch.setattr(VideoDataModule, "on_after_batch_transfer", plain)
            os.kill(os.getpid(), signal.SIGINT)
        return plain(self, batch, index)

    monkeypatch.setattr(VideoDataModule, "on_after_batch_transfer", stop)
    capsys.readouterr()
    assert main(command) == 130
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("nl-lightning: stopped; it goes on with: nl-lightning fit ")
    assert main(shlex.split(line.partition("nl-lightning fit ")[2] and line.partition("with: nl-lightning ")[2])) == 0
    ends = [torch.load(Path(root) / "checkpoints" / "last.ckpt") for root in ("whole", "my_results/fit/1")]
    torch.testing.assert_close(ends[0]["state_dict"], ends[1]["state_dict"], rtol=0, atol=0)
    assert (home / "whole" / "curve.csv").read_text() == (home / "my_results/fit/1/curve.csv").read_text()
    assert not list(home.rglob("before*"))


def test_a_fit_stopped_before_its_first_checkpoint_says_so(
    home: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(VideoDataModule, "setup", lambda *_, **__: os.kill(os.getpid(), signal.SIGTERM))
    assert main(["fit", "--config=tiny.yaml", "--model.net.depth=50"]) == 143
    assert "stopped before the first checkpoint: the same command begins again" in capsys.readouterr().err


def test_what_lies_in_the_folder_of_a_training_is_kept(
    home: Path, checkpoint: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Another training's checkpoints, and somebody's own table of the curve's name."""
    first = torch.load(checkpoint, weights_only=True)
    (home / "fitted" / "checkpoints").mkdir(parents=True)
    shutil.copy(checkpoint, home / "fitted" / "checkpoints" / "last.ckpt")
    (home / "fitted" / "checkpoints" / "previous.ckpt").write_text("somebody's own")
    (home / "fitted" / "curve.csv").write_text("somebody's own")
    fit(home, "--seed_everything=1", "--trainer.max_epochs=2")
    said = capsys.readouterr().err
    for name, aside in (("last.ckpt", "before1.ckpt"), ("previous.ckpt", "before2.ckpt"), ("curve.csv", "before1.csv")):
        assert said.count(f"{name} is not of this training: kept as {aside}\n") == 1
    kept = torch.load(home / "fitted" / "checkpoints" / "before1.ckpt", weights_only=True)
    torch.testing.assert_close(kept["state_dict"], first["state_dict"], rtol=0, atol=0)
    for name in ("checkpoints/before2.ckpt", "before1.csv"):
        assert (home / "fitted" / name).read_text() == "somebody's own"
    assert (home / "fitted" / "curve.csv").read_text().startswith("step,")


def test_advertisements_are_left_out_and_all_else_is_kept(tmp_path: Path) -> None:
    """What Lightning says when a trainer is made."""
    said: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: said.append(record.getMessage())  # type: ignore[method-assign]
    logger = logging.getLogger("pytorch_lightning.utilities.rank_zero")
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    try:
        without_advice()
        L.Trainer(default_root_dir=tmp_path, logger=False, accelerator="cpu")
        logger.warning("Beware")
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
    assert any("GPU available" in line for line in said)
    assert said[-1] == "Beware"
    assert not any("Tip: " in line for line in said)
