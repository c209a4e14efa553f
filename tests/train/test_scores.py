"""mAP against its definition and against torchmetrics; the videos' contributions against resampling."""

import math

import numpy as np
import pytest
import torch
from torchmetrics.classification import MultilabelAveragePrecision

from nl_lightning.train.scores import VideoScores, by_class, by_video, mean_loss


def made_up(videos: int, classes: int, seed: int = 0, ties: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """Scores that say something about the labels; of as many classes, the later ones are rarer."""
    generator = np.random.default_rng(seed)
    labels = generator.random((videos, classes)) < np.geomspace(0.4, 0.05, classes)
    scores = 1 / (1 + np.exp(-(labels + generator.normal(size=labels.shape))))
    return (np.round(scores, 1) if ties else scores), labels


def by_definition(scores: np.ndarray, labels: np.ndarray) -> float:
    """The double loop over classes and the videos that have them."""
    precisions = []
    for own, has in zip(scores.T, labels.T, strict=True):
        if has.any():
            precisions.append(np.mean([has[own >= own[video]].mean() for video in np.flatnonzero(has)]))
    return float(100 * np.mean(precisions))


@pytest.mark.parametrize("ties", [False, True])
def test_the_mean_of_the_contributions_is_the_map(ties: bool) -> None:
    scores, labels = made_up(80, 7, ties=ties)
    labels[:, 3] = False  # a class that no video has is left out
    found = by_video(scores, labels).mean()
    kept = [k for k in range(7) if k != 3]
    reference = MultilabelAveragePrecision(6)(torch.tensor(scores[:, kept]), torch.tensor(labels[:, kept]).int())
    assert found == pytest.approx(by_definition(scores, labels))
    assert found == pytest.approx(100 * float(reference), abs=1e-4)


def test_by_hand() -> None:
    """One class, ranked has, hasn't, has: the mean of 1/1 and 2/3."""
    assert by_video(np.array([[0.9], [0.5], [0.1]]), np.array([[True], [False], [True]])).mean() == pytest.approx(
        100 * 5 / 6
    )


def test_a_network_that_knows_nothing_or_is_broken_is_at_chance() -> None:
    labels = np.array([[True], [False], [False], [False]])
    for value in (0.3, math.nan):
        assert by_video(np.full((4, 1), value), labels).mean() == pytest.approx(25)
    assert by_video(np.array([[math.nan], [0.1], [0.2], [0.3]]), labels).mean() == pytest.approx(25)
    assert by_video(np.ones((4, 1)), np.zeros((4, 1), bool)).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("ties", [False, True])
def test_a_contribution_is_how_the_map_changes_with_a_videos_weight(ties: bool) -> None:
    """Against doubling each video in a set in which every video is there 200 times."""
    scores, labels = made_up(12, 3, ties=ties)
    often = 200
    base = by_definition(scores, labels)
    for video, contribution in enumerate(by_video(scores, labels)):
        more = [*np.repeat(np.arange(12), often), video]
        change = (by_definition(scores[more], labels[more]) - base) * 12 * often
        assert contribution - base == pytest.approx(change, rel=0.02, abs=0.5)


def test_the_noise_is_that_of_resampled_videos() -> None:
    """The standard error of a paired difference, against 300 draws of the videos."""
    scores, labels = made_up(400, 10)
    other = scores + np.random.default_rng(1).normal(scale=0.2, size=scores.shape)
    differences = by_video(scores, labels) - by_video(other, labels)
    generator = np.random.default_rng(2)
    drawn = [
        by_video(scores[draw], labels[draw]).mean() - by_video(other[draw], labels[draw]).mean()
        for draw in (generator.integers(400, size=400) for _ in range(300))
    ]
    error = differences.std(ddof=1) / math.sqrt(400)
    assert error == pytest.approx(np.std(drawn), rel=0.15)


def test_loss_and_classes_by_hand() -> None:
    videos = [
        VideoScores("a", 0, np.array([0.5, 0.25, 0.25])),
        VideoScores("b", 0, np.array([0.0, 0.5, 0.5])),
        VideoScores("c", 2, None),  # unreadable: wrong, and not in the loss
    ]
    assert by_class(videos, 3, multi_label=False) == [50, None, 0]
    assert mean_loss(videos[:1], None) == pytest.approx(math.log(2), abs=1e-6)
    assert 300 < (mean_loss(videos, None) or 0) < 400  # a probability of 0 is a large loss, and a number
    assert mean_loss(videos[2:], None) is None
    several = [VideoScores("a", (0, 1), np.array([0.5, 0.8, 0.1])), VideoScores("b", (1,), np.array([0.5, 0.9, 0.1]))]
    assert by_class(several, 3, multi_label=True) == [50, 100, None]  # a constant is at chance
    expected = -np.log([0.5, 0.8, 0.9, 0.5, 0.9, 0.9]).mean()
    assert mean_loss(several, 3) == pytest.approx(expected, abs=1e-6)
