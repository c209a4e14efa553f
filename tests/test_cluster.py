"""Jobs of a cluster: what is asked for, what comes of them, being told to stop; on a real Slurm if there is one."""

import os
import platform
import re
import shutil
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from nl_lightning.cluster import states
from nl_lightning.runner import Run, plan
from nl_lightning.study import load_recipe, load_study

STUDY = """
name: small
title: A small study
recipe: tiny
variants:
  parent: {net: {depth: 50}}
  child: {net: {depth: 50, inflate: 3x1x1}, init_from: parent}
  other: {net: {depth: 101}}
tables:
  one:
    caption: Everything
    rows:
      - {label: parent, variant: parent}
      - {label: child, variant: child, baseline: parent}
      - {label: other, variant: other}
"""

# In place of nl_lightning.process: writes down what happens to it, and leaves a record, or fails, or waits to be told
# to stop; when it has saved its checkpoint once, it goes on and waits no more.
PROCESS = """
import os, signal, sys, time
from nl_lightning.records import RunRecord, write_record
from nl_lightning.runner import identified

run = identified(*sys.argv[2:])
variant = run.variant.name
log = open(run.results / "order.log", "a", buffering=1)

def stop(number, frame):
    for each in (signal.SIGTERM, signal.SIGUSR2):
        signal.signal(each, signal.SIG_IGN)
    time.sleep(0.3)
    run.checkpoint.write_text("")
    run.say("preempted")
    log.write(f"stopped {variant}\\n")
    os._exit(143)

for each in (signal.SIGTERM, signal.SIGUSR2):
    signal.signal(each, signal.SIG_IGN if variant in os.environ.get("DEAF", "").split() else stop)
log.write(f"{'goes on' if run.checkpoint.exists() else 'begin'} {variant}\\n")
run.say("running")
if variant in os.environ.get("WAIT", "").split() and not run.checkpoint.exists():
    time.sleep(100)
if variant in os.environ.get("FAIL", "").split():
    run.say("failed", error="the dog ate it")
    sys.exit(2)
time.sleep(float(os.environ.get("TAKES", 0)))
write_record(run.results, RunRecord(
    study="small", recipe=run.base.name, variant=variant, seed=run.seed, config_hash=run.config_hash, config={},
    top1=50.0, top5=90.0, videos_expected=10, videos_scored=10, num_clips=1, num_crops=1, params=1, macs=1, steps=1,
    train_seconds=1.0, test_seconds=1.0, device="none", decoder="none", commit="none", dirty=False,
    finished="2020-01-01T00:00:00+00:00",
))
log.write(f"end {variant} {os.environ['OMP_NUM_THREADS']}\\n")
"""


class Home:
    """A folder with a study, and the commands in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "results"
        self.recipe("data: {num_frames: 8}")
        (folder / "study.yaml").write_text(STUDY)
        (folder / "process.py").write_text(PROCESS)
        self.results.mkdir()

    def recipe(self, content: str) -> None:
        (self.folder / "tiny.yaml").write_text(content + "\n")

    def runs(self) -> list[Run]:
        study, recipe = load_study(self.folder / "study.yaml"), load_recipe(self.folder / "tiny.yaml")
        return plan(study, recipe, [0], self.results)

    def states(self) -> dict[str, tuple[str, str]]:
        runs = self.runs()
        return {run.variant.name: (state.name, state.note) for run, state in zip(runs, states(runs), strict=True)}

    def order(self) -> list[str]:
        path = self.results / "order.log"
        return path.read_text().splitlines() if path.exists() else []

    def command(self, verb: str, *arguments: str, code: int = 0, **environment: str) -> str:
        """What a command prints, in a process of its own, with the stand-in for the process of a run."""
        script = textwrap.dedent(f"""
            import sys
            from nl_lightning import cli, cluster
            cluster.EXECUTE = [sys.executable, {str(self.folder / "process.py")!r}]
            cli.prepare = lambda recipe: 0
            sys.exit(cli.main(sys.argv[1:]))
        """)
        where = ("--recipe", str(self.folder / "tiny.yaml"), "--results", str(self.results))
        command = [sys.executable, "-c", script, verb, str(self.folder / "study.yaml"), *where, *arguments]
        ended = subprocess.run(command, env={**os.environ, **environment}, capture_output=True, text=True, timeout=60)
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stdout + ended.stderr


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


def wait_until(condition: Callable[[], object], home: Home, seconds: float = 40) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, (home.order(), home.states(), logs(home))
        time.sleep(0.1)


def logs(home: Home) -> str:
    return "\n".join(path.read_text() for path in sorted((home.results / "jobs").glob("*_log.*")))


def jobs(said: str) -> dict[str, str]:
    """The job of each variant, of what submitting printed."""
    return dict(re.findall(r"^(\w+) seed 0: (?:slurm|local) job (\d+)", said, re.MULTILINE))


# --------------------------------------------------------------------------------------------- in the background


def test_in_the_background_one_after_the_other(home: Home) -> None:
    said = home.command("run", "--cluster", "local", TAKES="0.3")
    assert f"child seed 0: local job {jobs(said)['child']}, after job {jobs(said)['parent']}\n" in said
    assert "see: nl-lightning status " in said
    assert {name for name, _ in home.states().values()} <= {"queued", "running", "interrupted", "done"}
    wait_until(lambda: len(home.order()) == 6, home)
    threads = os.cpu_count()
    ran = [[f"begin {variant}", f"end {variant} {threads}"] for variant in ("parent", "child", "other")]
    assert home.order() == [line for one in ran for line in one]
    assert {name for name, _ in home.states().values()} == {"done"}
    wait_until(lambda: not alive(jobs(said)), home)
    assert jobs(home.command("run", "--cluster", "local")) == {}


def alive(submitted: dict[str, str]) -> list[str]:
    return [job for job in submitted.values() if Path(f"/proc/{job}").exists()]


def test_a_child_of_what_failed_does_not_begin(home: Home) -> None:
    said = home.command("run", "--cluster", "local", "--workers", "3", FAIL="parent")
    wait_until(lambda: not alive(jobs(said)), home)
    assert sorted(home.order()) == ["begin other", "begin parent", f"end other {max(1, (os.cpu_count() or 1) // 3)}"]
    child = ("interrupted", f"local job {jobs(said)['child']} is gone")
    assert home.states() == {"parent": ("failed", "the dog ate it"), "child": child, "other": ("done", "")}
    assert "parent seed 0, which it starts from, has no record" in logs(home)
    assert set(jobs(home.command("run", "--cluster", "local"))) == {"parent", "child"}
    wait_until(lambda: f"end child {os.cpu_count()}" in home.order(), home)


def test_what_was_changed_after_it_was_submitted_is_not_run(home: Home) -> None:
    said = home.command("run", "--cluster", "local", "--variant", "child", TAKES="3")
    wait_until(lambda: "begin parent" in home.order(), home)
    home.recipe("data: {num_frames: 4}")
    wait_until(lambda: not alive(jobs(said)), home)
    assert "begin child" not in home.order()
    assert re.search(r"child seed 0: submitted with configuration \w{12}, now \w{12}; submit it again", logs(home))


def test_told_to_make_room_it_is_put_back_and_goes_on(home: Home) -> None:
    said = home.command("run", "--cluster", "local", "--variant", "parent", WAIT="parent")
    wait_until(lambda: "begin parent" in home.order(), home)
    (task,) = Path(f"/proc/{jobs(said)['parent']}/task/{jobs(said)['parent']}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)
    wait_until(lambda: len(home.order()) == 4, home)
    assert home.order() == ["begin parent", "stopped parent", "goes on parent", f"end parent {os.cpu_count()}"]


# ------------------------------------------------------------------------------------------------- a real Slurm


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm of this machine alone; see slurm_on_loopback.py."""
    missing = [name for name in ("sbatch", "slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurmctld slurmd slurm-client munge")
    command = [sys.executable, str(Path(__file__).with_name("slurm_on_loopback.py")), str(tmp_path_factory.mktemp("s"))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        conf = process.stdout.readline().strip()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", conf)
            yield
        process.communicate(timeout=60)
    assert process.returncode == 0


SLURM = ("run", "--cluster", "slurm", "--slurm", "time=5", "--slurm", "mem=10")


def test_a_study_goes_through_slurm(slurm: None, home: Home) -> None:
    """A dependency, a preemption, and a second call that submits nothing twice."""
    said = home.command(*SLURM, "--partition", "main", "--variant", "child", WAIT="parent")
    parent, child = jobs(said)["parent"], jobs(said)["child"]
    assert f"child seed 0: slurm job {child}, after job {parent}\n" in said
    wait_until(lambda: "begin parent" in home.order(), home)
    assert home.states()["child"] == ("queued", f"slurm job {child}")
    assert f"child 0 queued slurm job {child}" in " ".join(home.command("status").split())
    again = home.command(*SLURM, "--variant", "child")
    assert jobs(again) == {"parent": parent, "child": child}
    assert again.count("already") == 2

    subprocess.run(["scancel", "--signal=USR2", parent], check=True)
    wait_until(lambda: "stopped parent" in home.order(), home)
    wait_until(lambda: home.states()["parent"] == ("queued", f"slurm job {parent}"), home)
    wait_until(lambda: {name for name, _ in home.states().values()} == {"done", "missing"}, home)
    assert home.order() == [
        "begin parent",
        "stopped parent",
        "goes on parent",
        "end parent 1",
        "begin child",
        "end child 1",
    ]
    assert jobs(home.command(*SLURM, "--variant", "child")) == {}


@pytest.mark.parametrize("grace", [0, 30])
def test_slurm_takes_the_machine_for_something_urgent(slurm: None, home: Home, grace: int) -> None:
    """Slurm's own preemption: SIGTERM, some time or none to end, requeue."""
    subprocess.run(["scontrol", "update", "PartitionName=main", f"GraceTime={grace}"], check=True)
    job = jobs(home.command(*SLURM, "--variant", "child", WAIT="parent"))["parent"]
    wait_until(lambda: "begin parent" in home.order(), home)
    urgent = ["sbatch", "--partition=urgent", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(urgent, check=True, capture_output=True, cwd=home.folder)
    wait_until(lambda: "stopped parent" in home.order(), home)
    wait_until(lambda: home.states()["parent"] == ("queued", f"slurm job {job}"), home)
    wait_until(lambda: home.states()["child"][0] == "done", home)
    assert home.order()[:4] == ["begin parent", "stopped parent", "goes on parent", "end parent 1"]


def test_a_machine_that_dies_is_no_failure(slurm: None, home: Home) -> None:
    """The run has no time to save a checkpoint; it begins again, from its last one if it has any."""
    job = jobs(home.command(*SLURM, "--variant", "parent", WAIT="parent", DEAF="parent"))["parent"]
    wait_until(lambda: "begin parent" in home.order(), home)
    for state in ("DOWN", "RESUME"):
        update = ["scontrol", "update", f"NodeName={platform.node()}", f"State={state}", "Reason=a test"]
        subprocess.run(update, check=True)
    wait_until(lambda: home.order() == ["begin parent", "begin parent"], home)
    subprocess.run(["scancel", job], check=True)


def test_cancelled_by_a_person_it_stays_cancelled(slurm: None, home: Home) -> None:
    said = jobs(home.command(*SLURM, "--variant", "child", WAIT="parent"))
    wait_until(lambda: "begin parent" in home.order(), home)
    subprocess.run(["scancel", said["parent"]], check=True)
    wait_until(lambda: home.states()["child"] == ("interrupted", f"slurm job {said['child']} is gone"), home)
    wait_until(lambda: home.states()["parent"][0] == "preempted", home)
    assert home.order() == ["begin parent", "stopped parent"]
