"""A study, read from YAML and checked: words, names, numbers, places of blocks, baselines, `init_from`, claims.

``experiments/README.md`` shows how to write one. The dataclasses here are a study as the file states it; they become a
:class:`~nl_lightning.study.study.Study`. Every mistake is a :class:`~nl_lightning.errors.UserError` that names the
file, the place and the nearest known word. Nothing here imports torch: looking at a study is quick.
"""

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field

from nl_lightning.errors import UserError, nearest
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
from nl_lightning.study.border import Line, Name, Percent, Positive, Ratio, checked, load_yaml, read_json
from nl_lightning.study.checks import StatedClaim
from nl_lightning.study.finding import find_study, is_file
from nl_lightning.study.metrics import LOGGED, METRICS, Metric
from nl_lightning.study.study import COSTS, NET, Grid, Heading, Row, Study, Table, Value, Variant, placement_name

# --------------------------------------------------------------------------------------------- as a file states it

Stage = Literal["res2", "res3", "res4", "res5"]


def _conventions(given: dict[str, Any]) -> dict[str, Any]:
    checked(Conventions, given, "")
    return given  # as stated: what is left out is left out of the command line and of the hash as well


def _different(values: list[Any]) -> list[Any]:
    if not values or len(set(values)) < len(values):
        raise ValueError("expected one or more different values")
    return values


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


Setting = Annotated[str, Field(pattern=r"^(model|data|trainer)(\.[A-Za-z_]\w*)+$"), "a key such as model.hidden"]
ClassPath = Annotated[str, Field(pattern=r"^[A-Za-z_]\w*(\.[A-Za-z_]\w*)+$"), "a class such as digits.Net"]
Logged = Annotated[str, Field(pattern=r"^test/[\w./@-]{1,60}$"), "a metric such as test/accuracy"]


@dataclass(frozen=True, kw_only=True)
class _Variant:
    net: _Net | None = None
    settings: dict[Setting, Value] | None = None
    clip: Name | None = None
    init_from: str | None = None
    study: str | None = None
    like: str | None = None

    def __post_init__(self) -> None:
        if self.study is not None and (self.net, self.settings, self.clip, self.init_from, self.like) != (None,) * 5:
            raise ValueError("study: the variant is what that study says; leave the other keys out")
        if self.like is not None and (self.net, self.settings) != (None, None):
            raise ValueError("like: the network is that of another variant; leave net and settings out")
        if self.study is None and self.like is None and self.net is None and self.settings is None:
            raise ValueError("the key 'net' is missing; of another LightningModule, give 'settings', which may be {}")

    def variant(self, name: str, at: str) -> Variant:
        net = {} if self.net is None else self.net.settings(f"{at}.net")
        of_net = {f"{NET}{key}": value for key, value in net.items()}
        own = dict(sorted((self.settings or {}).items()))
        for one, two in itertools.combinations(sorted([*of_net, *own]), 2):
            if f"{two}.".startswith(f"{one}."):
                raise UserError(f"{at}: {two} is given twice{'' if one == two else f', by {one} too'}")
        found = Variant(name, of_net | own, self.clip, self.init_from)
        elsewhere = {"trainer.default_root_dir": "each run has a folder of its own"}
        if found.net:
            elsewhere |= {"model.predictions": "each run has a file of its own"}
            elsewhere |= dict.fromkeys(("model.multi_label", "data.folds"), "belongs to a recipe")
        if self.init_from is not None:
            elsewhere |= {"model.init_from": f"the variant starts from {self.init_from}"}
        for key in own.keys() & elsewhere.keys():
            raise UserError(f"{at}.settings.{key}: {elsewhere[key]}; leave it out")
        return found


@dataclass(frozen=True, kw_only=True)
class _Class:
    class_path: ClassPath
    init_args: dict[str, Value] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class _Metric:
    name: Logged
    better: Literal["higher", "lower"]
    label: Line | None = None
    unit: Line | None = None
    decimals: Annotated[int, Field(ge=0, le=6)] | None = None
    scale: Annotated[float, Field(gt=0, le=1e6)] = 1.0
    item: Line = "item"
    beside: dict[Logged, Line] | list[Logged] = field(default_factory=list)

    def metric(self) -> Metric:
        decimals = (1 if self.unit == "%" else 3) if self.decimals is None else self.decimals

        def of(name: str, label: str | None, beside: tuple[Metric, ...] = ()) -> Metric:
            label = label or name.removeprefix(LOGGED)
            unit = f", in {self.unit}" if self.unit else ""
            meaning = f"{label} is {name} as the module logs it{unit}; {self.better} is better"
            return Metric(
                name, label, meaning, beside, False, self.better, self.unit or "", decimals, self.scale, self.item
            )

        labels = self.beside if isinstance(self.beside, dict) else dict.fromkeys(self.beside)
        return of(self.name, self.label, tuple(of(*each) for each in labels.items()))


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
class _Study(Heading):
    variants: dict[Name, _Variant]
    tables: dict[Name, _Table]
    model: _Class | None = None
    data: _Class | None = None
    metric: Any = "top1"
    claims: list[StatedClaim] = field(default_factory=list)
    grid: _Grid | None = None


# --------------------------------------------------------------------------------------------------------- loading


def load_study(path: Path) -> Study:
    """Read a study and check it. UserError that names the place of the first mistake."""
    at = str(path)
    stated = checked(_Study, load_yaml(path), at)
    costs: dict[str, tuple[int, int]] = {}
    if (counted := path.with_suffix(".costs.json")).exists():  # beforehand, as counting needs torch
        costs = checked(dict[str, tuple[Positive, Positive]], read_json(counted), str(counted))
    products, grid = product(stated.grid, f"{at}: grid")
    for name in products.keys() & stated.variants.keys():
        raise UserError(f"{at}: variants.{name}: the grid has a variant of this name")
    found = {name: _resolved(name, stated, path, products) for name in stated.variants}
    variants = {name: each[name] for name, each in found.items()}
    for name, with_parents in found.items():
        for parent, variant in with_parents.items():
            if products.get(parent, variants.setdefault(parent, variant)) != variant:
                raise UserError(f"{at}: variants.{parent}: {name}, of another study, starts from another network of it")
    variants |= products
    study = Study(
        **{each.name: getattr(stated, each.name) for each in fields(Heading)},
        path=path,
        variants=variants,
        tables={name: Table(name, table.caption, table.rows) for name, table in stated.tables.items()},
        claims=tuple(each.claim() for each in stated.claims),
        metric=_metric(stated.metric, f"{at}: metric"),
        grid=grid,
        costs=costs,
        base={
            part: {key: value for key, value in vars(named).items() if value}
            for part in ("model", "data")
            if (named := getattr(stated, part)) is not None
        },
    )
    for key, there in (("variants", variants), ("tables", stated.tables)):
        if not there:
            raise UserError(f"{at}: {key}: expected one or more, got none")
    for table in study.tables.values():
        _check_table(table, study, f"{at}: tables.{table.name}")
    _check_reported(study.tables, at)
    _check_claims(study, at)
    return study


def _metric(stated: Any, at: str) -> Metric:
    """By its name, or as another LightningModule logs it."""
    if isinstance(stated, dict):
        return checked(_Metric, stated, at).metric()
    return METRICS[checked(Literal["top1", "mAP"], stated, at)]  # type: ignore[arg-type]


def _resolved(
    name: str,
    stated: _Study,
    path: Path,
    products: Mapping[str, Variant],
    asked: tuple[tuple[Path, str], ...] = (),
) -> dict[str, Variant]:
    """A variant of a study, and what it starts from, also where another study or another variant says what it is.

    Args:
        products: the variants of the study's grid.
        asked: the files and variants that led here, to find circles.
    """
    if name in products:
        return {name: products[name]}
    each, at, before = stated.variants[name], f"{path}: variants.{name}", asked
    asked = (*asked, (path, name))
    if asked[-1] in before:
        cycle = [by for _, by in asked[before.index(asked[-1]) :]]
        raise UserError(f"{at}: goes round in a circle: {' -> '.join(cycle)}")
    if each.study is not None:
        beside = path.parent / f"{each.study}.yaml"
        try:
            other = beside if is_file(beside) else find_study(each.study)
            theirs = checked(_Study, load_yaml(other), str(other))
            of_grid, _ = product(theirs.grid, f"{other}: grid")
            _known(name, f"{other}: variants", theirs.variants | of_grid)
            for key in ("model", "data"):
                if getattr(theirs, key) != getattr(stated, key):
                    raise UserError(f"{other}: {key}: expected the same as in {path}, or '{name}' is another run there")
            return _resolved(name, theirs, other, of_grid, asked)
        except UserError as error:
            raise UserError(f"{at}.study: {error}") from None
    found = {name: each.variant(name, at)}
    if each.like is not None:
        _known(each.like, f"{at}.like", [*stated.variants, *products])
        settings = _resolved(each.like, stated, path, products, asked)[each.like].settings
        found[name] = replace(found[name], settings=settings)
    if each.init_from is not None:
        _known(each.init_from, f"{at}.init_from", [*stated.variants, *products])
        found |= _resolved(each.init_from, stated, path, products, asked)
    return found


def _known(value: str, at: str, names: Collection[str]) -> None:
    if value not in names:
        raise UserError(f"{at}: unknown '{value}'{nearest(value, names)}")


def _repeated(values: Sequence[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value in values[:i]]


def _check_table(table: Table, study: Study, at: str) -> None:
    for i, row in enumerate(table.rows):
        _check_row(row, study, f"{at}.rows[{i}]")
    for label in _repeated([row.label for row in table.rows]):
        raise UserError(f"{at}: two rows have the label '{label}'")
    for variant in _repeated(table.variants):
        raise UserError(f"{at}: two rows have the variant '{variant}'")


def _check_row(row: Row, study: Study, at: str) -> None:
    if row.variant is None and (not row.reported or row.baseline is not None):
        raise UserError(f"{at}: the key 'variant' is missing; only what others report has none, and no baseline")
    scores: Any = Percent if study.metric.bounded else float
    known = dict.fromkeys((shown.short for shown in study.metric.shown), scores)
    known |= dict.fromkeys(study.also_reported, float) | dict.fromkeys(COSTS, Ratio)
    for key in sorted(row.reported.keys() - known.keys()):
        raise UserError(f"{at}.reported: unknown key '{key}'{nearest(key, known)}")
    for key, value in row.reported.items():
        checked(known[key], value, f"{at}.reported.{key}")
    for key, name in (("variant", row.variant), ("baseline", row.baseline)):
        if name is not None:
            _known(name, f"{at}.{key}", study.variants)
    if row.baseline is not None and row.baseline == row.variant:
        raise UserError(f"{at}.baseline: '{row.variant}' can't be its own baseline; leave it out")


def _check_reported(tables: Mapping[str, Table], at: str) -> None:
    """One network has one reported number, in however many tables it stands."""
    first: dict[tuple[str, str], tuple[float, str]] = {}
    for table in tables.values():
        for row in table.rows:
            for key, value in row.reported.items() if row.variant is not None else ():
                before, where = first.setdefault((str(row.variant), key), (value, table.name))
                if value != before:
                    raise UserError(
                        f"{at}: tables.{table.name}: {row.variant} is reported with {key} {value:g}, "
                        f"but with {before:g} in table {where}"
                    )


def _check_claims(study: Study, at: str) -> None:
    """A claim is about rows: what no table shows can't be judged in the open."""
    rows = {name for table in study.tables.values() for name in table.variants}
    for i, claim in enumerate(study.claims):
        if claim.table is not None:
            _known(claim.table, f"{at}: claims[{i}].table", study.tables)
        for check in claim.checks:
            sizes = [size for size in (check.by, check.within, check.points) if isinstance(size, int | float)]
            if study.metric.bounded and abs(most := max(sizes, key=abs)) > 100:
                at_check = f"{at}: claims[{i}] ({claim.name}).{check.kind}"
                raise UserError(f"{at_check}: expected points, -100 to 100, got {most:g}")
            for name in check.named:
                _known(name, f"{at}: claims[{i}] ({claim.name}).{check.kind}", study.variants)
                if name not in rows:
                    raise UserError(
                        f"{at}: claims: {claim.name} compares '{name}', which is in no row; add a row for it"
                    )
    for name in _repeated([claim.name for claim in study.claims]):
        raise UserError(f"{at}: claims: two claims have the id '{name}'")


# ------------------------------------------------------------------------------------------- a product of settings


def spread(depth: int, stage: str, blocks: int) -> list[int]:
    """The residual blocks, from 0, that so many non-local blocks follow (paper, Sec. 5).

    One comes right before the last residual block. More follow every second, third, ... one, as in the released code,
    where that makes so many: 3 of 6, 3 and 7 of 23. Else they are spread evenly. Empty if the stage has too few.
    """
    residual = BLOCKS[depth][STAGES.index(stage)]
    if blocks == 1 or blocks > residual:
        return [residual - 2] if blocks == 1 else []
    if residual // (step := residual // blocks) == blocks:
        return [*range(step - 1, residual, step)]
    return [residual * (i + 1) // blocks - 1 for i in range(blocks)]


def product(stated: _Grid | None, at: str) -> tuple[dict[str, Variant], Grid | None]:
    """The variants of a grid, by name, and the grid. Places with too few residual blocks are left out, and named."""
    if stated is None:
        return {}, None
    places: dict[str, dict[Stage, list[int]]] = {}
    variants, impossible = {}, {}
    for stage, blocks in itertools.product(stated.stage, stated.blocks):
        place = placement_name(stage, blocks)
        if after := spread(stated.net.depth, stage, blocks):
            places[place] = {stage: after}
        else:
            impossible[place] = f"{stage} has {BLOCKS[stated.net.depth][STAGES.index(stage)]} residual blocks"
    for instantiation, place, sum_over in itertools.product(stated.instantiation, places, stated.sum_over):
        name = f"{instantiation}_{place}_{sum_over}"
        block = _NonLocal(placement=places[place], instantiation=instantiation, sum_over=sum_over)
        variants[name] = _Variant(net=replace(stated.net, non_local=block)).variant(name, f"{at}.{place}")
    axes = {axis: getattr(stated, axis) for axis in ("instantiation", "stage", "blocks", "sum_over")}
    return variants, Grid(tuple(variants), axes, impossible)
