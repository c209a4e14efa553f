"""Jobs of a cluster: what is asked for, what comes of them, being told to stop; on a real Slurm if there is one."""

import os
import re
import shutil
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import waiting
from tiny_study import write_tiny_study
from waiting import LIMIT

from nl_lightning.cli import main
from nl_lightning.runs import schedule
from nl_lightning.runs import slurm as cluster
from nl_lightning.runs.processes import HELD
from nl_lightning.runs.slurm import Job, states
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import load_recipe
from nl_lightning.study.run import Run, plan

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

STAND_IN = str(Path(__file__).parents[1] / "stand_in.py")


class Home:
    """A folder with a study, and the commands in it."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.results = folder, folder / "results"
        self.recipe("data: {num_frames: 8}")
        (folder / "study.yaml").write_text(STUDY)
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

    def words(self, verb: str, *arguments: str) -> list[str]:
        where = ("--recipe", str(self.folder / "tiny.yaml"), "--results", str(self.results))
        return [verb, str(self.folder / "study.yaml"), *where, *arguments]

    def command(self, verb: str, *arguments: str, code: int = 0, **environment: str) -> str:
        """What a command prints, in a process of its own, with the stand-in for the process of a run."""
        script = textwrap.dedent(f"""
            import sys
            from nl_lightning import cli
            from nl_lightning.runs import schedule
            schedule.WORKER = [sys.executable, {STAND_IN!r}]
            schedule.prepare = lambda study, recipe: 0
            sys.exit(cli.main(sys.argv[1:]))
        """)
        command = [sys.executable, "-c", script, *self.words(verb, *arguments)]
        environment = {**os.environ, "OMP_NUM_THREADS": "3", **environment}
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=LIMIT)
        assert ended.returncode == code, ended.stderr
        assert "Traceback" not in ended.stderr
        return ended.stdout + ended.stderr


@pytest.fixture
def home(tmp_path: Path) -> Home:
    return Home(tmp_path)


@pytest.fixture
def submit(
    slurm: None, home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., str]:
    """What ``run`` with Slurm prints, in this process; the jobs have the stand-in for the process of a run."""
    monkeypatch.setattr(schedule, "WORKER", [sys.executable, STAND_IN])
    monkeypatch.setattr(schedule, "prepare", lambda study, recipe: 0)

    def submit(*arguments: str, code: int = 0, **environment: str) -> str:
        for name, value in {"OMP_NUM_THREADS": "3", **environment}.items():
            monkeypatch.setenv(name, value)
        capsys.readouterr()
        assert main(home.words(*SLURM, *arguments)) == code
        return "".join(capsys.readouterr())

    return submit


def wait_until(condition: Callable[[], object], home: Home) -> None:
    waiting.wait_until(condition, lambda: (home.order(), home.states(), logs(home)))


def logs(home: Home) -> str:
    return "\n".join(path.read_text() for path in sorted((home.results / "jobs").glob("*_log.*")))


def jobs(said: str) -> dict[str, str]:
    """The job of each variant, of what submitting printed."""
    return dict(re.findall(r"^(\w+) seed 0: (?:slurm|local) job (\d+)", said, re.MULTILINE))


# --------------------------------------------------------------------------------------------- in the background


def test_in_the_background_one_after_the_other(home: Home) -> None:
    said = home.command("run", "--cluster", "local")
    assert f"child seed 0: local job {jobs(said)['child']}, after job {jobs(said)['parent']}\n" in said
    assert "nl-lightning status shows how far they are; what they print: " in said
    assert {name for name, _ in home.states().values()} <= {"queued", "running", "interrupted", "done"}
    wait_until(lambda: not cluster._alive_here(jobs(said).values()), home)
    ran = [[f"begin {variant}", f"end {variant} 3"] for variant in ("parent", "child", "other")]
    assert home.order() == [line for one in ran for line in one]
    assert {name for name, _ in home.states().values()} == {"done"}


def test_a_child_of_what_failed_does_not_begin(home: Home) -> None:
    said = home.command("run", "--cluster", "local", "--workers", "3", FAIL="parent")
    wait_until(lambda: not cluster._alive_here(jobs(said).values()), home)
    assert sorted(home.order()) == ["begin other", "begin parent", "end other 3"]
    child = ("interrupted", f"local job {jobs(said)['child']} is gone")
    assert home.states() == {"parent": ("failed", "the dog ate it"), "child": child, "other": ("done", "")}
    assert "parent seed 0, which it starts from, has no record" in logs(home)


def test_what_was_changed_after_it_was_submitted_is_not_run(home: Home) -> None:
    said = home.command("run", "--cluster", "local", "--variant", "child", UNTIL=str(home.folder / "changed"))
    wait_until(lambda: "begin parent" in home.order(), home)
    home.recipe("data: {num_frames: 4}")
    (home.folder / "changed").touch()
    wait_until(lambda: not cluster._alive_here(jobs(said).values()), home)
    assert "begin child" not in home.order()
    assert re.search(r"child seed 0: submitted with configuration \w{12}, now \w{12}; submit it again", logs(home))


def test_told_to_make_room_it_is_put_back_and_goes_on(home: Home) -> None:
    said = home.command("run", "--cluster", "local", "--variant", "parent", WAIT="parent")
    wait_until(lambda: "begin parent" in home.order(), home)
    (task,) = Path(f"/proc/{jobs(said)['parent']}/task/{jobs(said)['parent']}/children").read_text().split()
    os.kill(int(task), signal.SIGUSR2)
    wait_until(lambda: len(home.order()) == 4, home)
    assert home.order() == ["begin parent", "stopped parent", "goes on parent", "end parent 3"]


# -------------------------------------------------------------------------------------------------- inside a job


def job(home: Home, script: str) -> Job:
    """A job whose process is a shell script."""
    run = home.runs()[0]
    run.prepare_folder()
    return Job(run, ["sh", "-c", script], {})


def test_a_job_fails_with_its_process(home: Home) -> None:
    job(home, "exit 0")()
    with pytest.raises(subprocess.CalledProcessError, match="exit status 2"):
        job(home, "echo why >&2; exit 2")()
    assert home.runs()[0].log.read_text() == "why\n"


def test_a_job_waits_until_a_dead_machine_s_claim_is_stale(home: Home, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cluster, "BEAT", 0.2)
    held = f"test -e {home.folder}/free && exit 0; sleep 0.3; touch {home.folder}/free; exit {HELD}"
    job(home, held)()
    monkeypatch.setattr(cluster, "STALE", 0)
    with pytest.raises(subprocess.CalledProcessError, match=f"exit status {HELD}"):
        job(home, f"exit {HELD}")()


def test_told_to_make_room_while_the_process_is_started_it_is_put_back(
    home: Home, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the start of the process and the moment at which anybody knows of it."""

    class Told(subprocess.Popen[bytes]):
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            super().__init__(*args, **kwargs)
            signal.raise_signal(signal.SIGUSR2)

    requeued: list[int] = []
    before = signal.signal(signal.SIGUSR2, lambda number, frame: requeued.append(number))  # as submitit's own
    monkeypatch.setattr(cluster, "Process", Told)
    try:
        job(home, "exec sleep 3600")()
    finally:
        signal.signal(signal.SIGUSR2, before)
    assert requeued == [signal.SIGUSR2]


# --------------------------------------------------------------------------------------------- what Slurm is asked


@pytest.fixture
def run_here(home: Home, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """What ``run`` prints, in this process; nothing but sbatch is started."""
    monkeypatch.setattr(schedule, "prepare", lambda study, recipe: 0)

    def run(*arguments: str, code: int = 0) -> str:
        assert main(home.words("run", *arguments)) == code
        return "".join(capsys.readouterr())

    return run


DRY = [(), ("--dry-run",)]  # which refuses what would be refused


@pytest.fixture
def asked(home: Home, run_here: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[str]]:
    """The options that sbatch is given for a run, by a stand-in for it."""
    programs = home.folder / "bin"
    programs.mkdir()
    for name, script in {"sbatch": 'cp "$1" sbatch.sh; echo Submitted batch job 7', "srun": "", "squeue": ""}.items():
        (programs / name).write_text(f"#!/bin/sh\ncd {home.folder}\n{script}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")

    def ask(*arguments: str) -> list[str]:
        run_here("--cluster", "slurm", "--variant", "other", *arguments)
        lines = (home.folder / "sbatch.sh").read_text().splitlines()
        ours = ("account", "cpus", "constraint", "dep", "exclusive", "gpus", "job", "kill", "mem", "nodes", "ntasks",
                "partition", "requeue", "signal", "time")  # fmt: skip
        return [word for line in lines for word in line.split() if word.removeprefix("--").startswith(ours)]

    return ask


def test_a_job_asks_for_what_its_recipe_and_its_variant_need(home: Home, asked: Callable[..., list[str]]) -> None:
    assert asked() == [
        "--cpus-per-task=1", "--job-name=other-seed0", "--kill-on-invalid-dep=yes", "--nodes=1", "--ntasks-per-node=1",
        "--requeue", "--signal=USR2@90", "--time=240", "--cpus-per-task=1", "--kill-on-bad-exit=1",
    ]  # fmt: skip
    home.recipe(
        "{data: {num_frames: 8, num_workers: 7}, trainer: {accelerator: gpu, devices: 4, num_nodes: 2, strategy: ddp}}"
    )
    four_a_node = ["--gpus-per-node=4", "--nodes=2", "--ntasks-per-node=4", "--cpus-per-task=8"]
    assert set(four_a_node) < set(asked())
    home.recipe("data: {class_path: own.Data, init_args: {num_workers: 4}}")
    assert "--cpus-per-task=5" in asked()
    home.recipe("data: {class_path: own.Data, init_args: {num_workers: null}}")
    assert "--cpus-per-task=1" in asked()
    settings = "settings: {trainer.devices: 2, data.num_workers: 2}"
    (home.folder / "study.yaml").write_text(
        STUDY.replace("{net: {depth: 101}}", f"{{net: {{depth: 101}}, {settings}}}")
    )
    assert {"--ntasks-per-node=2", "--cpus-per-task=3"} < set(asked())


def test_a_user_s_options_go_first(home: Home, asked: Callable[..., list[str]]) -> None:
    options = ["account=lab", "mem=64G", "exclusive", "constraint=a100", "cpus-per-task=3", "time=720"]
    said = asked("--partition", "long", *(word for option in options for word in ("--slurm", option)))
    for option in ("--account=lab", "--mem=64G", "--exclusive", "--constraint=a100", "--partition=long", "--time=720"):
        assert option in said
    assert said.count("--cpus-per-task=3") == 2  # of the job, and of its processes
    assert len(said) == len(set(said)) + 1


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--cluster", "local", "--partition", "main"), "--partition and --slurm are for --cluster slurm"),
        (("--slurm", "mem=1"), "--partition and --slurm are for --cluster slurm"),
        (("--cluster", "slurm", "--workers", "2"), "--workers is for one machine; on a cluster, Slurm says"),
        (("--cluster", "slurm", "--slurm", "time=1-0"), "--slurm time: expected minutes, not '1-0'"),
        (("--cluster", "slurm", "--slurm", "array=1-5"), "--slurm array: is set for each job; leave it out"),
        (("--cluster", "slurm", "--slurm", "mem=1", "--slurm", "mem=2"), "--slurm gives mem more than once"),
        (("--cluster", "slurm", "--partition", "a", "--slurm", "partition=b"), "--slurm gives partition more than"),
        (("--cluster", "lsf"), "--cluster: invalid choice: 'lsf'"),
        (("--cluster", "local", "--compare", "."), "--compare has no effect with --cluster: leave it out"),
        (("--compare", "nowhere"), "--compare: there is no folder nowhere"),
        (("--recipe", ""), "no recipe '.' in "),  # and not that of the study
    ],
)
@pytest.mark.parametrize("dry", DRY)
def test_a_mistake_is_one_line(
    run_here: Callable[..., str], asked: Callable[..., list[str]], arguments: tuple[str, ...], message: str,
    dry: tuple[str, ...],
) -> None:  # fmt: skip
    said = run_here(*arguments, *dry, code=2)
    assert said.startswith("nl-lightning: ")
    assert said.count("\n") == 1
    assert message in said


@pytest.mark.parametrize("dry", DRY)
def test_a_job_needs_a_number_of_devices(
    home: Home, run_here: Callable[..., str], asked: Callable[..., list[str]], dry: tuple[str, ...]
) -> None:
    home.recipe("{data: {num_frames: 8}, trainer: {devices: auto}}")
    said = run_here("--cluster", "slurm", *dry, code=2)
    assert said == "nl-lightning: recipe tiny: trainer.devices: a job needs a number, not 'auto'\n"


def test_a_dry_run_of_jobs_leaves_nothing(
    home: Home, run_here: Callable[..., str], asked: Callable[..., list[str]]
) -> None:
    said = run_here("--cluster", "slurm", "--variant", "other", "--dry-run")
    assert said.startswith("# each run is one job, which calls these commands\n# 0 of 1 runs are done already\n")
    assert not list(home.results.iterdir())


@pytest.mark.parametrize("dry", DRY)
def test_without_slurm_it_says_so(
    run_here: Callable[..., str], monkeypatch: pytest.MonkeyPatch, dry: tuple[str, ...]
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    said = run_here("--cluster", "slurm", *dry, code=2)
    assert said == "nl-lightning: --cluster slurm: no sbatch here; call this where jobs are submitted\n"


# ------------------------------------------------------------------------------------------------- a real Slurm


@pytest.fixture(scope="module")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A Slurm of this machine alone; see slurm_on_loopback.py."""
    missing = [name for name in ("sbatch", "slurmctld", "slurmd", "munged") if shutil.which(name) is None]
    if missing:
        pytest.skip(f"no {', '.join(missing)} here: apt-get install slurmctld slurmd slurm-client munge")
    command = [
        sys.executable,
        str(Path(__file__).parents[1] / "slurm_on_loopback.py"),
        str(tmp_path_factory.mktemp("s")),
    ]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        conf = process.stdout.readline().strip()
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("SLURM_CONF", conf)
            yield
        process.communicate(timeout=LIMIT)
    assert process.returncode == 0


SLURM = ("run", "--cluster", "slurm", "--slurm", "time=60", "--slurm", "mem=10")


def test_a_study_goes_through_slurm(home: Home, submit: Callable[..., str], capsys: pytest.CaptureFixture[str]) -> None:
    """A dependency, a preemption, and a second call that submits nothing twice."""
    said = submit("--partition", "main", "--variant", "child", WAIT="parent")
    parent, child = jobs(said)["parent"], jobs(said)["child"]
    assert f"child seed 0: slurm job {child}, after job {parent}\n" in said
    wait_until(lambda: "begin parent" in home.order(), home)
    assert home.states()["parent"][0] == "running"
    assert home.states()["child"] == ("queued", f"slurm job {child}")
    assert main(home.words("status")) == 0
    assert f"child 0 queued slurm job {child}" in " ".join(capsys.readouterr().out.split())
    again = submit("--variant", "child")
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
    assert submit("--variant", "child").startswith("2 of 2 runs are done already\nnl-lightning status")


@pytest.mark.parametrize("grace", [0, 30])
def test_slurm_takes_the_machine_for_something_urgent(home: Home, submit: Callable[..., str], grace: int) -> None:
    """Slurm's own preemption: SIGTERM, some time or none to end, requeue."""
    subprocess.run(["scontrol", "update", "PartitionName=main", f"GraceTime={grace}"], check=True)
    job = jobs(submit("--variant", "child", WAIT="parent", ONCE="parent"))["parent"]
    wait_until(lambda: "begin parent" in home.order(), home)
    urgent = ["sbatch", "--partition=urgent", "--exclusive", "--time=1", "--output=/dev/null", "--wrap=sleep 1"]
    subprocess.run(urgent, check=True, capture_output=True, cwd=home.folder)
    if grace:
        wait_until(lambda: "stopped parent" in home.order(), home)
        wait_until(lambda: home.states()["parent"] == ("queued", f"slurm job {job}"), home)
    wait_until(lambda: home.states()["child"][0] == "done", home)
    done = home.order()
    if grace:
        assert done[:4] == ["begin parent", "stopped parent", "goes on parent", "end parent 1"]
    # Without time Slurm may kill a process before it says a word, and the run begins again.
    again = [line for line in done if line in ("begin parent", "goes on parent")]
    assert len(again) > 1
    assert done.count("end parent 1") == 1
    assert done.index("end parent 1") < done.index("begin child")


def test_a_machine_that_dies_is_no_failure(home: Home, submit: Callable[..., str]) -> None:
    """The run has no time to save a checkpoint; it begins again, from its last one if it has any."""
    job = jobs(submit("--variant", "parent", WAIT="parent", DEAF="parent"))["parent"]
    wait_until(lambda: "begin parent" in home.order(), home)
    node = subprocess.check_output(["sinfo", "--noheader", "--format=%N", "--partition=main"], text=True).strip()
    update = ["scontrol", "update", f"NodeName={node}", "Reason=a test"]
    subprocess.run([*update, "State=DOWN"], check=True)
    wait_until(lambda: subprocess.run([*update, "State=RESUME"], check=False).returncode == 0, home)  # not at once

    def begun_again() -> bool:
        """Slurm holds a job back that came to the machine again before its first process was gone."""
        subprocess.run(["scontrol", "release", job], check=False, capture_output=True)
        return home.order() == ["begin parent", "begin parent"]

    wait_until(begun_again, home)
    subprocess.run(["scancel", job], check=True)


def test_cancelled_by_a_person_it_stays_cancelled(home: Home, submit: Callable[..., str]) -> None:
    said = jobs(submit("--variant", "child", WAIT="parent"))
    wait_until(lambda: "begin parent" in home.order(), home)
    subprocess.run(["scancel", said["parent"]], check=True)
    wait_until(lambda: home.states()["child"] == ("interrupted", f"slurm job {said['child']} is gone"), home)
    wait_until(lambda: home.states()["parent"][0] in ("preempted", "interrupted"), home)  # Slurm may kill at once
    assert home.order().count("begin parent") == 1


def test_what_slurm_refuses_is_one_line(home: Home, submit: Callable[..., str]) -> None:
    said = submit("--partition", "nowhere", code=2)
    assert "nl-lightning: parent seed 0: sbatch: error: " in said
    assert "nvalid partition" in said
    assert said.count("\n") == 1
    assert {name for name, _ in home.states().values()} == {"missing"}
    assert "unrecognized option '--tiem=5'" in submit("--slurm", "tiem=5", code=2)


def test_real_training_as_a_job(
    slurm: None, tmp_path: Path, small_videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Without a stand-in for the process of a run."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setattr(schedule, "prepare", lambda study, recipe: 0)
    write_tiny_study(tmp_path, small_videos)
    study, recipe, results = tmp_path / "study.yaml", tmp_path / "tiny.yaml", tmp_path / "results"
    where = [str(study), "--recipe", str(recipe), "--results", str(results), "--variant", "c2d"]
    assert main(["run", *where, *SLURM[1:]]) == 0
    said = capsys.readouterr()
    assert said.err == ""
    assert set(jobs(said.out)) == {"c2d"}
    (run,) = plan(load_study(study), load_recipe(recipe), [0], results, variants=["c2d"])
    waiting.wait_until(run.is_done, run.log.read_text)
    record = run.state().record
    assert record is not None
    assert (record.variant, record.videos_scored) == ("c2d", 22)
