"""A study, read from YAML and checked: words, names, numbers, places of blocks, baselines, `init_from`, claims.

``experiments/README.md`` shows how to write one. The dataclasses here are a study as the file states it; they become a
:class:`~nl_lightning.study.study.Study`. Every mistake is a :class:`~nl_lightning.errors.UserError` that names the
file, the place and the nearest known word. Nothing here imports torch: looking at a study is quick.
"""

import contextlib
import filecmp
import functools
import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field

from nl_lightning.errors import UserError, nearest, say
from nl_lightning.models.conventions import (
    BLOCKS,
    STAGES,
    ControlConfig,
    Conventions,
    Inflate,
    Instantiation,
    SumOver,
    check_placement,
)
from nl_lightning.study.border import Line, Name, Positive, checked, load_yaml, read_json
from nl_lightning.study.claims import StatedClaim, check_claims
from nl_lightning.study.files import reason
from nl_lightning.study.metrics import METRICS, Metric
from nl_lightning.study.study import Grid, Learned, Row, Study, Table, Variant, placement_name

# --------------------------------------------------------------------------------------------- as a file states it

Stage = Literal["res2", "res3", "res4", "res5"]


def _conventions(given: dict[str, Any]) -> dict[str, Any]:
    checked(Conventions, given, "")
    return given  # as stated: what is left out is left out of the command line and of the hash as well


def _different(values: list[Any]) -> list[Any]:
    if not values or len(set(values)) < len(values):
        raise ValueError("expected one or more different values")
    return values


def _in_order(looks: list[int]) -> list[int]:
    if looks != sorted(set(looks)):
        raise ValueError("expected numbers of seeds, each larger than the one before it")
    return looks


@dataclass(frozen=True, kw_only=True)
class _NonLocal:
    # Stated whole: the command line merges a half-stated one key by key with what the recipe may say.
    placement: dict[Stage, list[int]]
    instantiation: Instantiation
    sum_over: SumOver
    subsample: bool | None = None

    def __post_init__(self) -> None:
        if not self.placement:
            raise ValueError("placement: no stage; leave non_local out for a network without non-local blocks")


@dataclass(frozen=True, kw_only=True)
class _Net:
    depth: Literal[50, 101]
    inflate: Inflate = "none"
    non_local: _NonLocal | None = None
    control: ControlConfig | None = None
    width: Annotated[float, Field(gt=0, le=64)] | None = None
    dropout: Annotated[float, Field(ge=0, lt=1)] | None = None
    conventions: Annotated[dict[str, Any], AfterValidator(_conventions)] | None = None

    def settings(self, at: str) -> dict[str, Any]:
        """In the order and form that hashes know. Defaults are left out: the same network has the same hash."""
        net: dict[str, Any] = {"depth": self.depth}
        if self.inflate != "none":
            net["inflate"] = self.inflate
        if self.non_local is not None:
            check_placement(
                self.depth, cast(Mapping[str, list[int]], self.non_local.placement), f"{at}.non_local.placement"
            )
            net["non_local"] = {key: value for key, value in vars(self.non_local).items() if value is not None}
        if self.control is not None:
            self.control.check(self.depth, self.non_local is not None, f"{at}.control")
            net["control"] = {key: value for key, value in vars(self.control).items() if value}
        rest = {"width": self.width, "dropout": self.dropout, "conventions": self.conventions}
        return net | {key: value for key, value in rest.items() if value is not None}


@dataclass(frozen=True, kw_only=True)
class _Variant:
    net: _Net
    clip: Name | None = None
    init_from: str | None = None


@dataclass(frozen=True, kw_only=True)
class _Grid:
    net: _Net
    instantiation: Annotated[list[Instantiation], AfterValidator(_different)]
    stage: Annotated[list[Stage], AfterValidator(_different)]
    blocks: Annotated[list[Annotated[int, Field(ge=1, le=99)]], AfterValidator(_different)]
    sum_over: Annotated[list[SumOver], AfterValidator(_different)]


@dataclass(frozen=True, kw_only=True)
class _Table:
    caption: Line
    rows: Annotated[tuple[Row, ...], Field(min_length=1), "a table of at least one row"]


@dataclass(frozen=True, kw_only=True)
class _Study:
    name: Name
    title: Line
    recipe: str
    variants: dict[Name, _Variant]
    tables: dict[Name, _Table]
    metric: Literal["top1", "mAP"] = "top1"
    reported_on: Line | None = None
    reported_videos: Positive | None = None
    claims: list[StatedClaim] = field(default_factory=list)
    grid: _Grid | None = None
    learned: dict[Line, Learned] = field(default_factory=dict)
    judged_on: Line = ""
    looks: Annotated[list[Annotated[int, Field(ge=3, le=1000)]], AfterValidator(_in_order)] = field(
        default_factory=list
    )


# --------------------------------------------------------------------------------------------------------- loading


def load_study(path: Path) -> Study:
    """Read a study and check it. UserError that names the place of the first mistake."""
    at = str(path)
    stated = checked(_Study, load_yaml(path), at)
    variants = {
        name: Variant(name, each.net.settings(f"{at}: variants.{name}.net"), each.clip, each.init_from)
        for name, each in stated.variants.items()
    }
    grid = None
    if stated.grid is not None:
        products, grid = product(stated.grid, f"{at}: grid")
        for name in products.keys() & variants.keys():
            raise UserError(f"{at}: variants.{name}: the grid has a variant of this name")
        variants |= products
    study = Study(
        name=stated.name,
        title=stated.title,
        path=path,
        recipe=stated.recipe,
        variants=variants,
        tables={name: Table(name, table.caption, table.rows) for name, table in stated.tables.items()},
        claims=tuple(each.claim() for each in stated.claims),
        metric=METRICS[stated.metric],
        reported_on=stated.reported_on,
        reported_videos=stated.reported_videos,
        grid=grid,
        costs=_costs(path.with_suffix(".costs.json")),
        looks=tuple(stated.looks),
        learned=stated.learned,
        judged_on=stated.judged_on,
    )
    for key, there in (("variants", variants), ("tables", stated.tables)):
        if not there:
            raise UserError(f"{at}: {key}: expected one or more, got none")
    _check_parents(study.variants, at)
    for table in study.tables.values():
        _check_table(table, study, f"{at}: tables.{table.name}")
    _check_reported(study.tables, at)
    check_claims(study, at)
    return study


def _costs(path: Path) -> dict[str, tuple[int, int]]:
    """What the paper's own networks cost, counted beforehand: counting needs torch."""
    return checked(dict[str, tuple[Positive, Positive]], read_json(path), str(path)) if path.exists() else {}


def _known(value: str, at: str, names: Collection[str]) -> None:
    if value not in names:
        raise UserError(f"{at}: unknown '{value}'{nearest(value, names)}")


def _repeated(values: Sequence[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value in values[:i]]


def _check_parents(variants: Mapping[str, Variant], at: str) -> None:
    for variant in variants.values():
        chain = [variant.name]
        while (parent := variants[chain[-1]].init_from) is not None:
            _known(parent, f"{at}: variants.{chain[-1]}.init_from", variants)
            if parent in chain:
                cycle = [*chain[chain.index(parent) :], parent]
                raise UserError(f"{at}: variants.{chain[-1]}.init_from: goes round in a circle: {' -> '.join(cycle)}")
            chain.append(parent)


def _check_table(table: Table, study: Study, at: str) -> None:
    for i, row in enumerate(table.rows):
        _check_row(row, study.variants, study.metric, f"{at}.rows[{i}]")
    for label in _repeated([row.label for row in table.rows]):
        raise UserError(f"{at}: two rows have the label '{label}'")
    for variant in _repeated(table.variants):
        raise UserError(f"{at}: two rows have the variant '{variant}'")


def _check_row(row: Row, variants: Mapping[str, Variant], metric: Metric, at: str) -> None:
    reported = {key for key, value in vars(row.reported).items() if value is not None}
    if row.variant is None and (not reported or row.baseline is not None):
        raise UserError(f"{at}: the key 'variant' is missing; only what others report has none, and no baseline")
    known = [*(shown.key for shown in metric.shown), "params_ratio", "flops_ratio"]
    for key in sorted(reported.difference(known)):
        raise UserError(f"{at}.reported: unknown key '{key}'{nearest(key, known)}")
    for key, name in (("variant", row.variant), ("baseline", row.baseline)):
        if name is not None:
            _known(name, f"{at}.{key}", variants)
    if row.baseline is not None and row.baseline == row.variant:
        raise UserError(f"{at}.baseline: '{row.variant}' can't be its own baseline; leave it out")


def _check_reported(tables: Mapping[str, Table], at: str) -> None:
    """One network has one reported number, in however many tables it stands."""
    first: dict[tuple[str, str], tuple[float, str]] = {}
    for table in tables.values():
        for row in table.rows:
            for key, value in vars(row.reported).items():
                if value is None or row.variant is None:
                    continue
                before, where = first.setdefault((row.variant, key), (value, table.name))
                if value != before:
                    raise UserError(
                        f"{at}: tables.{table.name}: {row.variant} is reported with {key} {value:g}, "
                        f"but with {before:g} in table {where}"
                    )


# ------------------------------------------------------------------------------------------- a product of settings


def spread(depth: int, stage: str, blocks: int) -> list[int]:
    """The residual blocks, from 0, that so many non-local blocks follow (paper, Sec. 5).

    One comes right before the last residual block; more are spread evenly, as in the released code: every other
    residual block of res4 takes three. Empty if the stage has too few.
    """
    residual = BLOCKS[depth][STAGES.index(stage)]
    if blocks == 1:
        return [residual - 2]
    step = residual // blocks
    return [step * (i + 1) - 1 for i in range(blocks)] if step else []


def product(stated: _Grid, at: str) -> tuple[dict[str, Variant], Grid]:
    """The variants of a grid, by name, and the grid.

    How many blocks a stage takes depends on the stage. Places that can't be are left out, and named: ``res2x4``.
    """
    places: dict[str, dict[Stage, list[int]]] = {}
    impossible = {}
    for stage, blocks in itertools.product(stated.stage, stated.blocks):
        after = spread(stated.net.depth, stage, blocks)
        if after:
            places[placement_name(stage, blocks)] = {stage: after}
        else:
            residual = BLOCKS[stated.net.depth][STAGES.index(stage)]
            impossible[placement_name(stage, blocks)] = f"{stage} has {residual} residual blocks"
    variants = {}
    for instantiation, place, sum_over in itertools.product(stated.instantiation, places, stated.sum_over):
        name = f"{instantiation}_{place}_{sum_over}"
        block = _NonLocal(placement=places[place], instantiation=instantiation, sum_over=sum_over)
        variants[name] = Variant(name, replace(stated.net, non_local=block).settings(f"{at}.{place}"))
    axes: dict[str, Sequence[str | int]] = {
        "instantiation": stated.instantiation,
        "stage": stated.stage,
        "blocks": stated.blocks,
        "sum_over": stated.sum_over,
    }
    return variants, Grid(tuple(variants), axes, impossible)


# --------------------------------------------------------------------------------------------------------- finding


def experiments_folders() -> list[Path]:
    """Where studies and recipes are looked for: ./experiments, then those that come with the package."""
    return [folder for folder in (Path("experiments"), shipped(Path("experiments"))) if folder.is_dir()]


def shipped(folder: Path) -> Path:
    """A folder that comes with the package: inside it in a wheel, beside it in a checkout."""
    package = Path(__file__).resolve().parents[1]
    inside = package / folder
    return inside if inside.is_dir() else package.parent / folder


def find_study(name_or_path: str | Path, root: Path | None = None) -> Path:
    """The file of a study: ``table2`` is ``experiments/table2.yaml``; a path is taken as it is.

    `root` stands for the experiments folder, in place of those of :func:`experiments_folders`.
    """
    return find(name_or_path, lambda: [root] if root else experiments_folders(), "study")


def find(name_or_path: str | Path, folders: Callable[[], list[Path]], what: str) -> Path:
    """The YAML file of this name in one of the folders, or at this path. UserError with the nearest name."""
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not _is_file(path):
            raise UserError(f"no {what} at {path}")
        return path
    searched = folders()
    if found := [file for folder in searched if _is_file(file := folder / f"{path}.yaml")]:
        _say_whose(*found)
        return found[0]
    known = [file.stem for folder in searched for file in sorted(folder.glob("*.yaml"))]
    absent = "" if Path("experiments").is_dir() else "; there is no folder 'experiments' here"
    raise UserError(f"no {what} '{path}' in {' or '.join(map(str, searched))}{nearest(str(path), known)}{absent}")


@functools.cache
def _say_whose(taken: Path, *others: Path) -> None:
    """Say once that a file of the user's stands for one of the package, where the two differ."""
    with contextlib.suppress(OSError):  # one that can't be read is refused by its reader
        if not all(filecmp.cmp(taken, other, shallow=False) for other in others):
            say(f"{taken} is taken in place of nl-lightning's own '{taken.stem}'")


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except (OSError, ValueError) as error:  # a name of 300 letters, or with a NUL
        raise UserError(f"{path}: can't be read: {reason(error)}") from None
