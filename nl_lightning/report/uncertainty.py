"""How sure a number is: intervals of scores and of differences, and p-values, from which videos are right.

A difference has noise of training (seeds) and of testing (videos), crossed: the same videos under every seed.
:class:`Difference` keeps the two apart, and ``docs/uncertainty.md`` says why the interval is as it is. Where the score
is an mAP, what each video contributes to it (:mod:`~nl_lightning.train.scores`) takes the place of right and wrong.

scipy.stats and statsmodels have Wilson's interval and Holm's method too, and take a second to import.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy.special import bdtr, betaincinv, ndtri, stdtrit

LEVEL = 0.95
Z = -float(ndtri((1 - LEVEL) / 2))
"""Half-width of the interval of a normal distribution."""


class Interval(NamedTuple):
    """From `low` to `high`, in percent or points."""

    low: float
    high: float


@dataclass(frozen=True)
class Difference:
    """A difference of two scores, in points, with what is known of its noise.

    Attributes:
        mean: as measured. The interval's `centre` is a trifle nearer to zero, see :func:`paired`.
        seed_se: standard error by what changes from seed to seed, in points. Its half-width is Student's t.
        video_se: the same by what stays from seed to seed, with a normal half-width; infinite: not known.
        seeds: what both have. With one, noise of training isn't known and isn't in the interval.
        videos: on which both were tested.
        paired: by video. False: from the two scores alone, as if they came from different videos.
        dropped: videos that were left out because one of the two couldn't read them.
        disagreement: percent of the videos on which just one of the two is right; None if not paired.
        std: sample standard deviation of the seeds' differences, in points; None with one seed.
        mcnemar: p-value of McNemar's exact test, two-sided; None but for one seed, paired.
        limit: no difference can be larger; infinite for what isn't in percent.
    """

    mean: float
    centre: float
    seed_se: float
    video_se: float
    seeds: int
    videos: int
    paired: bool = True
    dropped: int = 0
    disagreement: float | None = None
    std: float | None = None
    mcnemar: float | None = None
    limit: float = 100.0

    def times(self, factor: float) -> "Difference":
        """The same in another unit."""
        keys = ("mean", "centre", "seed_se", "video_se", "std", "limit")
        return replace(self, **{key: factor * value for key in keys if (value := getattr(self, key)) is not None})

    @property
    def bounded(self) -> bool:
        """Whether anything is known of its noise; else its interval is everything, and it decides nothing."""
        return bool(np.isfinite(self.video_se))

    def interval(self, level: float = LEVEL) -> Interval:
        """Where the difference lies: between the networks that were trained (one seed), or of such trainings."""
        half = half_width((1 - level) / 2, self.seed_se, self.video_se, self.seeds)
        return Interval(max(self.centre - half, -self.limit), min(self.centre + half, self.limit))

    @property
    def side(self) -> int:
        """1 if it is surely above zero, -1 if surely below it, else 0."""
        low, high = self.interval()
        return int(low > 0) - int(high < 0)

    def p_above(self, bound: float) -> float:
        """One-sided p-value against "at most `bound`": small if the difference is surely above it."""
        return _tail_beyond(self.centre - bound, self.seed_se, self.video_se, self.seeds)

    def p_below(self, bound: float) -> float:
        """One-sided p-value against "at least `bound`": small if the difference is surely below it."""
        return _tail_beyond(bound - self.centre, self.seed_se, self.video_se, self.seeds)


@lru_cache(4096)  # a verdict asks for both sides of each bound, several times
def _tail_beyond(distance: float, seed_se: float, video_se: float, seeds: int) -> float:
    """The tail at which the interval just reaches a bound that lies so far from the centre."""
    if distance < 0:
        return 1 - _tail_beyond(-distance, seed_se, video_se, seeds)
    if distance == float("inf"):
        return 0.0
    if distance == 0:  # also where there is no noise, as of two networks that answer alike
        return 0.5
    low, high = -700.0, float(np.log(0.5))  # logarithms: from as good as sure to no idea
    for _ in range(60):
        middle = (low + high) / 2
        if half_width(float(np.exp(middle)), seed_se, video_se, seeds) > distance:
            low = middle
        else:
            high = middle
    return float(np.exp(high))


def half_width(tail: float, seed_se: float, video_se: float, seeds: int) -> float:
    """How far an interval reaches to one side, with the probability `tail` beyond it."""
    by_seeds = float(stdtrit(seeds - 1, tail)) * seed_se if seeds > 1 else 0.0
    return float(np.hypot(by_seeds, float(ndtri(tail)) * video_se))


def wilson(right: int, videos: int) -> Interval:
    """Wilson's interval of one accuracy, in percent: over videos, of this one network."""
    if videos == 0:
        return Interval(0.0, 100.0)
    z2, share = Z**2, right / videos
    centre = (share + z2 / (2 * videos)) / (1 + z2 / videos)
    half = np.sqrt(z2 * (share * (1 - share) / videos + z2 / (4 * videos**2))) / (1 + z2 / videos)
    return Interval(100 * max(float(centre - half), 0.0), 100 * min(float(centre + half), 1.0))


def clopper_pearson(times: int, of: int) -> Interval:
    """The exact interval of how often something happens, in percent, from so many times of so many trainings."""
    tail = (1 - LEVEL) / 2
    low = float(betaincinv(times, of - times + 1, tail)) if times else 0.0
    high = float(betaincinv(times + 1, of - times, 1 - tail)) if times < of else 1.0
    return Interval(100 * low, 100 * high)


PAIR = (1, -1)
"""The weights of a difference."""


def paired(
    *rights: Bool[np.ndarray, "S V"], weights: Sequence[float] = PAIR, read: Bool[np.ndarray, " V"] | None = None
) -> Difference:
    """Accuracy of the first network minus that of the second, from which of V videos are right under each of S seeds.

    Two made-up videos, one won and one lost under every seed, keep the interval honest where few videos differ. With
    one seed this is Bonett and Price's interval of a paired difference (2012). Videos not `read` are left out.

    `weights`: of a weighted sum of accuracies instead, which add up to zero, as of a difference of differences. The
    made-up videos grow with the weights, as the noise of a sum does.
    """
    kept = rights if read is None else [right[:, read] for right in rights]
    sums = np.sum([weight * right for weight, right in zip(weights, kept, strict=True)], axis=0, dtype=float)
    seeds, count = sums.shape
    made_up = np.full((seeds, 1), noise_size(weights))
    padded, two = paired_numbers(np.hstack([sums, made_up, -made_up])), tuple(weights) == PAIR
    return Difference(
        mean=100 * float(sums.mean()) if count else 0.0,
        centre=100 * padded.centre,
        seed_se=100 * padded.seed_se,
        video_se=100 * padded.video_se,
        seeds=seeds,
        videos=count,
        dropped=rights[0].shape[1] - count,
        disagreement=100 * float(np.abs(sums).mean()) if count and two else None,
        std=_std(100 * sums.mean(axis=1)) if count else None,
        mcnemar=mcnemar(int((sums > 0).sum()), int((sums < 0).sum())) if seeds == 1 and two else None,
    )


def noise_size(weights: Sequence[float]) -> float:
    """How much larger the noise of a weighted sum is than that of a difference, if all networks are as alike."""
    return float(np.sqrt(np.square(weights).sum() / 2))


def paired_numbers(differences: Float[np.ndarray, "S V"]) -> Difference:
    """The same from what each of V videos contributes to a difference of scores under each of S seeds, in points.

    The variance of the mean is taken apart by a two-way analysis. Of one video nothing says how noisy it is, nor where
    all give the same number, as coarse numbers do; but two networks that answer alike don't differ.
    """
    seeds, videos = differences.shape
    by_seed, by_video, mean = differences.mean(axis=1), differences.mean(axis=0), float(differences.mean())
    if videos == 1:
        return alone(by_seed, videos)
    seed_square, video_square = 0.0, seeds * float(by_video.var(ddof=1))
    if seeds > 1:
        seed_square = videos * float(by_seed.var(ddof=1))
        # What neither explains, by the sums of squares: quicker than the table of residuals.
        rest = float((differences**2).sum()) - seeds * float((by_video**2).sum()) - videos * float((by_seed**2).sum())
        rest_square = (rest + seeds * videos * mean**2) / ((seeds - 1) * (videos - 1))
        video_square = max(video_square - rest_square, 0.0)
    seed_se, video_se = (float(np.sqrt(square / (seeds * videos))) for square in (seed_square, video_square))
    if max(seed_se, video_se) < 1e-9 * abs(mean):
        return replace(alone(by_seed, videos), paired=True)
    return Difference(mean, mean, seed_se, video_se, seeds, videos, std=_std(by_seed))


def mean_of_videos(numbers: Float[np.ndarray, " V"], ends: tuple[float, float] = (0.0, 100.0)) -> Interval:
    """The interval over videos of one score, from what each of them contributes to it, within what it can be."""
    if len(numbers) == 1:
        return Interval(*ends)
    mean, half = float(numbers.mean()), Z * float(numbers.std(ddof=1)) / len(numbers) ** 0.5
    return Interval(max(mean - half, ends[0]), min(mean + half, ends[1]))


def unpaired(*scores: Float[np.ndarray, " S"], videos: int, weights: Sequence[float] = PAIR) -> Difference:
    """The same from accuracies alone, in percent, one a seed: wider, for it can't see that they share the videos.

    With one seed this is Agresti and Caffo's interval (2000): a made-up video right and one wrong on either side.
    """
    each, factors = np.stack(scores), np.array(weights, dtype=float)
    seeds = each.shape[1]
    means = ((each / 100).mean(axis=1) * videos + 1) / (videos + 2)
    std = _std(factors @ each)
    return Difference(
        mean=float((factors @ each).mean()),
        centre=100 * float(factors @ means),
        seed_se=std / float(np.sqrt(seeds)) if std is not None else 0.0,
        video_se=100 * float(np.sqrt((factors**2 * means * (1 - means)).sum() / (videos + 2))),
        seeds=seeds,
        videos=videos,
        paired=False,
        std=std,
    )


def alone(by_seed: Float[np.ndarray, " S"], videos: int) -> Difference:
    """A difference of which nothing says how noisy it is, in points, one a seed."""
    mean = float(by_seed.mean())
    return Difference(mean, mean, 0.0, float("inf"), len(by_seed), videos, paired=False, std=_std(by_seed))


def over_seeds(by_seed: Float[np.ndarray, " S"], videos: int) -> Difference:
    """A difference whose only known noise is what it does from seed to seed.

    Nothing is known of it with one seed, or where all give the same number, as coarse scores do.
    """
    found = alone(by_seed, videos)
    if found.std is None or found.std < 1e-9:
        return found
    return replace(found, seed_se=found.std / float(np.sqrt(len(by_seed))), video_se=0.0, paired=True)


def over_folds(parts: Sequence[Difference]) -> Difference:
    """The mean of the differences under several official splits of a data set, each with test videos of its own.

    How much splits differ is seen from them alone, so they stand in the place of seeds. If they don't, nothing is known
    of the noise: of few videos, differences are coarse.
    """
    if len(parts) == 1:
        return parts[0]
    means, centres = np.array([part.mean for part in parts]), np.array([part.centre for part in parts])
    disagreements = [part.disagreement for part in parts if part.disagreement is not None]
    return Difference(
        mean=float(means.mean()),
        centre=float(centres.mean()),
        seed_se=float(centres.std(ddof=1) / np.sqrt(len(parts))),
        video_se=0.0 if np.ptp(centres) > 1e-9 else float("inf"),
        seeds=len(parts),
        videos=sum(part.videos for part in parts),
        paired=all(part.paired for part in parts),
        dropped=sum(part.dropped for part in parts),
        disagreement=float(np.mean(disagreements)) if disagreements else None,
        std=_std(means),
        limit=parts[0].limit,
    )


def _std(by_seed: Float[np.ndarray, " S"]) -> float | None:
    return float(by_seed.std(ddof=1)) if len(by_seed) > 1 else None


def assumed(difference: float, videos: int, disagreement: float, weights: Sequence[float] = PAIR) -> Difference:
    """A paired difference of which only the size is known, in points, if the two disagree on so many percent of videos.

    Two networks that differ by d points disagree on d percent of the videos at least. `weights`: of a weighted sum of
    networks any two of which disagree as much.
    """
    size = noise_size(weights)
    share = max(disagreement, abs(difference) / size) / 100
    video_se = 100 * float(np.sqrt((size**2 * share - (difference / 100) ** 2) / videos))
    return Difference(difference, difference, 0.0, video_se, seeds=1, videos=videos)


def rank_correlation(first: Float[np.ndarray, " N"], second: Float[np.ndarray, " N"]) -> tuple[float, Interval]:
    """Spearman's rank correlation of four pairs or more, with Bonett and Wright's interval (2000)."""
    ranks = [(each[:, None] > each).sum(1) + (each[:, None] == each).sum(1) / 2 for each in (first, second)]
    if min(rank.std() for rank in ranks) == 0:
        return 0.0, Interval(-1.0, 1.0)  # all alike: no order to agree on
    found = float(np.clip(np.corrcoef(*ranks)[0, 1], -1, 1))
    half = Z * float(np.sqrt((1 + found**2 / 2) / (len(first) - 3)))
    centre = float(np.arctanh(np.clip(found, -1 + 1e-12, 1 - 1e-12)))
    return found, Interval(float(np.tanh(centre - half)), float(np.tanh(centre + half)))


def mcnemar(won: int, lost: int) -> float:
    """McNemar's exact test: the two-sided p-value of so many videos won and lost, if either is as likely."""
    return min(1.0, 2 * float(bdtr(min(won, lost), won + lost, 0.5)))


def holm(p_values: list[float]) -> list[float]:
    """Holm's correction: p-values such that *any* of them is small by chance as rarely as one alone would be."""
    order, adjusted = np.argsort(p_values), np.zeros(len(p_values))
    times = np.arange(len(p_values), 0, -1)
    adjusted[order] = np.minimum(np.maximum.accumulate(times * np.array(p_values)[order]), 1)
    return [float(p) for p in adjusted]
