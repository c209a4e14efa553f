"""Contestants that do the same work, measured in turn in a process of their own: time, peak memory, and agreement.

Time is that of the process's CPU on a CPU (one thread, so that other programs matter little) and that between two
events on a GPU. Peak memory is what a call needs above what is there before it: inputs, weights and what they keep.
On a CPU it is read from the system's own account of the process, after everything free has been given back, so that
whatever a library allocates is in it; what a library keeps from a call before is not.
"""

import contextlib
import ctypes
import gc
import multiprocessing
import re
import resource
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil
import torch
from torch import Tensor

from nl_lightning.errors import one_line

Call = Callable[[], Any]
Figures = list[dict[str, Any]]
PRELOAD = ["benchmarks.operations", "benchmarks.networks", "benchmarks.pipeline", "benchmarks.study_cost"]
"""What the measuring processes are forked with: imports take longer than most measurements, and code stays as it is."""
FEWEST_ROUNDS = 3
PEAKS, LONG = 3, 2.0
"""Calls by which memory is measured, and seconds of a call that is so long that one must do."""
SPARE = 0.85
"""Of the memory at hand, the share that a measuring process may take."""


@dataclass(frozen=True)
class Settings:
    """How a part is measured.

    Attributes:
        device: ``cpu`` or ``cuda``.
        quick: fewer cases, to see that everything works.
        repeats: rounds of each contest, at most.
        seconds: that the rounds of a contest may take; three rounds are done however long they take.
        memory: bytes that a contestant may need.
    """

    device: str
    quick: bool
    repeats: int
    seconds: float
    memory: int

    @property
    def precision(self) -> str:
        """What the operations are measured in: what such a device is used with."""
        return "float32" if self.device == "cpu" else "bf16"


@dataclass(frozen=True)
class Contest:
    """Those who do the same work, by name.

    Attributes:
        calls: what is measured.
        skipped: why someone isn't among them.
        errors: relative differences from the definition.
    """

    calls: Mapping[str, Call]
    skipped: Mapping[str, str] = field(default_factory=dict)
    errors: Callable[[], dict[str, float]] = dict


def memory_at_hand(device: str) -> int:
    """Bytes that could be allocated now."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else psutil.virtual_memory().available


def measure(build: Callable[[], Contest], settings: Settings) -> Figures:
    """A figure for each contestant of a contest, by rounds in which everyone has a turn."""
    contest = build()
    skipped, peaks, once = dict(contest.skipped), {}, 0.0
    for name, call in contest.calls.items():
        try:
            call()  # loads what the first call loads
            took = seconds(call, settings.device)
            peaks[name] = usual_peak(call, settings.device, 1 if took > LONG or settings.quick else PEAKS)
            once += took
        except (RuntimeError, MemoryError) as error:
            skipped[name] = said(error)
            gc.collect()
    fewest = 1 if settings.quick else FEWEST_ROUNDS
    rounds = max(fewest, min(settings.repeats, int(settings.seconds / max(once, 1e-9))))
    times = in_turns({name: contest.calls[name] for name in peaks}, rounds, settings.device)
    errors: dict[str, float] = {}
    with contextlib.suppress(RuntimeError, MemoryError):  # two results at once may be more than fits
        errors = contest.errors()
    found: Figures = []
    for name, call in contest.calls.items():
        if name in peaks:
            figure = {"name": name, "seconds": times[name], "bytes": peaks[name], "error": errors.get(name)}
            found.append(figure | ({"macs": call.macs} if hasattr(call, "macs") else {}))  # the work of a ceiling
    return found + [{"name": name, "skipped": reason} for name, reason in skipped.items()]


def in_turns(calls: Mapping[str, Call], rounds: int, device: str) -> dict[str, list[float]]:
    """Seconds of each call in so many rounds; nobody always follows the same one."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    turns = list(calls)
    for _ in range(rounds):
        for name in turns:
            times[name].append(seconds(calls[name], device))
        turns = turns[1:] + turns[:1]
    return times


def seconds(call: Call, device: str) -> float:
    """Of one call."""
    if device == "cpu":
        began = time.process_time()
        call()
        return time.process_time() - began
    begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    torch.cuda.synchronize()
    begin.record()
    call()
    end.record()
    torch.cuda.synchronize()
    return begin.elapsed_time(end) / 1000


def usual_peak(call: Call, device: str, calls: int) -> int | None:
    """The median of some calls' :func:`peak`: where the allocator finds room differs by some MiB."""
    known = [found for _ in range(calls) if (found := peak(call, device)) is not None]
    return int(statistics.median(known)) if known else None


def peak(call: Call, device: str) -> int | None:
    """Bytes of memory that one call needs above what is there before it; None where the system doesn't say."""
    gc.collect()
    if device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        call()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")  # the highest mark is now what is there
        resident = _account("VmRSS")
    except OSError:
        call()
        return None
    call()
    return max(0, _account("VmHWM") - resident)


def _account(entry: str) -> int:
    """Bytes, from the system's account of this process."""
    found = re.search(rf"{entry}:\s*(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return 1024 * int(found[1])


def difference(result: Tensor, exact: Tensor) -> float:
    """Largest difference, as a share of the largest number."""
    return float((result.to(exact.dtype) - exact).abs().max() / exact.abs().max())


# ------------------------------------------------------------------------------------------- processes of their own


def alone(work: Callable[[Settings], Figures], settings: Settings) -> Figures:
    """What `work` finds in a process of its own. RuntimeError if that process dies, as of too little memory."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOAD)
    with ProcessPoolExecutor(1, context, _begin, (settings,)) as pool:
        try:
            return pool.submit(work, settings).result()
        except BrokenProcessPool:
            raise RuntimeError("its process died, as of too little memory") from None


def _begin(settings: Settings) -> None:
    """One thread on a CPU, the allocator as in training, and no more memory than there is."""
    gc.freeze()  # what was imported before is never garbage, and takes long to look through
    if settings.device == "cpu":
        torch.set_num_threads(1)
        most = int(SPARE * memory_at_hand("cpu")) + _account("VmData")
        resource.setrlimit(resource.RLIMIT_DATA, (most, most))
        from nl_lightning.train.run_cli import keep_freed_memory  # as every command does

        keep_freed_memory()
    torch.manual_seed(0)
    gc.freeze()  # what was imported is never garbage, and each peak collects


def said(error: BaseException) -> str:
    """An error in a few words."""
    line = one_line(error)
    if re.search("not enough memory|out of memory|can't allocate memory", line, re.IGNORECASE):
        return "out of memory"
    return line[:120] or type(error).__name__
