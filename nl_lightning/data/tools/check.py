"""``nl-lightning data check``: read every file of a data set once, and write down what is there and what is wrong.

Files are decoded from the first frame to the last, by helper processes. One that hangs or crashes its helper is a
finding like any other. What is found is kept line by line beside the manifest: a census that was stopped goes on from
there. One that is repeated reads what has changed or was bad: a disk may have been away, or a permission missing.
"""

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath

import av
import numpy as np

from nl_lightning.data.decoding import Frames, Screen, named, sources
from nl_lightning.data.manifest import Finding, read_findings, regular, version_or_absent, write_manifest
from nl_lightning.data.packets import DecodeError, Index, index_of, reason, url, version_of, video_stream
from nl_lightning.data.reader import by_helpers
from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError, bars, visible
from nl_lightning.study.border import as_unicode, checked
from nl_lightning.study.lock import alone

SURVEY = f"{__name__}.survey"
BEGINNING = b'{"path": '  # of a file of notes


def take_census(
    splits: Mapping[str, VideoList], root: Path, file: Path, workers: int, hashes: bool, seconds: float = 600.0
) -> list[Finding]:
    """Read every file that has not been read well in its present version, and write the manifest; return its rows.

    A video may be on several lists. `workers` files are read at a time, and each is given up after `seconds`. With
    `hashes`, their bytes are hashed as well. UserError if another process is at it, or the manifest can't be written.
    """
    rows = _listed(splits)
    with alone(file):
        part = file.with_name(f"{file.name}.part")
        known = [row for row in read_findings(file) if not row.error] if file.exists() else []
        before = {finding.path: finding for finding in (*known, *_noted(part))}
        found = {name: _still_holds(row, before.get(row.path), root / name, hashes) for name, row in rows.items()}
        missing = [name for name, finding in found.items() if finding is None]
        with part.open("a", encoding="utf-8") as notes:
            notes.write("\n" if notes.tell() else "")  # the last line may be torn
            requests = [(root / name, rows[name], hashes) for name in missing]
            with bars() as bar:
                answers = by_helpers(SURVEY, requests, workers, seconds)
                for place, answer in bar.track(answers, len(requests), description="reading"):
                    finding = _given_up(*requests[place], answer) if isinstance(answer, DecodeError) else answer
                    found[missing[place]] = finding
                    notes.write(json.dumps(asdict(finding)) + "\n")
                    notes.flush()
        whole = [finding for finding in found.values() if finding is not None]
        write_manifest(file, whole)
        part.unlink()
    return whole


def _listed(splits: Mapping[str, VideoList]) -> dict[str, Finding]:
    """A row for each video that a split lists, by name, in the order of the lists; nothing is found yet."""
    rows: dict[str, Finding] = {}
    for split, videos in splits.items():
        for name, label in videos.listed():
            if name in rows:
                lists = dict.fromkeys([*rows[name].splits.split(","), split])
                rows[name] = replace(rows[name], splits=",".join(lists))
            else:
                path, labels = as_unicode(name), label if isinstance(label, tuple) else (label,)
                rows[name] = Finding(path, PurePosixPath(path).stem, labels, split)
    return rows


def _noted(part: Path) -> Iterator[Finding]:
    """What a census that was stopped has noted; its last line may be torn."""
    content = part.read_bytes() if part.exists() else b""
    if content[: len(BEGINNING)] != BEGINNING[: len(content)]:
        raise UserError(f"{part} wasn't written by nl-lightning: move it away, or name another manifest with --out")
    for line in content.splitlines():
        with contextlib.suppress(ValueError, RecursionError):  # a UserError among them
            yield checked(Finding, json.loads(line), str(part))


def _still_holds(row: Finding, found: Finding | None, file: Path, hashes: bool) -> Finding | None:
    """What was found before, if the file is still that one; None if it has to be read."""
    if found is None or (hashes and found.bytes and not found.sha256):
        return None
    if version_or_absent(file) != (found.bytes, found.mtime_ns):
        return None
    return replace(found, labels=row.labels, splits=row.splits)


def _given_up(path: Path, row: Finding, _: bool, error: DecodeError) -> Finding:
    """The row of a file that hangs or crashes its reader."""
    size, mtime_ns = version_or_absent(path)
    return replace(row, bytes=size, mtime_ns=mtime_ns, error=_without_path(error, path))


def survey(path: Path, row: Finding, hashes: bool) -> Finding:
    """The row of a file, filled in; what is wrong with the file is said in it."""
    try:
        size, mtime_ns = version_of(path)
        row = replace(row, bytes=size, mtime_ns=mtime_ns)
        if hashes:
            with path.open("rb") as file:
                row = replace(row, sha256=hashlib.file_digest(file, "sha256").hexdigest())
        index = index_of(path)
        times, keys = regular(index)
        row = replace(
            row, frames=index.count, decoder=named("auto"), objection=index.objection, times=times, keys=keys,
            counted=index.times is None and not index.before_key,
        )  # fmt: skip
        with av.open(url(path)) as container:
            stream = video_stream(container)
            row = replace(
                row, codec=stream.codec_context.name, fps=round(float(stream.average_rate or 0), 3),
                width=stream.width, height=stream.height, header_frames=stream.frames,
            )  # fmt: skip
        row = replace(row, decoded=_decodable(path, index))
    except Exception as error:
        return replace(row, error=_without_path(error, path))
    if row.decoded < index.count:
        return replace(row, error=f"only {row.decoded} of {index.count} frames decode")
    return row


def _decodable(path: Path, index: Index) -> int:
    """Count the shown frames that decode, in the ways in which training reads them."""
    found = 0
    for source in sources(path, np.arange(index.count), index, _Glance(path)):
        found = sum(1 for _ in source)
        if found == index.count:
            break
    return found


class _Glance(Screen):
    """A screen that makes a picture of the first frame, and of each of another size or format; the others are alike."""

    _seen: tuple[int, int, str] | None = None

    def picture(self, frame: av.VideoFrame) -> Frames:
        kind = (frame.width, frame.height, frame.format.name)
        if kind != self._seen:
            super().picture(frame)
        self._seen = kind
        return np.empty((0, 0, 3), np.uint8)


def _without_path(error: Exception, path: Path) -> str:
    return reason(error).removeprefix(f"{visible(path)}: ")


def counts(rows: list[Finding]) -> list[tuple[str, int, int, int]]:
    """How many videos of each split are on its list, there, and decodable; and of all files, where there are several.

    Splits are in the order of the rows.
    """
    of: dict[str, list[Finding]] = {}
    for row in rows:
        for split in row.splits.split(","):
            of.setdefault(split, []).append(row)
    if len(of) > 1:
        of["all files"] = rows
    return [
        (name, len(some), sum(row.bytes > 0 or row.mtime_ns > 0 for row in some), sum(not r.error for r in some))
        for name, some in of.items()
    ]


def by_error(rows: list[Finding]) -> list[tuple[str, int, str]]:
    """Each kind of error, how many files have it, and one of them; the most frequent first."""
    found = [(re.sub(r"\d+(\.\d+)?", "N", row.error), row.path) for row in rows if row.error]
    first = dict(reversed(found))
    return [(kind, number, first[kind]) for kind, number in Counter(kind for kind, _ in found).most_common()]
