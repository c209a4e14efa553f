"""What the processes of one run tell each other."""

from typing import Any

import torch.distributed


def from_all(value: Any) -> list[Any]:
    """The `value` of each process of the run, in their order; all of them have to ask."""
    if not torch.distributed.is_initialized():
        return [value]
    values: list[Any] = [None] * torch.distributed.get_world_size()
    torch.distributed.all_gather_object(values, value)
    return values
