"""Order, skipping, waiting for parents, failures, interruption: with a stand-in for the training process."""

import dataclasses
import io
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path

import pytest
from rich.console import Console
from waiting import LIMIT, wait_until

from nl_lightning.cli.studies import _run_here
from nl_lightning.errors import UserError, terminal, visible
from nl_lightning.runs import schedule as runner
from nl_lightning.runs.schedule import run_all, shares
from nl_lightning.study.loading import load_study
from nl_lightning.study.lock import acquire
from nl_lightning.study.recipe import load_recipe
from nl_lightning.study.records import record_path
from nl_lightning.study.run import Run, plan

STUDY = """
name: small
title: A small study
recipe: tiny
variants:
  child: {net: {depth: 50}, clip: 128f, init_from: parent}
  big: {net: {depth: 101}}
  parent: {net: {depth: 50}}
  grandchild: {net: {depth: 50, inflate: 3x1x1}, init_from: child}
tables:
  one:
    caption: Everything
    rows:
      - {label: big, variant: big}
      - {label: parent, variant: parent, reported: {top1: 70}}
      - {label: child, variant: child, baseline: parent}
      - {label: grandchild, variant: grandchild, baseline: parent}
"""

STAND_IN = str(Path(__file__).parents[1] / "stand_in.py")


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[Run]:
    (tmp_path / "study.yaml").write_text(STUDY)
    (tmp_path / "tiny.yaml").write_text("data: {num_frames: 8}\n")
    (tmp_path / "tiny_128f.yaml").write_text("data: {num_frames: 16}\n")
    (tmp_path / "results").mkdir()
    monkeypatch.setattr(runner, "WORKER", [sys.executable, STAND_IN])
    monkeypatch.setattr(runner, "PAUSE", 0.02)
    monkeypatch.setattr(runner, "LOOK_AGAIN", 0.1)
    return planned(tmp_path)


def planned(folder: Path) -> list[Run]:
    return plan(load_study(folder / "study.yaml"), load_recipe(folder / "tiny.yaml"), [0], folder / "results")


def order(runs: list[Run]) -> list[str]:
    path = runs[0].results / "order.log"
    return path.read_text().splitlines() if path.exists() else []


def go(runs: list[Run], workers: int = 1) -> tuple[list[str], list[str]]:
    """Names of the runs that got their record, in order, and of those that failed."""
    finished: list[str] = []
    failed = run_all(runs, workers, Console(quiet=True), lambda run: finished.append(run.variant.name))
    return finished, [run.variant.name for run in failed]


def test_parents_come_first_and_cheap_networks_before_dear_ones(runs: list[Run]) -> None:
    assert go(runs) == (["parent", "child", "grandchild", "big"], [])


def test_what_has_its_record_is_not_run_again(runs: list[Run]) -> None:
    go(runs[:2])
    before = runs[0].state().record
    assert go(runs) == (["grandchild", "big"], [])
    assert [line for line in order(runs) if line == "begin parent"] == ["begin parent"]
    assert runs[0].state().record == before


def test_a_finished_run_says_whether_it_is_as_expected(
    runs: list[Run], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    go(runs[:1])
    runs[0].results.rename(tmp_path / "committed")
    monkeypatch.setattr(runner, "prepare", lambda study, recipe: 0)
    assert _run_here(runs[:1], 1, ["one"], tmp_path / "committed") == 0
    said = "parent seed 0: top-1 50.0 % (as expected: 50.0 % is committed (seed 0); the intervals over videos overlap)"
    assert said in " ".join(capsys.readouterr().out.split())


def test_several_at_a_time_share_the_cores_and_children_wait(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runner, "cores", lambda: 4)
    monkeypatch.setenv("WAITS", "big:begin parent")
    finished, failed = go(runs, workers=2)
    assert sorted(finished) == ["big", "child", "grandchild", "parent"]
    assert failed == []
    lines = order(runs)
    assert lines.index("begin parent") < lines.index("end big 2")  # big needs nobody, the children need the parent
    assert lines.index("end parent 2") < lines.index("begin child")
    assert lines.index("end child 2") < lines.index("begin grandchild")


def test_a_failure_takes_only_its_descendants_with_it(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "child")
    finished, failed = go(runs)
    assert finished == ["parent", "big"]
    assert failed == ["child", "grandchild"]
    assert runs[1].state().name == "failed"
    assert runs[1].state().note == "the dog ate it"

    monkeypatch.delenv("FAIL")
    assert go(runs) == (["child", "grandchild"], [])


def test_a_changed_recipe_moves_what_was_begun_aside(runs: list[Run], tmp_path: Path) -> None:
    go(runs[:1])
    runs[0].checkpoint.write_bytes(b"weights")
    (tmp_path / "tiny.yaml").write_text("data: {num_frames: 4}\n")
    changed = planned(tmp_path)
    assert changed[0].state().name == "stale"
    assert go(changed[:1]) == (["parent"], [])
    (aside,) = changed[0].folder.parent.glob(f"seed0.{runs[0].config_hash}.*")
    assert (aside / "checkpoints" / "last.ckpt").read_bytes() == b"weights"
    assert not changed[0].checkpoint.exists()


def test_what_another_process_works_on_is_left_to_it(
    runs: list[Run], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WAITS", "parent:end big 1")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with subprocess.Popen([*runner.WORKER, "run", *runs[0].identity()]) as other:
        wait_until(lambda: order(runs))
        finished: list[str] = []
        failed = run_all(runs, 1, Console(), lambda run: finished.append(run.variant.name))
    assert failed == []
    assert finished == ["big", "parent", "child", "grandchild"]
    assert order(runs).count("begin parent") == 1
    assert f"parent seed 0 is left to process {other.pid}" in capsys.readouterr().out


def test_what_another_process_left_is_taken_over(runs: list[Run]) -> None:
    held = acquire(runs[0].folder)
    assert held is not None
    threading.Timer(0.3, held.release).start()
    assert go(runs[:1]) == (["parent"], [])


@pytest.mark.parametrize(
    ("how", "code", "state"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "preempted")]
)
def test_told_to_stop_it_stops_its_runs_and_loses_nothing(
    runs: list[Run], tmp_path: Path, how: signal.Signals, code: int, state: str
) -> None:
    """The whole command, as a shell would start it."""
    script = textwrap.dedent(f"""
        import sys
        from nl_lightning.cli import main
        from nl_lightning.runs import schedule as runner
        runner.WORKER = [sys.executable, {STAND_IN!r}]
        runner.prepare = lambda study, recipe: 0
        sys.exit(main())
    """)
    words = ["run", str(tmp_path / "study.yaml"), f"--recipe={tmp_path / 'tiny.yaml'}", f"--results={runs[0].results}"]
    process = subprocess.Popen(
        [sys.executable, "-c", script, *words], env={**os.environ, "WAIT": "child"}, text=True, stderr=subprocess.PIPE
    )
    wait_until(lambda: "begin child" in order(runs))
    process.send_signal(how)
    _, errors = process.communicate(timeout=LIMIT)
    assert process.returncode == code
    assert "the same command goes on from here" in errors
    assert order(runs)[-1] == "stopped child"
    assert [run.state().name for run in runs] == ["done", state, "missing", "missing"]


ODD = [
    "[/data/x.mp4]",
    "Error opening [/data/x.mp4]",
    "[enforce fail] . Pytorch",
    "\x1b]0;title\x07",
    "two\nlines",
    ":smile:",
    None,
    [],
    {"a": 1},
]
"""What a marker may give as the error of a run: rich's markup, commands to the terminal, no text."""


@pytest.mark.parametrize("error", ODD)
def test_a_runs_error_is_printed_as_it_is_and_ends_no_runner(runs: list[Run], error: object) -> None:
    console, printed = terminal(), io.StringIO()
    console.file = printed
    queue = runner._Queue(runs, console, lambda run: None)
    runs[3].folder.mkdir(parents=True)
    runs[3].say("failed", error=error)
    queue.conclude(runs[3], 2)
    said = visible(error) if error and isinstance(error, str) else "ended with exit code 2"
    assert printed.getvalue() == f"{runs[3].name} failed: {said} (log: {runs[3].log})\n"
    assert queue.failed == [runs[3]]


def test_a_folder_may_be_called_like_markup(runs: list[Run], tmp_path: Path) -> None:
    console, printed = terminal(), io.StringIO()
    console.file = printed
    moved = [dataclasses.replace(run, results=tmp_path / "c[" / "d] [red]me[" / "red]") for run in runs[:1]]
    run_all(moved, 1, console, lambda run: None)
    queue = runner._Queue(moved, console, lambda run: None)
    queue.failed_because(moved[0], "[/]")
    assert f"parent seed 0 failed: [/] (log: {moved[0].log})\n" in printed.getvalue()


def test_a_log_that_cannot_be_written_fails_one_run_only(runs: list[Run]) -> None:
    runs[0].log.mkdir(parents=True)  # a folder where the log should be
    assert go(runs) == (["big"], ["parent", "child", "grandchild"])


def test_a_record_that_cannot_be_read_is_made_again(runs: list[Run]) -> None:
    go(runs[:1])
    record_path(runs[0].results, "tiny", "parent", 0).write_text("{")
    assert go(runs[:1]) == (["parent"], [])
    assert runs[0].state().name == "done"


def test_a_full_disk_lets_the_others_end(runs: list[Run], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FAIL", "big")
    monkeypatch.setenv("WAITS", "parent:noticed big")  # else its child may begin before
    monkeypatch.setattr(runner, "ENOUGH_DISK", 1 << 60)
    failed_because = runner._Queue.failed_because

    def noticed(queue: runner._Queue, run: Run, why: object) -> None:
        failed_because(queue, run, why)
        with (run.results / "order.log").open("a") as log:
            log.write(f"noticed {run.variant.name}\n")

    monkeypatch.setattr(runner._Queue, "failed_because", noticed)
    with pytest.raises(UserError, match="MiB are free"):
        go(runs, workers=2)
    assert runs[0].state().name == "done"
    assert {line.split()[1] for line in order(runs)} == {"parent", "big"}


def test_the_commands_are_what_a_person_could_type(runs: list[Run], tmp_path: Path) -> None:
    fit, test = runs[1].commands()
    results = tmp_path / "results"
    folder = results / "runs" / "tiny" / "child" / "seed0"
    assert fit == (
        f"nl-lightning fit --config={tmp_path}/tiny.yaml --config={tmp_path}/tiny_128f.yaml --seed_everything=0"
        f" --model.net.depth=50"
        f" --model.init_from={results}/runs/tiny/parent/seed0/checkpoints/last.ckpt"
        f" --model.predictions={results}/predictions/tiny/child/seed0.{runs[1].config_hash}.parquet"
        f" --trainer.default_root_dir={folder}"
    )
    assert test == fit.replace(" fit ", " test ", 1) + f" --ckpt_path={folder}/checkpoints/last.ckpt"


def test_columns_for_a_table_of_runs(runs: list[Run]) -> None:
    columns = runs[1].columns()
    assert columns["frames"] == 16
    assert columns["variant"] == "child"
    assert columns["recipe"] == "tiny"
    assert columns["config_hash"] == runs[1].config_hash
    assert all(isinstance(value, str | int) for value in columns.values())
    variant = dataclasses.replace(runs[1].variant, settings={**runs[1].variant.settings, "data.num_frames": 4})
    study = dataclasses.replace(runs[1].study, variants={**runs[1].study.variants, "child": variant})
    assert dataclasses.replace(runs[1], study=study, variant=variant).columns()["frames"] == 4


# ------------------------------------------------------------------------------ a machine shared among workers


@pytest.mark.parametrize(
    ("gpus", "workers", "expected"),
    [
        ("0,1,2,3", 4, ["0", "1", "2", "3"]),
        ("0,1,2,3", 2, ["0,1", "2,3"]),
        ("4,5", 4, ["4", "5", "4", "5"]),  # two workers share a GPU
        ("GPU-a,GPU-b,GPU-c", 2, ["GPU-a", "GPU-b"]),
        ("3", 1, ["3"]),
    ],
)
def test_gpus_are_dealt_out(monkeypatch: pytest.MonkeyPatch, gpus: str, workers: int, expected: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares(workers)] == expected


def test_cores_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(runner, "cores", lambda: 8)
    assert shares(3) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert shares(16)[0] == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert shares(2) == [{"OMP_NUM_THREADS": "3"}] * 2
