"""The paper's claims, judged: each *holds*, *fails* or is *undecided*, from intervals, with the figures behind it.

A comparison is decided when its 95 % interval (:mod:`~nl_lightning.report.uncertainty`) lies on one side of what is
claimed. From comparisons to a claim, and to the claims of a sub-table:

- A claim holds if every comparison says so. The weakest one's p-value is the claim's: no correction is needed where
  all have to agree. It fails if any comparison speaks against it: the strongest one's p-value, times their number.
- p-values are two-sided. Those of the claims of a sub-table are corrected by Holm's method: in 95 of 100 sub-tables
  at least, no verdict is wrong.
- Equivalence is shown, never assumed: variants are alike if the interval of each difference lies within the margin,
  which is two one-sided tests. A difference that wasn't found decides nothing.

The reported numbers are judged by the same rules (:func:`compare_reported`), as one run a row.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from nl_lightning.report.collate import Runs
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

    @property
    def p_for(self) -> float:
        """One-sided p-value against what is claimed being untrue: small if the claim is surely right here."""
        if self.difference is None:
            return 0.0 if self.share is not None and self.share < 1 else 1.0  # costs have no noise
        if self.check.within is not None:  # two one-sided tests
            return max(self.difference.p_above(-self.check.within), self.difference.p_below(self.check.within))
        return self.difference.p_above(self.check.by)

    @property
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
    """What the evidence says of a claim.

    Attributes:
        p, corrected: two-sided p-value of the claim by itself, and among the `family` claims of its sub-table that
            anything is known of.
        reason: one sentence, with figures.
        videos_only: some comparison has one seed: the verdict is on the networks that were trained, and another
            training may differ.
        paired: False if some comparison had to do with scores alone.
    """

    claim: Claim
    word: Word
    reason: str
    p: float
    corrected: float
    family: int
    comparisons: tuple[Comparison, ...]

    @property
    def videos_only(self) -> bool:
        return any(c.difference is not None and c.difference.seeds == 1 for c in self.comparisons)

    @property
    def paired(self) -> bool:
        return all(c.difference is None or c.difference.paired for c in self.comparisons)


# -------------------------------------------------------------------------------------------------- comparisons


def compare(runs: Runs) -> list[Comparison]:
    """Every comparison of every claim of the study, in its order. Claims with a note only have none."""

    def share(check: Check, variant: str, than: str) -> float | None:
        return runs.ratio(variant, than, "params" if check.cost == "params" else "macs")

    return _compare(runs.study, runs.difference, share, lambda name: bool(runs.records([name])))


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

    def share(check: Check, variant: str, than: str) -> float | None:
        return _reported_share(study, check)

    return _compare(study, difference, share, lambda name: study.reported_score(name) is not None)


def _compare(
    study: Study,
    difference: Callable[[str, str], Difference | None],
    share: Callable[[Check, str, str], float | None],
    known: Callable[[str], bool],
) -> list[Comparison]:
    return [
        Comparison(
            claim=claim,
            check=check,
            variant=variant,
            than=than,
            reported=_reported_share(study, check) if check.cost else study.reported_gain(variant, than),
            difference=None if check.cost else difference(variant, than),
            share=share(check, variant, than) if check.cost else None,
            missing=tuple(name for name in (variant, than) if not known(name)),
        )
        for claim in study.claims
        for check in claim.checks
        for variant, than in check.pairs()
    ]


def _reported_share(study: Study, check: Check) -> float | None:
    """What the claim says, or else the quotient of two cost ratios of one table (they have one baseline)."""
    if check.reported is not None:
        return check.reported
    for table in study.tables.values():
        costs = {row.variant: getattr(row.reported, f"{check.cost}_ratio") for row in table.rows}
        first, second = (costs.get(name) for name in check.variants)
        if first is not None and second is not None:
            return float(first / second)
    return None


# ----------------------------------------------------------------------------------------------------- verdicts


def judge(study: Study, comparisons: Sequence[Comparison]) -> list[Verdict]:
    """A verdict on each claim that has comparisons, in the study's order."""
    tables = dict.fromkeys(claim.table for claim in study.claims)
    verdicts = {verdict.claim.name: verdict for table in tables for verdict in _judge_table(study, table, comparisons)}
    return [verdicts[claim.name] for claim in study.claims if claim.name in verdicts]


def _judge_table(study: Study, table: str | None, comparisons: Sequence[Comparison]) -> list[Verdict]:
    by_claim = [
        (claim, tuple(c for c in comparisons if c.claim == claim))
        for claim in study.claims
        if claim.table == table and claim.checks
    ]
    tails = [_tails(of_claim) for _, of_claim in by_claim]
    p_values = [min(1.0, 2 * min(pair)) for pair in tails]
    tested = [i for i, (_, of_claim) in enumerate(by_claim) if any(c.measured is not None for c in of_claim)]
    corrected = dict(zip(tested, holm([p_values[i] for i in tested]), strict=True))
    return [
        _verdict(claim, of_claim, tails[i], p_values[i], corrected.get(i, 1.0), len(tested))
        for i, (claim, of_claim) in enumerate(by_claim)
    ]


def _tails(comparisons: Sequence[Comparison]) -> tuple[float, float]:
    """One-sided p-values of a claim that it holds, and that it fails."""
    noisy = sum(c.difference is not None for c in comparisons)
    return max(c.p_for for c in comparisons), min(1.0, max(1, noisy) * min(c.p_against for c in comparisons))


def _verdict(
    claim: Claim,
    comparisons: tuple[Comparison, ...],
    tails: tuple[float, float],
    p: float,
    corrected: float,
    family: int,
) -> Verdict:
    word: Word = "undecided"
    if corrected <= 1 - LEVEL:
        word = "holds" if tails[0] < tails[1] else "fails"
    return Verdict(claim, word, _reason(word, comparisons, p, family), p, corrected, family, comparisons)


def _reason(word: Word, comparisons: tuple[Comparison, ...], p: float, family: int) -> str:
    if word == "fails":
        return f"{statement(min(comparisons, key=lambda c: c.p_against))}."
    weakest = max(comparisons, key=lambda c: c.p_for)
    if word == "holds":
        alone = {1: "", 2: "Both comparisons agree; the weaker: "}
        agree = alone.get(len(comparisons), f"All {len(comparisons)} comparisons agree; the weakest: ")
        return f"{agree}{statement(weakest)}."
    unknown = list(dict.fromkeys(name for c in comparisons for name in c.missing))
    if unknown:
        return f"Nothing is known of {', '.join(unknown)}."
    against = min(comparisons, key=lambda c: c.p_against)
    telling = against if against.word == "fails" else weakest
    if p <= 1 - LEVEL:
        return f"Clear by itself (p = {p:.2g}), but not as one of {family} claims: {statement(telling)}."
    if telling.word == "fails":
        return f"Not clear as the worst of {len(comparisons)} comparisons (p = {p:.2g}): {statement(telling)}."
    open_ = sum(c.word == "undecided" for c in comparisons)
    which = f"{open_} of {len(comparisons)} comparisons are open, such as: " if len(comparisons) > 1 else ""
    return f"{which}{statement(telling)}."


def statement(comparison: Comparison) -> str:
    """A comparison in words and figures, beside what is claimed of it."""
    pair = f"{comparison.variant} {'/' if comparison.check.cost else '-'} {comparison.than}"
    if comparison.check.cost is not None:
        cost = "FLOPs" if comparison.check.cost == "flops" else "parameters"
        return f"{pair} is {comparison.share:.2f}x in {cost}; claimed: below 1"
    if comparison.difference is None:
        return f"{pair}: no seed has both"
    mean, claimed = comparison.difference.mean, expected(comparison.check)
    return f"{pair} is {mean:+z.1f} {comparison.difference.ends}; claimed: {claimed}"


def expected(check: Check) -> str:
    """Where the difference has to lie if what is claimed is right, in points."""
    if check.within is not None:
        return f"within ±{check.within:g}"
    return f"above {check.by:g}"
