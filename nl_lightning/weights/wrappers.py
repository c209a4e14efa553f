"""Where a network's tensors lie in a file, and what tools have put around them and before their names.

Training tools wrap what they save: checkpoints of Lightning, timm and others keep tensors under a key;
`torch.compile`, DDP, FSDP and momentum encoders lengthen every name; profilers add counters. All that comes off here,
and is said.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from torch import Tensor

from nl_lightning.errors import UserError
from nl_lightning.weights.file import some
from nl_lightning.weights.safe import check_tensor

KEYS = (
    "blobs", "state_dict", "model_state", "model_state_dict", "model", "net", "network", "module", "weights", "params",
    "student", "online", "teacher", "target", "ema", "model_ema", "ema_state_dict", "state_dict_ema", "ema_model",
)  # fmt: skip
"""Keys under which tensors lie, in the order in which they are preferred; averages of the weights come last."""
WRAPPING = {
    "_orig_mod": "torch.compile", "_fsdp_wrapped_module": "FSDP", "_checkpoint_wrapped_module": "checkpointing",
}  # fmt: skip
"""Parts of names that a wrapper has put anywhere, and whose they are."""
PREFERRED = ("encoder_q", "base_encoder", "student", "online", "online_network", "model", "net", "network", "backbone")
"""Of two networks in a file, the one that is trained; others are averages of it, or made its targets."""
COUNTERS = r"(?:.*\.)?(?:total_ops|total_params|n_averaged)"
"""Of profilers, and of averages."""
DEPTH = 6
"""Parts of a name that can be a prefix."""


@dataclass(frozen=True)
class State:
    """Tensors by name, and what lay around them.

    Attributes:
        tensors: by the names that are left.
        beside: what else the file holds, tensors under other prefixes among them.
        stripped: what was taken off, a line each.
    """

    tensors: Mapping[str, Tensor]
    beside: Mapping[str, Any]
    stripped: tuple[str, ...] = ()


def unwrapped(content: object) -> State:
    """The tensors by name, wherever they lie in the content of a file. UserError if there are none, or several sets."""
    beside: dict[str, Any] = {}
    keys: list[str] = []
    while isinstance(content, Mapping) and (key := _inner(content)) is not None:
        beside |= {str(other): value for other, value in content.items() if other != key}
        keys.append(key)
        content = content[key]
    if not isinstance(content, Mapping):
        raise UserError(f"expected tensors by name, found a {type(content).__name__}")
    tensors = {str(name): check_tensor(str(name), t) for name, t in content.items() if isinstance(t, Tensor)}
    beside |= {str(name): value for name, value in content.items() if str(name) not in tensors}
    if not tensors:
        raise UserError("expected tensors by name, found none")
    counters = {name: tensor for name, tensor in tensors.items() if re.fullmatch(COUNTERS, name)}
    state = State({n: t for n, t in tensors.items() if n not in counters}, beside | counters)
    state = _without_wrapping(state)
    said = [f"the key {' / '.join(keys)}"] if keys else []
    said += [f"{len(counters)} counters ({some(sorted(counters))})"] if counters else []
    return replace(state, stripped=(*said, *state.stripped))


def _inner(content: Mapping[Any, Any]) -> str | None:
    """The key under which the tensors lie; None if they lie here. UserError if there are several such keys."""
    holding = [key for key, value in content.items() if isinstance(key, str) and _holds_tensors(value)]
    for key in KEYS:
        if key in holding:
            return key
    if any(isinstance(value, Tensor) for value in content.values()) or not holding:
        return None
    if len(holding) > 1:
        raise UserError(f"tensors lie under several keys, {some(holding)}: save the network's alone")
    return holding[0]


def _holds_tensors(value: object, depth: int = 3) -> bool:
    return isinstance(value, Mapping) and any(
        isinstance(name, str) and (isinstance(inner, Tensor) or (depth > 0 and _holds_tensors(inner, depth - 1)))
        for name, inner in value.items()
    )


def _without_wrapping(state: State) -> State:
    """Without the parts of names in :data:`WRAPPING`, and what stands before all names where several GPUs trained."""
    tensors, stripped = dict(state.tensors), []
    for part, whose in WRAPPING.items():
        if any(part in name.split(".") for name in tensors):
            names = {name: ".".join(p for p in name.split(".") if p != part) for name in tensors}
            tensors = _renamed(tensors, names)
            stripped.append(f"'{part}.' of {whose}")
    for prefix in ("module.", "gpu_0/"):
        if all(name.startswith(prefix) for name in tensors):
            tensors = _renamed(tensors, {name: name.removeprefix(prefix) for name in tensors})
            stripped.append(f"'{prefix}' before every name")
    return replace(state, tensors=tensors, stripped=tuple(stripped))


def _renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> dict[str, Tensor]:
    renamed = {names[name]: tensor for name, tensor in tensors.items()}
    if len(renamed) < len(tensors):
        raise UserError("it has tensors under two names each, with and without a wrapper's prefix")
    return renamed


def prefixes(names: Iterable[str], known: Callable[[str], object]) -> dict[str, int]:
    """The prefixes, each ending in a dot or empty, behind which names are `known`, and how many there are."""
    counts: dict[str, int] = {}
    for name in names:
        for prefix in cuts(name):
            if known(name[len(prefix) :]):
                counts[prefix] = counts.get(prefix, 0) + 1
    return counts


def cuts(name: str) -> list[str]:
    """The prefixes that a name may have, each ending in a dot or empty."""
    parts = name.split(".", DEPTH)
    return ["".join(f"{part}." for part in parts[:cut]) for cut in range(len(parts))]


def below(state: State, prefix: str) -> State:
    """What stands under a prefix, without it; the other tensors lie beside it."""
    if not prefix:
        return state
    tensors = {name.removeprefix(prefix): t for name, t in state.tensors.items() if name.startswith(prefix)}
    others = {name: tensor for name, tensor in state.tensors.items() if not name.startswith(prefix)}
    return State(tensors, {**state.beside, **others}, (*state.stripped, f"the prefix '{prefix}'"))


def preferred(candidates: Iterable[str]) -> str:
    """Of several prefixes with a whole network each, that of the one that is trained. UserError if none is known."""
    found = sorted(candidates)
    for name in PREFERRED:
        chosen = [prefix for prefix in found if name in prefix.split(".")]
        if len(chosen) == 1:
            return chosen[0]
    raise UserError(f"it holds {len(found)} networks, with the prefixes {some(found)}: save one of them alone")
