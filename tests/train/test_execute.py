"""Runs as the runner starts them, on a few small generated videos: records, resuming, long clips, faults."""

import csv
import dataclasses
import json
import platform
import re
import shlex
import signal
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast
from unittest.mock import Mock

import numpy as np
import pyarrow.parquet as pq
import pytest
import pytorch_lightning as L
import torch
import wandb
from tiny_study import execute, planned, recorded, write_tiny_study
from wandb_standin import WandbServer

import nl_lightning as nl
from nl_lightning.cli import main
from nl_lightning.errors import Stopped, UserError
from nl_lightning.report.rescore import rescore_record
from nl_lightning.study.packing import unpack, unpack_numbers
from nl_lightning.study.records import record_path, videos_hash
from nl_lightning.study.run import Run
from nl_lightning.tracking import log as tracking
from nl_lightning.train import checkpoints
from nl_lightning.train import execute as execution
from nl_lightning.train.callbacks import Progress
from nl_lightning.train.classifier import VideoClassifier
from nl_lightning.train.evidence import weights as digest
from nl_lightning.train.lightning_cli import lightning_command
from nl_lightning.train.predictions import read_predictions, read_protocol
from nl_lightning.train.scores import mean_softmax

PRECISE = {"  optimizer:": "  precise_bn: 2\n  optimizer:"}
ONE_EPOCH = {
    "max_epochs: 3, check_val_every_n_epoch: 2": "max_epochs: 1",
    "num_clips: 2\n  num_crops: 3": "num_clips: 1\n  num_crops: 1",
}


def change(folder: Path, changes: dict[str, str]) -> None:
    """Change the recipe's text."""
    recipe = folder / "tiny.yaml"
    text = recipe.read_text()
    for there, instead in changes.items():
        assert there in text
        text = text.replace(there, instead)
    recipe.write_text(text)


def offline(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B as it is for somebody who has no account."""
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(folder / "no.netrc"))
    monkeypatch.delenv("WANDB_MODE", raising=False)
    wandb.teardown()  # what it took from the environment of earlier tests, such as that it is disabled


@pytest.fixture
def folder(tmp_path: Path, small_videos: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study, its recipe and its own copy of the videos."""
    offline(tmp_path, monkeypatch)
    write_tiny_study(tmp_path, small_videos)
    return tmp_path


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, small_videos: Path) -> Path:
    """The same for several tests, which leave everything in it but their own results as it is."""
    home = tmp_path_factory.mktemp("home")
    write_tiny_study(home, small_videos)
    return home


@pytest.fixture(scope="module")
def finished(home: Path) -> Run:
    """A run with non-local blocks that has its record."""
    run = planned(home, "nl")
    with pytest.MonkeyPatch.context() as patch:
        offline(home, patch)
        assert execute(run) == 0
    return run


def test_curves_go_to_a_csv_file_in_place_of_wandb(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    change(folder, ONE_EPOCH)
    monkeypatch.setattr(wandb, "init", lambda **_: pytest.fail("W&B is told"))
    run = dataclasses.replace(planned(folder, "c2d"), logger="csv")
    assert execute(run) == 0
    with (run.folder / "csv" / "version_0" / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    tested = [float(row["test/top1"]) for row in rows if row["test/top1"]]
    assert tested == [pytest.approx(recorded(run).top1, abs=1e-3)]
    assert any(row["train/loss_epoch"] for row in rows)


@pytest.mark.parametrize(("name", "files"), [("tensorboard", "tensorboard/events.*"), ("none", "*")])
def test_curves_go_to_tensorboard_or_nowhere(name: str, files: str, tmp_path: Path, folder: Path) -> None:
    run = dataclasses.replace(planned(folder, "c2d"), logger=name)
    for logger in execution._loggers(run, tracking):
        logger.log_metrics({"train/loss_epoch": 1.0}, step=3)
        logger.finalize("success")
    assert len(list(run.folder.glob(files))) == (name == "tensorboard")


def weights(run: Run) -> dict[str, Any]:
    state: dict[str, Any] = torch.load(run.checkpoint, weights_only=True)["state_dict"]
    return state


def test_a_run_ends_in_a_record_and_predictions(home: Path, finished: Run) -> None:
    run = finished
    assert run.state().name == "done"
    record = recorded(run)
    assert (record.study, record.recipe, record.variant, record.seed) == ("small", "tiny", "nl", 0)
    assert (record.videos_expected, record.videos_scored, record.num_clips, record.num_crops) == (22, 22, 2, 3)
    assert record.steps == 9  # 3 epochs of 33 videos in batches of 11
    assert [point["step"] for point in record.curve] == [3, 6, 9]
    trained, validated = {"step", "train/loss", "train/top1"}, {"val/loss", "val/top1", "val/top5"}
    assert [set(point) for point in record.curve] == [trained, trained | validated, trained]
    assert record.params == sum(v.numel() for k, v in weights(run).items() if k.startswith("net.") and not _buffer(k))
    assert record.versions["torch"] == torch.__version__.split("+")[0]

    predictions = list(read_predictions(run.predictions))
    protocol = read_protocol(run.predictions)
    assert (protocol.num_clips, protocol.num_crops, protocol.num_classes) == (2, 3, 11)
    assert protocol.words["clip_starts"] == "paper"
    scores = np.array([mean_softmax(p.views) for p in predictions if p.views is not None])
    assert scores.shape == (22, 11)
    np.testing.assert_allclose(scores.sum(axis=1), 1, atol=0.01)
    listed = [line.rsplit(" ", 1) for line in (home / "videos" / "test.txt").read_text().splitlines()]
    assert [p.video for p in predictions] == [path for path, _ in listed]
    assert [p.label for p in predictions] == [int(label) for _, label in listed]
    assert record.right(1) == [bool(right) for right in scores.argmax(axis=1) == [p.label for p in predictions]]
    again, _ = rescore_record(record_path(run.results, "tiny", "nl", 0))
    assert round(again.topk(1)[0], 4) == record.top1
    assert round(again.topk(5)[0], 4) == record.top5
    assert record.videos_hash == videos_hash([(path, int(label)) for path, label in listed])
    of_label = scores[range(22), [p.label for p in predictions]]
    np.testing.assert_allclose(unpack_numbers(record.soft_by_video, 22), 100 * of_label, rtol=1e-6)
    assert record.soft == pytest.approx(100 * of_label.mean(), abs=1e-4)
    assert record.soft == pytest.approx(again.soft_scores()[0], abs=1e-4)
    assert record.machine is not None
    assert record.machine.precision == "32-true"
    assert 0 < (record.machine.peak_memory or 0) <= (record.machine.memory or 0)
    said = record.evidence
    assert said is not None
    assert said.command == "nl-lightning run .../study.yaml --recipe .../tiny.yaml --variant nl --seed 0"
    assert said.started <= record.finished
    assert set(said.content) == {"train", "val", "test"}
    assert said.weights == digest({k.removeprefix("net."): v for k, v in weights(run).items() if k.startswith("net.")})
    assert said.loss == pytest.approx(-np.log(of_label).mean(), abs=1e-5)
    assert np.mean(np.array(said.by_class, float)) == pytest.approx(record.top1, abs=0.01)  # two videos of each


def publish(run: Run, out: Path) -> list[str]:
    of = [str(run.study.path), "--recipe", str(run.base.files[0]), "--results", str(run.results), "--variant", "nl"]
    return ["weights", "publish", *of, "--out", str(out)]


def test_a_run_is_published_with_its_card(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for _ in range(2):  # also over files of its own, and a card of other runs
        assert main(publish(finished, tmp_path / "results" / "weights")) == 0
        page = tmp_path / "results" / "weights" / "tiny" / "README.md"
        page.write_text(page.read_text().replace("NL (one)", "an older name"))
    assert main(publish(finished, tmp_path / "results" / "weights")) == 0
    assert "1 networks and their card" in capsys.readouterr().out
    monkeypatch.chdir(tmp_path)
    assert main(publish(finished, tmp_path)[:-2]) == 0  # not into results/weights, where a checkout has its own
    assert Path("my_results/weights/tiny/nl.safetensors").is_file()
    net, header = nl.load_weights("nl@tiny")
    held = {f"net.{name}": tensor for name, tensor in net.state_dict().items()}
    assert all(torch.equal(tensor, held[name]) for name, tensor in weights(finished).items() if name in held)
    assert len(held) == sum(name.startswith("net.") for name in weights(finished))
    assert header.input.num_clips == 2
    record = recorded(finished)
    assert record.evidence is not None
    card = (tmp_path / "results" / "weights" / "tiny" / "README.md").read_text()
    where, row = (line for line in card.splitlines() if line.startswith("| nl "))
    assert [cell.strip() for cell in where.split("|")[2:-1]] == ["4 x 8 x 8", "res4.4", "spacetime"]
    for said in ("NL (one)", f"{record.top1:.1f} [", record.evidence.weights, f"{record.params:,}"):
        assert said in row
    with pytest.raises(UserError, match=re.escape("no network 'ml@tiny' is published; did you mean 'nl@tiny'?")):
        nl.load_weights("ml@tiny")


def test_files_of_somebody_else_are_not_published_over(finished: Run, tmp_path: Path) -> None:
    for name in ("nl.safetensors", "README.md"):
        foreign = tmp_path / name / "tiny" / name
        foreign.parent.mkdir(parents=True)
        foreign.write_text("a thesis")
        assert main(publish(finished, tmp_path / name)) == 2
        assert foreign.read_text() == "a thesis"
        assert main([*publish(finished, tmp_path / name), "--overwrite"]) == 0
        assert foreign.read_bytes() != b"a thesis"


def test_only_the_tested_network_is_published(
    finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody trained on after the test, or copied another run's checkpoint there."""
    content = torch.load(finished.checkpoint, weights_only=True)
    content["state_dict"]["net.fc.bias"][0] += 1
    torch.save(content, tmp_path / "last.ckpt")
    monkeypatch.setattr(Run, "checkpoint", tmp_path / "last.ckpt")
    assert main(publish(finished, tmp_path / "out")) == 2
    assert "is not the network that its record was measured with" in capsys.readouterr().err
    assert not list((tmp_path / "out").rglob("*.safetensors"))


def _buffer(key: str) -> bool:
    return key.endswith(("running_mean", "running_var", "num_batches_tracked"))


def test_wandb_stays_offline_and_has_flat_columns(finished: Run) -> None:
    run = finished
    written = lambda: b"".join(file.read_bytes() for file in run.folder.glob("wandb/offline-run-*/*.wandb"))  # noqa: E731
    deadline = time.monotonic() + 900
    while b"test/top1" not in written() and time.monotonic() < deadline:
        time.sleep(0.02)  # W&B's own process writes it, in its own time
    content = written()
    assert content, f"nothing from W&B but {[str(path) for path in run.folder.rglob('*wandb*')]}"
    for text in ("dot_product", "spacetime", run.config_hash, "val/top1", "test/top1", "c2d"):
        assert text.encode() in content
    assert platform.node().encode() not in content or len(platform.node()) < 4


def test_a_killed_run_goes_on_and_ends_the_same(
    home: Path, finished: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, wandb_server: WandbServer
) -> None:
    """Also at W&B, as the same run."""
    offline(tmp_path, monkeypatch)
    for name, value in wandb_server.environment(tmp_path).items():
        monkeypatch.setenv(name, value)
    whole, killed = finished, planned(home, "nl", "killed")
    plain = execution.Curve.on_train_epoch_end

    def pull_the_plug(self: execution.Curve, trainer: Any, module: Any) -> None:
        if trainer.current_epoch == 2:
            raise Stopped(signal.SIGINT)
        plain(self, trainer, module)

    monkeypatch.setattr(execution.Curve, "on_train_epoch_end", pull_the_plug)
    assert execute(killed) == 130
    assert killed.state().record is None
    monkeypatch.setattr(execution.Curve, "on_train_epoch_end", plain)
    assert execute(killed) == 0

    ends = [weights(whole), weights(killed)]
    assert all(torch.equal(value, ends[1][key]) for key, value in ends[0].items())
    records = [recorded(run) for run in (whole, killed)]
    assert records[0].curve == records[1].curve
    assert records[0].top1 == records[1].top1
    (told,) = wandb_server.state.runs.values()
    assert told.state == "finished"
    assert json.loads(told.summary["record"])["top1"] == records[1].top1
    assert [point["trainer/global_step"] for point in told.history if "val/top1" in point] == [5]
    assert told.history[-1]["trainer/global_step"] == records[1].steps
    assert wandb_server.errors == []
    wandb.teardown()


def test_long_clips_start_from_the_short_ones_weights(folder: Path) -> None:
    change(folder, ONE_EPOCH)
    short, long = planned(folder, "c2d"), planned(folder, "long")
    assert execute(long) == 2
    assert "train that run first" in long.state().note
    assert execute(short) == 0
    assert execute(long) == 0
    before, after = weights(short), weights(long)
    frozen = [key for key in before if ".bn" in key]
    assert frozen
    assert all(torch.equal(before[key], after[key]) for key in frozen)
    assert not torch.equal(before["net.fc.weight"], after["net.fc.weight"])
    record = recorded(long)
    assert record.init_from == "c2d"


def test_an_unreadable_file_is_named_and_counts_as_wrong(folder: Path) -> None:
    change(folder, {"  crop: 32": "  max_unreadable: 0.1\n  crop: 32", **ONE_EPOCH})
    run = planned(folder, "c2d")
    broken = [sorted((folder / "videos" / split).glob("*/*.mp4"))[0] for split in ("train", "test")]
    broken[0].write_bytes(b"")
    broken[1].write_bytes(broken[1].read_bytes()[:500])
    with pytest.warns(UserWarning, match=r"\.mp4: .*(left out|counted as wrong)"):
        assert execute(run) == 0
    record = recorded(run)
    assert record.unreadable == sorted(str(path.relative_to(folder / "videos")) for path in broken)
    assert (record.videos_expected, record.videos_scored) == (22, 21)
    assert sum(unpack(record.read_videos, 22)) == 21  # on which a pair can be compared
    unread = [p.video for p in read_predictions(run.predictions) if p.views is None]
    assert unread == [str(broken[1].relative_to(folder / "videos"))]


def test_a_census_may_be_older_than_some_files() -> None:
    assert execution._found(SimpleNamespace(found=lambda split: (3, 2)), scored=4) == (4, 4)


def test_too_many_unreadable_files_stop_the_run(folder: Path) -> None:
    run = planned(folder, "c2d")
    for path in sorted((folder / "videos" / "train").glob("*/*.mp4"))[:2]:
        path.unlink()
    with pytest.warns(UserWarning, match="left out"):
        assert execute(run) == 2
    assert run.state().name == "failed"
    assert "of 33 train videos can't be read, more than 1%" in run.state().note


def test_the_commands_that_a_dry_run_prints_do_the_same(home: Path, finished: Run) -> None:
    run = planned(home, "nl", "typed")
    for command in run.commands():
        words = shlex.split(command)[1:]
        assert lightning_command([*words, "--trainer.logger=false"]) == 0
    assert pq.read_table(finished.predictions).equals(pq.read_table(run.predictions))


def test_a_checkpoint_of_another_network_is_refused(finished: Run) -> None:
    _, test = finished.commands()
    with pytest.raises(UserError, match="ckpt_path: the checkpoint is of another network"):
        lightning_command([*shlex.split(test)[1:], "--model.net.width=0.03125", "--trainer.logger=false"])


@pytest.fixture(scope="module")
def precise(tmp_path_factory: pytest.TempPathFactory, small_videos: Path) -> Run:
    """A run with precise BN that has its record."""
    folder = tmp_path_factory.mktemp("precise")
    write_tiny_study(folder, small_videos, PRECISE)
    (folder / "tiny_128f.yaml").write_text(
        "model: {freeze_bn: true, precise_bn: 0}\ndata: {num_frames: 16}\ntrainer: {max_epochs: 1}\n"
    )
    run = planned(folder, "c2d")
    with pytest.MonkeyPatch.context() as patch:
        offline(folder, patch)
        assert execute(run) == 0
    return run


def test_what_was_tested_is_what_is_kept(
    precise: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Precise BN: the last checkpoint has the statistics that the record's numbers were measured with."""
    offline(tmp_path, monkeypatch)
    folder, run = precise.study.path.parent, precise
    record = recorded(run)
    kept = tmp_path / "w.safetensors"
    assert main(["weights", "import", str(run.checkpoint), "--out", str(kept)]) == 0
    recipe = f"--config={folder / 'tiny.yaml'}"
    for name, arguments in {
        "as a checkpoint": ["test", recipe, "--model.net.depth=50", f"--ckpt_path={run.checkpoint}"],
        "imported, without another estimate": ["test", f"--weights={kept}", recipe, "--model.precise_bn=0"],
        "imported": ["test", f"--weights={kept}", recipe],
    }.items():
        capsys.readouterr()
        again = tmp_path / f"{name}.parquet"
        assert main([*arguments, f"--model.predictions={again}"]) == 0
        assert f"test/top1 {record.top1:.2f} %, test/top5 {record.top5:.2f} %" in capsys.readouterr().out, name
        assert pq.read_table(again).equals(pq.read_table(run.predictions)), name
    long = planned(folder, "long")
    assert execute(long) == 0
    before, after = weights(run), weights(long)
    frozen = [key for key in before if "running" in key]
    assert frozen
    assert all(torch.equal(before[key], after[key]) for key in frozen)


def test_statistics_are_kept_also_where_the_training_ends_early(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Lightning's EarlyStopping says so after the network's own end of the epoch."""
    early = (
        "callbacks: [{class_path: EarlyStopping, init_args: {monitor: train/loss_epoch, patience: 1, min_delta: 9}}]"
    )
    change(
        folder,
        PRECISE
        | {"check_val_every_n_epoch: 2": "check_val_every_n_epoch: 1", "max_epochs: 3": f"max_epochs: 9, {early}"},
    )
    run = planned(folder, "c2d")
    assert execute(run) == 0
    record = recorded(run)
    kept = {key.removeprefix("net."): value for key, value in weights(run).items() if key.startswith("net.")}
    assert (record.steps, record.evidence and record.evidence.weights) == (6, digest(kept))


def test_statistics_are_kept_also_where_the_run_was_killed_before_its_test(
    precise: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline(tmp_path, monkeypatch)
    whole, killed = precise, planned(precise.study.path.parent, "c2d", "killed")
    plain = VideoClassifier.on_test_start

    def pull_the_plug(self: VideoClassifier) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(VideoClassifier, "on_test_start", pull_the_plug)
    assert execute(killed) == 143
    monkeypatch.setattr(VideoClassifier, "on_test_start", plain)
    before = weights(killed)
    assert execute(killed) == 0
    assert all(torch.equal(value, before[key]) for key, value in weights(whole).items())
    assert pq.read_table(killed.predictions).equals(pq.read_table(whole.predictions))


def test_a_run_that_diverges_says_so_and_has_no_accuracy(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(folder, {"lr: 0.003": "lr: 1.0e+25"})
    run = planned(folder, "c2d")
    with monkeypatch.context() as patch:
        patch.setattr(L.Trainer, "test", Mock(side_effect=RuntimeError("killed")))
        with pytest.raises(RuntimeError, match="killed"):
            execute(run)
    assert execute(run) == 0  # it goes on as one that has ended
    record = recorded(run)
    assert re.fullmatch(r"the loss from step [23] on", record.diverged)
    assert record.scores == {}
    assert record.steps == 3  # no step makes numbers of the weights again
    said = capsys.readouterr()
    study = ["study.yaml", f"--recipe={folder / 'tiny.yaml'}", f"--results={run.results}"]
    monkeypatch.chdir(folder)
    assert main(["status", *study, "--variant=c2d"]) == 0
    assert f"diverged: {record.diverged}" in capsys.readouterr().out
    assert main(["run", *study, "--variant=c2d"]) == 0  # it is done
    assert f"the training has diverged and stops after step 3: no finite number is {record.diverged}" in said.err
    for verb, name in (("test", "test/top1"), ("validate", "val/top1")):
        arguments = [f"--config={folder / 'tiny.yaml'}", "--model.net.depth=50", f"--ckpt_path={run.checkpoint}"]
        assert main([verb, *arguments]) == 0
        said = capsys.readouterr()
        assert f"{name} nan %" in said.out
        assert "diverged" in said.err


def test_a_test_of_some_videos_is_refused_before_the_training(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    change(folder, {"max_epochs: 3": "max_epochs: 3, limit_test_batches: 1"})
    monkeypatch.setattr(L.Trainer, "fit", lambda *_, **__: pytest.fail("it is trained"))
    assert execute(planned(folder, "c2d")) == 2
    assert "trainer.limit_test_batches and .fast_dev_run: leave them out" in capsys.readouterr().err


def test_one_video_whose_logits_overflow_takes_the_accuracy_with_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain = VideoClassifier.log_probabilities
    seen = iter([True])

    def overflow(self: VideoClassifier, views: torch.Tensor) -> torch.Tensor:
        logs = plain(self, views)
        logs[0, 0] += torch.nan if next(seen, False) else 0.0
        return logs

    monkeypatch.setattr(VideoClassifier, "log_probabilities", overflow)
    change(folder, ONE_EPOCH)
    run = planned(folder, "c2d")
    assert execute(run) == 0
    record = recorded(run)
    assert record.diverged == "the scores of 1 of 22 test videos"
    assert record.scores == {}


def test_a_run_that_another_version_began_says_so(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = planned(folder, "c2d")
    now = checkpoints.code()
    before = {"commit": "a" * 40, "dirty": False, "versions": {**now["versions"], "torch": "2.0.0"}}
    plain = checkpoints.Saver.on_train_epoch_end

    def pull_the_plug(self: checkpoints.Saver, trainer: Any, module: Any) -> None:
        plain(self, trainer, module)
        if trainer.global_step == 6:
            raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(checkpoints, "code", lambda: before)
    monkeypatch.setattr(checkpoints.Saver, "on_train_epoch_end", pull_the_plug)
    assert execute(run) == 143
    monkeypatch.setattr(checkpoints, "code", lambda: now)
    monkeypatch.setattr(checkpoints.Saver, "on_train_epoch_end", plain)
    capsys.readouterr()
    assert execute(run) == 0
    record = recorded(run)
    (line,) = record.earlier_code
    assert line.startswith("until step 6: commit aaaaaaaaaaaa (now ")
    assert line.endswith(f"torch 2.0.0 (now {now['versions']['torch']})")
    assert f"the record will say so: {line}" in capsys.readouterr().err


def test_the_marker_says_at_once_that_testing_began() -> None:
    """Also where testing takes less than the second for which the marker is left alone."""
    said = []
    run = SimpleNamespace(say=lambda state, **more: said.append(more["phase"]))
    progress = Progress(cast(Any, run), cast(Any, SimpleNamespace(lost=False)))
    for phase in ("train", "train", "test", "test"):
        progress.say(phase, 1, 2)
    assert said == ["train", "test"]


def test_a_run_that_starts_is_told_from_one_of_which_nothing_is_known(folder: Path) -> None:
    run = planned(folder, "c2d")
    run.say("running", phase="start", done=0, total=1)
    assert (run.said().phase, run.said().config_hash) == ("start", run.config_hash)
