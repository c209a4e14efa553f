"""From the records of variants to a difference with its noise, paired by test video or item where that can be."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
from jaxtyping import Bool, Float

from nl_lightning.report.uncertainty import (
    Difference,
    Interval,
    alone,
    combined,
    combined_unpaired,
    mean_of_videos,
    over_seeds,
    paired_numbers,
    wilson,
)
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
    """The weighted sum from the records of each variant, all of the same seeds."""
    if metric.own:
        return _of_module(records, weights, metric)
    every = [record for of in records for record in of]
    lists = {record.videos_hash for record in every}
    kept = all(by_video(record, metric, soft) for record in every)
    if "" in lists or len(lists) > 1 or not kept or (len(weights) == 1 and metric.counts_videos):
        scores = [np.array([record.score(metric) for record in of]) for of in records]
        if metric.counts_videos:
            found = combined_unpaired(scores, weights, every[0].videos_expected)
            return replace(found, paired=len(weights) == 1)  # nothing to be paired with is no lack
        return alone(np.array(weights) @ np.stack(scores), every[0].videos_expected)
    if soft or not metric.counts_videos:
        numbers = [[_numbers(by_video(one, metric, soft), one.videos_expected) for one in of] for of in records]
        difference = np.tensordot(np.array(weights), np.array(numbers), 1)  # (seeds, videos)
        return paired_numbers(difference[:, _judged(every, group)] if soft else difference)
    rights = [np.stack([_bits(record.right_top1, record.videos_expected) for record in of]) for of in records]
    return combined(rights, weights, np.all([_read(record) for record in every], axis=0))


def _of_module(records: Sequence[tuple[Record, ...]], weights: Sequence[float], metric: Metric) -> Difference:
    """The same of a metric that another LightningModule logs: paired by item, or from what seeds do alone."""
    outcomes = [[outcomes_of(record, metric) for record in of] for of in records]
    limit = 100.0 if metric.bounded else math.inf
    if any(one is None for of in outcomes for one in of):
        scores = np.stack([[record.score(metric) for record in of] for of in records])
        return replace(over_seeds(np.array(weights) @ scores, 0), paired=False, limit=limit)
    each = np.array(outcomes)  # (variants, seeds, items)
    if np.isin(each, (0, 100)).all() and metric.bounded and len(weights) > 1:
        return combined([one > 0 for one in each], weights)
    return replace(paired_numbers(np.tensordot(np.array(weights), each, 1)), limit=limit)


def outcomes_of(record: Record, metric: Metric) -> Float[np.ndarray, " V"] | None:
    """What each test item contributes to the metric, in its unit; None if the record doesn't say."""
    if not record.outcomes or record.videos_expected < 2 or metric.key not in record.metrics:
        return None
    factor, outcomes = _outcomes(record.outcomes, record.videos_expected, record.metrics[metric.key])
    return None if factor is None else metric.scale * factor * outcomes


@lru_cache(maxsize=1000)
def _outcomes(packed: str, items: int, value: float) -> tuple[float | None, Float[np.ndarray, " V"]]:
    outcomes = unpack_outcomes(packed, items)
    return factor_of(outcomes, value), np.array(outcomes, dtype=float)


def by_video(record: Record, metric: Metric, soft: bool = False) -> str:
    """What a record keeps of each video, packed: the soft score, or else what a metric of ours is made of."""
    if soft:
        return record.soft_by_video
    return record.right_top1 if metric.counts_videos else record.mAP_by_video


def _judged(records: Sequence[Record], group: str) -> Bool[np.ndarray, " V"]:
    """The test videos of a group, or all, that every one could read; of the same list."""
    read = np.all([_read(record) for record in records], axis=0)
    of = _bits(records[0].videos_by_group[group], records[0].videos_expected) if group else np.ones_like(read)
    return read & of if (read & of).any() else of


def _read(record: Record) -> Bool[np.ndarray, " V"]:
    """Which test videos could be decoded; all of them if the record doesn't say which couldn't."""
    if not record.read_videos:
        return np.ones(record.videos_expected, dtype=bool)
    return _bits(record.read_videos, record.videos_expected)


@lru_cache(maxsize=1000)  # a record is compared with several others
def _bits(packed: str, videos: int) -> Bool[np.ndarray, " V"]:
    return np.array(unpack(packed, videos))


@lru_cache(maxsize=1000)
def _numbers(packed: str, videos: int) -> Float[np.ndarray, " V"]:
    return np.array(unpack_numbers(packed, videos))


def over_videos(record: Record, metric: Metric) -> Interval | None:
    """The interval of one record's score over test videos, in percent; None if the record can't tell."""
    if metric.own:
        outcomes = outcomes_of(record, metric)
        if outcomes is None:
            return None
        if metric.bounded and np.isin(outcomes, (0, 100)).all():
            return wilson(int((outcomes > 0).sum()), len(outcomes))
        return mean_of_videos(outcomes, (0.0, 100.0) if metric.bounded else (-math.inf, math.inf))
    if metric.counts_videos:
        right = round(record.score(metric) * record.videos_expected / 100)
        return wilson(right, record.videos_expected)
    return mean_of_videos(_numbers(record.mAP_by_video, record.videos_expected)) if record.mAP_by_video else None
