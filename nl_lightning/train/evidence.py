"""Collects what a record says beside its numbers (:mod:`nl_lightning.study.evidence`)."""

import contextlib
import ctypes
import hashlib
import os
import platform
import resource
import shlex
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch
from pytorch_lightning.callbacks import Callback
from torch import Tensor

from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.errors import UserError
from nl_lightning.study.evidence import Machine, cores
from nl_lightning.study.finding import find_study
from nl_lightning.study.recipe import find_recipe
from nl_lightning.study.run import Run

POWERCAP = Path("/sys/class/powercap")
Counter = tuple[Callable[[], float], float]
"""What reads a counter of energy, in joules, and the joules at which it starts again from 0."""
MOST_READ, MOST_ASKED = 256 << 20, 50_000
"""Bytes of a split that are read to hash its content; files of one that are asked for their size."""


class Meter(Callback):
    """When the run first began, and the energy that it has taken, in this process and in those that it goes on from."""

    def __init__(self) -> None:
        self.started = datetime.now(UTC).isoformat(timespec="seconds")
        self.counters = {"processors": processors(), "accelerators": accelerators()}
        self.joules = {name: 0.0 for name, counters in self.counters.items() if counters}
        self.last, self.looked = self._read(), time.monotonic()

    def _read(self) -> dict[str, list[float]]:
        return {name: [read() for read, _ in self.counters[name]] for name in self.joules}

    def measure(self) -> None:
        """Add what the counters say since they were last looked at. They start again from 0 after some minutes."""
        self.looked = time.monotonic()
        try:
            now = self._read()
        except (OSError, ValueError):  # no energy is better than a part of it
            self.joules = {}
            return
        for name in self.joules:
            readings = zip(self.last[name], now[name], self.counters[name], strict=True)
            self.joules[name] += sum((after - before) % span for before, after, (_, span) in readings)
        self.last = now

    def on_train_batch_end(self, *_: Any) -> None:
        if time.monotonic() - self.looked >= 10:
            self.measure()

    def on_test_batch_end(self, *_: Any) -> None:
        self.on_train_batch_end()

    def state_dict(self) -> dict[str, Any]:
        self.measure()
        return {"started": self.started, "joules": dict(self.joules)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.started, before = state["started"], state["joules"]
        self.joules = {name: joules + before[name] for name, joules in self.joules.items() if name in before}


def processors() -> list[Counter]:
    """Counters of all processors (RAPL); nothing if one of them can't be read, as root's alone."""
    packages = [path for path in POWERCAP.glob("intel-rapl:*") if path.name.count(":") == 1]
    files = [(path / "energy_uj", path / "max_energy_range_uj") for path in sorted(packages)]
    try:
        counters: list[Counter] = [(partial(_joules, file), _joules(span)) for file, span in files]
        return counters if all(read() >= 0 for read, _ in counters) else []
    except (OSError, ValueError):
        return []


def _joules(file: Path) -> float:
    return int(file.read_text()) / 1e6


def accelerators() -> list[Counter]:
    """Counters of the GPUs that this process sees (NVML); nothing if one of them doesn't tell."""
    if not torch.cuda.is_available():
        return []
    try:
        library = ctypes.CDLL("libnvidia-ml.so.1")
        library.nvmlInit_v2()
        uuids = [f"GPU-{torch.cuda.get_device_properties(i).uuid}" for i in range(torch.cuda.device_count())]
        counters: list[Counter] = [(partial(_gpu_joules, library, uuid), 2.0**64 / 1e3) for uuid in uuids]
        return counters if all(read() >= 0 for read, _ in counters) else []
    except (OSError, AttributeError):
        return []


def _gpu_joules(library: ctypes.CDLL, uuid: str) -> float:
    """What a GPU has taken since its driver was loaded. OSError if it doesn't tell."""
    handle, millijoules = ctypes.c_void_p(), ctypes.c_ulonglong()
    failed = library.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(handle))
    if failed or library.nvmlDeviceGetTotalEnergyConsumption(handle, ctypes.byref(millijoules)):
        raise OSError(f"{uuid} doesn't tell its energy")
    return millijoules.value / 1e3


def machine(trainer: L.Trainer, meter: Meter) -> Machine:
    """The machine that this process runs on, and what the process took of it."""
    on_gpu = trainer.strategy.root_device.type == "cuda"
    meter.measure()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if platform.system() == "Darwin" else 1024)
    return Machine(
        processor=processor(),
        accelerator=torch.cuda.get_device_name() if on_gpu else "",
        cores=cores(),
        memory=_gib(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")),
        precision=str(trainer.precision),
        peak_memory=_gib(peak),
        peak_accelerator_memory=_gib(torch.cuda.max_memory_reserved()) if on_gpu else None,
        energy={name: round(joules / 1e3, 3) for name, joules in meter.joules.items()},  # type: ignore[misc]
    )


def _gib(number: int) -> float:
    return round(number / 2**30, 2)


def processor() -> str:
    """Its name, as the system has it."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def command(run: Run) -> str:
    """What makes the record of a run again; a study or a recipe that isn't found by its name is ``.../its file``."""
    study, recipe = _named(run.study.path, find_study), _named(run.base.files[0], find_recipe)
    words = ["nl-lightning", "run", study, "--recipe", recipe, "--variant", run.variant.name, "--seed", str(run.seed)]
    return shlex.join(words)


def _named(path: Path, find: Callable[[str], Path]) -> str:
    with contextlib.suppress(UserError, OSError):
        if find(path.stem).samefile(path):
            return path.stem
    return f".../{path.name}"


def content(data: VideoDataModule, split: str) -> str:
    """The hash of a split's list and content, see :class:`~nl_lightning.study.evidence.Evidence`."""
    videos = data.videos(split)
    found = hashlib.sha256("".join(f"{path} {label}\n" for path, label in videos.listed()).encode(errors="replace"))
    kind = "list"
    if data.manifest is not None:
        kind = "census"
        found.update(data.manifest.content(videos.paths).encode())
    elif data.shards is None and len(videos) <= MOST_ASKED:
        sizes = [_size(path) for path in videos.paths]
        kind = "bytes" if sum(sizes) <= MOST_READ else "sizes"
        for path, size in zip(videos.paths, sizes, strict=True):
            found.update(f"{size} ".encode())
            if kind == "bytes" and size >= 0:
                with contextlib.suppress(OSError):
                    found.update(path.read_bytes())
    return f"{kind}:{found.hexdigest()[:12]}"


def _size(path: Path) -> int:
    """Bytes of a file; -1 if there is none."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def weights(tensors: Mapping[str, Tensor]) -> str:
    """12 hexadecimal digits of named tensors: two networks with the same ones are equal to the last bit."""
    found = hashlib.sha256()
    for name, tensor in sorted(tensors.items()):
        found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        found.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()[:12]
