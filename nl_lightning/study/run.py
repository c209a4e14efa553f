"""A run of a study: one variant under one recipe from one seed. Its files, where it stands, and which ones a study has.

No torch here: planning and looking are quick.
"""

import contextlib
import dataclasses
import functools
import json
import os
import platform
import re
import shlex
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast

from pydantic import Field

from nl_lightning.errors import UserError
from nl_lightning.study.border import Seed, checked, read_json
from nl_lightning.study.files import read_text, write_atomically
from nl_lightning.study.loading import load_study
from nl_lightning.study.lock import holder
from nl_lightning.study.recipe import Recipe, load_recipe, run_hash, with_key, with_stills
from nl_lightning.study.records import Hash, Record, predictions_path, record_in_place, record_path
from nl_lightning.study.study import STILLS, Study, Variant

CHECKPOINT = Path("checkpoints") / "last.ckpt"
"""Where a run's newest weights lie, below its folder."""
PREVIOUS = "previous.ckpt"
"""Name of the checkpoint before it, in the same folder."""
CHECKPOINT_MINUTES = 10.0
"""From one checkpoint to the next, at most; there is one after every epoch as well."""
Logger = Literal["wandb", "tensorboard", "csv", "none"]
"""Who is told a run's curves: W&B, or files in the run's folder."""
AGAIN = ("failed", "interrupted", "preempted")
"""States of a run that was begun and hasn't its record."""


@dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes:
        name: ``done``: there is a record of this very configuration. ``stale``: there is one, of another.
            ``unreadable``: there is a file in its place that can't be read as one. ``running``: a live process holds
            its lock. ``failed``, ``preempted`` (told to make room; it goes on from its checkpoint): as it said itself
            at its end. ``queued``: submitted to a cluster. ``interrupted``: begun, but its process is gone.
            ``missing``: nothing of it is here.
        note: one line for people: who runs it, why it failed, which hash differs. When done, only that it diverged.
        record: the record, only if done: a stale one can't be used by accident.
    """

    name: Literal["done", "stale", "unreadable", "missing", "running", "failed", "preempted", "queued", "interrupted"]
    note: str = ""
    record: Record | None = None


@dataclass(frozen=True)
class Marker:
    """What a run says of itself while it is at work (``state.json`` in its folder), about once a second.

    Attributes:
        state: what became of it; ``running`` is believed only while its process holds the run's lock.
        config_hash: the configuration that it is about: what became of another one says nothing about this one.
        error: why it failed.
        job: the cluster's job that it waits for.
        phase, done, total: how far it is; ``start`` until the first step.
    """

    state: Literal["running", "failed", "preempted", "queued"] | None = None
    config_hash: Hash | None = None
    pid: int | None = None
    host: str | None = None
    error: str = ""
    job: str = ""
    phase: Literal["start", "train", "test"] | None = None
    done: Annotated[float, Field(ge=0)] = 0
    total: Annotated[float, Field(ge=0)] = 0

    @property
    def share_done(self) -> float:
        """0 to 1; testing is the last twentieth."""
        share = min(1.0, self.done / max(1.0, self.total))
        return {"train": 0.95 * share, "test": 0.95 + 0.05 * share}.get(self.phase or "", 0.0)


@dataclass(frozen=True)
class Begun:
    """The W&B run that a run was begun as (``wandb.json`` in its folder), and its sweep, if it has one."""

    id: Annotated[str, Field(pattern=r"^[^/\\#?%:\s]{1,128}$")] | None = None
    sweep: str | None = None


@dataclass(frozen=True)
class Run:
    """A variant under a recipe from a seed: what becomes one record.

    Attributes:
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
    logger: Logger = "wandb"

    def __post_init__(self) -> None:
        checked(Seed, self.seed, "seed")

    @functools.cached_property
    def recipe(self) -> Recipe:
        """The recipe as the variant is trained under it."""
        return self.base.with_clip(self.variant.clip).over(self.study)

    @functools.cached_property
    def config(self) -> Mapping[str, Any]:
        """The recipe, with the variant's settings laid over it."""
        found = self.recipe.config
        for key, value in self.variant.settings.items():
            found = with_key(found, key, value)
        return found

    @functools.cached_property
    def config_hash(self) -> str:
        """The hash of everything that can change its numbers."""
        return run_hash(self.study, self.base, self.variant.name, self.seed)

    def state(self) -> State:
        """Where it stands, by its files."""
        record, unreadable = None, None
        place = (self.results, self.base.name, self.variant.name, self.seed)
        if os.path.lexists(record_path(*place)):
            try:
                record = record_in_place(*place)
            except UserError as error:
                unreadable = State("unreadable", str(error))
        recorded = state_by_record(self.study, self.base, self.variant.name, self.seed, record)
        if recorded.name == "done" or (recorded.name == "missing" and recorded.note):
            return recorded
        if (who := holder(self.folder)) is not None:
            return State("running", str(who))
        if (marked := self._marked()) is not None:
            return marked
        here = self.folder.is_dir() and self._left() in (None, "unknown", self.config_hash)
        if record is None and unreadable is None and here:
            return State("interrupted", "its process is gone")  # killed before it could say anything
        return unreadable or recorded

    def _marked(self) -> State | None:
        """Where it stands by its marker; None if that says nothing of this configuration."""
        if not os.path.lexists(self.marker):
            return None
        marker = self.said()
        if marker.state is None:
            return State("interrupted", f"{self.marker} can't be read")
        if marker.config_hash not in (None, self.config_hash):
            return None
        if marker.state == "running":
            who = f"process {marker.pid} on {marker.host}"
            return State("interrupted", f"{who} was stopped or is gone; 'run' goes on from there")
        return State(marker.state, " ".join((marker.error or marker.job).split()))

    def is_done(self) -> bool:
        """Whether it has its record."""
        return self.state().name == "done"

    @property
    def name(self) -> str:
        """What people call it."""
        return f"{self.variant.name} seed {self.seed}"

    @property
    def folder(self) -> Path:
        """Where its checkpoints and its marker are."""
        return self.results / "runs" / self.base.name / self.variant.name / f"seed{self.seed}"

    @property
    def checkpoint(self) -> Path:
        """Its newest weights."""
        return self.folder / CHECKPOINT

    @property
    def parent(self) -> "Run | None":
        """The run that it starts from."""
        if self.variant.init_from is None:
            return None
        return dataclasses.replace(self, variant=self.study.variant(self.variant.init_from))

    @property
    def predictions(self) -> Path:
        """What its test gave of each video."""
        return predictions_path(self.results, self.recipe.name, self.variant.name, self.seed, self.config_hash)

    def arguments(self) -> list[str]:
        """What ``nl-lightning fit`` and ``test`` take: the recipe's files, then what the variant adds."""
        arguments = [f"--{part}={json.dumps(named)}" for part, named in self.study.base.items()]
        arguments += [f"--config={file}" for file in self.recipe.files]
        arguments += [f"--seed_everything={self.seed}", *self.variant.arguments()]
        if self.parent is not None:
            arguments.append(f"--model.init_from={self.parent.checkpoint}")
            if self.parent.variant.clip == STILLS:  # without blocks, and with other classes
                arguments.append("--model.init_new=[non_local, fc]")
        if self.recipe.module is None:
            arguments.append(f"--model.predictions={self.predictions}")
        return [*arguments, f"--trainer.default_root_dir={self.folder}"]

    def commands(self) -> list[str]:
        """The commands by which a person would do the same, without the record."""
        call, arguments = "nl-lightning", shlex.join(self.arguments())
        beside = self.study.path.resolve().parent
        module = (self.recipe.module_of(self.variant) or "").partition(".")[0]
        if (beside / f"{module}.py").is_file():  # `fit` isn't told of the study
            call = f"PYTHONPATH={shlex.quote(str(beside))}:$PYTHONPATH {call}"
        return [f"{call} fit {arguments}", f"{call} test {arguments} --ckpt_path={self.checkpoint}"]

    def columns(self) -> dict[str, str | int]:
        """Flat columns that make W&B's own table of runs readable."""
        frames = {} if self.recipe.module else {"frames": self.config.get("data", {}).get("num_frames") or "default"}
        return {
            **self.study.columns(self.variant.name),
            "study": self.study.name,
            "recipe": self.base.name,
            "seed": self.seed,
            **frames,
            "config_hash": self.config_hash,
        }

    @property
    def wandb(self) -> Begun:
        """The W&B run that it was begun as, or nothing."""
        return noted(Begun, self.folder / "wandb.json") or Begun()

    def note_wandb(self, run_id: str, sweep: str | None) -> None:
        """Note as which W&B run, and of which sweep, it was begun."""
        write_atomically(self.folder / "wandb.json", json.dumps({"id": run_id, "sweep": sweep}))

    @property
    def log(self) -> Path:
        """Everything that the run printed, at every attempt."""
        return self.folder.with_name(f"{self.folder.name}.log")

    @property
    def weight(self) -> int:
        """How much of the study's time it takes, roughly: for the bar of the whole study."""
        return int(self.variant.net.get("depth", 1))

    def identity(self) -> list[str]:
        """What names this run to :mod:`nl_lightning.runs.worker`."""
        named = (self.study.path, self.variant.name, self.base.files[0], self.seed, self.results)
        return [*map(str, named), str(self.checkpoint_minutes), self.logger]

    @property
    def marker(self) -> Path:
        """Where the run says how far it is, or what became of it; see :class:`Marker`."""
        return self.folder / "state.json"

    def say(self, state: str, **more: Any) -> None:
        """Mark the run: ``running``, in this process, or what became of it."""
        said = {"state": state, "pid": os.getpid(), "host": platform.node(), "config_hash": self.config_hash}
        write_atomically(self.marker, json.dumps(said | more), durable=False)  # written every second

    def said(self) -> Marker:
        """What the run's marker says, or nothing."""
        return noted(Marker, self.marker) or Marker()

    @property
    def configuration(self) -> Path:
        """The hash of its configuration, on the disk before any checkpoint: a power cut can take the marker."""
        return self.folder / "configuration"

    def _left(self) -> str | None:
        """Of which configuration its folder is; None if it has nothing that a run could go on from."""
        if os.path.lexists(self.configuration):
            with contextlib.suppress(UserError):
                if found := re.fullmatch(r"([0-9a-f]{12})\n", read_text(self.configuration)):
                    return found[1]
            return "unknown"
        left = self.checkpoint.parent.is_dir() and any(self.checkpoint.parent.iterdir())
        return self.said().config_hash or ("unknown" if left else None)

    def prepare_folder(self) -> None:
        """Make the run's folder; one left by another configuration is moved aside, never overwritten."""
        if (left := self._left()) not in (None, self.config_hash):
            self.folder.rename(self.folder.with_name(f"{self.folder.name}.{left}.{int(time.time())}"))
        self.checkpoint.parent.mkdir(parents=True, exist_ok=True)
        if not os.path.lexists(self.configuration):
            write_atomically(self.configuration, f"{self.config_hash}\n")
        for unfinished in self.checkpoint.parent.glob(".*.tmp"):  # a process was killed while it wrote
            unfinished.unlink()


T = TypeVar("T")


def noted(type_: type[T], path: Path) -> T | None:
    """What a small file of a run says; None if it isn't there, or says what no version of this package writes."""
    try:
        return checked(type_, read_json(path, most=1 << 20), str(path), unknown="ignore")
    except UserError:
        return None


def state_by_record(study: Study, recipe: Recipe, variant: str, seed: int, record: Record | None) -> State:
    """Where a run stands as far as a record of it says, wherever that was found."""
    for name in (variant, *study.ancestors(variant)):
        clip = study.variants[name].clip
        if clip is not None and not recipe.overlay(clip).is_file():
            return State("missing", f"recipe {recipe.name} has no {recipe.overlay(clip).name} for 'clip: {clip}'")
    expected, found = run_hash(study, recipe, variant, seed), study.variants[variant]
    if record is None:
        return State("missing")
    if record.config_hash != expected:
        return State("stale", f"made with configuration {record.config_hash}, now {expected}")
    module = recipe.with_clip(found.clip).over(study).module_of(found)
    for key, value in (("init_from", found.init_from), ("module", module or "")):
        if (said := getattr(record, key)) != value:
            return State("unreadable", f"{key}: expected {value or None}, as the study has it, got {said or None}")
    if study.metric.key not in record.scores and not record.diverged and found.clip != STILLS:  # they have their own
        return State("unreadable", f"{study.metric.key}, by which the study compares, isn't among what was measured")
    return State("done", f"diverged: {record.diverged}" if record.diverged else "", record)


def agreeing(states: Mapping[tuple[str, int], State]) -> dict[tuple[str, int], State]:
    """Where runs stand, by variant and seed: a record is unreadable if its network isn't that of most other seeds."""
    found = dict(states)
    for variant in dict.fromkeys(name for name, _ in states):
        records = {key: state.record for key, state in states.items() if key[0] == variant and state.record}
        for field in ("params", "macs"):
            most = Counter(getattr(record, field) for record in records.values()).most_common(2)
            agreed = most[0][0] if len(most) == 1 or (most and most[0][1] > most[1][1]) else None
            for key, record in records.items():
                if (value := getattr(record, field)) != agreed:
                    other = "other seeds have others" if agreed is None else f"other seeds have {agreed:,}"
                    found[key] = State("unreadable", f"{field}: {value:,} in its record, but {other}")
    return found


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
    study = with_stills(study, recipe)
    selected = study.select(tables, variants, parents)
    return [
        Run(study, study.variant(name), recipe, seed, results) for seed in dict.fromkeys(seeds) for name in selected
    ]


def identified(
    study: str, variant: str, recipe: str, seed: str, results: str,
    checkpoint_minutes: str = str(CHECKPOINT_MINUTES), logger: str = "wandb",
) -> Run:  # fmt: skip
    """The run of this :meth:`Run.identity`, as its files are now. UserError if it names none."""
    try:
        numbers = int(seed), float(checkpoint_minutes)
    except ValueError:
        raise UserError(f"{seed}, {checkpoint_minutes}: expected a seed and minutes between checkpoints") from None
    under = load_recipe(recipe)
    of = with_stills(load_study(Path(study)), under)
    return Run(of, of.variant(variant), under, numbers[0], Path(results), numbers[1], cast(Logger, logger))


def begun(study: Study, base: Recipe, results: Path) -> list[Run]:
    """The runs of a study that have a folder, whatever became of them."""
    folders = sorted((results / "runs" / base.name).glob("*/seed*/"))
    named = [(path.parent.name, path.name.removeprefix("seed")) for path in folders]
    return [
        Run(study, study.variants[variant], base, int(seed), results)
        for variant, seed in named
        if variant in study.variants and re.fullmatch("[0-9]{1,10}", seed) and int(seed) < 2**32
    ]


def to_run_again(runs: Sequence[Run]) -> list[Run]:
    """Those that failed or were interrupted, wherever they ran, and what they start from."""
    again = {(run.variant.name, run.seed) for run in runs if run.state().name in AGAIN}
    again |= {(name, seed) for variant, seed in again for name in runs[0].study.ancestors(variant)}
    return [run for run in runs if (run.variant.name, run.seed) in again]
