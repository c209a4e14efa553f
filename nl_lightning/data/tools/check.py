"""``nl-lightning data check``: read every file of a data set once, and write down what is there and what is wrong.

Files are decoded from the first frame to the last, by as many helper processes as are asked for; one that hangs or
crashes its helper is a finding like any other. What is found is kept line by line beside the manifest, so that a census
that was stopped goes on from there, and one that is repeated reads only what has changed.
"""

import contextlib
import hashlib
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

import av

from nl_lightning.data.decoding import named
from nl_lightning.data.helper import by_helpers
from nl_lightning.data.manifest import Row, read_rows, regular, row_of, write_manifest
from nl_lightning.data.packets import DecodeError, index_of, reason, version_of, video_stream
from nl_lightning.data.tools.commands import alone
from nl_lightning.data.videos import VideoList
from nl_lightning.errors import bars

SURVEY = f"{__name__}.survey"


def take_census(
    splits: Mapping[str, VideoList], root: Path, file: Path, workers: int, hashes: bool, seconds: float = 600.0
) -> list[Row]:
    """Read every file that has not been read in its present version, and write the manifest; return its rows.

    Args:
        splits: the lists of the data set; a video may be on several of them.
        root: the data set's folder.
        file: the manifest.
        workers: files read at a time.
        hashes: also hash the files' bytes.
        seconds: after which a file is given up; it is read from the first frame to the last.

    Raises:
        UserError: another process is at it, or the manifest can't be written.
    """
    listed = list(expected(splits))
    with alone(file):
        part = file.with_name(f"{file.name}.part")
        known = {row.path: row for row in _found_before(file, part)}
        rows = [_still_holds(row, known.get(row.path), root, hashes) for row in listed]
        missing = [place for place, row in enumerate(rows) if row is None]
        with part.open("a", encoding="utf-8") as notes:
            for place, found in _survey_all([listed[m] for m in missing], root, workers, hashes, seconds):
                rows[missing[place]] = found
                notes.write(json.dumps(asdict(found)) + "\n")
                notes.flush()
        whole = [row for row in rows if row is not None]
        write_manifest(file, whole)
        part.unlink()
    return whole


def expected(splits: Mapping[str, VideoList]) -> Iterator[Row]:
    """A row for each video that a split lists, once, in the order of the lists."""
    on: dict[str, tuple[tuple[int, ...], list[str]]] = {}
    for split, videos in splits.items():
        for name, label in videos.listed():
            labels = label if isinstance(label, tuple) else (label,)
            on.setdefault(name, (labels, []))[1].append(split)
    for name, (labels, lists) in on.items():
        yield Row(name, PurePosixPath(name).stem, labels, ",".join(dict.fromkeys(lists)))


def _found_before(file: Path, part: Path) -> Iterator[Row]:
    """The rows of an earlier manifest, and then those of a census that was stopped; its last line may be torn."""
    if file.exists():
        yield from read_rows(file)
    if part.exists():
        for line in part.read_text(encoding="utf-8").splitlines():
            with contextlib.suppress(ValueError, TypeError):
                yield row_of(json.loads(line))


def _still_holds(listed: Row, found: Row | None, root: Path, hashes: bool) -> Row | None:
    """What was found before, if the file is still that one; None if it has to be read."""
    if found is None or (hashes and found.bytes and not found.sha256):
        return None
    try:
        version = version_of(root / listed.path)
    except OSError:
        version = (0, 0)
    if version != (found.bytes, found.mtime_ns):
        return None
    return replace(found, labels=listed.labels, splits=listed.splits)


def _survey_all(rows: list[Row], root: Path, workers: int, hashes: bool, seconds: float) -> Iterator[tuple[int, Row]]:
    requests = [(root / row.path, row, hashes) for row in rows]
    with bars() as progress:
        task = progress.add_task("reading", total=len(rows))
        for place, answer in by_helpers(SURVEY, requests, workers, seconds):
            progress.advance(task)
            yield place, _dangerous(root, rows[place], answer) if isinstance(answer, DecodeError) else answer


def _dangerous(root: Path, row: Row, error: DecodeError) -> Row:
    """The row of a file that hangs or crashes its reader."""
    size, mtime_ns = version_of(root / row.path)
    return replace(row, bytes=size, mtime_ns=mtime_ns, error=_without_path(error, root / row.path))


def survey(path: Path, row: Row, hashes: bool) -> Row:
    """The row of a file, filled in; what is wrong with the file is said in it."""
    try:
        size, mtime_ns = version_of(path)
    except OSError as error:
        return replace(row, error=reason(error))
    row = replace(row, bytes=size, mtime_ns=mtime_ns, sha256=_hash(path) if hashes else "")
    try:
        index = index_of(path)
        times, keys = regular(index)
        row = replace(
            row, frames=index.count, decoder=named("auto"), objection=index.objection, times=times, keys=keys,
            counted=index.times is None, **header(path),
        )  # fmt: skip
        decoded = _decode_all(path)
    except DecodeError as error:
        return replace(row, error=_without_path(error, path))
    except Exception as error:
        return replace(row, error=reason(error))
    if decoded < index.count:
        return replace(row, decoded=decoded, error=f"only {decoded} of {index.count} frames decode")
    return replace(row, decoded=index.count)


def header(path: Path) -> dict[str, Any]:
    """What the header of a file says."""
    with av.open(str(path)) as container:
        stream = video_stream(container)
        rate = float(stream.average_rate or 0)
        return {
            "codec": stream.codec_context.name, "fps": round(rate, 3), "width": stream.width, "height": stream.height,
            "header_frames": stream.frames,
        }  # fmt: skip


def _decode_all(path: Path) -> int:
    """Count the frames that a file gives, undamaged."""
    with av.open(str(path)) as container:
        return sum(not frame.is_corrupt for frame in container.decode(video_stream(container)))


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _without_path(error: DecodeError, path: Path) -> str:
    return str(error).removeprefix(f"{path}: ")


@dataclass(frozen=True)
class Count:
    """How many videos of a split are on its list, there, and decodable."""

    split: str
    expected: int
    present: int
    decodable: int


def counts(rows: list[Row]) -> list[Count]:
    """A count for each split, in the order of the rows, and one of all files where there are several."""
    splits = list(dict.fromkeys(split for row in rows for split in row.splits.split(",")))
    counted = [_count(split, [row for row in rows if split in row.splits.split(",")]) for split in splits]
    return counted if len(splits) == 1 else [*counted, _count("all files", rows)]


def _count(name: str, rows: list[Row]) -> Count:
    return Count(
        name, len(rows), sum(row.bytes > 0 or row.mtime_ns > 0 for row in rows), sum(not row.error for row in rows)
    )


def by_error(rows: list[Row]) -> list[tuple[str, int, str]]:
    """Each kind of error, how many files have it, and one of them; the most frequent first."""
    found = [(re.sub(r"\d+(\.\d+)?", "N", row.error), row.path) for row in rows if row.error]
    first = dict(reversed(found))
    return [(kind, number, first[kind]) for kind, number in Counter(kind for kind, _ in found).most_common()]
