"""The paper's claims, judged part by part: *holds*, *fails*, *undecided*, *seen once*, *not testable*. No words here.

``docs/uncertainty.md`` has the rules, by which the reported numbers are judged too, as one run a row. :func:`report`
makes all numbers of a report, once; :mod:`.words` and :mod:`.claim_words` choose words from them.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from nl_lightning.report.collate import DIVERGED, UNREADABLE, Runs, Times, by_group, collate, learned, standing
from nl_lightning.report.comparisons import ASSUMED_DISAGREEMENT, Comparison, Word, compare, compare_reported
from nl_lightning.report.uncertainty import LEVEL, holm
from nl_lightning.study.checks import Claim, Part
from nl_lightning.study.study import Study


@dataclass(frozen=True)
class PartVerdict:
    """What the evidence says of a part of a claim, all of whose comparisons have to agree.

    Attributes:
        untestable: why these data can't test it, if they can't.
        corrected: the two-sided p-value, among the `family` judged parts of the study.
        within: the same among those of its sub-table.
        level: which p-value decides: 0.05, or a planned look's share of it.
    """

    part: Part
    comparisons: tuple[Comparison, ...]
    untestable: str | None = None
    corrected: float = 1.0
    within: float = 1.0
    family: int = 0
    level: float = 1 - LEVEL

    @cached_property
    def word(self) -> Word:
        """The verdict."""
        if self.untestable is not None or not self.comparisons:
            return "not testable"
        if any(c.leaning == "fails" for c in self.comparisons if c.check.cost):
            return "fails"
        if self.by_costs:
            return "holds" if all(c.leaning == "holds" for c in self.comparisons) else "undecided"
        if self.corrected <= self.level:
            return "holds" if self.p_for < self.p_against else "fails"
        return "seen once" if self.seeds == 1 else "undecided"

    @property
    def judged(self) -> bool:
        """Whether it has p-values: something noisy was measured under enough seeds."""
        return self.untestable is None and any(c.difference is not None and c.decides for c in self.comparisons)

    @property
    def p_for(self) -> float:
        """One-sided p-value that it holds: the weakest comparison's."""
        return max(c.p_for if c.decides else 1.0 for c in self.comparisons)

    @property
    def p_against(self) -> float:
        """One-sided p-value that it fails: the strongest comparison's, times how many have noise."""
        noisy = sum(c.difference is not None for c in self.comparisons)
        return min(1.0, max(1, noisy) * min(c.p_against if c.decides else 1.0 for c in self.comparisons))

    @property
    def p(self) -> float:
        """Two-sided p-value, by itself."""
        return min(1.0, 2 * min(self.p_for, self.p_against))

    @property
    def seeds(self) -> int:
        """The fewest seeds behind any of its differences; 0 if one is missing."""
        return min((c.seeds for c in self.comparisons if not c.check.cost), default=0)

    @property
    def by_costs(self) -> bool:
        """Whether costs alone decide it: they are counted, so no training is behind its word."""
        return bool(self.comparisons) and all(c.check.cost for c in self.comparisons)

    @property
    def leaning(self) -> Word:
        """What the comparisons say together of the networks that were trained, before any correction."""
        words = [c.leaning for c in self.comparisons]
        return "fails" if "fails" in words else "undecided" if "undecided" in words else "holds"

    @property
    def telling(self) -> Comparison:
        """The comparison that decides the part, or keeps it open; of costs, that with the least room."""

        def room(c: Comparison) -> float:
            if c.share is None or c.claimed is None:
                return 0.0
            return min(c.share - c.claimed.low, c.claimed.high - c.share)

        against = min(self.comparisons, key=lambda c: c.p_against)
        if self.word == "fails" or against.leaning == "fails":
            return against
        return max(self.comparisons, key=lambda c: (c.p_for, -room(c)))


@dataclass(frozen=True)
class Verdict:
    """The verdicts on the parts of a claim."""

    claim: Claim
    parts: tuple[PartVerdict, ...]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """All comparisons of its parts."""
        return tuple(comparison for part in self.parts for comparison in part.comparisons)

    @property
    def word(self) -> Word:
        """One word for all of its parts that can be tested: the worst of theirs."""
        order: tuple[Word, ...] = ("fails", "undecided", "seen once", "holds")
        return next((word for word in order if any(part.word == word for part in self.parts)), "not testable")

    @property
    def paired(self) -> bool:
        """False if some comparison had to do with scores alone."""
        return all(c.difference is None or c.difference.paired or not c.difference.bounded for c in self.comparisons)


def judge(study: Study, comparisons: Sequence[Comparison], recipe: Sequence[str] = ("",)) -> list[Verdict]:
    """A verdict on each part of each claim, in the study's order, corrected among all parts that are judged.

    `recipe`: the names of the one under which the comparisons were measured; they say what its data can't test.
    """
    stated = [(claim, part) for claim in study.claims for part in claim.parts]
    level, parts = (1 - LEVEL) / max(1, len(study.looks)), []
    for claim, part in stated:
        its = tuple(c for c in comparisons if c.claim.name == claim.name and c.part is part)
        parts.append(PartVerdict(part, its, part.untestable(*recipe), level=level))
    judged = [i for i, one in enumerate(parts) if one.judged]
    corrected, within = _holm(parts, judged), dict[int, float]()
    for table in {claim.table for claim, _ in stated}:
        within |= _holm(parts, [i for i in judged if stated[i][0].table == table])
    for i, one in enumerate(parts):
        parts[i] = replace(one, corrected=corrected.get(i, 1.0), within=within.get(i, 1.0), family=len(judged))
    found = iter(parts)
    return [Verdict(claim, tuple(itertools.islice(found, len(claim.parts)))) for claim in study.claims]


def _holm(parts: Sequence[PartVerdict], of: Sequence[int]) -> dict[int, float]:
    return dict(zip(of, holm([parts[i].p for i in of]), strict=True))


@dataclass(frozen=True)
class Report:
    """All numbers and verdicts that the formats lay out.

    Attributes:
        rows: a line per row of the tables (:func:`~nl_lightning.report.collate.collate`).
        lines: the same by table, a dict each, where what isn't known is None. ``soft_gain``: the gain in soft score, if
            it is on another side of zero than that in top-1.
        groups: top-1 by group of videos, a line a variant; empty if no record has groups.
        broken: variants of which nothing counts, since their runs have diverged or their records can't be read: which.
        spread: standard deviation of one network's score over seeds, in points, from all variants that have several.
        learned: how often each variant learned the groups for which the study says when they count as learned.
        reported: verdicts on the reported numbers: unpaired, and as if they were paired by video. Empty if nothing says
            on how many videos they were measured.
    """

    runs: Runs
    rows: pd.DataFrame
    lines: dict[str, list[dict[str, Any]]]
    groups: pd.DataFrame
    broken: dict[str, str]
    spread: float | None
    learned: dict[str, dict[str, Times]]
    verdicts: list[Verdict]
    reported: tuple[list[Verdict], list[Verdict]] | tuple[()] = ()

    @property
    def parts(self) -> list[PartVerdict]:
        """The verdicts on all parts of all claims."""
        return [part for verdict in self.verdicts for part in verdict.parts]


def report(runs: Runs) -> Report:
    """Make all numbers of a study's report, once."""
    study = runs.study
    reported = [compare_reported(study), compare_reported(study, ASSUMED_DISAGREEMENT)]
    known = any(comparison.difference for comparison in reported[0])
    on, rows = (study.reported_on or "",), collate(runs)
    variances = rows.drop_duplicates("variant")[f"{study.metric.key}_std"].dropna() ** 2
    lines: dict[str, list[dict[str, Any]]] = {table: [] for table in study.tables}
    for line in rows.astype(object).where(rows.notna(), None).to_dict("records"):
        soft_gain, variant, baseline = None, line["variant"], line["baseline"]
        if runs.soft and variant and baseline:  # top-1 wanders where a group is at chance
            soft, gain = (runs.combination({variant: 1, baseline: -1}, soft=by) for by in (True, False))
            soft_gain = soft if soft and gain and soft.side != gain.side else None
        lines[line["table"]].append({str(key): value for key, value in line.items()} | {"soft_gain": soft_gain})
    return Report(
        runs,
        rows,
        lines,
        by_group(runs),
        {name: state for name in study.variants if (state := standing(runs, name)) in (DIVERGED, UNREADABLE)},
        float(variances.mean() ** 0.5) if len(variances) else None,
        learned(runs),
        judge(study, compare(runs), runs.recipe.names),
        (judge(study, reported[0], on), judge(study, reported[1], on)) if known else (),
    )
