"""The command line: ``nl-lightning run | status | report | attend ...``; LightningCLI's ``fit | validate | test``.

Each command is one verb and can be repeated at any time on half-finished work. What doesn't train imports no torch.
"""

import argparse
import math
import os
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from rich.console import Console
from rich.table import Table

from nl_lightning.errors import Stopped, UserError, mistake
from nl_lightning.runs import worker as process
from nl_lightning.runs.schedule import prepare, run_all
from nl_lightning.runs.slurm import Cluster, Local, Slurm, states, submit_all
from nl_lightning.study.run import CHECKPOINT_MINUTES, Run, plan, to_run_again
from nl_lightning.study.study import Recipe, Study, find_study, load_recipe, load_study
from nl_lightning.tracking import agent, sweeps

if TYPE_CHECKING:
    from nl_lightning.data.datamodule import VideoDataModule
    from nl_lightning.report.claims import Report

LIGHTNING = {
    "fit": "train one network (LightningCLI; see fit --help)",
    "validate": "one-clip accuracy on the validation list (LightningCLI)",
    "test": "accuracy over all views of each test video (LightningCLI)",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0, 1 (a run failed), 2 (the user's mistake), 130 or 143 (stopped)."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    trains_one = bool(arguments) and arguments[0] in LIGHTNING
    try:
        if trains_one:
            from nl_lightning.train.lightning_cli import lightning_command  # takes seconds: torch

            return lightning_command(arguments)
        options = _parser().parse_args(arguments)
        code: int = options.command(options)
        return code
    except (KeyboardInterrupt, Stopped) as stopped:
        again = "with --ckpt_path it goes on from a checkpoint" if trains_one else "the same command goes on from here"
        return _say(f"stopped; {again}", stopped.exit_code if isinstance(stopped, Stopped) else 130)
    except (UserError, OSError, RuntimeError) as error:
        line = mistake(error)
        if line is None:
            raise
        if agent.is_present():
            agent.refuse(line)
        return _say(line, 2)


def _say(line: str, code: int) -> int:
    print(f"nl-lightning: {line}", file=sys.stderr)
    return code


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see {self.prog} --help)")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="nl-lightning", description="Re-run, check and extend the ablation tables of a paper on video."
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="train and test the variants of a study, skipping what is done")
    _select(run)
    run.add_argument("--workers", type=_at_least_one, default=1, metavar="N", help="runs at a time (default 1)")
    run.add_argument("--dry-run", action="store_true", help="print the commands of the runs that are left")
    run.add_argument("--failed", action="store_true", help="only what has failed or was interrupted, wherever it ran")
    run.add_argument(
        "--parents", choices=("train", "wait"), default="train",
        help="runs that others start from: train them first (the default), or wait for whoever does",
    )  # fmt: skip
    run.add_argument(
        "--checkpoint-minutes", type=_minutes, default=CHECKPOINT_MINUTES, metavar="M",
        help=f"a checkpoint at least so often, beside that after each epoch (default {CHECKPOINT_MINUTES:g})",
    )  # fmt: skip
    run.add_argument("--expect", metavar="V=HASH ...", help="refuse variants of another definition (sweeps say it)")
    run.add_argument("--cluster", choices=("slurm", "local"), help="submit a job for each run, and return")
    run.add_argument("--partition", metavar="P", help="of Slurm")
    run.add_argument(
        "--slurm", action="append", type=_slurm_option, default=[], metavar="KEY=VALUE",
        help="any option of sbatch, e.g. account=lab, mem=64G or exclusive; time in minutes (can be repeated)",
    )  # fmt: skip
    run.set_defaults(command=_run)

    status = commands.add_parser("status", help="every run of a study and its state")
    _select(status)
    status.set_defaults(command=_status)

    sweep = commands.add_parser("sweeps", help="write W&B sweeps: of the whole study, and of each table")
    sweep.add_argument("study", help="a study: table2, or the path of a YAML file")
    sweep.add_argument("--seed", action="append", type=_seed, metavar="S", help="a seed (can be repeated; default 0)")
    sweep.add_argument("--recipe", metavar="R", help="a recipe: its name or path (default: the study's)")
    sweep.add_argument("--full-grid", action="store_true", help="also the product of the study's grid, axis by axis")
    sweep.set_defaults(command=_sweeps)

    report = commands.add_parser("report", help="collate the records of a study into tables")
    report.add_argument("study", help="a study: table2, or the path of a YAML file")
    _where(report)
    elsewhere = report.add_mutually_exclusive_group()
    elsewhere.add_argument(
        "--wandb", metavar="ENTITY/PROJECT[/SWEEP]", help="take the records from W&B, not from --results"
    )
    elsewhere.add_argument(
        "--wandb-offline", type=Path, metavar="DIR", help="take the records from the W&B run folders below DIR"
    )
    report.add_argument("--readme", type=Path, metavar="FILE", help="also update the results block of this file")
    report.add_argument("--html", action="store_true", help="also as one HTML page, with figures")
    report.set_defaults(command=_report)

    power = commands.add_parser("power", help="how many videos and seeds it takes to decide each claim of a study")
    power.add_argument("study", help="a study: table2, or the path of a YAML file")
    _where(power)
    power.add_argument("--videos", type=_at_least_one, metavar="N", help="test videos (default: as tested or reported)")
    power.add_argument(
        "--disagreement", type=_percent, metavar="P", help="percent of videos that two networks split on"
    )
    power.add_argument("--seed-noise", type=_percent, metavar="P", help="spread of a difference over seeds, in points")
    power.set_defaults(command=_power)

    cost = commands.add_parser("complexity", help="parameters and multiply-adds of the variants of a study")
    _select(cost)
    cost.add_argument("--explain", action="store_true", help="how each non-local block computes Eq. (1)")
    cost.set_defaults(command=_complexity)

    rescore = commands.add_parser("rescore", help="what one test would have scored under other protocols")
    rescore.add_argument("record", type=Path, help="a record (.json), or the predictions that a test wrote (.parquet)")
    rescore.set_defaults(command=_rescore)

    weights = commands.add_parser("weights", help="weight files: import those of others, export ours")
    verbs = weights.add_subparsers(required=True, metavar="VERB")
    imported = verbs.add_parser("import", help="make our weight file of a checkpoint, ours or of others")
    imported.add_argument("file", type=Path, help="a .pkl, .pyth or .pth file, or a checkpoint of ours")
    imported.add_argument("--from", dest="source", default="auto", metavar="S", help="whose file it is (default auto)")
    imported.add_argument(
        "--variant", metavar="V", help="what its tensors don't tell, as 8x8 (default: its name's words)"
    )
    imported.add_argument("--without-classifier", action="store_true", help="leave the classifier out")
    imported.add_argument("--out", type=Path, required=True, metavar="W.safetensors", help="where to write")
    imported.set_defaults(command=_weights_import)
    exported = verbs.add_parser("export", help="make a file of the released code or of PySlowFast of ours")
    exported.add_argument("file", type=Path, help="a weight file of ours")
    exported.add_argument("--to", choices=("caffe2", "slowfast"), required=True, help="whose file to make")
    exported.add_argument("--out", type=Path, required=True, metavar="FILE", help="where to write")
    exported.set_defaults(command=_weights_export)

    look = commands.add_parser("attend", help="draw what a non-local block looks at in a video (Fig. 3)")
    look.add_argument("video", type=Path, help="a video file; its middle clip is taken")
    _weights(look)
    look.add_argument("--block", required=True, metavar="B", help="a non-local block, by what it follows: res3.1")
    look.add_argument(
        "--query", required=True, type=_position, metavar="T,Y,X", help="a position of the block's map, from 0"
    )
    _figures(look)
    look.set_defaults(command=_attend)

    field = commands.add_parser("reach", help="draw which input positions can move one output position")
    field.add_argument(
        "variant", nargs="*", help="networks of the study (default: C2D and I3D without and with non-local blocks)"
    )
    field.add_argument("--study", default="table2", help="a study: its name or path (default table2)")
    field.add_argument("--recipe", metavar="R", help="a recipe: its name or path (default: the study's)")
    field.add_argument(
        "--weights", type=Path, action="append", metavar="W", help="a trained network instead (can be repeated)"
    )
    _figures(field)
    field.set_defaults(command=_reach)

    predict = commands.add_parser("predict", help="the five best classes of videos")
    predict.add_argument("video", nargs="+", type=Path, help="video files, and folders of them")
    _weights(predict)
    predict.add_argument("--json", action="store_true", help="print JSON")
    predict.set_defaults(command=_predict)

    _data(commands.add_parser("data", help="data sets: check every file, make a copy that decodes fast, pack shards"))

    for name, purpose in LIGHTNING.items():
        commands.add_parser(name, help=purpose)
    return parser


def _data(parser: argparse.ArgumentParser) -> None:
    verbs = parser.add_subparsers(required=True, metavar="VERB")
    check = verbs.add_parser("check", help="read every file once, and write down what is there and what is wrong")
    _data_set(check)
    check.add_argument("--hash", action="store_true", help="also hash the bytes of each file")
    check.add_argument("--out", type=Path, metavar="FILE", help="the manifest (default: ROOT/census.parquet)")
    check.add_argument("--compare", type=Path, metavar="LIST", help="also say how many ids each split shares with it")
    check.set_defaults(command=_data_check)
    copy = verbs.add_parser("prepare", help="make a copy at short side 256 with a key frame every 16 frames")
    _data_set(copy)
    copy.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the copy goes")
    copy.set_defaults(command=_data_prepare)
    shards = verbs.add_parser("shards", help="pack a data set into tar files, as WebDataset has them")
    _data_set(shards)
    shards.add_argument("--out", type=Path, required=True, metavar="FOLDER", help="where the shards go")
    shards.add_argument(
        "--shard-mb", type=_at_least_one, default=1000, metavar="MB", help="of a shard, about (default 1000)"
    )
    shards.set_defaults(command=_data_shards)


def _data_set(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", help="whose data: a recipe's name or path")
    parser.add_argument("--root", type=Path, metavar="DIR", help="the data set's folder (default: the recipe's)")
    parser.add_argument(
        "--workers", type=_at_least_one, default=os.cpu_count(), metavar="N", help="processes (default: a core each)"
    )


def _where(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--recipe", metavar="R", help="a recipe: its name or path (default: the study's)")
    parser.add_argument(
        "--results", type=Path, default=Path("my_results"), metavar="DIR", help="where records lie (default my_results)"
    )  # fmt: skip


def _weights(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--weights", type=Path, required=True, metavar="W", help="a weight file (weights import)")


def _figures(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--out", type=Path, default=Path("my_results/figures"), metavar="DIR",
        help="where to write (default my_results/figures)",
    )  # fmt: skip


def _select(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("study", help="a study: table2, or the path of a YAML file")
    parser.add_argument("--table", action="append", metavar="T", help="only this table, e.g. 2a (can be repeated)")
    parser.add_argument("--variant", action="append", metavar="V", help="only this variant (can be repeated)")
    parser.add_argument(
        "--where", nargs="+", type=_column, metavar="COLUMN=VALUE",
        help="only variants of these values, e.g. depth=50 sum_over=space",
    )  # fmt: skip
    parser.add_argument("--seed", action="append", type=_seed, metavar="S", help="a seed (can be repeated; default 0)")
    _where(parser)


def _column(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected COLUMN=VALUE, not '{text}'")
    return column, value


def _seed(text: str) -> int:
    if not text.isdigit():
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 0, not '{text}'")
    return int(text)


def _position(text: str) -> tuple[int, int, int]:
    numbers = text.split(",")
    if len(numbers) != 3 or not all(number.strip().isdecimal() for number in numbers):
        raise argparse.ArgumentTypeError(f"expected frame,row,column of the map, each from 0, as 2,4,4; not '{text}'")
    t, h, w = map(int, numbers)
    return t, h, w


def _percent(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 < value <= 100:
        raise argparse.ArgumentTypeError(f"expected a number above 0, up to 100, not '{text}'")
    return value


def _minutes(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < math.inf:
        raise argparse.ArgumentTypeError(f"expected minutes of at least 0, not '{text}'")
    return value


def _at_least_one(text: str) -> int:
    if not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number of at least 1, not '{text}'")
    return int(text)


def _slurm_option(text: str) -> tuple[str, str | bool]:
    key, equals, value = text.partition("=")
    return key, value if equals else True


def _study(options: argparse.Namespace) -> tuple[Study, Recipe]:
    study = load_study(find_study(options.study))
    recipe = load_recipe(options.recipe or study.recipe)
    study.check_measures(recipe)
    return study, recipe


def _planned(options: argparse.Namespace, parents: bool = True) -> list[Run]:
    study, recipe = _study(options)
    columns = dict(options.where or [])
    seeds = [_seed(columns.pop("seed"))] if "seed" in columns else options.seed or [0]
    variants = options.variant
    if columns:
        variants = [*(variants or []), *study.where(columns)]
    runs = plan(study, recipe, seeds, options.results, options.table, variants, parents)
    minutes = getattr(options, "checkpoint_minutes", CHECKPOINT_MINUTES)
    return [replace(run, checkpoint_minutes=minutes) for run in runs]


def _run(options: argparse.Namespace) -> int:
    console = Console()
    if agent.is_present():
        return agent.run_point(
            lambda: _ready(options), lambda runs, env: run_all(runs, options.workers, console, lambda run: None, env)
        )  # fmt: skip
    runs = _ready(options)
    if options.dry_run:
        for run in runs:
            print(f"# {run.name}: {run.state().name}")
            print("\n".join(run.commands()))
        return 0
    if "TORCHELASTIC_RUN_ID" in os.environ:
        return _run_together(runs)
    cluster = _cluster(options)
    if not all(run.is_done() for run in runs) and (code := prepare(runs[0].base)):
        return code
    if cluster is not None:
        return _submit(runs, cluster)
    study, recipe = runs[0].study, runs[0].base

    def refresh(run: Run) -> None:
        record = run.state().record
        assert record is not None
        console.print(f"{run.name}: {study.metric.name} {record.score(study.metric):.1f} %", highlight=False)
        try:
            _write_tables(study, recipe, options.results)
        except UserError as error:  # a record that somebody broke; the runs go on
            console.print(f"[yellow]tables not refreshed[/]: {error}", highlight=False)

    failed = run_all(runs, options.workers, console, refresh)
    _print_tables(study, recipe, options.results, options.table)
    return 1 if failed else 0


def _ready(options: argparse.Namespace) -> list[Run]:
    """The runs to bring to their records, once everything that can be checked before hours are spent is found right."""
    runs = _planned(options, parents=options.parents == "train")
    if options.failed:
        runs = to_run_again(runs)
        if not runs:
            raise UserError("nothing has failed or was interrupted: see nl-lightning status")
    for run in runs:
        _ = run.config_hash  # a file that is missing or broken is found now
    if options.expect is not None:
        sweeps.check_expected(runs[0].study, runs[0].base, options.expect, [run.variant.name for run in runs])
    return runs


def _run_together(runs: list[Run]) -> int:
    """Be one of the processes of a run: torchrun has started this in each of them."""
    left = [run for run in runs if not run.is_done()]
    if len(left) > 1:
        raise UserError(
            f"torchrun starts the processes of one run, and {len(left)} are left, {left[0].name} first: "
            "name one with --variant and --seed"
        )
    for run in left:
        trainer, started = run.recipe.config.get("trainer", {}), int(os.environ["WORLD_SIZE"])
        nodes, devices = trainer.get("num_nodes", 1), trainer.get("devices", 1)
        if nodes * devices != started:
            raise UserError(
                f"torchrun has started {started} processes, and recipe {run.recipe.name} says {nodes} x {devices} "
                "(trainer.num_nodes, trainer.devices): give both the same"
            )
        return process.main(["run", *run.identity()])
    return 0


def _cluster(options: argparse.Namespace) -> Cluster | None:
    if options.cluster != "slurm" and (options.partition or options.slurm):
        raise UserError("--partition and --slurm are for --cluster slurm")
    folder = options.results / "jobs"
    if options.cluster == "local":
        return Local(folder, options.workers)
    if options.cluster is None:
        return None
    if options.workers > 1:
        raise UserError("--workers is for one machine; on a cluster, Slurm says how many run at a time")
    partition = {"partition": options.partition} if options.partition else {}
    return Slurm(folder, {**partition, **dict(options.slurm)})


def _submit(runs: list[Run], cluster: Cluster) -> int:
    submit_all(runs, cluster, lambda line: print(line, flush=True))
    print(f"nl-lightning status shows how far they are; what they print: {runs[0].log.parent.parent}/*/seed*.log")
    return 0


def _sweeps(options: argparse.Namespace) -> int:
    study, recipe = _study(options)
    folder = Path("sweeps") if recipe.name == study.recipe else Path("sweeps") / recipe.name
    for path in sweeps.write_sweeps(study, recipe, options.seed or [0], folder, options.full_grid):
        print(f"wandb sweep {path}")
    return 0


def _write_tables(study: Study, recipe: Recipe, results: Path) -> tuple["Report", list[Path]]:
    from nl_lightning.report.claims import report  # pandas: half a second
    from nl_lightning.report.collate import collect
    from nl_lightning.report.render import write_tables

    found = report(collect(study, recipe, results))
    return found, write_tables(found, results)


def _print_tables(study: Study, recipe: Recipe, results: Path, tables: list[str] | None = None) -> "Report":
    runs, written = _write_tables(study, recipe, results)
    _print_runs(runs, written, tables)
    return runs


def _print_runs(runs: "Report", written: list[Path], tables: list[str] | None = None) -> None:
    from nl_lightning.report.render import print_study

    print_study(Console(), runs, tables)
    print(f"{len(written)} files in {written[0].parent}")


def _status(options: argparse.Namespace) -> int:
    runs = _planned(options)
    console = Console()
    name_width = max(len(run.variant.name) for run in runs)
    room = max(12, console.width - name_width - 34)  # a narrow terminal cuts the note, nothing else
    metric = runs[0].study.metric
    table = Table("variant", "seed", "state", f"{metric.name} %", "", box=None, header_style="bold")
    counts: Counter[str] = Counter()
    for run, state in zip(runs, states(runs), strict=True):
        counts[state.name] += 1
        score = f"{state.record.score(metric):.1f}" if state.record else ""
        note = state.note if len(state.note) <= room else f"{state.note[: room - 3]}..."
        table.add_row(run.variant.name, str(run.seed), state.name, score, note)
    console.print(table)
    said = ", ".join(f"{count} {name}" for name, count in counts.items())
    console.print(f"{said}, in {options.results}", highlight=False)
    return 0


def _report(options: argparse.Namespace) -> int:
    study, recipe = _study(options)
    if options.wandb is None and options.wandb_offline is None:
        runs = _print_tables(study, recipe, options.results)
    else:
        runs = _print_wandb(study, recipe, options)
    if options.readme is not None:
        from nl_lightning.report.render import update_readme

        update_readme(options.readme, runs)
    if options.html:
        from nl_lightning.report.html import write_html

        print(write_html(runs, options.results))
    return 0


def _power(options: argparse.Namespace) -> int:
    from nl_lightning.report.collate import collect
    from nl_lightning.report.power import plan_of, power_columns
    from nl_lightning.report.render import print_columns

    study, recipe = _study(options)
    found = plan_of(collect(study, recipe, options.results), options.videos, options.disagreement, options.seed_noise)
    console = Console()
    console.print(found.said, highlight=False)
    print_columns(console, power_columns(study, found))
    return 0


def _rescore(options: argparse.Namespace) -> int:
    from nl_lightning.report.rescore import lines, rescore, rescore_record

    if options.record.suffix == ".parquet":
        rescored = rescore(options.record)
    else:
        rescored, record = rescore_record(options.record)
        print(f"the stored views give the record's {record.top1} % and {record.top5} % again, video by video")
    table = Table("views", "a video's score", "top-1 %", "top-5 %", box=None, header_style="bold")
    for views, rule, top1, top5 in lines(rescored):
        table.add_row(views, rule, f"{top1:.2f}", f"{top5:.2f}" if top5 == top5 else "")
    Console().print(table)
    print(f"{rescored.videos} videos, {rescored.unreadable} missing: wrong, unless a line says otherwise")
    return 0


def _weights_import(options: argparse.Namespace) -> int:
    from nl_lightning.weights.importing import import_weights  # takes seconds: torch

    imported = import_weights(
        options.file, options.out, options.source, options.variant, not options.without_classifier
    )
    print("\n".join(imported.lines()))
    print(f"written to {options.out}")
    return 0


def _weights_export(options: argparse.Namespace) -> int:
    from nl_lightning.weights.exporting import export_weights  # takes seconds: torch

    print(f"{export_weights(options.file, options.out, options.to)} tensors written to {options.out}")
    return 0


def _print_wandb(study: Study, recipe: Recipe, options: argparse.Namespace) -> "Report":
    from nl_lightning.report.claims import report
    from nl_lightning.report.render import write_tables  # W&B and pandas: a second
    from nl_lightning.tracking.log import logged_in
    from nl_lightning.tracking.offline import from_folders, from_server
    from nl_lightning.tracking.read_back import print_left_out, select

    if options.wandb is not None and not logged_in():
        raise UserError("--wandb: nobody is logged in at W&B; log in with 'wandb login', or set WANDB_API_KEY")
    found = from_folders(options.wandb_offline) if options.wandb is None else from_server(options.wandb)
    runs, left_out = select(study, recipe, found)
    made = report(runs)
    _print_runs(made, write_tables(made, options.results))
    print_left_out(Console(), left_out, len(found))
    return made


def _attend(options: argparse.Namespace) -> int:
    from nl_lightning.inspect.attend import attend  # takes seconds: torch, matplotlib

    print("\n".join(attend(options.video, options.weights, options.block, options.query, options.out)))
    return 0


def _reach(options: argparse.Namespace) -> int:
    from nl_lightning.inspect.reach import reach, reach_of_weights  # takes seconds: torch, matplotlib

    if options.weights and options.variant:
        raise UserError("--weights: trained networks are drawn in place of variants; give one or the other")
    if options.weights:
        said = reach_of_weights(options.weights, options.out)
    else:
        said = reach(*_study(options), options.variant, options.out)
    print("\n".join(said))
    return 0


def _predict(options: argparse.Namespace) -> int:
    from nl_lightning.inspect.predict import Prediction, as_json, as_text, predictions  # takes seconds: torch

    found: list[Prediction] = []
    for prediction in predictions(options.video, options.weights):
        found.append(prediction)
        if not options.json:
            print(as_text(prediction), flush=True)
    if options.json:
        print(as_json(found))
    return 1 if any(prediction.error for prediction in found) else 0


def _explain(options: argparse.Namespace) -> int:
    """How each non-local block of the variants computes Eq. (1), for one clip of the recipe."""
    from nl_lightning.train.lightning_cli import block_costs_of  # takes seconds: torch

    columns = ("block", "sets", "queries", "keys", "N x N, MiB", "on a CPU", "on a GPU")
    for run in _planned(options):
        title = {"title": run.variant.name, "title_justify": "left", "title_style": "bold"}
        table = Table(*columns, box=None, header_style="bold", **title)  # type: ignore[arg-type]
        for cpu, gpu in zip(block_costs_of(run, "cpu"), block_costs_of(run, "cuda"), strict=True):
            sizes = (str(size) for size in (cpu.sizes.sets, cpu.sizes.queries, cpu.sizes.keys))
            table.add_row(cpu.name, *sizes, f"{cpu.matrix * 4 / 2**20:.3g}", cpu.form, gpu.form)
        Console().print(table)
    return 0


def _data_of(options: argparse.Namespace) -> "VideoDataModule":
    from nl_lightning.train.lightning_cli import data_of  # takes seconds: torch

    recipe = load_recipe(options.recipe)
    root = [f"--data.root={options.root}"] if options.root is not None else []
    data = data_of([*(f"--config={file}" for file in recipe.files), *root])
    data.generate()
    return data


def _data_check(options: argparse.Namespace) -> int:
    from nl_lightning.data.annotations import read_annotation
    from nl_lightning.data.known import overlap, said_of
    from nl_lightning.data.manifest import NAME
    from nl_lightning.data.tools.check import by_error, counts, take_census  # takes seconds: torch

    data = _data_of(options)
    splits, file = data.splits(), options.out or data.root / NAME
    rows = take_census(splits, data.root, file, options.workers, options.hash)
    table = Table("", "expected", "present", "decodable", box=None, header_style="bold")
    for count in counts(rows):
        table.add_row(count.split, str(count.expected), str(count.present), str(count.decodable))
    console = Console()
    console.print(table)
    for error, number, example in by_error(rows):
        console.print(f"{number} x {error} ({example})", highlight=False, markup=False)
    for split, videos in splits.items():
        console.print(said_of(len(videos), split), highlight=False)
        if options.compare is not None:
            other = read_annotation(str(options.compare.resolve()), data.root, split)
            shared = overlap(videos.paths.names(), other.paths.names())
            console.print(
                f"{split} and {options.compare}: {shared.both} ids in both, {shared.first_only} in {split} only, "
                f"{shared.second_only} in the list only, {shared.without_id} names without an id", highlight=False,
            )  # fmt: skip
    console.print(f"written to {file}", highlight=False)
    return 0


def _data_prepare(options: argparse.Namespace) -> int:
    from nl_lightning.data.tools.prepare import prepare  # takes seconds: torch

    data = _data_of(options)
    lists = [name for name in data.lists.values() if name is not None]
    made = prepare(data.splits(), lists, data.root, options.out, options.workers)
    for name, error in made.as_they_are.items():
        print(f"{error} (copied as it is: {name})")
    print(
        f"{made.made} videos copied, {made.there} were there, {len(made.as_they_are)} copied as they are, "
        f"{len(made.absent)} absent; train with --data.root={options.out}"
    )
    return 0


def _data_shards(options: argparse.Namespace) -> int:
    from nl_lightning.data.shards import pack  # takes seconds: torch

    data = _data_of(options)
    packed, absent = pack(data.splits(), data.root, options.out, options.shard_mb * 1_000_000)
    print(f"{packed} videos packed, {len(absent)} absent; train with --data.shards={options.out}")
    return 0


def _complexity(options: argparse.Namespace) -> int:
    from nl_lightning.train.lightning_cli import run_complexity  # takes seconds: torch

    if options.explain:
        return _explain(options)

    table = Table("variant", "params M", "multiply-adds G a clip", box=None, header_style="bold")
    for run in _planned(options):
        cost = run_complexity(run)
        table.add_row(run.variant.name, f"{cost.params / 1e6:.3f}", f"{cost.macs / 1e9:.3f}")
    Console().print(table)
    return 0


if __name__ == "__main__":
    sys.exit(main())
