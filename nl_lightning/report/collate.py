"""From the records of a study to one line per row of its tables, in the paper's order.

Only records whose hash matches today's configuration count. Missing and stale runs stay visible as such.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from nl_lightning.errors import UserError
from nl_lightning.report.uncertainty import (
    Difference,
    Interval,
    alone,
    mean_of_videos,
    over_folds,
    paired,
    paired_numbers,
    unpaired,
    wilson,
)
from nl_lightning.study.metrics import Metric
from nl_lightning.study.records import (
    RunRecord,
    State,
    load_records,
    record_path,
    state,
    state_by_record,
    unpack,
    unpack_numbers,
)
from nl_lightning.study.study import Recipe, Row, Study

VIEWS = {"num_clips": "clips a video", "num_crops": "crops a frame"}
REPORTED_ONLY = "reported only"  # the state of a row without a variant
VIDEOS = {"videos_expected": "videos", "videos_hash": "as the hash of its test list"}


@dataclass(frozen=True)
class Runs:
    """The runs of a study under a recipe: every variant x every seed, with where each stands."""

    study: Study
    recipe: Recipe
    seeds: tuple[int, ...]
    states: dict[tuple[str, int], State]

    def records(self, variants: Iterable[str] | None = None) -> list[RunRecord]:
        """The records that count, of these variants (default: of all), by variant and seed."""
        names = self.study.variants if variants is None else dict.fromkeys(variants)
        found = (self.states[name, seed].record for name in names for seed in self.seeds)
        return [record for record in found if record is not None]

    def difference(self, variant: str, than: str) -> Difference | None:
        """Score of a variant minus that of another, from the seeds that both have; None if there is none.

        Paired by video where the records say which videos are right, or what each contributes to the mAP, and that they
        are of the same test list; else from the scores alone. Videos that one of the two couldn't read are left out
        where the records say which, and the score is of right videos.
        """
        pairs = [
            (mine, other)
            for seed in self.seeds
            if (mine := self.states[variant, seed].record) and (other := self.states[than, seed].record)
        ]
        by_fold = _by_fold(pairs, self.recipe.folds, lambda pair: pair[0].seed)
        return over_folds([_difference(fold, self.study.metric) for fold in by_fold]) if by_fold else None

    def ratio(self, variant: str, than: str, quantity: str) -> float | None:
        """``params`` or ``macs`` of a variant as a multiple of another's; None if one isn't measured."""
        costs = [getattr(record, quantity) for name in (variant, than) for record in self.records([name])[:1]]
        return costs[0] / costs[1] if len(costs) == 2 else None


Item = TypeVar("Item")


def _by_fold(items: Sequence[Item], folds: int, seed: Callable[[Item], int]) -> list[list[Item]]:
    """What there is of each official split of the data; only within one are the test videos the same."""
    by_fold = [[item for item in items if seed(item) % folds == fold] for fold in range(folds)]
    return [fold for fold in by_fold if fold]


def _difference(pairs: Sequence[tuple[RunRecord, RunRecord]], metric: Metric) -> Difference:
    first, second = zip(*pairs, strict=True)
    both = [*first, *second]
    lists = {record.videos_hash for record in both}
    kept = all(record.right_top1 if metric.counts_videos else record.mAP_by_video for record in both)
    if "" in lists or len(lists) > 1 or not kept:
        one, two = (np.array([record.score(metric) for record in records]) for records in (first, second))
        from_scores = unpaired if metric.counts_videos else alone
        return from_scores(one, two, both[0].videos_expected)
    if not metric.counts_videos:
        return paired_numbers(
            *(np.stack([_contributions(record) for record in records]) for records in (first, second))
        )
    won, theirs = (np.stack([_right(record) for record in records]) for records in (first, second))
    return paired(won, theirs, np.all([_read(record) for record in both], axis=0))


def _right(record: RunRecord) -> Bool[np.ndarray, " V"]:
    return _bits(record.right_top1, record.videos_expected)


def _contributions(record: RunRecord) -> Float[np.ndarray, " V"]:
    return np.array(unpack_numbers(record.mAP_by_video, record.videos_expected))


def _read(record: RunRecord) -> Bool[np.ndarray, " V"]:
    """Which test videos could be decoded; all of them if the record doesn't say which couldn't."""
    if not record.read_videos:
        return np.ones(record.videos_expected, dtype=bool)
    return _bits(record.read_videos, record.videos_expected)


@lru_cache(maxsize=1000)  # a record is compared with several others
def _bits(packed: str, videos: int) -> Bool[np.ndarray, " V"]:
    return np.array(unpack(packed, videos))


def collect(study: Study, recipe: Recipe, results: Path, seeds: Sequence[int] | None = None) -> Runs:
    """Find the runs of a study. `recipe` is the plain one; `results` holds ``records/`` and ``runs/``.

    `seeds` are those that every variant should have; by default those of any record, or 0 if there is none.

    Raises:
        UserError: a record is broken, or some that were tested differently would be compared.
    """
    if seeds is None:
        seeds = _seeds(study, recipe, load_records(results, recipe.name))
    states = {(name, seed): state(results, study, recipe, name, seed) for name in study.variants for seed in seeds}
    runs = Runs(study, recipe, tuple(seeds), states)
    _check_comparable(runs, lambda record: str(record_path(results, record.recipe, record.variant, record.seed)))
    return runs


def collect_records(
    study: Study, recipe: Recipe, records: Mapping[tuple[str, int], RunRecord], place: Callable[[RunRecord], str]
) -> Runs:
    """The runs of a study as :func:`collect` finds them, from records of `recipe` that don't lie in a results folder.

    `records` is by variant and seed; `place` says where a record is, for a message. UserError as above.
    """
    seeds = _seeds(study, recipe, records.values())
    keys = [(name, seed) for name in study.variants for seed in seeds]
    states = {key: state_by_record(study, recipe, *key, records.get(key)) for key in keys}
    runs = Runs(study, recipe, tuple(seeds), states)
    _check_comparable(runs, place)
    return runs


def _seeds(study: Study, recipe: Recipe, records: Iterable[RunRecord]) -> list[int]:
    """Those of the records; of official splits all, as only the mean of them is what others report."""
    found = {record.seed for record in records if record.variant in study.variants}
    return sorted(found | set(range(recipe.folds)) if recipe.folds > 1 else found) or [0]


def _check_comparable(runs: Runs, place: Callable[[RunRecord], str]) -> None:
    for table in runs.study.tables.values():
        rows = table.variants
        _same(runs.records(rows), VIEWS, f"table {table.name}", place)
        baselines = [row.baseline for row in table.rows if row.baseline]
        _same_protocol(runs, [*rows, *baselines], f"table {table.name}", place)
    for claim in runs.study.claims:
        variants = [name for check in claim.checks for name in check.variants]
        _same_protocol(runs, variants, f"claim {claim.name}", place)


def _same_protocol(runs: Runs, variants: list[str], where: str, place: Callable[[RunRecord], str]) -> None:
    """Refuse to compare what was tested on other videos or with other views: it moves a score by points.

    Longer clips may have fewer views of a video (one may be all of it), so views are compared within a length.
    """
    for records in _by_fold(runs.records(variants), runs.recipe.folds, lambda record: record.seed):
        _same(records, VIDEOS, where, place)
    for clip in {runs.study.variants[name].clip for name in variants}:
        of_clip = [name for name in variants if runs.study.variants[name].clip == clip]
        _same(runs.records(of_clip), VIEWS, where, place)


def _same(records: list[RunRecord], fields: Mapping[str, str], where: str, place: Callable[[RunRecord], str]) -> None:
    for record in records[1:]:
        for key, unit in fields.items():
            first, other = getattr(records[0], key), getattr(record, key)
            if first != other and "" not in (first, other):  # older records don't say which test list it was
                raise UserError(
                    f"{where}: {place(records[0])} was tested with {first} {unit} ({key}), {place(record)} with "
                    f"{other}: they can't be compared; test one of them again"
                )


def collate(runs: Runs) -> pd.DataFrame:
    """One line per row of the study's tables, in their order.

    Columns: ``table, label, variant, baseline`` as in the study. ``state``: ``ok`` (every seed), ``partial``,
    ``stale`` (only records of another configuration), ``missing``, or ``reported only``; ``note`` says why.
    ``n``: seeds that count. ``top1, top5`` (or ``mAP``, as the study's metric has it): percent, mean over seeds, and
    ``top1_std, top5_std``, their sample standard deviation (n > 1); ``top1_low, top1_high``: the interval over videos,
    of one seed, Wilson's where it is of right videos. ``gain``: points of
    the metric over the baseline, from the ``gain_n`` seeds that both have, ``gain_std`` their sample standard
    deviation, ``gain_low, gain_high`` its interval (:class:`~nl_lightning.report.uncertainty.Difference`),
    ``gain_paired`` whether it is paired by video, ``gain_dropped`` videos that one of the two couldn't read.
    ``params, macs``: of the network and of one clip, and ``params_ratio, flops_ratio``: as multiples of the
    baseline's. ``reported_...``: the same, as reported. What isn't known is NaN (``<NA>`` for whole numbers).
    """
    lines = [_line(runs, table.name, row) for table in runs.study.tables.values() for row in table.rows]
    frame = pd.DataFrame(lines)
    whole = ["n", "gain_n", "gain_dropped", "params", "macs"]
    ends = ("_std", "_low", "_high", "_ratio", "gain", *(shown.key for shown in runs.study.metric.shown))
    numbers = [name for name in map(str, frame) if name.endswith(ends)]
    types = dict.fromkeys(whole, "Int64") | dict.fromkeys(numbers, "float64") | {"gain_paired": "boolean"}
    return frame.astype(types)


def _line(runs: Runs, table: str, row: Row) -> dict[str, object]:
    return {
        "table": table,
        "label": row.label,
        "variant": row.variant,
        "baseline": row.baseline,
        **_measured(runs, row),
        **_reported(runs.study, row),
        "note": _note(runs, row.variant) if row.variant else "",
    }


def _measured(runs: Runs, row: Row) -> dict[str, object]:
    """What was measured of a row; nothing of what others report."""
    records = runs.records([row.variant]) if row.variant else []
    others = runs.records([row.baseline]) if row.baseline else []
    seeds = {record.seed for record in records} & {record.seed for record in others}
    gain = runs.difference(row.variant, row.baseline) if row.variant and row.baseline else None
    reference = row.baseline or row.variant
    params, macs = (records[0].params, records[0].macs) if records else (None, None)
    return {
        "state": _state(runs, row.variant) if row.variant else REPORTED_ONLY,
        "n": len(records),
        **_scores(runs.study.metric, records),
        "gain": gain.mean if gain else None,
        "gain_std": gain.std if gain else None,
        **_ends("gain", gain.interval() if gain and gain.bounded else None),
        "gain_n": len(seeds) if row.baseline else None,
        "gain_paired": gain.paired if gain else None,
        "gain_dropped": gain.dropped if gain else None,
        "params": params,
        "macs": macs,
        "params_ratio": runs.ratio(row.variant, reference, "params") if row.variant and reference else None,
        "flops_ratio": runs.ratio(row.variant, reference, "macs") if row.variant and reference else None,
    }


def _scores(metric: Metric, records: Sequence[RunRecord]) -> dict[str, object]:
    """Means and spreads of the metric, with the interval of a single record, and of what is shown beside it."""
    found: dict[str, object] = {}
    for shown in metric.shown:
        of_seeds = pd.Series([record.score(shown) for record in records], dtype=float)
        found |= {shown.key: of_seeds.mean(), f"{shown.key}_std": of_seeds.std()}
        if shown is metric:
            found |= _ends(metric.key, over_videos(records[0], metric) if len(records) == 1 else None)
    return found


def over_videos(record: RunRecord, metric: Metric) -> Interval | None:
    """The interval of one record's score over test videos, in percent; None if the record can't tell."""
    if metric.counts_videos:
        right = round(record.score(metric) * record.videos_expected / 100)
        return wilson(right, record.videos_expected)
    return mean_of_videos(_contributions(record)) if record.mAP_by_video else None


def _reported(study: Study, row: Row) -> dict[str, object]:
    gain = study.reported_gain(row.variant, row.baseline) if row.variant and row.baseline else None
    return {
        **{f"reported_{shown.key}": getattr(row.reported, shown.key) for shown in study.metric.shown},
        "reported_gain": gain,
        "reported_params_ratio": row.reported.params_ratio,
        "reported_flops_ratio": row.reported.flops_ratio,
    }


def _ends(name: str, interval: Interval | None) -> dict[str, float | None]:
    low, high = interval or (None, None)
    return {f"{name}_low": low, f"{name}_high": high}


def _state(runs: Runs, variant: str) -> str:
    names = [runs.states[variant, seed].name for seed in runs.seeds]
    if all(name == "done" for name in names):
        return "ok"
    if "done" in names:
        return "partial"
    return "stale" if "stale" in names else "missing"


def _note(runs: Runs, variant: str) -> str:
    """Why seeds are missing, where anything is known; when and in which process doesn't belong in a table."""
    seeds: dict[str, list[str]] = {}
    for seed in runs.seeds:
        state = runs.states[variant, seed]
        if state.name in ("running", "queued", "interrupted", "preempted"):
            seeds.setdefault(state.name, []).append(str(seed))
        elif state.name == "stale":
            seeds.setdefault("stale: made with another configuration", []).append(str(seed))
        elif state.name != "done" and state.note:
            seeds.setdefault(f"{state.name}: {state.note}", []).append(str(seed))
    return "; ".join(f"seed{'s' if len(which) > 1 else ''} {', '.join(which)} {what}" for what, which in seeds.items())
