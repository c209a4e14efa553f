"""mAP, and what each video contributes to it. NumPy only: no torch here.

The average precision of a class is the mean, over the videos that have it, of the precision among all videos that score
at least as high: each threshold is a score, so videos that tie count together, and a constant network is at chance. A
class that no video has is left out; mAP is the mean of the others.

A share of right videos is a mean over videos, and the noise of having tested on these videos follows from that. mAP
isn't, but nearly: how it would change if a video counted a little more has a closed form, the influence of the video.
mAP plus a video's influence is its contribution (Efron's infinitesimal jackknife, its pseudo-value): the mean of the
contributions *is* the mAP, and they can be paired by video, and averaged over seeds, as right and wrong are.
"""

import numpy as np
from jaxtyping import Bool, Float


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
