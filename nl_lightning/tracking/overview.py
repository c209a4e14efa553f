"""``nl-lightning wandb-report``: a study as a report at W&B, and its tables and pictures as media of a run there.

The report is W&B's own (wandb-workspaces, the extra ``[wandb]``): one panel of parallel coordinates over the settings
of all runs, and for each table its measured and reported numbers above a panel with its runs.
"""

import html
from collections.abc import Mapping, Sequence
from pathlib import Path

import wandb
import wandb_workspaces.reports.v2 as wr
from wandb.sdk.lib.service.service_connection import WandbApiFailedError
from wandb_workspaces import expr

from nl_lightning.errors import UserError, one_line
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.study import Study
from nl_lightning.tracking import log

AXES = ("instantiation", "stage", "blocks", "sum_over", "backbone", "depth", "clip")
"""Columns of a variant that the parallel coordinates have, beside its settings, if the study varies them."""
PICTURES = {".png", ".jpg", ".jpeg"}


def overview(study: Study, recipe: Recipe, entity: str, project: str, tables: Mapping[str, str]) -> wr.Report:
    """The report on the project's runs of this recipe, not saved yet. `tables` are Markdown, by the tables' names."""
    columns = [study.columns(name) for name in study.select(None)]
    possible = [*AXES, *(key for key in columns[0] if "." in key)]
    varied = [axis for axis in possible if len({column.get(axis) for column in columns}) > 1]
    metric = wr.SummaryMetric(study.metric.key)
    axes = [wr.ParallelCoordinatesPlotColumn(metric=wr.Config(axis)) for axis in varied]
    everything = wr.ParallelCoordinatesPlot(
        title=f"{study.metric.name} by setting",
        columns=[*axes, wr.ParallelCoordinatesPlotColumn(metric=metric, display_name=study.metric.name)],
    )
    blocks = [
        wr.P(f"Study {study.name} under the recipe {recipe.name}. Written by nl-lightning wandb-report."),
        _panels(study.select(None), recipe, entity, project, everything),
    ]
    for name, table in study.tables.items():
        blocks += [wr.H2(f"Table {name}: {table.caption}"), wr.MarkdownBlock(tables.get(name, ""))]
        if table.variants:
            bars = wr.BarPlot(metrics=[metric], groupby=wr.Config("variant"), title=study.metric.name)
            blocks.append(_panels(table.variants, recipe, entity, project, bars))
    return wr.Report(project, entity, title=study.title[:128], blocks=blocks, width="fluid")


def _panels(variants: Sequence[str], recipe: Recipe, entity: str, project: str, panel: object) -> wr.PanelGrid:
    """A panel over the runs of some variants."""
    of = expr.And(expr.Config("variant").isin(list(variants)), expr.Config("recipe") == recipe.name)
    panel.layout = wr.Layout(w=24, h=12)  # type: ignore[attr-defined]
    return wr.PanelGrid(runsets=[wr.Runset(entity, project, name=recipe.name, filters=of)], panels=[panel])


def publish(report: wr.Report, tables: Mapping[str, str], pictures: Sequence[Path]) -> str:
    """Save the report, and a run beside it with the tables and pictures; return the report's address.

    UserError if nobody is logged in, W&B refuses, or a picture is none.
    """
    if not log.logged_in():
        raise UserError("wandb-report: nobody is logged in at W&B; log in with 'wandb login', or set WANDB_API_KEY")
    for picture in pictures:
        alike = sum(one.stem == picture.stem for one in pictures)
        if picture.suffix.lower() not in PICTURES or not picture.is_file() or alike > 1:
            kinds = f"with one of {', '.join(PICTURES)}"
            raise UserError(f"--picture: {picture}: expected a file that is there, {kinds}, and a name of its own")
    try:
        place = {"entity": report.entity, "project": report.project}
        with wandb.init(**place, job_type="report", settings=log.settings()) as run:
            run.log({f"tables/{name}": wandb.Html(f"<pre>{html.escape(text)}</pre>") for name, text in tables.items()})
            run.log({f"pictures/{picture.stem}": wandb.Image(str(picture)) for picture in pictures})
        report.save()
    except (wandb.Error, WandbApiFailedError, OSError, ValueError) as error:
        raise UserError(f"wandb-report: W&B refuses it: {one_line(error, 300)}") from None
    return str(report.url)
