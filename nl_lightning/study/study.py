"""What to train and what is reported of it: a study.

A *study* (``experiments/table2.yaml`` is the first) has *variants* (networks, as the arguments by which they
differ), tables of *rows* (a label, a variant, the reported numbers, the baseline of the gain) and *claims*
(sentences of the paper, in parts that are comparisons of variants).
:func:`~nl_lightning.study.loading.load_study` reads one.
"""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from nl_lightning.errors import UserError, nearest
from nl_lightning.study.border import Line, Name, Percent, Positive
from nl_lightning.study.checks import Claim
from nl_lightning.study.metrics import TOP1, Metric


def _no_null(value: Any) -> Any:
    if found := re.search(r'"([Nn]ull|NULL|~)"(?!:)', json.dumps(value)):
        raise ValueError(f"the text '{found[1]}' would become None; choose another, or leave out the quotes")
    return value


Value = Annotated[Any, AfterValidator(_no_null)]
"""What the command line is given, which reads each text once more: one that YAML has for None would be lost."""
STILLS = "stills"
"""The clip of networks that are trained on single frames, for others to start from."""
NET = "model.net."
"""How the settings of our own networks begin."""
COSTS = ("params_ratio", "flops_ratio")
"""What may be reported beside metrics."""


@dataclass(frozen=True)
class Variant:
    """A network to train, as what it adds to a recipe.

    Attributes:
        name: unique in its study; records are filed under it.
        settings: by which it differs, as the command line's dotted keys: ``model.net.depth``, ``data.batch_size``.
        clip: e.g. ``128f``: the recipe is overlaid with its ``<recipe>_128f.yaml``. None: the plain recipe.
        init_from: the variant whose weights it starts from, or None.
    """

    name: str
    settings: Mapping[str, Any]
    clip: str | None = None
    init_from: str | None = None

    @property
    def net(self) -> dict[str, Any]:
        """Its settings of :class:`~nl_lightning.models.resnet.ResNetConfig`; none: it is another LightningModule's.

        Ours say their depth. Another module may have a `net` as well.
        """
        ours = f"{NET}depth" in self.settings
        return {key.removeprefix(NET): value for key, value in self.settings.items() if ours and key.startswith(NET)}

    def arguments(self) -> list[str]:
        """Command-line arguments of ``nl-lightning fit``: texts raw, everything else as JSON."""
        return [f"--{key}={shown_value(value)}" for key, value in self.settings.items()]

    def columns(self) -> dict[str, str | int]:
        """Its `net` as flat columns, see :meth:`Study.columns`. ``blocks`` counts also what stands in their place."""
        if not self.net:
            return {"variant": self.name}
        non_local: Mapping[str, Any] = self.net.get("non_local") or {}
        control: Mapping[str, Any] = self.net.get("control") or {}
        placement: Mapping[str, list[int]] = (non_local or control).get("placement", {})
        inflate = self.net.get("inflate", "none")
        return {
            "variant": self.name,
            "backbone": "c2d" if inflate == "none" else "i3d",
            "depth": self.net["depth"],
            "inflate": inflate,
            "instantiation": non_local.get("instantiation", "none"),
            "stage": "+".join(placement) or "none",
            "blocks": sum(len(after) for after in placement.values()),
            "placement": "+".join(placement_name(stage, len(after)) for stage, after in placement.items()) or "none",
            "sum_over": non_local.get("sum_over", "none"),
            "control": control.get("kind", "none"),
            "clip": self.clip or "default",
        }


@dataclass(frozen=True)
class Row:
    """A row of a table. Its gain is taken from the variant `baseline`; None in the baseline's own row.

    Without a `variant` it is what others report, shown for comparison and never run. `reported`: metrics by their short
    keys, and costs as multiples of the baseline's (:data:`COSTS`).
    """

    label: Line
    variant: str | None = None
    reported: dict[str, Any] = field(default_factory=dict)
    baseline: str | None = None


@dataclass(frozen=True)
class Table:
    """Rows in the order of the paper."""

    name: str
    caption: str
    rows: tuple[Row, ...]

    @property
    def variants(self) -> list[str]:
        """The variants of its rows, in order."""
        return [row.variant for row in self.rows if row.variant is not None]


@dataclass(frozen=True)
class Learned:
    """When a group of test videos counts as learned: beyond half of the way from a floor to a ceiling, in percent."""

    floor: Percent
    ceiling: Percent

    def __post_init__(self) -> None:
        if self.floor >= self.ceiling:
            raise ValueError(f"expected a floor below the ceiling, got {self.floor:g} and {self.ceiling:g}")

    @property
    def threshold(self) -> float:
        """What a group has to exceed to be learned."""
        return (self.floor + self.ceiling) / 2


class LeftOut(UserError):
    """A point of a product that can't be: so many blocks have no place in the stage."""


@dataclass(frozen=True)
class Grid:
    """The product that a study has beside its own variants.

    Attributes:
        variants: names of its variants, the last axis fastest.
        axes: values of each axis: ``instantiation``, ``stage``, ``blocks``, ``sum_over``.
        impossible: places (``res2x4``) that are left out, with the reason.
    """

    variants: tuple[str, ...]
    axes: Mapping[str, Sequence[str | int]]
    impossible: Mapping[str, str]


def _in_order(looks: tuple[int, ...]) -> tuple[int, ...]:
    if list(looks) != sorted(set(looks)):
        raise ValueError("expected numbers of seeds, each larger than the one before it")
    return looks


@dataclass(frozen=True, kw_only=True)
class Heading:
    """What a study's file says of the study as a whole.

    Attributes:
        cpu_recipe: the recipe with which two CPU cores train it in less than an hour a seed; None if there is none.
        reported_on: how the names of recipes on the paper's data begin.
        reported_videos: the test videos behind a reported accuracy; None if they aren't known.
        looks: numbers of seeds at which the claims are judged.
        learned: groups of test videos that networks learn suddenly, or not at all, by their names in records.
        judged_on: the group of test videos by whose soft score claims are judged, where records have it; empty: all.
        also_reported: names of what rows report and nothing here measures, by the key in `reported`.
    """

    name: Name
    title: Line
    recipe: str
    cpu_recipe: str | None = None
    reported_on: Line | None = None
    reported_videos: Positive | None = None
    looks: Annotated[tuple[Annotated[int, Field(ge=3, le=1000)], ...], AfterValidator(_in_order)] = ()
    learned: dict[Line, Learned] = field(default_factory=dict)
    judged_on: Line = ""
    also_reported: dict[Name, Line] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Study(Heading):
    """Variants, tables and claims; networks are compared by `metric`.

    Attributes:
        variants: also those of the `grid`, if there is one.
        costs: (parameters, multiply-adds) of the paper's own networks, as far as they are counted.
        base: the LightningModule and the data module that it names, as a recipe would; empty: our own.
    """

    path: Path
    variants: Mapping[str, Variant]
    tables: Mapping[str, Table]
    claims: tuple[Claim, ...] = ()
    metric: Metric = TOP1
    grid: Grid | None = None
    costs: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ours = {"gain", *COSTS, *(key for shown in self.metric.shown for key in (shown.key, shown.short))}
        if taken := sorted(ours & self.also_reported.keys()):
            raise UserError(f"{self.path}: also_reported: '{taken[0]}' is measured here: choose another key")

    @property
    def compared(self) -> list[str]:
        """The variants, but for networks of stills, which others start from and nothing is compared with."""
        return [name for name, variant in self.variants.items() if variant.clip != STILLS]

    def comparable(self, recipe: str) -> bool:
        """Whether accuracies under `recipe` can stand beside the reported ones, and not only gains."""
        return self.reported_on is None or recipe.startswith(self.reported_on)

    def variant(self, name: str) -> Variant:
        """The variant of this name. UserError with the nearest name if there is none."""
        if name not in self.variants:
            raise UserError(f"{self.path}: no variant '{name}'{nearest(name, self.variants)}")
        return self.variants[name]

    def table(self, name: str) -> Table:
        """The table of this name. UserError with the nearest name if there is none."""
        if name not in self.tables:
            raise UserError(f"{self.path}: no table '{name}'{nearest(name, self.tables)}")
        return self.tables[name]

    def reported(self, variant: str) -> dict[str, float]:
        """What is reported of a variant: its rows agree, but only some may report a cost."""
        merged: dict[str, float] = {}
        for table in self.tables.values():
            for row in table.rows:
                if row.variant == variant:
                    merged |= row.reported
        return merged

    def reported_score(self, variant: str) -> float | None:
        """What is reported of a variant in the study's metric."""
        return self.reported(variant).get(self.metric.short)

    def reported_gain(self, variant: str, than: str) -> float | None:
        """By how much a variant is reported to be better than another, in points; None if one isn't reported."""
        first, second = self.reported_score(variant), self.reported_score(than)
        # Rounded, because 75.1 - 73.8 isn't 1.3 in binary, and a claim's margin may be met exactly.
        return None if first is None or second is None else round(self.metric.sign * (first - second), 6)

    def columns(self, variant: str) -> dict[str, str | int]:
        """A variant as flat columns for a table of runs, such as W&B's. Settings that only others have are default."""
        own = self.variants[variant]
        others = dict.fromkeys(
            key for one in self.variants.values() for key in one.settings if not (one.net and key.startswith(NET))
        )
        said = {key: shown_value(own.settings[key]) if key in own.settings else "default" for key in others}
        return {**own.columns(), **said}

    def select(
        self, tables: Sequence[str] | None = None, variants: Sequence[str] | None = None, parents: bool = True
    ) -> list[str]:
        """Names of variants in the order to run them: those in one of `tables` and among `variants`; None is all.

        A table stands for the variants of its rows and their baselines. With `parents`, the variants that a
        selected one starts from (`init_from`) are selected too. The cheaper ResNet-50 comes before ResNet-101, a parent
        before its children; otherwise the order is that of the tables, so that the first is complete first.

        UserError if `tables` have no row with a variant.
        """
        in_tables = [name for table in self.tables.values() for row in table.rows for name in _used(row)]
        order = list(dict.fromkeys([*in_tables, *self.variants]))
        wanted = set(order)
        if tables is not None and not (
            wanted := {name for key in tables for row in self.table(key).rows for name in _used(row)}
        ):
            raise UserError(f"{self.path}: table {', '.join(tables)} shows what others report: there is nothing to run")
        if variants is not None:
            wanted &= {self.variant(name).name for name in variants}
        by_depth = sorted(order, key=lambda name: int(self.variants[name].net.get("depth", 0)))
        selected: dict[str, None] = {}
        for name in by_depth:
            if name in wanted:
                selected |= dict.fromkeys([*reversed(self.ancestors(name)), name] if parents else [name])
        return list(selected)

    def where(self, columns: Mapping[str, str]) -> list[str]:
        """Names of the variants with these values in their columns. UserError: none; LeftOut: none by the grid."""
        found = {name: self.columns(name) for name in self.variants}
        known = next(iter(found.values()))
        for column, value in columns.items():
            if column not in known:
                raise UserError(f"{self.path}: variants have no column '{column}'{nearest(column, known)}")
            found = {name: of for name, of in found.items() if str(of[column]) == value}
        if not found:
            wanted = ", ".join(f"{column}={value}" for column, value in columns.items())
            place = f"{columns.get('stage')}x{columns.get('blocks')}"
            if self.grid is not None and place in self.grid.impossible:
                raise LeftOut(f"{self.path}: no variant has {wanted}: {self.grid.impossible[place]}")
            raise UserError(f"{self.path}: no variant has {wanted}")
        return list(found)

    def ancestors(self, name: str) -> list[str]:
        """The variants that this one starts from: parent, grandparent, and so on."""
        found: list[str] = []
        parent = self.variants[name].init_from
        while parent is not None:
            found.append(parent)
            parent = self.variants[parent].init_from
        return found


def _used(row: Row) -> list[str]:
    return [name for name in (row.baseline, row.variant) if name is not None]


def shown_value(value: Any) -> str:
    """A value as a command line has it."""
    return value if isinstance(value, str) else json.dumps(value)


def placement_name(stage: str, blocks: int) -> str:
    """``res4x2``: two blocks in res4."""
    return f"{stage}x{blocks}"
