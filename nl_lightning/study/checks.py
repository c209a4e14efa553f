"""A claim: a sentence of the paper, in parts, which are comparisons of variants. No torch here."""

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal


@dataclass(frozen=True)
class Share:
    """A margin as a share of what a variant gains over another on the same data; `of`: (variant, than)."""

    share: float
    of: tuple[str, str]


@dataclass(frozen=True)
class Check:
    """One comparison of a claim, in the study's metric except for ``cheaper``.

    Attributes:
        kind: ``better``: the first variant beats the second, by more than `by`. ``ordered``: each variant beats the
            one before it. ``alike``: no two differ by more than `within`. ``about``: the first beats the second by
            `points`, give or take `within`. ``contrast``: what the first gains over the second, minus what `over`'s
            first gains over its second, is more than `by`. ``ahead``: at every validated epoch of training the first is
            ahead of the second, on the data of `curve`. ``cheaper``: the first costs less than the second, in `cost`.
            ``surpasses``: the one beats `against`, a score that others report, by more than `by`. ``matches``: it
            differs from that by `within` at most.
        variants: two or more for ``ordered`` and ``alike``, one for ``surpasses`` and ``matches``, otherwise two.
        by, within: points, or a share of what a block brings on the same data.
        reported: for ``cheaper``: the reported cost of the first, as a share of the second's. With `within`, the cost
            of the networks has to be as close to it.
    """

    kind: Literal["better", "ordered", "alike", "about", "contrast", "ahead", "cheaper", "surpasses", "matches"]
    variants: tuple[str, ...]
    by: float | Share = 0.0
    within: float | Share | None = None
    points: float = 0.0
    over: tuple[str, str] | None = None
    curve: Literal["val", "train"] | None = None
    cost: Literal["params", "flops"] | None = None
    reported: float | None = None
    against: float | None = None

    def pairs(self) -> list[tuple[str, str]]:
        """The pairs (variant, than) that are compared; `than` is empty where it is with what others report."""
        if self.against is not None:
            return [(self.variants[0], "")]
        if self.kind == "ordered":
            return [(better, worse) for worse, better in itertools.pairwise(self.variants)]
        if self.kind == "alike":
            return [(second, first) for first, second in itertools.combinations(self.variants, 2)]
        return [(self.variants[0], self.variants[1])]

    @property
    def margin(self) -> float | Share:
        """What `by` or `within` says."""
        return self.by if self.within is None else self.within

    @property
    def bounds(self) -> tuple[float, float] | None:
        """Between which numbers the difference or the cost is claimed to lie; None: shares of an effect."""
        margin = self.margin
        if isinstance(margin, Share):
            return None
        if self.cost is not None:
            return (0.0, 1.0) if not margin else ((self.reported or 0) - margin, (self.reported or 0) + margin)
        return (margin, math.inf) if self.within is None else (self.points - margin, self.points + margin)

    @property
    def in_points(self) -> bool:
        """Whether it is about points of the study's metric, whatever else is judged by another score."""
        return self.kind in ("about", "ahead")

    @property
    def beside(self) -> tuple[str, ...]:
        """The variants that each of its comparisons needs beside the two that it compares."""
        return (*(self.over or ()), *(self.margin.of if isinstance(self.margin, Share) else ()))

    @property
    def named(self) -> tuple[str, ...]:
        """Every variant that it needs."""
        return (*self.variants, *self.beside)


@dataclass(frozen=True)
class Part:
    """One statement of a claim, which is judged by itself.

    Attributes:
        kind: the direction of an effect, its size, what the sentence presupposes, or how far it is said to reach.
        not_testable: why data can't test it, by how the names of recipes on these data begin ("": on any data).
        data: the data whose points its numbers are: it is judged under recipes whose names start so. None: any.
        judged_on: the group of test videos that it is judged on, in place of the study's, where records have it.
    """

    kind: Literal["direction", "size", "premise", "scope"]
    text: str
    checks: tuple[Check, ...] = ()
    not_testable: Mapping[str, str] = field(default_factory=dict)
    data: str | None = None
    judged_on: str = ""

    def untestable(self, recipe: str) -> str | None:
        """Why nothing under a recipe can test it; None if something can."""
        if self.data is not None and not recipe.startswith(self.data):
            return f"its points are those of {self.data}"
        return next((why for these, why in self.not_testable.items() if recipe.startswith(these)), None)


@dataclass(frozen=True)
class Claim:
    """A sentence of the paper, as parts that are judged one by one."""

    name: str
    text: str
    table: str | None = None
    parts: tuple[Part, ...] = ()

    @property
    def checks(self) -> tuple[Check, ...]:
        """The comparisons of all its parts."""
        return tuple(check for part in self.parts for check in part.checks)
