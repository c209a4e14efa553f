"""Simulated studies whose truth is known: networks, the luck of their trainings, and the videos they are tested on.

A video has a difficulty, which all networks share, and one of its own for each network. A training has luck. The rest
is drawn anew for every network, seed and video; its standard deviation is 1, the unit of everything else here.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri, stdtrit


@dataclass(frozen=True)
class Luck:
    """How much one training is better than another of the same network.

    Attributes:
        spread: standard deviation; 0.08 is about one point of accuracy.
        tails: degrees of freedom of Student's t; None: Gaussian.
        stays: share of the trainings that stay on the plateau.
        falls: how far the plateau lies below; 1.4 is about 20 points of accuracy.
    """

    spread: float = 0.0
    tails: int | None = None
    stays: float = 0.0
    falls: float = 1.4

    def draw(self, seeds: int, generator: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
        """Luck of each training and whether it left the plateau: (seeds,) each."""
        unit = generator.standard_normal(seeds)
        if self.tails:
            unit = generator.standard_t(self.tails, seeds) / np.sqrt(self.tails / (self.tails - 2))
        left = generator.random(seeds) >= self.stays
        return self.spread * unit - self.falls * ~left, left

    def quantiles(self) -> np.ndarray:
        """Evenly likely values, for means over all trainings that leave the plateau."""
        shares = (np.arange(4001) + 0.5) / 4001
        if not self.tails:
            return self.spread * ndtri(shares)
        return self.spread * stdtrit(self.tails, shares) / np.sqrt(self.tails / (self.tails - 2))


class Tested(NamedTuple):
    """A simulated study.

    Attributes:
        margins: by how much each video is right, wrong if negative: (networks, seeds, videos).
        luck: of each training: (networks, seeds).
        left: whether it left the plateau: (networks, seeds).
    """

    margins: np.ndarray
    luck: np.ndarray
    left: np.ndarray

    def right(self) -> np.ndarray:
        """Which videos are right."""
        return self.margins > 0

    def soft(self, network: int) -> np.ndarray:
        """Probability of the right class, in percent: (seeds, videos)."""
        return 100 * ndtr(self.margins[network])


@dataclass(frozen=True)
class World:
    """How networks come about.

    Attributes:
        abilities: of the networks.
        lucks: of their trainings, one for each network.
        difficulty: how much videos differ, for all networks alike: what makes pairing worth while.
        taste: how much a video suits one network more than another, under every seed.
    """

    abilities: tuple[float, ...]
    lucks: tuple[Luck, ...]
    difficulty: float = 2.5
    taste: float = 0.2

    def test(self, seeds: int, videos: int, generator: np.random.Generator) -> Tested:
        """Train every network with so many seeds and test it on so many videos."""
        networks = len(self.abilities)
        luck, left = (np.stack(part) for part in zip(*(one.draw(seeds, generator) for one in self.lucks), strict=True))
        margins = generator.standard_normal((networks, seeds, videos), np.float32)
        margins += self.difficulty * generator.standard_normal(videos, np.float32)
        margins += self.taste * generator.standard_normal((networks, 1, videos), np.float32)
        margins += (luck + np.array(self.abilities)[:, None]).astype(np.float32)[..., None]
        return Tested(margins, luck, left)

    def score(self, network: int, luck: np.ndarray | None = None, soft: bool = False, learned: bool = False) -> float:
        """Expected score in percent over all videos: accuracy, or the probability of the right class.

        Of trainings with this `luck`; without it, of all trainings, or of all that leave the plateau (`learned`).
        """
        own = self.lucks[network]
        if luck is not None:
            return self._mean(self.abilities[network] + luck, soft)
        reached = self.abilities[network] + own.quantiles()
        stays = 0.0 if learned else own.stays
        return (1 - stays) * self._mean(reached, soft) + stays * self._mean(reached - own.falls, soft)

    def _mean(self, reached: np.ndarray, soft: bool) -> float:
        return 100 * float(np.mean(ndtr(reached / np.sqrt(1 + self.difficulty**2 + self.taste**2 + soft))))

    def gain(self, first: int, second: int, soft: bool = False, learned: bool = False) -> float:
        """The true difference of two networks over all trainings, in points."""
        scores = [self.score(network, soft=soft, learned=learned) for network in (first, second)]
        return scores[0] - scores[1]

    def gain_of(self, tested: Tested, first: int, second: int, seeds: int | None = None, soft: bool = False) -> float:
        """The true difference of the networks that were trained, under the first seeds, over all videos."""
        scores = [self.score(network, tested.luck[network, :seeds], soft) for network in (first, second)]
        return scores[0] - scores[1]


@cache
def ability(luck: Luck, score: float) -> float:
    """The ability of a network whose trainings reach such an accuracy in the mean."""
    low, high = -20.0, 20.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if World((middle,), (luck,)).score(0) < score else (low, middle)
    return low


def networks(gains: Sequence[float], first: Luck, others: Luck | None = None, score: float = 72.0) -> World:
    """A first network of such an accuracy, and others that are better by so many points, over all trainings."""
    others = others or first
    abilities = (ability(first, score), *(ability(others, score + gain) for gain in gains))
    return World(abilities, (first, *[others] * len(gains)))


FIVE, TEN = Luck(0.08, stays=0.2), Luck(0.08, stays=0.1)
# Luck of a first network and of the others. Seed noise is the standard deviation of an accuracy over trainings.
WORLDS: dict[str, tuple[Luck, Luck]] = {
    "Gaussian, 0.6 points": (Luck(0.05), Luck(0.05)),
    "Gaussian, 2.5 points": (Luck(0.2), Luck(0.2)),
    "unequal, 0.6 and 2.5 points": (Luck(0.05), Luck(0.2)),
    "heavy tails, 2.5 points": (Luck(0.2, tails=3), Luck(0.2, tails=3)),
    "one training in ten stays on the plateau": (TEN, TEN),
    "one in five stays": (FIVE, FIVE),
    "one in five stays, of the baseline none": (Luck(0.08), FIVE),
}
