"""The paper's claims, judged: each *holds*, *fails* or is *undecided*, from intervals. No words are made here.

A comparison is decided when its 95 % interval (:mod:`~nl_lightning.report.uncertainty`) lies on one side of what is
claimed. From comparisons to a claim, and to the claims of a sub-table:

- A claim holds if every comparison says so. The weakest one's p-value is the claim's: no correction is needed where
  all have to agree. It fails if any comparison speaks against it: the strongest one's p-value, times their number.
- p-values are two-sided. Those of the claims of a sub-table are corrected by Holm's method: in 95 of 100 sub-tables
  at least, no verdict is wrong.
- Equivalence is shown, never assumed: variants are alike if the interval of each difference lies within the margin,
  which is two one-sided tests. A difference that wasn't found decides nothing.

The reported numbers are judged by the same rules (:func:`compare_reported`), as one run a row. :func:`report` makes
all numbers of a report, once; :mod:`~nl_lightning.report.words` chooses words from them.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any, Literal

import numpy as np
import pandas as pd

from nl_lightning.report.collate import DIVERGED, UNREADABLE, Runs, by_group, collate, standing
from nl_lightning.report.uncertainty import LEVEL, Difference, assumed, holm, unpaired
from nl_lightning.study.study import Check, Claim, Study

ASSUMED_DISAGREEMENT = 10.0  # percent of videos; networks of one family on Kinetics split on 10 to 15

Word = Literal["holds", "fails", "undecided"]


@dataclass(frozen=True)
class Comparison:
    """Two variants under a claim.

    Attributes:
        reported: score of `variant` minus that of `than`, in points; ``cheaper``: the cost of `variant` as a share of
            `than`'s. None: not reported.
        difference: of the study's metric, with its noise; None for ``cheaper``, or if no seed has both.
        share: the measured cost, for ``cheaper``; None if it isn't measured.
        missing: those of the two variants that nothing is known of.
    """

    claim: Claim
    check: Check
    variant: str
    than: str
    reported: float | None
    difference: Difference | None = None
    share: float | None = None
    missing: tuple[str, ...] = ()

    @property
    def measured(self) -> float | None:
        """The measured difference, in points, or cost, as a share."""
        return self.difference.mean if self.difference else self.share

    @cached_property
    def p_for(self) -> float:
        """One-sided p-value against what is claimed being untrue: small if the claim is surely right here."""
        if self.difference is None:
            return 0.0 if self.share is not None and self.share < 1 else 1.0  # costs have no noise
        if self.check.within is not None:  # two one-sided tests
            return max(self.difference.p_above(-self.check.within), self.difference.p_below(self.check.within))
        return self.difference.p_above(self.check.by)

    @cached_property
    def p_against(self) -> float:
        """The same for the opposite: small if the claim is surely wrong here."""
        if self.difference is None:
            return 0.0 if self.share is not None and self.share >= 1 else 1.0
        if self.check.within is not None:
            return min(self.difference.p_above(self.check.within), self.difference.p_below(-self.check.within))
        return self.difference.p_below(self.check.by)

    @property
    def word(self) -> Word:
        """What this comparison says by itself, before any correction."""
        if 2 * self.p_for <= 1 - LEVEL:
            return "holds"
        return "fails" if 2 * self.p_against <= 1 - LEVEL else "undecided"


@dataclass(frozen=True)
class Verdict:
    """What the evidence says of a claim, all of whose comparisons have to agree.

    Attributes:
        corrected: the p-value of `word`, among the `family` claims of the sub-table that anything is known of.
    """

    claim: Claim
    comparisons: tuple[Comparison, ...]
    word: Word = "undecided"
    corrected: float = 1.0
    family: int = 0

    @property
    def known(self) -> bool:
        """Whether anything was measured of it."""
        return any(c.measured is not None for c in self.comparisons)

    @property
    def p_for(self) -> float:
        """One-sided p-value that it holds: the weakest comparison's."""
        return max(c.p_for for c in self.comparisons)

    @property
    def p_against(self) -> float:
        """One-sided p-value that it fails: the strongest comparison's, times how many have noise."""
        noisy = sum(c.difference is not None for c in self.comparisons)
        return min(1.0, max(1, noisy) * min(c.p_against for c in self.comparisons))

    @property
    def p(self) -> float:
        """Two-sided p-value, by itself."""
        return min(1.0, 2 * min(self.p_for, self.p_against))

    @property
    def videos_only(self) -> bool:
        """Whether some comparison has one seed: what is said is of the trained networks, and others may differ."""
        return any(c.difference is not None and c.difference.seeds == 1 for c in self.comparisons)

    @property
    def paired(self) -> bool:
        """False if some comparison had to do with scores alone."""
        return all(c.difference is None or c.difference.paired for c in self.comparisons)

    @property
    def telling(self) -> Comparison:
        """The comparison that decides the claim, or keeps it open."""
        against = min(self.comparisons, key=lambda c: c.p_against)
        if self.word == "fails" or (self.word == "undecided" and against.word == "fails"):
            return against
        return max(self.comparisons, key=lambda c: c.p_for)


# -------------------------------------------------------------------------------------------------- comparisons


def compare(runs: Runs) -> list[Comparison]:
    """Every comparison of every claim of the study, in its order. Claims with a note only have none."""
    return _compare(runs.study, runs.difference, runs.ratio, lambda name: bool(runs.records([name])))


def compare_reported(study: Study, disagreement: float | None = None) -> list[Comparison]:
    """The same from the reported numbers alone: one run a row, on `reported_videos` videos.

    Unpaired, which is all that two accuracies allow; or as if they were paired by video, and two networks disagreed on
    `disagreement` percent of the videos. Another metric says nothing of its own noise.
    """
    videos = study.reported_videos

    def difference(variant: str, than: str) -> Difference | None:
        first, second = study.reported_score(variant), study.reported_score(than)
        if first is None or second is None or videos is None or not study.metric.counts_videos:
            return None
        gain = study.reported_gain(variant, than)
        if disagreement is not None and gain is not None:
            return assumed(gain, videos, disagreement)
        return unpaired(np.array([first]), np.array([second]), videos)

    return _compare(study, difference, None, lambda name: study.reported_score(name) is not None)


def _compare(
    study: Study,
    difference: Callable[[str, str], Difference | None],
    ratio: Callable[[str, str, str], float | None] | None,
    known: Callable[[str], bool],
) -> list[Comparison]:
    """`ratio` gives the measured cost of a variant as a share of another's; without it, the reported one counts."""
    found = []
    for claim in study.claims:
        for check in claim.checks:
            for variant, than in check.pairs():
                missing = tuple(name for name in (variant, than) if not known(name))
                if check.cost:
                    reported = _reported_share(study, check)
                    share = ratio(variant, than, check.cost) if ratio else reported
                    found.append(Comparison(claim, check, variant, than, reported, None, share, missing))
                else:
                    reported = study.reported_gain(variant, than)
                    measured = difference(variant, than)
                    found.append(Comparison(claim, check, variant, than, reported, measured, None, missing))
    return found


def _reported_share(study: Study, check: Check) -> float | None:
    """What the claim says, or else the quotient of two cost ratios of one table (they have one baseline)."""
    if check.reported is not None:
        return check.reported
    for table in study.tables.values():
        costs = {row.variant: getattr(row.reported, f"{check.cost}_ratio") for row in table.rows}
        first, second = (costs.get(name) for name in check.variants)
        if first is not None and second:
            return float(first / second)
    return None


# ----------------------------------------------------------------------------------------------------- verdicts


def judge(study: Study, comparisons: Sequence[Comparison]) -> list[Verdict]:
    """A verdict on each claim that has comparisons, in the study's order, corrected within its sub-table."""
    claims = [claim for claim in study.claims if claim.checks]
    found = {claim.name: Verdict(claim, tuple(c for c in comparisons if c.claim == claim)) for claim in claims}
    for table in dict.fromkeys(claim.table for claim in claims):
        family = [one for one in found.values() if one.claim.table == table]
        known = [one for one in family if one.known]
        corrected = dict(zip([one.claim.name for one in known], holm([one.p for one in known]), strict=True))
        for one in family:
            p = corrected.get(one.claim.name, 1.0)
            word: Word = "holds" if one.p_for < one.p_against else "fails"
            if p > 1 - LEVEL:
                word = "undecided"
            found[one.claim.name] = replace(one, word=word, corrected=p, family=len(known))
    return list(found.values())


# ---------------------------------------------------------------------------------------------- the whole report


@dataclass(frozen=True)
class Report:
    """All numbers and verdicts that the formats lay out.

    Attributes:
        rows: a line per row of the tables (:func:`~nl_lightning.report.collate.collate`).
        lines: the same by table, a dict each, where what isn't known is None.
        groups: top-1 by group of classes, a line a variant; empty if no record has groups.
        broken: variants of which nothing counts, since their runs have diverged or their records can't be read: which.
        verdicts: on the study's claims.
        reported: verdicts on the reported numbers by themselves: unpaired, and as if they were paired by video. Empty
            if nothing says on how many videos they were measured.
    """

    runs: Runs
    rows: pd.DataFrame
    lines: dict[str, list[dict[str, Any]]]
    groups: pd.DataFrame
    broken: dict[str, str]
    verdicts: list[Verdict]
    reported: tuple[list[Verdict], list[Verdict]] | tuple[()] = ()


def report(runs: Runs) -> Report:
    """Make all numbers of a study's report, once."""
    study = runs.study
    reported = [compare_reported(study), compare_reported(study, ASSUMED_DISAGREEMENT)]
    known = any(comparison.difference for comparison in reported[0])
    rows = collate(runs)
    lines: dict[str, list[dict[str, Any]]] = {table: [] for table in study.tables}
    for line in rows.astype(object).where(rows.notna(), None).to_dict("records"):
        lines[line["table"]].append({str(key): value for key, value in line.items()})
    return Report(
        runs,
        rows,
        lines,
        by_group(runs),
        {name: state for name in study.variants if (state := standing(runs, name)) in (DIVERGED, UNREADABLE)},
        judge(study, compare(runs)),
        (judge(study, reported[0]), judge(study, reported[1])) if known else (),
    )
