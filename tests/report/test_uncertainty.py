from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from nl_lightning.report.uncertainty import (
    Difference,
    alone,
    assumed,
    clopper_pearson,
    holm,
    mcnemar,
    mean_of_videos,
    over_folds,
    over_seeds,
    paired,
    paired_numbers,
    rank_correlation,
    unpaired,
    wilson,
)
from nl_lightning.report.words import points_of


def rights(*rows: str) -> np.ndarray:
    """``rights("110", "100")``: two seeds, three videos."""
    return np.array([[letter == "1" for letter in row] for row in rows])


def discordant(won: int, lost: int, videos: int) -> tuple[np.ndarray, np.ndarray]:
    """One seed of two networks that are right together but for so many videos."""
    first, second = np.ones((1, videos), dtype=bool), np.ones((1, videos), dtype=bool)
    first[0, :lost], second[0, lost : lost + won] = False, False
    return first, second


@pytest.mark.parametrize(("right", "videos"), [(0, 10), (10, 10), (401, 600), (14_000, 19_761)])
def test_wilson_is_scipys(right: int, videos: int) -> None:
    theirs = stats.binomtest(right, videos).proportion_ci(method="wilson")
    assert wilson(right, videos) == pytest.approx((100 * theirs.low, 100 * theirs.high), abs=1e-9)
    assert wilson(0, 0) == (0.0, 100.0)


@pytest.mark.parametrize(("won", "lost"), [(0, 0), (5, 0), (30, 12), (12, 30), (7, 7)])
def test_mcnemar_is_scipys_exact_test(won: int, lost: int) -> None:
    theirs = stats.binomtest(won, won + lost).pvalue if won + lost else 1.0
    assert mcnemar(won, lost) == pytest.approx(theirs)
    assert paired(*discordant(won, lost, 100)).mcnemar == pytest.approx(theirs)


def test_one_seed_is_bonett_and_prices_interval() -> None:
    """By their formula: a video more in either cell, and the normal quantile."""
    won, lost, videos = 30, 12, 200
    p, q = (won + 1) / (videos + 2), (lost + 1) / (videos + 2)
    half = 1.959964 * np.sqrt((p + q - (p - q) ** 2) / (videos + 2))
    difference = paired(*discordant(won, lost, videos))
    assert difference.mean == 9.0
    assert difference.interval() == pytest.approx((100 * (p - q - half), 100 * (p - q + half)), abs=0.03)
    assert (difference.seeds, difference.videos, difference.std, difference.disagreement) == (1, 200, None, 21.0)


def test_networks_that_agree_are_not_known_to_be_the_same() -> None:
    low, high = paired(*discordant(0, 0, 600)).interval()
    assert -1 < low < -0.3 < 0.3 < high < 1


def test_seeds_count_by_students_t() -> None:
    """All of the noise is of seeds here: no video stands out under all of them."""
    generator = np.random.default_rng(0)
    first = generator.random((4, 5000)) < np.array([0.5, 0.6, 0.7, 0.8])[:, None]
    second = generator.random((4, 5000)) < 0.5
    by_seed = 100 * (first.mean(axis=1) - second.mean(axis=1))
    theirs = stats.t.interval(0.95, 3, by_seed.mean(), stats.sem(by_seed))
    difference = paired(first, second)
    assert difference.std == pytest.approx(by_seed.std(ddof=1))
    assert difference.interval() == pytest.approx(theirs, rel=0.01)


def test_variances_by_a_table_of_residuals() -> None:
    """Against the two-way analysis of variance, written out with loops."""
    first, second = rights("1101", "0101", "1111"), rights("1001", "1001", "0110")
    signs = first.astype(float) - second
    padded = np.hstack([signs, np.ones((3, 1)), -np.ones((3, 1))])
    seeds, videos = padded.shape
    rest = sum(
        (padded[s, v] - padded[s].mean() - padded[:, v].mean() + padded.mean()) ** 2
        for s in range(seeds)
        for v in range(videos)
    ) / ((seeds - 1) * (videos - 1))
    video_square = seeds * padded.mean(axis=0).var(ddof=1)
    found = paired(first, second)
    assert found.seed_se == pytest.approx(100 * padded.mean(axis=1).std(ddof=1) / np.sqrt(seeds))
    assert found.video_se == pytest.approx(100 * np.sqrt(max(video_square - rest, 0) / (seeds * videos)))


def test_contributions_count_as_right_and_wrong_do() -> None:
    """100 for a right video and 0 for a wrong one: the same, but for the two made-up videos of right and wrong."""
    generator = np.random.default_rng(0)
    first, second = generator.random((2, 3, 5000)) < np.array([[[0.7]], [[0.65]]])
    theirs, found = paired(first, second), paired_numbers(100.0 * first - 100.0 * second)
    assert (found.mean, found.seeds, found.videos, found.paired) == (pytest.approx(theirs.mean), 3, 5000, True)
    assert found.interval() == pytest.approx(theirs.interval(), abs=0.05)
    assert found.std == pytest.approx(theirs.std)
    one = paired_numbers(100.0 * first[:1] - 100.0 * second[:1])
    assert one.video_se == pytest.approx(100 * (first[0].astype(float) - second[0]).std(ddof=1) / np.sqrt(5000))
    low, high = mean_of_videos(100.0 * first[0])
    assert (low, high) == pytest.approx(wilson(int(first[0].sum()), 5000), abs=0.05)


@pytest.mark.parametrize(
    "found",
    [
        alone(np.array([80.0]), 600),
        over_seeds(np.array([80.0, 80.0, 80.0]), 600),
        over_folds([assumed(80.0, 600, 10.0)] * 3),
        paired_numbers(np.full((1, 20), 80.0)),
        paired_numbers(np.array([[60.0, 100.0], [100.0, 60.0]])),  # all of it is what neither seeds nor videos explain
    ],
)
def test_scores_of_which_nothing_is_known_decide_nothing(found: Difference) -> None:
    assert (found.mean, found.bounded) == (80.0, False)
    assert found.interval() == (-100.0, 100.0)
    assert points_of(found).endswith("(no interval)")
    assert found.p_above(0) == pytest.approx(0.5)
    assert found.p_below(0) == pytest.approx(0.5)


@pytest.mark.parametrize("seeds", [1, 3])
def test_one_video_decides_nothing(seeds: int) -> None:
    found = paired_numbers(np.arange(20.0, 20 + seeds)[:, None])
    assert (found.bounded, found.interval(), found.seeds) == (False, (-100.0, 100.0), seeds)
    assert found.p_above(0) == pytest.approx(0.5)
    assert mean_of_videos(np.array([70.0])) == (0.0, 100.0)


def test_no_difference_without_noise_decides_nothing() -> None:
    """As of two networks that answer alike whatever they see."""
    found = paired_numbers(np.zeros((3, 100)))
    assert (found.interval(), found.p_above(0), found.p_below(0)) == ((0.0, 0.0), 0.5, 0.5)


def test_videos_that_one_could_not_read_are_left_out_and_counted() -> None:
    first, second = rights("1101"), rights("1000")
    found = paired(first, second, read=np.array([True, True, False, False]))
    assert (found.mean, found.videos, found.dropped) == (50.0, 2, 2)
    nothing = paired(first, second, read=np.zeros(4, dtype=bool))
    assert (nothing.mean, nothing.videos, nothing.interval()) == (0.0, 0, (-100.0, 100.0))


def test_accuracies_alone_are_wider() -> None:
    first, second = discordant(40, 20, 600)
    first[0, -150:] = second[0, -150:] = False
    narrow = paired(first, second).interval()
    alone = unpaired(100 * first.mean(axis=1), 100 * second.mean(axis=1), videos=600)
    assert not alone.paired
    assert alone.mcnemar is None
    assert alone.interval().low < narrow.low < narrow.high < alone.interval().high
    p, q = (430 + 1) / 602, (410 + 1) / 602  # Agresti and Caffo
    assert alone.interval().high == pytest.approx(
        100 * (p - q + 1.959964 * np.sqrt((p * (1 - p) + q * (1 - q)) / 602)), abs=1e-6
    )


def test_two_seeds_say_little_without_pairing() -> None:
    """t with one degree of freedom: 12.7 standard errors."""
    found = unpaired(np.array([70.0, 72.0]), np.array([68.0, 69.0]), videos=10**9)
    assert found.std == pytest.approx(np.sqrt(0.5))
    assert found.interval().high - found.centre == pytest.approx(12.706 * 0.5, rel=1e-3)


def test_what_a_paired_comparison_could_tell() -> None:
    """The noise of 19,761 videos: ±0.44 points where two networks split on 10 % of them."""
    low, high = assumed(1.0, 19_761, 10.0).interval()
    assert (high - low) / 2 == pytest.approx(0.44, abs=0.003)
    assert assumed(30.0, 1000, 10.0).video_se == assumed(30.0, 1000, 30.0).video_se  # they split on 30 % at least


def test_official_splits_by_hand() -> None:
    """Student's t over the splits, whatever their videos say of themselves; one split is as it is."""
    parts = [assumed(mean, 1000, 10.0) for mean in (1.0, 2.0, 6.0)]
    found = over_folds(parts)
    half = stats.t.ppf(0.975, 2) * (7 / 3) ** 0.5
    assert found.mean == found.centre == pytest.approx(3.0)
    assert found.std == pytest.approx(7**0.5)
    assert found.interval() == pytest.approx((3 - half, 3 + half))
    assert (found.seeds, found.videos, found.disagreement) == (3, 3000, None)
    assert over_folds(parts[:1]) is parts[0]
    assert over_folds([replace(part, limit=np.inf) for part in parts]).limit == np.inf


@pytest.mark.parametrize("bound", [-3.0, 0.0, 0.7, 5.0])
def test_p_values_are_the_intervals_turned_round(bound: float) -> None:
    found = Difference(1.0, 1.0, seed_se=0.3, video_se=0.4, seeds=3, videos=600)
    for p, side in ((found.p_above(bound), 0), (found.p_below(bound), 1)):
        tail = min(p, 1 - p)
        reached = found.interval(1 - 2 * tail)[side if p < 0.5 else 1 - side]
        assert reached == pytest.approx(bound, abs=1e-6)
    assert found.p_above(bound) + found.p_below(bound) == pytest.approx(1)


@pytest.mark.parametrize(("times", "of"), [(0, 5), (1, 3), (3, 3), (5, 10), (10, 10), (0, 0)])
def test_the_exact_interval_of_a_share_is_scipys(times: int, of: int) -> None:
    found = clopper_pearson(times, of)
    if of == 0:
        assert found == (0.0, 100.0)
    else:
        peer = stats.binomtest(times, of).proportion_ci(method="exact")
        assert found == pytest.approx((100 * peer.low, 100 * peer.high))


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9]) == [1.0, 1.0]
    assert holm([]) == []


def test_rank_correlation_is_scipys() -> None:
    generator = np.random.default_rng(0)
    first = generator.normal(size=30).round(1)  # with ties
    second = (first + generator.normal(size=30)).round(1)
    found, (low, high) = rank_correlation(first, second)
    assert found == pytest.approx(stats.spearmanr(first, second).statistic)
    assert -1 < low < found < high < 1
    assert rank_correlation(first, first)[0] == pytest.approx(1)
    assert rank_correlation(first, np.zeros(30)) == (0.0, (-1.0, 1.0))


def test_a_difference_of_differences_by_hand() -> None:
    """Against the same numbers as contributions: all that differs are the two made-up videos."""
    generator = np.random.default_rng(0)
    rights = list(generator.random((4, 3, 4000)) < np.array([0.7, 0.6, 0.65, 0.6])[:, None, None])
    weights = (1, -1, -0.5, 0.5)
    sums = sum(100 * weight * right for weight, right in zip(weights, rights, strict=True))
    theirs, found = paired_numbers(np.asarray(sums)), paired(*rights, weights=weights)
    assert (found.mean, found.std, found.seeds) == (pytest.approx(theirs.mean), pytest.approx(theirs.std), 3)
    assert found.interval() == pytest.approx(theirs.interval(), abs=0.05)
    assert (found.disagreement, found.mcnemar) == (None, None)


def test_made_up_videos_grow_with_the_weights() -> None:
    agreeing = [np.ones((1, 600), dtype=bool)] * 4
    two, four = paired(*agreeing[:2]), paired(*agreeing, weights=(1, -1, -1, 1))
    assert four.video_se == pytest.approx(two.video_se * 2**0.5)


def test_assumed_differences_of_differences_are_noisier() -> None:
    one, two = assumed(1.0, 1000, 10.0), assumed(1.0, 1000, 10.0, (1, -1, -1, 1))
    assert two.video_se == pytest.approx(one.video_se * 2**0.5, rel=0.01)
