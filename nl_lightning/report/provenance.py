"""Where the numbers of a report come from: what a reader needs to weigh them, in words. Plain text."""

import shlex
from collections import Counter
from collections.abc import Iterable, Sequence

from nl_lightning.report.code import mixed_code
from nl_lightning.report.collate import Runs
from nl_lightning.report.words import counted
from nl_lightning.study.records import Record


def provenance(runs: Runs) -> list[tuple[str, str]]:
    """What a reader needs to weigh the numbers: runs, videos, views, decoder, versions, code, machine, splits, time."""
    records, folds = runs.records(), runs.recipe.folds
    several = "s" if len(runs.seeds) > 1 else ""
    seeds = f"seed{several}: {', '.join(map(str, runs.seeds))}"
    if folds > 1:
        splits = ", ".join(str(seed % folds + 1) for seed in runs.seeds)
        seeds += f", which {'are' if several else 'is'} the official split{several} {splits}"
    if runs.left_out:
        seeds += f" (left out, as asked: {', '.join(map(str, runs.left_out))})"
    lines = [("recipe", f"{runs.recipe.name}; {seeds}"), ("runs", progress(runs))]
    asked = "" if runs.seeds == (0,) else "".join(f" --seed {seed}" for seed in runs.seeds)
    if not records:
        return lines
    again = f"nl-lightning run {shlex.quote(runs.study.path.stem)} --recipe {runs.recipe.name}{asked}"
    lines.append(("command", f"{again}; each record has its own"))
    versions = ("versions", _several(", ".join(map(" ".join, sorted(r.versions.items()))) for r in records))
    if runs.study.metric.own:
        module = ("module", _several(r.module for r in records))
        items = ("test items", _several(r.videos_expected or "not told" for r in records))
        return [*lines, module, items, versions, ("nl-lightning", _several(map(code_of, records))), *_cost(records)]
    videos = [f"{_several(r.videos_expected for r in records)} expected"]
    counts = [(r.videos_present, r.videos_decodable) for r in records]
    if not any(None in count for count in counts):
        videos.append(_several(f"{present} present, {decodable} decodable" for present, decodable in counts))
    scored = f"{_several(r.videos_scored for r in records)} scored"
    unreadable = list(dict.fromkeys(name for record in records for name in record.unreadable))
    if unreadable:
        more = f" and {len(unreadable) - 5} more" if len(unreadable) > 5 else ""
        scored += f"; unreadable, counted as wrong: {', '.join(unreadable[:5])}{more}"
    known = [r.evidence.content for r in records if r.evidence and r.evidence.content]
    contents = [", ".join(f"{split} {said}" for split, said in of.items()) for of in known]
    stills = runs.records(runs.study.variants.keys() - set(runs.study.compared))
    code = _several(map(code_of, records))
    if others := {code_of(one) for one in stills} - {code_of(one) for one in records}:
        mixed = mixed_code([*stills, *records])
        code += f"; of stills {', '.join(sorted(others))}" + (f". {mixed}" if mixed else "")
    return [
        *lines,
        ("test videos", ", ".join([*videos, scored])),
        ("views of a video (clips x crops)", _several(f"{r.num_clips} x {r.num_crops}" for r in records)),
        ("decoder", _several(r.decoder for r in records)),
        versions,
        ("code", code),
        *([("content of the splits", _several(contents))] if contents else []),
        *_cost(records, stills),
    ]


def _cost(records: Sequence[Record], stills: Sequence[Record] = ()) -> list[tuple[str, str]]:
    """On which machines, and what it took in time, memory and energy."""
    train, test = (_hours(sum(getattr(r, f"{phase}_seconds") for r in records)) for phase in ("train", "test"))
    before = f", {_hours(sum(r.train_seconds + r.test_seconds for r in stills))} for stills before" if stills else ""
    found = [
        ("device", _several(map(_device, records))),
        ("time in all", f"{train} of training, {test} of testing{before}; by the clock, run by run"),
    ]
    machines = [one.machine for one in (*records, *stills) if one.machine]
    if peaks := [one.peak_memory for one in machines if one.peak_memory is not None]:
        found.append(("memory", f"{max(peaks):.1f} GiB of a process at most"))
    if len(machines) == len(records) + len(stills):
        energy = [sum(one.energy.values()) for one in machines if one.energy]
        told = f"{sum(energy):,.0f} kJ" if len(energy) == len(machines) else "not told by the machine"
        found.append(("energy", told))
    return found


def _device(record: Record) -> str:
    one = record.machine
    if one is None:
        return record.device
    said = [record.device, one.processor, one.accelerator, f"{one.cores} cores" if one.cores else ""]
    said += [f"{one.memory:.0f} GiB" if one.memory else "", one.precision]
    return ", ".join(filter(None, said))


def code_of(record: Record) -> str:
    """The commit that a record was measured with, as it is shown; of an installed package its version."""
    before = ", trained in part with other code or packages" if record.earlier_code else ""
    if record.commit == "unknown":
        version = record.versions.get("nl-lightning")
        return (f"version {version}, installed (no git commit)" if version else "installed (no git commit)") + before
    return record.commit[:12] + (" with uncommitted changes" if record.dirty else "") + before


def progress(runs: Runs) -> str:
    """How many runs are done, stills among them, and where the others stand."""
    counts = Counter(runs.stands(*key) for key in runs.states)
    stills = sum(runs.stands(*key) == "done" for key in runs.states if key[0] not in runs.study.compared)
    done = [f"{counts.pop('done', 0)} of {len(runs.states)} done", *[f"{stills} of them of stills"] * (stills > 0)]
    return ", ".join([*done, *(f"{count} {name}" for name, count in sorted(counts.items()))])


def _several(values: Iterable[object]) -> str:
    """One value as it is; different ones with the number of runs of each."""
    counts = Counter(map(str, values))
    if len(counts) == 1:
        return next(iter(counts))
    return "; ".join(f"{value} ({counted(n, 'run')})" for value, n in counts.items())


def _hours(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} min"
