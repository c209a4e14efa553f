"""``nl-lightning rescore``: what one test would have scored under other protocols, from its stored views.

The same network and the same videos: what differs is how many views of a video are used, how they become one answer,
and what becomes of videos that could not be read. Published numbers differ in just these things.
"""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from nl_lightning.errors import UserError
from nl_lightning.report.words import counted
from nl_lightning.study.records import RunRecord, predictions_path, read_record, record_path
from nl_lightning.train.predictions import ViewProtocol, read_predictions, read_protocol
from nl_lightning.train.scores import Scores, Views, mean_softmax, rank

Combine = Callable[[Views], Scores]


def mean_logits(views: Views) -> Scores:
    """The mean of the logits of the views; log-probabilities do, as they differ from them by a constant a view."""
    mean: Scores = views.astype(np.float64).mean(axis=0)
    return mean


def votes(views: Views) -> Scores:
    """How many views have each class as their best; a view that is not all numbers has none."""
    sound = views[np.isfinite(views).all(axis=1)]
    counted: Scores = np.bincount(sound.argmax(axis=1), minlength=views.shape[1]).astype(np.float64)
    return counted


RULES: dict[str, Combine] = {"softmax mean": mean_softmax, "logit mean": mean_logits, "vote": votes}


@dataclass
class Score:
    """Of one protocol: the rank of every video's label, by label; infinite for a video that could not be read."""

    views: str
    rule: str
    ranks: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    def topk(self, k: int, of: int) -> float:
        """Percent of `of` videos whose class is among the k best."""
        return 100 * sum(rank <= k for ranks in self.ranks.values() for rank in ranks) / max(1, of)

    def mean_class(self) -> float:
        """Top-1 of each class, averaged over the classes that have videos, in percent."""
        return float(np.mean([100 * np.mean([rank <= 1 for rank in ranks]) for ranks in self.ranks.values()]))


@dataclass(frozen=True)
class Rescored:
    """One test under other protocols.

    Attributes:
        protocol: how it was tested.
        videos, unreadable: how many there are, and how many of them could not be read.
        right: whether each video is right as it was tested, for top-1 and top-5, in the order of the test list.
        scores: of each protocol; the first is as it was tested.
    """

    protocol: ViewProtocol
    videos: int
    unreadable: int
    right: dict[int, list[bool]]
    scores: list[Score]


def rescore(path: Path) -> Rescored:
    """Score a file of predictions under all protocols, in one pass.

    UserError if it can't be read, or its videos have several labels each.
    """
    protocol = read_protocol(path)
    if protocol.multi_label:
        raise UserError(f"{path}: its videos have several classes each; top-1 and top-5 are of videos with one")
    chosen = subsets(protocol)
    scores = [Score(name, rule) for name in chosen for rule in RULES]
    right: dict[int, list[bool]] = {1: [], 5: []}
    videos = unreadable = 0
    for prediction in read_predictions(path):
        videos, label = videos + 1, prediction.label
        assert isinstance(label, int)
        unreadable += prediction.views is None
        ranks = _ranks(prediction.views, label, list(chosen.values()))
        for score, found in zip(scores, ranks, strict=True):
            score.ranks[label].append(found)
        for k, kept in right.items():
            kept.append(ranks[0] <= k)
    return Rescored(protocol, videos, unreadable, right, scores)


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


def _ranks(views: Views | None, label: int, subsets: list[list[int]]) -> list[float]:
    """The rank of a video's label under every protocol."""
    if views is None:
        return [float("inf")] * (len(RULES) * len(subsets))
    chosen = [views[kept] for kept in subsets]
    return [rank(combine(views), label) for views in chosen for combine in RULES.values()]


def lines(rescored: Rescored) -> list[tuple[str, str, float, float]]:
    """(views, rule, top-1, top-5) of every protocol, in percent; missing videos count as wrong unless it says not."""
    there = rescored.videos - rescored.unreadable
    tested = rescored.scores[0]
    found = [(s.views, s.rule, s.topk(1, rescored.videos), s.topk(5, rescored.videos)) for s in rescored.scores]
    missing = f"{tested.rule}, {counted(rescored.unreadable, 'missing video')} dropped"
    found.append((tested.views, missing, tested.topk(1, there), tested.topk(5, there)))
    found.append((tested.views, f"{tested.rule}, mean of the classes", tested.mean_class(), float("nan")))
    return found


def rescore_record(path: Path) -> tuple[Rescored, RunRecord]:
    """Score the predictions of a record, and check that they are those that it was made of.

    Raises:
        UserError: there is no such record or no predictions, or they say something else than the record.
    """
    record = read_record(path)
    place, run = path.resolve(), (record.recipe, record.variant, record.seed)
    if len(place.parents) < 4 or record_path(place.parents[3], *run) != place:
        raise UserError(
            f"{path}: expected it as {record_path(Path('RESULTS'), *run)}, to find its predictions; "
            "give their .parquet file instead"
        )
    predictions = predictions_path(place.parents[3], *run, record.config_hash)
    rescored = rescore(predictions)
    other = f"{predictions}: not the predictions of {path}:"
    if rescored.videos != record.videos_expected:
        raise UserError(f"{other} {rescored.videos} videos here, {record.videos_expected} there")
    for k, kept in ((1, record.right(1)), (5, record.right(5))):
        if kept and rescored.right[k] != kept:
            raise UserError(f"{other} other videos are right in top-{k}")
    tested = rescored.scores[0]
    for k, said in ((1, record.top1), (5, record.top5)):
        if round(tested.topk(k, rescored.videos), 4) != said:
            raise UserError(f"{other} top-{k} is {said} there")
    return rescored, record
