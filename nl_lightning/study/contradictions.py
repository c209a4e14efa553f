"""Fields of a record that can't both be true. Each check raises a ValueError, in a line that names the field.

A record that contradicts itself was edited, cut or mixed up with another one: no table may use it.
"""

import contextlib
import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from itertools import compress, pairwise
from typing import Any, TypeVar

from nl_lightning.study.metrics import METRICS
from nl_lightning.study.packing import unpack, unpack_numbers, unpack_outcomes
from nl_lightning.study.recipe import hash_of, with_key

Fields = Mapping[str, Any]
"""The fields of a :class:`~nl_lightning.study.records.Record`, each of its type and within its bounds."""
T = TypeVar("T")

SHORTER = {"limit_train_batches", "overfit_batches", "fast_dev_run", "max_time", "min_steps", "min_epochs", "callbacks"}
"""What can make a training shorter or longer than its epochs; callbacks can, as Lightning's EarlyStopping does."""


def refuse_contradictions(record: Fields) -> None:
    """ValueError that says the first contradiction within a record."""
    first = _of_module if record["module"] else _of_ours
    for check in (first, _videos, _bits, _numbers, _groups, _classes, _hash, _steps):
        check(record)


def _unpacked(by: Callable[[str, int], list[T]], key: str, packed: str, videos: int) -> list[T]:
    try:
        return by(packed, videos)
    except ValueError as error:
        what = "bit" if by is unpack else "number"
        raise ValueError(f"{key}: not a {what} for each of {videos} videos ({error})") from None


def _of_module(record: Fields) -> None:
    """Fields of another LightningModule's run."""
    items, metrics = record["videos_expected"], record["metrics"]
    if not metrics and not record["diverged"]:
        raise ValueError("metrics: expected one or more, got none")
    if not record["outcomes"]:
        return
    try:
        outcomes = unpack_outcomes(record["outcomes"], items)
    except ValueError as error:
        said = str(error).replace("videos", "items")
        raise ValueError(f"outcomes: not a number for each of {items} items ({said})") from None
    if not any(factor_of(outcomes, value) for value in metrics.values()):
        raise ValueError(f"outcomes: the items' mean is {sum(outcomes) / items:.6g}, which no metric is")


def factor_of(outcomes: Sequence[float], value: float) -> float | None:
    """What the mean of the items' outcomes is multiplied by to be a metric: 1, or 100; None: it isn't that metric."""
    mean = sum(outcomes) / len(outcomes)
    return next((one for one in (1.0, 100.0) if math.isclose(one * mean, value, rel_tol=1e-3, abs_tol=1e-4)), None)


def _of_ours(record: Fields) -> None:
    """Fields that only another LightningModule's run can have, or leave out; and the metrics of ours."""
    if record["metrics"] or record["outcomes"]:
        raise ValueError("metrics: there are some, but no 'module' that logged them")
    for key in ("videos_expected", "macs", "steps"):
        if not record[key]:
            raise ValueError(f"{key}: expected a whole number of at least 1, got 0")
    scores = {shown.key for metric in METRICS.values() for shown in metric.shown if record[shown.key] is not None}
    if not scores & METRICS.keys() and not record["diverged"]:
        raise ValueError(f"the key '{next(iter(METRICS))}' is missing")
    for metric in METRICS.values():
        for shown in metric.shown:
            if metric.key in scores and shown.key not in scores:
                raise ValueError(f"the key '{shown.key}' is missing")
    if record["top1"] is not None and record["top5"] is not None and record["top1"] > record["top5"] + 0.001:
        raise ValueError(f"top1: {record['top1']} is more than top5, {record['top5']}")


def _videos(record: Fields) -> None:
    """A file that was scored can be decoded, so it is there. What wasn't scored is named, and counts as wrong."""
    test = {key: record[key] for key in ("videos_expected", "videos_present", "videos_decodable", "videos_scored")}
    train = {f"train_videos.{key}": record["train_videos"].get(key) for key in ("expected", "present", "decodable")}
    for counts in (test, train):
        known = [(key, count) for key, count in counts.items() if count is not None]
        for (of, most), (key, count) in pairwise(known):
            if count > most:
                raise ValueError(f"{key}: expected 0 to {most} ({of}), got {count}")
    expected, scored, named = record["videos_expected"], record["videos_scored"], len(set(record["unreadable"]))
    least = expected if record["module"] else 0 if record["diverged"] else 1
    if scored < least:
        raise ValueError(f"videos_scored: expected {least} to {expected} (videos_expected), got {scored}")
    if named < expected - scored:
        raise ValueError(f"unreadable: names {named} videos, but {expected - scored} of {expected} were not scored")
    for key in ("top1", "top5", "soft"):
        if record[key] is not None and record[key] * expected > 100 * scored + 0.001 * expected:
            raise ValueError(f"{key}: {record[key]}, but only {scored} of {expected} videos were scored")


def _bits(record: Fields) -> None:
    """Bits say which videos are right and were read; the numbers beside them say how many."""
    keys = [key for key in ("right_top1", "right_top5", "read_videos") if record[key]]
    bits = {key: _unpacked(unpack, key, record[key], record["videos_expected"]) for key in keys}
    for key in ("top1", "top5"):
        if (right := bits.get(f"right_{key}")) is not None:
            percent, said = 100 * sum(right) / len(right), record[key]
            if said is None or abs(percent - said) > 0.001:
                raise ValueError(f"right_{key}: {percent:.3f} % of its videos are right, but {key} is {said}")
    read = bits.get("read_videos")
    if read is not None and sum(read) != record["videos_scored"]:
        raise ValueError(f"read_videos: {sum(read)} of them, but videos_scored is {record['videos_scored']}")
    for inner, outer in (("right_top1", "right_top5"), ("right_top1", "read_videos"), ("right_top5", "read_videos")):
        if any(map(operator.gt, bits.get(inner, ()), bits.get(outer, ()))):
            raise ValueError(f"{inner}: a video is right by it, but isn't in {outer}")


def _numbers(record: Fields) -> None:
    """A number of each video: contributions have the mAP as their mean, probabilities the soft score."""
    for key, of in (("mAP_by_video", "mAP"), ("soft_by_video", "soft")):
        said = record[of]
        if not record[key]:
            continue
        numbers = _unpacked(unpack_numbers, key, record[key], record["videos_expected"])
        mean = sum(numbers) / len(numbers)
        if said is None or not abs(mean - said) <= 0.001:
            raise ValueError(f"{key}: the videos' mean is {mean:.3f}, but {of} is {said}")
        if of == "soft" and not -0.001 <= min(numbers) <= max(numbers) <= 100.001:
            raise ValueError(f"{key}: expected percent, 0 to 100, got {min(numbers):.3f} to {max(numbers):.3f}")


def _groups(record: Fields) -> None:
    """A group's numbers are those of its videos. Where these aren't known, a mean of all lies among the groups'."""
    videos, by_group = record["videos_expected"], record["videos_by_group"]
    for key, of in (("top1_by_group", "top1"), ("soft_by_group", "soft")):
        groups, whole = record[key], record[of]
        if groups and whole is not None and not min(groups.values()) - 0.001 <= whole <= max(groups.values()) + 0.001:
            raise ValueError(f"{key}: from {min(groups.values())} to {max(groups.values())}, but {of} is {whole}")
        if by_group and groups and groups.keys() != by_group.keys():
            raise ValueError(f"{key}: of {', '.join(groups)}, but videos_by_group is of {', '.join(by_group)}")
    right = unpack(record["right_top1"], videos) if record["right_top1"] else []
    soft = unpack_numbers(record["soft_by_video"], videos) if record["soft_by_video"] else []
    for name, packed in by_group.items():
        there = _unpacked(unpack, f"videos_by_group.{name}", packed, videos)
        if not any(there):
            raise ValueError(f"videos_by_group.{name}: expected at least one video")
        for key, numbers, factor in (("top1_by_group", right, 100), ("soft_by_group", soft, 1)):
            said = record[key].get(name)
            mean = factor * sum(compress(numbers, there)) / sum(there)
            if said is not None and numbers and not abs(mean - said) <= 0.001:
                raise ValueError(f"{key}.{name}: its videos' mean is {mean:.3f}, but it says {said}")


def _classes(record: Fields) -> None:
    """Each class has a number. The mAP is their mean, and top-1 lies among them."""
    by_class = record["evidence"].by_class if record["evidence"] else []
    if not by_class:
        return
    classes = _said(record, "model", "net", "num_classes")
    if type(classes) is int and classes != len(by_class):
        raise ValueError(f"evidence.by_class: expected {classes} numbers, one a class, got {len(by_class)}")
    found = [one for one in by_class if one is not None] or [0.0]
    for of, low, high in (("top1", min(found), max(found)), ("mAP", *2 * [sum(found) / len(found)])):
        if record[of] is not None and not low - 0.01 <= record[of] <= high + 0.01:
            raise ValueError(f"evidence.by_class: from {low:.2f} to {high:.2f}, but {of} is {record[of]}")


def _said(record: Fields, *keys: str) -> Any:
    """What the recipe says at these keys, or the variant's arguments, which are laid over it; None: nothing."""
    value, arguments = record["config"].get("recipe"), record["config"].get("arguments")
    for argument in arguments if isinstance(arguments, list) else []:
        key, _, text = str(argument).removeprefix("--").partition("=")
        above: Any = text
        with contextlib.suppress(ValueError, RecursionError):  # texts are raw
            above = json.loads(text)
        value = with_key(value if isinstance(value, dict) else {}, key, above)
    for key in keys:
        value = value.get(key) if isinstance(value, dict) else None
    return value


def _hash(record: Fields) -> None:
    """The configuration has the hash, where it can be told: not of a run that starts from another one's weights.

    Nor where a folder of the machine that it ran on was left out of the configuration (:func:`portable`).
    """
    recipe, arguments = record["config"].get("recipe"), record["config"].get("arguments")
    if not isinstance(recipe, dict) or not isinstance(arguments, list) or record["init_from"] is not None:
        return
    computed = hash_of(recipe, arguments, None, record["seed"])
    left_out = re.search(r'["=]\.\.\./', json.dumps([recipe, arguments]))  # as a value begins, not within a text
    if computed != record["config_hash"] and not left_out:
        raise ValueError(f"config_hash: expected {computed}, as config has it, got {record['config_hash']}")


def _steps(record: Fields) -> None:
    """Steps are those of the curve's last point, and as many as the run's epochs make of the videos to train on."""
    for index, point in enumerate(record["curve"]):
        if "step" not in point:
            raise ValueError(f"curve[{index}]: the key 'step' is missing")
    steps, at = record["steps"], [point["step"] for point in record["curve"]]
    if at and max(at) > steps:
        raise ValueError(f"steps: the curve has a point at {max(at):g}, but steps is {steps}")
    for one, two in pairwise(at):
        if one > two:
            raise ValueError(f"curve: its points are at step {one:g} and then {two:g}")
    trainer, data = _said(record, "trainer"), _said(record, "data")
    if record["diverged"] or not (isinstance(trainer, dict) and isinstance(data, dict)):
        return
    epochs, most = trainer.get("max_epochs"), trainer.get("max_steps", -1)
    if at and len(at) == epochs and at[-1] != steps:
        raise ValueError(f"steps: the curve ends at {at[-1]:g} after {epochs} epochs, but steps is {steps}")
    shape = [trainer.get(key, 1) for key in ("devices", "num_nodes", "accumulate_grad_batches")]
    numbers, videos = [epochs, data.get("batch_size"), *shape], record["train_videos"]
    # Some of them may be words or -1, which stands for all or for no end.
    counted = all(type(one) is int and one > 0 for one in numbers) and type(most) is int and "expected" in videos
    if not counted or SHORTER & trainer.keys():
        return
    epochs, batch, devices, nodes, accumulated = numbers
    counts = {videos["expected"], videos.get("decodable", videos["expected"])}  # a census leaves bad ones out
    made = [epochs * math.ceil(count // (devices * nodes) // batch / accumulated) for count in counts]
    low, high = (min(one, most) if most > 0 else one for one in (min(made), max(made)))
    if not low <= steps <= high:
        raise ValueError(f"steps: expected {high}, as {epochs} epochs of {videos['expected']} videos make, got {steps}")
