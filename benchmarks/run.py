"""Measure this machine, and write what was found: ``python -m benchmarks.run [--quick] [--part operations ...]``.

Every part keeps its figures in ``benchmarks/results/<machine>/<part>.json``, case by case, and ``speed.md`` there is
written anew from all of them. What has been measured with the code as it is isn't measured again, so an interrupted run
goes on; ``--again`` does, and keeps the older figures too. Leave the machine alone meanwhile.
"""

import argparse
import io
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from benchmarks import machine, networks, operations, page, pipeline, study_cost
from benchmarks.contest import Settings, alone, memory_at_hand
from benchmarks.store import Store, failure

Case = tuple[dict[str, Any], Any]
"""What is measured, as values that tell it from others, and the work."""
PARTS = {
    "operations": operations.cases,
    "networks": networks.cases,
    "growth": operations.growth_cases,
    "pipeline": pipeline.cases,
    "study": study_cost.cases,
}
FEW = 0.6
"""Of the memory at hand, the share that a contestant may be expected to need: the estimate is a lower bound."""


def main(words: Sequence[str] | None = None) -> None:
    given = _arguments(words)
    settings = Settings(
        device=given.device,
        quick=given.quick,
        repeats=given.repeats or (2 if given.quick else 9),
        seconds=given.seconds,
        memory=int(2**30 * given.memory) if given.memory else int(FEW * memory_at_hand(given.device)),
    )
    folder = machine.folder(given.machine, settings.device)
    if settings.quick:  # has a folder of its own, so that its figures are never taken for others
        folder /= page.QUICK
        folder.mkdir(exist_ok=True)
    console = Console(stderr=True)
    with checkout(given.before) as before:
        for part, cases in _chosen(given, settings, before).items():
            try:
                _measure(part, cases, settings, folder, given.again, console)
            finally:  # also of what an interrupted run has
                page.write(folder)
    console.print(f"{folder / 'speed.md'}", highlight=False)


def _chosen(given: argparse.Namespace, settings: Settings, before: Path | None) -> dict[str, list[Case]]:
    """The cases of each part that were asked for; SystemExit if there is none, before anything is measured."""
    measures = PARTS | {"study": partial(study_cost.cases, before=before)}
    there = {part: list(measures[part](settings)) for part in given.part or PARTS}
    wanted = set(given.only)
    found = {part: [case for case in cases if wanted.issubset(_values(case))] for part, cases in there.items()}
    if chosen := {part: cases for part, cases in found.items() if cases}:
        return chosen
    example, only = " ".join(_values(next(iter(there.values()))[0])), " ".join(given.only)
    raise SystemExit(f"--only {only}: no case of {', '.join(there)} has all of these; one is: {example}")


def _values(case: Case) -> list[str]:
    return [str(value) for value in case[0].values()]


@contextmanager
def checkout(commit: str | None) -> Iterator[Path | None]:
    """The package and its recipes as they were at a commit, in a folder for as long as it takes."""
    if commit is None:
        yield None
        return
    command = ["git", "-C", str(machine.REPOSITORY), "archive", commit, "nl_lightning", "experiments"]
    packed = subprocess.run(command, capture_output=True, check=False)
    if packed.returncode:
        raise SystemExit(f"--before {commit}: {packed.stderr.decode().strip()}")
    with tempfile.TemporaryDirectory() as folder, tarfile.open(fileobj=io.BytesIO(packed.stdout)) as files:
        files.extractall(folder, filter="data")
        yield Path(folder)


def _measure(part: str, cases: list[Case], settings: Settings, folder: Path, again: bool, console: Console) -> None:
    """Measure the cases of a part that have not been, and keep each as soon as it is there."""
    store = Store(folder, part)
    waiting = [(case, work) for case, work in cases if again or not store.has(case)]
    said = {name: getattr(settings, name) for name in ("repeats", "memory", "device", "precision")}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(),
               TimeElapsedColumn(), TextColumn("left"), TimeRemainingColumn())  # fmt: skip
    with Progress(*columns, console=console, speed_estimate_period=600) as bar:
        task = bar.add_task(part, total=len(cases), completed=len(cases) - len(waiting))
        for case, work in waiting:
            bar.update(task, description=f"{part}: {' '.join(_values((case, work)))[:45]}")
            try:
                figures = alone(work, settings)
            except Exception as error:  # whatever it is, hours of other cases must not be lost by it
                figures = [failure(error)]
            store.add(case, figures, said)
            bar.advance(task)


def _arguments(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--quick", action="store_true", help="few cases and repeats, in a folder of their own")
    parser.add_argument("--part", choices=tuple(PARTS), nargs="+", help="only these")
    only = "only cases with all of these values, as res2 dot_product training"
    parser.add_argument("--only", nargs="+", default=[], metavar="VALUE", help=only)
    parser.add_argument("--repeats", type=int, help="rounds of each contest at most (9)")
    parser.add_argument("--seconds", type=float, default=60.0, help="for the rounds of a contest (60); three are done")
    parser.add_argument("--memory", type=float, help="GiB that a contestant may need (0.6 of what is free)")
    parser.add_argument("--machine", help="name of the machine's folder")
    parser.add_argument("--again", action="store_true", help="measure also what has been measured with this code")
    parser.add_argument("--before", metavar="COMMIT", help="measure the study's steps by this older code, too")
    return parser.parse_args(words)


if __name__ == "__main__":
    main()
