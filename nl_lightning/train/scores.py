"""What a test says of videos: top-k accuracy, mAP, and what each video contributes to them. NumPy only: no torch here.

The average precision of a class is the mean, over the videos that have it, of the precision among all videos that score
at least as high. Each threshold is a score: videos that tie count together, and a constant network is at chance. A
class that no video has is left out. mAP is the mean of the other classes.

An accuracy is a mean over videos, and the noise of having tested on these videos follows from that. mAP is nearly one:
how it would change if a video counted a little more has a closed form, the influence of the video. mAP plus a video's
influence is its contribution (Efron's infinitesimal jackknife, its pseudo-value). The mean of the contributions *is*
the mAP, and they can be paired by video, and averaged over seeds, as right and wrong are.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from jaxtyping import Bool, Float

Views = npt.NDArray[np.float16]  # (V, classes)
Scores = npt.NDArray[np.float64]  # (classes,)


class VideoScores(NamedTuple):
    """What is known of a tested video: `scores` in 0..1, the mean of its views', or ``None`` if unreadable."""

    path: str
    label: int | tuple[int, ...]
    scores: Scores | None


def mean_softmax(views: Views) -> Scores:
    """The scores of a video: the softmax (or the sigmoids) of its views, averaged (paper, Sec. 4.1, inference)."""
    mean: Scores = np.exp(views.astype(np.float64)).mean(axis=0)
    return mean


def rank(scores: Scores, label: int) -> float:
    """The place of the label's score among all, from 1; infinite if it isn't a number.

    A score that ties with the label's counts as higher, and one that is not a number never loses to it, so that
    neither a constant nor a broken network is ever right.
    """
    own = scores[label]
    return int(np.sum(~(scores < own))) if np.isfinite(own) else math.inf  # its own score is one of those


def right(videos: Iterable[VideoScores], k: int) -> list[bool]:
    """Whether each video's label is among its k highest scores (see :func:`rank`); never, if it is unreadable."""
    return [video.scores is not None and rank(video.scores, only_label(video)) <= k for video in videos]


def only_label(video: VideoScores) -> int:
    """The label of a video that has one."""
    assert isinstance(video.label, int)
    return video.label


def measured(videos: Sequence[VideoScores], classes: int | None) -> dict[str, float]:
    """What testing gave, in percent, by the metrics' keys: mAP over so many classes, or, for None, top-1 and top-5."""
    if classes is not None:
        return {"mAP": float(contributions(videos, classes).mean())}
    return {f"top{k}": 100 * sum(right(videos, k)) / max(1, len(videos)) for k in (1, 5)}


def not_finite(videos: Sequence[VideoScores]) -> str:
    """Of how many tested videos the scores are no finite numbers; empty if of none."""
    broken = sum(video.scores is not None and not np.isfinite(video.scores).all() for video in videos)
    return f"the scores of {broken} of {len(videos)} test videos" if broken else ""


def soft_scores(videos: Iterable[VideoScores]) -> list[float]:
    """The probability of each video's label, in percent; 0 if the video is unreadable. Their mean is the soft score."""
    return [0.0 if video.scores is None else 100 * float(video.scores[only_label(video)]) for video in videos]


def mean_loss(videos: Sequence[VideoScores], classes: int | None) -> float | None:
    """The cross-entropy of the readable videos' scores, or, of several labels, its mean over so many classes.

    A probability too small for a number counts as the smallest one. None: no video is readable.
    """
    readable = [video for video in videos if video.scores is not None]
    if classes is None:
        right = np.array(soft_scores(readable)) / 100
    else:
        scores, labels = as_arrays(readable, classes)
        right = np.where(labels, scores, 1 - scores)
    return round(float(-np.log(np.maximum(right, np.finfo(np.float64).tiny)).mean()), 6) if readable else None


def by_class(videos: Sequence[VideoScores], classes: int, multi_label: bool) -> list[float | None]:
    """Top-1 of each class in percent, or its average precision where videos have several; None without test videos."""
    if multi_label:
        scores, labels = as_arrays(videos, classes)
        columns = ((scores[:, [k]], labels[:, [k]]) for k in range(classes))
        return [round(float(by_video(*column).mean()), 2) if column[1].any() else None for column in columns]
    found = by_group([100 * one for one in right(videos, 1)], [str(only_label(video)) for video in videos])
    return [round(found[str(label)], 2) if str(label) in found else None for label in range(classes)]


def by_group(numbers: Sequence[float], groups: Sequence[str]) -> dict[str, float]:
    """The mean of a number of each video by group, `groups` naming the group of each video."""
    members: dict[str, list[float]] = {group: [] for group in groups}
    for number, group in zip(numbers, groups, strict=True):
        members[group].append(number)
    return {group: round(sum(of) / len(of), 4) for group, of in members.items()}


def contributions(videos: Sequence[VideoScores], num_classes: int) -> Float[np.ndarray, " V"]:
    """What each video contributes to the mAP; an unreadable one scores 0 in every class."""
    return by_video(*as_arrays(videos, num_classes))


def as_arrays(videos: Sequence[VideoScores], classes: int) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.bool_]]:
    """Scores of the videos, and whether each has each label: (V, classes) both."""
    scores = np.zeros((len(videos), classes))
    labels = np.zeros(scores.shape, bool)
    for row, video in enumerate(videos):
        labels[row, video.label] = True
        if video.scores is not None:
            scores[row] = video.scores
    return scores, labels


def in_order(tested: Mapping[int, VideoScores]) -> list[VideoScores]:
    """Tested videos in the order of the test list, given by their places in it."""
    return [tested[place] for place in sorted(tested)]


def by_video(scores: Float[np.ndarray, "V classes"], labels: Bool[np.ndarray, "V classes"]) -> Float[np.ndarray, " V"]:
    """What each video contributes to the mAP, in percent; their mean is the mAP.

    A score that is not a number counts as the lowest. Without any label all is 0.
    """
    present = labels.any(axis=0)
    if not present.any():
        return np.zeros(len(scores))
    scores = np.where(np.isfinite(scores), scores, -np.inf)
    classes = np.flatnonzero(present)
    return 100 * np.mean([_of_class(scores[:, k], labels[:, k]) for k in classes], axis=0)  # type: ignore[no-any-return]


def _of_class(scores: Float[np.ndarray, " V"], has: Bool[np.ndarray, " V"]) -> Float[np.ndarray, " V"]:
    """What each video contributes to the average precision of one class, from 0 to 1.

    With weights w of the videos, AP = sum_i w_i has_i P_i / sum_i w_i has_i, where P_i is the share of weight that has
    the class among the videos that score at least s_i. Its derivative at w = 1 by the weight of a video is V^-1 of its
    influence: through its own term, and through P_i of every video i that scores no higher.
    """
    order = np.argsort(-scores, kind="stable")
    ranked, has = scores[order], has[order]
    last = np.searchsorted(-ranked, -ranked, side="right") - 1  # the last one that ties with it
    above = last + 1.0  # videos that score at least as high, itself among them
    precision = np.cumsum(has)[last] / above
    first = np.searchsorted(-ranked, -ranked, side="left")
    # Sums over the videos with the class that score no higher: from the first that ties with it to the end.
    by_rank = np.cumsum((has / above)[::-1])[::-1][first]
    by_precision = np.cumsum((has * precision / above)[::-1])[::-1][first]
    count = has.sum()
    ap = precision[has].sum() / count
    influence = (has * (precision - ap) + has * by_rank - by_precision) * len(scores) / count
    contribution = np.empty(len(scores))
    contribution[order] = ap + influence
    return contribution
