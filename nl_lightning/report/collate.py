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
from jaxtyping import Bool

from nl_lightning.errors import UserError
from nl_lightning.records import RunRecord, State, load_records, record_path, state, state_by_record, unpack
from nl_lightning.report.uncertainty import Difference, Interval, over_folds, paired, unpaired, wilson
from nl_lightning.study import Recipe, Row, Study

VIEWS = {"num_clips": "clips a video", "num_crops": "crops a frame"}
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

    def measured(self, variant: str, quantity: str) -> "pd.Series[float]":
        """A field of the records of a variant, such as ``top1``, indexed by seed; empty if there is none."""
        records = self.records([variant])
        seeds = [record.seed for record in records]
        return pd.Series([float(getattr(record, quantity)) for record in records], seeds, dtype=float)

    def difference(self, variant: str, than: str) -> Difference | None:
        """Top-1 of a variant minus that of another, from the seeds that both have; None if there is none.

        Paired by video where the records say which videos are right, and that they are of the same test list; else
        from the accuracies. Videos that one of the two couldn't read are left out where the records say which.
        """
        pairs = [
            (mine, other)
            for seed in self.seeds
            if (mine := self.states[variant, seed].record) and (other := self.states[than, seed].record)
        ]
        by_fold = _by_fold(pairs, self.recipe.folds, lambda pair: pair[0].seed)
        return over_folds([_difference(fold) for fold in by_fold]) if by_fold else None

    def ratio(self, variant: str, than: str, quantity: str) -> float | None:
        """``params`` or ``macs`` of a variant as a multiple of another's; None if one isn't measured."""
        mine, other = self.measured(variant, quantity), self.measured(than, quantity)
        return None if mine.empty or other.empty else float(mine.iloc[0] / other.iloc[0])


Item = TypeVar("Item")


def _by_fold(items: Sequence[Item], folds: int, seed: Callable[[Item], int]) -> list[list[Item]]:
    """What there is of each official split of the data; only within one are the test videos the same."""
    by_fold = [[item for item in items if seed(item) % folds == fold] for fold in range(folds)]
    return [fold for fold in by_fold if fold]


def _difference(pairs: Sequence[tuple[RunRecord, RunRecord]]) -> Difference:
    first, second = zip(*pairs, strict=True)
    both = [*first, *second]
    lists = {record.videos_hash for record in both}
    if "" in lists or len(lists) > 1 or not all(record.right_top1 for record in both):
        one, two = (np.array([record.top1 for record in records]) for records in (first, second))
        return unpaired(one, two, both[0].videos_expected)
    won, theirs = (np.stack([_right(record) for record in records]) for records in (first, second))
    return paired(won, theirs, np.all([_read(record) for record in both], axis=0))


def _right(record: RunRecord) -> Bool[np.ndarray, " V"]:
    return _bits(record.right_top1, record.videos_expected)


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
        rows = [row.variant for row in table.rows]
        _same(runs.records(rows), VIEWS, f"table {table.name}", place)
        baselines = [row.baseline for row in table.rows if row.baseline]
        _same_protocol(runs, [*rows, *baselines], f"table {table.name}", place)
    for claim in runs.study.claims:
        variants = [name for check in claim.checks for name in check.variants]
        _same_protocol(runs, variants, f"claim {claim.name}", place)


def _same_protocol(runs: Runs, variants: list[str], where: str, place: Callable[[RunRecord], str]) -> None:
    """Refuse to compare what was tested on other videos or with other views: it moves top-1 by points.

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
    ``stale`` (only records of another configuration) or ``missing``; ``note`` says why. ``n``: seeds that
    count. ``top1, top5``: percent, mean over seeds, and ``top1_std, top5_std``, their sample standard
    deviation (n > 1); ``top1_low, top1_high``: Wilson's interval over videos, of one seed. ``gain``: points of
    top-1 over the baseline, from the ``gain_n`` seeds that both have, ``gain_std`` their sample standard
    deviation, ``gain_low, gain_high`` its interval (:class:`~nl_lightning.report.uncertainty.Difference`),
    ``gain_paired`` whether it is paired by video, ``gain_dropped`` videos that one of the two couldn't read.
    ``params, macs``: of the network and of one clip, and ``params_ratio, flops_ratio``: as multiples of the
    baseline's. ``reported_...``: the same, as reported. What isn't known is NaN (``<NA>`` for whole numbers).
    """
    lines = [_line(runs, table.name, row) for table in runs.study.tables.values() for row in table.rows]
    frame = pd.DataFrame(lines)
    whole = ["n", "gain_n", "gain_dropped", "params", "macs"]
    ends = ("_std", "_low", "_high", "_ratio", "gain", "top1", "top5")
    numbers = [name for name in map(str, frame) if name.endswith(ends)]
    types = dict.fromkeys(whole, "Int64") | dict.fromkeys(numbers, "float64") | {"gain_paired": "boolean"}
    return frame.astype(types)


def _line(runs: Runs, table: str, row: Row) -> dict[str, object]:
    top1, top5 = runs.measured(row.variant, "top1"), runs.measured(row.variant, "top5")
    one = runs.records([row.variant])[0] if len(top1) == 1 else None
    accuracy = wilson(round(one.top1 * one.videos_expected / 100), one.videos_expected) if one else None
    gain = runs.difference(row.variant, row.baseline) if row.baseline else None
    other = runs.measured(row.baseline or row.variant, "top1")
    over = gain.interval() if gain else None
    reference = row.baseline or row.variant
    reported = row.reported
    params, macs = runs.measured(row.variant, "params"), runs.measured(row.variant, "macs")
    return {
        "table": table,
        "label": row.label,
        "variant": row.variant,
        "baseline": row.baseline,
        "state": _state(runs, row.variant),
        "n": len(top1),
        "top1": top1.mean(),
        "top1_std": top1.std(),
        **_ends("top1", accuracy),
        "top5": top5.mean(),
        "top5_std": top5.std(),
        "gain": gain.mean if gain else None,
        "gain_std": gain.std if gain else None,
        **_ends("gain", over),
        "gain_n": len(top1.index.intersection(other.index)) if row.baseline else None,
        "gain_paired": gain.paired if gain else None,
        "gain_dropped": gain.dropped if gain else None,
        "params": None if params.empty else int(params.iloc[0]),
        "macs": None if macs.empty else int(macs.iloc[0]),
        "params_ratio": runs.ratio(row.variant, reference, "params"),
        "flops_ratio": runs.ratio(row.variant, reference, "macs"),
        "reported_top1": reported.top1,
        "reported_top5": reported.top5,
        "reported_gain": runs.study.reported_gain(row.variant, row.baseline) if row.baseline else None,
        "reported_params_ratio": reported.params_ratio,
        "reported_flops_ratio": reported.flops_ratio,
        "note": _note(runs, row.variant),
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
