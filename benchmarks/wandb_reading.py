"""How long ``nl-lightning report`` takes with 1,000 records from W&B, and with 1,000 offline run folders.

``PYTHONPATH=tests python benchmarks/wandb_reading.py`` prints the seconds of each whole command. The server is the
tests' stand-in on this machine, so the network and W&B's own service are not in the figures. The records are those in
``results/``, with the seeds that are missing to make 1,000; each offline run logs 200 steps.
"""

import itertools
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

import wandb
from wandb_standin import ENTITY, Run, WandbServer

from nl_lightning.study.loading import find_study, load_study
from nl_lightning.study.recipe import load_recipe, run_hash
from nl_lightning.study.records import Record, load_records

RUNS, STEPS = 1000, 200


def records() -> Iterator[Record]:
    study, recipe = load_study(find_study("table2")), load_recipe("longrange")
    measured = load_records(Path("results"), "longrange")[0]
    for seed in itertools.count():
        for record in measured:
            yield replace(record, seed=seed, config_hash=run_hash(study, recipe, record.variant, seed))


def put(server: WandbServer, record: Record) -> None:
    """What a run leaves on the server: the record, and its recipe once more as configuration."""
    name = record.config_hash
    run = Run(ENTITY, "p", name, f"{record.variant} seed {record.seed}", "finished")
    run.config = {"config": {"value": record.config}}
    run.summary = {"record": json.dumps(asdict(record)), "top1": record.top1, "top5": record.top5}
    server.state.runs[name] = run


def write_folders(some: list[Record], folder: Path) -> None:
    """Real offline runs, one after the other; this takes minutes."""
    os.environ |= {"WANDB_DIR": str(folder), "WANDB_MODE": "offline", "WANDB_CONSOLE": "off"}
    for record in some:
        with wandb.init(project="p", id=record.config_hash) as run:
            for step in range(STEPS):
                run.log({"train/loss": 1 / (1 + step), "train/top1": 0.1 * step, "epoch": step})
            run.summary.update({"record": json.dumps(asdict(record)), "top1": record.top1})
    sizes = [file.stat().st_size for file in folder.glob("wandb/offline-run-*/*.wandb")]
    print(f"{len(sizes)} offline runs of {sum(sizes) / len(sizes) / 1e3:.0f} kB each")


def timed(what: str, folder: Path, *arguments: str) -> None:
    command = [sys.executable, "-m", "nl_lightning.cli", "report", "table2", "--recipe", "longrange"]
    began = time.monotonic()
    done = subprocess.run([*command, "--results", str(folder / "results"), *arguments], capture_output=True, text=True)
    seconds = time.monotonic() - began
    print(f"{what}: {seconds:.1f} s ({done.stdout.splitlines()[-1] if done.returncode == 0 else done.stderr})")


def main() -> None:
    server = WandbServer()
    try:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            os.environ |= server.environment(folder)
            some = list(itertools.islice(records(), RUNS))
            for record in some:
                put(server, record)
            timed(f"{RUNS} records from W&B", folder, "--wandb", f"{ENTITY}/p")
            write_folders(some, folder / "offline")
            timed(f"{RUNS} offline run folders", folder, "--wandb-offline", str(folder / "offline"))
    finally:
        server.stop()


if __name__ == "__main__":
    main()
