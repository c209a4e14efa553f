"""What autocast does to a computation, and keeping it out of one."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def product_dtype(x: Tensor) -> torch.dtype:
    """The type of products with x; torch.compile sees x's own only."""
    kind = x.device.type
    if torch.compiler.is_compiling() or not torch.amp.is_autocast_available(kind):
        return x.dtype
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def is_half(x: Tensor) -> bool:
    """Whether a product with x is computed in half precision."""
    return product_dtype(x) in (torch.bfloat16, torch.float16)


def no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Within it, products with x are computed in its own precision."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
