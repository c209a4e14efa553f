"""Runs as jobs of a cluster, one job a run, through submitit: on Slurm, or in the background of this machine.

Submitting files the jobs and returns; ``nl-lightning status`` shows what becomes of them. A job starts the run's own
process (:mod:`nl_lightning.runs.worker`), passes on what the cluster tells it, and answers for it by its own end. A job
that has to make room, or has used up its time, is requeued when the process has ended, and goes on from the last
checkpoint. Nothing here imports torch.
"""

import contextlib
import io
import json
import os
import platform
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from nl_lightning.errors import UserError, from_extra
from nl_lightning.runs import schedule
from nl_lightning.runs.processes import HELD, Process, as_worker
from nl_lightning.runs.schedule import shares
from nl_lightning.study.files import write_atomically
from nl_lightning.study.lock import BEAT, STALE
from nl_lightning.study.run import Run, State, identified, noted

if TYPE_CHECKING:
    import submitit  # of an extra
    from submitit.core.utils import DelayedSubmission


MINUTES = 240
"""Time limit of a Slurm job, if the user gives none. A longer run goes on in its next turn."""
TURNS = 1000
"""Time limits that a run may use up."""
PATIENCE = 60.0
"""Seconds that a cluster's disks may take to show what another machine wrote."""
OURS = ("array", "dependency", "error", "output")
"""Options of sbatch that a user can't give: jobs wouldn't be found again, or would begin before their parents."""

# ------------------------------------------------------------------------------------------------- inside a job


@dataclass(frozen=True)
class Job:
    """What a job does, on the machine that it is given; submitit keeps it in a file.

    The jobs of `after`, on this machine, must have ended first. (Slurm sees to that by itself.)
    """

    run: Run
    command: Sequence[str]
    environment: Mapping[str, str]
    after: tuple[str, ...] = ()

    def __call__(self) -> None:
        """Bring the run to its record.

        UserError if it was changed after it was submitted, or the run that it starts from has no record.
        CalledProcessError if its process failed, or was told to stop.
        """
        while _alive_here(self.after):
            time.sleep(0.5)
        if self.run.is_done():  # all processes of a run look, or some would wait for the first one
            return
        self._check()
        give_up = time.monotonic() + STALE + 2 * BEAT  # by then, the lock of a machine that has died is stale
        while (code := self._attempt()) == HELD and time.monotonic() < give_up:
            time.sleep(BEAT)
        if code and not self.run.is_done():
            raise subprocess.CalledProcessError(code, self.command)

    def checkpoint(self) -> "DelayedSubmission":
        """What submitit requeues: the same again."""
        from submitit.core.utils import DelayedSubmission

        return DelayedSubmission(self)

    def _check(self) -> None:
        now = identified(*self.run.identity())
        if now.config_hash != self.run.config_hash:
            raise UserError(
                f"{self.run.name}: submitted with configuration {self.run.config_hash}, now {now.config_hash}; "
                "submit it again"
            )
        parent, give_up = self.run.parent, time.monotonic() + (0 if self.after else PATIENCE)
        while parent is not None and not parent.is_done():
            if time.monotonic() >= give_up:
                raise UserError(f"{self.run.name}: {parent.name}, which it starts from, has no record")
            time.sleep(1)

    def _attempt(self) -> int:
        """Run the process and return its exit code; does not return if the job is requeued.

        SIGUSR2 (out of time, or preempted) says that the job is to be requeued, by submitit. SIGTERM says that it is
        cancelled, or preempted and requeued by Slurm; only in its grace time Slurm would take it for failed.
        """
        told: list[int] = []
        started: list[Process] = []

        def stop(number: int, frame: object) -> None:
            told.append(number)
            for process in started:
                # Not SIGTERM: on that, Lightning calls the run's other processes from within, and they may not answer.
                process.send_signal(signal.SIGUSR2)

        before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGUSR2)}
        with self.run.log.open("ab") as log:
            process = Process(self.command, **as_worker({**os.environ, **self.environment}, log))
        started.append(process)
        if told:  # while it was started
            process.send_signal(signal.SIGUSR2)
        code = process.wait()
        for number, handler in before.items():
            signal.signal(number, handler)
        if code and (signal.SIGUSR2 in told or (signal.SIGTERM in told and _in_grace_time())):
            signal.raise_signal(signal.SIGUSR2)  # submitit's: checkpoint(), requeue, exit
            return 0  # one of several processes of a run, and not the first, which speaks for the job
        return code


def _in_grace_time() -> bool:
    """Whether this is a job of Slurm that is told to stop and runs all the same: neither cancelled nor requeued."""
    import submitit

    job = submitit.JobEnvironment()
    if job.cluster != Slurm.name:
        return False
    asked = ["squeue", "--noheader", "--format=%T", f"--jobs={job.job_id}"]
    return subprocess.run(asked, capture_output=True, text=True).stdout.strip() == "RUNNING"


# --------------------------------------------------------------------------------------------------- submitting


class Slurm:
    """Slurm: what a job needs is the recipe's, unless the options of sbatch (with ``_`` for ``-``) say otherwise.

    submitit keeps its files of the jobs in `folder`. UserError if Slurm can't be used.
    """

    name: Literal["slurm"] = "slurm"

    def __init__(self, folder: Path, workers: int, options: Mapping[str, str | bool]) -> None:
        if workers > 1:
            raise UserError("--workers is for one machine; on a cluster, Slurm says how many run at a time")
        for option in OURS:
            if option in options:
                raise UserError(f"--slurm {option}: is set for each job; leave it out")
        if not str(options.get("time", MINUTES)).isdecimal():
            raise UserError(f"--slurm time: expected minutes, not '{options['time']}'")
        if shutil.which("sbatch") is None or shutil.which("srun") is None:
            raise UserError("--cluster slurm: no sbatch here; call this where jobs are submitted")
        with from_extra("slurm"):
            import submitit
        self.executor, self.options = submitit.SlurmExecutor(folder, max_num_timeout=TURNS), options

    def submit(self, run: Run, parent: str | None) -> str:
        """File a job, to begin when the job `parent` has ended well, and return its id. UserError if it is refused."""
        options = {**needs(run), **self.options}
        cores = options["cpus_per_task"]
        self.executor.update_parameters(
            job_name=f"{run.variant.name}-seed{run.seed}",
            time=int(options.pop("time", MINUTES)),
            dependency=None if parent is None else f"afterok:{parent}",
            # srun doesn't take them over from sbatch. If one process of a run fails, the others would wait for it.
            srun_args=[f"--cpus-per-task={cores}", "--kill-on-bad-exit=1"],
            additional_parameters={"requeue": True, "kill_on_invalid_dep": "yes", **options},
        )
        from submitit.core.utils import FailedJobError

        job = Job(run, _command(run), {"OMP_NUM_THREADS": str(cores)})
        try:
            with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what it raises as well
                return self.executor.submit(job).job_id
        except FailedJobError as error:
            raise UserError(f"{run.name}: {'; '.join(str(error).splitlines())[:300]}") from None


def _command(run: Run) -> list[str]:
    return [*schedule.WORKER, "run", *run.identity()]


def needs(run: Run) -> dict[str, Any]:
    """Nodes, processes, cores and GPUs of a run, as its recipe or its variant says. UserError if neither does."""
    trainer, data = run.config.get("trainer", {}), run.config.get("data", {})
    devices = trainer.get("devices", 1)
    if not isinstance(devices, int) or devices < 1:
        raise UserError(f"recipe {run.recipe.name}: trainer.devices: a job needs a number, not {devices!r}")
    workers = {"num_workers": 0, **(data.get("init_args") or {}), **data}["num_workers"]
    needs = {
        "nodes": trainer.get("num_nodes", 1),
        "ntasks_per_node": devices,  # Lightning takes each of Slurm's tasks for one of its processes
        "cpus_per_task": 1 + (workers if isinstance(workers, int) else 0),  # a class may have its own default
    }
    return needs | ({"gpus_per_node": devices} if trainer.get("accelerator") in ("gpu", "cuda") else {})


class Local:
    """Background processes of this machine, some at a time, which share its cores and GPUs."""

    name: Literal["local"] = "local"

    def __init__(self, folder: Path, workers: int) -> None:
        with from_extra("slurm"):
            import submitit
        self.executor, self.shares = submitit.LocalExecutor(folder), shares(workers)
        self.executor.update_parameters(timeout_min=60 * 24 * 365)
        self.jobs: list["submitit.Job[None]"] = []  # kept: a process is waited for by the object that started it

    def submit(self, run: Run, parent: str | None) -> str:
        """Start a job, which waits for the job `parent` and for a share of the machine, and return its id."""
        count, workers = len(self.jobs), len(self.shares)
        before = self.jobs[count - workers].job_id if count >= workers else None  # with the same share
        after = tuple(job for job in (before, parent) if job is not None)
        with _terminal_left_alone():
            job = self.executor.submit(Job(run, _command(run), self.shares[count % workers], after))
        self.jobs.append(job)
        return job.job_id


@contextlib.contextmanager
def _terminal_left_alone() -> Iterator[None]:
    """Processes that are started here don't hold on to the terminal, or to a pipe, that this one writes to."""
    kept = [os.dup(number) for number in (0, 1, 2)]
    nothing = os.open(os.devnull, os.O_RDWR)
    try:
        for number in (0, 1, 2):
            os.dup2(nothing, number)
        yield
    finally:
        for number, copy in enumerate(kept):
            os.dup2(copy, number)
            os.close(copy)
        os.close(nothing)


Cluster = Slurm | Local


def submit_all(runs: Sequence[Run], cluster: Cluster, say: Callable[[str], None]) -> None:
    """Submit every run that isn't done and has no job yet, parents before their children; `say` what becomes of each.

    UserError if the cluster refuses a job; those before it are submitted.
    """
    jobs = _newest_jobs(runs)
    if done := sum(run.is_done() for run in runs):
        say(f"{done} of {len(runs)} runs are done already")
    for run in runs:
        state, job, parent = run.state(), jobs.get(run.name), run.parent
        if state.name == "done":
            continue
        if job is not None and (job.alive or (state.name == "queued" and job.alive is None)):
            say(f"{run.name}: {job} already")
        elif state.name == "running":
            say(f"{run.name}: running already, {state.note}")
        elif parent is None or parent.is_done():
            jobs[run.name] = _submit(run, cluster, None)
            say(f"{run.name}: {jobs[run.name]}")
        elif (before := jobs.get(parent.name)) is not None and before.alive and before.cluster == cluster.name:
            jobs[run.name] = _submit(run, cluster, before.job)
            say(f"{run.name}: {jobs[run.name]}, after job {before.job}")
        else:
            say(f"{run.name}: not submitted, it starts from {parent.name}; call again when that is done")


def _submit(run: Run, cluster: Cluster, after: str | None) -> "_Submitted":
    begun = run.folder.exists()
    run.prepare_folder()
    try:
        number = cluster.submit(run, after)
    except UserError:
        with contextlib.suppress(OSError):  # nothing of the run is here, unless it was begun before
            if not begun:
                run.configuration.unlink()
            run.checkpoint.parent.rmdir()
            run.folder.rmdir()
        raise
    job = _Submitted(cluster.name, number, platform.node(), alive=True)
    note = {"cluster": job.cluster, "job": job.job, "host": job.host}
    write_atomically(run.folder / "job.json", json.dumps(note))
    run.say("queued", job=str(job))  # at once: the run's process takes seconds to start
    return job


# ------------------------------------------------------------------------------------------------ what became of it


def states(runs: Sequence[Run]) -> list[State]:
    """Where runs stand, by what the cluster says of their jobs where it can be asked.

    Whatever waits for its turn, also after it was preempted or its machine died, is ``queued``; what was submitted and
    whose job is gone is ``interrupted``.
    """
    jobs = _newest_jobs(runs)
    return [_judged(run.state(), jobs.get(run.name)) for run in runs]


@dataclass(frozen=True)
class _Submitted:
    """A job that was submitted (``job.json`` in the run's folder), and from which machine.

    Whether it is `alive`, that is waits or runs, is not in the file; None if that can't be asked from here.
    """

    cluster: Literal["slurm", "local"]
    job: Annotated[str, Field(pattern="^[0-9]+$")]
    host: str
    alive: bool | None = None

    def __str__(self) -> str:
        return f"{self.cluster} job {self.job}"


def _newest_jobs(runs: Sequence[Run]) -> dict[str, _Submitted]:
    """The newest job of each run that has had one, by the run's name."""
    notes = {run.name: note for run in runs if (note := noted(_Submitted, run.folder / "job.json")) is not None}
    slurm = _alive_on_slurm([note.job for note in notes.values() if note.cluster == Slurm.name])
    here = _alive_here([note.job for note in notes.values() if note.cluster == Local.name])
    found = {}
    for name, note in notes.items():
        known = slurm if note.cluster == Slurm.name else here if note.host == platform.node() else None
        found[name] = replace(note, alive=None if known is None else note.job in known)
    return found


def _judged(state: State, job: _Submitted | None) -> State:
    if job is None or job.alive is None or state.name not in ("queued", "preempted", "interrupted"):
        return state
    if job.alive:
        return State("queued", str(job))
    return State("interrupted", f"{job} is gone") if state.name == "queued" else state


def _alive_on_slurm(jobs: Collection[str]) -> set[str] | None:
    """Those of the jobs that wait or run; None if Slurm can't be asked here."""
    if not jobs or shutil.which("squeue") is None:
        return None
    command = ["squeue", "--noheader", "--format=%A", f"--jobs={','.join(jobs)}"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return None
    if asked.returncode and "Invalid job id" not in asked.stderr:  # as it says of a single one that is gone
        return None
    return set(asked.stdout.split())


def _alive_here(jobs: Collection[str]) -> set[str]:
    """Those of the local jobs that wait or run; a job's id is the number of the process that watches over it."""
    alive = set()
    for job in jobs:
        with contextlib.suppress(OSError):
            if b"submitit" in Path(f"/proc/{job}/cmdline").read_bytes():
                alive.add(job)
    return alive
