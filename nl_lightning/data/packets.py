"""What the packets of a video file say, without decoding: how many frames are shown, when, and from where to decode.

A file is a path, or a stretch of a larger file (:func:`stretch`), as in a tar shard.
"""

import functools
import os
import re
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
from av.container import InputContainer
from av.stream import Disposition

from nl_lightning.errors import visible


class DecodeError(Exception):
    """A file that cannot be read, or not these frames of it; the message is one line that names the file."""

    def __init__(self, line: str) -> None:
        super().__init__(visible(line))  # names of files come from anybody


@dataclass(frozen=True)
class Index:
    """What the packets of a file say. Times are in units of the stream's time base, ascending."""

    count: int  # frames shown
    times: npt.NDArray[np.int64] | None  # of the shown frames; None where they can't be trusted, and frames are counted
    keys: npt.NDArray[np.int64]  # times of the key frames
    objection: str  # why a decoder that takes the file for plain would be wrong on it, empty if it is plain
    before_key: int = 0  # packets that are stored before the first key frame: nobody can decode them


@dataclass(frozen=True)
class Facts:
    """What was found before about a file."""

    version: tuple[int, int]
    index: Index | None
    error: str = ""  # why it can't be read, if it can't


def index_of(path: str | Path, facts: Facts | None = None) -> Index:
    """The index of a file, from memory or `facts` if it hasn't changed since; DecodeError if it can't be read."""
    try:
        size, mtime_ns = version_of(path)
        if facts is not None and facts.version == (size, mtime_ns):
            if facts.error:
                raise ValueError(facts.error)
            if facts.index is not None:
                return facts.index
        if size == 0:
            raise ValueError("the file is empty" if Path(place_of(path)[0]).is_file() else "it is no regular file")
        return read_index(str(path), mtime_ns, size)
    except Exception as error:
        raise DecodeError(f"{path}: {reason(error)}") from error


# ------------------------------------------------------------------------------------------------ files and stretches


def stretch(file: Path, start: int, size: int) -> str:
    """Return the name by which FFmpeg opens the `size` bytes from `start` on of a file as a file of their own."""
    return f"subfile,,start,{start},end,{start + size},,:{os.path.abspath(file)}"


def place_of(path: str | Path) -> tuple[str, int, int | None]:
    """Return the file in which a file or stretch lies, its first byte there, and the byte behind it (None: the end)."""
    inside = re.match(r"subfile,,start,(\d+),end,(\d+),,:", str(path))
    return (str(path)[inside.end() :], int(inside[1]), int(inside[2])) if inside else (str(path), 0, None)


def version_of(path: str | Path) -> tuple[int, int]:
    """Return the bytes of a file or stretch and the time of its last change (ns): another version has others."""
    file, start, end = place_of(path)
    status = Path(file).stat()
    return status.st_size if end is None else end - start, status.st_mtime_ns


def url(path: str | Path) -> str:
    """Return the name by which FFmpeg opens a file: one with a colon in it, as ``a:b.mp4``, is no address."""
    return str(path) if place_of(path)[2] is not None else os.path.abspath(path)


# ------------------------------------------------------------------------------------------------- reading the packets


PLAYLISTS = {"concat", "hls", "dash", "sdp", "imf"}
"""FFmpeg's formats that name other files, or addresses, to read; it goes by content, whatever the suffix."""


@functools.lru_cache(maxsize=64)  # a file is asked for its length, and then for frames
def read_index(path: str, mtime_ns: int, size: int) -> Index:
    """Read all packets of a file; `mtime_ns` and `size` tell versions of the file apart."""
    try:
        return _read_packets(path, size)
    except Exception:
        if is_cut_off(path, size):
            raise ValueError(f"the file is damaged or cut off after {size} bytes") from None
        raise


def _read_packets(path: str, size: int) -> Index:
    with av.open(url(path)) as container:
        stream = video_stream(container)
        kind, brand = container.format.name, container.metadata.get("major_brand", "")
        if kind in PLAYLISTS:
            raise ValueError(f"it is a playlist ({kind}) of other files, not a video")
        codec = stream.codec_context.name
        # A picture of Motion JPEG needs no other one, whatever its colours.
        subsampled, is_shown = "420" in str(stream.pix_fmt) or codec == "mjpeg", _Shown(codec)
        packets = (packet for packet in container.demux(stream) if packet.size)
        found = [(packet.pts, packet.is_keyframe, is_shown(packet), packet.is_corrupt) for packet in packets]
        end = max((entry.pos + entry.size for entry in stream.index_entries), default=0)
    stored = [time for time, *_ in found]  # times of all packets in the order of storage
    is_key = [key for _, key, *_ in found]
    visible = [(place, time) for place, (time, _, shown, _) in enumerate(found) if shown]
    if any(corrupt for *_, corrupt in found) or end > size or (not kind.startswith("mov") and is_cut_off(path, size)):
        raise ValueError(f"the file is damaged or cut off after {size} bytes")
    before_key = is_key.index(True) if True in is_key else 0
    shown = _from_first_key(path, visible, before_key, stored[before_key] if stored else None)
    if not shown:
        raise ValueError("the file holds no frame")
    if len(shown) == 1 and (kind in ("gif", "apng") or brand in ("avif", "heic", "mif1")):
        raise ValueError("a still picture is no video")

    count = len(shown)
    times = sorted({time for time in shown if time is not None})
    keys = sorted(time for time, key in zip(stored, is_key, strict=True) if key and time is not None)
    own_times = not {"mov", "mp4", "matroska", "webm"}.isdisjoint(kind.split(","))
    trusted = own_times and subsampled and len(times) == count and None not in stored
    if count < len(stored):
        objection = f"{len(stored) - count} of {len(stored)} stored frames are hidden"
    elif not subsampled:
        objection = "its pictures are not 4:2:0"
    elif not trusted:
        objection = "its container does not store the time of every frame"
    else:
        objection = leading_pictures(stored, is_key)
    return Index(count, np.array(times) if trusted else None, np.array(keys, np.int64), objection, before_key)


NOT_SHOWN = Disposition.attached_pic | Disposition.still_image | Disposition.timed_thumbnails


def video_stream(container: InputContainer) -> av.VideoStream:
    """Return the stream that a player would show, to be decoded in this thread only; ValueError if there is none."""
    if container.format.name.endswith("_pipe") or container.format.name == "image2":
        raise ValueError("a still picture is no video")
    videos = [stream for stream in container.streams.video if not stream.disposition & NOT_SHOWN]
    if not videos:
        raise ValueError("the file holds no video" + (", only a picture" if container.streams.video else ""))
    best = container.streams.best("video")
    stream = best if best in videos and isinstance(best, av.VideoStream) else videos[0]
    if stream.codec_context is None:
        raise ValueError("its video is of a kind that FFmpeg doesn't know")
    stream.codec_context.thread_count = 1  # the loader's workers are the parallelism
    return stream


class _Shown:
    """Whether a player shows the frame of a packet; asked for each packet in turn."""

    def __init__(self, codec: str) -> None:
        self._codec, self._second = codec, False

    def __call__(self, packet: Any) -> bool:
        if packet.is_discard:
            return False
        if self._codec == "vp8":
            return bool(bytes(packet)[0] & 0x10)  # the bit "show"
        if self._codec == "vp9":  # several frames in a packet end with a mark; one alone shows itself or a stored one
            data = bytes(packet)
            return data[-1] & 0xE0 == 0xC0 or bool(data[0] & (0x05 if data[0] & 0x30 == 0x30 else 0x0A))
        if self._codec == "mpeg4":  # a tiny frame says "none", or stands for the second one of a packet before it
            tiny, second = packet.size <= (19 if self._second else 7), self._second
            self._second = bytes(packet).count(b"\0\0\1\xb6") > 1 or (second and not tiny)
            return second or not tiny
        return True


def _from_first_key(
    path: str, visible: list[tuple[int, int | None]], before_key: int, start: int | None
) -> list[int | None]:
    """The times of the `visible` frames that are decodable. The first key frame is packet `before_key`, at `start`.

    What is stored before it can't be decoded. What is stored behind it and shown before it seldom can, as in a film
    that was cut at an open group of pictures; only decoding tells.
    """
    early = [place < before_key or (time is not None and start is not None and time < start) for place, time in visible]
    if True not in early:
        return [time for _, time in visible]
    decoded = set()
    with av.open(url(path)) as container:
        for frame in decode_from(container, video_stream(container), before_key):
            if frame.pts is None or start is None or frame.pts >= start:
                break
            if not frame.is_corrupt:
                decoded.add(frame.pts)
    return [time for (_, time), is_early in zip(visible, early, strict=True) if not is_early or time in decoded]


def decode_from(container: InputContainer, stream: av.VideoStream, before_key: int) -> Iterator[av.VideoFrame]:
    """Decode all of a file but the `before_key` packets before the first key frame."""
    for packet in container.demux(stream):
        before_key -= packet.size > 0
        if before_key < 0 or not packet.size:
            yield from stream.decode(packet)


SIZES = (  # where the first bytes of a container say how long it is: a pattern, the number's format, what to add to it
    (rb"^\x1a\x45\xdf\xa3.*?\x18\x53\x80\x67(.{8})", "", 0),  # Matroska
    (rb"^RIFF(.{4})AVI ", "<I", 8),
    (rb"^\x30\x26\xb2\x75.*?\xa1\xdc\xab\x8c\x47\xa9\xcf\x11\x8e\xe4\0\xc0\x0c\x20\x53\x65.{24}(.{8})", "<Q", 0),  # WMV
    (rb"^FLV.*?\x08filesize\0(.{8})", ">d", 0),
    (rb"^\x06\x0e\x2b\x34.{9}\x02.\0(?:\x83.{3}|\x87.{7}).{24}(.{8})", ">Q", 1),  # MXF: its last part begins there
)
UNTOLD = {2**31 - 1, 2**32 - 1, 2**64 - 1}  # stands there if the program that wrote the file couldn't go back to it


def is_cut_off(path: str, size: int) -> bool:
    """Whether a container says that it goes on behind the end of the file; False if it says nothing."""
    name, first, _ = place_of(path)
    with open(name, "rb") as file:

        def read(start: int, count: int) -> bytes:
            file.seek(first + start)
            return file.read(min(count, size - start))

        head, tail = read(0, 4096), read(max(0, size - 65536), 65536)
        if head[4:8] == b"ftyp":  # MP4: boxes that begin with their size
            start = 0
            while start + 16 <= size:
                small, large = struct.unpack(">I4xQ", read(start, 16))
                start += (large if small == 1 else small) or size
            return start > size
    if head.startswith(b"GIF8"):
        return not tail.rstrip(b"\0").endswith(b";")
    if head.startswith(b"OggS"):
        page = tail[tail.rfind(b"OggS") :]
        sizes = page[27 : 27 + page[26]] if len(page) > 26 else b""
        return not sizes or len(page) < 27 + len(sizes) + sum(sizes) or not page[5] & 4  # the bit "end of stream"
    for packet, sync in ((188, 0), (192, 4), (204, 0)):  # MPEG transport streams
        if len(head) > 5 * packet and set(head[sync::packet]) == {71}:
            return size % packet > 0
    for pattern, form, more in SIZES:
        if found := re.search(pattern, head, re.DOTALL):
            number = struct.unpack(form, found[1])[0] + more if form else _matroska(found[1]) + found.start(1)
            return number - more not in UNTOLD and number > size + 1
    return False


def _matroska(field: bytes) -> int:
    """The number in a field of Matroska, and the bytes that the field takes; 0 if it says that it isn't known."""
    length = 9 - field[0].bit_length()
    most = (1 << 7 * length) - 1
    number = int.from_bytes(field[:length]) & most
    return length + number if number < most else 0


def leading_pictures(times: Sequence[int | None], is_key: list[bool]) -> str:
    """An objection if a frame is stored behind a key frame and shown before it; `times` in the order of storage."""
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
