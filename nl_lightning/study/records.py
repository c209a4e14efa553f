"""What was measured: one immutable record a run, as ``<results>/records/<recipe>/<variant>/seed<k>.json``.

A record holds the hash of the configuration that made it. When a definition changes, the record goes stale by
itself: it is shown as such, is never used in a table, and is moved aside, not overwritten, by the next run. So is a
file that can't be read as a record. Nothing here imports torch.
"""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import AfterValidator, Field

from nl_lightning.errors import UserError
from nl_lightning.study.border import Count, Name, Percent, Positive, Seed, checked, parse_json
from nl_lightning.study.contradictions import refuse_contradictions
from nl_lightning.study.evidence import Evidence, Machine
from nl_lightning.study.files import move_aside, read_text, write_atomically
from nl_lightning.study.lock import waiting_for
from nl_lightning.study.metrics import METRICS, Metric
from nl_lightning.study.packing import unpack


def _a_time(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"expected a time such as 2026-01-02T03:04:05+00:00, got {text[:40]!r}") from None
    return text


Hash = Annotated[str, Field(pattern="^[0-9a-f]{12}$"), "12 hexadecimal digits"]
Seconds = Annotated[float, Field(ge=0, le=1e9)]


@dataclass(frozen=True, kw_only=True)
class Record:
    """One finished run: variant x recipe x seed. Metrics are percent, over all views of each video.

    Those of a :class:`~nl_lightning.study.metrics.Metric` that the recipe's videos have are there, the others None.
    Of another LightningModule than ours (`module`), all fields of videos are empty, but those whose videos are its test
    items: `videos_expected`, `videos_scored` (0: it doesn't tell them) and `videos_hash`.

    Attributes:
        config: the merged recipe and the variant's arguments, for people; `config_hash` is what is compared.
        videos_expected: videos in the test list. All of them are in the denominator of top-1 and top-5.
        videos_present, videos_decodable: of the test list: files that are there, and that decode, as a census found, or
            else as testing did. None: not counted.
        train_videos: the same of the train list: ``expected``, ``present``, ``decodable`` as far as they were counted.
        videos_scored: those that could be decoded; the others (`unreadable`, by name) count as wrong, and in the mAP as
            scored 0 in every class.
        num_clips, num_crops: views of a video: clips in time x crops in space.
        params, macs: parameters of the network, all of them, and its multiply-adds for one clip.
        steps: optimizer steps.
        videos_hash: of the test list (:func:`videos_hash`): runs with the same one were tested on the same videos.
        right_top1, right_top5: which videos are right, in the order of the test list, packed
            (:mod:`~nl_lightning.study.packing`). Differences between runs are paired by video, so a record can be
            compared without the file of its predictions. Empty: not kept.
        mAP_by_video: what each video contributes to the mAP, for the same purpose
            (:func:`~nl_lightning.train.scores.by_video`). Their mean is the mAP.
        soft: the soft score of videos with one class: the mean over videos of the probability of the right class. It is
            at chance, without noise, for a network that has learned nothing.
        soft_by_video: that probability of each video, in percent; 0 for one that could not be read.
        top1_by_group, soft_by_group: those of groups of videos, where the data set has groups.
        videos_by_group: which videos are in each group, packed as `right_top1` is.
        read_videos: which videos could be decoded, in the same form. Empty: all of them, or not kept.
        curve: points of the training curve, in order, each with whatever was logged at it (Fig. 4).
        versions: of Python and of the packages that can change a number.
        commit, dirty: the code; dirty if it had changes that were not committed.
        finished: ISO 8601, UTC.
        init_from: the variant whose weights the run started from.
        data_wait: percent of the time of training iterations spent waiting for data, in the first process. None: not
            measured.
        diverged: one line that says what was no finite number, and since when: ``the loss from step 120 on``. Such a
            record needs no metric. Its curve has only finite numbers. Empty: nothing.
        earlier_code: a line for each other version of the code that did a part of the training before this one:
            ``until step 120: commit 402bae4 (now c9bd86e)``.
        machine, evidence: where it was measured, and what of. None: not kept.
        module: class of the LightningModule; empty: ours.
        metrics: what that module logged in testing, by the names that it gave.
        outcomes: the number that it handed over for each test item, by the items' names, packed
            (:func:`~nl_lightning.study.packing.pack_outcomes`). Empty: none.
    """

    study: Name
    recipe: Name
    variant: Name
    seed: Seed
    config_hash: Hash
    config: dict[str, Any]
    top1: Percent | None = None
    top5: Percent | None = None
    mAP: Percent | None = None
    videos_expected: Count
    videos_scored: Count
    num_clips: Positive = 1
    num_crops: Positive = 1
    params: Positive
    macs: Count = 0
    steps: Count
    train_seconds: Seconds
    test_seconds: Seconds
    device: str
    decoder: str = ""
    commit: str
    dirty: bool
    finished: Annotated[str, AfterValidator(_a_time)]
    unreadable: list[str] = field(default_factory=list)
    top1_by_group: dict[str, Percent] = field(default_factory=dict)
    videos_hash: str = ""
    right_top1: str = ""
    right_top5: str = ""
    mAP_by_video: str = ""
    soft: Percent | None = None
    soft_by_video: str = ""
    soft_by_group: dict[str, Percent] = field(default_factory=dict)
    videos_by_group: dict[str, str] = field(default_factory=dict)
    read_videos: str = ""
    curve: list[dict[str, float]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    init_from: Name | None = None
    data_wait: Percent | None = None
    videos_present: Count | None = None
    videos_decodable: Count | None = None
    train_videos: dict[Literal["expected", "present", "decodable"], Count] = field(default_factory=dict)
    diverged: str = ""
    earlier_code: list[str] = field(default_factory=list)
    machine: Machine | None = None
    evidence: Evidence | None = None
    module: str = ""
    metrics: dict[str, float] = field(default_factory=dict)
    outcomes: str = ""

    def right(self, k: Literal[1, 5]) -> list[bool] | None:
        """Whether each test video's class is among the `k` best, in the order of the test list; None if not kept."""
        packed = self.right_top1 if k == 1 else self.right_top5
        return unpack(packed, self.videos_expected) if packed else None

    def score(self, metric: Metric) -> float:
        """What it says of a metric, in its unit. UserError if that isn't among what was measured."""
        value = self.scores.get(metric.key)
        if value is None:
            raise UserError(f"the record of {self.variant}, recipe {self.recipe}, seed {self.seed} has no {metric.key}")
        return value * metric.scale

    def outcome(self, metric: Metric) -> str:
        """What came of the run, in a few words: ``top-1 45.4 %``, or that it diverged."""
        if self.diverged:
            return f"diverged: {self.diverged}"
        metric = next(one for one in (metric, *METRICS.values()) if one.key in self.scores)  # stills have their own
        return f"{metric.name} {metric.text(self.score(metric))}"

    @property
    def scores(self) -> dict[str, float]:
        """What was measured, by the metrics' keys."""
        keys = [shown.key for metric in METRICS.values() for shown in metric.shown]
        return {key: getattr(self, key) for key in keys if getattr(self, key) is not None} | self.metrics


class Unreadable(NamedTuple):
    """A file in the place of a record that can't be read as one: whose place it is, and why, in a line."""

    variant: str
    seed: int
    why: str


def videos_hash(videos: Iterable[tuple[str, int | tuple[int, ...]]]) -> str:
    """12 hexadecimal digits of a test list: (path below the data set's folder, label or labels) of each, in order."""
    lines = "".join(f"{path} {label}\n" for path, label in videos)
    return hashlib.sha256(os.fsencode(lines)).hexdigest()[:12]


def record_path(results: Path, recipe: str, variant: str, seed: int) -> Path:
    """Where the record of a run lies."""
    return results / "records" / recipe / variant / f"seed{seed}.json"


def predictions_path(results: Path, recipe: str, variant: str, seed: int, config_hash: str) -> Path:
    """Where the predictions of each video of a run lie, of this very configuration."""
    return results / "predictions" / recipe / variant / f"seed{seed}.{config_hash}.parquet"


def write_record(results: Path, record: Record) -> Path:
    """File a record and return where. Nothing that was measured is overwritten.

    A record of another configuration, or of the same without what this one has, is first moved aside, to
    ``seed<k>.<its hash>.json``, and what isn't a record to ``seed<k>.unreadable.json``. UserError if this run's is
    there already, if the record isn't sound, or if it can't be written.
    """
    path = record_path(results, record.recipe, record.variant, record.seed)
    _sound(asdict(record), f"record of {record.variant}, seed {record.seed}")
    with waiting_for(path):
        if os.path.lexists(path):
            _move_aside(path, record)
        write_atomically(path, json.dumps(asdict(record), indent=2) + "\n")
    return path


def _move_aside(path: Path, new: Record) -> None:
    """Give what is at `path` a name of its own; UserError if it is the record of the `new` one's run already."""
    try:
        old: Record | None = read_record(path)
    except UserError:
        old = None
    same = ("recipe", "variant", "seed", "config_hash", "init_from", "module")
    alike = old is not None and all(getattr(old, key) == getattr(new, key) for key in same)
    if old is not None and alike and (old.diverged or new.scores.keys() <= old.scores.keys()):
        raise UserError(f"{path}: this run has its record already; delete the file to run it again")
    name = "unreadable" if old is None else old.config_hash
    again = (f".{name}.{k}.json" for k in itertools.count(2))  # the definition went back and forth
    try:
        move_aside(path, map(path.with_suffix, itertools.chain([f".{name}.json"], again)))
    except OSError as error:
        raise UserError(f"{path}: can't be moved aside: {error.strerror}") from error


def read_record(path: Path) -> Record:
    """The record in a file. UserError that names the file and the field if something is wrong with it."""
    if not os.path.lexists(path):
        raise UserError(f"no record {path}")
    return parse_record(read_text(path), str(path))


def parse_record(text: str, at: str) -> Record:
    """The record in a text. UserError that names the place (`at`) and the field if something is wrong with it."""
    return _sound(parse_json(text, at), at)


def portable(value: Any) -> Any:
    """A configuration without this machine's folders: of an absolute path, only the last part stays."""
    if isinstance(value, Mapping):
        return {key: portable(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [portable(item) for item in value]
    if isinstance(value, str) and os.path.isabs(os.path.expanduser(value)):  # of ~nobody it stays as it is
        return f".../{Path(value).name}"
    return value


def recorded(results: Path, recipe: str) -> list[tuple[str, int]]:
    """(variant, seed) of each file in the place of a record under a recipe; history (moved aside) is left out."""
    paths = (results / "records" / recipe).glob("*/seed*.json")
    found = [(p.parent.name, int(p.stem[4:])) for p in paths if re.fullmatch(r"seed(0|[1-9][0-9]{0,9})\.json", p.name)]
    return sorted((variant, seed) for variant, seed in found if seed < 2**32)


def load_records(results: Path, recipe: str) -> tuple[list[Record], list[Unreadable]]:
    """The records under a recipe, by variant and seed, and what couldn't be read."""
    found: list[Record] = []
    broken: list[Unreadable] = []
    for variant, seed in recorded(results, recipe):
        try:
            found.append(record_in_place(results, recipe, variant, seed))
        except UserError as error:
            broken.append(Unreadable(variant, seed, str(error)))
    return found, broken


def record_in_place(results: Path, recipe: str, variant: str, seed: int) -> Record:
    """The record of a run, where it belongs. UserError if the file can't be read, or has another run's record."""
    path = record_path(results, recipe, variant, seed)
    record = read_record(path)
    if (record.recipe, record.variant, record.seed) != (recipe, variant, seed):
        raise UserError(
            f"{path}: holds the record of {record.variant}, seed {record.seed}, recipe {record.recipe}; "
            "was it moved or copied here?"
        )
    return record


def _sound(raw: object, at: str) -> Record:
    """The record in plain data, if every field is there, of its type and in its bounds, and none contradicts others."""
    try:
        record = checked(Record, raw, at)
    except UserError as error:
        newer = "; was it written by a newer version?" if "unknown key" in str(error) else ""
        raise UserError(f"{error}{newer}") from None
    try:
        refuse_contradictions(vars(record))
    except ValueError as error:
        raise UserError(f"{at}: {error}") from None
    return record
