"""The comparisons behind the parts of claims: what was measured, what is claimed of it, and how sure that is.

Each is a weighted sum of scores, two networks' as a rule, with its noise (:mod:`~nl_lightning.report.uncertainty`).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np

from nl_lightning.report.collate import Runs
from nl_lightning.report.uncertainty import LEVEL, Difference, Interval, assumed, over_seeds, unpaired
from nl_lightning.study.checks import Check, Claim, Part, Share
from nl_lightning.study.study import Study

ASSUMED_DISAGREEMENT = 10.0  # percent of videos; networks of one family on Kinetics split on 10 to 15
ENOUGH_SEEDS = 3  # Student's t of two reaches 13 standard errors, and a plateau may be hit twice

Word = Literal["holds", "fails", "undecided", "seen once", "not testable"]


@dataclass(frozen=True)
class Comparison:
    """Two variants under a part of a claim.

    Attributes:
        reported: as `difference`, in points, or as `share`; None: not reported.
        difference: of `variant` to `than`, with its noise; None for ``cheaper``, or if no seed has both.
        share: for ``cheaper``, the cost of `variant` as a share of `than`'s; None if it isn't known.
        missing: those of its variants that nothing is known of.
        effect: what the margin is a share of.
        edges: the difference minus the lower and the upper edge of what is claimed, if these are shares of the effect.
    """

    claim: Claim
    part: Part
    check: Check
    variant: str
    than: str
    reported: float | None
    difference: Difference | None = None
    share: float | None = None
    missing: tuple[str, ...] = ()
    effect: Difference | None = None
    edges: tuple[Difference, ...] = ()

    @property
    def measured(self) -> float | None:
        """The measured difference, in points, or cost, as a share."""
        return self.difference.mean if self.difference else self.share

    @property
    def weights(self) -> dict[str, float]:
        """The difference, as a weighted sum of scores."""
        pair: dict[str, float] = {self.variant: 1, self.than: -1} if self.than else {self.variant: 1}
        return pair if self.check.over is None else _plus(pair, self.check.over, -1)

    @property
    def edge_weights(self) -> list[dict[str, float]]:
        """What is compared with zero, or with a bound in points, for each edge of what is claimed."""
        margin = self.check.margin
        if not isinstance(margin, Share):
            return [self.weights]
        shares = [margin.share] if self.check.within is None else [-margin.share, margin.share]
        return [_plus(self.weights, margin.of, -share) for share in shares]

    @property
    def seeds(self) -> int:
        """The fewest seeds behind the difference, the effect that its margin is a share of, and its edges."""
        behind = (self.difference, self.effect, *self.edges)
        return min(one.seeds for one in behind if one is not None) if self.difference else 0

    @property
    def decides(self) -> bool:
        """Whether there is enough to decide anything."""
        return self.share is not None or self.seeds >= ENOUGH_SEEDS

    @property
    def claimed(self) -> Interval | None:
        """Where the difference or the cost is claimed to lie; None if it is a share of an effect that isn't known."""
        bounds, margin = self.check.bounds, self.check.margin
        if bounds is None and isinstance(margin, Share) and self.effect is not None:
            edge = margin.share * self.effect.mean
            bounds = (edge, math.inf) if self.check.within is None else (-edge, edge)
        return None if bounds is None else Interval(*bounds)

    @cached_property
    def _sides(self) -> list[tuple[float, float]]:
        """For each edge of what is claimed, the p-values of lying on the right side of it and on the wrong one."""
        found, claimed = self.difference, self.claimed
        if claimed is None or self.measured is None:
            return [(1.0, 1.0)]
        if found is None:  # costs have no noise
            return [(0.0, 1.0) if claimed.low <= self.measured < claimed.high else (1.0, 0.0)]
        ends = [(found, bound) for bound in claimed] if self.check.bounds else [(edge, 0.0) for edge in self.edges]
        sides = [(difference.p_above(bound), difference.p_below(bound)) for difference, bound in ends]
        # The upper edge's sides are the other way round.
        return [*sides[:1], *((below, above) for above, below in sides[1:])] or [(1.0, 1.0)]

    @cached_property
    def p_for(self) -> float:
        """One-sided p-value against what is claimed being untrue: small if the claim is surely right here."""
        return max(self._no_effect, *(right for right, _ in self._sides))

    @cached_property
    def p_against(self) -> float:
        """The same for the opposite: small if the claim is surely wrong here."""
        return max(self._no_effect, min(wrong for _, wrong in self._sides))

    @property
    def _no_effect(self) -> float:
        """A share of nothing is no margin: the p-value of the effect not being there."""
        return 0.0 if self.effect is None else self.effect.p_above(0)

    @property
    def without_effect(self) -> bool:
        """Whether its margin is a share of something that isn't surely above zero."""
        return isinstance(self.check.margin, Share) and (self.effect is None or 2 * self._no_effect > 1 - LEVEL)

    @property
    def leaning(self) -> Word:
        """What its interval says, before any correction, of the networks that were trained."""
        if 2 * self.p_for <= 1 - LEVEL:
            return "holds"
        return "fails" if 2 * self.p_against <= 1 - LEVEL else "undecided"

    @property
    def word(self) -> Word:
        """What this comparison says by itself, before any correction."""
        return self.leaning if self.decides else "seen once" if self.seeds == 1 else "undecided"


Combination = Callable[[Mapping[str, float], bool, str], Difference | None]
"""The weighted sum of scores; whether in points of the metric, whatever else is judged; on which group of videos."""


def compare(runs: Runs) -> list[Comparison]:
    """Every comparison of every claim of the study, in its order, as far as data of this recipe can test it."""

    def combination(weights: Mapping[str, float], points: bool, group: str) -> Difference | None:
        return runs.combination(weights, runs.soft and not points, group)

    return compare_by(
        runs.study,
        runs.recipe.names,
        combination,
        lambda one: runs.ratio(one.variant, one.than, one.check.cost or ""),
        {name for name in runs.study.variants if runs.records([name])},
        lambda check: _least_lead(runs, check),
    )


def compare_reported(study: Study, disagreement: float | None = None) -> list[Comparison]:
    """The same from the reported numbers alone: one run a row, on `reported_videos` videos.

    Unpaired, or as if they were paired by video, and two networks disagreed on `disagreement` percent of the videos.
    Another metric than an accuracy says nothing of its own noise.
    """
    videos = study.reported_videos

    def combination(weights: Mapping[str, float], points: bool, group: str) -> Difference | None:
        scores = {name: study.reported_score(name) for name in weights}
        if None in scores.values() or videos is None or not study.metric.counts_videos:
            return None
        known = np.array(list(scores.values()), dtype=float)
        if disagreement is not None and len(weights) > 1:
            # Rounded, because 75.1 - 73.8 isn't 1.3 in binary, and a claim's margin may be met exactly.
            mean = round(float(known @ np.array(list(weights.values()))), 6)
            return assumed(mean, videos, disagreement, list(weights.values()))
        return unpaired(*known[:, None], videos=videos, weights=list(weights.values()))

    known = {name for name in study.variants if study.reported_score(name) is not None}
    return compare_by(study, (study.reported_on or "",), combination, lambda one: one.reported, known)


def compare_by(
    study: Study,
    recipe: Sequence[str],
    combination: Combination,
    cost: Callable[[Comparison], float | None],
    known: set[str],
    lead: Callable[[Check], Difference | None] | None = None,
) -> list[Comparison]:
    """Every comparison of every claim, from what these functions say of the `known` variants on a recipe's data.

    `recipe`: its names. `cost`: where the paper's own isn't counted. `lead`: the smallest of a curve; without it,
    curves aren't compared.
    """
    found = []
    testable = ((claim, part) for claim in study.claims for part in claim.parts if part.untestable(*recipe) is None)
    for claim, part, check in ((*of, check) for of in testable for check in of[1].checks):
        for variant, than in check.pairs():
            needed = dict.fromkeys((variant, *([than] if than else []), *check.beside))
            missing = tuple(name for name in needed if name not in known)
            reported = _reported(study, check, variant, than)
            one = Comparison(claim, part, check, variant, than, reported, missing=missing)
            if check.cost is not None:
                index = ("params", "flops").index(check.cost)
                own = [study.costs[name][index] for name in (variant, than) if name in study.costs]
                share = own[0] / own[1] if len(own) == 2 else cost(one)
                found.append(replace(one, share=share, missing=missing if share is None else ()))
            elif check.curve is not None:
                found += [replace(one, difference=lead(check))] if lead else []  # no curve is reported
            elif check.against is not None:
                alone = combination(one.weights, True, "")
                shift = study.metric.sign * check.against
                less = alone and replace(alone, mean=alone.mean - shift, centre=alone.centre - shift)
                found.append(replace(one, difference=less))
            else:
                points, margin, group = check.in_points, check.margin, part.judged_on
                one = replace(one, difference=combination(one.weights, points, group))
                if isinstance(margin, Share):
                    of, than_of = margin.of
                    effect = combination({of: 1, than_of: -1}, points, group)
                    # The whole of itself is nothing to compare with.
                    sums = one.edge_weights if all(one.edge_weights) else []
                    edges = (combination(weights, points, group) for weights in sums)
                    one = replace(one, effect=effect, edges=tuple(edge for edge in edges if edge is not None))
                found.append(one)
    return found


def _plus(weights: Mapping[str, float], pair: tuple[str, str], times: float) -> dict[str, float]:
    """The weights of a sum to which so many times the difference of a pair is added."""
    first, second = pair
    summed = dict(weights) | {first: weights.get(first, 0) + times}
    summed[second] = summed.get(second, 0) - times
    return {name: weight for name, weight in summed.items() if weight}


def _least_lead(runs: Runs, check: Check) -> Difference | None:
    """The smallest lead over the validated epochs that both have, a number a seed."""
    metric, leads = runs.study.metric, list[float]()
    key, factor = f"{check.curve}/{metric.short}", metric.sign * metric.scale
    for mine, other in runs.together(check.variants):
        first, second = ({p["step"]: p[key] for p in record.curve if key in p} for record in (mine, other))
        both = [factor * (first[step] - second[step]) for step in first if step in second]
        if both:
            leads.append(min(both))
    if not leads:
        return None
    found = over_seeds(np.array(leads), runs.together(check.variants)[0][0].videos_expected)
    return found if metric.bounded else replace(found, limit=math.inf)


def _reported(study: Study, check: Check, variant: str, than: str) -> float | None:
    """The reported difference, in points.

    Of a cost: what the claim says, or else the quotient of two cost ratios of one table, over one baseline.
    """
    if check.curve is not None:
        return None
    if check.against is not None:
        score = study.reported_score(variant)
        return None if score is None else round(study.metric.sign * (score - check.against), 6)
    if check.cost is None:
        gain, less = study.reported_gain(variant, than), study.reported_gain(*check.over) if check.over else 0.0
        return None if gain is None or less is None else round(gain - less, 6)
    if check.reported is not None:
        return check.reported
    for table in study.tables.values():
        rows = [row for name in check.variants for row in table.rows if row.variant == name]
        costs = [float(row.reported.get(f"{check.cost}_ratio") or 0) for row in rows]
        if len(costs) == 2 and all(costs) and len({row.baseline or row.variant for row in rows}) == 1:
            return costs[0] / costs[1]
    return None
