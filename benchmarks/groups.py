"""What blocks and controls reach in each group of generated videos: ``python -m benchmarks.groups``.

The page ``results/groups.md`` is made from the committed records alone.
"""

from collections import defaultdict

import numpy as np

from benchmarks.machine import REPOSITORY
from nl_lightning.report.render import markdown_table
from nl_lightning.report.words import of_rows
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.records import load_records

RESULTS = REPOSITORY / "results"
PAGE = RESULTS / "groups.md"
STUDIES = ("controls", "table2", "stages")
"""Their rows, in this order; a network that two of them share has one row."""
RECIPES = {
    "longrange": "Chance is 50 %, and 33 % in `look`. In `slow` a short clip has no information.",
    "match": "Chance is 50 %. Half of the videos are hard: their decoys are 60 apart. Other videos have all distances.",
    "place": "Chance is 50 %, and 33 % in `look`.",
}


def labels() -> dict[str, str]:
    """What rows of ResNet-50 with clips of the usual length are called, by variant; the first study's word counts."""
    found: dict[str, str] = {}
    for study in map(load_study, map(find_study, STUDIES)):
        for table in study.tables.values():
            for row in table.rows:
                if row.variant and study.variants[row.variant].clip is None and "r101" not in row.variant:
                    found.setdefault(row.variant, row.label)
    return found


def group_table(recipe: str) -> str:
    """Soft scores in percent, mean ± sample standard deviation over seeds: a line a network, a column a group."""
    scores: dict[str, dict[str, list[float]]] = defaultdict(lambda: defaultdict(list))
    for record in load_records(RESULTS, recipe)[0]:
        for group, soft in record.soft_by_group.items():
            scores[record.variant][group].append(soft)
    shown = {name: label for name, label in labels().items() if name in scores}
    groups = list(dict.fromkeys(group for name in shown for group in scores[name]))
    rows = []
    for name, label in shown.items():
        of = scores[name]
        cells = (f"{np.mean(of[group]):.1f} ± {np.std(of[group], ddof=1):.1f}" for group in groups)
        rows.append([name, label, f"{len(of[groups[0]])}", *cells])
    return markdown_table(of_rows(["name", "network", "n", *groups], rows, labels=2))


def page() -> str:
    """The page of all recipes, in Markdown."""
    parts = [
        "# What blocks and controls reach, by group of videos",
        "Soft scores, in percent: the mean probability of the right class. Each is a mean over n seeds, ± their sample "
        "standard deviation. Networks are C2D and I3D with ResNet-50, on clips of the usual length. "
        "`python -m benchmarks.groups` makes this page from the committed records.",
        "The pages of [`longrange`](README.md), of its [controls](controls_longrange.md), of [`match`](match.md), of "
        "its [controls](controls.md), of [`place`](stages.md) and of its [controls](controls_place.md) have "
        "accuracies, intervals, commits and commands. "
        "[Concepts](../docs/concepts.md) says what a control is.",
    ]
    for recipe, said in RECIPES.items():
        parts += [f"## Recipe `{recipe}`", said, group_table(recipe)]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
