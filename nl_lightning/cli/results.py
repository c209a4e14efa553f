"""The commands on what was measured: ``report``, ``tables``, ``wandb-report``, ``power``. They import no torch."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from nl_lightning.cli.output import print_lines, show, working, write_tables_of
from nl_lightning.cli.parsing import SEVERAL, number, whole
from nl_lightning.cli.studies import MY_RESULTS, OfStudy, Seeds, Selected, Workers, run
from nl_lightning.errors import UserError, from_extra, say, terminal, visible
from nl_lightning.study.files import overwriting, refuse_foreign
from nl_lightning.study.finding import find_study, paper_tables
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.study import Study

if TYPE_CHECKING:
    from nl_lightning.report.collate import Runs

Percent = Annotated[float | None, number(0, 100, "a number above 0, up to 100")]


def report(
    of: OfStudy,
    *,
    seed: Seeds = (),
    wandb: str | None = None,
    wandb_offline: Path | None = None,
    readme: Path | None = None,
    html: bool = False,
    columns: Annotated[Sequence[str], SEVERAL] = (),
    overwrite: bool = False,
) -> int:
    """Collate the records of a study into tables: Markdown, LaTeX and CSV.

    Args:
        seed: only this seed (not with --wandb or --wandb-offline; default: all).
        wandb: take the records from W&B: ENTITY/PROJECT or ENTITY/PROJECT/SWEEP.
        wandb_offline: take the records from the W&B run folders below this one.
        readme: also update the results block of this file.
        html: also make one HTML page, with figures.
        columns: columns of the LaTeX tables, for example gain 'reported gain' (default: what fits a column of a paper).
        overwrite: replace files among the tables that nl-lightning didn't write.
    """
    if wandb is not None and wandb_offline is not None:
        raise UserError("argument --wandb-offline: not allowed with argument --wandb")
    if seed and (wandb or wandb_offline):
        raise UserError("argument --seed: not allowed with records of W&B")
    from nl_lightning.report.collate import collect

    study, recipe = of.load()
    left_out: Callable[[], None] | None = None
    with overwriting(overwrite), working("reading records and computing tables"):
        if wandb is None and wandb_offline is None:
            runs = collect(study, recipe, of.results, sorted(set(seed)) or None)
        else:
            runs, left_out = _from_wandb(study, recipe, wandb, wandb_offline)
        found, written = write_tables_of(runs, of.results, columns)
    show(found, written)
    if left_out is not None:
        left_out()
    if readme is not None:
        from nl_lightning.report.render import update_readme

        update_readme(readme, found, written[0])
    if html:
        from nl_lightning.report.html import write_html

        with overwriting(overwrite), working("drawing the page"):
            page = write_html(found, of.results)
        print_lines(str(page))
    return 0


def _from_wandb(
    study: Study, recipe: Recipe, project: str | None, folder: Path | None
) -> tuple["Runs", Callable[[], None]]:
    """The runs whose records W&B has, and what prints which were left out."""
    from nl_lightning.tracking.log import logged_in
    from nl_lightning.tracking.offline import from_folders, from_server
    from nl_lightning.tracking.read_back import print_left_out, select

    if project is not None and not logged_in():
        raise UserError("--wandb: nobody is logged in at W&B; log in with 'wandb login', or set WANDB_API_KEY")
    listed = from_server(project) if project is not None else from_folders(folder or Path())
    runs, left_out = select(study, recipe, listed)
    return runs, lambda: print_left_out(terminal(), left_out, len(listed))


def tables(
    *,
    results: Path = MY_RESULTS,
    seed: Seeds = (),
    workers: Workers = 1,
    report_only: bool = False,
    overwrite: bool = False,
) -> int:
    """Run every table of the paper on CPU cores, and make one page of them all.

    Studies without a recipe for CPU cores are not run: the page shows what is reported,
    and what the results folder has. The same command can be given again at any time.

    Args:
        results: folder of the records.
        seed: 0 if none is given.
        workers: runs at a time.
        report_only: run nothing; make the page of what the results folder has.
        overwrite: replace files among the tables that nl-lightning didn't write.
    """
    from nl_lightning.report.claims import report as judged
    from nl_lightning.report.collate import collect
    from nl_lightning.report.html import write_html
    from nl_lightning.report.index import places, write_index
    from nl_lightning.report.render import write_tables

    if report_only and (seed or workers > 1):
        raise UserError("--seed and --workers have no effect with --report-only: leave them out")
    with overwriting(overwrite):
        refuse_foreign(places(results))  # known before anything is trained
    failed, found, said = 0, [], set()

    @contextmanager
    def going_on(name: str) -> Iterator[None]:
        try:
            yield
        except UserError as error:  # such as an extra that isn't installed; the other studies are run all the same
            if (line := f"{name}: {error}") not in said:
                say(line)
            said.add(line)

    for name in paper_tables():
        with going_on(name):
            study = load_study(find_study(name))
            of = Selected(name, recipe=study.cpu_recipe, results=results, seed=seed)
            if study.cpu_recipe is not None and not report_only:
                print_lines(f"{name}: {study.title}")  # whose runs and bar follow
                with going_on(name):
                    failed = max(failed, run(of, workers=workers))
            with overwriting(overwrite), working(f"computing the tables of {name}"):
                one = judged(collect(*of.load(), results))
                if one.runs.records():
                    write_tables(one, results)
                    write_html(one, results)
            found.append(one)
    with overwriting(overwrite):
        print_lines(*map(str, write_index(found, results)))
    return 2 if said else failed


def wandb_report(of: OfStudy, project: str, *, picture: Sequence[Path] = ()) -> int:
    """Make a report at W&B: a panel over all settings, and each table with its runs.

    Args:
        project: where the runs are, and the report will be: ENTITY/PROJECT.
        picture: pictures to show beside the tables, for example those that 'attend' draws.
    """
    from nl_lightning.report.claims import report as judged
    from nl_lightning.report.collate import collect
    from nl_lightning.report.render import markdown_table
    from nl_lightning.report.words import table_columns

    entity, _, name = project.partition("/")
    if not entity or not name or "/" in name:
        raise UserError(f"project {visible(project)}: expected ENTITY/PROJECT")
    with from_extra("wandb"):
        from nl_lightning.tracking.overview import overview, publish
    study, recipe = of.load()
    with working("writing the report"):
        found = judged(collect(study, recipe, of.results))
        tables = {one: markdown_table(table_columns(found, table)) for one, table in study.tables.items()}
        address = publish(overview(study, recipe, entity, name, tables), tables, picture)
    print_lines(address)
    return 0


def power(
    of: OfStudy,
    *,
    videos: Annotated[int | None, whole(1, 10**9)] = None,
    disagreement: Percent = None,
    seed_noise: Percent = None,
) -> int:
    """Say how many videos and seeds it takes to decide each claim of a study.

    Args:
        videos: test videos (default: as tested or reported).
        disagreement: percent of the videos that two networks split on.
        seed_noise: spread of a difference over seeds, in points.
    """
    from nl_lightning.report.collate import collect
    from nl_lightning.report.power import plan_of, power_columns
    from nl_lightning.report.render import print_columns

    study, recipe = of.load()
    with working("reading records"):
        found = plan_of(collect(study, recipe, of.results), videos, disagreement, seed_noise)
    print_lines(found.said)
    print_columns(terminal(), power_columns(study, found))
    return 0
