"""The first figures on a GPU, in ten minutes: ``python -m benchmarks.gpu OUT``.

Block, networks and growth of memory come first, against the peers (``python -m benchmarks.run``). What time is left
goes to one seed of Table 2 at twice the width and 64 pixels, made of the recipe ``longrange``. Both stop in time and
keep what they have; the same command goes on. ``--device cpu --seconds 120`` tries all of it in small.
"""

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import yaml

from benchmarks import machine
from benchmarks.machine import REPOSITORY
from nl_lightning.study.border import load_yaml
from nl_lightning.study.evidence import cores
from nl_lightning.study.recipe import merged

CONTESTS = 0.4  # of the time
REPORT = 30  # seconds at the end, for tables and page
WIDE: dict[str, dict[str, Any]] = {
    "": {
        "model": {"net": {"width": 0.125}},
        "data": {
            "root": "data/longrange64", "longrange": {"size": 72, "crop": 64}, "short_side": [72, 72], "crop": 64,
            "test_short_side": 72, "test_crop": 64,
        },
    },
    "_stills": {"data": {"root": "data/longrange64_stills", "stills": {"size": 72, "crop": 64}}},
    "_128f": {},
}  # fmt: skip
"""What changes in the files of the recipe."""


def main(words: Sequence[str] | None = None) -> None:
    """Measure, and leave everything in one folder."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path, help="folder for all that is made")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cuda")
    parser.add_argument("--seconds", type=float, default=600.0, help="in all (600)")
    parser.add_argument("--workers", type=int, default=min(8, cores()), help="networks that train at a time")
    given = parser.parse_args(words)
    end, out = time.monotonic() + given.seconds, given.out.resolve()
    contests = ["-m", "benchmarks.run", "--quick", "--device", given.device, "--seconds", "3"]
    for part in ("networks", "operations", "growth"):
        stopped_at([*contests, "--part", part], time.monotonic() + CONTESTS / 3 * given.seconds)
    found = machine.RESULTS / machine.label(given.device)
    if found.is_dir():
        shutil.copytree(found, out / found.name, dirs_exist_ok=True)
    recipe = write_recipes(out / "recipes", given.device)
    study = ["table2", "--recipe", str(recipe), "--results", str(out / "my_results")]
    stopped_at(["-m", "nl_lightning.cli", "run", *study, "--workers", str(given.workers)], end - REPORT)
    stopped_at(["-m", "nl_lightning.cli", "report", *study, "--html"], end)


def write_recipes(folder: Path, device: str) -> Path:
    """The recipe ``longrange_wide`` and what it lays over itself; the path of the first."""
    folder.mkdir(parents=True, exist_ok=True)
    for suffix, changes in WIDE.items():
        base: Any = load_yaml(REPOSITORY / "experiments" / "recipes" / f"longrange{suffix}.yaml")
        recipe = merged(base, changes)
        if device == "cuda" and not suffix:
            recipe["trainer"] |= {"accelerator": "gpu", "precision": "bf16-mixed"}
        (folder / f"longrange_wide{suffix}.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    return folder / "longrange_wide.yaml"


def stopped_at(words: Sequence[str], end: float) -> None:
    """Call Python with these words; what isn't done in time is stopped as by Ctrl-C."""
    with subprocess.Popen([sys.executable, *words], cwd=REPOSITORY, start_new_session=True) as process:
        try:
            process.wait(max(1.0, end - time.monotonic()))
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(20)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


if __name__ == "__main__":
    main()
