"""Variants x seeds -> records: in the order that `init_from` asks for, skipping what is done, several at a time.

This file only plans, starts and watches; each run is a process of its own (:mod:`nl_lightning.runs.worker`), so that
nothing here needs torch, and a run that dies takes nothing with it. Any number of runners, here and on other machines
that share the results folder, can be at work on one study: a run that another one has claimed is left to it.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nl_lightning.errors import Stopped, UserError, stop_on_signals
from nl_lightning.runs.slots import Slots
from nl_lightning.study.run import Run
from nl_lightning.study.study import Recipe

EXECUTE = [sys.executable, "-m", "nl_lightning.runs.worker"]
HELD = 75
"""Exit code of a run's process when another one is at work on the run."""
LOOK_AGAIN = 2.0
"""Seconds between two looks at runs that others are at work on."""
RANKS = ("SLURM_NTASKS", "SLURM_PROCID", "SLURM_LOCALID", "SLURM_NODEID", "LOCAL_RANK", "RANK", "WORLD_SIZE")
"""What numbers the processes of a run; a process that is started here is the first of its run."""
ENOUGH_DISK = 200 << 20
"""Bytes that must be free for a study to go on after a run has failed."""


def prepare(recipe: Recipe) -> int:
    """Make or check the recipe's data before any run starts, in a process of its own; return its exit code."""
    files = [f"--config={file}" for file in recipe.files]
    return subprocess.run([*EXECUTE, "prepare", *files], check=False).returncode


def run_all(
    runs: Sequence[Run],
    workers: int,
    console: Console,
    after_each: Callable[[Run], None],
    environment: Callable[[Run], Mapping[str, str]] = lambda run: os.environ,
) -> list[Run]:
    """Bring every run to its record, `workers` at a time, and return those that failed.

    A run waits for the run that it starts from; if that one fails, it counts as failed too. What others are at work on
    is waited for, and taken over if they are gone. Told to stop, it stops its runs, which go on from their last
    checkpoint next time, and raises :class:`~nl_lightning.errors.Stopped`.

    Args:
        runs: in the order to start them; those that have their record already are skipped.
        workers: how many at a time; they share the cores and GPUs evenly.
        console: where the bars and a line a finished run go.
        after_each: called when a run has got its record.
        environment: the environment variables of a run's process.

    Raises:
        UserError: the disk is full.
    """
    queue = _Queue([run for run in runs if not run.is_done()], console)
    skipped = len(runs) - len(queue.waiting)
    if skipped:
        console.print(f"{skipped} of {len(runs)} runs are done already")
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    stop_on_signals()
    slots = Slots(workers)
    active: list[_Active] = []
    how = signal.SIGINT
    with Progress(*columns, console=console, speed_estimate_period=600) as bars:
        whole = bars.add_task("all runs", total=sum(run.weight for run in queue.waiting))
        try:
            while queue.waiting or active:
                while len(active) < workers and (ready := queue.next_ready(after_each)) is not None:
                    slot = slots.take()
                    process = _start(ready, {**environment(ready), **slots.environment(slot)})
                    active.append(_Active(ready, process, bars.add_task(ready.name, total=1), slot))
                time.sleep(0.3)
                for worker in list(active):
                    bars.update(worker.bar, completed=worker.share_done())
                    if worker.process.poll() is not None:
                        active.remove(worker)
                        bars.remove_task(worker.bar)
                        slots.give_back(worker.slot)
                        _conclude(worker, queue, console, after_each)
                bars.update(whole, completed=queue.weight_ended + sum(w.share_done() * w.run.weight for w in active))
        except Stopped as stopped:
            how = signal.SIGTERM if stopped.preempted else signal.SIGINT
            raise
        finally:
            _stop(active, how)
    return queue.failed


class _Queue:
    """Runs that wait, those that failed, and which may start next."""

    def __init__(self, waiting: list[Run], console: Console) -> None:
        self.waiting, self.console = waiting, console
        self.failed: list[Run] = []
        self.unfinished = {(run.variant.name, run.seed) for run in waiting}
        self.weight_ended = 0
        self.look_again = 0.0
        self.named: set[str] = set()

    def next_ready(self, after_each: Callable[[Run], None]) -> Run | None:
        """The next run to start; None if there is none now. What others have brought to its record is ended here."""
        if time.monotonic() < self.look_again:
            return None
        for run in list(self.waiting):
            state = run.state()
            if state.name == "done":
                self.waiting.remove(run)
                self.ended(run, well=True)
                after_each(run)
            elif state.name == "running":
                self.say_once(f"{run.name} is left to {state.note}")
            elif self.has_parent(run):
                self.waiting.remove(run)
                return run
        self.look_again = time.monotonic() + LOOK_AGAIN
        return None

    def has_parent(self, run: Run) -> bool:
        """Whether the run that this one starts from, if any, has ended, here or with others."""
        if (run.variant.init_from, run.seed) in self.unfinished:
            return False
        parent = run.parent
        if parent is None or parent.state().name == "done":
            return True
        self.say_once(f"{run.name} waits for {parent.name}, which it starts from")
        return False

    def back(self, run: Run) -> None:
        """Another process was faster."""
        self.waiting.insert(0, run)

    def say_once(self, line: str) -> None:
        if line not in self.named:
            self.named.add(line)
            self.console.print(line, highlight=False)

    def ended(self, run: Run, well: bool) -> None:
        self.look_again = 0.0
        self.weight_ended += run.weight
        if well:
            self.unfinished.remove((run.variant.name, run.seed))
            return
        # Its name stays among the unfinished, so that nothing that starts from it ever becomes ready.
        self.failed.append(run)
        for child in [w for w in self.waiting if (w.variant.init_from, w.seed) == (run.variant.name, run.seed)]:
            self.waiting.remove(child)
            self.ended(child, well=False)


@dataclass
class _Active:
    """A run that is being executed: its process and its bar."""

    run: Run
    process: "subprocess.Popen[bytes]"
    bar: TaskID
    slot: int

    def share_done(self) -> float:
        """0 to 1, from the state file; testing is the last twentieth."""
        state = self.run.said()
        share = float(state.get("done", 0)) / max(1, int(state.get("total", 1)))
        return {"train": 0.95 * share, "test": 0.95 + 0.05 * share}.get(state.get("phase", ""), 0.0)


def _start(run: Run, environment: Mapping[str, str]) -> "subprocess.Popen[bytes]":
    run.log.parent.mkdir(parents=True, exist_ok=True)
    ours = {key: value for key, value in environment.items() if key not in RANKS}
    with run.log.open("ab") as log:
        return subprocess.Popen(
            [*EXECUTE, "run", *run.identity()],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env=ours,
            start_new_session=True,  # a Ctrl-C reaches it once, through _stop
        )


def _conclude(worker: _Active, queue: _Queue, console: Console, after_each: Callable[[Run], None]) -> None:
    run, code = worker.run, worker.process.returncode
    if code == HELD:
        queue.back(run)
        return
    well = run.is_done()
    queue.ended(run, well)
    if well:
        after_each(run)
        return
    error = run.said().get("error", f"ended with exit code {code}")
    console.print(f"[red]{run.name} failed[/]: {error} (log: {run.log})", highlight=False)
    free = shutil.disk_usage(run.results).free
    if free < ENOUGH_DISK:
        raise UserError(
            f"only {free >> 20} MiB are free where {run.results} lies; free some and call again, it goes on from here"
        )


def _stop(active: Sequence[_Active], how: signal.Signals) -> None:
    for worker in active:
        worker.process.send_signal(how)
    for worker in active:
        try:
            worker.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            worker.process.kill()
