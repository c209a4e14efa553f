"""What has been measured on a machine: a JSON file a part, to which a run adds and from which nothing is taken."""

import functools
import hashlib
import json
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from benchmarks.machine import REPOSITORY
from nl_lightning.study.files import write_atomically

Entry = Mapping[str, Any]


class Store:
    """The entries of a part, oldest first. Each has its `case`, its `figures`, and what they were measured with."""

    def __init__(self, folder: Path, part: str) -> None:
        self.path = folder / f"{part}.json"
        self.entries: list[Entry] = json.loads(self.path.read_text()) if self.path.exists() else []

    def has(self, case: Mapping[str, Any]) -> bool:
        """Whether a case has been measured with the code as it is."""
        code, plain = code_hash(), json.loads(json.dumps(case))
        return any(e["code"] == code and e["case"] == plain and not failures(e) for e in self.entries)

    def add(self, case: Mapping[str, Any], figures: list[dict[str, Any]], setting: Mapping[str, Any]) -> None:
        entry = {"case": dict(case), "figures": figures, "setting": dict(setting), "code": code_hash()}
        entry |= {"commit": commit(), "torch": torch.__version__}
        self.entries.append(entry | {"finished": datetime.now(UTC).isoformat(timespec="seconds")})
        lines = ",\n".join(json.dumps(entry) for entry in self.entries)
        write_atomically(self.path, f"[\n{lines}\n]\n")

    def newest(self) -> list[Entry]:
        """Of each case the entry that was added last; one that failed only if there is no other."""
        found: dict[str, Entry] = {}
        for entry in self.entries:
            key = json.dumps(entry["case"], sort_keys=True)
            if key not in found or not failures(entry):
                found[key] = entry
        return list(found.values())


def failure(error: Exception) -> dict[str, Any]:
    """The figure of a case that failed."""
    return {"name": "all", "skipped": f"failed: {' '.join(str(error).split())[:200]}"}


def failures(entry: Entry) -> list[str]:
    """Why a case has no figures, if it failed."""
    return [figure["skipped"] for figure in entry["figures"] if figure["name"] == "all"]


@functools.cache  # what has been imported stays, whatever becomes of the files
def code_hash() -> str:
    """Of the code that is measured: the networks."""
    digest = hashlib.sha256()
    for path in sorted((REPOSITORY / "nl_lightning" / "models").glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:12]


@functools.cache
def commit() -> str:
    """The commit that is checked out, ``-dirty`` where code beside it isn't committed; figures are no code."""
    code = ["--", "nl_lightning", "benchmarks", ":!benchmarks/results"]
    try:
        found = [
            subprocess.run(["git", "-C", str(REPOSITORY), *words], capture_output=True, text=True, check=True).stdout
            for words in (["rev-parse", "--short", "HEAD"], ["status", "--porcelain", *code])
        ]
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return found[0].strip() + ("-dirty" if found[1] else "")
