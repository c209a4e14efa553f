"""The paper's claims as differences: the reported one beside the measured one, for every comparison of a study.

No verdicts: whether a difference is more than noise takes intervals, and this file has none.
"""

from dataclasses import dataclass

from nl_lightning.report.collate import Runs
from nl_lightning.study import Check, Claim, Study


@dataclass(frozen=True)
class Comparison:
    """Two variants under a claim.

    Attributes:
        reported, measured: ``cheaper``: the cost of `variant` as a share of `than`'s. Otherwise: top-1 of `variant`
            minus that of `than`, in points, measured as the mean over the `n` seeds that both have. None: not
            reported, not measured.
        std: sample standard deviation of the measured difference over seeds; None if n < 2.
        missing: those of the two variants that have no record that counts.
    """

    claim: Claim
    check: Check
    variant: str
    than: str
    reported: float | None
    measured: float | None
    std: float | None
    n: int
    missing: tuple[str, ...]

    @property
    def same_direction(self) -> bool | None:
        """Whether measured and reported point the same way; None if one is unknown, or the reported one is zero.

        ``alike``: both within the margin, or both beyond it. ``cheaper``: both below 1, or both above.
        """
        if self.reported is None or self.measured is None:
            return None
        if self.check.within is not None:
            return (abs(self.measured) <= self.check.within) == (abs(self.reported) <= self.check.within)
        neutral = 1.0 if self.check.kind == "cheaper" else 0.0
        if self.reported == neutral:
            return None
        return (self.measured - neutral) * (self.reported - neutral) > 0


def compare(runs: Runs) -> list[Comparison]:
    """Every comparison of every claim of the study, in its order. Claims with a note only have none."""
    return [
        _comparison(runs, claim, check, variant, than)
        for claim in runs.study.claims
        for check in claim.checks
        for variant, than in check.pairs()
    ]


def _comparison(runs: Runs, claim: Claim, check: Check, variant: str, than: str) -> Comparison:
    missing = tuple(name for name in (variant, than) if not runs.records([name]))
    if check.cost is not None:
        measured = runs.ratio(variant, than, "params" if check.cost == "params" else "macs")
        reported = _reported_share(runs.study, check)
        return Comparison(claim, check, variant, than, reported, measured, None, int(measured is not None), missing)
    difference = runs.difference(variant, than)
    n = len(difference)
    return Comparison(
        claim=claim,
        check=check,
        variant=variant,
        than=than,
        reported=runs.study.reported_gain(variant, than),
        measured=round(float(difference.mean()), 6) if n else None,
        std=float(difference.std()) if n > 1 else None,
        n=n,
        missing=missing,
    )


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
