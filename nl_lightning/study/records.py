"""What was measured: one immutable record a run, as ``<results>/records/<recipe>/<variant>/seed<k>.json``.

A record holds the hash of the configuration that made it. When a definition changes, the record goes stale by
itself: it is shown as such, is never used in a table, and is moved aside, not overwritten, by the next run.
:func:`state` says where a run stands. Nothing here imports torch.
"""

import base64
import contextlib
import hashlib
import json
import math
import os
import re
import struct
import types
import typing
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from nl_lightning.errors import UserError, nearest
from nl_lightning.study.lock import holder
from nl_lightning.study.metrics import METRICS, Metric
from nl_lightning.study.study import Recipe, Study, run_hash


@dataclass(frozen=True, kw_only=True)
class RunRecord:
    """One finished run: variant x recipe x seed. Metrics are percent, over all views of each video.

    Those of a :class:`~nl_lightning.study.metrics.Metric` that the recipe's videos have are there, the others None.

    Attributes:
        config: the merged recipe and the variant's arguments, for people; `config_hash` is what is compared.
        videos_expected: videos in the test list. All of them are in the denominator of top-1 and top-5.
        videos_present, videos_decodable: of the test list: files that are there, and that decode, as a census found, or
            else as testing did. None: not counted.
        train_videos: the same of the train list: ``expected``, ``present``, ``decodable`` as far as they were counted.
        videos_scored: those that could be decoded; the others (`unreadable`, by name) count as wrong, and in the mAP as
            scored 0 in every class.
        num_clips, num_crops: views of a video: clips in time x crops in space.
        params: all parameters of the network.
        macs: multiply-adds of one clip.
        steps: optimizer steps.
        top1_by_group: top-1 of groups of classes, where the data set has groups.
        videos_hash: of the test list (:func:`videos_hash`): runs with the same one were tested on the same videos.
        right_top1, right_top5: which videos are right, in the order of the test list, see :func:`pack`. Differences
            between runs are paired by video, so a record can be compared without the file of its predictions.
            Empty: not kept.
        mAP_by_video: what each video contributes to the mAP, for the same purpose
            (:func:`~nl_lightning.train.scores.by_video`; :func:`pack_numbers`). Their mean is the mAP.
        read_videos: which videos could be decoded, in the same form. Empty: all of them, or not kept.
        curve: points of the training curve, in order, each with whatever was logged at it (Fig. 4).
        versions: of Python and of the packages that can change a number.
        commit, dirty: the code; dirty if it had changes that were not committed.
        finished: ISO 8601, UTC.
        init_from: the variant whose weights the run started from.
        data_wait: percent of the time of training iterations spent waiting for data, in the first process. None: not
            measured.
    """

    study: str
    recipe: str
    variant: str
    seed: int
    config_hash: str
    config: dict[str, Any]
    top1: float | None = None
    top5: float | None = None
    mAP: float | None = None
    videos_expected: int
    videos_scored: int
    num_clips: int
    num_crops: int
    params: int
    macs: int
    steps: int
    train_seconds: float
    test_seconds: float
    device: str
    decoder: str
    commit: str
    dirty: bool
    finished: str
    unreadable: list[str] = field(default_factory=list)
    top1_by_group: dict[str, float] = field(default_factory=dict)
    videos_hash: str = ""
    right_top1: str = ""
    right_top5: str = ""
    mAP_by_video: str = ""
    read_videos: str = ""
    curve: list[dict[str, float]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    init_from: str | None = None
    data_wait: float | None = None
    videos_present: int | None = None
    videos_decodable: int | None = None
    train_videos: dict[str, int] = field(default_factory=dict)

    def right(self, k: Literal[1, 5]) -> list[bool] | None:
        """Whether each test video's class is among the `k` best, in the order of the test list; None if not kept."""
        packed = self.right_top1 if k == 1 else self.right_top5
        return unpack(packed, self.videos_expected) if packed else None

    def score(self, metric: Metric) -> float:
        """What it says of a metric, in percent. UserError if that isn't among what was measured."""
        value: float | None = getattr(self, metric.key)
        if value is None:
            raise UserError(f"the record of {self.variant}, recipe {self.recipe}, seed {self.seed} has no {metric.key}")
        return value

    @property
    def scores(self) -> dict[str, float]:
        """What was measured, by the metrics' keys."""
        keys = [shown.key for metric in METRICS.values() for shown in metric.shown]
        return {key: getattr(self, key) for key in keys if getattr(self, key) is not None}


_OPTIONAL = {f.name for f in fields(RunRecord) if f.default_factory is not MISSING or f.default is not MISSING}
"""Fields that records of older versions may lack."""


def videos_hash(videos: Iterable[tuple[str, int | tuple[int, ...]]]) -> str:
    """12 hexadecimal digits of a test list: (path below the data set's folder, label or labels) of each, in order."""
    lines = "".join(f"{path} {label}\n" for path, label in videos)
    return hashlib.sha256(os.fsencode(lines)).hexdigest()[:12]


def pack(right: Sequence[bool]) -> str:
    """A bit a video, the first one highest, in base64: 3 kB for Kinetics' validation videos."""
    bits = "".join("1" if one else "0" for one in right)
    whole = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return base64.b64encode(int(whole or "0", 2).to_bytes(len(whole) // 8, "big")).decode()


def unpack(packed: str, videos: int) -> list[bool]:
    """What :func:`pack` packed. ValueError if it isn't of so many videos."""
    content = base64.b64decode(packed, validate=True)
    if len(content) != -(-videos // 8):
        raise ValueError(f"expected {videos} videos, got {len(content)} bytes")
    return [bit == "1" for bit in f"{int.from_bytes(content, 'big'):0{8 * len(content)}b}"[:videos]]


def pack_numbers(numbers: Sequence[float]) -> str:
    """Numbers as 4-byte floats, lowest byte first, in base64: 10 kB for Charades' validation videos."""
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def unpack_numbers(packed: str, videos: int) -> list[float]:
    """What :func:`pack_numbers` packed. ValueError if it isn't of so many videos."""
    content = base64.b64decode(packed, validate=True)
    if len(content) != 4 * videos:
        raise ValueError(f"expected {videos} videos, got {len(content)} bytes")
    return list(struct.unpack(f"<{videos}f", content))


def record_path(results: Path, recipe: str, variant: str, seed: int) -> Path:
    """Where the record of a run lies."""
    return results / "records" / recipe / variant / f"seed{seed}.json"


def predictions_path(results: Path, recipe: str, variant: str, seed: int, config_hash: str) -> Path:
    """Where the predictions of each video of a run lie, of this very configuration."""
    return results / "predictions" / recipe / variant / f"seed{seed}.{config_hash}.parquet"


def write_record(results: Path, record: RunRecord) -> Path:
    """File a record and return where. Nothing that was measured is overwritten.

    A record with another configuration hash is first moved aside, to ``seed<k>.<its hash>.json``. UserError
    if there is one with the same hash already, if the record isn't sound, or if it can't be written.
    """
    path = record_path(results, record.recipe, record.variant, record.seed)
    _check(asdict(record), f"record of {record.variant}, seed {record.seed}")
    if path.exists():
        try:
            old = read_record(path).config_hash
        except UserError:
            old = "unreadable"
        if old == record.config_hash:
            raise UserError(f"{path}: this run has its record already; delete the file to run it again")
        aside = path.with_suffix(f".{old}.json")
        count = 1
        while aside.exists():  # the definition went back and forth
            count += 1
            aside = path.with_suffix(f".{old}.{count}.json")
        try:
            path.rename(aside)
        except OSError as error:
            raise UserError(f"{path}: can't be moved aside: {error.strerror}") from error
    write_atomically(path, json.dumps(asdict(record), indent=2) + "\n")
    return path


def read_record(path: Path) -> RunRecord:
    """The record in a file. UserError that names the file and the field if something is wrong with it."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise UserError(f"no record {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a record: {error}; delete it to run it again") from None
    return parse_record(text, str(path))


def parse_record(text: str, at: str) -> RunRecord:
    """The record in a text. UserError that names the place (`at`) and the field if something is wrong with it."""
    try:
        raw = json.loads(text)
    except ValueError as error:
        raise UserError(f"{at}: not a record: {error}; delete it to run it again") from None
    return RunRecord(**_check(raw, at))


def portable(value: Any) -> Any:
    """A configuration without this machine's folders: of an absolute path, only the last part stays."""
    if isinstance(value, Mapping):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if isinstance(value, str) and Path(value).expanduser().is_absolute():
        return f".../{Path(value).name}"
    return value


def load_records(results: Path, recipe: str) -> list[RunRecord]:
    """The records under a recipe, by variant and seed; those that were moved aside are left out."""
    found = [
        _read_in_place(results, path)
        for path in (results / "records" / recipe).glob("*/seed*.json")
        if re.fullmatch(r"seed\d+\.json", path.name)
    ]
    return sorted(found, key=lambda record: (record.variant, record.seed))


def _read_in_place(results: Path, path: Path) -> RunRecord:
    record = read_record(path)
    if record_path(results, record.recipe, record.variant, record.seed) != path:
        raise UserError(
            f"{path}: holds the record of {record.variant}, seed {record.seed}, recipe {record.recipe}; "
            "was it moved or copied here?"
        )
    return record


def _check(raw: object, at: str) -> dict[str, Any]:
    """The fields of a record, checked: all there, none unknown, of their types, within their bounds."""
    if not isinstance(raw, dict):
        raise UserError(f"{at}: not a record; delete it to run it again")
    expected = typing.get_type_hints(RunRecord)
    for key in raw:
        if key not in expected:
            raise UserError(f"{at}: unknown field '{key}'{nearest(key, expected)}; a newer version's record?")
    for key, type_ in expected.items():
        if key not in raw:
            if key in _OPTIONAL:
                continue
            raise UserError(f"{at}: the field '{key}' is missing")
        if not _is(raw[key], type_):
            shown = (
                getattr(type_, "__name__", None) if not typing.get_args(type_) else str(type_).removesuffix(" | None")
            )
            raise UserError(f"{at}: {key}: expected {shown}, got {raw[key]!r}")
    for metric in METRICS.values():
        _check_scores(raw, metric, at)
    if all(raw.get(key) is None for key in METRICS):
        raise UserError(f"{at}: the field '{next(iter(METRICS))}' is missing")
    if not 0 <= raw["videos_scored"] <= raw["videos_expected"]:
        raise UserError(
            f"{at}: videos_scored: expected 0 to {raw['videos_expected']} (videos_expected), got {raw['videos_scored']}"
        )
    for accuracy in ("top1", "top5"):
        _check_right(raw, accuracy, at)
    _check_contributions(raw, at)
    read = _bits(raw, "read_videos", at)
    if read and sum(read) != raw["videos_scored"]:
        raise UserError(f"{at}: read_videos: {sum(read)} of them, but videos_scored is {raw['videos_scored']}")
    return raw


def _check_scores(raw: Mapping[str, Any], metric: Metric, at: str) -> None:
    """Refuse a metric without what stands beside it, and what is no percentage."""
    for key in (shown.key for shown in metric.shown):
        score = raw.get(key)
        if score is None and raw.get(metric.key) is not None:
            raise UserError(f"{at}: the field '{key}' is missing")
        if score is not None and not 0 <= score <= 100:
            raise UserError(f"{at}: {key}: expected percent, 0 to 100, got {score}")


def _bits(raw: Mapping[str, Any], key: str, at: str) -> list[bool]:
    try:
        return unpack(raw[key], raw["videos_expected"]) if raw.get(key) else []
    except ValueError as error:
        raise UserError(f"{at}: {key}: not a bit for each of {raw['videos_expected']} videos ({error})") from None


def _check_right(raw: Mapping[str, Any], accuracy: str, at: str) -> None:
    """Refuse bits that say something else than the accuracy beside them."""
    right = _bits(raw, f"right_{accuracy}", at)
    share = 100 * sum(right) / max(1, len(right))
    said = raw.get(accuracy)
    if right and (said is None or abs(share - said) > 0.001):
        raise UserError(f"{at}: right_{accuracy}: {share:.3f} % of its videos are right, but {accuracy} is {said}")


def _check_contributions(raw: Mapping[str, Any], at: str) -> None:
    """Refuse contributions of videos to another mAP than the one beside them."""
    if not raw.get("mAP_by_video"):
        return
    try:
        numbers = unpack_numbers(raw["mAP_by_video"], raw["videos_expected"])
    except ValueError as error:
        raise UserError(
            f"{at}: mAP_by_video: not a number for each of {raw['videos_expected']} videos ({error})"
        ) from None
    mean, said = sum(numbers) / max(1, len(numbers)), raw.get("mAP")
    if said is None or not abs(mean - said) <= 0.001:
        raise UserError(f"{at}: mAP_by_video: the videos' mean is {mean:.3f}, but mAP is {said}")


def _is(value: object, type_: Any) -> bool:
    """Whether a value read from JSON is of a field's type; an int is a float too, a bool is no int."""
    origin, args = typing.get_origin(type_), typing.get_args(type_)
    if origin is list:
        return isinstance(value, list) and all(_is(item, args[0]) for item in value)
    if origin is dict:
        return isinstance(value, dict) and all(_is(item, args[1]) for item in value.values())
    if origin is types.UnionType:
        return any(_is(value, arg) for arg in args)
    if type_ is Any:
        return True
    if type_ is float:
        return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return isinstance(value, type_) and not (type_ is int and isinstance(value, bool))


@contextlib.contextmanager
def whole_file(path: Path, durable: bool = True) -> Iterator[Path]:
    """Give a path to write to, beside `path`, that takes the place of `path` when the block has ended well.

    So a reader, or a crash at any moment, finds the old file or the new one, whole. `durable` waits for the disk, so
    that the file survives a power cut. UserError if the disk is full or the folder can't be written; the old file is
    then still there.
    """
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex[:8]}.tmp")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        yield temporary
        if durable:
            _wait_for_disk(temporary)
        os.replace(temporary, path)
        if durable:
            _wait_for_disk(path.parent)
    except OSError as error:
        raise UserError(f"{path}: can't be written: {error.strerror or error}") from error
    finally:
        with contextlib.suppress(OSError):  # gone already, when all went well
            os.unlink(temporary)


def _wait_for_disk(path: Path) -> None:
    """Until what was written to a file, or the names in a folder, would survive a power cut."""
    opened = os.open(path, os.O_RDONLY)
    try:
        os.fsync(opened)
    finally:
        os.close(opened)


def write_atomically(path: Path, content: str | bytes, durable: bool = True) -> None:
    """Write a file whole or not at all, see :func:`whole_file`."""
    with whole_file(path, durable) as temporary:
        temporary.write_bytes(content.encode() if isinstance(content, str) else content)


# --------------------------------------------------------------------------------------------- state of a run


@dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes:
        name: ``done``: there is a record of this very configuration. ``stale``: there is one, of another.
            ``running``: a live process holds its claim. ``failed``, ``preempted`` (told to make room; it goes on from
            its checkpoint): as it said itself at its end. ``queued``: submitted to a cluster. ``interrupted``: begun,
            but its process is gone. ``missing``: nothing of it is here.
        note: one line for people: who runs it, why it failed, which hash differs. Empty when done.
        record: the record, only if done: a stale one can't be used by accident.
    """

    name: Literal["done", "stale", "missing", "running", "failed", "preempted", "queued", "interrupted"]
    note: str = ""
    record: RunRecord | None = None


def marker_path(results: Path, recipe: str, variant: str, seed: int) -> Path:
    """Where a run says how far it is, or what became of it."""
    return results / "runs" / recipe / variant / f"seed{seed}" / "state.json"


def state(results: Path, study: Study, recipe: Recipe, variant: str, seed: int) -> State:
    """Where a run of a study stands. `recipe` is the plain one, without a variant's clip.

    The run's marker (:func:`marker_path`) is JSON: ``state`` (``running``, ``failed``, ``preempted`` or ``queued``),
    ``error`` of a failed run, ``job`` of a queued one, and ``config_hash`` (what became of another configuration says
    nothing about this one). Other keys are free.
    """
    lacking = _lacking_overlay(study, recipe, variant)
    if lacking is not None:
        return State("missing", lacking)
    expected = run_hash(study, recipe, variant, seed)
    path = record_path(results, recipe.name, variant, seed)
    recorded = _recorded(_read_in_place(results, path) if path.exists() else None, expected)
    if recorded.name == "done":
        return recorded
    marker = marker_path(results, recipe.name, variant, seed)
    who = holder(marker.parent)
    if who is not None:
        return State("running", str(who))
    return _marked(marker, expected) or recorded


def state_by_record(study: Study, recipe: Recipe, variant: str, seed: int, record: RunRecord | None) -> State:
    """Where a run stands as far as a record of it says, wherever that was found: done, stale or missing."""
    lacking = _lacking_overlay(study, recipe, variant)
    if lacking is not None:
        return State("missing", lacking)
    return _recorded(record, run_hash(study, recipe, variant, seed))


def _lacking_overlay(study: Study, recipe: Recipe, variant: str) -> str | None:
    for name in (variant, *study.ancestors(variant)):
        clip = study.variants[name].clip
        if clip is not None and not recipe.overlay(clip).is_file():
            return f"recipe {recipe.name} has no {recipe.overlay(clip).name} for 'clip: {clip}'"
    return None


def _recorded(record: RunRecord | None, expected: str) -> State:
    if record is None:
        return State("missing")
    if record.config_hash != expected:
        return State("stale", f"made with configuration {record.config_hash}, now {expected}")
    return State("done", record=record)


def _marked(path: Path, expected: str) -> State | None:
    try:
        marker = json.loads(path.read_text(encoding="utf-8"))
        name, of = marker["state"], marker.get("config_hash", expected)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, AttributeError, TypeError):
        return State("interrupted", f"{path} can't be read")
    if of != expected:
        return None
    if name in ("failed", "preempted", "queued"):
        return State(name, " ".join(str(marker.get("error", marker.get("job", ""))).split()))
    return State("interrupted", f"process {marker.get('pid')} on {marker.get('host')} is gone")
