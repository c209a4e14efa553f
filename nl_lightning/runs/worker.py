"""The process of one run: its lock, its signals, its last word and its exit code.

``python -m nl_lightning.runs.worker run STUDY VARIANT RECIPE SEED RESULTS`` is what ``nl-lightning run`` and a job of a
cluster start. The lock is taken before anything slow is imported. So if several processes begin the same run together,
all but one end at once.
"""

import contextlib
import os
import sys
from typing import TYPE_CHECKING

from nl_lightning.errors import Stopped, UserError, by_force, mistake, say, stop_on_signals
from nl_lightning.runs.processes import HELD, end_with_parent, leave_no_children

LAST_SECONDS = 60
"""That libraries have when everything is done. What they wait for may have been killed: W&B's own process was seen."""

if TYPE_CHECKING:
    from nl_lightning.study.lock import Lock
    from nl_lightning.study.run import Run


def main(arguments: list[str]) -> int:
    """``run`` and :meth:`Run.identity` executes a run; ``prepare --config=FILE ...`` makes a recipe's data.

    ``check STUDY RECIPE`` imports the classes that these name, checks each variant's settings, and makes the data.

    Returns:
        0: the run has its record, or the data is there. 75: another process is at work on it. 130, 143: told to stop.
        2: the user's mistake. (An exception is the fifth way out.)
    """
    stop_on_signals()
    verb, *rest = arguments
    try:
        if verb == "check":
            return _check(*rest)
        return _prepare(rest) if verb == "prepare" else _run(*rest)
    except Stopped as stopped:
        return stopped.exit_code
    except Exception as error:
        return _exit_code(error, None)


def _run(*identity: str) -> int:
    from nl_lightning.study.lock import acquire
    from nl_lightning.study.run import identified

    run = identified(*identity)
    # torchrun, Slurm and Lightning give the processes of a run numbers; the one of number 0 speaks for it.
    ranks = (os.environ[name] for name in ("RANK", "SLURM_PROCID", "LOCAL_RANK") if name in os.environ)
    if int(next(ranks, 0)) > 0:
        return _execute(run, None)
    held = acquire(run.folder)
    if held is None:
        say(f"{run.name} is left to {run.state().note or 'another process'}")
        return HELD
    with held:
        if run.is_done():
            return 0
        return _execute(run, held)


def _execute(run: "Run", held: "Lock | None") -> int:
    """Execute a run; if it ends without a record, its marker says why."""
    from nl_lightning.tracking import log as tracking  # takes seconds, and so does torch
    from nl_lightning.train.execute import execute

    try:
        if held is not None:
            run.prepare_folder()
        execute(run, held, tracking)
    except BaseException as error:
        _say_why(run, held, error)
        tracking.end_without_record(error)  # last: without a server, it may take longer than there is time
        return _exit_code(error, held)
    return 0


def _say_why(run: "Run", held: "Lock | None", error: BaseException) -> None:
    """Say in the run's marker why it ends. The marker of a lost lock is another process's; a full disk takes none."""
    if held is None or held.lost:
        return
    with contextlib.suppress(UserError):
        if isinstance(error, Stopped) and error.preempted:
            run.say("preempted")
        elif isinstance(error, Exception):
            run.say("failed", error=mistake(error) or f"{type(error).__name__}: {error}".splitlines()[0])


def _exit_code(error: BaseException, held: "Lock | None") -> int:
    """See :func:`main`; raises what is nobody's mistake."""
    if isinstance(error, Exception) and held is not None and held.lost:
        return HELD  # the run, and its marker, are another process's now
    line = mistake(error)
    if line is None:
        raise error
    say(line)
    return 2


def _prepare(files: list[str]) -> int:
    """Make a recipe's data and check its lists."""
    from nl_lightning.train.lightning_cli import data_of  # takes seconds: torch

    data = data_of(files)
    data.prepare_data()
    for stage in ("fit", "test"):
        data.setup(stage)
    return 0


def _check(study: str, recipe: str) -> int:
    """See that every variant of another LightningModule can be run, before one of them is."""
    from pathlib import Path

    from nl_lightning.study.loading import load_study
    from nl_lightning.study.recipe import load_recipe
    from nl_lightning.train.modules import check_variants

    check_variants(load_study(Path(study)), load_recipe(recipe))
    return 0


if __name__ == "__main__":
    leave_no_children()
    end_with_parent()
    status = 1
    try:
        status = main(sys.argv[1:])
    finally:
        by_force(LAST_SECONDS, status)
    sys.exit(status)
