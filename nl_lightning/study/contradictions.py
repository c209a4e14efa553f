"""Fields of a record that can't both be true. Each check gives a line that names the field, or None.

A record that contradicts itself was edited, cut or mixed up with another one: no table may use it.
"""

import json
import math
import operator
from collections.abc import Mapping, Sequence
from itertools import compress, pairwise
from typing import Any

from nl_lightning.study.metrics import METRICS
from nl_lightning.study.packing import unpack, unpack_numbers, unpack_outcomes
from nl_lightning.study.recipe import hash_of

Fields = Mapping[str, Any]
"""The fields of a :class:`~nl_lightning.study.records.Record`, each of its type and within its bounds."""

SHORTER = {"limit_train_batches", "overfit_batches", "fast_dev_run", "max_time", "min_steps", "min_epochs"}
"""What makes a training shorter or longer than its epochs."""


def contradiction(record: Fields) -> str | None:
    """The first contradiction within a record, in one line; None if there is none."""
    checks = (_of_module, _metrics, _videos, _bits, _numbers, _groups, _hash, _curve, _steps)
    return next((said for check in checks if (said := check(record))), None)


def _of_module(record: Fields) -> str | None:
    """Fields of another LightningModule's run, and those that only such a run can leave out."""
    items, metrics = record["videos_expected"], record["metrics"]
    if not record["module"]:
        if metrics or record["outcomes"]:
            return "metrics: there are some, but no 'module' that logged them"
        empty = (key for key in ("videos_expected", "macs") if not record[key])
        return next((f"{key}: expected a whole number of at least 1, got 0" for key in empty), None)
    if not metrics and not record["diverged"]:
        return "metrics: expected one or more, got none"
    if not record["outcomes"]:
        return None
    try:
        outcomes = unpack_outcomes(record["outcomes"], items)
    except ValueError as error:
        return f"outcomes: not a number for each of {items} items ({str(error).replace('videos', 'items')})"
    if not any(factor_of(outcomes, value) for value in metrics.values()):
        return f"outcomes: the items' mean is {sum(outcomes) / items:.6g}, which no metric is"
    return None


def factor_of(outcomes: Sequence[float], value: float) -> float | None:
    """What the mean of the items' outcomes is multiplied by to be a metric: 1, or 100; None: it isn't that metric."""
    mean = sum(outcomes) / len(outcomes)
    return next((one for one in (1.0, 100.0) if math.isclose(one * mean, value, rel_tol=1e-3, abs_tol=1e-4)), None)


def _metrics(record: Fields) -> str | None:
    if record["module"]:
        return None
    scores = {shown.key for metric in METRICS.values() for shown in metric.shown if record[shown.key] is not None}
    if not any(metric.key in scores for metric in METRICS.values()) and not record["diverged"]:
        return f"the key '{next(iter(METRICS))}' is missing"
    for metric in METRICS.values():
        lacking = [shown.key for shown in metric.shown if shown.key not in scores]
        if lacking and metric.key in scores:
            return f"the key '{lacking[0]}' is missing"
    if record["top1"] is not None and record["top5"] is not None and record["top1"] > record["top5"] + 0.001:
        return f"top1: {record['top1']} is more than top5, {record['top5']}"
    return None


def _videos(record: Fields) -> str | None:
    for key in ("videos_scored", "videos_present", "videos_decodable"):
        count = record[key]
        if count is not None and count > record["videos_expected"]:
            return f"{key}: expected 0 to {record['videos_expected']} (videos_expected), got {count}"
    return None


def _bits(record: Fields) -> str | None:
    """Bits say which videos are right and were read; the numbers beside them say how many."""
    bits = {}
    for key in ("right_top1", "right_top5", "read_videos"):
        try:
            bits[key] = unpack(record[key], record["videos_expected"]) if record[key] else None
        except ValueError as error:
            return f"{key}: not a bit for each of {record['videos_expected']} videos ({error})"
    for key in ("top1", "top5"):
        right, said = bits[f"right_{key}"], record[key]
        if right is not None and (said is None or abs(_percent(right) - said) > 0.001):
            return f"right_{key}: {_percent(right):.3f} % of its videos are right, but {key} is {said}"
    read = bits["read_videos"]
    if read is not None and sum(read) != record["videos_scored"]:
        return f"read_videos: {sum(read)} of them, but videos_scored is {record['videos_scored']}"
    for inner, outer in (("right_top1", "right_top5"), ("right_top1", "read_videos"), ("right_top5", "read_videos")):
        if (few := bits[inner]) and (many := bits[outer]) and any(map(operator.gt, few, many)):
            return f"{inner}: a video is right by it, but isn't in {outer}"
    return None


def _percent(right: Sequence[bool]) -> float:
    return 100 * sum(right) / len(right)


def _numbers(record: Fields) -> str | None:
    """A number of each video: contributions have the mAP as their mean, probabilities the soft score."""
    for key, of in (("mAP_by_video", "mAP"), ("soft_by_video", "soft")):
        packed, said = record[key], record[of]
        if not packed:
            continue
        try:
            numbers = unpack_numbers(packed, record["videos_expected"])
        except ValueError as error:
            return f"{key}: not a number for each of {record['videos_expected']} videos ({error})"
        mean = sum(numbers) / len(numbers)
        if said is None or not abs(mean - said) <= 0.001:
            return f"{key}: the videos' mean is {mean:.3f}, but {of} is {said}"
        if of == "soft" and not -0.001 <= min(numbers) <= max(numbers) <= 100.001:
            return f"{key}: expected percent, 0 to 100, got {min(numbers):.3f} to {max(numbers):.3f}"
    return None


def _groups(record: Fields) -> str | None:
    """A group's numbers are those of its videos. Where these aren't known, a mean of all lies among the groups'."""
    for key, of in (("top1_by_group", "top1"), ("soft_by_group", "soft")):
        groups, whole = record[key], record[of]
        if groups and whole is not None and not min(groups.values()) - 0.001 <= whole <= max(groups.values()) + 0.001:
            return f"{key}: from {min(groups.values())} to {max(groups.values())}, but {of} is {whole}"
        if record["videos_by_group"] and groups and groups.keys() != record["videos_by_group"].keys():
            return f"{key}: of {', '.join(groups)}, but videos_by_group is of {', '.join(record['videos_by_group'])}"
    right = unpack(record["right_top1"], record["videos_expected"]) if record["right_top1"] else []
    soft = unpack_numbers(record["soft_by_video"], record["videos_expected"]) if record["soft_by_video"] else []
    for name, packed in record["videos_by_group"].items():
        try:
            there = unpack(packed, record["videos_expected"])
        except ValueError as error:
            return f"videos_by_group.{name}: not a bit for each of {record['videos_expected']} videos ({error})"
        if not any(there):
            return f"videos_by_group.{name}: expected at least one video"
        for key, numbers, factor in (("top1_by_group", right, 100), ("soft_by_group", soft, 1)):
            said = record[key].get(name)
            mean = factor * sum(compress(numbers, there)) / sum(there)
            if said is not None and numbers and not abs(mean - said) <= 0.001:
                return f"{key}.{name}: its videos' mean is {mean:.3f}, but it says {said}"
    return None


def _curve(record: Fields) -> str | None:
    lacking = next((index for index, point in enumerate(record["curve"]) if "step" not in point), None)
    return None if lacking is None else f"curve[{lacking}]: the key 'step' is missing"


def _hash(record: Fields) -> str | None:
    """The configuration has the hash, where it can be told: not of a run that starts from another one's weights.

    Nor where a folder of the machine that it ran on was left out of the configuration (:func:`portable`).
    """
    recipe, arguments = record["config"].get("recipe"), record["config"].get("arguments")
    if not isinstance(recipe, dict) or not isinstance(arguments, list) or record["init_from"] is not None:
        return None
    computed = hash_of(recipe, arguments, None, record["seed"])
    if computed != record["config_hash"] and '".../' not in json.dumps(recipe):
        return f"config_hash: expected {computed}, as config has it, got {record['config_hash']}"
    return None


def _steps(record: Fields) -> str | None:
    """Steps are those of the curve's last point, and as many as the recipe's epochs make of the videos to train on."""
    steps, at = record["steps"], [point["step"] for point in record["curve"]]
    if at and max(at) > steps:
        return f"steps: the curve has a point at {max(at):g}, but steps is {steps}"
    if back := [f"{one:g} and then {two:g}" for one, two in pairwise(at) if one > two]:
        return f"curve: its points are at step {back[0]}"
    recipe = record["config"].get("recipe")
    trainer, data = [recipe.get(key) for key in ("trainer", "data")] if isinstance(recipe, dict) else [None, None]
    if record["diverged"] or not (isinstance(trainer, dict) and isinstance(data, dict)):
        return None
    epochs, most = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if at and len(at) == epochs and at[-1] != steps:
        return f"steps: the curve ends at {at[-1]:g} after {epochs} epochs, but steps is {steps}"
    shape = [trainer.get(key, 1) for key in ("devices", "num_nodes", "accumulate_grad_batches")]
    videos = record["train_videos"]
    counted = all(type(one) is int for one in [epochs, most, data.get("batch_size"), *shape]) and "expected" in videos
    if not counted or SHORTER & trainer.keys():
        return None
    devices, nodes, accumulated = shape
    counts = {videos["expected"], videos.get("decodable", videos["expected"])}  # a census leaves bad ones out
    made = [epochs * math.ceil(count // (devices * nodes) // data["batch_size"] / accumulated) for count in counts]
    low, high = (min(one, most) if most > 0 else one for one in (min(made), max(made)))
    if not low <= steps <= high:
        return f"steps: expected {high}, as {epochs} epochs of {videos['expected']} videos make, got {steps}"
    return None
