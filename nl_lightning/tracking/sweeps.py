"""W&B sweeps, derived from a study: for all of it, and for each of its tables. Nothing here imports torch.

Table 2 is no product of settings but a union of small ones, and W&B has no conditional parameters; so a sweep is a grid
over one flat axis, `variant`, and `seed`. A study's own product has an axis for each setting; a point of it that can't
be ends at once. Everything else stands in its command, which every agent runs for each point. With the command travels
the configuration hash of each variant: an agent whose study or recipe says something else refuses the point.
"""

import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import yaml

from nl_lightning.errors import UserError, visible
from nl_lightning.study.files import refuse_foreign, write_output
from nl_lightning.study.finding import find_study
from nl_lightning.study.recipe import Recipe, find_recipe, run_hash
from nl_lightning.study.records import Record, load_records
from nl_lightning.study.study import Study

PROJECT = "nl-lightning"
"""The W&B project where none is named."""

MEASURED = Path("results")
"""What the project itself has measured."""


def write_sweeps(
    study: Study,
    recipe: Recipe,
    seeds: Sequence[int],
    folder: Path,
    full_grid: bool,
    measured: Path = MEASURED,
    results: Path | None = None,
) -> list[Path]:
    """Write the sweeps of a study under a recipe to a folder, and return their files.

    With `full_grid`, also the product of the study's grid, with a W&B parameter for each of its axes. The comments
    quote the hours of records in the results folder `measured`; agents write to `results`. UserError if there is no
    grid, or a file can't be written.
    """
    seeds = list(dict.fromkeys(seeds))
    tables, product = _named(study)
    texts, records = {}, load_records(measured, recipe.name)[0]
    for name, chosen in tables.items():
        caption = study.title if chosen is None else study.tables[chosen[0]].caption
        variants = study.select(chosen)
        axes: Mapping[str, Sequence[str | int]] = {"variant": variants, "seed": seeds}
        head = _head(study, recipe, variants, seeds, records)
        texts[name] = _sweep(study, name, caption, head, axes, [*_command(study, recipe, variants, results), "${args}"])
    if full_grid:
        if (grid := study.grid) is None:
            raise UserError(f"{study.path}: no 'grid', so there is no product to write; see experiments/README.md")
        head = _head(study, recipe, grid.variants, seeds, records)
        head += [f"Left out: {place}: {reason}. Its points end at once." for place, reason in grid.impossible.items()]
        needed = study.select(variants=grid.variants)  # a point runs what it starts from, too
        command = [*_command(study, recipe, needed, results), "--where", "${args_no_hyphens}"]
        axes = {**grid.axes, "seed": seeds}
        texts[product] = _sweep(study, product, study.title, head, axes, command)
    files = {folder / f"{name}.yaml": text for name, text in texts.items()}
    ours = f" of the study {study.name} under the recipe "
    refuse_foreign(files, ours, f" for the study {study.name}")  # before one of them is written
    for path, text in files.items():
        write_output(path, text)
    return list(files)


def check_expected(study: Study, recipe: Recipe, expected: str, variants: Sequence[str]) -> None:
    """UserError if a variant was defined otherwise when a sweep was made: its command has this as ``--expect``."""
    then = dict(part.partition("=")[::2] for part in expected.split())
    now = {name: run_hash(study, recipe, name, 0) for name in then if name in study.variants}
    changed = [name for name in then if now.get(name) != then[name]]
    for name in variants:
        if name not in then:
            raise UserError(f"{study.path}: the sweep was made without '{name}'; make it again: nl-lightning sweeps")
        if name in changed:
            what = f"the recipe {recipe.name} has changed" if len(changed) == len(then) > 1 else "it has changed"
            raise UserError(
                f"{study.path}: {name} has the configuration {now.get(name)}, but the sweep was made for {then[name]}: "
                f"{what} since, with {len(changed)} of {len(then)} variants; make the sweep again with "
                f"'nl-lightning sweeps', or go back to what it was made from"
            )


def _named(study: Study) -> tuple[dict[str, list[str] | None], str]:
    """The tables of each sweep by its name, and the name of the grid's.

    ``table2a`` is of the table ``2a`` in the study ``table2``. Other tables, and one whose name is taken, keep theirs.
    """
    whole, product = study.name, f"{study.name}_grid"
    found: dict[str, list[str] | None] = {whole: None}
    digits = "".join(filter(str.isdigit, whole))
    for table in (table.name for table in study.tables.values() if table.variants):
        own = f"_{table}"
        end = table.removeprefix(digits) if digits and table.startswith(digits) else own
        while (name := f"{whole}{end}") in found or (study.grid and name == product):
            end = f"_table{end}" if end.endswith(own) else own
        found[name] = [table]
    return found, product


def _command(study: Study, recipe: Recipe, variants: Sequence[str], results: Path | None) -> list[str]:
    expected = " ".join(f"{name}={run_hash(study, recipe, name, 0)}" for name in variants)
    command = ["${env}", "nl-lightning", "run", _found(study.path, find_study)]
    command += [] if results is None else [f"--results={results}"]
    return [*command, f"--recipe={_found(recipe.files[0], find_recipe)}", f"--expect={expected}"]


def _found(path: Path, find: Callable[[str], Path]) -> str:
    """The name by which an agent finds this very file; the path where a name finds none, or another one."""
    try:
        return path.stem if find(path.stem).samefile(path) else str(path)
    except UserError:
        return str(path)


def _head(
    study: Study, recipe: Recipe, variants: Sequence[str], seeds: Sequence[int], records: Sequence[Record]
) -> list[str]:
    """What a person should know before starting it: how many runs, on what, and what they cost."""
    runs = len(variants) * len(seeds)
    lines = [f"{runs} runs of the study {study.name} under the recipe {recipe.name}. Written by 'nl-lightning sweeps'."]
    lines += [line for line in recipe.comment if line.startswith(("Hardware:", "Needs:"))]
    records = [record for record in records if record.variant in variants]
    if records:
        seconds: dict[str, list[float]] = {}
        for record in records:
            seconds.setdefault(record.variant, []).append(record.train_seconds + record.test_seconds)
        usual = map(statistics.median, seconds.values())  # of all seeds, as one may have waited for other work
        hours = sum(usual) * len(seeds) * len(variants) / len(seconds) / 3600
        lines.append(f"Cost: {hours:.1f} hours of one agent in all, as measured on {records[0].device}.")
    return [*lines, "An agent, on as many machines as you like: wandb agent ENTITY/PROJECT/SWEEP"]


def _sweep(
    study: Study,
    name: str,
    caption: str,
    head: Sequence[str],
    axes: Mapping[str, Sequence[str | int]],
    command: Sequence[str],
) -> str:
    sweep = {
        "name": name,
        "description": caption,
        "project": PROJECT,
        "method": "grid",
        "metric": {"name": study.metric.key, "goal": "maximize" if study.metric.sign > 0 else "minimize"},
        "run_cap": math.prod(map(len, axes.values())),
        "parameters": {axis: {"values": list(values)} for axis, values in axes.items()},
        "command": list(command),
    }
    comments = "".join(f"# {visible(line)}\n" for line in head)
    return comments + yaml.safe_dump(sweep, sort_keys=False, allow_unicode=True, width=90)
