"""Numbers of each test video or item, packed into a text: a record holds them without becoming long. No torch here."""

import base64
import math
import struct
from collections.abc import Sequence
from itertools import chain

BITS = [tuple(bool(byte >> place & 1) for place in range(7, -1, -1)) for byte in range(256)]
"""The bits of each byte, the highest first: a report unpacks thousands of lists."""


def pack(right: Sequence[bool]) -> str:
    """A bit a video, the first one highest, in base64: 3 kB for Kinetics' validation videos."""
    bits = "".join("1" if one else "0" for one in right)
    whole = bits.ljust(-(-len(bits) // 8) * 8, "0")
    return base64.b64encode(int(whole or "0", 2).to_bytes(len(whole) // 8, "big")).decode()


def unpack(packed: str, videos: int) -> list[bool]:
    """What :func:`pack` packed. ValueError if it isn't of so many videos."""
    content = base64.b64decode(packed, validate=True)
    if len(content) != -(-videos // 8):
        raise ValueError(f"expected {videos} videos, got {len(content)} bytes")
    return list(chain.from_iterable(map(BITS.__getitem__, content)))[:videos]


def pack_numbers(numbers: Sequence[float]) -> str:
    """Numbers as 4-byte floats, lowest byte first, in base64: 10 kB for Charades' validation videos."""
    return base64.b64encode(struct.pack(f"<{len(numbers)}f", *numbers)).decode()


def unpack_numbers(packed: str, videos: int) -> list[float]:
    """What :func:`pack_numbers` packed. ValueError if it isn't of so many videos."""
    content = base64.b64decode(packed, validate=True)
    if len(content) != 4 * videos:
        raise ValueError(f"expected {videos} videos, got {len(content)} bytes")
    return list(struct.unpack(f"<{videos}f", content))


def pack_outcomes(outcomes: Sequence[float]) -> str:
    """A number of each item: a bit each if all are 0 or 1, else 4 bytes each. (No number of items is both.)"""
    return pack([bool(one) for one in outcomes]) if {0, 1}.issuperset(outcomes) else pack_numbers(outcomes)


def unpack_outcomes(packed: str, items: int) -> list[float] | list[bool]:
    """What :func:`pack_outcomes` packed. ValueError if it isn't of so many items, or has what is no finite number."""
    content = base64.b64decode(packed, validate=True)
    if len(content) == -(-items // 8):
        return unpack(packed, items)
    numbers = unpack_numbers(packed, items)
    if not all(map(math.isfinite, numbers)):
        raise ValueError("expected finite numbers")
    return numbers
