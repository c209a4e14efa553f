"""From the records of a study to numbers: one line per row of its tables, in the paper's order. No words are made here.

Only records whose hash matches today's configuration count. Missing, stale and diverged runs stay visible as such.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple, cast

import pandas as pd

from nl_lightning.errors import UserError, one_line, visible
from nl_lightning.report.pairing import by_fold, over_videos, weighted
from nl_lightning.report.uncertainty import Difference, Interval, over_folds
from nl_lightning.study.metrics import Metric
from nl_lightning.study.recipe import Recipe, with_stills
from nl_lightning.study.records import Record, record_path, recorded
from nl_lightning.study.run import Run, State, agreeing, state_by_record
from nl_lightning.study.study import COSTS, Row, Study, Variant

VIEWS = {"num_clips": "clips a video", "num_crops": "crops a frame"}
VIDEOS = {
    "videos_expected": "videos",
    "videos_hash": "as the hash of its test list",
    "content.test": "as the hash of its test videos",
}
TRAINED = {"content.train": "as the hash of its training videos"}
REPORTED_ONLY = "reported only"  # the state of a row without a variant
DIVERGED, UNREADABLE = "diverged", "unreadable"  # states of a row whose records give no number


def visible_line(text: str) -> str:
    """A text from outside as one line; what steers a terminal or is no text is shown as Python writes it."""
    return visible(one_line(text))


Place = Callable[[Record], str]
"""Where a record is, for a message."""


@dataclass(frozen=True)
class Runs:
    """The runs of a study under a recipe: every variant x every seed, with where each stands.

    `left_out` are seeds of which there are records, and that were not asked for.
    """

    study: Study
    recipe: Recipe
    seeds: tuple[int, ...]
    states: dict[tuple[str, int], State]
    left_out: tuple[int, ...] = ()

    def record(self, variant: str, seed: int) -> Record | None:
        """The record of a run, if it counts: it is of today's configuration, and the run has not diverged."""
        record = self.states[variant, seed].record
        return None if record is None or record.diverged else record

    def records(self, variants: Iterable[str] | None = None) -> list[Record]:
        """The records that count, of these variants (default: of all but stills), by variant and seed."""
        names = list(dict.fromkeys(self.study.compared if variants is None else variants))
        found = (self.record(name, seed) for name in names for seed in self.seeds)
        return [record for record in found if record is not None]

    def stands(self, variant: str, seed: int) -> str:
        """Where a run stands: the name of its state, or ``diverged``."""
        found = self.states[variant, seed]
        return DIVERGED if found.record is not None and self.record(variant, seed) is None else found.name

    def together(self, variants: Iterable[str]) -> list[tuple[Record, ...]]:
        """The records of several variants, of the seeds that all of them have."""
        names = tuple(variants)
        found = (tuple(self.record(name, seed) for name in names) for seed in self.seeds)
        return [cast(tuple[Record, ...], records) for records in found if None not in records]

    def difference(self, variant: str, than: str) -> Difference | None:
        """By how much a variant is better than another, from the seeds that both have; None if there is none."""
        return self.combination({variant: 1, than: -1})

    def combination(self, weights: Mapping[str, float], soft: bool = False, of: str = "") -> Difference | None:
        """A weighted sum of scores whose weights add up to zero, from the seeds that all of these variants have.

        Where a lower score is better, it is the sum of minus the scores: what is above zero is an improvement.

        Paired by video where the records say enough; else from the scores alone. Videos that one of them couldn't read
        are left out where the records say which, but not of an mAP. `soft`: the mean probability of the right class in
        place of the metric, of the videos of :meth:`group` of `of`; every record has to have it.
        """
        factors = [self.study.metric.sign * weight for weight in weights.values()]
        folds = by_fold(self.together(weights), self.recipe.folds, lambda records: records[0].seed)
        metric, group = self.study.metric, self.group(of)
        parts = [weighted(list(zip(*fold, strict=True)), factors, metric, soft, group) for fold in folds]
        most = max(1.0, sum(map(abs, factors)) / 2)  # a difference of differences can be twice as large
        return replace(found := over_folds(parts), limit=found.limit * most) if parts else None

    @cached_property
    def soft(self) -> bool:
        """Whether every record that counts has the probability of the right class, of which videos."""
        return bool(self.records()) and all(record.soft_by_video and record.videos_hash for record in self.records())

    def group(self, asked: str = "") -> str:
        """The group of test videos that is judged: the one that is `asked` for, or else the one that the study says.

        Empty is all videos: no group is asked for, or not all records have a soft score for it.
        """
        records = self.records() if self.soft else []
        groups = (group for group in (asked, self.study.judged_on) if group and records)
        return next((group for group in groups if all(group in record.videos_by_group for record in records)), "")

    def ratio(self, variant: str, than: str, cost: str) -> float | None:
        """``params`` or ``flops`` of a variant as a multiple of another's; None if one isn't measured."""
        field = "params" if cost == "params" else "macs"
        costs = [getattr(record, field) for name in (variant, than) for record in self.records([name])[:1]]
        return costs[0] / costs[1] if len(costs) == 2 and costs[1] > 0 else None


# ------------------------------------------------------------------------------------------------ finding the runs


def collect(study: Study, recipe: Recipe, results: Path, seeds: Sequence[int] | None = None) -> Runs:
    """Find the runs of a study. `recipe` is the plain one; `results` holds ``records/`` and ``runs/``.

    `seeds` are those that every variant should have; by default those of any record, or 0 if there is none.

    Raises:
        UserError: some that were tested differently would be compared.
    """
    study = with_stills(study, recipe)

    def stands(variant: str, seed: int) -> State:
        return Run(study, study.variants[variant], recipe, seed, results).state()

    def place(record: Record) -> str:
        return str(record_path(results, record.recipe, record.variant, record.seed))

    return _runs(study, recipe, recorded(results, recipe.name), stands, place, seeds)


def collect_records(study: Study, recipe: Recipe, records: Mapping[tuple[str, int], Record], place: Place) -> Runs:
    """The runs of a study as :func:`collect` finds them, from records of `recipe` that don't lie in a results folder.

    `records` is by variant and seed; `place` says where a record is, for a message. UserError as above.
    """

    def stands(variant: str, seed: int) -> State:
        return state_by_record(study, recipe, variant, seed, records.get((variant, seed)))

    return _runs(study, recipe, records, stands, place)


def _runs(
    study: Study,
    recipe: Recipe,
    found: Iterable[tuple[str, int]],
    stands: Callable[[str, int], State],
    place: Place,
    seeds: Sequence[int] | None = None,
) -> Runs:
    """The runs, if all that a table or a claim compares were tested alike: otherwise a score moves by points."""
    known = {seed for variant, seed in found if variant in study.variants}
    if seeds is None:
        splits = range(recipe.folds if recipe.folds > 1 else 0)  # papers report the mean of all
        seeds = sorted(known.union(splits)) or [0]
    states = {(name, seed): stands(name, seed) for name in study.variants for seed in seeds}
    runs = Runs(study, recipe, tuple(seeds), agreeing(states), tuple(sorted(known.difference(seeds))))
    compared = []
    for table in study.tables.values():
        baselines = [row.baseline for row in table.rows if row.baseline]
        compared.append((f"table {table.name}", table.variants, [*table.variants, *baselines]))
    for claim in study.claims:
        compared.append((f"claim {claim.name}", [], [name for check in claim.checks for name in check.named]))
    for where, rows, variants in compared:
        _same(runs.records(rows), VIEWS, where, place)
        for records in by_fold(runs.records(variants), recipe.folds, lambda record: record.seed):
            _same(records, VIDEOS, where, place)
            _same([one for one in records if not _own_data(study.variants[one.variant])], TRAINED, where, place)
        # Longer clips may have fewer views of a video (one may be all of it), so views are compared within a length.
        for clip in {study.variants[name].clip for name in variants}:
            _same(runs.records(name for name in variants if study.variants[name].clip == clip), VIEWS, where, place)
    return runs


def _own_data(variant: Variant) -> bool:
    """Whether it may be meant to be trained on other videos than the others are."""
    return any(key.startswith("data.") for key in variant.settings)


def _same(records: list[Record], fields: Mapping[str, str], where: str, place: Place) -> None:
    """Refuse to compare what was tested on other videos or with other views."""
    for key, unit in fields.items():
        first: dict[str, tuple[Record, str]] = {}  # content that was looked at in different ways says nothing
        for record in records:
            content: Mapping[Any, str] = record.evidence.content if record.evidence else {}
            of_split = key.removeprefix("content.")
            said = str(getattr(record, key)) if of_split == key else content.get(of_split, "")
            if said in ("", "0"):  # older records don't say which test list it was
                continue
            other, before = first.setdefault("" if of_split == key else said.partition(":")[0], (record, said))
            if said != before:
                raise UserError(
                    f"{where}: {place(other)} was tested with {before} {unit} ({key}), {place(record)} with "
                    f"{said}: they can't be compared; {'test' if of_split == key else 'run'} one of them again"
                )


# ------------------------------------------------------------------------------------------------------ the numbers


def collate(runs: Runs) -> pd.DataFrame:
    """One line per row of the study's tables, in their order.

    Columns: ``table, label, variant, baseline`` as in the study. ``state``: ``ok`` (every seed), ``partial``,
    ``diverged``, ``unreadable``, ``stale`` (only records of another configuration), ``missing``, or ``reported only``;
    ``holes``: where the seeds that don't count stand, ``(seed, state, why)`` each. ``n``: seeds that count. ``top1,
    top5`` (or ``mAP``, as the study's metric has it): percent, mean over seeds, and ``top1_std, top5_std``, their
    sample standard deviation (n > 1); of official splits over these, each the mean of its seeds. ``top1_low,
    top1_high``: the interval over videos, of one seed, Wilson's where it is of right videos.
    ``gain``: points of the metric over the baseline, from the ``gain_n`` seeds that both have, ``gain_std`` their
    sample standard deviation, ``gain_low, gain_high`` its interval (:class:`.uncertainty.Difference`), ``gain_paired``
    whether it is paired by video, ``gain_dropped`` videos that one of the two couldn't read.
    ``params, macs``: of the network and of one clip, and ``params_ratio, flops_ratio``: as multiples of the
    baseline's. ``reported_...``: the same, as reported. What isn't known is NaN (``<NA>`` for whole numbers).
    """
    frame = pd.DataFrame([_line(runs, table.name, row) for table in runs.study.tables.values() for row in table.rows])
    whole = ["n", "gain_n", "gain_dropped", "params", "macs"]
    ends = ("_std", "_low", "_high", "_ratio", "gain", *(shown.key for shown in runs.study.metric.shown))
    ends += tuple(f"reported_{key}" for key in runs.study.also_reported)
    numbers = [name for name in map(str, frame) if name.endswith(ends)]
    types = dict.fromkeys(whole, "Int64") | dict.fromkeys(numbers, "float64") | {"gain_paired": "boolean"}
    return frame.astype(types)


def _line(runs: Runs, table: str, row: Row) -> dict[str, object]:
    study, variant, baseline = runs.study, row.variant, row.baseline
    records = runs.records([variant]) if variant else []
    stand = [(seed, runs.stands(variant, seed), runs.states[variant, seed]) for seed in runs.seeds] if variant else []
    gain = runs.difference(variant, baseline) if variant and baseline else None
    return {
        "table": table,
        "label": visible_line(row.label),
        "variant": variant,
        "baseline": baseline,
        "state": standing(runs, variant) if variant else REPORTED_ONLY,
        "n": len(records),
        **_scores(study.metric, records, runs.recipe.folds),
        "gain": gain.mean if gain else None,
        "gain_std": gain.std if gain else None,
        **_ends("gain", gain.interval() if gain and gain.bounded else None),
        "gain_n": (len(runs.together([variant, baseline])) if variant else 0) if baseline else None,
        "gain_paired": gain.paired if gain else None,
        "gain_dropped": gain.dropped if gain else None,
        "params": records[0].params if records else None,
        "macs": records[0].macs or None if records else None,
        **{f"{c}_ratio": runs.ratio(variant, baseline or variant, c) if variant else None for c in ("params", "flops")},
        **{f"reported_{shown.key}": row.reported.get(shown.short) for shown in study.metric.shown},
        "reported_gain": study.reported_gain(variant, baseline) if variant and baseline else None,
        **{f"reported_{key}": row.reported.get(key) for key in (*COSTS, *study.also_reported)},
        "holes": tuple(
            (seed, name, s.record.diverged if s.record else s.note) for seed, name, s in stand if name != "done"
        ),
    }


def _scores(metric: Metric, records: Sequence[Record], folds: int) -> dict[str, object]:
    """Means and spreads of the metric, with the interval of a single record, and of what is shown beside it."""
    found: dict[str, object] = {}
    each = _by_split(records, lambda record: record.scores, [shown.key for shown in metric.shown], folds)
    for shown in metric.shown:  # what isn't finite isn't recorded
        of_shown = shown.scale * each[shown.key]
        found |= {shown.key: of_shown.mean(), f"{shown.key}_std": of_shown.std()}
        if shown is metric:
            found |= _ends(metric.key, over_videos(records[0], metric) if len(records) == 1 else None)
    return found


def _by_split(
    records: Sequence[Record], numbers: Callable[[Record], dict[str, float]], names: list[str], folds: int
) -> pd.DataFrame:
    """Numbers of records, a line a seed; where there are official splits a line a split, the mean of its seeds."""
    index = [record.seed % folds if folds > 1 else record.seed for record in records]
    return pd.DataFrame(list(map(numbers, records)), index, names, dtype=float).groupby(level=0).mean()


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def standing(runs: Runs, variant: str) -> str:
    """The state of a variant's row, over all seeds."""
    names = [runs.stands(variant, seed) for seed in runs.seeds]
    if all(name == "done" for name in names):
        return "ok"
    return next((word for name, word in HOLES.items() if name in names), "missing")


HOLES = {"done": "partial", DIVERGED: DIVERGED, UNREADABLE: UNREADABLE, "stale": "stale"}
"""What a row is called if any seed stands so; the first that there is."""


def by_group(runs: Runs) -> pd.DataFrame:
    """Top-1 by group of videos, in percent: a line a variant, a column a group, the mean over seeds or splits."""
    names = list(dict.fromkeys(name for record in runs.records() for name in record.top1_by_group))
    means = {
        variant: _by_split(runs.records([variant]), lambda one: one.top1_by_group, names, runs.recipe.folds).mean()
        for variant in runs.study.variants
    }
    return pd.DataFrame(means, index=names).T.dropna(how="all")


class Times(NamedTuple):
    """How often a group was learned, of how many seeds, and the mean score of those that did, in percent."""

    times: int
    seeds: int
    mean: float | None


def learned(runs: Runs) -> dict[str, dict[str, Times]]:
    """By variant and group, for the groups that the study names: by the soft score if all records have it."""
    found: dict[str, dict[str, Times]] = {}
    for variant in runs.study.variants:
        for group, bounds in runs.study.learned.items():
            each = [record.soft_by_group if runs.soft else record.top1_by_group for record in runs.records([variant])]
            scores = [score[group] for score in each if score.get(group) is not None]
            if scores:
                beyond = [score for score in scores if score > bounds.threshold]
                mean = sum(beyond) / len(beyond) if beyond else None
                found.setdefault(variant, {})[group] = Times(len(beyond), len(scores), mean)
    return found
