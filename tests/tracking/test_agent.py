"""Sweeps as people use them: the real ``wandb`` and ``nl-lightning`` programs, and a stand-in server.

Most runs are not trained, see ``untrained.py``: what counts here is who tells whom, and every process that imports
torch takes ten seconds.
"""

import contextlib
import getpass
import json
import os
import platform
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tiny_study import write_tiny_study
from untrained import STEPS
from waiting import LIMIT, wait_until
from wandb_standin import ENTITY, KEY, Run, WandbServer

from nl_lightning.cli import main
from nl_lightning.study.records import Record, load_records

PROGRAMS = Path(sys.executable).parent
TESTS = Path(__file__).resolve().parents[1]
PROGRAM = """#!{python}
import sys
from nl_lightning import cli
from nl_lightning.runs import schedule

schedule.WORKER = [sys.executable, {worker!r}]
sys.exit(cli.main())
"""
"""``nl-lightning`` with the stand-in for the process of a run."""


class Place:
    """A machine of a user who is logged in to the stand-in: a study in its folder, and programs started there."""

    def __init__(self, folder: Path, server: WandbServer) -> None:
        self.folder, self.server = folder, server
        self.started: list[subprocess.Popen[str]] = []
        program = folder / "bin" / "nl-lightning"
        program.parent.mkdir()
        program.write_text(PROGRAM.format(python=sys.executable, worker=str(TESTS / "untrained.py")))
        program.chmod(0o755)
        self.environment = {
            **{key: value for key, value in os.environ.items() if not key.startswith("WANDB_")},
            **server.environment(folder),
            "PATH": os.pathsep.join([str(program.parent), str(PROGRAMS), os.environ["PATH"]]),
            "PYTHONPATH": str(TESTS.parent),
            "OMP_NUM_THREADS": "1",
        }

    def start(self, *command: str, **environment: str) -> "subprocess.Popen[str]":
        process = subprocess.Popen(
            command, cwd=self.folder, env={**self.environment, **environment}, text=True, start_new_session=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        self.started.append(process)
        return process

    def run(self, *command: str, **environment: str) -> tuple[int, str]:
        """Exit code, and what it printed."""
        process = self.start(*command, **environment)
        said, _ = process.communicate(timeout=LIMIT)
        return process.returncode, said

    def sweep(self) -> str:
        """Make a sweep of the study, in this process; return what an agent takes."""
        with contextlib.chdir(self.folder):
            assert main(["sweeps", "study.yaml", "--recipe", "tiny.yaml"]) == 0
        return self.put((self.folder / "sweeps" / "small.yaml").read_text())

    def put(self, text: str) -> str:
        """The sweep with this YAML, as ``wandb sweep`` puts it on the server."""
        self.server.state.operations["UpsertSweep"]({"projectName": "nl-lightning", "config": text})
        return self.newest_sweep()

    def newest_sweep(self) -> str:
        return f"{ENTITY}/nl-lightning/{list(self.server.state.sweeps)[-1]}"

    def agent(self, sweep: str, *options: str, **environment: str) -> "subprocess.Popen[str]":
        return self.start("wandb", "agent", *options, sweep, **environment)

    def records(self) -> list[Record]:
        return load_records(self.folder / "my_results", "tiny")[0]

    def said(self, variant: str) -> dict[str, Any]:
        """What a run says of itself."""
        marker = self.folder / "my_results" / "runs" / "tiny" / variant / "seed0" / "state.json"
        said: dict[str, Any] = json.loads(marker.read_text()) if marker.exists() else {}
        return said

    def training(self, variant: str) -> bool:
        """Whether a run is in the middle of training, where it is held."""
        said = self.said(variant)
        return said.get("phase") == "train" and said["done"] > STEPS // 2

    def hold(self, phase: str) -> None:
        """Let runs wait in this phase; in none if it is empty."""
        file = self.folder / "hold"
        file.with_name("held").write_text(phase)
        file.with_name("held").rename(file)

    def wandb_run(self, variant: str) -> Run:
        """The one run of the variant that is no repeat."""
        found = [run for run in self.server.state.runs.values() if run.values().get("variant") == variant]
        (run,) = [run for run in found if "repeat" not in run.tags]
        return run

    def end(self) -> None:
        for process in self.started:
            kill(process)
            process.communicate()


@pytest.fixture
def place(tmp_path: Path, small_videos: Path, wandb_server: WandbServer) -> Iterator[Place]:
    write_tiny_study(tmp_path, small_videos)
    here = Place(tmp_path, wandb_server)
    yield here
    here.end()
    assert wandb_server.errors == []


def kill(process: "subprocess.Popen[str]") -> None:
    """As when the machine loses power: the process, and every process that it started."""
    children = [process.pid]
    for parent in children:
        listed = Path(f"/proc/{parent}/task/{parent}/children")
        children += [int(pid) for pid in listed.read_text().split()] if listed.exists() else []
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def test_a_study_is_swept(place: Place) -> None:
    """By two agents, which bring each run to its record once, one of them by real training. Then again."""
    assert place.run("nl-lightning", "sweeps", "study.yaml", "--recipe", "tiny.yaml")[0] == 0
    code, said = place.run("wandb", "sweep", "sweeps/small.yaml")
    assert code == 0, said
    sweep = place.newest_sweep()
    agents = [place.agent(sweep, TRAINED="nl"), place.agent(sweep, TRAINED="nl")]
    for agent in agents:
        said, _ = agent.communicate(timeout=LIMIT)
        assert agent.returncode == 0, said
    records = place.records()
    assert {record.variant for record in records} == {"c2d", "nl", "long"}
    runs = place.server.state.sweep_runs(sweep.split("/")[-1])
    assert len(runs) == 3
    assert {run.state for run in runs} == {"finished"}
    for record in records:
        run = place.wandb_run(record.variant)
        assert json.loads(run.summary["record"])["top1"] == record.top1 == run.summary["top1"]
        assert run.values()["config_hash"] == record.config_hash
        assert (run.group, run.job_type, run.display_name) == ("small", "tiny", f"{record.variant} seed 0")
        assert run.tags == ["one"]
        assert run.history[-1]["trainer/global_step"] == record.steps
    trained = place.wandb_run("nl")
    assert trained.values()["instantiation"] == "dot_product"
    assert sum("val/top1" in point for point in trained.history) == 1
    assert_nothing_private_left(place)
    done_points_are_repeats(place)


def done_points_are_repeats(place: Place) -> None:
    """They end at once, with the numbers of the first."""
    first, again = place.wandb_run("c2d"), place.sweep()
    place.agent(again, "--count", "1").communicate(timeout=LIMIT)
    (run,) = place.server.state.sweep_runs(again.split("/")[-1])
    assert (run.state, run.tags) == ("finished", ["one", "repeat"])
    assert run.summary["repeat_of"] == first.name
    assert json.loads(run.summary["record"]) == json.loads(first.summary["record"])


def assert_nothing_private_left(place: Place) -> None:
    """Code, host, folders, user and key stay at home; only the agent, which is W&B's own program, names its host."""
    sent = [request for request in place.server.requests if request["operation"] != "CreateAgent"]
    text = json.dumps(sent)
    names = {"folder": str(place.folder), "home": str(Path.home()), "key": KEY, "host": platform.node()}
    for what, name in names.items():
        assert name not in text or name == "/", what  # home of a container's user
    assert f'"{getpass.getuser()}"' not in text
    uploads = {request["name"] for request in sent if request["operation"] == "upload"}
    assert uploads <= {"config.yaml", "wandb-summary.json"}


def test_a_preempted_and_then_killed_run_is_finished_under_its_own_id(
    place: Place, capsys: pytest.CaptureFixture[str]
) -> None:
    place.hold("train")
    sweep = place.sweep()
    agent = place.agent(sweep, "--forward-signals")
    wait_until(lambda: place.training("c2d"))
    agent.send_signal(signal.SIGTERM)
    agent.communicate(timeout=LIMIT)
    first = place.wandb_run("c2d")
    assert first.state == "preempted"
    with contextlib.chdir(place.folder):
        assert main(["status", "study.yaml", "--recipe=tiny.yaml"]) == 0
    assert "preempted" in capsys.readouterr().out

    again = place.agent(sweep)
    wait_until(lambda: place.training("c2d"))
    kill(again)
    place.hold("")
    place.agent(sweep, "--count", "1").communicate(timeout=LIMIT)
    assert {record.variant for record in place.records()} == {"c2d", "nl"}
    assert place.wandb_run("c2d") is first
    assert first.state == "finished"
    assert json.loads(first.summary["record"])["variant"] == "c2d"
    assert first.sweep == sweep.split("/")[-1]
    assert first.history[-1]["trainer/global_step"] == STEPS


def test_points_that_make_no_sense_and_runs_that_fail_cost_nothing_else(place: Place) -> None:
    """A sweep that somebody edited, and a run that fails; what it fails of is mended, and the run is run again."""
    broken = place.folder / "broken"
    broken.touch()
    with contextlib.chdir(place.folder):
        assert main(["sweeps", "study.yaml", "--recipe", "tiny.yaml"]) == 0
    sweep = yaml.safe_load((place.folder / "sweeps" / "small.yaml").read_text())
    sweep["parameters"]["variant"]["values"] = ["c2dd", "c2d"]
    sweep["parameters"]["seed"]["values"] = ["first", 0]
    sweep["run_cap"] = 4
    # Three failures in its first minute would stop the agent, as W&B has it.
    agent = place.agent(place.put(yaml.safe_dump(sweep)), WANDB_AGENT_DISABLE_FLAPPING="true")
    agent.communicate(timeout=LIMIT)
    *wrong, right = place.server.state.runs.values()
    assert [run.state for run in [*wrong, right]] == ["failed"] * 4
    seed = "argument --seed: expected a whole number of at least 0, not 'first' (see nl-lightning run --help)"
    assert [run.summary["error"] for run in wrong] == [
        seed,
        seed,
        "study.yaml: no variant 'c2dd'; did you mean 'c2d'?",
    ]

    broken.unlink()
    assert place.run("nl-lightning", "run", "study.yaml", "--recipe=tiny.yaml", "--failed")[0] == 0
    assert list(place.server.state.runs.values()) == [*wrong, right]  # under its own id
    assert right.state == "finished"
    assert json.loads(right.summary["record"])["variant"] == "c2d"
    code, said = place.run("nl-lightning", "run", "study.yaml", "--recipe=tiny.yaml", "--failed")
    assert (code, "nothing has failed" in said) == (2, True)


def test_a_server_that_is_gone_for_a_while_costs_nothing(place: Place) -> None:
    place.hold("train")
    process = place.start("nl-lightning", "run", "study.yaml", "--recipe=tiny.yaml", "--variant=c2d")
    wait_until(lambda: place.training("c2d"))
    place.server.stop()
    place.hold("test")
    wait_until(lambda: process.poll() is not None or place.said("c2d").get("phase") == "test")
    place.server.start()
    place.hold("")
    said, _ = process.communicate(timeout=LIMIT)
    assert process.returncode == 0, said
    (record,) = place.records()
    run = place.wandb_run("c2d")
    assert run.state == "finished"
    assert run.summary["top1"] == record.top1
    assert [point["trainer/global_step"] for point in run.history] == list(range(1, STEPS + 1))


def test_offline_runs_are_where_they_belong_after_a_sync(place: Place) -> None:
    sweep = place.sweep()
    place.agent(sweep, "--count", "1", WANDB_MODE="offline").communicate(timeout=LIMIT)
    (pending,) = place.server.state.runs.values()
    assert (pending.state, pending.summary) == ("pending", {})
    folders = sorted(place.folder.glob("my_results/runs/tiny/c2d/seed0/wandb/offline-run-*"))
    code, said = place.run("wandb", "sync", *map(str, folders))
    assert code == 0, said
    run = place.wandb_run("c2d")
    assert run is pending
    assert run.sweep == sweep.split("/")[-1]
    assert run.values()["config_hash"] == place.records()[0].config_hash
    assert json.loads(run.summary["record"])["variant"] == "c2d"


def test_a_study_that_changed_after_the_sweep_was_made_is_refused(place: Place) -> None:
    sweep = place.sweep()
    recipe = place.folder / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace("lr: 0.003", "lr: 0.004"))
    place.agent(sweep, "--count", "1").communicate(timeout=LIMIT)
    (run,) = place.server.state.runs.values()
    assert run.state == "failed"
    assert "c2d has the configuration" in run.summary["error"]
    assert "the recipe tiny has changed since, with 3 of 3 variants" in run.summary["error"]
    assert place.records() == []
