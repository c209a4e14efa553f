"""A run in a process of its own: its claim, its signals, its last word, its exit code.

``python -m nl_lightning.process run STUDY VARIANT RECIPE SEED RESULTS`` is what the runner starts, and a cluster's
job; the options are theirs. The claim is taken before anything slow is imported, so of several processes that begin
together all but one are gone at once.
"""

import os
import sys

from nl_lightning.claims import Claim, claim
from nl_lightning.errors import UserError, mistake
from nl_lightning.runner import HELD, Run, identified
from nl_lightning.signals import Stopped, stop_on_signals


def main(arguments: list[str]) -> int:
    """``run`` and :meth:`Run.identity` executes a run; ``prepare --config=FILE ...`` makes a recipe's data.

    Returns:
        0: the run has its record, or the data is there. 75: another process is at work on it. 130, 143: told to stop.
        2: the user's mistake. (An exception is the fifth way out.)
    """
    stop_on_signals()
    verb, *rest = arguments
    try:
        return _prepare(rest) if verb == "prepare" else _run(*rest)
    except Stopped as stopped:
        return stopped.exit_code


def _run(*identity: str) -> int:
    run = identified(*identity)
    if _rank() > 0:
        return _execute(run, None)
    held = claim(run.folder)
    if held is None:
        return HELD
    with held:
        if run.is_done():
            return 0
        run.prepare_folder()
        return _execute(run, held)


def _rank() -> int:
    """0 for the process that speaks for the run; Lightning and Slurm give the others of a run their numbers."""
    return int(os.environ.get("LOCAL_RANK", 0)) or int(os.environ.get("SLURM_PROCID", 0))


def _execute(run: Run, held: Claim | None) -> int:
    """Execute a run; if it ends without a record, its marker says why."""
    from nl_lightning.execution import execute  # takes seconds: torch

    try:
        execute(run, held)
    except Stopped as stopped:
        if held is not None and stopped.preempted:
            run.say("preempted")
        raise
    except Exception as error:
        if held is not None and held.lost:
            return HELD  # the run, and its marker, are another process's now
        line = mistake(error)
        if held is not None:
            run.say("failed", error=line or f"{type(error).__name__}: {error}".splitlines()[0])
        if line is None:
            raise
        return 2
    return 0


def _prepare(files: list[str]) -> int:
    """Make a recipe's data and check its lists."""
    from nl_lightning.execution import data_of  # takes seconds: torch

    try:
        data = data_of(files)
        data.prepare_data()
        for stage in ("fit", "test"):
            data.setup(stage)
    except (UserError, OSError) as error:
        line = mistake(error)
        if line is None:
            raise
        print(f"nl-lightning: {line}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
