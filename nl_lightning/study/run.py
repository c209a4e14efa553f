"""One run of a study: a variant under a recipe from a seed. Where its files lie, and which runs a study has.

No torch here: planning and looking are quick.
"""

import dataclasses
import functools
import json
import os
import platform
import shlex
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nl_lightning.study.records import State, marker_path, predictions_path, state, write_atomically
from nl_lightning.study.study import Recipe, Study, Variant, load_recipe, load_study, run_hash

CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""Where a run's newest weights lie, below its folder."""
PREVIOUS = "previous.ckpt"
"""Name of the checkpoint before it, in the same folder."""
CHECKPOINT_MINUTES = 10.0
"""From one checkpoint to the next, at most; there is one after every epoch as well."""
AGAIN = ("failed", "interrupted", "preempted")
"""States of a run that was begun and hasn't its record."""


@dataclass(frozen=True)
class Run:
    """A variant under a recipe from a seed: what becomes one record.

    Attributes:
        study: what it is part of.
        variant: the network.
        base: the recipe, without what it changes for the variant's clip.
        seed: of weights, sample order and augmentation.
        results: folder of records, predictions, tables and runs.
        checkpoint_minutes: from one checkpoint to the next, at most. (It changes no number.)
    """

    study: Study
    variant: Variant
    base: Recipe
    seed: int
    results: Path
    checkpoint_minutes: float = CHECKPOINT_MINUTES

    @functools.cached_property
    def recipe(self) -> Recipe:
        return self.base.with_clip(self.variant.clip)

    @functools.cached_property
    def config_hash(self) -> str:
        return run_hash(self.study, self.base, self.variant.name, self.seed)

    def state(self) -> State:
        return state(self.results, self.study, self.base, self.variant.name, self.seed)

    def is_done(self) -> bool:
        return self.state().name == "done"

    @property
    def name(self) -> str:
        return f"{self.variant.name} seed {self.seed}"

    @property
    def folder(self) -> Path:
        return self.marker.parent

    @property
    def checkpoint(self) -> Path:
        return self.folder / CHECKPOINT

    @property
    def parent(self) -> "Run | None":
        """The run that it starts from."""
        if self.variant.init_from is None:
            return None
        return dataclasses.replace(self, variant=self.study.variant(self.variant.init_from))

    @property
    def predictions(self) -> Path:
        return predictions_path(self.results, self.recipe.name, self.variant.name, self.seed, self.config_hash)

    def arguments(self) -> list[str]:
        """What ``nl-lightning fit`` and ``test`` take: the recipe's files, then what the variant adds."""
        arguments = [f"--config={file}" for file in self.recipe.files]
        arguments += [f"--seed_everything={self.seed}", *self.variant.arguments()]
        if self.parent is not None:
            arguments.append(f"--model.init_from={self.parent.checkpoint}")
        return [
            *arguments,
            f"--model.predictions={self.predictions}",
            f"--trainer.default_root_dir={self.folder}",
        ]

    def commands(self) -> list[str]:
        """The commands by which a person would do the same, without the record."""
        arguments = shlex.join(self.arguments())
        return [
            f"nl-lightning fit {arguments}",
            f"nl-lightning test {arguments} --ckpt_path={self.checkpoint}",
        ]

    def tables(self) -> list[str]:
        """The tables of the study with a row of this variant."""
        tables = self.study.tables.values()
        return [t.name for t in tables if self.variant.name in {row.variant for row in t.rows}]

    def columns(self) -> dict[str, str | int]:
        """Flat columns that make W&B's own table of runs readable."""
        return {
            **self.variant.columns(),
            "study": self.study.name,
            "recipe": self.base.name,
            "seed": self.seed,
            "frames": self.recipe.config["data"]["num_frames"],
            "config_hash": self.config_hash,
        }

    @property
    def wandb(self) -> dict[str, Any]:
        """The W&B run that it was begun as (``id``), and its sweep, if it has one (``sweep``)."""
        return _read_json(self.folder / "wandb.json")

    def note_wandb(self, run_id: str, sweep: str | None) -> None:
        write_atomically(self.folder / "wandb.json", json.dumps({"id": run_id, "sweep": sweep}))

    @property
    def log(self) -> Path:
        """Everything that the run printed, at every attempt."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def weight(self) -> int:
        """How much of the study's time it takes, roughly: for the bar of the whole study."""
        return int(self.variant.net["depth"])

    def identity(self) -> list[str]:
        """What names this run to :mod:`nl_lightning.runs.worker`."""
        named = (self.study.path, self.variant.name, self.base.files[0], self.seed, self.results)
        return [*map(str, named), str(self.checkpoint_minutes)]

    @property
    def marker(self) -> Path:
        """Where the run says how far it is; see :func:`nl_lightning.study.records.state`."""
        return marker_path(self.results, self.base.name, self.variant.name, self.seed)

    def say(self, state: str, **more: Any) -> None:
        """Mark the run: ``running``, in this process, or what became of it."""
        said = {"state": state, "pid": os.getpid(), "host": platform.node(), "config_hash": self.config_hash}
        write_atomically(self.marker, json.dumps(said | more), durable=False)  # written every second

    def said(self) -> dict[str, Any]:
        """What the run's marker says, or nothing."""
        return _read_json(self.marker)

    def prepare_folder(self) -> None:
        """Make the run's folder; one left by another configuration is moved aside, never overwritten."""
        left = self.said().get("config_hash", self.config_hash)
        if left != self.config_hash:
            self.folder.rename(self.folder.with_name(f"{self.folder.name}.{left}.{int(time.time())}"))
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        for unfinished in self.checkpoint.parent.glob(".*.tmp"):  # a process was killed while it wrote
            unfinished.unlink()


def _read_json(path: Path) -> dict[str, Any]:
    try:
        said = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return said if isinstance(said, dict) else {}


def plan(
    study: Study,
    recipe: Recipe,
    seeds: Sequence[int],
    results: Path,
    tables: Sequence[str] | None = None,
    variants: Sequence[str] | None = None,
    parents: bool = True,
) -> list[Run]:
    """The selected runs of a study, done or not, in the order to run them: all variants of a seed, then the next.

    With `parents`, the runs that a selected one starts from are selected too.
    """
    selected = study.select(tables, variants, parents)
    return [
        Run(study, study.variant(name), recipe, seed, results) for seed in dict.fromkeys(seeds) for name in selected
    ]


def identified(
    study: str, variant: str, recipe: str, seed: str, results: str, checkpoint_minutes: str = str(CHECKPOINT_MINUTES)
) -> Run:
    """The run of this :meth:`Run.identity`, as its files are now."""
    of = load_study(Path(study))
    return Run(of, of.variant(variant), load_recipe(recipe), int(seed), Path(results), float(checkpoint_minutes))


def to_run_again(runs: Sequence[Run]) -> list[Run]:
    """Those that failed or were interrupted, wherever they ran, and what they start from."""
    again = {(run.variant.name, run.seed) for run in runs if run.state().name in AGAIN}
    again |= {(name, seed) for variant, seed in again for name in runs[0].study.ancestors(variant)}
    return [run for run in runs if (run.variant.name, run.seed) in again]
