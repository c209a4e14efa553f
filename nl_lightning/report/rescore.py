"""``nl-lightning rescore``: what one test would have scored under other protocols, from its stored views.

The same network and the same videos: what differs is how many views of a video are used, how they become one answer,
and what becomes of videos that could not be read. Published numbers differ in just these things.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from nl_lightning.errors import UserError
from nl_lightning.report.words import counted
from nl_lightning.study.records import Record, predictions_path, read_record, record_path
from nl_lightning.train.predictions import ViewProtocol, read_predictions, read_protocol
from nl_lightning.train.scores import Scores, Views, mean_softmax, rank


def mean_logits(views: Views) -> Scores:
    """The mean of the logits of the views; log-probabilities do, as they differ from them by a constant a view."""
    mean: Scores = views.astype(np.float64).mean(axis=0)
    return mean


def votes(views: Views) -> Scores:
    """How many views have each class as their best; a view that is not all numbers has none."""
    sound = views[np.isfinite(views).all(axis=1)]
    return np.bincount(sound.argmax(axis=1), minlength=views.shape[1]).astype(np.float64)


TESTED = "softmax mean"
"""The rule of testing, the only one that gives probabilities."""
RULES: dict[str, Callable[[Views], Scores]] = {TESTED: mean_softmax, "logit mean": mean_logits, "vote": votes}


@dataclass(frozen=True)
class Rescored:
    """One test under other protocols.

    Attributes:
        protocols: of the columns of `ranks`, as (views, rule); the first is as it was tested.
        labels: of each video, in the order of the test list: (V,).
        read: which videos could be read: (V,).
        ranks: of each video's label under each protocol; infinite for a video that could not be read: (V, protocols).
        soft: the probability of each video's label, in percent, 0 for a video that could not be read; NaN under a rule
            that gives no probabilities: (V, protocols).
    """

    protocols: list[tuple[str, str]]
    labels: npt.NDArray[np.int64]
    read: npt.NDArray[np.bool_]
    ranks: npt.NDArray[np.float64]
    soft: npt.NDArray[np.float64]

    def right(self, k: int) -> list[bool]:
        """Whether each video's class is among the `k` best, as it was tested."""
        return [bool(right) for right in self.ranks[:, 0] <= k]

    def topk(self, k: int) -> list[float]:
        """Percent of the videos whose class is among the `k` best, under each protocol."""
        return [100 * int(right) / max(1, len(self.labels)) for right in (self.ranks <= k).sum(axis=0)]

    def soft_scores(self) -> list[float]:
        """The soft score under each protocol, in percent; NaN if it gives no probabilities."""
        return [float(each) / max(1, len(self.labels)) for each in self.soft.sum(axis=0)]


def rescore(path: Path) -> Rescored:
    """Score a file of predictions under all protocols, in one pass.

    UserError if it can't be read, its videos have several labels each, or the network had diverged.
    """
    protocol = read_protocol(path)
    if protocol.multi_label:
        raise UserError(f"{path}: its videos have several classes each; top-1 and top-5 are of videos with one")
    chosen = subsets(protocol)
    labels, read, found, broken = [], [], [], 0
    for prediction in read_predictions(path):
        assert isinstance(prediction.label, int)
        labels.append(prediction.label)
        read.append(prediction.views is not None)
        broken += prediction.views is not None and not np.isfinite(prediction.views).all()
        found.append([_scored(prediction.views, prediction.label, kept, r) for kept in chosen.values() for r in RULES])
    if broken:
        raise UserError(f"{path}: diverged: the scores of {broken} of {len(labels)} test videos are no finite numbers")
    protocols = [(views, rule) for views in chosen for rule in RULES]
    ranks, soft = np.moveaxis(np.array(found, dtype=np.float64).reshape(len(labels), len(protocols), 2), 2, 0)
    return Rescored(protocols, np.array(labels, np.int64), np.array(read, np.bool_), ranks, soft)


def subsets(protocol: ViewProtocol) -> dict[str, list[int]]:
    """The views that a protocol uses, by its name; all that there are come first."""
    clips, crops = protocol.num_clips, protocol.num_crops
    views = np.arange(clips * crops).reshape(clips, crops)
    chosen = {
        f"{counted(clips, 'clip')} x {counted(crops, 'crop')}": views,
        f"{counted(clips, 'clip')}, centre crop": views[:, [crops // 2]],
        "1 clip in the middle, centre crop": views[[clips // 2], [crops // 2]],
    }
    if clips > 1:
        chosen[f"1 clip in the middle x {counted(crops, 'crop')}"] = views[clips // 2]
    distinct = {tuple(kept.ravel().tolist()): name for name, kept in reversed(chosen.items())}
    return {name: list(kept) for kept, name in reversed(distinct.items())}


def _scored(views: Views | None, label: int, kept: list[int], rule: str) -> tuple[float, float]:
    """The rank of a video's label under a protocol, and its probability in percent."""
    if views is None:
        return math.inf, 0.0 if rule == TESTED else math.nan
    scores = RULES[rule](views[kept])
    return rank(scores, label), 100 * float(scores[label]) if rule == TESTED else math.nan


def lines(rescored: Rescored) -> list[tuple[str, str, float, float, float]]:
    """(views, rule, top-1, top-5, soft score) of every protocol, in percent; NaN where a number makes no sense.

    Missing videos count as wrong unless it says not.
    """
    labels, there = rescored.labels, int(rescored.read.sum())
    numbers = list(zip(rescored.topk(1), rescored.topk(5), rescored.soft_scores(), strict=True))
    views, rule = rescored.protocols[0]  # as it was tested
    dropped = f"{rule}, {counted(len(labels) - there, 'missing video')} dropped"
    top1, top5, soft = (number * len(labels) / max(1, there) for number in numbers[0])
    right = np.array(rescored.right(1))
    of_classes = float(np.mean([100 * right[labels == label].mean() for label in np.unique(labels)]))
    return [
        *((*name, *each) for name, each in zip(rescored.protocols, numbers, strict=True)),
        (views, dropped, top1, top5, soft),
        (views, f"{rule}, mean of the classes", of_classes, math.nan, math.nan),
    ]


def rescore_record(path: Path) -> tuple[Rescored, Record]:
    """Score the predictions of a record, and check that they are those that it was made of.

    Raises:
        UserError: there is no such record or no predictions, they say something else than the record, or the run
            diverged.
    """
    record = read_record(path)
    if record.diverged:
        raise UserError(f"{path}: diverged: no finite number is {record.diverged}; there is nothing to score again")
    place, run = path.resolve(), (record.recipe, record.variant, record.seed)
    if len(place.parents) < 4 or record_path(place.parents[3], *run) != place:
        raise UserError(
            f"{path}: expected it as {record_path(Path('RESULTS'), *run)}, to find its predictions; "
            "give their .parquet file instead"
        )
    predictions = predictions_path(place.parents[3], *run, record.config_hash)
    rescored = rescore(predictions)
    other = f"{predictions}: not the predictions of {path}:"
    if len(rescored.labels) != record.videos_expected:
        raise UserError(f"{other} {len(rescored.labels)} videos here, {record.videos_expected} there")
    for k, kept, said in ((1, record.right(1), record.top1), (5, record.right(5), record.top5)):
        if kept and rescored.right(k) != kept:
            raise UserError(f"{other} other videos are right in top-{k}")
        if said is None or abs(rescored.topk(k)[0] - said) > 0.001:  # it was rounded as a float32
            raise UserError(f"{other} top-{k} is {said} there")
    soft = rescored.soft_scores()[0]
    if record.soft is not None and abs(soft - record.soft) > 0.001:
        raise UserError(f"{other} the soft score is {record.soft} there, {soft:.4f} here")
    return rescored, record
