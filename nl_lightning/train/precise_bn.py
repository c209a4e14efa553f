"""Precise BN: the statistics of BN estimated anew over many training batches before testing (released code).

A running mean follows the weights as they change and so belongs to none of them. The released code passes 200
training batches through the network as it is, and takes the mean of the batches' means and of their mean squares.
"""

import itertools
from collections.abc import Iterable, Iterator
from typing import Any

import torch
from jaxtyping import UInt8
from torch import Tensor, nn

from nl_lightning.train.optimization import norms


class _Moments:
    """Sums the mean and the mean square of what goes into a BN, channel by channel, over batches."""

    def __init__(self, norm: nn.modules.batchnorm._BatchNorm) -> None:
        self.norm = norm
        self.sums = torch.zeros(2, norm.num_features, dtype=torch.float64)
        self.batches = 0

    def __call__(self, norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0].detach().float()
        axes = [0, *range(2, x.ndim)]
        var, mean = torch.var_mean(x, axes, correction=0)
        self.sums += torch.stack([mean, var + mean**2]).double().cpu()
        self.batches += 1

    def write(self, device: torch.device) -> None:
        """Into the running statistics, over all processes."""
        whole = torch.cat([self.sums.flatten(), torch.tensor([self.batches], dtype=torch.float64)]).to(device)
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(whole)
        mean, square = (whole[:-1] / whole[-1]).view(2, -1)
        assert self.norm.running_mean is not None
        assert self.norm.running_var is not None
        self.norm.running_mean.copy_(mean)
        self.norm.running_var.copy_(square - mean**2)


@torch.no_grad()
def estimate_statistics(net: nn.Module, batches: Iterable[Tensor]) -> None:
    """Put the statistics of `batches` into every BN of `net`, whose mode and weights stay as they are.

    Each BN sees its batch normalised by the batch's own statistics in the layers before, as in training.
    """
    moments = [_Moments(norm) for norm in norms(net)]
    hooks = [moment.norm.register_forward_pre_hook(moment) for moment in moments]
    before = [(moment.norm.momentum, moment.norm.training) for moment in moments]
    device = next(net.parameters()).device
    try:
        for moment in moments:
            moment.norm.train()
            moment.norm.momentum = 0.0  # the running statistics wait for the last batch
        for batch in batches:
            net(batch)
    finally:
        for hook in hooks:
            hook.remove()
        for moment, (momentum, training) in zip(moments, before, strict=True):
            moment.norm.momentum = momentum
            moment.norm.train(training)
    for moment in moments:
        if moment.batches:
            moment.write(device)


def training_clips(data: Any, device: torch.device, batches: int) -> Iterator[UInt8[Tensor, "N 3 T H W"]]:
    """The readable clips of so many training batches of a data module, of each process its own."""
    for batch in itertools.islice(data.train_dataloader(), batches):
        moved = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, device, 0), 0)
        if moved.readable.any():
            yield moved.views[moved.readable].flatten(0, 1)


def ends(trainer: Any) -> bool:
    """Whether the epoch that ends is the last one."""
    steps = trainer.max_steps != -1 and trainer.global_step >= trainer.max_steps
    epochs = trainer.max_epochs not in (None, -1) and trainer.current_epoch + 1 >= trainer.max_epochs
    return bool(steps or epochs or trainer.should_stop)
