"""A claim: a sentence of the paper, in parts, which are comparisons of variants; and how a study's file states one.

A part is one statement, of a direction, a size, a premise or a scope, with the comparisons that say the same, or with
the reason why data can't test it. ``experiments/README.md`` shows the file's form. No torch here.
"""

import itertools
import math
from collections.abc import Mapping
from dataclasses import astuple, dataclass, field, make_dataclass
from typing import Annotated, Any, Literal, cast, get_args

from pydantic import AfterValidator, Field

from nl_lightning.study.border import Line, Name, Ratio

Kind = Literal["direction", "size", "premise", "scope"]


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

    def __post_init__(self) -> None:
        of = self.margin.of if isinstance(self.margin, Share) else ()
        for names in (self.variants, self.over or (), of):
            if len(set(names)) < len(names):
                raise ValueError(f"{self.kind}: '{max(names, key=names.count)}' is compared with itself")
        if self.over == self.variants:
            first, second = self.variants
            raise ValueError(f"{self.kind}: what '{first}' gains over '{second}' is compared with itself")
        if isinstance(self.within, Share) and self.within.share <= 0:
            raise ValueError(f"{self.kind}: within: expected a share above 0, got {self.within.share:g}")
        if self.kind == "better" and isinstance(self.by, Share) and self.by.share >= 1 and self.by.of == self.variants:
            raise ValueError(f"better: by: expected a share below 1 of what is itself compared, got {self.by.share:g}")
        if self.cost is not None and self.within is not None and self.reported is None:
            raise ValueError(
                f"{self.kind}: 'within' needs the reported share that the cost has to be close to, as 'reported'"
            )

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
        return self.kind in ("about", "ahead", "surpasses", "matches")

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
        not_testable: why data can't test it, by how the name of the recipe, or of its data's folder, begins ("": any).
        data: the data whose points its numbers are: it is judged under recipes whose names start so. None: any.
        judged_on: the group of test videos that it is judged on, in place of the study's, where records have it.
    """

    kind: Kind
    text: str
    checks: tuple[Check, ...] = ()
    not_testable: Mapping[str, str] = field(default_factory=dict)
    data: str | None = None
    judged_on: str = ""

    def untestable(self, recipe: str, folder: str = "") -> str | None:
        """Why nothing under a recipe, of data in a folder, can test it; None if something can."""
        if self.data is not None and not recipe.startswith(self.data):
            return f"its points are those of {self.data}"
        starts = (recipe.startswith, folder.startswith)
        return next((why for these, why in self.not_testable.items() if any(start(these) for start in starts)), None)


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


# --------------------------------------------------------------------------------------------- as a file states it

Points = Annotated[float, Field(ge=-1e9, le=1e9), "points"]  # of percent, up to 100: see `loading`
Margin = Annotated[float, Field(gt=0, le=1e9), "a margin above 0, in points"]
Several = Annotated[list[str], Field(min_length=2), "two or more different variants"]
Cost = Annotated[Literal["params", "flops"], Field(alias="in")]
Below1 = Annotated[float, Field(gt=0, lt=1)]

_PAIR = [("variant", str), ("than", str)]
_SCORE = [("variant", str), ("against", Annotated[float, Field(alias="reported")])]
_Pair: Any = Annotated[make_dataclass("_Pair", _PAIR), AfterValidator(astuple)]
_SHARE = [("share", Annotated[float, Field(ge=-10, le=10)]), ("of", _Pair)]
_Share: Any = Annotated[make_dataclass("_Share", _SHARE), AfterValidator(lambda stated: Share(**vars(stated)))]

_KEYS: dict[str, list[Any]] = {
    "better": [*_PAIR, ("by", Points | _Share, 0.0)],
    "ordered": [("variants", Several)],
    "alike": [("variants", Several), ("within", Margin | _Share)],
    "about": [*_PAIR, ("points", Points), ("within", Margin)],
    "contrast": [*_PAIR, ("over", _Pair), ("by", Points | _Share, 0.0)],
    "ahead": [*_PAIR, ("curve", Literal["val", "train"], "val")],
    "cheaper": [*_PAIR, ("cost", Cost), ("reported", Ratio | None, None), ("within", Below1 | None, None)],
    "surpasses": [*_SCORE, ("by", Points, 0.0)],
    "matches": [*_SCORE, ("within", Margin)],
}
"""The keys of each kind of check with their types. Those with a default may be left out."""


def _check(stated: Any) -> Check:
    given = {kind: dict(vars(keys)) for kind, keys in vars(stated).items() if keys is not None}
    if len(given) != 1:
        raise ValueError(f"expected exactly one of {', '.join(_KEYS)}")
    ((kind, keys),) = given.items()
    variants = keys.pop("variants", None) or [keys.pop(key) for key in ("variant", "than") if key in keys]
    return Check(cast(Any, kind), tuple(variants), **keys)


_KINDS = [(kind, make_dataclass(kind, keys) | None, None) for kind, keys in _KEYS.items()]
_Check: Any = Annotated[make_dataclass("_Check", _KINDS), AfterValidator(_check)]
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
    def stated(self) -> dict[Kind, str]:
        return {kind: text for kind in get_args(Kind) if (text := getattr(self, kind)) is not None}

    def part(self) -> Part:
        ((kind, text),) = self.stated.items()
        why = {"": self.not_testable} if isinstance(self.not_testable, str) else self.not_testable or {}
        return Part(kind, text, tuple(self.checks or ()), why, self.data, self.judged_on)


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
        parts = self.parts or [_Part(direction=self.text, checks=self.checks, not_testable=self.note)]
        return Claim(self.id, self.text, self.table, tuple(each.part() for each in parts))
