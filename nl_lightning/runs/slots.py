"""A machine shared among workers: an even part of the cores for each, and of the GPUs."""

import os
from pathlib import Path


class Slots:
    """As many places as there are workers. With fewer GPUs than workers, several workers share one."""

    def __init__(self, workers: int) -> None:
        # More threads than cores would only wait for each other; who has set their number has a reason.
        self.threads = os.environ.get("OMP_NUM_THREADS") or str(max(1, cores() // workers))
        self.free = list(range(workers))
        gpus = _gpus()
        each = max(1, len(gpus) // workers)
        self.gpus = [[gpus[(slot * each + i) % len(gpus)] for i in range(each) if gpus] for slot in range(workers)]

    def take(self) -> int:
        return self.free.pop(0)

    def give_back(self, slot: int) -> None:
        self.free.append(slot)

    def environment(self, slot: int) -> dict[str, str]:
        """What keeps a process to its slot."""
        threads = {"OMP_NUM_THREADS": self.threads}
        return threads | ({"CUDA_VISIBLE_DEVICES": ",".join(self.gpus[slot])} if self.gpus[slot] else {})


def cores() -> int:
    """The cores that this process may use; a cluster may have given it a few of the machine's."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _gpus() -> list[str]:
    """The GPUs that this process may use, by number or name; without asking torch, which takes seconds."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None:
        return [gpu for gpu in visible.split(",") if gpu.strip()]
    return [str(number) for number, _ in enumerate(Path("/proc/driver/nvidia/gpus").glob("*"))]
