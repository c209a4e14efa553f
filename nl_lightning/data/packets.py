"""What the packets of a video file say, without decoding: how many frames are shown, when, and from where to decode.

A file is a path, or a stretch of a larger file (:func:`stretch`), as in a tar shard.
"""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer


class DecodeError(Exception):
    """A file that cannot be read, or not these frames of it; the message is one line that names the file."""


@dataclass(frozen=True)
class Index:
    """What the packets of a file say.

    Args:
        count: frames shown.
        times: presentation times of the shown frames in ascending order, in units of the stream's time base; None where
            they cannot be trusted, so that frames have to be counted from the first one.
        keys: presentation times of the key frames, ascending.
        objection: why a decoder that takes the file for plain would be wrong on it, empty if it is plain.
    """

    count: int
    times: npt.NDArray[np.int64] | None
    keys: npt.NDArray[np.int64]
    objection: str


@dataclass(frozen=True)
class Known:
    """What was found before about a file: of which version of it, its index, and why it can't be read, if it can't."""

    version: tuple[int, int]
    index: Index | None
    error: str = ""


def index_of(path: str | Path, known: Known | None = None) -> Index:
    """Return the index of a file, from memory or `known` if the file has not changed since.

    Raises:
        DecodeError: the file cannot be read.
    """
    try:
        size, mtime_ns = version_of(path)
        if known is not None and known.version == (size, mtime_ns):
            if known.error:
                raise ValueError(known.error)
            if known.index is not None:
                return known.index
        if size == 0:
            raise ValueError("the file is empty")
        return read_index(str(path), mtime_ns, size)
    except Exception as error:
        raise DecodeError(f"{path}: {reason(error)}") from error


def stretch(file: Path, start: int, size: int) -> str:
    """Return the name by which FFmpeg opens the `size` bytes from `start` on of a file as a file of their own."""
    return f"subfile,,start,{start},end,{start + size},,:{file}"


def version_of(path: str | Path) -> tuple[int, int]:
    """Return the bytes of a file or stretch and the time of its last change (ns): another version has others."""
    inside = re.match(r"subfile,,start,(\d+),end,(\d+),,:", str(path))
    if inside is None:
        status = Path(path).stat()
        return status.st_size, status.st_mtime_ns
    start, end = map(int, inside.groups())
    return end - start, Path(str(path)[inside.end() :]).stat().st_mtime_ns


@functools.lru_cache(maxsize=64)  # a file is asked for its length, and then for frames
def read_index(path: str, mtime_ns: int, size: int) -> Index:
    """Read all packets of a file; `mtime_ns` and `size` tell versions of the file apart."""
    stored: list[int | None] = []  # times of all frames in the order of storage
    shown: list[int | None] = []  # of those that a player shows
    is_key, damaged = [], False
    with av.open(path) as container:
        stream = video_stream(container)
        own_times = not {"mov", "mp4", "matroska", "webm"}.isdisjoint(container.format.name.split(","))
        subsampled = "420" in str(stream.pix_fmt)
        vp8 = stream.codec_context.name == "vp8"
        for packet in container.demux(stream):
            if packet.size:
                stored.append(packet.pts)
                is_key.append(packet.is_keyframe)
                damaged = damaged or packet.is_corrupt
                if not packet.is_discard and not (vp8 and bytes(packet)[0] & 16 == 0):  # that bit of VP8 is "show"
                    shown.append(packet.pts)
        end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    if end > size or damaged:
        raise ValueError(f"the file is damaged or cut off after {size} bytes")
    if not shown:
        raise ValueError("the file holds no frame")

    count = len(shown)
    times = sorted({time for time in shown if time is not None})
    keys = sorted(time for time, key in zip(stored, is_key, strict=True) if key and time is not None)
    trusted = own_times and subsampled and len(times) == count and None not in stored
    if count < len(stored):
        objection = f"{len(stored) - count} of {len(stored)} stored frames are hidden"
    elif not subsampled:
        objection = "its pictures are not 4:2:0"
    elif not trusted:
        objection = "its container does not store the time of every frame"
    else:
        objection = leading_pictures(stored, is_key)
    return Index(count, np.array(times) if trusted else None, np.array(keys, np.int64), objection)


def video_stream(container: InputContainer) -> av.VideoStream:
    """Return the stream that a player would show, to be decoded in this thread only; ValueError if there is none."""
    stream = container.streams.best("video")
    if not isinstance(stream, av.VideoStream):
        raise ValueError("the file holds no video")
    stream.codec_context.thread_count = 1  # the loader's workers are the parallelism
    return stream


def leading_pictures(times: Sequence[int | None], is_key: list[bool]) -> str:
    """Return an objection if a frame is stored behind a key frame but shown before it.

    `times` are presentation times in the order of storage, `is_key` says which are of key frames.
    """
    if not is_key[0]:
        return "it does not begin with a key frame"
    key = times[0]
    for time, starts in zip(times, is_key, strict=True):
        if starts:
            key = time
        elif time is not None and key is not None and time < key:
            return "frames shown before a key frame are stored behind it"
    return ""


def reason(error: Exception) -> str:
    """Return the first line of what went wrong, without FFmpeg's error number and decord's clock and stack."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return re.sub(r"^\[[\d:]+\] \S+: ", "", str(text).strip().splitlines()[0].strip())
