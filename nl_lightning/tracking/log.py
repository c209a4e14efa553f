"""What a run tells W&B, and what W&B knows of a run. No torch here.

A run tells its curves, its configuration as flat columns, and, when its record has been filed, the record. That, the
account and W&B's own version is all that leaves the machine: see :data:`PRIVATE`. W&B is never the source of truth: a
W&B run without a record in its summary isn't finished, whatever its state says there.
"""

import contextlib
import dataclasses
import json
import netrc
import os
from typing import Any
from urllib.parse import urlsplit

import wandb
import wandb.sdk.launch  # wandb.init imports it: after torch, that takes 1.9 s in place of 0.3
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from nl_lightning.errors import Stopped, UserError, by_force, one_line, say
from nl_lightning.study.border import shown
from nl_lightning.study.records import Record, parse_record, portable
from nl_lightning.study.run import Run, state_by_record
from nl_lightning.tracking.offline import ODD, listed
from nl_lightning.tracking.sweeps import PROJECT

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
"""W&B's settings by which output, code, host and environment stay here."""

PATIENCE = {
    "init_timeout": 30,  # to answer, before a run goes on without it
    "finish_timeout": 180,  # to take what is left when a run ends: after it was away, W&B tries at growing intervals
}
"""Seconds that a server has."""


def begin(run: Run) -> "wandb.Run":
    """Start, or go on with, the W&B run of a run: offline if nobody is logged in or the server can't be used.

    Under a W&B agent it is the agent's run; else one that belongs to this run, the same at every attempt.
    """
    if "WANDB_MODE" not in os.environ and not logged_in():
        os.environ["WANDB_MODE"] = "offline"
    started = _start(run)
    run.note_wandb(started.id, started.sweep_id)
    return started


def _project() -> str:
    return os.environ.get("WANDB_PROJECT", PROJECT)


def repeat(run: Run, record: Record, first: str) -> None:
    """Finish the agent's W&B run at once with the numbers that the run has already, marked as a repeat of the `first`.

    If it is itself the first, whose record was filed before W&B heard of it, it is no repeat.
    """
    started = _start(run)
    if first != started.id:
        started.tags = (*(started.tags or ()), "repeat")
        started.summary["repeat_of"] = first
    end(record)


def refuse(line: str) -> None:
    """Finish the agent's W&B run as failed, with the line that says why: or it would stay pending for ever."""
    _start().summary["error"] = line
    _finish(2)


def leave_out(line: str) -> None:
    """Finish the agent's W&B run at once, with the line that says why there is nothing to run."""
    started = _start()
    started.tags = (*(started.tags or ()), "left out")
    started.summary["left_out"] = line
    _finish(0)


def find_record(run: Run) -> tuple[Record, str] | None:
    """The record of this very run in the W&B project, where another machine may have put it, and its W&B run.

    What the project has is believed only if it is a sound record of this run. Else a line says why it isn't used, and
    the result is None.
    """
    if os.environ.get("WANDB_MODE", "online") != "online" or not logged_in():
        return None
    path = "/".join(filter(None, (os.environ.get("WANDB_ENTITY"), _project())))
    wanted = {"config.config_hash": run.config_hash, "state": "finished"}
    try:
        found = listed(path, wanted, PATIENCE["init_timeout"])
    except (wandb.Error, WandbApiFailedError, OSError, *ODD):  # no server, or no such project yet: `begin` will say so
        return None
    for one in sorted((one for one in found if one.record is not None), key=lambda one: one.repeat):
        try:
            return _record_of(run, one.record, f"W&B run {path}/{one.id}"), one.id
        except UserError as error:
            say(f"{error}; it isn't used, {run.name} is trained")
    return None


def _record_of(run: Run, text: object, at: str) -> Record:
    """The record in what a server gave as one. UserError if it isn't that of the run which was asked for."""
    if not isinstance(text, str):
        raise UserError(f"{at}: record: expected a text, got {shown(text)}")
    record = parse_record(text, at)
    asked = {"recipe": run.base.name, "variant": run.variant.name, "seed": run.seed, "config_hash": run.config_hash}
    for key, value in asked.items():
        if getattr(record, key) != value:
            raise UserError(f"{at}: its record is of {key} {getattr(record, key)}, not {value}")
    state = state_by_record(run.study, run.base, run.variant.name, run.seed, record)
    if state.name != "done":
        raise UserError(f"{at}: its record is {state.name}: {state.note}")
    return record


def settings() -> wandb.Settings:
    """Our settings of W&B; WANDB_<NAME> in the environment overrides each of them."""
    ours = {key: value for key, value in {**PRIVATE, **PATIENCE}.items() if f"WANDB_{key.upper()}" not in os.environ}
    return wandb.Settings(silent=True, **ours)


def _start(run: Run | None = None) -> "wandb.Run":
    """Start the W&B run that the agent has, or start or go on with that of a run, by our settings."""
    kwargs: dict[str, Any] = {"project": _project(), "resume": "allow", "settings": settings()}
    if run is not None:
        kwargs |= {
            "id": os.environ.get("WANDB_RUN_ID") or run.wandb.id or run.config_hash,
            "name": run.name,
            "group": run.study.name,
            "job_type": run.base.name,
            "tags": [table.name[:64] for table in run.study.tables.values() if run.variant.name in table.variants],
            "config": portable({**run.columns(), "config": run.recipe.config}),
            "dir": run.folder,
        }
    try:
        return wandb.init(**kwargs)
    except wandb.Error as error:
        say(f"W&B: {one_line(error, 200)}: going on offline; 'wandb sync' sends it later")
    wandb.teardown()  # its service holds on to what has failed
    return wandb.init(**kwargs, mode="offline")


def end(record: Record) -> None:
    """File the record in the summary of the W&B run, and finish that."""
    if wandb.run is not None:
        wandb.run.summary.update({"record": json.dumps(dataclasses.asdict(record)), **record.scores})
        _finish(0)


def end_without_record(error: BaseException) -> None:
    """Finish the W&B run as failed, or, if its process was told to make room, as preempted: it is to be run again."""
    if wandb.run is None:
        return
    with contextlib.suppress(OSError):  # a cluster may have ended W&B's own process first; that isn't why the run ends
        if isinstance(error, Stopped) and error.preempted:
            wandb.run.mark_preempting()
        _finish(error.exit_code if isinstance(error, Stopped) else 1)


def _finish(code: int) -> None:
    """Finish the W&B run. The results are filed: if W&B waits for ever, as for its killed process, this one ends."""
    limit = by_force(PATIENCE["finish_timeout"] + 60, code)
    try:
        wandb.finish(exit_code=code)
    finally:
        limit.cancel()


def logged_in() -> bool:
    """Whether there is a key for the W&B server, so that a run can be online without asking a question."""
    if os.environ.get("WANDB_API_KEY") or os.environ.get("WANDB_IDENTITY_TOKEN_FILE"):
        return True
    try:
        server = urlsplit(wandb.setup().settings.base_url).netloc
    except (wandb.Error, ValueError) as error:
        raise UserError(f"W&B's settings: {one_line(error, 300)}") from None
    # wandb 0.31 calls the public service by a new name, and reads keys that older ones filed under the old name.
    names = [server] if "WANDB_BASE_URL" in os.environ else [server, "api.wandb.ai"]
    try:
        known = netrc.netrc(os.environ.get("NETRC"))
    except (OSError, ValueError, netrc.NetrcParseError):
        return False
    return any(known.authenticators(name) is not None for name in names)
