"""The commands on studies: ``init``, ``run``, ``status``, ``sweeps``. What one has measured is in ``results``.

Each can be repeated at any time on half-finished work. What is slow to import is imported by the command that needs it.
Commands that only look (``status``, ``report``, ``sweeps``, ``run --dry-run``) import neither torch nor anything that a
study or a recipe names.
"""

import importlib
import os
import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from nl_lightning.cli.output import plain_table, print_lines, show, working, write_tables_of
from nl_lightning.cli.parsing import KEY_VALUE, OPTION, SEED, SEVERAL, number, whole
from nl_lightning.errors import UserError, from_extra, mistake, terminal, visible
from nl_lightning.study.files import overwriting, read_text, refuse_foreign, write_output
from nl_lightning.study.finding import experiments_folders, find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import Recipe, load_recipe, with_stills
from nl_lightning.study.records import recorded
from nl_lightning.study.run import CHECKPOINT_MINUTES, Logger, Run, begun, plan, to_run_again
from nl_lightning.study.study import Study

Seeds = Annotated[Sequence[int], SEED]
Workers = Annotated[int, whole(1, 4096)]
Minutes = Annotated[float, number(-1e-9, 1e6, "minutes of at least 0")]
MY_RESULTS = Path("my_results")


@dataclass(frozen=True)
class OfStudy:
    """A study under a recipe, and where its records are.

    Attributes:
        study: its name (table2), or the path of its YAML file.
        recipe: name or path (default: the study's).
        results: folder of the records.
    """

    study: str
    _: KW_ONLY
    recipe: str | None = None
    results: Path = MY_RESULTS

    def load(self) -> tuple[Study, Recipe]:
        """The study as the recipe trains it, and the recipe."""
        study = load_study(find_study(self.study))
        name = study.recipe if self.recipe is None else self.recipe
        beside = study.path.parent / "recipes" / f"{name}.yaml"
        elsewhere = study.path.parent not in experiments_folders()  # whose recipes have no other name
        recipe = load_recipe(beside if elsewhere and beside.is_file() else name)
        recipe.check_measures(study)
        return with_stills(study, recipe), recipe


@dataclass(frozen=True)
class Selected(OfStudy):
    """Runs of a study: variants x seeds.

    Attributes:
        table: only this table of the study, for example 2a.
        variant: only this variant of the study.
        where: only variants with these values, for example depth=50 sum_over=space;
            a variant has to fit each of --table, --variant and --where.
        seed: default: 0; status and --failed also take every seed that was begun.
    """

    _: KW_ONLY
    table: Sequence[str] = ()
    variant: Sequence[str] = ()
    where: Annotated[Sequence[tuple[str, str]], KEY_VALUE, SEVERAL] = ()
    seed: Seeds = ()

    def runs(self, parents: bool = True, every_seed: bool = False) -> list[Run]:
        """The selected runs; with `parents`, also those that they start from.

        If no seed is given it is 0; with `every_seed`, also each one of which there is a record or a folder.
        """
        study, recipe = self.load()
        columns = dict(self.where)
        _refuse_twice("--where", self.where)
        if "seed" in columns and self.seed:
            raise UserError("--where seed=... and --seed both say which seeds: give one of them")
        seeds = [int(columns.pop("seed"))] if "seed" in columns else self.seed
        seeds = seeds or ([0] if not every_seed else self._seeds(study, recipe))
        variants = list(self.variant or study.variants)
        if columns:
            there = study.where(columns)
            variants = [name for name in variants if study.variant(name).name in there]
        runs = plan(study, recipe, seeds, self.results, self.table or None, variants, parents)
        if not runs:
            given = {"--table": self.table, "--variant": self.variant, "--where": ["=".join(one) for one in self.where]}
            asked = (f"{option} {' '.join(words)}" for option, words in given.items() if words)
            raise UserError(f"{study.path}: no variant fits {' and '.join(asked)}: a variant has to fit each of them")
        return runs

    def _seeds(self, study: Study, recipe: Recipe) -> list[int]:
        found = [(run.variant.name, run.seed) for run in begun(study, recipe, self.results)]
        found += recorded(self.results, recipe.name)
        seeds = {seed for variant, seed in found if variant in study.variants}
        return sorted(seeds.union(range(max(1, recipe.folds))))


# ---------------------------------------------------------------------------------------------------- the study


def init(folder: Path, *, overwrite: bool = False) -> int:
    """Write a study and a recipe of your own to start from.

    They run as they are, and comments say what to change.

    Args:
        folder: where to write; its 'experiments' gets the two files.
        overwrite: replace files that are there.
    """
    own = Path(__file__).parent / "own"
    files = {folder / file.relative_to(own): file.read_text() for file in sorted(own.rglob("*.yaml"))}
    with overwriting(overwrite):
        refuse_foreign(path for path, text in files.items() if not path.is_file() or read_text(path) != text)
        for path, text in files.items():
            write_output(path, text)
    print_lines(*map(str, files), f"cd {shlex.quote(str(folder))} && nl-lightning run mine")
    return 0


def run(
    which: Selected,
    *,
    workers: Workers = 1,
    dry_run: bool = False,
    failed: bool = False,
    parents: Literal["train", "wait"] = "train",
    checkpoint_minutes: Minutes = CHECKPOINT_MINUTES,
    logger: Logger = "wandb",
    expect: str | None = None,
    compare: Path | None = None,
    cluster: Literal["slurm", "local"] | None = None,
    partition: str | None = None,
    slurm: Annotated[Sequence[tuple[str, str | bool]], OPTION] = (),
) -> int:
    """Train and test the runs of a study that aren't done yet.

    The same command can be given again at any time: finished runs are skipped, and
    interrupted ones go on from their last checkpoint. Ctrl-C stops all runs; each
    saves a checkpoint first.

    Args:
        workers: runs at a time.
        dry_run: print the commands of the runs that are left, and do nothing.
        failed: only runs that failed or were interrupted, wherever they ran.
        parents: runs that others start from: train them first, or wait until somebody has.
        checkpoint_minutes: write a checkpoint at least every X minutes, and after each epoch.
        logger: where curves go: W&B, TensorBoard or CSV files in each run's folder, or nowhere.
        expect: refuse variants that are defined otherwise (sweeps use it: VARIANT=HASH ...).
        compare: a results folder whose records say what to expect of each row (default: that of the study's checkout).
        cluster: submit a job for each run and return: to Slurm, or in the background of this machine.
        partition: of Slurm.
        slurm: an option of sbatch, for example account=lab, mem=64G, exclusive; time is in minutes.
    """
    from nl_lightning.tracking import agent, sweeps

    def planned() -> list[Run]:
        if agent.is_present() and logger != "wandb":
            raise UserError(f"--logger {logger}: a W&B agent's runs tell W&B")
        runs = which.runs(parents == "train", every_seed=failed)
        runs = [replace(one, checkpoint_minutes=checkpoint_minutes, logger=logger) for one in runs]
        if failed and not (runs := to_run_again(found := runs)):
            counts = _counts(one.state().name for one in found)
            raise UserError(f"nothing has failed or was interrupted: {counts}; 'nl-lightning status' shows each run")
        for one in runs:
            _ = one.config_hash  # a file that is missing or broken is found now
        if expect is not None:
            sweeps.check_expected(runs[0].study, runs[0].base, expect, [one.variant.name for one in runs])
        return runs

    if logger == "tensorboard":
        with from_extra("tensorboard"):
            importlib.import_module("tensorboard")
    given = {"--dry-run": dry_run, "--workers": workers > 1, "--compare": compare, "--cluster": cluster}
    _refuse_idle([option for option, value in given.items() if value], agent.is_present())
    slurm = [*slurm, *([("partition", partition)] if partition else [])]
    _refuse_twice("--slurm", slurm)
    if cluster != "slurm" and slurm:
        raise UserError("--partition and --slurm are for --cluster slurm")
    if compare is not None and not compare.is_dir():
        raise UserError(f"--compare: there is no folder {compare}")
    if agent.is_present():  # this is the command of a W&B agent, for one point of a sweep
        from nl_lightning.runs.schedule import run_all

        return agent.run_point(planned, lambda runs, env: run_all(runs, workers, terminal(), lambda one: None, env))
    runs = planned()
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _run_together(runs)
    if cluster is not None:
        return _submit(runs, cluster, workers, dict(slurm), dry_run)
    return _show_commands(runs) if dry_run else _run_here(runs, workers, which.table, compare)


def _refuse_twice(option: str, given: Sequence[tuple[str, object]]) -> None:
    for key, times in Counter(key for key, _ in given).items():
        if times > 1:
            raise UserError(f"{option} gives {key} more than once: one value each can be asked for")


def _refuse_idle(given: Sequence[str], of_agent: bool) -> None:
    """UserError for an option that would be ignored."""
    idle = {
        "as the command of a W&B agent": ["--dry-run", "--compare", "--cluster"] if of_agent else [],
        "under torchrun": ["--dry-run", "--workers", "--compare", "--cluster"] * ("TORCHELASTIC_RUN_ID" in os.environ),
        "with --cluster": ["--compare"] if "--cluster" in given else [],
    }
    for mode, options in idle.items():
        if ignored := [option for option in given if option in options]:
            raise UserError(f"{ignored[0]} has no effect {mode}: leave it out")


def _counts(names: Any) -> str:
    return ", ".join(f"{count} {name}" for name, count in Counter(names).items())


def _show_commands(runs: list[Run]) -> int:
    left = [(one, state) for one in runs if (state := one.state()).name != "done"]
    print_lines(f"# {len(runs) - len(left)} of {len(runs)} runs are done already")
    for one, state in left:
        print_lines(f"# {one.name}: {state.name}" + (f", {visible(state.note)}" if state.note else ""))
        print_lines(*map(visible, one.commands()))
    return 0


def _run_here(runs: list[Run], workers: int, tables: Sequence[str], compare: Path | None) -> int:
    from nl_lightning.report.collate import collect
    from nl_lightning.report.expected import as_expected, committed, committed_folder
    from nl_lightning.runs.schedule import prepare, run_all

    console, study, recipe, results = terminal(), runs[0].study, runs[0].base, runs[0].results

    def refresh(one: Run) -> None:
        record = one.state().record
        assert record is not None
        expected = as_expected(record, committed(one, compare or committed_folder(one)), study.metric)
        console.print(f"{one.name}: {record.outcome(study.metric)}", end="")
        console.print(f" ({expected})" if expected else "", soft_wrap=True)
        try:
            write_tables_of(collect(study, recipe, results), results)
        except Exception as error:  # a record that somebody broke; the runs go on
            why = mistake(error) or f"{type(error).__name__}: {error}"
            console.print(f"tables not refreshed: {visible(why)}", style="yellow", soft_wrap=True)

    if not all(one.is_done() for one in runs) and (code := prepare(study, recipe)):
        return code
    failed = run_all(runs, workers, console, refresh)
    show(*write_tables_of(collect(study, recipe, results), results), list(tables) or None)
    return 1 if failed else 0


def _run_together(runs: list[Run]) -> int:
    """Be one of the processes of a run: torchrun has started this in each of them."""
    from nl_lightning.runs import worker

    left = [one for one in runs if not one.is_done()]
    if len(left) > 1:
        raise UserError(
            f"torchrun starts the processes of one run, and {len(left)} are left, {left[0].name} first: "
            "name one with --variant and --seed"
        )
    for one in left:
        trainer, started = one.config.get("trainer", {}), int(os.environ["WORLD_SIZE"])
        nodes, devices = trainer.get("num_nodes", 1), trainer.get("devices", 1)
        if nodes * devices != started:
            raise UserError(
                f"torchrun has started {started} processes, and recipe {one.recipe.name} says {nodes} x {devices} "
                "(trainer.num_nodes, trainer.devices): give both the same"
            )
        return worker.main(["run", *one.identity()])
    return 0


def _submit(runs: list[Run], cluster: str, workers: int, options: dict[str, str | bool], dry_run: bool) -> int:
    from nl_lightning.runs.schedule import prepare
    from nl_lightning.runs.slurm import Local, Slurm, needs, submit_all

    folder = runs[0].results / "jobs"
    there = Slurm(folder, workers, options) if cluster == "slurm" else Local(folder, workers)
    left = [one for one in runs if not one.is_done()]
    if cluster == "slurm":
        for one in left:
            needs(one)  # known before one of them is submitted
    if dry_run:
        print_lines("# each run is one job, which calls these commands")
        return _show_commands(runs)
    if left and (code := prepare(runs[0].study, runs[0].base)):
        return code
    submit_all(runs, there, print_lines)
    print_lines(f"nl-lightning status shows how far they are; what they print: {runs[0].log.parent.parent}/*/seed*.log")
    return 0


def status(which: Selected) -> int:
    """Show every run of a study and where it stands.

    These are the runs of seed 0, and of every other seed that was begun, unless --seed says which.
    """
    from nl_lightning.runs.slurm import states

    with working("looking at the runs"):
        runs = which.runs(every_seed=True)
        found = states(runs)
    out, metric = terminal(), runs[0].study.metric
    # A narrow terminal cuts the note only, and nothing is cut where nobody's terminal is.
    room = max(12, out.width - max(len(one.variant.name) for one in runs) - 34) if out.is_terminal else 10**6
    table = plain_table("variant", "seed", "state", f"{metric.name} {metric.unit}".rstrip(), "")
    for one, state in zip(runs, found, strict=True):
        record = state.record
        score = f"{record.score(metric):.{metric.decimals}f}" if record and metric.key in record.scores else ""
        note = visible(record.outcome(metric) if record and record.diverged else state.note)
        table.add_row(one.variant.name, str(one.seed), state.name, score, note[: room - 3] + "..." * (len(note) > room))
    out.print(table)
    seeds = list(dict.fromkeys(one.seed for one in runs))
    named = f"seed{'s' if len(seeds) > 1 else ''} {', '.join(map(str, seeds))}"
    print_lines(f"{named}: {_counts(state.name for state in found)}, in {which.results}")
    return 0


def sweeps(
    study: str,
    *,
    seed: Seeds = (),
    recipe: str | None = None,
    results: Path | None = None,
    full_grid: bool = False,
    overwrite: bool = False,
) -> int:
    """Write W&B sweeps: one of the whole study, and one of each table.

    Args:
        study: its name (table2), or the path of its YAML file.
        seed: 0 if none is given.
        recipe: name or path (default: the study's).
        results: folder of the records, which agents may share
            (default: my_results in the folder where each agent starts).
        full_grid: also the product of the study's grid, axis by axis.
        overwrite: replace files in sweeps/ that nl-lightning didn't write.
    """
    from nl_lightning.tracking.sweeps import write_sweeps

    found, under = OfStudy(study, recipe=recipe).load()
    folder = Path("sweeps") if under.name == found.recipe else Path("sweeps") / under.name
    with overwriting(overwrite):
        files = write_sweeps(found, under, seed or [0], folder, full_grid, results=results)
    print_lines(*(f"wandb sweep {file}" for file in files))
    return 0
