"""``nl-lightning run`` as the command of a W&B sweep's agent: one point of the sweep, measured once, by somebody.

A point whose run has its record, here or in the W&B project, ends at once as a repeat; one that can't be, as left out.
Otherwise the run is brought to its record, after the one that it starts from; and then whatever another agent of the
sweep began and left behind when its machine went away. Nothing is read from W&B's configuration: the point is on the
command line.
"""

import os
from collections.abc import Callable, Mapping, Sequence

from nl_lightning.errors import UserError, visible
from nl_lightning.study.records import write_record
from nl_lightning.study.run import Run, begun
from nl_lightning.study.study import LeftOut

Environment = Callable[[Run], Mapping[str, str]]
Bring = Callable[[Sequence[Run], Environment], Sequence[Run]]
"""Brings runs to their records in environments, and returns those that failed."""


def is_present() -> bool:
    """Whether this process is the command of an agent."""
    return "WANDB_SWEEP_ID" in os.environ


def run_point(planned: Callable[[], Sequence[Run]], bring: Bring) -> int:
    """Bring the point to its record; return an exit code. `planned` gives the runs that it needs, its own run last."""
    from nl_lightning.tracking import log as tracking  # wandb: most of a second

    try:
        runs = planned()
    except LeftOut as left_out:
        tracking.leave_out(str(left_out))
        print(visible(f"left out: {left_out}"))
        return 0
    own = runs[-1]
    record, first = own.state().record, own.wandb.id or "a record"
    if record is None and (found := tracking.find_record(own)) is not None:
        record, first = found
        try:
            write_record(own.results, record)
        except UserError:
            if not own.is_done():  # else another agent filed it just now
                raise
    if record is not None:
        tracking.repeat(own, record, first)
        print(visible(f"{own.name} is done already: {record.outcome(own.study.metric)}"))
        return 0
    # What the point only starts from is no part of the sweep here: its own point may come later, as a second one.
    outside = _without("WANDB_SWEEP_ID", "WANDB_RUN_ID", "WANDB_SWEEP_PARAM_PATH")
    failed = list(bring(runs, lambda run: os.environ if run == own else outside))
    told = (own.wandb.id or "") == os.environ.get("WANDB_RUN_ID", own.wandb.id)
    if own in failed and not told:  # it didn't come as far as telling W&B
        tracking.refuse(own.said().error or f"see {own.log}")
    elif (record := own.state().record) is not None and not told:
        tracking.repeat(own, record, own.wandb.id or "a record")  # another agent's process was at it all the while
    for left in begun(own.study, own.base, own.results):
        if left.wandb.sweep == os.environ["WANDB_SWEEP_ID"] and left.state().name == "interrupted":
            failed += bring([left], _as_begun)
    return 1 if failed else 0


def _without(*names: str) -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if name not in names}


def _as_begun(run: Run) -> dict[str, str]:
    """For a run of the sweep that another agent began: the same W&B run goes on."""
    return _without("WANDB_SWEEP_PARAM_PATH") | {"WANDB_RUN_ID": run.wandb.id or run.config_hash}
