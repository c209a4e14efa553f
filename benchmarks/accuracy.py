"""Whether two ways to compute a study end in the same tables: ``python -m benchmarks.accuracy FIRST SECOND``.

FIRST and SECOND are results folders, with records of the same networks by older and by newer code, say, or in another
precision. Sums in another order are another training, as another seed is; so a network's two accuracies are set beside
what two trainings by the same code differ by: the spread of seeds, wherever a folder has several of a network.
"""

import argparse
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from nl_lightning.errors import UserError
from nl_lightning.report.render import markdown_table
from nl_lightning.report.uncertainty import paired
from nl_lightning.report.words import interval, of_rows
from nl_lightning.study.records import Record, load_records

Scores = Mapping[str, Mapping[int, Record]]
"""Records by variant and seed."""


@dataclass(frozen=True)
class Change:
    """A network's accuracy under the first seed that both folders have.

    Attributes:
        first, second: top-1, percent.
        ends: 95 % interval of second minus first over videos, as text.
        noise: standard deviation of the accuracy over trainings, points: its own, or the usual one.
        own: whether it is its own.
    """

    variant: str
    seed: int
    first: float
    second: float
    ends: str
    noise: float
    own: bool

    @property
    def in_noise(self) -> float:
        """The difference as a multiple of the standard deviation of a difference of two trainings."""
        return abs(self.second - self.first) / (math.sqrt(2) * self.noise)

    def cells(self) -> list[str]:
        noise = f"{self.noise:.1f}" if self.own else f"({self.noise:.1f})"
        tops = (f"{self.first:.1f}", f"{self.second:.1f}", f"{self.second - self.first:+.1f}")
        return [self.variant, str(self.seed), *tops, self.ends, noise, f"{self.in_noise:.1f}"]


def scores(folder: Path, recipe: str) -> Scores:
    found: dict[str, dict[int, Record]] = {}
    for record in load_records(folder, recipe)[0]:
        found.setdefault(record.variant, {})[record.seed] = record
    if not found:
        raise UserError(f"{folder}: no records of the recipe {recipe}")
    return found


def variances(folders: Sequence[Scores]) -> dict[str, float]:
    """Of each network that a folder has several seeds of: the variance over trainings by the same code."""
    found: dict[str, float] = {}
    for variant in sorted({name for folder in folders for name in folder}):
        records = [folder.get(variant, {}).values() for folder in folders]
        tops = [[record.top1 for record in some if record.top1 is not None] for some in records]
        groups = [group for group in tops if len(group) > 1]
        freedom = sum(len(group) - 1 for group in groups)
        if freedom:
            spread = sum(statistics.variance(group) * (len(group) - 1) for group in groups)
            found[variant] = spread / freedom
    return found


def changes(first: Scores, second: Scores, of: Mapping[str, float]) -> list[Change]:
    """`of` are the variances that are known. UserError if there is none, or if the folders share no run."""
    shared = [(v, s) for v in first if v in second for s in sorted(first[v].keys() & second[v].keys())[:1]]
    if not shared or not of:
        missing = "a run that both have" if not shared else "a network with several seeds, to know the noise by"
        raise UserError(f"the two folders lack {missing}")
    # Not the mean: a network that has just begun to leave its plateau has a hundred times the variance of one that is
    # done.
    usual = statistics.median(of.values())
    found = []
    for variant, seed in shared:
        one, other = first[variant][seed], second[variant][seed]
        if one.top1 is None or other.top1 is None:  # it diverged
            continue
        right = [np.array([record.right(1)]) for record in (other, one)]
        same = one.videos_hash == other.videos_hash and one.right_top1 and other.right_top1
        ends = interval(*paired(right[0], right[1]).interval()) if same else "other videos"
        noise = math.sqrt(of.get(variant, usual))
        found.append(Change(variant, seed, one.top1, other.top1, ends, noise, variant in of))
    return found


def page(first: Scores, second: Scores) -> str:
    """The comparison as Markdown."""
    of = variances((first, second))
    rows = changes(first, second, of)
    mean = statistics.fmean(row.second - row.first for row in rows)
    error = math.sqrt(2 * statistics.fmean(row.noise**2 for row in rows) / len(rows))
    far = [row for row in rows if row.in_noise > 1.96]
    header = ["network", "seed", "first", "second", "difference"]
    header += ["95 %, over videos", "noise", "in standard deviations"]
    expected = f"{0.05 * len(rows):.1f} would be by chance"
    lines = [
        "Top-1 on the test videos, percent; the interval is over videos, one training each. *Noise* is the standard",
        "deviation over trainings by the same code: the network's own, or (in brackets) the usual one.",
        "",
        markdown_table(of_rows(header, [row.cells() for row in rows])),
        "",
        f"- Mean difference over {len(rows)} networks: {mean:+.2f} points, standard error {error:.2f}.",
        f"- Further apart than 1.96 standard deviations of two trainings: {len(far)} ({expected})"
        + (f": {', '.join(row.variant for row in far)}." if far else "."),
        "",
        "Trainings by the same code, by seed:",
        "",
    ]
    for variant in of:
        for name, folder in (("first", first), ("second", second)):
            if len(seeds := folder.get(variant, {})) > 1:
                said = ", ".join(f"{seeds[seed].top1:.1f}" for seed in sorted(seeds))
                lines.append(f"- {variant}, {name}: {said}")
    return "\n".join(lines) + "\n"


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("first", type=Path)
    parser.add_argument("second", type=Path)
    parser.add_argument("--recipe", default="longrange")
    given = parser.parse_args(words)
    try:
        print(page(scores(given.first, given.recipe), scores(given.second, given.recipe)), end="")
    except UserError as error:
        raise SystemExit(f"benchmarks.accuracy: {error}") from None


if __name__ == "__main__":
    main()
