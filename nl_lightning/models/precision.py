"""What autocast does to a computation, and keeping it out of one."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor


def is_half(x: Tensor) -> bool:
    """Whether a product with x is computed in half precision; torch.compile sees its dtype only."""
    half = x.dtype in (torch.bfloat16, torch.float16)
    return half or (not torch.compiler.is_compiling() and torch.is_autocast_enabled(x.device.type))


def no_autocast(x: Tensor) -> AbstractContextManager[object]:
    """Within it, products with x are computed in its own precision."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext()
