"""The words of claims: verdicts part by part, their reasons, and what is claimed. Plain text."""

import math
from collections.abc import Sequence

from nl_lightning.report import words
from nl_lightning.report.claims import PartVerdict, Report, Verdict
from nl_lightning.report.comparisons import ASSUMED_DISAGREEMENT, ENOUGH_SEEDS, Comparison
from nl_lightning.report.words import MEASURED, REPORTED, UNPAIRED, Column, called, counted, number, of_rows, points_of
from nl_lightning.study.checks import Check, Claim, Share
from nl_lightning.study.study import Study

VERBS = {
    "holds": ("holds", "hold"),
    "fails": ("fails", "fail"),
    "undecided": ("stays undecided", "stay undecided"),
}
LEANING = {"holds": "as claimed", "fails": "not as claimed", "undecided": "open"}
UNTESTABLE = {"not testable": ("is not testable on these data", "are not testable on these data")}
COUNTED = ", by its cost"
BY_COST = {f"{word}{COUNTED}": tuple(f"{verb} by cost alone" for verb in VERBS[word]) for word in ("holds", "fails")}
ONCE = {f"seen once, {how}": (f"was seen once, {how}", f"were seen once, {how}") for how in LEANING.values()}
COSTS = {"flops": "FLOPs", "params": "parameters"}


def verdict_columns(report: Report) -> list[Column]:
    """A line a part of a claim: the verdict, why, and its p-value by itself, in its sub-table and in the study."""
    rows = []
    for v in report.verdicts:
        for name, part in named(v):
            p = [words.p_value(each) for each in (part.p, part.within, part.corrected)] if part.judged else [""] * 3
            rows.append([v.claim.name, name, said(part), reason(part, v.claim, report), *p])
    columns = of_rows(["claim", "part", "verdict", "why", "p", "in its table", "in the study"], rows, labels=4)
    return [column for column in columns if column.words or any(column.cells)]


def part_names(claim: Claim) -> list[str]:
    """The parts by their kinds, numbered where several have one kind."""
    kinds = [part.kind for part in claim.parts]
    return [f"{kind} {kinds[: i + 1].count(kind)}" if kinds.count(kind) > 1 else kind for i, kind in enumerate(kinds)]


def named(verdict: Verdict) -> list[tuple[str, PartVerdict]]:
    """The parts with their names."""
    return list(zip(part_names(verdict.claim), verdict.parts, strict=True))


def part_name(comparison: Comparison) -> str:
    """The part that a comparison is of."""
    return part_names(comparison.claim)[[part is comparison.part for part in comparison.claim.parts].index(True)]


def said(one: PartVerdict | Comparison) -> str:
    """The verdict as it is shown: of one seed also what it looks like; and whether cost alone decides it."""
    if isinstance(one, PartVerdict) and one.by_costs and one.word in ("holds", "fails"):
        return one.word + COUNTED
    return f"{one.word}, {LEANING[one.leaning]}" if one.word == "seen once" else one.word


def by_part(verdict: Verdict) -> str:
    """``direction holds; size not testable on these data``."""
    untested = {"not testable": " on these data"}
    return "; ".join(f"{name} {said(part)}{untested.get(part.word, '')}" for name, part in named(verdict))


def comparison_columns(report: Report, comparisons: Sequence[Comparison]) -> list[Column]:
    """A line a comparison: what is reported and what was measured, with its interval."""
    soft, study, metric = report.runs.soft, report.runs.study, report.runs.study.metric.name
    titles = [REPORTED, MEASURED]
    costs = [c.check.cost is not None for c in comparisons]
    if soft and not all(costs):
        more = " or cost" if any(costs) else ""
        titles = [f"{REPORTED}, {metric}{more}", f"{MEASURED}, soft score{more}"]
    header = ["claim", "part", "comparison", "claimed", *titles, "n", "McNemar p", "by itself"]
    rows = []
    for c in comparisons:
        difference, unit = c.difference, other_unit(report, c)
        form = (".2f", "x") if c.check.cost else (words.gain_form(study.metric), f" {unit}" if unit else "")
        n, exact, measured = "" if c.check.cost else "0", "", number(c.measured, *form)
        if difference is not None:
            n, exact = str(c.seeds), "" if difference.mcnemar is None else words.p_value(difference.mcnemar)
            measured = points_of(difference, study.metric, form[1])
            measured += UNPAIRED if difference.bounded and not difference.paired else ""
        hole = next((report.broken[name] for name in c.missing if name in report.broken), words.MISSING)
        claimed = expected(c.check, study, c.claim.table)
        reported = number(c.reported, form[0], "x" if c.check.cost else "")
        what = [c.claim.name, part_name(c), pair_names(c, study)]
        rows.append([*what, claimed, reported, measured or hole, n, exact, said(c)])
    return of_rows(header, rows, labels=4)


def pair_names(comparison: Comparison, study: Study) -> str:
    """What is compared, by the labels of rows."""
    check, table = comparison.check, comparison.claim.table
    first, second = (called(study, name, table) for name in (comparison.variant, comparison.than))
    if check.against is not None:
        return f"{first} - {study.metric.text(check.against)}, reported"
    if check.cost is not None:
        return f"{first} / {second}, {COSTS[check.cost]}"
    if check.curve is not None:
        return f"{first} - {second}, least lead in {'validation' if check.curve == 'val' else 'training'}"
    pair = f"{first} - {second}"
    return pair if check.over is None else f"({pair}) - ({pair_called(study, check.over, table)})"


def pair_called(study: Study, pair: tuple[str, str], table: str | None) -> str:
    """A difference of two variants by their labels."""
    return " - ".join(called(study, name, table) for name in pair)


def expected(check: Check, study: Study, table: str | None = None) -> str:
    """Where the difference, in points, or the cost has to lie if what is claimed is right."""
    margin = check.margin
    if isinstance(margin, Share):
        what = f"{abs(margin.share):.0%} of {pair_called(study, margin.of, table)}".replace("%", " %")
        if check.within is not None:
            return f"within ±{what}"
        return f"above {'minus ' if margin.share < 0 else ''}{what}"
    low, high = check.bounds or (0.0, 0.0)
    if check.cost is not None:
        return "below 1x" if not margin else f"{low:.2f}x to {high:.2f}x"
    if check.kind in ("alike", "matches"):
        return f"within ±{high:g}"
    return f"above {low:g}" if math.isinf(high) else f"{low:g} to {high:g}"


def reason(part: PartVerdict, claim: Claim, report: Report) -> str:
    """Why a part has its verdict, in a sentence or two, with figures."""
    study = report.runs.study
    if part.word == "not testable":
        why = (part.untestable or "no comparison is there").rstrip(".")
        return f"{why[0].upper() if why.split()[0].isalpha() else why[0]}{why[1:]}."
    telling, count = statement(part.telling, study), len(part.comparisons)
    weakest = f"All {count} comparisons agree; the weakest: "
    weakest = {1: "", 2: "Both comparisons agree; the weaker: "}.get(count, weakest)
    if part.word == "fails":
        return f"{telling}."
    if part.word == "holds":
        return f"{weakest}{telling}."
    unknown = {name: called(study, name, claim.table) for c in part.comparisons for name in c.missing}
    if unknown:
        said = "It waits for" if waits(part, report) else "Nothing is known of"
        names = (
            f"{label} ({report.broken[name]})" if name in report.broken else label for name, label in unknown.items()
        )
        return f"{said} {', '.join(names)}."
    if part.word == "seen once":
        points = number(report.spread, f".{study.metric.decimals}f")
        spread = f" (seeds of one network spread by ± {points})" if points else ""
        one = "seed" if report.runs.recipe.folds == 1 else "split"
        return f"{weakest if part.leaning == 'holds' else ''}{telling}. One {one} decides nothing{spread}."
    if part.telling.without_effect and part.telling.difference is not None:
        return f"The margin is a share of an effect that isn't surely there: {telling}."
    if part.seeds < ENOUGH_SEEDS:
        return f"{telling}. It takes {ENOUGH_SEEDS} seeds to decide."
    if part.within <= part.level:
        p = f"p = {part.within:.2g}"
        return f"Clear among the claims of its table ({p}), but not as one of {part.family} parts: {telling}."
    if part.p <= part.level:
        return f"Clear by itself (p = {part.p:.2g}), but not as one of {part.family} parts: {telling}."
    if part.telling.word == "fails" and count > 1:
        return f"Not clear as the worst of {count} comparisons (p = {part.p:.2g}): {telling}."
    open_ = sum(c.word == "undecided" for c in part.comparisons)
    if not open_:  # each is decided at 5 %, a look decides at its share of that
        return f"Not clear enough for one of {len(study.looks)} looks (p = {part.p:.2g}): {telling}."
    which = f"{open_} of {count} comparisons {'is' if open_ == 1 else 'are'} open, such as: "
    return f"{which if count > 1 else ''}{telling}."


def waits(part: PartVerdict, report: Report) -> bool:
    """Whether a part is open because runs are missing that may still come."""
    missing = [name for c in part.comparisons for name in c.missing]
    return part.word == "undecided" and any(name not in report.broken for name in missing)


def statement(comparison: Comparison, study: Study) -> str:
    """A comparison in words and figures, beside what is claimed of it."""
    pair, difference, check = pair_names(comparison, study), comparison.difference, comparison.check
    claimed = expected(check, study, comparison.claim.table)
    if check.cost is not None:
        return f"{pair}, is {number(comparison.share, '.2f', 'x')}; claimed: {claimed}"
    if difference is None:
        return f"{pair}: no seed has both"
    share = comparison.effect and f" ({points_of(comparison.effect, study.metric)})"
    return f"{pair} is {points_of(difference, study.metric)}; claimed: {claimed}{share or ''}"


def summary(report: Report) -> str:
    """How many parts of claims hold, fail, are open and so on; empty if nothing is known of any."""
    parts = [
        (f"{v.claim.name} {name}" if len(v.parts) > 1 else v.claim.name, part)
        for v in report.verdicts
        for name, part in named(v)
    ]
    if not any(c.measured is not None for _, part in parts for c in part.comparisons):
        return ""
    known = [(name, part) for name, part in parts if not waits(part, report)]
    verbs = VERBS | BY_COST | ONCE | UNTESTABLE
    of_word = {word: [name for name, part in known if said(part) == word] for word in verbs}
    counts = [f"{len(of)} {verbs[word][len(of) > 1]} ({', '.join(of)})" for word, of in of_word.items() if of]
    claims = f"The {len(report.verdicts)} claims have" if len(report.verdicts) > 1 else "The one claim has"
    if waiting := len(parts) - len(known):
        counts.append(f"{waiting} {VERBS['undecided'][waiting > 1]}, as runs are missing")
    found = [f"{claims} {counted(len(parts), 'part')}: {', '.join(counts)}."]
    if report.runs.soft:
        found.append(f"Parts are judged by {judged_by(report)}.")
    if any(of_word[word] for word in ONCE):
        item = report.runs.study.metric.item
        found.append(f"One seed decides nothing: its intervals are over {item}s only, and another training may differ.")
    elif any(1 < part.seeds < ENOUGH_SEEDS for _, part in known):
        found.append(f"It takes {ENOUGH_SEEDS} seeds to decide.")
    looks = report.runs.study.looks
    seen = {c.seeds for _, part in parts if part.judged for c in part.comparisons}
    extra = sorted(seeds for seeds in seen if seeds >= ENOUGH_SEEDS and seeds not in looks)
    if looks and extra:
        found.append(
            f"A look after {' and '.join(map(str, extra))} seeds was not planned (planned: "
            f"{', '.join(map(str, looks))}): the promise on wrong verdicts does not cover it."
        )
    return " ".join(found)


def counts(report: Report) -> list[tuple[str, int, str]]:
    """The same as figures: a word, how many parts have it, and what is said of them."""
    parts = [part for part in report.parts if not waits(part, report)]
    found: list[tuple[str, int, str]] = []
    for word in ("holds", "fails", "undecided", "seen once", "not testable"):
        if of := [part for part in parts if part.word == word]:
            cost = sum(part.by_costs for part in of)
            said = VERBS[word][len(of) > 1] if word in ("holds", "fails") else word
            note = "" if not cost else ", by cost alone" if cost == len(of) else f", {cost} of them by cost alone"
            found.append((word, len(of), said + note))
    waiting = len(report.parts) - len(parts)
    return [*found, ("undecided", waiting, "undecided, as runs are missing")] if waiting else found


def other_unit(report: Report, comparison: Comparison) -> str:
    """What the points of a comparison are of, where it isn't what the others are judged by; empty where it is."""
    return report.runs.study.metric.name if report.runs.soft and comparison.check.in_points else ""


def judged_by(report: Report) -> str:
    """What the points of comparisons are of, except for those that are about points of the metric."""
    return words.soft_score(report.runs) if report.runs.soft else report.runs.study.metric.name


def verdict_legend(report: Report) -> str:
    """By which rules the verdicts came about."""
    study = report.runs.study
    judged, metric = judged_by(report), study.metric.name
    if report.runs.soft:
        judged += f" (the mean probability of the right class, in percent), those about points of {metric} by {metric}"
    found = [
        f"Claims are judged part by part, by {judged}. One seed decides nothing, nor do two. From {ENOUGH_SEEDS} seeds "
        "on a part holds if each of its comparisons does, and fails if one surely does; otherwise it is undecided. The "
        "p-values of all parts of the study are corrected together by Holm's method, so that in 95 of 100 studies at "
        "least no verdict is wrong about trainings like those that were seen. Variants are alike only if the intervals "
        "of their differences lie within the margin."
    ]
    if study.looks:
        each = (1 - 0.95) / len(study.looks)
        found.append(f"Looks are planned after {', '.join(map(str, study.looks))} seeds, each at p = {each:.3f}.")
    if study.costs and any(check.cost for claim in study.claims for check in claim.checks):
        found.append("Costs are those of the paper's own networks, counted exactly.")
    own = [
        f"{v.claim.name} {name} on {group}"
        for v in report.verdicts
        for name, one in named(v)
        if any(not (c.check.in_points or c.check.cost) for c in one.comparisons)
        and (group := one.part.judged_on)
        and group == report.runs.group(group)
    ]
    if own:
        found.append(f"Parts that are judged on other videos: {', '.join(own)}.")
    if not all(v.paired for v in report.verdicts):
        found.append(f"{UNPAIRED} {'over seeds alone.' if study.metric.own else 'from accuracies alone: too wide.'}")
    return " ".join(found)


def reported_columns(report: Report) -> list[Column]:
    """A line a part: the verdicts on the reported numbers by themselves, beside the one here."""
    header = ["claim", "part", "reported, unpaired", "reported, if paired", "here"]
    rows = [
        [v.claim.name, name, *map(said, parts)]
        for *each, v in zip(*report.reported, report.verdicts, strict=True)
        for name, *parts in zip(part_names(v.claim), *(of.parts for of in (*each, v)), strict=True)
    ]
    return of_rows(header, rows, 5)


def reported_legend(report: Report) -> str:
    """What the reported numbers could decide, and under which assumptions."""
    known = [[c for v in of for c in v.comparisons if c.difference] for of in report.reported]
    found = [min(of, key=lambda c: len(c.weights) != 2).difference for of in known]  # of two networks, if there is one
    ends = (one.interval() for one in found if one)
    first, second = ((high - low) / 2 for low, high in ends)
    return (
        f"The reported numbers judged by the same rules, as one run a row on {report.runs.study.reported_videos:,} "
        f"videos: all but costs is seen once. From the accuracies alone a difference is known to ±{first:.2f} points. "
        f"With the predictions, paired by video, it would be ±{second:.2f} if two networks split on "
        f"{ASSUMED_DISAGREEMENT:g} % of the videos. Neither covers the luck of a training: one run doesn't show it. "
        "(Reported numbers are rounded to 0.1.)"
    )
