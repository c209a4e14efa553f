"""What a run tells W&B, and what W&B knows of a run. No torch here.

A run tells its curves, its configuration as flat columns, and, when its record has been filed, the record. That, the
account and W&B's own version is all that leaves the machine: see :data:`PRIVATE`. W&B is never the source of truth: a
W&B run without a record in its summary isn't finished, whatever its state says there.
"""

import dataclasses
import json
import netrc
import os
import sys
from typing import Any

import wandb

from nl_lightning.records import RunRecord, portable
from nl_lightning.runner import Run
from nl_lightning.signals import Stopped

PRIVATE: dict[str, Any] = {
    "console": "off",
    "disable_git": True,
    "disable_code": True,
    "host": "",
    "program": "nl-lightning",
    "x_disable_machine_info": True,
    "x_disable_meta": True,
    "x_disable_stats": True,
    "x_save_requirements": False,
}
"""W&B's settings by which output, code, host and environment stay here; WANDB_<NAME> in the environment overrides."""

PATIENCE = 30
"""Seconds that a server has to answer before a run goes on without it."""


def begin(run: Run) -> "wandb.Run":
    """Start, or go on with, the W&B run of a run: offline if nobody is logged in or the server can't be used.

    Under a W&B agent it is the agent's run; else one that belongs to this run, the same at every attempt.
    """
    if "WANDB_MODE" not in os.environ and not logged_in():
        os.environ["WANDB_MODE"] = "offline"
    started = _init(
        project=os.environ.get("WANDB_PROJECT", "nl-lightning"),
        id=os.environ.get("WANDB_RUN_ID") or run.wandb.get("id") or run.config_hash,
        name=run.name,
        group=run.study.name,
        job_type=run.base.name,
        tags=run.tables(),
        config={**run.columns(), "config": portable(run.recipe.config)},
        dir=run.folder,
    )
    run.note_wandb(started.id, started.sweep_id)
    return started


def _init(**kwargs: Any) -> "wandb.Run":
    asked = {key for key in PRIVATE if f"WANDB_{key.upper()}" in os.environ}
    private = {key: value for key, value in PRIVATE.items() if key not in asked}
    kwargs |= {"resume": "allow", "settings": wandb.Settings(silent=True, init_timeout=PATIENCE, **private)}
    try:
        return wandb.init(**kwargs)
    except wandb.Error as error:
        reason = " ".join(str(error).split())[:200]
        print(f"nl-lightning: W&B: {reason}: going on offline; 'wandb sync' sends it later", file=sys.stderr)
    return wandb.init(**kwargs, mode="offline")


def end(record: RunRecord) -> None:
    """File the record in the summary of the W&B run, and finish that."""
    if wandb.run is not None:
        wandb.run.summary.update(_summary(record))
        wandb.finish()


def _summary(record: RunRecord) -> dict[str, Any]:
    return {"record": json.dumps(dataclasses.asdict(record)), "top1": record.top1, "top5": record.top5}


def end_without_record(error: BaseException) -> None:
    """Finish the W&B run as failed, or, if its process was told to make room, as preempted: it is to be run again."""
    code = error.exit_code if isinstance(error, Stopped) else 1
    if wandb.run is not None:
        if isinstance(error, Stopped) and error.preempted:
            wandb.run.mark_preempting()
        wandb.finish(exit_code=code)


def logged_in() -> bool:
    """Whether there is a key for the W&B server, so that a run can be online without asking a question."""
    if os.environ.get("WANDB_API_KEY"):
        return True
    host = os.environ.get("WANDB_BASE_URL", "https://api.wandb.ai").split("://")[-1].split("/")[0].split(":")[0]
    try:
        return netrc.netrc(os.environ.get("NETRC")).authenticators(host) is not None
    except (OSError, netrc.NetrcParseError):
        return False
