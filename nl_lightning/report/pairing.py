"""From the records of variants to a difference with its noise, paired by test video or item where that can be."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float

from nl_lightning.report import uncertainty
from nl_lightning.report.uncertainty import Difference, Interval
from nl_lightning.study.contradictions import factor_of
from nl_lightning.study.metrics import Metric
from nl_lightning.study.packing import unpack, unpack_numbers, unpack_outcomes
from nl_lightning.study.records import Record

Item = TypeVar("Item")


def by_fold(items: Sequence[Item], folds: int, seed: Callable[[Item], int]) -> list[list[Item]]:
    """What there is of each official split of the data; only within one are the test videos the same."""
    found = [[item for item in items if seed(item) % folds == fold] for fold in range(folds)]
    return [fold for fold in found if fold]


def weighted(
    records: Sequence[tuple[Record, ...]], weights: Sequence[float], metric: Metric, soft: bool, group: str
) -> Difference:
    """The weighted sum from the records of each variant, all of the same seeds; see :meth:`.collate.Runs.combination`.

    Of a metric that another LightningModule logs it is paired by item, or else from what seeds do alone.
    """
    factors = np.array(weights)
    scores = np.array([[record.score(metric) for record in of] for of in records])
    if metric.own:
        limit = 100.0 if metric.bounded else math.inf
        outcomes = [[outcomes_of(record, metric) for record in of] for of in records]
        if any(one is None for of in outcomes for one in of):
            return replace(uncertainty.over_seeds(factors @ scores, 0), paired=False, limit=limit)
        each = np.array(outcomes)  # (variants, seeds, items)
        if (unit := _unit(each, metric)) is not None:
            found = uncertainty.paired(*(each > 0), weights=weights)
            if len(weights) == 1:
                shares = 100 / unit * scores
                found = replace(uncertainty.unpaired(*shares, videos=each.shape[2], weights=weights), paired=True)
            return found.times(unit / 100)
        return replace(uncertainty.paired_numbers(np.tensordot(factors, each, 1)), limit=limit)
    every = [record for of in records for record in of]
    lists, videos = {record.videos_hash for record in every}, every[0].videos_expected
    kept = all(by_video(record, metric, soft) for record in every)
    if "" in lists or len(lists) > 1 or not kept or (len(weights) == 1 and metric.counts_videos):
        if metric.counts_videos:
            found = uncertainty.unpaired(*scores, videos=videos, weights=weights)
            return replace(found, paired=len(weights) == 1)  # nothing to be paired with is no lack
        return uncertainty.alone(factors @ scores, videos)
    read = np.ones(videos, dtype=bool)  # as far as the records say which could not be
    for record in every:
        if record.read_videos:
            read = read & _unpacked(unpack, record.read_videos, videos)
    if soft or not metric.counts_videos:
        numbers = [[_unpacked(unpack_numbers, by_video(one, metric, soft), videos) for one in of] for of in records]
        differences = np.tensordot(factors, np.array(numbers), 1)  # (seeds, videos)
        if soft:
            of_group = _unpacked(unpack, every[0].videos_by_group[group], videos) if group else np.ones_like(read)
            differences = differences[:, read & of_group if (read & of_group).any() else of_group]
        return uncertainty.paired_numbers(differences)
    rights = [np.stack([_unpacked(unpack, record.right_top1, videos) for record in of]) for of in records]
    return uncertainty.paired(*rights, weights=weights, read=read)


def outcomes_of(record: Record, metric: Metric) -> Float[np.ndarray, " V"] | None:
    """What each test item contributes to the metric, in its unit; None if the record doesn't say."""
    if not record.outcomes or record.videos_expected < 2 or metric.key not in record.metrics:
        return None
    outcomes = _unpacked(unpack_outcomes, record.outcomes, record.videos_expected)
    factor = factor_of(outcomes.tolist(), record.metrics[metric.key])
    return None if factor is None else metric.scale * factor * outcomes


def _unit(outcomes: Float[np.ndarray, "*shape"], metric: Metric) -> float | None:
    """What an item that is right counts, if items are right or wrong; None: outcomes are other numbers."""
    units = (100.0,) if metric.bounded else (metric.scale, 100 * metric.scale)
    return next((unit for unit in units if np.isin(outcomes, (0, unit)).all()), None)


def by_video(record: Record, metric: Metric, soft: bool = False) -> str:
    """What a record keeps of each video, packed: the soft score, or else what a metric of ours is made of."""
    if soft:
        return record.soft_by_video
    return record.right_top1 if metric.counts_videos else record.mAP_by_video


@lru_cache(maxsize=3000)  # a record is compared with several others
def _unpacked(by: Callable[[str, int], Sequence[float]], packed: str, videos: int) -> Any:
    return np.array(by(packed, videos))


def over_videos(record: Record, metric: Metric) -> Interval | None:
    """The interval of one record's score over test videos, in percent; None if the record can't tell."""
    if metric.own:
        outcomes = outcomes_of(record, metric)
        if outcomes is None:
            return None
        if (unit := _unit(outcomes, metric)) is not None:
            low, high = uncertainty.wilson(int((outcomes > 0).sum()), len(outcomes))
            return Interval(unit / 100 * low, unit / 100 * high)
        return uncertainty.mean_of_videos(outcomes, (0.0, 100.0) if metric.bounded else (-math.inf, math.inf))
    if metric.counts_videos:
        right = round(record.score(metric) * record.videos_expected / 100)
        return uncertainty.wilson(right, record.videos_expected)
    if not record.mAP_by_video:
        return None
    return uncertainty.mean_of_videos(_unpacked(unpack_numbers, record.mAP_by_video, record.videos_expected))
