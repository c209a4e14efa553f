"""Room for the batches that a loader's workers hand over: a full /dev/shm ends them with a bus error and no word."""

import os
from pathlib import Path

from nl_lightning.errors import UserError

PLACE = Path("/dev/shm")
AHEAD = 2
"""Batches that a worker of PyTorch's loader reads ahead."""


def check_room(workers: int, batch_bytes: int, place: Path = PLACE) -> None:
    """UserError if the batches that `workers` read ahead, and the one in use, don't fit into shared memory."""
    if not workers or not place.is_dir():
        return
    status = os.statvfs(place)
    free, needed = status.f_bavail * status.f_frsize, (workers * AHEAD + 1) * batch_bytes
    if free < needed:
        raise UserError(
            f"{place} has room for {free >> 20} MB, and {workers} workers that read ahead fill {needed >> 20} MB: "
            "free it, enlarge it (of a container: --shm-size), or set data.num_workers or data.batch_size lower"
        )
