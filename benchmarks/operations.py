"""The block by itself: four instantiations on the maps of the paper's networks, beside the definition and the peers.

What is measured is the whole block, Eq. (6): a block of a network that is tested (``forward``, BN folded, no
gradient), and one that is trained (``training``: forward and backward, with the gradients of the input and of all
weights).
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, cast

import torch
from torch import Tensor, nn

from benchmarks import peers
from benchmarks.contest import Contest, Figures, Settings, difference, measure
from nl_lightning.models.conventions import INSTANTIATIONS, Conventions, Instantiation
from nl_lightning.models.fast import FastNonLocalBlock, channels_last, for_testing, use_kernels

# Maps (frames, side) of 32-frame clips of 224 pixels, and channels (Table 1).
MAPS = {"res4": (4, 14, 1024), "res3": (4, 28, 512), "res2": (8, 56, 256)}
PIXELS, FRAMES = (224, 256), (32, 128)
PHASES = ("forward", "training")
POOLED = {"before": "release", "after": "paper"}
"""Where the pool stands, and whose convention that is: the two ways that peers are like."""


@dataclass(frozen=True)
class Case:
    """A block on one clip's map. `place`, `pixels` and `clip_frames` are where it comes from."""

    place: str
    pixels: int
    clip_frames: int
    instantiation: Instantiation
    subsample: bool
    phase: str
    channels: int
    frames: int
    side: int

    @property
    def queries(self) -> int:
        return self.frames * self.side**2

    @property
    def keys(self) -> int:
        return self.frames * (self.side // 2) ** 2 if self.subsample else self.queries

    def pairs_bytes(self, pairs_of_vectors: bool) -> int:
        """What the matrices of all pairs take at the least: those held at once, in float32.

        A softmax holds what it is given and what it makes; a gradient flows back through each. A plain concatenation
        holds theta and phi of every pair, and both beside each other.
        """
        training = self.phase == "training"
        copies = 4 if training else 2
        if pairs_of_vectors:
            copies = self.channels * (3 if training else 2)
        return 4 * copies * self.queries * self.keys


def cases(settings: Settings) -> Iterator[tuple[dict[str, Any], partial[Figures]]]:
    """The paper's 32 frames of 224 pixels first, and of these the cheap ones: an interrupted run has what matters."""
    few = 1 if settings.quick else None
    axes = itertools.product(MAPS, FRAMES[:few], PIXELS[:few], (True, False), INSTANTIATIONS, PHASES)
    all_cases = []
    for place, clip_frames, pixels, subsample, instantiation, phase in axes:
        frames, side, channels = MAPS[place]
        size = channels, frames * clip_frames // 32, side * pixels // 224
        all_cases.append(Case(place, pixels, clip_frames, instantiation, subsample, phase, *size))
    for case in sorted(all_cases, key=lambda c: ((c.clip_frames, c.pixels) != (32, 224), c.queries * c.keys)):
        yield asdict(case), partial(run, case)


def run(case: Case, settings: Settings) -> Figures:
    """All who can do a case; all keys only where a plain form, too, has the memory for them."""
    names = {name: needs for pool in POOLED for name, needs in _names(case, pool).items()}
    if not case.subsample and min(needs for needs in names.values() if needs) > settings.memory:
        reason = "left out: no plain form has the memory for all keys"
        return [{"name": name, "skipped": reason} for name in names]
    return measure(partial(contest, case, settings, names), settings)


def contest(case: Case, settings: Settings, names: dict[str, int]) -> Contest:
    """Those of `names` whose pairs, of so many bytes, are no more than the memory at hand."""
    skipped = {
        name: f"needs {needs / 2**30:,.0f} GiB or more, {settings.memory / 2**30:,.0f} are at hand"
        for name, needs in names.items()
        if needs > settings.memory
    }
    entrants = {name: Entrant(case, settings, name) for name in names if name not in skipped}
    return Contest(entrants, skipped, partial(_errors, case, settings, entrants))


def _names(case: Case, pool: str) -> dict[str, int]:
    """The names of those who pool before or after, and how many bytes of pairs they hold."""
    names = _ours_and_plain(case, pool)
    pairs = case.pairs_bytes(pairs_of_vectors=case.instantiation == "concatenation")
    if pool == "before":
        return names | ({"pytorchvideo": pairs} if case.instantiation in peers.PYTORCHVIDEO else {})
    if case.instantiation == "concatenation" and case.phase == "training":
        return names | {"all pairs": pairs}  # mmcv's has a ReLU in place that its backward can't have
    return names | {"mmcv": pairs, "all pairs": pairs}


def _ours_and_plain(case: Case, pool: str) -> dict[str, int]:
    return {f"ours, pool {pool}": 0, f"plain, pool {pool}": case.pairs_bytes(pairs_of_vectors=False)}


class Entrant:
    """A block with its input; called, it does what is measured. All of a case have the same weights and the same input.

    The input lies in memory as the entrant's own network would give it: channels-last to ours, contiguous to the peers.
    """

    def __init__(self, case: Case, settings: Settings, name: str, double: bool = False) -> None:
        torch.manual_seed(0)
        profile: Any = POOLED["before" if name.endswith(("pool before", "pytorchvideo")) else "after"]
        conventions = Conventions(profile)
        ours = FastNonLocalBlock(case.channels, case.instantiation, subsample=case.subsample, conventions=conventions)
        _randomise(ours)
        block: nn.Module = ours
        if name.startswith("plain"):
            use_kernels(ours, "definition")
        elif not name.startswith("ours"):
            make = {"pytorchvideo": peers.pytorchvideo, "mmcv": peers.mmcv, "all pairs": peers.all_pairs}[name]
            block = make(ours, case.channels, case.subsample)
        shape = (1, case.channels, case.frames, case.side, case.side)
        torch.manual_seed(1)
        x, dz = torch.randn(shape).mul_(case.channels**-0.25), torch.randn(shape)
        if block is ours:
            x, dz = channels_last(x), channels_last(dz)
        self.device, self.bf16 = settings.device, settings.precision == "bf16" and not double
        self.training = case.phase == "training"
        there: dict[str, Any] = {"device": settings.device, "dtype": torch.float64 if double else torch.float32}
        self.block = block.to(**there).train(self.training)
        if isinstance(block, FastNonLocalBlock) and not self.training:
            self.block = for_testing(self.block)
        self.x = x.to(**there).requires_grad_(self.training)
        self.dz = dz.to(**there) if self.training else None

    def __call__(self) -> tuple[Tensor, ...]:
        """The block's output; in training, the gradient of its input too."""
        self.x.grad = None
        self.block.zero_grad(set_to_none=True)
        autocast = torch.autocast(self.device, torch.bfloat16, enabled=self.bf16)
        with torch.set_grad_enabled(self.training), autocast:
            z = self.block(self.x)
        if self.dz is None:
            return (z,)
        z.backward(self.dz.to(z.dtype))
        return z, cast(Tensor, self.x.grad)


@torch.no_grad()
def _randomise(block: FastNonLocalBlock) -> None:
    """Weights of ordinary sizes, where a new block would be the identity."""
    for name, parameter in block.named_parameters():
        if name.startswith("bn."):
            parameter.uniform_(0.5, 1.5)
        elif parameter.ndim > 1:
            parameter.normal_(std=math.sqrt(1 / parameter[0].numel()))
        elif name != "W_z.bias":  # zero, as mmcv has none
            parameter.normal_(std=0.1)


def _errors(case: Case, settings: Settings, entrants: dict[str, Entrant]) -> dict[str, float]:
    """How far what each adds to x, and in training its gradient, is from the definition.

    The definition is in float64 where the memory is there for it: in float32 it is itself no nearer than the others.
    """
    found: dict[str, float] = {}
    for pool, members in {"before": ("pytorchvideo",), "after": ("mmcv", "all pairs")}.items():
        plain = f"plain, pool {pool}"
        if plain not in entrants:
            continue
        double = 2 * case.pairs_bytes(pairs_of_vectors=False) <= settings.memory
        exact = _added(Entrant(case, settings, plain, double=True) if double else entrants[plain])
        for name in (f"ours, pool {pool}", *members, *([plain] if double else [])):
            if name in entrants:
                results = zip(_added(entrants[name]), exact, strict=True)
                found[name] = max(difference(result, expected) for result, expected in results)
    return found


def _added(entrant: Entrant) -> list[Tensor]:
    z, *gradient = (result.detach() for result in entrant())
    return [z - entrant.x.detach(), *gradient]


# ---------------------------------------------------------------------------------------------------------- growth

GROWTH = {"frames": [(t, 14) for t in (4, 8, 16, 32)], "sides": [(4, side) for side in (14, 20, 28, 40)]}
GROWTH_CHANNELS = 1024


def growth_cases(settings: Settings) -> Iterator[tuple[dict[str, Any], partial[Figures]]]:
    """Ours and the definition on all keys, against N: more frames, or larger ones."""
    sizes = [(along, size) for along, some in GROWTH.items() for size in some[: 3 if settings.quick else None]]
    for (along, size), instantiation, phase in itertools.product(sizes, INSTANTIATIONS, PHASES):
        case = Case("res4", 0, 0, instantiation, False, phase, GROWTH_CHANNELS, *size)
        yield asdict(replace(case, place=along)) | {"positions": case.queries}, partial(run_growth, case)


def run_growth(case: Case, settings: Settings) -> Figures:
    """By the release's convention; without a pool its place makes no difference."""
    return measure(partial(contest, case, settings, _ours_and_plain(case, "before")), settings)
