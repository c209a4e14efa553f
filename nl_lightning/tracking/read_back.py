"""Which W&B runs count for a study: those with a sound record of today's configuration, each run once.

The tables are made from these records as from those in a results folder. All other W&B runs are listed.
"""

from collections.abc import Sequence
from typing import Any

import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from nl_lightning.errors import UserError, visible
from nl_lightning.report.collate import Runs, collect_records
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.records import parse_record
from nl_lightning.study.run import state_by_record
from nl_lightning.study.study import Study
from nl_lightning.tracking.offline import WandbRun

STALE = "made with another configuration"
REPEAT = "repeats a run that counts already"
DOUBLED = "doubled: another W&B run of the same finished first"


def select(study: Study, recipe: Recipe, found: Sequence[WandbRun]) -> tuple[Runs, pd.DataFrame]:
    """The runs of a study from W&B's, and those that were left out: ``id``, ``name``, ``why``.

    Of several measurements of a run, the one that was finished first counts. UserError if some that were tested
    differently would be compared.
    """
    lines = pd.DataFrame([_line(study, recipe, run) for run in found])
    lines = lines.sort_values(["repeat", "finished", "id"])
    counting = lines["why"] == ""
    again = counting & lines[counting].duplicated(["variant", "seed"]).reindex(lines.index, fill_value=False)
    lines.loc[again, "why"] = lines["repeat"].map({True: REPEAT, False: DOUBLED})
    # A stale record is shown as such in the tables, where there is none of today's.
    usable = pd.concat([lines[lines["why"] == ""], lines[lines["why"] == STALE]]).drop_duplicates(["variant", "seed"])
    records = {(record.variant, record.seed): record for record in usable["record"]}
    ids = dict(zip(records, usable["id"], strict=True))
    runs = collect_records(study, recipe, records, lambda record: f"W&B run {ids[record.variant, record.seed]}")
    return runs, lines.loc[lines["why"] != "", ["id", "name", "why"]].sort_values(["why", "name", "id"])


def _line(study: Study, recipe: Recipe, run: WandbRun) -> dict[str, Any]:
    """A run as a line: what it measured, and why it doesn't count; empty if it does, as far as it alone can tell."""
    line: dict[str, Any] = {"id": run.id, "name": run.name, "repeat": run.repeat, "record": None, "why": ""}
    line |= {"variant": "", "seed": -1, "finished": ""}
    try:
        if run.record is None:
            raise UserError(f"no record: {run.state}")
        if not isinstance(run.record, str):
            raise UserError(f"broken record: expected a text, got {type(run.record).__name__}")
        record = parse_record(run.record, "broken record")
        line |= {"variant": record.variant, "seed": record.seed, "finished": record.finished, "record": record}
        if record.recipe != recipe.name:
            raise UserError(f"of recipe {record.recipe}")
        if record.variant not in study.variants:
            raise UserError(f"of another study ({record.study})")
    except UserError as error:
        return {**line, "why": str(error)[:200]}
    state = state_by_record(study, recipe, record.variant, record.seed, record)
    return {**line, "why": {"done": "", "stale": STALE}.get(state.name, state.note)}


def print_left_out(console: Console, left_out: pd.DataFrame, found: int, most: int = 10) -> None:
    """Print why W&B runs were left out, a line a reason with the names of up to `most`, and last how many."""
    table = Table("left out", "runs", "", box=None, header_style="bold")
    for why, group in left_out.groupby("why"):
        names = [f"{name} ({id_})" for name, id_ in zip(group["name"], group["id"], strict=True)]
        more = f" and {len(names) - most} more" if len(names) > most else ""
        table.add_row(Text(visible(why)), str(len(names)), Text(visible(", ".join(names[:most]) + more)))
    if not left_out.empty:
        console.print(table)
    console.print(f"{len(left_out)} of {found} W&B runs left out", highlight=False)
