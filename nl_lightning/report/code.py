"""Whether the records of a table were made by different code: by commits that differ where numbers are computed."""

import functools
import re
import subprocess
from collections.abc import Iterable
from pathlib import Path

from nl_lightning.report.collate import visible_line
from nl_lightning.study.records import Record

COMPUTES = ("models", "train", "data", "weights")
"""Folders of the package whose files can change a number of a run."""
PACKAGE = Path(__file__).parents[1]


def mixed_code(records: Iterable[Record]) -> str:
    """What to say of the commits, where their numbers can differ by the code; else nothing."""
    commits = tuple(sorted({visible_line(_code(record)) for record in records}))
    if len(commits) < 2 or (changed := _changed(commits)) == ():
        return ""
    named = ", ".join(commit[:12] for commit in commits[:4]) + (f" and {len(commits) - 4} more" if commits[4:] else "")
    if changed is None:
        return f"Mixed code: records are of commits {named}; whether these compute alike isn't known here"
    files = f"{len(changed)} files" if len(changed) > 1 else changed[0]
    return f"Mixed code: records are of commits {named}, which differ in {files} where numbers are computed"


def _code(record: Record) -> str:
    """Its commit; of an installed package, which has none, its version."""
    version = record.versions.get("nl-lightning")
    return f"v{version}" if version and record.commit == "unknown" else record.commit


def mixed_source(records: Iterable[Record]) -> str:
    """What to say of classes that a study names, where the files that they were in differ; else nothing."""
    found: dict[str, set[str]] = {}
    for name, digest in (pair for one in records if one.evidence for pair in one.evidence.source.items()):
        found.setdefault(visible_line(name), set()).add(digest)
    odd = [name for name, digests in found.items() if len(digests) > 1]
    return f"Mixed code: the file of {', '.join(odd)} was changed between these records" if odd else ""


@functools.cache
def _changed(commits: tuple[str, ...]) -> tuple[str, ...] | None:
    """Files that compute numbers and differ between some of the commits; None if the repository isn't here."""
    if not all(re.fullmatch("[0-9a-f]{7,64}", commit) for commit in commits):  # no option of git's, and not "unknown"
        return None
    found: set[str] = set()
    how = ["--name-only", "--relative", "--find-renames"]  # the last one, as a user's settings may turn it off
    for commit in commits[1:]:
        command = ["git", "-C", str(PACKAGE), "diff", *how, commits[0], commit, "--", *COMPUTES]
        try:
            said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600).stdout
        except (OSError, subprocess.SubprocessError):
            return None
        found.update(line for line in said.splitlines() if line.endswith(".py"))
    return tuple(sorted(found))
