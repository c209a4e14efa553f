"""Frames of one video file by index, right to the frame.

Index i is the i-th frame that a player shows, 0-based, in presentation order. decord reads the files on which it is
right; on others it gives another frame without a word, or none, and those go to PyAV. Which they are is found out from
the packets (their timestamps and flags, without decoding) and by asking decord, never from the file's name:

- frames are hidden, by an edit list (any trim with ``ffmpeg -ss ... -c copy``, as Kinetics is usually cut) or by VP8:
  decord counts and shows them;
- the container counts other frames than it holds;
- open groups of pictures, in which frames shown *before* a key frame are stored behind it: decord is one or two off;
- containers without a timestamp for every frame (AVI, MPEG program and transport streams): decord is off by many;
- pictures other than 4:2:0: the decoder needs the encoder's version, which H.264 files of old x264 state in their first
  frame only; after a jump decord (and PyAV) give grey garbage.

In the last two cases PyAV decodes from the first frame on, otherwise from the last key frame before the first wanted
frame.
"""

import functools
import importlib
import importlib.util
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.video.reformatter import VideoReformatter

from nl_lightning.errors import UserError, nearest

Decoder = Literal["auto", "decord", "pyav"]
Frames = npt.NDArray[np.uint8]  # (T, H, W, 3), RGB


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
        objection: why decord may not read this file, empty if it may.
    """

    count: int
    times: npt.NDArray[np.int64] | None
    keys: npt.NDArray[np.int64]
    objection: str


def frames(path: str | Path, indices: Sequence[int] | npt.NDArray[Any], decoder: Decoder = "auto") -> Frames:
    """Return the shown frames `indices` of a video, uint8 RGB (T, H, W, 3), upright as a player shows them.

    Args:
        path: video file.
        indices: 0-based in presentation order; in any order, repeats allowed.
        decoder: ``auto`` takes decord where it is right and PyAV elsewhere; ``decord`` refuses the other files.

    Raises:
        DecodeError: the file cannot be read, or an index lies outside the video.
        UserError: there is no such decoder.
    """
    if decoder not in ("auto", "decord", "pyav"):
        raise UserError(f"decoder is '{decoder}'" + nearest(decoder, ("auto", "decord", "pyav")))
    index = index_of(path)
    wanted, back = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)  # ascending, each once
    if len(wanted) == 0:
        raise ValueError("no indices given")
    if wanted[0] < 0 or wanted[-1] >= index.count:
        outside = wanted[0] if wanted[0] < 0 else wanted[-1]
        raise DecodeError(f"{path}: no frame {outside}, the video has {index.count} (0 to {index.count - 1})")
    if decoder == "decord" and index.objection:
        raise DecodeError(f"{path}: decord would be wrong on this file: {index.objection}")
    by_pyav = decoder == "pyav" or index.objection
    try:
        found = read_pyav(path, wanted, index) if by_pyav else read_decord(path, wanted)
    except Exception as error:  # decord's DECORDError derives from Exception only
        raise DecodeError(f"{path}: {reason(error)}") from error
    return found[back]


def num_frames(path: str | Path) -> int:
    """Return how many frames of a video are shown; DecodeError if it cannot be read."""
    return index_of(path).count


def choose(path: str | Path) -> Literal["decord", "pyav"]:
    """Return which decoder ``auto`` takes for a file; DecodeError if it cannot be read."""
    return "pyav" if index_of(path).objection else "decord"


def index_of(path: str | Path) -> Index:
    """Return the index of a file, from memory if the file has not changed since; DecodeError if it cannot be read."""
    try:
        status = Path(path).stat()
        if status.st_size == 0:
            raise ValueError("the file is empty")
        return read_index(str(path), status.st_mtime_ns, status.st_size)
    except Exception as error:
        raise DecodeError(f"{path}: {reason(error)}") from error


@functools.lru_cache(maxsize=4096)  # some 5 kB each
def read_index(path: str, mtime_ns: int, size: int) -> Index:
    """Read all packets of a file and ask decord about it; `mtime_ns` and `size` tell versions of the file apart."""
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
        objection = leading_pictures(stored, is_key) or miscount(path, count)
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


def miscount(path: str, count: int) -> str:
    """Return an objection if decord is absent, cannot read the file, or believes in other than `count` frames.

    The first frame is read as well: decord opens pictures of a few widths (8, 12, 16, 24, 48, 72) and then cannot.
    """
    if importlib.util.find_spec("decord") is None:
        return "decord is not installed"
    try:
        reader = decord().VideoReader(path, num_threads=1)
        reader.get_batch([0])
    except Exception as error:
        return f"decord cannot read it: {reason(error)}"
    return "" if len(reader) == count else f"decord counts {len(reader)} of {count} frames"


def decord() -> ModuleType:
    """Import decord when it is first needed, with FFmpeg's chatter off."""
    module = importlib.import_module("decord")
    module.logging.set_level(module.logging.QUIET)
    return module


def read_decord(path: str | Path, wanted: npt.NDArray[np.int64]) -> Frames:
    """Return the frames `wanted` (ascending). The reader lives for one call: in a forked worker an older one hangs."""
    found: Frames = decord().VideoReader(str(path), num_threads=1).get_batch(wanted.tolist()).asnumpy()
    return found


def read_pyav(path: str | Path, wanted: npt.NDArray[np.int64], index: Index) -> Frames:
    """Return the frames `wanted` (ascending): by time from a key frame on, or counted from the first frame on."""
    if index.times is not None:
        found = by_time(path, index.times[wanted].tolist(), index)
        if len(found) == len(wanted):
            return np.stack(found)
    found = by_count(path, wanted.tolist())
    if len(found) < len(wanted):
        raise ValueError(f"only {len(found)} of {len(wanted)} wanted frames could be decoded")
    return np.stack(found)


def by_time(path: str | Path, times: list[int], index: Index) -> list[Frames]:
    """Return the frames shown at `times` (ascending), each (H, W, 3); fewer if some could not be decoded.

    Decoding starts at the last key frame shown no later than the first wanted one: frames stored behind a key frame and
    shown before it are not decodable from there, but they aren't wanted either. Frames that no other refers to are
    skipped unless they are wanted.
    """
    wanted, found, convert = set(times), dict[int, Frames](), VideoReformatter()
    with av.open(str(path)) as container:
        stream = video_stream(container)
        before = index.keys[index.keys <= times[0]]
        if len(before):
            container.seek(int(before[-1]), stream=stream)
        for packet in container.demux(stream):
            stream.codec_context.skip_frame = "NONREF" if packet.size and packet.pts not in wanted else "DEFAULT"
            for frame in stream.decode(packet):
                if frame.pts is not None and frame.pts in wanted and not frame.is_corrupt:
                    found[frame.pts] = upright(frame, convert)
            if len(found) == len(wanted):
                break
    return [found[time] for time in times if time in found]


def by_count(path: str | Path, wanted: list[int]) -> list[Frames]:
    """Return the frames `wanted` (ascending), each (H, W, 3), counting what is decoded; fewer if the file ends."""
    chosen, found, convert = set(wanted), [], VideoReformatter()
    with av.open(str(path)) as container:
        stream = video_stream(container)
        for i, frame in enumerate(container.decode(stream)):
            if i in chosen:
                found.append(upright(frame, convert))
            if len(found) == len(wanted):
                break
    return found


def upright(frame: av.VideoFrame, convert: VideoReformatter) -> Frames:
    """Return a frame as RGB (H, W, 3), turned as its container says (decord does so by itself)."""
    return np.rot90(convert.reformat(frame, format="rgb24").to_ndarray(), frame.rotation // 90).astype(np.uint8)


def reason(error: Exception) -> str:
    """Return the first line of what went wrong, without FFmpeg's error number and decord's clock and stack."""
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return re.sub(r"^\[[\d:]+\] \S+: ", "", str(text).strip().splitlines()[0].strip())
