"""The machine that figures were measured on, and where its figures go: its own folder, and pages of the docs."""

import platform
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from nl_lightning.study.evidence import cores as cores
from nl_lightning.train.evidence import processor as processor

REPOSITORY = Path(__file__).resolve().parent.parent
RESULTS = REPOSITORY / "benchmarks" / "results"


def label(device: str = "cpu") -> str:
    """As ``cpu-2core-xeon`` or ``gpu-nvidia-h100-80gb-hbm3``."""
    if device == "cuda":
        import torch

        return "gpu-" + "-".join(torch.cuda.get_device_name().lower().split())
    families = ("xeon", "epyc", "ryzen", "core", "threadripper", "m1", "m2", "m3", "m4")
    words = re.findall(r"[a-z0-9]+", processor().lower())
    return f"cpu-{cores()}core-{next((word for word in words if word in families), platform.machine().lower())}"


def folder(name: str | None = None, device: str = "cpu") -> Path:
    """Where a machine's figures are kept: this one's, or the one's of this name."""
    made = RESULTS / (name or label(device))
    made.mkdir(parents=True, exist_ok=True)
    return made


def table(header: Sequence[str], rows: Iterable[Sequence[object]], labels: int = 1) -> str:
    """Rows as Markdown, without padding; the first `labels` columns are words."""
    rule = [*["---"] * labels, *["---:"] * (len(header) - labels)]
    lines = (f"| {' | '.join(map(str, line))} |" for line in (header, rule, *rows))
    return "\n".join(lines).replace("|  |", "| |")


def between(text: str, mark: str, new: str) -> str:
    """A page of the docs with other text between its marks, ``<!-- mark:start -->`` and ``<!-- mark:end -->``."""
    start, end = (f"<!-- {mark}:{at} -->" for at in ("start", "end"))
    before, after = text.partition(start)[0], text.partition(end)[2]
    return f"{before}{start}\n{new}\n{end}{after}"
