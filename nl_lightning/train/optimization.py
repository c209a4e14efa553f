"""Optimiser and schedule of a training: the one place where a recipe's are made.

A recipe is a kind of :class:`Schedule`, the parameter groups (:func:`parameter_groups`), and an optimiser that takes
such groups. Another recipe adds its own groups and its own kind of schedule here, and nothing elsewhere.
"""

import math
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from typing import Any, Literal

import torch
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from nl_lightning.errors import UserError, one_line
from nl_lightning.models.resnet import VideoResNet

RATE = "times_lr"
"""Key of a group of parameters: what the optimiser's learning rate is multiplied by for it."""


def in_range(name: str, value: float | None, least: float, most: float) -> None:
    """UserError if a setting is outside of what can be meant; None is no setting."""
    if value is not None and not least <= value <= most:  # NaN is neither
        raise UserError(f"{name} is {value}: expected {least:g} to {most:g}")


@dataclass(frozen=True)
class Schedule:
    """The learning rate of an iteration, as a factor of the optimiser's own. Only ``steps`` needs no end.

    Attributes:
        kind: ``steps``: times `gamma` at each milestone (paper, Sec. 4.1); ``cosine``: half a cosine down to 0;
            ``linear``: 1, then a straight line down to 0.
        milestones: iterations, from 0. The paper's 150k and 300k of 400k.
        gamma: what a milestone multiplies by.
        warmup: share of all iterations over which the factor grows linearly to 1 (the paper has none).
        decay: of ``linear``: share of all iterations over which the line falls; all after the warm-up if not given.
    """

    kind: Literal["steps", "cosine", "linear"] = "steps"
    milestones: tuple[int, ...] = (150_000, 300_000)
    gamma: float = 0.1
    warmup: float = 0.0
    decay: float | None = None

    def __post_init__(self) -> None:
        in_range("schedule.warmup", self.warmup, 0, 0.9999)
        in_range("schedule.gamma", self.gamma, 1e-9, 1)
        in_range("schedule.decay", self.decay, 1e-9, 1 - self.warmup)
        if any(milestone < 0 for milestone in self.milestones):
            raise UserError(f"schedule.milestones are {list(self.milestones)}: expected iterations, from 0")

    def factor(self, iteration: int, iterations: float) -> float:
        """The factor at `iteration` (from 0) of `iterations`."""
        warm = self.warmup * iterations if self.warmup else 0
        if iteration < warm:
            return (iteration + 1) / (warm + 1)
        if self.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (iteration - warm) / (iterations - warm)))
        if self.kind == "linear":
            return min(1.0, (iterations - iteration) / (iterations * self.decay if self.decay else iterations - warm))
        return self.gamma ** sum(iteration >= milestone for milestone in self.milestones)


def paper_sgd(params: Iterable[Any]) -> torch.optim.Optimizer:
    """SGD as in Sec. 4.1: learning rate 0.01, momentum 0.9, weight decay 1e-4. (The released code's is Nesterov's.)"""
    return torch.optim.SGD(params, lr=0.01, momentum=0.9, weight_decay=1e-4)


def norms(net: nn.Module) -> Iterable[_BatchNorm]:
    """The BN layers of a network."""
    return (module for module in net.modules() if isinstance(module, _BatchNorm))


def parameter_groups(
    net: VideoResNet, decay_one_dimensional: bool, loaded: Collection[str] = (), loaded_lr: float = 1.0
) -> list[dict[str, Any]]:
    """The parameters that take the optimiser's weight decay, then those that take none.

    Whether BN is decayed is a convention of the network; `decay_one_dimensional` says it of biases and `w_f`.
    If the parameters named in `loaded` learn at another rate (`loaded_lr`), they are groups of their own.
    """
    of_norms = {id(p) for norm in norms(net) for p in norm.parameters()}
    decay_bn = net.config.conventions.rules.decay_bn
    rates = {False: 1.0} if loaded_lr == 1 else {False: 1.0, True: loaded_lr}
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {(old, yes): [] for old in rates for yes in (True, False)}
    for name, p in net.named_parameters():
        if p.requires_grad:
            decays = decay_bn if id(p) in of_norms else decay_one_dimensional or p.ndim > 1
            groups[loaded_lr != 1 and name in loaded, decays].append(p)
    return [
        {"params": params, **({} if decays else {"weight_decay": 0.0}), **({RATE: rates[old]} if old else {})}
        for (old, decays), params in groups.items()
    ]


def optimize(
    optimizer: Callable[[Any], torch.optim.Optimizer],
    groups: list[dict[str, Any]],
    schedule: Schedule,
    iterations: float,
    lr_scale: float = 1.0,
) -> OptimizerLRScheduler:
    """What Lightning trains by: the optimiser of these groups, whose learning rates follow the schedule."""
    if iterations == math.inf and (schedule.kind != "steps" or schedule.warmup):
        raise UserError(
            "model.schedule: its shares are of all iterations, and this training has no end: set trainer.max_epochs or "
            "trainer.max_steps"
        )
    try:
        made = optimizer(groups)
    except (ValueError, TypeError) as error:
        raise UserError(f"model.optimizer: {one_line(error, 300)}") from error
    for group in made.param_groups:
        group["lr"] *= lr_scale * group.get(RATE, 1.0)
    factors = torch.optim.lr_scheduler.LambdaLR(made, lambda iteration: schedule.factor(iteration, iterations))
    return {"optimizer": made, "lr_scheduler": {"scheduler": factors, "interval": "step"}}
