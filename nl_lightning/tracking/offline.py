"""W&B runs as they lie on a server, or in the folders that W&B leaves behind when it runs offline.

Both are read as far as they tell of a record; whether it counts is :mod:`nl_lightning.tracking.read_back`'s. One run
that can't be read hides no other: it is listed with the reason.
"""

import contextlib
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import wandb
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
from wandb.errors import AuthenticationError, CommError
from wandb.proto.wandb_internal_pb2 import Record  # type: ignore[attr-defined]
from wandb.sdk.lib.service.service_connection import WandbApiFailedError

from nl_lightning.errors import UserError, one_line
from nl_lightning.study.border import parse_json
from nl_lightning.study.files import reason

PAGE = 200
"""Runs a request. A run with its configuration and record is some 10 kB."""
ODD = (ValueError, TypeError, KeyError, AttributeError, RecursionError)
"""What W&B's own client raises where a server answers something odd."""


@dataclass(frozen=True)
class WandbRun:
    """What of a W&B run matters here: how it stands, in W&B's words, and what its summary has as ``record``.

    A `repeat` trained nothing and gives another run's record once more.
    """

    id: str
    name: str
    state: str
    record: Any
    repeat: bool


def from_server(path: str) -> list[WandbRun]:
    """All runs of ``ENTITY/PROJECT``, or those of one sweep, ``ENTITY/PROJECT/SWEEP``.

    Raises:
        UserError: there is no such thing, there are no runs in it, or the server doesn't let us look.
    """
    parts = path.split("/")
    if len(parts) not in (2, 3) or not all(parts):
        raise UserError(f"--wandb: expected ENTITY/PROJECT or ENTITY/PROJECT/SWEEP, got '{path}'")
    try:
        if len(parts) == 3:
            wandb.Api().sweep(path)  # type: ignore[no-untyped-call]  # says if there is none; the filter finds no runs
        found = listed("/".join(parts[:2]), {"sweep": parts[2]} if len(parts) == 3 else {})
    except AuthenticationError as error:
        raise UserError(_refused(error)) from None
    except WandbApiFailedError as error:
        raise UserError(f"W&B at {_server()} failed: {one_line(error, 300)}; try again") from None
    except (wandb.Error, OSError, *ODD) as error:
        raise UserError(f"--wandb {path}: {one_line(error, 300)}; is it as in the address of its page?") from None
    if not found:
        raise UserError(f"--wandb {path}: no runs there yet")
    return found


def listed(project: str, filters: dict[str, Any], timeout: int | None = None) -> list[WandbRun]:
    """The runs of a project that a server gives. Raises what W&B's client does: ``wandb.Error`` or :data:`ODD`.

    `timeout` is in seconds; by default the client's, 19 or WANDB_HTTP_TIMEOUT.
    """

    def look(lazy: bool) -> list[WandbRun]:  # lazy: a request a run
        found = wandb.Api(timeout=timeout).runs(project, filters=filters, per_page=PAGE, lazy=lazy)
        return [_online(run) for run in found]

    try:
        return look(lazy=False)
    except (CommError, *ODD) as error:
        if not isinstance(getattr(error, "exc", error), ODD):
            raise
        return look(lazy=True)  # the client can't read one of the runs: this tells which


def _online(run: Any) -> WandbRun:
    summary: dict[str, Any] = {}
    state = str(run.state)
    try:
        summary = dict(run.summary_metrics)
    except (CommError, *ODD) as error:
        state = f"its summary can't be read: {one_line(error, 300)}"
    return WandbRun(str(run.id), str(run.name or run.id), state, summary.get("record"), "repeat_of" in summary)


def _refused(error: AuthenticationError) -> str:
    if getattr(error.__cause__, "response", None) is not None:
        return f"W&B at {_server()} doesn't accept the API key; log in with 'wandb login', or set WANDB_API_KEY"
    if error.__cause__ is not None:
        return f"W&B at {_server()} can't be reached; without it, see --wandb-offline"
    return one_line(error, 300)  # a key that can't be one: says its length


def _server() -> str:
    return wandb.setup().settings.base_url


def from_folders(folder: Path) -> list[WandbRun]:
    """The runs whose W&B folders (``offline-run-*``, ``run-*``) lie below a folder, each once. UserError: none do."""
    if not folder.is_dir():
        raise UserError(f"--wandb-offline: {folder} is no folder")
    files = {file.resolve() for file in folder.rglob("run-*.wandb") if "run-" in file.parent.name}
    if not files:
        raise UserError(f"--wandb-offline: no W&B runs (offline-run-*/run-*.wandb) below {folder}")
    attempts: dict[str, list[WandbRun]] = {}
    for file in sorted(files, key=lambda file: file.parent.name.removeprefix("offline-")):  # by the time in the name
        run = _offline(file)
        attempts.setdefault(run.id, []).append(run)
    runs = []
    for each in attempts.values():  # a run left a folder each time it went on: those with a record, or else the newest
        recorded = {repr(attempt.record): attempt for attempt in each if attempt.record is not None}
        runs += list(recorded.values()) or each[-1:]
    return runs


def _offline(file: Path) -> WandbRun:
    """A run as far as its file was written; a killed process leaves it without its end, or empty."""
    id_ = name = file.stem.removeprefix("run-")
    state = "running or killed"
    summary: dict[str, str] = {}  # values as JSON
    try:
        for record in _records(file):
            kind = record.WhichOneof("record_type")
            if kind == "run":
                name = record.run.display_name or id_
            elif kind == "summary":
                summary |= {item.key: item.value_json for item in record.summary.update}
            elif kind == "preempting":
                state = "preempted"
            elif kind == "exit" and state != "preempted":
                state = "failed" if record.exit.exit_code else "finished"
    except OSError as error:
        state = f"its file can't be read: {reason(error)}"
    told: Any = summary.get("record")
    with contextlib.suppress(UserError):  # a text that isn't JSON stays as it is, for it is no record either
        told = told and parse_json(told, "")
    return WandbRun(id_, name, state, told, repeat="repeat_of" in summary)


HEADER, BLOCK = 7, 32 * 1024
"""Bytes of the header of the file and of each chunk in it, and of a block, whose end no chunk crosses."""
WHOLE, FIRST, LAST = 1, 2, 4
"""Types of chunks: of a whole record, the first of several, the last."""


def _records(file: Path) -> Iterator[Record]:
    """The records in a ``.wandb`` file, in LevelDB's log format, up to the first that isn't whole.

    wandb 0.31 has no way to read them: its ``sync`` only sends them to a server, its ``leet`` only shows them.
    """
    content = file.read_bytes()
    at, data = HEADER, b""
    while at + HEADER <= len(content):
        if BLOCK - at % BLOCK < HEADER:
            at += BLOCK - at % BLOCK
            continue
        checksum, length, type_ = struct.unpack_from("<IHB", content, at)
        chunk = content[at + HEADER : at + HEADER + length]
        if zlib.crc32(chunk, zlib.crc32(bytes([type_]))) != checksum:
            return
        data = chunk if type_ in (WHOLE, FIRST) else data + chunk
        if type_ in (WHOLE, LAST):
            record = Record()
            try:
                record.ParseFromString(data)
            except DecodeError:
                return
            yield record
        at += HEADER + length
