"""Variants x seeds -> records: in the order that `init_from` asks for, skipping what is done, several at a time.

This file only plans, starts and watches; each run is a process of its own (:mod:`nl_lightning.execution`), so that
nothing here needs torch, and a run that dies takes nothing with it.
"""

import functools
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from nl_lightning.errors import UserError
from nl_lightning.records import State, marker_path, state, write_atomically
from nl_lightning.study import Recipe, Study, Variant, run_hash

EXECUTE = [sys.executable, "-m", "nl_lightning.execution"]
CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""Where a run's newest weights lie, below its folder."""
ENOUGH_DISK = 200 << 20
"""Bytes that must be free for a study to go on after a run has failed."""


@dataclass(frozen=True)
class Run:
    """A variant under a recipe from a seed: what becomes one record.

    Attributes:
        study: what it is part of.
        variant: the network.
        base: the recipe, without what it changes for the variant's clip.
        seed: of weights, sample order and augmentation.
        results: folder of records, predictions, tables and runs.
    """

    study: Study
    variant: Variant
    base: Recipe
    seed: int
    results: Path

    @functools.cached_property
    def recipe(self) -> Recipe:
        return self.base.with_clip(self.variant.clip)

    @functools.cached_property
    def config_hash(self) -> str:
        return run_hash(self.study, self.base, self.variant.name, self.seed)

    def state(self) -> State:
        return state(self.results, self.study, self.base, self.variant.name, self.seed)

    def is_done(self) -> bool:
        return self.state().name == "done"

    @property
    def name(self) -> str:
        return f"{self.variant.name} seed {self.seed}"

    @property
    def folder(self) -> Path:
        return self.marker.parent

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    @property
    def parent_checkpoint(self) -> Path | None:
        if self.variant.init_from is None:
            return None
        parent = Run(self.study, self.study.variant(self.variant.init_from), self.base, self.seed, self.results)
        return parent.checkpoint

    @property
    def predictions(self) -> Path:
        folder = self.results / "predictions" / self.recipe.name / self.variant.name
        return folder / f"seed{self.seed}.{self.config_hash}.parquet"

    def arguments(self) -> list[str]:
        """What ``nl-lightning fit`` and ``test`` take: the recipe's files, then what the variant adds."""
        arguments = [f"--config={file}" for file in self.recipe.files]
        arguments += [f"--seed_everything={self.seed}", *self.variant.arguments()]
        if self.parent_checkpoint is not None:
            arguments.append(f"--model.init_from={self.parent_checkpoint}")
        return [
            *arguments,
            f"--model.predictions={self.predictions}",
            f"--trainer.default_root_dir={self.folder}",
        ]

    def commands(self) -> list[str]:
        """The commands by which a person would do the same, without the record."""
        arguments = shlex.join(self.arguments())
        return [
            f"nl-lightning fit {arguments}",
            f"nl-lightning test {arguments} --ckpt_path={self.checkpoint}",
        ]

    def tables(self) -> list[str]:
        """The tables of the study with a row of this variant."""
        tables = self.study.tables.values()
        return [t.name for t in tables if self.variant.name in {row.variant for row in t.rows}]

    def columns(self) -> dict[str, str | int]:
        """Flat columns that make W&B's own table of runs readable."""
        return {
            **self.variant.columns(),
            "study": self.study.name,
            "recipe": self.base.name,
            "seed": self.seed,
            "frames": self.recipe.config["data"]["num_frames"],
            "config_hash": self.config_hash,
        }

    def wandb_id(self) -> str:
        """The same for a run that is resumed, another for a changed configuration or seed."""
        return self.config_hash

    @property
    def log(self) -> Path:
        """Everything that the run printed."""
        return self.folder / "log.txt"

    @property
    def weight(self) -> int:
        """How much of the study's time it takes, roughly: for the bar of the whole study."""
        return int(self.variant.net["depth"])

    def identity(self) -> list[str]:
        """What names this run to :mod:`nl_lightning.execution`."""
        return [
            str(self.study.path), self.variant.name, str(self.base.files[0]), str(self.seed), str(self.results)
        ]  # fmt: skip

    @property
    def marker(self) -> Path:
        """Where the run says how far it is; see :func:`nl_lightning.records.state`."""
        return marker_path(self.results, self.base.name, self.variant.name, self.seed)

    def say(self, state: str, **more: Any) -> None:
        """Mark the run as ``running``, in this process, or as ``failed``."""
        said = {"state": state, "pid": os.getpid(), "host": platform.node(), "config_hash": self.config_hash}
        write_atomically(self.marker, json.dumps(said | more), durable=False)  # written every second

    def said(self) -> dict[str, Any]:
        """What the run's marker says, or nothing."""
        try:
            said = json.loads(self.marker.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return said if isinstance(said, dict) else {}

    def prepare_folder(self) -> None:
        """Make the run's folder; one left by another configuration is moved aside, never overwritten."""
        left = self.said().get("config_hash", self.config_hash)
        if left != self.config_hash:
            self.folder.rename(self.folder.with_name(f"{self.folder.name}.{left}.{int(time.time())}"))
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)


def plan(
    study: Study,
    recipe: Recipe,
    seeds: Sequence[int],
    results: Path,
    tables: Sequence[str] | None = None,
    variants: Sequence[str] | None = None,
) -> list[Run]:
    """The selected runs of a study, done or not, in the order to run them: all variants of a seed, then the next."""
    selected = study.select(tables, variants)
    return [
        Run(study, study.variant(name), recipe, seed, results) for seed in dict.fromkeys(seeds) for name in selected
    ]


def prepare(recipe: Recipe) -> int:
    """Make or check the recipe's data before any run starts, in a process of its own; return its exit code."""
    files = [f"--config={file}" for file in recipe.files]
    return subprocess.run([*EXECUTE, "prepare", *files], check=False).returncode


def run_all(runs: Sequence[Run], workers: int, console: Console, after_each: Callable[[Run], None]) -> list[Run]:
    """Bring every run to its record, `workers` at a time, and return those that failed.

    A run waits for the run that it starts from; if that one fails, it counts as failed too. Interrupted (Ctrl-C or
    SIGTERM), it stops the runs at their last checkpoint and raises KeyboardInterrupt.

    Args:
        runs: in the order to start them; those that have their record already are skipped.
        workers: how many at a time; they share the cores evenly.
        console: where the bars and a line a finished run go.
        after_each: called when a run has got its record.

    Raises:
        UserError: another process is at work on one of the runs, or the disk is full.
    """
    for run in runs:
        now = run.state()
        if now.name == "running":
            raise UserError(f"{run.name} is being run already ({now.note}): wait for it, or stop that process")
    queue = _Queue([run for run in runs if not run.is_done()])
    skipped = len(runs) - len(queue.waiting)
    if skipped:
        console.print(f"{skipped} of {len(runs)} runs are done already")
    columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:3.0f}%"),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell starts what runs in the background with SIGINT ignored
        signal.signal(number, signal.default_int_handler)
    active: list[_Active] = []
    with Progress(*columns, console=console, speed_estimate_period=600) as bars:
        whole = bars.add_task("all runs", total=sum(run.weight for run in queue.waiting))
        try:
            while queue.waiting or active:
                while len(active) < workers and (ready := queue.next_ready()) is not None:
                    active.append(_Active(ready, _start(ready, workers), bars.add_task(ready.name, total=1)))
                time.sleep(0.3)
                for worker in list(active):
                    bars.update(worker.bar, completed=worker.share_done())
                    if worker.process.poll() is not None:
                        active.remove(worker)
                        bars.remove_task(worker.bar)
                        _conclude(worker, queue, console, after_each)
                bars.update(whole, completed=queue.weight_ended + sum(w.share_done() * w.run.weight for w in active))
        finally:
            _stop(active)
    return queue.failed


class _Queue:
    """Runs that wait, those that failed, and which may start next."""

    def __init__(self, waiting: list[Run]) -> None:
        self.waiting = waiting
        self.failed: list[Run] = []
        self.unfinished = {(run.variant.name, run.seed) for run in waiting}
        self.weight_ended = 0

    def next_ready(self) -> Run | None:
        for run in self.waiting:
            if (run.variant.init_from, run.seed) not in self.unfinished:
                self.waiting.remove(run)
                return run
        return None

    def ended(self, run: Run, well: bool) -> None:
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

    def share_done(self) -> float:
        """0 to 1, from the state file; testing is the last twentieth."""
        state = self.run.said()
        share = float(state.get("done", 0)) / max(1, int(state.get("total", 1)))
        return {"train": 0.95 * share, "test": 0.95 + 0.05 * share}.get(state.get("phase", ""), 0.0)


def _start(run: Run, workers: int) -> "subprocess.Popen[bytes]":
    threads = max(1, (os.cpu_count() or 1) // workers)
    run.prepare_folder()
    with run.log.open("ab") as log:
        return subprocess.Popen(
            [*EXECUTE, "run", *run.identity()],
            stdout=log,
            stderr=log,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            start_new_session=True,  # a Ctrl-C reaches it once, through _stop
        )


def _conclude(worker: _Active, queue: _Queue, console: Console, after_each: Callable[[Run], None]) -> None:
    run, well = worker.run, worker.run.is_done()
    queue.ended(run, well)
    if well:
        after_each(run)
        return
    error = run.said().get("error", f"ended with exit code {worker.process.returncode}")
    console.print(f"[red]{run.name} failed[/]: {error} (log: {run.log})", highlight=False)
    free = shutil.disk_usage(run.folder).free
    if free < ENOUGH_DISK:
        raise UserError(
            f"only {free >> 20} MiB are free where {run.results} lies; free some and call again, it goes on from here"
        )


def _stop(active: Sequence[_Active]) -> None:
    for worker in active:
        worker.process.send_signal(signal.SIGINT)
    for worker in active:
        try:
            worker.process.wait(timeout=30)
        except subprocess.TimeoutExpired:
            worker.process.kill()
