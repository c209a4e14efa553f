"""What to train and what is reported of it: studies and recipes, read from YAML and checked.

A *study* (``experiments/table2.yaml`` is the first) has *variants* (networks, as the arguments by which they
differ), tables of *rows* (a label, a variant, the reported numbers, the baseline of the gain) and *claims*
(sentences of the paper as comparisons of variants). A *recipe* is everything but the network: data, clips,
schedule, trainer. ``experiments/README.md`` shows how to write one. Nothing here imports torch: looking at a
study is quick.

Every mistake in a file is a :class:`~nl_lightning.errors.UserError` that names the file, the place and the
nearest known word.
"""

import hashlib
import itertools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Literal, cast

import yaml

from nl_lightning.errors import UserError, nearest
from nl_lightning.models.conventions import (
    BLOCKS,
    INFLATE,
    INSTANTIATIONS,
    STAGES,
    SUM_OVER,
    Conventions,
    check_placement,
)
from nl_lightning.study.grid import AXES, Grid, placement_name, product
from nl_lightning.study.metrics import METRICS, TOP1, Metric

# Settings that can't change a number: where things lie, how fast they go, what is shown. Not in a run's hash.
NEUTRAL = {
    "seed_everything", "data.root", "data.allow_outside", "data.shards", "data.manifest", "data.decode_seconds",
    "data.num_workers", "data.decoded_copy", "trainer.enable_model_summary", "trainer.default_root_dir",
    "trainer.logger", "trainer.enable_progress_bar", "trainer.accelerator", "trainer.log_every_n_steps",
}  # fmt: skip
# A batch is per process, so these change a number unless they are 1, which is the same as not saying it.
NEUTRAL_IF_ONE = {"trainer.devices", "trainer.num_nodes"}

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")  # names of studies, tables and variants become names of files


# ------------------------------------------------------------------------------------------------------ study


@dataclass(frozen=True)
class Variant:
    """A network to train, as what it adds to a recipe.

    Attributes:
        name: unique in its study; records are filed under it.
        net: settings of :class:`~nl_lightning.models.resnet.ResNetConfig`, without spelled-out defaults.
        clip: e.g. ``128f``: the recipe is overlaid with its ``<recipe>_128f.yaml``. None: the plain recipe.
        init_from: the variant whose weights it starts from, or None.
    """

    name: str
    net: Mapping[str, Any]
    clip: str | None = None
    init_from: str | None = None

    def arguments(self) -> list[str]:
        """Command-line arguments of ``nl-lightning fit``: texts raw, everything else as JSON."""
        return [
            f"--model.net.{key}={value if isinstance(value, str) else json.dumps(value)}"
            for key, value in self.net.items()
        ]

    def columns(self) -> dict[str, str | int]:
        """The variant as flat columns for a table of runs, such as W&B's; ``blocks``: non-local blocks."""
        non_local: Mapping[str, Any] = self.net.get("non_local") or {}
        placement: Mapping[str, list[int]] = non_local.get("placement", {})
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
            "clip": self.clip or "default",
        }


@dataclass(frozen=True)
class Reported:
    """What is reported, or None: metrics in percent, costs as multiples of the baseline's."""

    top1: float | None = None
    top5: float | None = None
    mAP: float | None = None
    params_ratio: float | None = None
    flops_ratio: float | None = None


@dataclass(frozen=True)
class Row:
    """A row of a table. Its gain is taken from the variant `baseline`; None in the baseline's own row.

    Without a `variant` it is what others report, shown for comparison and never run.
    """

    label: str
    variant: str | None
    reported: Reported
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
class Check:
    """One comparison of a claim, in the study's metric except for ``cheaper``.

    Attributes:
        kind: ``better``: the first variant beats the second, by at least `by` points. ``ordered``: each
            variant beats the one before it. ``alike``: no two differ by more than `within` points.
            ``cheaper``: the first costs less than the second, in `cost`.
        variants: two for ``better`` and ``cheaper``, two or more otherwise.
        reported: for ``cheaper``: the reported cost of the first, as a share of the second's.
    """

    kind: Literal["better", "ordered", "alike", "cheaper"]
    variants: tuple[str, ...]
    by: float = 0.0
    within: float | None = None
    cost: Literal["params", "flops"] | None = None
    reported: float | None = None

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs (variant, than) that are compared."""
        if self.kind == "ordered":
            return [(better, worse) for worse, better in itertools.pairwise(self.variants)]
        if self.kind == "alike":
            return [(second, first) for first, second in itertools.combinations(self.variants, 2)]
        return [(self.variants[0], self.variants[1])]


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, with comparisons that say the same; or a `note` why no row can check it."""

    name: str
    text: str
    table: str | None = None
    checks: tuple[Check, ...] = ()
    note: str | None = None


@dataclass(frozen=True)
class Study:
    """Variants, tables and claims. Recipes on the paper's data have names that start with `reported_on`.

    Networks are compared by `metric`. `reported_videos` are the test videos behind a reported accuracy; None if they
    aren't known. The variants of `grid`, if there is one, are among `variants`.
    """

    name: str
    title: str
    path: Path
    recipe: str
    variants: Mapping[str, Variant]
    tables: Mapping[str, Table]
    claims: tuple[Claim, ...] = ()
    metric: Metric = TOP1
    reported_on: str | None = None
    reported_videos: int | None = None
    grid: Grid | None = None

    def comparable(self, recipe: str) -> bool:
        """Whether accuracies under `recipe` can stand beside the reported ones, and not only gains."""
        return self.reported_on is None or recipe.startswith(self.reported_on)

    def check_measures(self, recipe: "Recipe") -> None:
        """UserError if testing under `recipe` doesn't give the study's metric."""
        if recipe.multi_label != self.metric.multi_label:
            each = "several classes" if recipe.multi_label else "one class"
            raise UserError(
                f"{self.path}: networks are compared by {self.metric.key}, but videos of recipe '{recipe.name}' have "
                f"{each} each (model.multi_label): take another --recipe"
            )

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

    def reported(self, variant: str) -> Reported:
        """What is reported of a variant: its rows agree, but only some may report a cost."""
        merged: dict[str, float | None] = {}
        for table in self.tables.values():
            for row in table.rows:
                if row.variant == variant:
                    merged |= {key: value for key, value in vars(row.reported).items() if value is not None}
        return Reported(**merged)

    def reported_score(self, variant: str) -> float | None:
        """What is reported of a variant in the study's metric."""
        score: float | None = getattr(self.reported(variant), self.metric.key)
        return score

    def reported_gain(self, variant: str, than: str) -> float | None:
        """Reported score of a variant minus that of another, in points; None if one isn't reported."""
        first, second = self.reported_score(variant), self.reported_score(than)
        # Rounded, because 75.1 - 73.8 isn't 1.3 in binary, and a claim's margin may be met exactly.
        return None if first is None or second is None else round(first - second, 6)

    def select(
        self, tables: Sequence[str] | None = None, variants: Sequence[str] | None = None, parents: bool = True
    ) -> list[str]:
        """Names of variants in the order to run them: everything that was named, or all if nothing was.

        A table stands for the variants of its rows and their baselines. With `parents`, the variants that a
        selected one starts from (`init_from`) are selected too. The cheaper ResNet-50 comes before ResNet-101, a parent
        before its children; otherwise the order is that of the tables, so that the first is complete first.

        UserError if `tables` have no row with a variant.
        """
        in_tables = [name for table in self.tables.values() for row in table.rows for name in _used(row)]
        order = list(dict.fromkeys([*in_tables, *self.variants]))
        wanted = {name for key in tables or () for row in self.table(key).rows for name in _used(row)}
        wanted |= {self.variant(name).name for name in variants or ()}
        if tables is None and variants is None:
            wanted = set(order)
        by_depth = sorted(order, key=lambda name: int(self.variants[name].net["depth"]))
        selected: dict[str, None] = {}
        for name in by_depth:
            if name in wanted:
                selected |= dict.fromkeys([*reversed(self.ancestors(name)), name] if parents else [name])
        if tables and not selected:
            raise UserError(f"{self.path}: table {', '.join(tables)} shows what others report: there is nothing to run")
        return list(selected)

    def where(self, columns: Mapping[str, str]) -> list[str]:
        """Names of the variants with these values in their columns. UserError if there are none."""
        known = next(iter(self.variants.values())).columns()
        for column in columns:
            if column not in known:
                raise UserError(f"{self.path}: variants have no column '{column}'{nearest(column, known)}")
        found = [
            name
            for name, variant in self.variants.items()
            if all(str(variant.columns()[column]) == value for column, value in columns.items())
        ]
        if not found:
            wanted = ", ".join(f"{column}={value}" for column, value in columns.items())
            raise UserError(f"{self.path}: no variant has {wanted}")
        return found

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


def experiments_folders() -> list[Path]:
    """Where studies and recipes are looked for: ./experiments, then the repository the package lies in."""
    beside_package = Path(__file__).resolve().parents[2] / "experiments"
    folders = [folder for folder in (Path("experiments"), beside_package) if folder.is_dir()]
    if not folders:
        raise UserError("no folder 'experiments' here: run this in the repository, or give the path of the file")
    return folders


def find_study(name_or_path: str | Path, root: Path | None = None) -> Path:
    """The file of a study: ``table2`` is ``experiments/table2.yaml``; a path is taken as it is.

    `root` stands for the experiments folder, in place of those of :func:`experiments_folders`.
    """
    return _find(name_or_path, lambda: [root] if root else experiments_folders(), "study")


def _find(name_or_path: str | Path, folders: Callable[[], list[Path]], what: str) -> Path:
    path = Path(name_or_path)
    if path.suffix in (".yaml", ".yml") or len(path.parts) > 1:
        if not path.is_file():
            raise UserError(f"no {what} at {path}")
        return path
    known: list[str] = []
    searched = folders()
    for folder in searched:
        if (folder / f"{path}.yaml").is_file():
            return folder / f"{path}.yaml"
        known += sorted(file.stem for file in folder.glob("*.yaml"))
    raise UserError(f"no {what} '{path}' in {' or '.join(map(str, searched))}{nearest(str(path), known)}")


def load_study(path: Path) -> Study:
    """Read a study and check it: words, names, numbers, placements, baselines, `init_from`, claims."""
    at = str(path)
    raw = _mapping(
        load_yaml(path),
        at,
        required=("name", "title", "recipe", "variants", "tables"),
        optional=("metric", "reported_on", "reported_videos", "claims", "grid"),
    )
    metric = METRICS[_choice(raw.get("metric", TOP1.key), f"{at}: metric", list(METRICS))]
    stated = _mapping(raw["variants"], f"{at}: variants")
    grid = None
    if "grid" in raw:
        products, grid = _grid(raw["grid"], f"{at}: grid")
        for name in products.keys() & stated.keys():
            raise UserError(f"{at}: variants.{name}: the grid has a variant of this name")
        stated = stated | products
    variants = {
        _name(name, f"{at}: variants"): _variant(name, value, f"{at}: variants.{name}")
        for name, value in stated.items()
    }
    tables = {
        _name(name, f"{at}: tables"): _table(name, value, f"{at}: tables.{name}", variants, metric)
        for name, value in _mapping(raw["tables"], f"{at}: tables").items()
    }
    claims = tuple(
        _claim(value, f"{at}: claims[{i}]", variants, tables)
        for i, value in enumerate(_list(raw.get("claims", []), f"{at}: claims"))
    )
    for name in _repeated([claim.name for claim in claims]):
        raise UserError(f"{at}: claims: two claims have the id '{name}'")
    _check_parents(variants, at)
    _check_reported(tables, at)
    _check_rows(claims, tables, at)
    return Study(
        name=_name(raw["name"], f"{at}: name"),
        title=_text(raw["title"], f"{at}: title"),
        path=path,
        recipe=_text(raw["recipe"], f"{at}: recipe"),
        variants=variants,
        tables=tables,
        claims=claims,
        metric=metric,
        reported_on=_text(raw["reported_on"], f"{at}: reported_on") if "reported_on" in raw else None,
        reported_videos=_videos(raw["reported_videos"], f"{at}: reported_videos") if "reported_videos" in raw else None,
        grid=grid,
    )


def _grid(value: object, at: str) -> tuple[dict[str, Any], Grid]:
    raw = _mapping(value, at, required=("net", *AXES))
    net = _net(raw["net"], f"{at}.net")
    known: dict[str, Sequence[str]] = {"instantiation": INSTANTIATIONS, "stage": STAGES, "sum_over": SUM_OVER}
    axes: dict[str, list[Any]] = {}
    for axis in AXES:
        axes[axis] = _list(raw[axis], f"{at}.{axis}")
        for item in axes[axis]:
            if axis in known:
                _choice(item, f"{at}.{axis}", known[axis])
            elif isinstance(item, bool) or not isinstance(item, int) or item < 1:
                raise UserError(f"{at}.{axis}: expected whole numbers of at least 1, got {_shown(item)}")
        if not axes[axis] or _repeated(axes[axis]):
            raise UserError(f"{at}.{axis}: expected one or more different values")
    return product(net, axes)


def _videos(value: object, at: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise UserError(f"{at}: expected a whole number of at least 1, got {_shown(value)}")
    return value


def _variant(name: str, value: object, at: str) -> Variant:
    raw = _mapping(value, at, required=("net",), optional=("clip", "init_from"))
    return Variant(
        name=name,
        net=_net(raw["net"], f"{at}.net"),
        clip=_name(raw["clip"], f"{at}.clip") if "clip" in raw else None,
        init_from=_text(raw["init_from"], f"{at}.init_from") if "init_from" in raw else None,
    )


def _net(value: object, at: str) -> dict[str, Any]:
    raw = _mapping(value, at, required=("depth",), optional=("inflate", "non_local", "width", "dropout", "conventions"))
    depth = raw["depth"]
    if not isinstance(depth, int) or depth not in BLOCKS:
        raise UserError(f"{at}.depth: expected 50 or 101, got {_shown(depth)}")
    net: dict[str, Any] = {"depth": depth}
    # Defaults are left out: the same network is the same arguments, and has the same hash.
    if raw.get("inflate", "none") != "none":
        net["inflate"] = _choice(raw["inflate"], f"{at}.inflate", INFLATE)
    if raw.get("non_local") is not None:
        net["non_local"] = _non_local(raw["non_local"], f"{at}.non_local", depth)
    for key in ("width", "dropout"):
        if key in raw:
            net[key] = _number(raw[key], f"{at}.{key}")
    if "conventions" in raw:
        switches = [field.name for field in fields(Conventions)]
        given = _mapping(raw["conventions"], f"{at}.conventions", required=(), optional=switches)
        try:
            Conventions(**given)
        except UserError as error:
            raise UserError(f"{at}.conventions.{error}") from None
        net["conventions"] = given
    return net


def _non_local(value: object, at: str, depth: int) -> dict[str, Any]:
    # Stated whole: the command line merges a half-stated one key by key with what the recipe may say.
    raw = _mapping(value, at, required=("placement", "instantiation", "sum_over"), optional=("subsample",))
    placement = _mapping(raw["placement"], f"{at}.placement", required=(), optional=STAGES)
    if not placement:
        raise UserError(f"{at}.placement: no stage; leave non_local out for a network without non-local blocks")
    for stage, after in placement.items():
        _list(after, f"{at}.placement.{stage}")
    check_placement(depth, placement, f"{at}.placement")
    non_local: dict[str, Any] = {
        "placement": {stage: list(after) for stage, after in placement.items()},
        "instantiation": _choice(raw["instantiation"], f"{at}.instantiation", INSTANTIATIONS),
        "sum_over": _choice(raw["sum_over"], f"{at}.sum_over", SUM_OVER),
    }
    if "subsample" in raw:
        if not isinstance(raw["subsample"], bool):
            raise UserError(f"{at}.subsample: expected true or false, got {_shown(raw['subsample'])}")
        non_local["subsample"] = raw["subsample"]
    return non_local


def _table(name: str, value: object, at: str, variants: Mapping[str, Variant], metric: Metric) -> Table:
    raw = _mapping(value, at, required=("caption", "rows"))
    listed = _list(raw["rows"], f"{at}.rows")
    rows = tuple(_row(row, f"{at}.rows[{i}]", variants, metric) for i, row in enumerate(listed))
    if not rows:
        raise UserError(f"{at}.rows: a table needs at least one row")
    for label in _repeated([row.label for row in rows]):
        raise UserError(f"{at}: two rows have the label '{label}'")
    table = Table(name, _text(raw["caption"], f"{at}.caption"), rows)
    for variant in _repeated(table.variants):
        raise UserError(f"{at}: two rows have the variant '{variant}'")
    return table


def _row(value: object, at: str, variants: Mapping[str, Variant], metric: Metric) -> Row:
    raw = _mapping(value, at, required=("label",), optional=("variant", "baseline", "reported"))
    if "variant" not in raw and ("reported" not in raw or "baseline" in raw):
        raise UserError(f"{at}: the key 'variant' is missing; only what others report has none, and no baseline")
    percents = [shown.key for shown in metric.shown]
    known = (*percents, "params_ratio", "flops_ratio")
    reported = _mapping(raw.get("reported", {}), f"{at}.reported", required=(), optional=known)
    numbers = {key: _number(number, f"{at}.reported.{key}") for key, number in reported.items()}
    for key in percents:
        if not 0 <= numbers.get(key, 0) <= 100:
            raise UserError(f"{at}.reported.{key}: expected percent, 0 to 100, got {numbers[key]:g}")
    variant = _known(raw["variant"], f"{at}.variant", variants) if "variant" in raw else None
    baseline = _known(raw["baseline"], f"{at}.baseline", variants) if "baseline" in raw else None
    if baseline is not None and baseline == variant:
        raise UserError(f"{at}.baseline: '{variant}' can't be its own baseline; leave it out")
    return Row(_text(raw["label"], f"{at}.label"), variant, Reported(**numbers), baseline)


def _claim(value: object, at: str, variants: Mapping[str, Variant], tables: Mapping[str, Table]) -> Claim:
    raw = _mapping(value, at, required=("id", "text"), optional=("table", "checks", "note"))
    if ("checks" in raw) == ("note" in raw):
        raise UserError(f"{at}: a claim has either 'checks', or a 'note' that says why nothing checks it")
    table = _known(raw["table"], f"{at}.table", tables) if "table" in raw else None
    checks = _list(raw.get("checks", []), f"{at}.checks")
    if "checks" in raw and not checks:
        raise UserError(f"{at}.checks: empty; write a 'note' if nothing checks the claim")
    return Claim(
        name=_name(raw["id"], f"{at}.id"),
        text=_text(raw["text"], f"{at}.text"),
        table=table,
        checks=tuple(_check(check, f"{at}.checks[{i}]", variants) for i, check in enumerate(checks)),
        note=_text(raw["note"], f"{at}.note") if "note" in raw else None,
    )


def _check(value: object, at: str, variants: Mapping[str, Variant]) -> Check:
    raw = _mapping(value, at, required=(), optional=("better", "ordered", "alike", "cheaper"))
    if len(raw) != 1:
        raise UserError(f"{at}: expected exactly one of better, ordered, alike, cheaper")
    kind, body = next(iter(raw.items()))
    at = f"{at}.{kind}"
    if kind == "better":
        body = _mapping(body, at, required=("variant", "than"), optional=("by",))
        pair = _pair(body, at, variants)
        return Check("better", pair, by=_number(body["by"], f"{at}.by") if "by" in body else 0.0)
    if kind == "cheaper":
        body = _mapping(body, at, required=("variant", "than", "in"), optional=("reported",))
        pair = _pair(body, at, variants)
        cost = cast(Literal["params", "flops"], _choice(body["in"], f"{at}.in", ("params", "flops")))
        reported = _number(body["reported"], f"{at}.reported") if "reported" in body else None
        return Check("cheaper", pair, cost=cost, reported=reported)
    body = _mapping(body, at, required=("variants", "within") if kind == "alike" else ("variants",))
    names = tuple(_known(name, f"{at}.variants", variants) for name in _list(body["variants"], f"{at}.variants"))
    if len(names) < 2 or _repeated(names):
        raise UserError(f"{at}.variants: expected two or more different variants")
    if kind == "ordered":
        return Check("ordered", names)
    within = _number(body["within"], f"{at}.within")
    if within <= 0:
        raise UserError(f"{at}.within: expected a margin above 0, in points, got {within:g}")
    return Check("alike", names, within=within)


def _pair(body: Mapping[str, Any], at: str, variants: Mapping[str, Variant]) -> tuple[str, str]:
    first = _known(body["variant"], f"{at}.variant", variants)
    second = _known(body["than"], f"{at}.than", variants)
    if first == second:
        raise UserError(f"{at}: '{first}' is compared with itself")
    return first, second


def _check_parents(variants: Mapping[str, Variant], at: str) -> None:
    for variant in variants.values():
        chain = [variant.name]
        while (parent := variants[chain[-1]].init_from) is not None:
            _known(parent, f"{at}: variants.{chain[-1]}.init_from", variants)
            if parent in chain:
                cycle = [*chain[chain.index(parent) :], parent]
                raise UserError(f"{at}: variants.{chain[-1]}.init_from: goes round in a circle: {' -> '.join(cycle)}")
            chain.append(parent)


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


def _check_rows(claims: Sequence[Claim], tables: Mapping[str, Table], at: str) -> None:
    """A claim is about rows: what no table shows can't be judged in the open."""
    shown = {name for table in tables.values() for name in table.variants}
    for claim in claims:
        for name in (name for check in claim.checks for name in check.variants):
            if name not in shown:
                raise UserError(f"{at}: claims: {claim.name} compares '{name}', which is in no row; add a row for it")


# ----------------------------------------------------------------------------------------------------- recipe


@dataclass(frozen=True)
class Recipe:
    """Everything but the network: the files for ``--config``, in order, and what they say together."""

    name: str
    files: tuple[Path, ...]
    config: Mapping[str, Any]

    @property
    def multi_label(self) -> bool:
        """Whether a video has several classes at once."""
        model = self.config.get("model")
        return isinstance(model, dict) and model.get("multi_label") is True

    @property
    def comment(self) -> list[str]:
        """What its file opens with: hardware, hours, what it needs. A line that is indented goes on with the last."""
        lines = self.files[0].read_text(encoding="utf-8").splitlines()
        opening = "\n".join(line[1:] for line in itertools.takewhile(lambda line: line.startswith("#"), lines))
        return [" ".join(line.split()) for line in re.sub(r"\n  +", " ", opening).splitlines()]

    @property
    def folds(self) -> int:
        """Official splits of its data, which the seeds stand for in turn (``data.folds``); 1 where there are none."""
        return int(self.config.get("data", {}).get("folds", 1))

    def overlay(self, clip: str) -> Path:
        """The file that changes this recipe for variants of this clip; it need not exist."""
        base = self.files[0]
        return base.with_name(f"{base.stem}_{clip}{base.suffix}")

    def with_clip(self, clip: str | None) -> "Recipe":
        """The recipe for variants of this clip; itself for None. UserError if it has no such file."""
        if clip is None:
            return self
        overlay = self.overlay(clip)
        if not overlay.is_file():
            raise UserError(f"recipe '{self.name}' has no {overlay}, which variants with 'clip: {clip}' need")
        return Recipe(self.name, (*self.files, overlay), _merged(self.config, _recipe_config(overlay)))


def load_recipe(name_or_path: str | Path, clip: str | None = None, root: Path | None = None) -> Recipe:
    """Read a recipe: ``longrange`` is ``experiments/recipes/longrange.yaml``; a path is taken as it is.

    With `clip`, ``<recipe>_<clip>.yaml`` beside it is laid over it as LightningCLI does with a second
    ``--config``: mappings merge, everything else is replaced. `root` stands for the experiments folder.
    """
    path = _find(name_or_path, lambda: [f / "recipes" for f in ([root] if root else experiments_folders())], "recipe")
    return Recipe(_name(path.stem, f"{path}"), (path,), _recipe_config(path)).with_clip(clip)


def _recipe_config(path: Path) -> dict[str, Any]:
    config = _mapping(load_yaml(path), str(path))
    # A network in a recipe would slip into every variant that leaves the key out, baselines above all.
    model = config.get("model")
    net = model.get("net") if isinstance(model, dict) else None
    for key in ("depth", "inflate", "non_local"):
        if isinstance(net, dict) and key in net:
            raise UserError(f"{path}: model.net.{key} belongs to the variants of a study, not to a recipe")
    return config


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(old, dict) and isinstance(value, dict) else value
    return merged


def config_hash(recipe: Recipe, variant: Variant, parent_hash: str | None, seed: int) -> str:
    """12 hexadecimal digits that change with everything that can change the numbers of a run.

    They cover the merged recipe (`recipe` has the variant's clip) but for :data:`NEUTRAL`, the variant's
    arguments, the seed, and the hash of the run whose weights it starts from.
    """
    run = {
        "recipe": _without(recipe.config, ""),
        "variant": variant.arguments(),
        "seed": seed,
        "parent": parent_hash,
    }
    canonical = json.dumps(run, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(canonical.encode()).hexdigest()[:12]


def _without(config: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    return {
        key: _without(value, f"{prefix}{key}.") if isinstance(value, dict) else value
        for key, value in config.items()
        if f"{prefix}{key}" not in NEUTRAL and not (f"{prefix}{key}" in NEUTRAL_IF_ONE and value == 1)
    }


def run_hash(study: Study, recipe: Recipe, variant: str, seed: int) -> str:
    """The :func:`config_hash` of a run of a study, parents included; `recipe` is the one without clip."""
    network = study.variant(variant)
    parent = run_hash(study, recipe, network.init_from, seed) if network.init_from else None
    return config_hash(recipe.with_clip(network.clip), network, parent, seed)


# -------------------------------------------------------------------------------------- YAML and small checks


_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # five times faster, but not in every build of PyYAML


class _Loader(_SafeLoader):  # type: ignore[misc, valid-type]
    """PyYAML keeps the last of two equal keys in silence; this one refuses the second."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key '{key.value}' is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return cast(dict[Any, Any], super().construct_mapping(node, deep))


def load_yaml(path: Path) -> object:
    """The content of a YAML file. UserError, with the line, if it can't be read or gives a key twice."""
    try:
        with path.open(encoding="utf-8") as file:
            return yaml.load(file, _Loader)
    except FileNotFoundError:
        raise UserError(f"no file {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: can't be read: {error}") from None
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{path}{line}: {error.problem}") from None
    except (yaml.YAMLError, RecursionError) as error:
        raise UserError(f"{path}: not YAML: {' '.join(str(error).split())}") from None


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _mapping(
    value: object, at: str, required: Sequence[str] | None = None, optional: Sequence[str] = ()
) -> dict[str, Any]:
    """`value`, if it is a mapping with text keys: if `required` is given, these and `optional` ones only."""
    if not isinstance(value, dict):
        raise UserError(f"{at}: expected 'key: value' pairs, got {_shown(value)}")
    for key in value:
        if not isinstance(key, str):
            raise UserError(f"{at}: expected a text as key, got {_shown(key)}; write it in quotes")
        if required is not None and key not in required and key not in optional:
            raise UserError(f"{at}: unknown key '{key}'{nearest(key, (*required, *optional))}")
    for key in required or ():
        if key not in value:
            raise UserError(f"{at}: the key '{key}' is missing")
    return value


def _list(value: object, at: str) -> list[Any]:
    if not isinstance(value, list):
        raise UserError(f"{at}: expected a list, got {_shown(value)}")
    return value


def _text(value: object, at: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f"{at}: expected a text, got {_shown(value)}; write it in quotes")
    return value


def _name(value: object, at: str) -> str:
    if not _NAME.fullmatch(_text(value, at)):
        raise UserError(f"{at}: '{value}' names files: use letters, digits, and _ . - between them")
    return str(value)


def _number(value: object, at: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value or abs(value) == float("inf"):
        raise UserError(f"{at}: expected a number, got {_shown(value)}")
    return float(value)


def _choice(value: object, at: str, known: Sequence[str]) -> str:
    if value not in known:
        raise UserError(f"{at}: expected one of {', '.join(known)}, got {_shown(value)}")
    return str(value)


def _known(value: object, at: str, names: Mapping[str, Any]) -> str:
    if _text(value, at) not in names:
        raise UserError(f"{at}: unknown '{value}'{nearest(str(value), names)}")
    return str(value)


def _repeated(values: Sequence[Any]) -> list[Any]:
    return [value for i, value in enumerate(values) if value in values[:i]]
