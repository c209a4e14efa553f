"""Bring the runs of a study to their records: in the order that `init_from` asks for, several at a time.

This file only starts and watches. Each run is a process of its own (:mod:`nl_lightning.runs.worker`), so nothing here
needs torch, and a run that dies takes no other with it. Any number of runners, here and on other machines that share
the results folder, can be at work on one study: a run that another one has locked is left to it.

A runner that is told to stop passes that on, waits for 20 seconds, and kills what is left.
If it is killed itself, its runs notice within a second, save a checkpoint after the iteration in progress, and end as
preempted.
"""

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, TaskID, TaskProgressColumn, TimeElapsedColumn, TimeRemainingColumn

from nl_lightning.errors import UserError, bars, mistake, say, visible
from nl_lightning.runs.processes import HELD, Process, how_it_ended, kill_session, start, stopping
from nl_lightning.study.evidence import cores
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.run import Run, State
from nl_lightning.study.study import STILLS, Study

WORKER = [sys.executable, "-m", "nl_lightning.runs.worker"]
"""Command of a process that executes a run or prepares data."""
PAUSE = 0.3
"""Seconds between two looks at the runs that are at work here."""
LOOK_AGAIN = 2.0
"""Seconds between two looks at runs that others are at work on."""
RANKS = ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "LOCAL_RANK", "RANK", "WORLD_SIZE")
"""What numbers the processes of a run; a process that is started here is the first of its run."""
ENOUGH_DISK = 200 << 20
"""Bytes that must be free for a study to go on after a run has failed."""


def prepare(study: Study, recipe: Recipe) -> int:
    """Make or check the recipe's data in processes of their own, before any run starts; return an exit code."""
    if recipe.over(study).module is not None:
        return _prepare(recipe, ["check", str(study.path), str(recipe.files[0])])
    parts = [recipe, recipe.with_clip(STILLS)] if recipe.known.stills else [recipe]
    words = [["prepare", *(f"--config={file}" for file in part.files)] for part in parts]
    return next((code for of_part in words if (code := _prepare(recipe, of_part))), 0)


def _prepare(recipe: Recipe, words: list[str]) -> int:
    process = start([*WORKER, *words], os.environ, None)
    with stopping(lambda: [process]):
        code = process.wait()
        kill_session(process)  # a pool whose owner was killed
    if code < 0 or code in (130, 143):
        say(f"preparing the data of recipe {recipe.name} {how_it_ended(code)}; the same command goes on from here")
        return 1
    return code


def shares(workers: int) -> list[dict[str, str]]:
    """Environment variables that keep each worker to an even part of the cores and GPUs; scarce GPUs are shared."""
    # More threads than cores would only wait for each other. A number that the user has set has a reason.
    threads = {"OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // workers))}
    if not (gpus := _gpus()):
        return [threads] * workers
    each = max(1, len(gpus) // workers)
    of_worker = [[gpus[(worker * each + i) % len(gpus)] for i in range(each)] for worker in range(workers)]
    return [{**threads, "CUDA_VISIBLE_DEVICES": ",".join(own)} for own in of_worker]


def _gpus() -> list[str]:
    """The GPUs that this process may use, by number or name; without asking torch, which takes seconds."""
    if (named := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [gpu for gpu in named.split(",") if gpu.strip()]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]


# ------------------------------------------------------------------------------------------------------- runs


def run_all(
    runs: Sequence[Run],
    workers: int,
    console: Console,
    after_each: Callable[[Run], None],
    environment: Callable[[Run], Mapping[str, str]] = lambda run: os.environ,
) -> list[Run]:
    """Bring every run to its record, `workers` at a time, and return those that failed.

    A run waits for the run that it starts from; if that one fails, it counts as failed too. What others are at work on
    is waited for, and taken over if they are gone.

    Args:
        runs: in the order to start them; those that have their record already are skipped.
        workers: see :func:`shares`.
        console: where the bars and what is said go.
        after_each: called when a run has got its record.
        environment: of a run's process.

    Raises:
        UserError: the disk is full. Runs that were at work then have ended.
        Stopped: told to stop. The runs have been stopped too, and go on from their last checkpoint next time.
    """
    queue = _Queue([run for run in runs if _look(run).name != "done"], console, after_each)
    if skipped := len(runs) - len(queue.waiting):
        console.print(f"{skipped} of {len(runs)} runs are done already")
    columns = (BarColumn(), TaskProgressColumn(), TimeElapsedColumn(), "left", TimeRemainingColumn())
    free: list[Mapping[str, str]] = [*shares(workers)]
    active: list[_Active] = []
    with (
        bars(*columns, console=console, speed_estimate_period=600) as shown,
        stopping(lambda: [one.process for one in active]),
    ):
        whole = shown.add_task("all runs", total=sum(run.weight for run in queue.waiting))
        while active or (queue.waiting and queue.full_disk is None):
            while free and (run := queue.next_ready()) is not None:
                try:
                    process = _start(run, {**environment(run), **free[0]})
                except (OSError, UserError) as error:
                    queue.failed_because(run, mistake(error) or str(error))
                else:
                    active.append(_Active(run, process, shown.add_task(run.name, total=1), free.pop(0)))
            time.sleep(PAUSE)
            for one in list(active):
                shown.update(one.bar, completed=one.run.said().share_done)
                if one.process.poll() is not None:
                    active.remove(one)
                    shown.remove_task(one.bar)
                    free.append(one.share)
                    queue.conclude(one.run, one.process.returncode)
            shown.update(
                whole, completed=queue.weight_ended + sum(one.run.said().share_done * one.run.weight for one in active)
            )
    if queue.full_disk is not None:
        raise UserError(queue.full_disk)
    return queue.failed


def _look(run: Run) -> State:
    """Where a run stands. One whose record can't be read is run again; the record is then moved aside."""
    try:
        return run.state()
    except (UserError, OSError) as error:
        return State("missing", visible(error))


class _Queue:
    """Runs that wait, those that failed, and which may start next."""

    def __init__(self, waiting: list[Run], console: Console, after_each: Callable[[Run], None]) -> None:
        self.waiting, self.console, self.after_each = waiting, console, after_each
        self.failed: list[Run] = []
        self.unfinished = {(run.variant.name, run.seed) for run in waiting}
        self.weight_ended = 0
        self.look_again = 0.0
        self.named: set[str] = set()
        self.full_disk: str | None = None
        """Why no more runs are started, if so."""

    def next_ready(self) -> Run | None:
        """The next run to start; None if there is none now. What others have brought to its record is ended here."""
        if time.monotonic() < self.look_again or self.full_disk is not None:
            return None
        for run in list(self.waiting):
            state = _look(run)
            if state.name == "done":
                self.waiting.remove(run)
                self._ended(run, well=True)
            elif state.name == "running":
                self._say_once(f"{run.name} is left to {state.note}")
            elif self._has_parent(run):
                self.waiting.remove(run)
                return run
        self.look_again = time.monotonic() + LOOK_AGAIN
        return None

    def _has_parent(self, run: Run) -> bool:
        """Whether the run that this one starts from, if any, has ended, here or with others."""
        if (run.variant.init_from, run.seed) in self.unfinished:
            return False
        parent = run.parent
        if parent is None or _look(parent).name == "done":
            return True
        self._say_once(f"{run.name} waits for {parent.name}, which it starts from")
        return False

    def _say_once(self, line: str) -> None:
        if line not in self.named:
            self.named.add(line)
            self.console.print(line, soft_wrap=True)

    def conclude(self, run: Run, code: int) -> None:
        """A run's process has ended with this code."""
        if code == HELD:  # another process was faster
            self.waiting.insert(0, run)
        elif _look(run).name == "done":
            self._ended(run, well=True)
        else:
            self.failed_because(run, run.said().error or how_it_ended(code))

    def failed_because(self, run: Run, why: object) -> None:
        self._ended(run, well=False)
        self.console.print(f"{run.name} failed", style="red", end="")
        self.console.print(f": {visible(why)[:1000]} (log: {visible(run.log)})", soft_wrap=True)
        with contextlib.suppress(OSError):
            if (free := shutil.disk_usage(run.results).free) < ENOUGH_DISK:
                self.full_disk = (
                    f"only {free >> 20} MiB are free where {run.results} lies; "
                    "free some and call again, it goes on from here"
                )

    def _ended(self, run: Run, well: bool) -> None:
        self.look_again = 0.0
        self.weight_ended += run.weight
        if well:
            self.unfinished.remove((run.variant.name, run.seed))
            self.after_each(run)
            return
        # Its name stays among the unfinished, so that nothing that starts from it ever becomes ready.
        self.failed.append(run)
        for child in [w for w in self.waiting if (w.variant.init_from, w.seed) == (run.variant.name, run.seed)]:
            self.waiting.remove(child)
            self._ended(child, well=False)


@dataclass
class _Active:
    """A run that is being executed: its process, its bar and its share of the machine."""

    run: Run
    process: Process
    bar: TaskID
    share: Mapping[str, str]


def _start(run: Run, environment: Mapping[str, str]) -> Process:
    run.log.parent.mkdir(parents=True, exist_ok=True)
    first = {key: value for key, value in environment.items() if key not in RANKS}
    with run.log.open("ab") as log:
        return start([*WORKER, "run", *run.identity()], first, log)
