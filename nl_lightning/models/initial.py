"""Initial weights that two networks share: each tensor drawn from the seed and its own name.

Layers draw one after another from one stream of random numbers. So a layer more shifts what all later ones draw, and
two networks of one seed have nothing in common. Drawn by name, they start equal in every tensor that both have, and a
difference between them is of what they don't share.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from typing import Any, Literal, TypeVar

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from nl_lightning.models.resnet import ResNetConfig, VideoResNet

N = TypeVar("N", bound=nn.Module)
Init = Literal["in_order", "by_name"]
FIXED = ("zero_", "fill_", "copy_", "constant_", "zeros_", "ones_")


class _Draws(TorchFunctionMode):
    """Remember the call by which each tensor was last filled, if it drew random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.last: dict[int, Callable[[], Any]] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = kwargs or {}, getattr(func, "__name__", "")
        filled = args[0] if args else kwargs.get("tensor")
        if name.endswith(("normal_", "uniform_")):
            self.last[filled.data_ptr()] = partial(func, *args, **kwargs)
        elif name in FIXED:
            self.last.pop(filled.data_ptr(), None)
        return func(*args, **kwargs)


def drawn_by_name(make: Callable[[], N], seed: int) -> N:
    """The network that `make` makes, with every random tensor drawn anew, as it was drawn, from `seed` and its name.

    The global random numbers are left as they were: what follows, such as dropout, is drawn alike for all networks.
    """
    with torch.random.fork_rng(devices=[]):
        with _Draws() as draws:
            network = make()
        with torch.no_grad():
            for name, parameter in network.named_parameters():
                if draw := draws.last.get(parameter.data_ptr()):
                    torch.manual_seed(int.from_bytes(hashlib.sha256(f"{seed} {name}".encode()).digest()[:7]))
                    draw()
    return network


def network(config: ResNetConfig, init: Init) -> VideoResNet:
    """A new network; by name, its seed is the one that torch's random numbers were last seeded with."""
    if init == "in_order":
        return VideoResNet(config)
    return drawn_by_name(partial(VideoResNet, config), torch.initial_seed())
