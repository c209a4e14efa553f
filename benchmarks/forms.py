"""What each fast form buys by itself, all others on: ``python -m benchmarks.forms``.

A form is left out by the context manager beside its name, and the same network computes without it. Cases are a
training step and a test pass of networks of Table 2, in float32 and bf16, with blocks of each instantiation: at full
width (one clip of 8 x 224 x 224), and at 1/16 of it (network, clips and batches of the recipe longrange).

A call with all forms and one without have their turn beside each other; a figure is the median of such pairs, in
seconds of the CPU. ``forms.json`` in this machine's folder keeps all figures, those of forms that are gone too, and
``forms.md`` is written from it. Leave the machine alone meanwhile, or pin it to a core: ``taskset -c 1 python -m ...``.
"""

import argparse
import itertools
import statistics
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks import machine
from benchmarks.store import Entry, Store
from nl_lightning.models import fast
from nl_lightning.models.conventions import Conventions, Instantiation
from nl_lightning.models.fast import FastConv3d, FastVideoResNet, channels_last, for_testing
from nl_lightning.models.forms import form_of
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig
from nl_lightning.study.files import write_atomically
from nl_lightning.train.run_cli import keep_freed_memory

PLACEMENT: dict[str, dict[str, list[int]]] = {
    "no block": {},
    "5 blocks": {"res3": [1, 3], "res4": [1, 3, 5]},
    "1 block in res2": {"res2": [2]},
}
INFLATE: dict[str, Any] = {"C2D": "none", "I3D": "3x1x1"}
ROUNDS = {("1", "testing"): 6, ("1", "training"): 3, ("1/16", "testing"): 8, ("1/16", "training"): 8}
AXES = ("1/16", "1"), ("float32", "bf16"), ("testing", "training")  # width, precision, phase
WORTH = 1.2
"""A form stays if a case takes this many times as long without it."""

Off = Callable[[], AbstractContextManager[Any]]


@dataclass(frozen=True)
class Case:
    """A network of Table 2 and what is done with it."""

    backbone: str
    blocks: str
    instantiation: Instantiation
    width: str
    phase: str
    precision: str

    @property
    def config(self) -> ResNetConfig:
        narrow = self.width != "1"
        placement = PLACEMENT[self.blocks]
        return ResNetConfig(
            inflate=INFLATE[self.backbone],
            non_local=NonLocalConfig(placement, self.instantiation) if placement else None,
            num_classes=11 if narrow else 400,
            width=1 / 16 if narrow else 1.0,
            temporal_strides=(1, 1, 2),
            spatial_strides=(2, 2, 1, 1, 1, 1) if narrow else (2, 2, 1, 2, 2, 2),
            dropout=0.0,
            conventions=Conventions(scale=True),
        )

    @property
    def clips(self) -> Tensor:
        narrow, testing = self.width != "1", self.phase == "testing"
        shape = ((50 if testing else 16), 3, 8, 32, 32) if narrow else (1, 3, 8, 224, 224)
        return channels_last(torch.randn(shape))


def cases() -> Iterator[Case]:
    """The narrow networks first, as they take little time."""
    networks: list[tuple[str, str, Instantiation]] = [
        *((backbone, blocks, "embedded_gaussian") for backbone in INFLATE for blocks in ("no block", "5 blocks")),
        *(("C2D", "5 blocks", instantiation) for instantiation in BLOCKS if instantiation != "embedded_gaussian"),
        *(("C2D", "1 block in res2", instantiation) for instantiation in BLOCKS),
    ]
    for width, precision, phase in itertools.product(*AXES):
        for network in networks:
            if "res2" not in network[1] or (width, phase) == ("1", "testing"):
                yield Case(*network, width, phase, precision)


# --------------------------------------------------------------------------------------------------- leaving a form out


def without(form: str) -> Off:
    """Non-local blocks make all pairs in place of this form."""

    def chosen(*arguments: Any) -> str:
        found = form_of(*arguments)
        return "pairs" if found == form else found

    return lambda: patch.object(fast, "form_of", chosen)


@contextmanager
def without_folding() -> Iterator[None]:
    """torch's own convolutions in three dimensions, channels-last; oneDNN's pass over three axes, too."""

    def forward(conv: FastConv3d, x: Tensor) -> Tensor:
        return channels_last(nn.Conv3d.forward(conv, x))

    def volume(conv: FastConv3d) -> Any:
        return fast.VOLUME, list(conv.stride), list(conv.padding)

    with (
        patch.object(FastConv3d, "forward", forward),
        patch.object(FastConv3d, "fold", volume),
        patch.object(FastConv3d, "kept_frames", lambda conv, x: x),
    ):
        yield


def no(*_: Any) -> bool:
    return False


UNFOLDED = "BN folded, one pass"
"""Of this form it is the network, not its copy for testing, that is called."""

LAYERS: dict[str, Off] = {
    "folding to 2-D": without_folding,
    UNFOLDED: nullcontext,
    "oneDNN's pass": lambda: patch.object(fast, "has_one_pass", no),
    "shifted_products": lambda: patch.object(FastConv3d, "_shifts_pay", no),
}
BLOCKS: dict[Instantiation, str] = {
    "gaussian": "attention",
    "embedded_gaussian": "attention",
    "dot_product": "associated",
    "concatenation": "sorted",
}


def forms_of(case: Case) -> dict[str, Off]:
    """Those that the case takes, and how each is left out."""
    found = {}
    if case.instantiation == "embedded_gaussian" and "res2" not in case.blocks:
        found["folding to 2-D"] = LAYERS["folding to 2-D"]
        if case.phase == "testing":
            found |= {name: LAYERS[name] for name in (UNFOLDED, "oneDNN's pass")}
        elif case.backbone == "I3D" and case.width == "1":
            found["shifted_products"] = LAYERS["shifted_products"]
    if case.blocks != "no block":
        found[BLOCKS[case.instantiation]] = without(BLOCKS[case.instantiation])
    return found


# ------------------------------------------------------------------------------------------------------ measuring


class Work:
    """A network with its clips; called, it does a step of training, or tests them, with a form left out."""

    def __init__(self, case: Case) -> None:
        torch.manual_seed(0)
        self.case, self.clips = case, case.clips
        self.labels = torch.zeros(len(self.clips), dtype=torch.long)
        self.training = case.phase == "training"
        self.net = FastVideoResNet(case.config).train(self.training)
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-4, momentum=0.9)
        self.copies: dict[str, nn.Module] = {} if self.training else {UNFOLDED: self.net}

    def __call__(self, name: str, off: Off) -> float:
        """Seconds of the CPU."""
        net = self.net if self.training else self.copies.setdefault(name, for_testing(self.net))
        with off():
            began = time.process_time()
            half = torch.autocast("cpu", torch.bfloat16, enabled=self.case.precision == "bf16")
            with torch.set_grad_enabled(self.training), half:
                logits = net(self.clips)
            if self.training:
                self.optimizer.zero_grad()
                F.cross_entropy(logits.float(), self.labels).backward()
                self.optimizer.step()
            return time.process_time() - began


def measure(case: Case) -> list[dict[str, Any]]:
    """For each form, seconds of calls with all forms and without this one, beside each other."""
    work, forms = Work(case), forms_of(case)
    for name, off in {"": nullcontext, **forms}.items():
        work(name, off)  # loads what the first call loads
    found: list[dict[str, Any]] = [{"name": name, "with": [], "without": []} for name in forms]
    for turn in range(ROUNDS[case.width, case.phase]):
        for figure, (name, off) in zip(found, forms.items(), strict=True):
            calls: list[tuple[str, str, Off]] = [("with", "", nullcontext), ("without", name, off)]
            for key, form, without_it in calls[:: -1 if turn % 2 else 1]:
                figure[key].append(work(form, without_it))
    return found


# ----------------------------------------------------------------------------------------------------------- page


def ratio(figure: Mapping[str, Any]) -> float:
    """The median of how many times as long a call takes without the form."""
    return statistics.median(b / a for a, b in zip(figure["with"], figure["without"], strict=True))


def page(entries: list[Entry]) -> str:
    """The figures of all forms in their newest measurement, as Markdown: a row a form and network."""
    columns = list(itertools.product(*AXES))
    rows: dict[tuple[str, str], dict[tuple[str, ...], float]] = {}
    measured: dict[str, tuple[str, str]] = {}
    for entry in entries:
        case = entry["case"]
        for figure in entry["figures"]:
            network = f"{case['backbone']}, {case['blocks']}"
            network += f", {case['instantiation'].replace('_', ' ')}" if case["blocks"] != "no block" else ""
            column = case["width"], case["precision"], case["phase"]
            rows.setdefault((figure["name"], network), {})[column] = ratio(figure)
            measured[figure["name"]] = entry["commit"], entry["torch"]
    heads = ["form", "network", *(", ".join(column) for column in columns), "commit", "torch"]
    lines = [
        "# Fast forms",
        "",
        "How many times as long a whole training step or test pass takes without a form, with all others. Written by",
        "`python -m benchmarks.forms` from `forms.json`: medians of pairs of calls, seconds of CPU time, one thread.",
        f"A form stays if it reaches {WORTH:g} somewhere. Forms that are gone have the figures of an older commit.",
        "",
        f"- machine: {machine.processor()}",
        "- widths: 1 is one clip of 8 x 224 x 224; 1/16 is the recipe longrange",
        "- where other work runs on the machine, a figure is certain to about a tenth",
        "",
        f"| {' | '.join(heads)} |",
        "| --- | --- | " + "---: | " * len(columns) + "--- | --- |",
    ]
    for name in sorted(measured, key=lambda name: (name not in {*LAYERS, *BLOCKS.values()}, name)):
        for (form, network), figures in rows.items():
            if form == name:
                cells = [f"{figures[column]:.2f}" if column in figures else "" for column in columns]
                lines.append("| " + " | ".join([form, network, *cells, *measured[name]]) + " |")
    return "\n".join([*lines, ""])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", default=[], metavar="VALUE", help="cases with all of these values, as I3D")
    parser.add_argument("--machine", help="name of the machine's folder")
    parser.add_argument("--page", action="store_true", help="measure nothing, write forms.md anew")
    given = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    folder = machine.folder(given.machine)
    store = Store(folder, "forms")
    for case in cases():
        key = asdict(case)
        if not given.page and set(given.only) <= set(key.values()) and not store.has(key):
            figures = measure(case)
            store.add(key, figures, {"threads": 1})
            said = (f"{figure['name']}: {ratio(figure):.2f}" for figure in figures)
            print(*key.values(), *said, sep=", ", flush=True)
    write_atomically(folder / "forms.md", page(store.entries))


if __name__ == "__main__":
    main()
