"""The machine that figures were measured on: a short label, and the folder of its figures."""

import platform
import re
from pathlib import Path

from nl_lightning.runs.schedule import cores as cores

RESULTS = Path(__file__).resolve().parent / "results"


def processor() -> str:
    """The processor's name, as the system has it."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def label() -> str:
    """As ``cpu-2core-xeon``."""
    families = ("xeon", "epyc", "ryzen", "core", "threadripper", "m1", "m2", "m3", "m4")
    words = re.findall(r"[a-z0-9]+", processor().lower())
    return f"cpu-{cores()}core-{next((word for word in words if word in families), platform.machine().lower())}"


def folder() -> Path:
    """Where this machine's figures are kept."""
    made = RESULTS / label()
    made.mkdir(parents=True, exist_ok=True)
    return made
