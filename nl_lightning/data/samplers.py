"""Which videos a process reads, and in which order: every one once, whatever the number of processes."""

from collections.abc import Iterator

import torch
from torch.utils.data import Sampler


class EpochShuffle(Sampler[tuple[int, int]]):
    """Every video once, as (epoch, video), in an order that depends on the seed and the epoch alone.

    Processes take turns in that one order, all equally often: fewer videos than processes are left over at its end.
    So what all of them read in an iteration depends on the product of batch size and processes alone. Lightning calls
    `set_epoch` when an epoch begins.

    Args:
        length: videos in all.
        seed: of the order.
        process, processes: which one this is, from 0, and of how many.
        epoch: the first epoch.
        behind: how many videos of the first epoch this process has read before; those it does not read again.
    """

    def __init__(
        self, length: int, seed: int, process: int = 0, processes: int = 1, epoch: int = 0, behind: int = 0
    ) -> None:
        self.length, self.seed, self.epoch = length, seed, epoch
        self.behind = {epoch: behind}  # of no other: an epoch of which all was read may never be asked for
        self.process, self.processes = process, processes

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.length // self.processes

    def __iter__(self) -> Iterator[tuple[int, int]]:
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.epoch)
        order = torch.randperm(self.length, generator=generator)[self.process :: self.processes][: len(self)]
        return ((self.epoch, video) for video in order[self.behind.get(self.epoch, 0) :].tolist())


class Turns(Sampler[list[int]]):
    """Batches of consecutive videos, which processes take in turns: nothing is read twice, and nothing left out.

    The batches are those of a single process, so that each video meets the same ones in it.
    """

    def __init__(self, length: int, batch_size: int, process: int = 0, processes: int = 1) -> None:
        starts = range(0, length, batch_size)[process::processes]
        self.batches = [range(start, min(start + batch_size, length)) for start in starts]

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[list[int]]:
        return map(list, self.batches)
