"""The page and the plots of a machine's figures, ``speed.md`` and log-log SVGs, from all that has been measured."""

import statistics
from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure as Drawing

from benchmarks import machine
from benchmarks.networks import OURS, SETTINGS
from benchmarks.pipeline import STAGES
from benchmarks.ratios import (
    LIKE,
    Entry,
    Figure,
    Growth,
    Rates,
    ceiling,
    figures,
    fraction,
    growths,
    laptop_hours,
    operation_ratio,
    paper_hours,
    rates,
    seconds,
    total,
)
from benchmarks.store import Store, failures
from benchmarks.targets import share, targets, times
from nl_lightning.models.conventions import INSTANTIATIONS
from nl_lightning.report.render import markdown_table
from nl_lightning.report.words import of_rows
from nl_lightning.study.files import write_atomically
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study

PARTS = ("operations", "networks", "growth", "pipeline", "study")
NOTHING = "-"
QUICK = "quick"
BLOCKS = (
    "ours, pool before", "plain, pool before", "pytorchvideo",
    "ours, pool after", "plain, pool after", "mmcv", "all pairs",
)  # fmt: skip


def write(folder: Path) -> None:
    """Write the page and the plots anew."""
    parts = {part: Store(folder, part).newest() for part in PARTS}
    everything = [entry for entries in parts.values() for entry in entries]
    if not everything:
        return
    cuda = any(entry["setting"]["device"] == "cuda" for entry in everything)
    sections = [
        _about(folder, everything),
        "## Targets\n\n" + _targets(parts, cuda),
        *_section("The block", parts["operations"], _operations),
        *_section("Whole networks", parts["networks"], _networks),
        *_section("Growth with N", parts["growth"], _growth),
        *_section("The pipeline", parts["pipeline"], _pipeline),
    ]
    study = partial(_study, machines=_machines(folder, parts["networks"]))
    sections += _section("The whole of Table 2", parts["study"], study)
    draw(folder, parts)
    write_atomically(folder / "speed.md", "\n\n".join(sections) + "\n")


def home(folder: Path) -> Path:
    """The machine's folder; that of a quick look lies in it."""
    return folder.parent if folder.name == QUICK else folder


def _section(title: str, entries: list[Entry], render: Any) -> list[str]:
    if not entries:
        return []
    failed = "\n".join(f"- {_words(entry['case'])}: {reason}" for entry in entries for reason in failures(entry))
    return ["\n\n".join([f"## {title}", render(entries), *([failed] if failed else [])])]


def _words(case: dict[str, Any]) -> str:
    return " ".join(str(value) for value in case.values())


def _about(folder: Path, entries: list[Entry]) -> str:
    last = max(entries, key=lambda entry: str(entry["finished"]))
    setting = last["setting"]
    name = home(folder).name
    what = f"{machine.processor()}, {machine.cores()} cores" if name == machine.label() else name
    lines = [
        "# Speed",
        "Written by `python -m benchmarks.run`: every ratio and verdict is computed from the JSON files beside it.",
        f"- machine: {what}; device: {setting['device']}; torch {last['torch']}",
        f"- measured: {min(e['finished'] for e in entries)[:10]} to {last['finished'][:10]}, "
        f"code {', '.join(sorted({entry['commit'] for entry in entries}))}",
        f"- time: medians of up to {setting['repeats']} rounds in which every contestant has a turn; "
        + ("seconds of CPU time of one thread" if setting["device"] == "cpu" else "seconds between CUDA events"),
        "- memory: peak above what is there before the call (input, weights); what libraries keep from an earlier call "
        "isn't counted",
        "- allocator, the same for all: keeps freed memory, as in training",
    ]
    return "\n\n".join(lines[:2]) + "\n\n" + "\n".join(lines[2:])


def _targets(parts: dict[str, list[Entry]], cuda: bool) -> str:
    words = {True: "met", False: "not met", None: NOTHING}
    rows = [[t.what, t.wanted, t.measured, words[t.met], t.note] for t in targets(parts, cuda)]
    return markdown_table(of_rows(["", "target", "measured", "", ""], rows, labels=5))


# ----------------------------------------------------------------------------------------------------- operations


def _operations(entries: list[Entry]) -> str:
    order = {place: rank for rank, place in enumerate(("res2", "res3", "res4"))}
    there = sorted(entries, key=lambda entry: (order[entry["case"]["place"]], *_size(entry)))
    header = ["map", "instantiation", "", *BLOCKS, "faster", "memory", "error"]
    rows = [_operation_row(entry) for entry in there]
    text = (
        "Milliseconds / MiB of one block on one clip's map. *faster* and *memory*: ours against the best peer that "
        "pools where ours does, the worse of the two. *error*: the largest difference of ours from the definition (in "
        "float64, where there is room for it), as a share of the largest number; in training of the input's gradient, "
        "too. mmcv's concatenation can't train: a ReLU in place breaks its backward. ![time of a block](operations.svg)"
    )
    return f"{text}\n\n{markdown_table(of_rows(header, rows, labels=3))}"


def _size(entry: Entry) -> tuple[Any, ...]:
    case = entry["case"]
    rank = INSTANTIATIONS.index(case["instantiation"])
    return case["clip_frames"], case["pixels"], not case["subsample"], rank, case["phase"]


def _operation_row(entry: Entry) -> list[str]:
    case, ratio, found = entry["case"], operation_ratio(entry), figures(entry)
    queries = case["frames"] * case["side"] ** 2
    keys = case["frames"] * (case["side"] // 2) ** 2 if case["subsample"] else queries
    by_name = {figure["name"]: figure for figure in entry["figures"]}
    errors = [found[name]["error"] for name in LIKE if name in found and found[name]["error"] is not None]
    return [
        f"{case['place']}, {case['clip_frames']} frames of {case['pixels']}: {queries:,} x {keys:,}",
        case["instantiation"].replace("_", " "),
        case["phase"],
        *(_cell(by_name.get(name)) for name in BLOCKS),
        NOTHING if ratio.faster is None else times(ratio.faster),
        NOTHING if ratio.memory is None else share(ratio.memory),
        f"{max(errors):.0e}" if errors else NOTHING,
    ]


def _cell(figure: Figure | None) -> str:
    if figure is None:
        return NOTHING
    if "skipped" in figure:
        return str(figure["skipped"])
    memory = "?" if figure["bytes"] is None else f"{figure['bytes'] / 2**20:,.0f}"
    milliseconds = 1000 * seconds(figure)
    return f"{milliseconds:,.0f} / {memory}" if milliseconds >= 10 else f"{milliseconds:.2g} / {memory}"


# ------------------------------------------------------------------------------------------------------- networks


def _networks(entries: list[Entry]) -> str:
    names = [*OURS, *SETTINGS]
    header = ["", *names, "ceiling float32", "ceiling bf16"]
    rows = []
    for entry in sorted(entries, key=lambda e: (e["case"]["backbone"], e["case"]["blocks"], e["case"]["phase"])):
        case = entry["case"]
        row = f"{case['backbone']} R{case['depth']}, {case['blocks']} blocks, "
        row += f"{case['clips']} x {case['frames']} x {case['side']}, {case['phase']}"
        tops = [ceiling(figures(entry), precision) for precision in ("float32", "bf16")]
        cells = [_network_cell(entry, name) for name in names]
        rows.append([row, *cells, *(NOTHING if top is None else f"{2 * top / 1e9:,.0f} GFLOP/s" for top in tops)])
    text = (
        "Milliseconds / MiB, and the share of the ceiling that is reached: of the faster of a large matrix product and "
        "a large convolution in the same precision, measured in the same rounds. A training step is a forward, a "
        "backward (counted as twice the multiply-adds) and SGD."
    )
    return f"{text}\n\n{markdown_table(of_rows(header, rows))}"


def _network_cell(entry: Entry, name: str) -> str:
    by_name = {figure["name"]: figure for figure in entry["figures"]}
    reached = fraction(entry, name)
    return _cell(by_name.get(name)) + ("" if reached is None else f", {reached:.0%}")


# --------------------------------------------------------------------------------------------------------- growth


def _growth(entries: list[Entry]) -> str:
    rows = [
        [c.instantiation.replace("_", " "), c.along, c.phase, c.name, f"{c.sizes[0]:,} to {c.sizes[-1]:,}",
         *(NOTHING if exponent is None else f"{exponent:.2f}" for exponent in (c.time, c.memory))]
        for c in growths(entries)
    ]  # fmt: skip
    header = ["", "more", "", "", "N", "exponent of time", "of memory"]
    text = "Slopes of lines through the logarithms; all keys, the block of res4. ![growth with N](growth.svg)"
    return f"{text}\n\n{markdown_table(of_rows(header, rows, labels=5))}"


# ------------------------------------------------------------------------------------------------ pipeline, study


def _pipeline(entries: list[Entry]) -> str:
    names = [*STAGES, "all, from files", "all, from the decoded copy"]
    rows = []
    for entry in entries:
        found = figures(entry)
        clips = {name: entry["case"]["clips"] / seconds(found[name]) for name in names if name in found}
        alone = {stage: clips[stage] for stage in STAGES if stage in clips}
        slowest = min(alone, key=lambda stage: alone[stage], default=NOTHING)
        cells = [f"{clips[name]:,.0f}" if name in clips else NOTHING for name in names]
        rows.append([entry["case"]["variant"], *cells, slowest])
    header = ["clips a second", *names, "bottleneck"]
    recipe = entries[0]["case"]["recipe"]
    return f"Recipe `{recipe}`, one process.\n\n{markdown_table(of_rows(header, rows))}"


def _machines(folder: Path, networks: list[Entry]) -> dict[str, Rates]:
    """The rates of this machine, and of others with figures of networks."""
    found, own = {"here": rates(networks)} if networks else {}, home(folder)
    others = [path for path in sorted(own.parent.glob("*/networks.json")) if path.parent != own]
    return found | {path.parent.name: rates(Store(path.parent, "networks").newest()) for path in others}


def _study(entries: list[Entry], machines: dict[str, Rates]) -> str:
    study = load_study(find_study("table2"))
    laptop = {e["case"]["variant"]: e for e in entries if "epochs" in e["case"]}
    counted = {e["case"]["variant"]: f for e in entries if "epochs" not in e["case"] for f in figures(e).values()}
    columns = {"longrange": {v: laptop_hours(e) for v, e in laptop.items()}}
    if any("before" in figures(entry) for entry in laptop.values()):
        columns["longrange, before"] = {v: laptop_hours(e, "before") for v, e in laptop.items()}
    for name, of in machines.items():
        columns[f"as the paper, {name}"] = {v: paper_hours(f, study.variant(v), of) for v, f in counted.items()}
    rows = [
        [variant, _step(laptop.get(variant)), *(_hours(hours.get(variant)) for hours in columns.values())]
        for variant in dict.fromkeys([*laptop, *counted])
    ]
    rows.append([f"all {len(rows)}", "", *(_hours(total(hours.values())) for hours in columns.values())])
    text = (
        "Hours of one core (of one GPU). `longrange`: the measured steps, times the recipe's counts of training steps, "
        "validated and tested views, and the start of each process. *As the paper*: Kinetics-400, 32 and 128 frames, "
        "all clips of 400k iterations and the test, by their multiply-adds and the rate that the most similar measured "
        "network reaches on that machine; decoding is not in it."
    )
    grid = of_rows(["hours", "step, ms", *columns], rows)
    return f"{text}\n\n{markdown_table(grid)}\n\n{_where_time_goes(laptop.values())}"


def _step(entry: Entry | None) -> str:
    found = {} if entry is None else figures(entry)
    return f"{1000 * seconds(found['ours']):,.0f}" if "ours" in found else NOTHING


def _hours(value: float | None) -> str:
    if value is None:
        return NOTHING
    return f"{value:,.0f}" if value >= 100 else f"{value:.2g}"


def _where_time_goes(entries: Iterable[Entry]) -> str:
    """The shares of training and of the starts of processes in the whole of the laptop's study."""
    train = start = whole = 0.0
    for entry in entries:
        hours, found = laptop_hours(entry), figures(entry)
        if hours is None:
            continue
        figure, case = found["ours"], entry["case"]
        train += case["epochs"] * (figure["videos"]["train"] // case["batch_size"]) * seconds(figure)
        start += statistics.median(figure["start_seconds"])
        whole += 3600 * hours
    if not whole:
        return ""
    shares = {"training": train, "validating and testing": whole - train - start, "start": start}
    return f"Where the time goes: {', '.join(f'{what} {part / whole:.0%}' for what, part in shares.items())}."


# ---------------------------------------------------------------------------------------------------------- plots

COLOURS = dict(zip(INSTANTIATIONS, ("tab:blue", "tab:orange", "tab:green", "tab:red"), strict=True))


def draw(folder: Path, parts: dict[str, list[Entry]]) -> None:
    with rc_context({"svg.hashsalt": "nl-lightning", "font.size": 8}):
        if any(figures(entry) for entry in parts["operations"]):
            _draw_operations(parts["operations"]).savefig(folder / "operations.svg", metadata={"Date": None})
        if curves := growths(parts["growth"]):
            _draw_growth(curves).savefig(folder / "growth.svg", metadata={"Date": None})


def _draw_operations(entries: Sequence[Entry]) -> Drawing:
    """Seconds against pairs: ours as dots, the best peer as rings."""
    drawing = Drawing(figsize=(9, 4), layout="constrained")
    for ax, phase in zip(drawing.subplots(1, 2, sharey=True), ("forward", "training"), strict=True):
        for instantiation, colour in COLOURS.items():
            there = [e for e in entries if (e["case"]["instantiation"], e["case"]["phase"]) == (instantiation, phase)]
            _points(ax, there, [*LIKE], instantiation.replace("_", " "), colour, colour)
            peers = [name for name in BLOCKS if not name.startswith(("ours", "plain"))]
            _points(ax, there, peers, None, colour, "none")
        _logarithmic(ax, "pairs of positions", f"{phase}, seconds (dots: ours; rings: best peer)")
    drawing.axes[0].legend(frameon=False)
    return drawing


def _points(ax: Axes, entries: list[Entry], names: list[str], label: str | None, edge: str, face: str) -> None:
    x, y = [], []
    for entry in entries:
        case, found = entry["case"], figures(entry)
        times_ = [seconds(found[name]) for name in names if name in found]
        if times_:
            queries = case["frames"] * case["side"] ** 2
            x.append(queries * (queries // 4 if case["subsample"] else queries))
            y.append(min(times_))
    if x:
        ax.scatter(x, y, s=18, edgecolors=edge, facecolors=face, label=label)


def _draw_growth(curves: Sequence[Growth]) -> Drawing:
    """Time and memory of training against N: ours as lines, the definition dashed."""
    drawing = Drawing(figsize=(9, 4), layout="constrained")
    for ax, what in zip(drawing.subplots(1, 2), ("seconds", "bytes"), strict=True):
        for curve in curves:
            if curve.phase == "training" and curve.along == "frames":
                style = ("o-", curve.instantiation.replace("_", " ")) if curve.name == "ours" else ("x--", None)
                colour = COLOURS[curve.instantiation]  # type: ignore[index]
                ax.plot(curve.sizes, getattr(curve, what), style[0], color=colour, label=style[1], markersize=4)
        _logarithmic(ax, "positions N", f"training, {what} (lines: ours; dashed: all pairs)")
    drawing.axes[0].legend(frameon=False)
    return drawing


def _logarithmic(ax: Axes, x: str, y: str) -> None:
    ax.set(xlabel=x, ylabel=y)
    if ax.has_data():  # there are no logarithms of nothing
        ax.set(xscale="log", yscale="log")
    ax.grid(alpha=0.3)
