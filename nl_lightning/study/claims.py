"""The claims of a study, as its file states them (``experiments/README.md``), checked as all of it is.

A claim is a list of parts. Each is one statement, of a direction, a size, a premise or a scope, with the comparisons
that say the same, or with the reason why data can't test it.
"""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass
from typing import Annotated, Any, Literal, cast

from pydantic import AfterValidator, Field

from nl_lightning.errors import UserError, nearest
from nl_lightning.study.border import Line, Name
from nl_lightning.study.checks import Check, Claim, Part, Share
from nl_lightning.study.study import Ratio, Study

Points = Annotated[float, Field(ge=-100, le=100), "points, -100 to 100,"]
Margin = Annotated[float, Field(gt=0, le=100), "a margin above 0, in points"]


def _compared(names: list[str]) -> list[str]:
    if len(names) < 2 or len(set(names)) < len(names):
        raise ValueError("expected two or more different variants")
    return names


@dataclass(frozen=True, kw_only=True)
class Pair:
    """Two variants, to be compared."""

    variant: str
    than: str

    def __post_init__(self) -> None:
        if self.variant == self.than:
            raise ValueError(f"'{self.variant}' is compared with itself")

    @property
    def pair(self) -> tuple[str, str]:
        """The variant, and the one that it is compared with."""
        return self.variant, self.than


@dataclass(frozen=True, kw_only=True)
class _Share:
    share: Annotated[float, Field(ge=-10, le=10)]
    of: Pair


By = Points | _Share
Within = Margin | _Share


def _margin(stated: float | _Share) -> float | Share:
    return Share(stated.share, stated.of.pair) if isinstance(stated, _Share) else stated


@dataclass(frozen=True, kw_only=True)
class _Better(Pair):
    by: By = 0.0


@dataclass(frozen=True, kw_only=True)
class _About(Pair):
    points: Points
    within: Margin


@dataclass(frozen=True, kw_only=True)
class _Contrast(Pair):
    over: Pair
    by: By = 0.0


@dataclass(frozen=True, kw_only=True)
class _Ahead(Pair):
    curve: Literal["val", "train"] = "val"


@dataclass(frozen=True, kw_only=True)
class _Cheaper(Pair):
    cost: Annotated[Literal["params", "flops"], Field(alias="in")]
    reported: Ratio | None = None
    within: Annotated[float, Field(gt=0, lt=1)] | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.within is not None and self.reported is None:
            raise ValueError("'within' needs the reported share that the cost has to be close to, as 'reported'")


@dataclass(frozen=True, kw_only=True)
class _Ordered:
    variants: Annotated[list[str], AfterValidator(_compared)]


@dataclass(frozen=True, kw_only=True)
class _Alike:
    variants: Annotated[list[str], AfterValidator(_compared)]
    within: Within


@dataclass(frozen=True, kw_only=True)
class _Surpasses:
    variant: str
    reported: float
    by: Points = 0.0


@dataclass(frozen=True, kw_only=True)
class _Matches:
    variant: str
    reported: float
    within: Margin


@dataclass(frozen=True, kw_only=True)
class _Check:
    better: _Better | None = None
    ordered: _Ordered | None = None
    alike: _Alike | None = None
    about: _About | None = None
    contrast: _Contrast | None = None
    ahead: _Ahead | None = None
    cheaper: _Cheaper | None = None
    surpasses: _Surpasses | None = None
    matches: _Matches | None = None

    def __post_init__(self) -> None:
        if sum(value is not None for value in vars(self).values()) != 1:
            raise ValueError(f"expected exactly one of {', '.join(vars(self))}")

    def check(self) -> Check:
        if self.better is not None:
            return Check("better", self.better.pair, by=_margin(self.better.by))
        if self.about is not None:
            return Check("about", self.about.pair, within=self.about.within, points=self.about.points)
        if self.contrast is not None:
            return Check("contrast", self.contrast.pair, by=_margin(self.contrast.by), over=self.contrast.over.pair)
        if self.ahead is not None:
            return Check("ahead", self.ahead.pair, curve=self.ahead.curve)
        if self.cheaper is not None:
            cheaper = self.cheaper
            return Check("cheaper", cheaper.pair, within=cheaper.within, cost=cheaper.cost, reported=cheaper.reported)
        if (one := self.surpasses) is not None:
            return Check("surpasses", (one.variant,), by=one.by, against=one.reported)
        if (other := self.matches) is not None:
            return Check("matches", (other.variant,), within=other.within, against=other.reported)
        if self.alike is not None:
            return Check("alike", tuple(self.alike.variants), within=_margin(self.alike.within))
        assert self.ordered is not None
        return Check("ordered", tuple(self.ordered.variants))


Checks = Annotated[list[_Check], Field(min_length=1), "one or more checks"]


@dataclass(frozen=True, kw_only=True)
class _Part:
    direction: Line | None = None
    size: Line | None = None
    premise: Line | None = None
    scope: Line | None = None
    checks: Checks | None = None
    not_testable: Line | dict[Line, Line] | None = None
    data: Line | None = None
    judged_on: Line = ""

    def __post_init__(self) -> None:
        if len(self.stated) != 1:
            raise ValueError("a part says exactly one of direction, size, premise, scope")
        if self.checks is None and self.not_testable is None:
            raise ValueError("a part has 'checks', or says in 'not_testable' why nothing checks it")
        if self.checks is not None and isinstance(self.not_testable, str):
            raise ValueError("not_testable: a part with checks says on which data they can't be had: {longrange: why}")

    @property
    def stated(self) -> dict[Literal["direction", "size", "premise", "scope"], str]:
        kinds = {"direction": self.direction, "size": self.size, "premise": self.premise, "scope": self.scope}
        return {cast(Any, kind): text for kind, text in kinds.items() if text is not None}

    def part(self) -> Part:
        ((kind, text),) = self.stated.items()
        why = {"": self.not_testable} if isinstance(self.not_testable, str) else self.not_testable or {}
        return Part(kind, text, tuple(each.check() for each in self.checks or ()), why, self.data, self.judged_on)


@dataclass(frozen=True, kw_only=True)
class StatedClaim:
    """A claim as a file states it."""

    id: Name
    text: Line
    table: str | None = None
    parts: Annotated[list[_Part], Field(min_length=1), "one or more parts"] | None = None
    checks: Checks | None = None
    note: Line | None = None

    def __post_init__(self) -> None:
        if sum(way is not None for way in (self.parts, self.checks, self.note)) != 1:
            raise ValueError("a claim has one of 'parts', 'checks' (its direction), and a 'note' why nothing checks it")

    def claim(self) -> Claim:
        """As what reports judge."""
        if self.parts is not None:
            parts = [each.part() for each in self.parts]
        elif self.checks is not None:
            parts = [Part("direction", self.text, tuple(each.check() for each in self.checks))]
        else:
            parts = [Part("direction", self.text, not_testable={"": self.note or ""})]
        return Claim(self.id, self.text, self.table, tuple(parts))


def check_claims(study: Study, at: str) -> None:
    """A claim is about rows: what no table shows can't be judged in the open."""
    rows = {name for table in study.tables.values() for name in table.variants}
    for i, claim in enumerate(study.claims):
        if claim.table is not None:
            _known(claim.table, f"{at}: claims[{i}].table", study.tables)
        for check in claim.checks:
            for name in check.named:
                _known(name, f"{at}: claims[{i}] ({claim.name}).{check.kind}", study.variants)
                if name not in rows:
                    raise UserError(
                        f"{at}: claims: {claim.name} compares '{name}', which is in no row; add a row for it"
                    )
    for name, times in Counter(claim.name for claim in study.claims).items():
        if times > 1:
            raise UserError(f"{at}: claims: two claims have the id '{name}'")


def _known(value: str, at: str, names: Collection[str]) -> None:
    if value not in names:
        raise UserError(f"{at}: unknown '{value}'{nearest(value, names)}")
