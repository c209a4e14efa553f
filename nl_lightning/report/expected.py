"""Whether a number that was measured just now is the one to expect: what is committed for the same row and recipe.

The rule was written down before any number was looked at. With records of several seeds, a new one is expected within
the prediction interval of one more seed, at 95 %. With one, the two intervals over videos have to overlap.
"""

import math
from pathlib import Path

import numpy as np
from scipy.special import stdtrit

from nl_lightning.report.pairing import over_videos
from nl_lightning.study.metrics import METRICS, TOP1, Metric
from nl_lightning.study.recipe import run_hash
from nl_lightning.study.records import Record, load_records
from nl_lightning.study.run import Run


def committed_folder(run: Run) -> Path:
    """Where the results of the checkout lie that the study is part of; the folder need not exist."""
    return run.study.path.resolve().parent.parent / "results"


def committed(run: Run, folder: Path) -> list[Record]:
    """The records in another results folder of this run's variant, of today's configuration, by seed."""
    if not folder.is_dir() or folder.resolve() == run.results.resolve():
        return []
    of_variant = (one for one in load_records(folder, run.base.name)[0] if one.variant == run.variant.name)
    return [one for one in of_variant if one.config_hash == run_hash(run.study, run.base, one.variant, one.seed)]


def as_expected(record: Record, others: list[Record], of: Metric = TOP1) -> str:
    """What is committed for a row, in a few words, and whether a new record of it lies within that; empty if nothing.

    Compared by the metric that the record has; those that have diverged have none.
    """
    alike = [one for one in others if not one.videos_hash or record.videos_hash in ("", one.videos_hash)]
    if not alike:  # another official split, or data of one's own
        return f"what is committed was tested on other {of.item}s" if others else ""
    metric = next((metric for metric in (of, *METRICS.values()) if metric.key in record.scores), None)
    sound = [other for other in alike if metric is not None and metric.key in other.scores]
    if metric is None or not sound:
        if not any(one.scores for one in (record, *alike)):
            return "as expected: both diverged"
        if metric is not None and any(not one.diverged for one in alike):
            return ""  # what is committed was compared by something else
        return "not as expected: one of this and the committed diverged"
    scores = [other.score(metric) for other in sound]
    if np.ptp(scores) > 1e-9:  # seeds that agree to the last digit say nothing of the spread
        mean, spread = float(np.mean(scores)), float(np.std(scores, ddof=1))
        half = float(stdtrit(len(scores) - 1, 0.975)) * spread * math.sqrt(1 + 1 / len(scores))
        within = abs(record.score(metric) - mean) <= half
        said = f"{mean:.{metric.decimals}f} +- {metric.text(half)}, the spread of {len(scores)} committed seeds"
    else:
        mine, theirs = (over_videos(one, metric) for one in (record, sound[0]))
        if mine is None or theirs is None:
            return f"{metric.text(scores[0])} is committed (seed {sound[0].seed})"
        within = mine.low <= theirs.high and theirs.low <= mine.high
        said = f"{metric.text(scores[0])} is committed (seed {sound[0].seed}); the intervals over videos "
        said += "overlap" if within else "don't overlap"
    return f"{'' if within else 'not '}as expected: {said}"
