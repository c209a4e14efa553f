"""Memory that a network frees is kept for its next step.

glibc gives large freed blocks back to the system, which then hands out, and zeroes, the same pages again at every step:
5,000 page faults a step for C2D of the recipe longrange, a fifth of its time.
"""

import contextlib
import ctypes

TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3  # glibc's malloc.h
MOST = 32 << 20  # glibc takes no higher threshold


def keep_freed_memory() -> None:
    """From now on blocks up to 32 MiB stay with the process; nothing happens where the C library is not glibc."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(MMAP_THRESHOLD, MOST)
        mallopt(TRIM_THRESHOLD, 2**31 - 1)
        mallopt(TOP_PAD, 2 * MOST)
