"""Frames of one video file by index, right to the frame.

Index i is the i-th frame that a player shows, 0-based, in presentation order. Three decoders stand behind one function,
and give the same bits. What each may read is found out from the packets (:mod:`~nl_lightning.data.packets`) and by
asking it, never from the file's name.

PyAV reads everything, by time or, where times can't be trusted, by counting. It was the fastest on every kind of file
tried (``benchmarks/decoding.py``), so ``auto`` is PyAV. TorchCodec goes by times alone. decord would be wrong on:

- hidden frames, by an edit list (any trim with ``ffmpeg -ss ... -c copy``, as Kinetics is usually cut) or by VP8;
- a container that counts other frames than it holds;
- open groups of pictures, in which frames shown *before* a key frame are stored behind it;
- containers without a timestamp for every frame (AVI, MPEG program and transport streams);
- pictures other than 4:2:0: H.264 files of old x264 state the encoder's version, which the decoder needs, in their
  first frame only. After a jump decord (and PyAV) give grey garbage, so frames are counted here too.
"""

import functools
import importlib
import struct
from collections.abc import Callable, Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import av
import numpy as np
import numpy.typing as npt
from av.video.reformatter import VideoReformatter

from nl_lightning.data import packets
from nl_lightning.data.packets import DecodeError, Index, reason, url, video_stream
from nl_lightning.errors import UserError, nearest

Decoder = Literal["auto", "pyav", "decord", "torchcodec"]
Frames = npt.NDArray[np.uint8]  # (T, H, W, 3), RGB
Shape = tuple[int, int, int, int]
Pictures = Iterator[tuple[int, Frames]]
"""Pictures (H, W, 3), each valid until the next one, with their places among the wanted frames, no place twice."""

DECODERS: tuple[Decoder, ...] = ("pyav", "decord", "torchcodec")


def named(decoder: Decoder, square_pixels: bool = False) -> str:
    """Return the decoder that reads, for ``auto`` too; UserError if there is none of this name, or not installed."""
    if decoder not in ("auto", *DECODERS):
        raise UserError(f"data.decoder is '{decoder}'" + nearest(decoder, ("auto", *DECODERS)))
    if decoder in ("decord", "torchcodec"):
        if square_pixels:
            raise UserError(f"data.square_pixels needs PyAV: set data.decoder to auto, not {decoder}")
        library(decoder)
    return "pyav" if decoder == "auto" else decoder


def frames(
    path: str | Path,
    indices: Sequence[int] | npt.NDArray[Any],
    decoder: Decoder = "auto",
    facts: packets.Facts | None = None,
    square_pixels: bool = False,
    allocate: Callable[[Shape], Frames] = lambda shape: np.empty(shape, np.uint8),
) -> Frames:
    """Return the shown frames `indices` of a video, uint8 RGB (T, H, W, 3).

    They are turned and mirrored as the file says. All have the size of the video's first frame.

    Args:
        path: video file, or a stretch of one.
        indices: 0-based in presentation order; in any order, repeats allowed.
        decoder: who reads; ``decord`` and ``torchcodec`` refuse files on which they would be wrong.
        facts: what a census found about the file.
        square_pixels: scale the width where the file says that its pixels aren't square, as players do. PyAV only.
        allocate: gives the array to fill.

    Raises:
        DecodeError: the file cannot be read, or not by this decoder, or an index lies outside the video.
        UserError: there is no such decoder, or it can't scale.
    """
    reads = named(decoder, square_pixels)
    index = packets.index_of(path, facts)
    wanted, back = np.unique(np.asarray(indices, dtype=np.int64), return_inverse=True)  # ascending, each once
    if len(wanted) == 0:
        raise ValueError("no indices given")
    if wanted[0] < 0 or wanted[-1] >= index.count:
        outside = wanted[0] if wanted[0] < 0 else wanted[-1]
        raise DecodeError(f"{path}: no frame {outside}, the video has {index.count} (0 to {index.count - 1})")
    if refusal := objection(path, index, reads):
        raise DecodeError(f"{path}: {reads} would be wrong on this file: {refusal}")
    try:
        for source in sources(path, wanted, index, Screen(path, square_pixels), reads):
            filled, left = None, len(wanted)
            for place, picture in source:
                filled = allocate((len(back), *picture.shape)) if filled is None else filled
                filled[back == place] = picture
                left -= 1
            if filled is not None and left == 0:
                return filled
    except UserError:
        raise
    except Exception as error:  # decord's DECORDError derives from Exception only
        raise DecodeError(f"{path}: {reason(error)}") from error
    raise DecodeError(f"{path}: {left} of {len(wanted)} wanted frames could not be decoded")


def num_frames(path: str | Path, facts: packets.Facts | None = None) -> int:
    """Return how many frames of a video are shown; DecodeError if it cannot be read."""
    return packets.index_of(path, facts).count


def frame_rate(path: str | Path) -> Fraction:
    """Return the frames a second of a video, on average; DecodeError if it cannot be read or says none."""
    try:
        with av.open(url(path)) as container:
            stream = video_stream(container)
            rate = stream.average_rate or stream.guessed_rate
    except Exception as error:
        raise DecodeError(f"{path}: {reason(error)}") from error
    if not rate:
        raise DecodeError(f"{path}: it doesn't say how many frames a second it has, and clip_starts goes by seconds")
    return Fraction(rate)


def all_frames(path: str | Path) -> Frames:
    """Return all frames that are shown, as :func:`frames` does."""
    return frames(path, np.arange(num_frames(path)))


def objection(path: str | Path, index: Index, reads: str) -> str:
    """Return why a decoder may not read this file, empty if it may."""
    if reads == "pyav":
        return ""
    if reads == "decord" and index.objection:
        return index.objection
    if reads == "torchcodec" and index.times is None:
        return "the times of its frames can't be trusted"
    return misread(str(path), reads, index.count, *packets.version_of(path))


@functools.lru_cache(maxsize=64)
def misread(path: str, reads: str, count: int, size: int, mtime_ns: int) -> str:
    """Return an objection if a decoder cannot read the file, believes in other than `count` frames, or won't mirror it.

    The first frame is read as well: decord opens pictures of a few widths (8, 12, 16, 24, 48, 72) and then cannot.
    """
    try:
        with av.open(url(path)) as container:
            a, b, c, d = orientation(next(container.decode(video_stream(container))))
        reader = opened(reads, path)
        _ = reader[0]
    except Exception as error:
        return f"it cannot read it: {reason(error)}"
    if a * d < b * c:
        return "its pictures are to be mirrored"
    return "" if len(reader) == count else f"it counts {len(reader)} of {count} frames"


def library(name: str) -> ModuleType:
    """Import decord or TorchCodec; UserError in one line if that fails."""
    try:
        module = importlib.import_module("torchcodec.decoders" if name == "torchcodec" else name)
        # Without FFmpeg's libraries an older TorchCodec can't be imported, and a newer one can't open any file.
        if name == "torchcodec" and vars(importlib.import_module(name)).get("ffmpeg_major_version", 0) is None:
            raise ImportError("no FFmpeg")
        return module
    except (ImportError, OSError, RuntimeError) as error:
        needs = {
            "decord": "decord",
            "torchcodec": "'nl-lightning[torchcodec]' and FFmpeg's shared libraries, 4 to 8 (apt-get install ffmpeg)",
        }
        raise UserError(
            f"data.decoder is {name}, which can't be loaded here ({reason(error)}): it needs pip install {needs[name]}"
        ) from None


def opened(reads: str, path: str | Path) -> Any:
    """A reader of decord or TorchCodec. It lives for one call: in a forked worker an older one of decord hangs."""
    module = library(reads)
    if reads == "decord":
        module.logging.set_level(module.logging.QUIET)  # FFmpeg's chatter
        return module.VideoReader(url(path), num_threads=1)
    # The approximate mode takes the frame at a time that it computes.
    return module.VideoDecoder(url(path), dimension_order="NHWC", num_ffmpeg_threads=1, seek_mode="exact")


def sources(
    path: str | Path, wanted: npt.NDArray[np.int64], index: Index, screen: "Screen", reads: str = "pyav"
) -> Iterator[Pictures]:
    """Ways to the frames `wanted` (ascending), each to be tried if the one before it did not find all."""
    if reads == "decord":
        yield enumerate(opened(reads, path).get_batch(wanted.tolist()).asnumpy())
    elif reads == "torchcodec":
        yield enumerate(opened(reads, path).get_frames_at(wanted.tolist()).data.numpy())
    else:
        if index.times is not None:
            yield by_time(path, index.times[wanted].tolist(), index.keys, screen)
        yield by_count(path, wanted.tolist(), index.before_key, screen)


def by_time(path: str | Path, times: list[int], keys: npt.NDArray[np.int64], screen: "Screen") -> Pictures:
    """Give the frames shown at `times` (ascending); fewer if some could not be decoded.

    Decoding starts at the last key frame shown no later than the first wanted one. Frames that no other refers to are
    skipped unless they are wanted.
    """
    place = {time: place for place, time in enumerate(times)}
    with av.open(url(path)) as container:
        stream = screen.before(video_stream(container))
        before = keys[keys <= times[0]]
        if len(before):
            container.seek(int(before[-1]), stream=stream)
        for packet in container.demux(stream):
            stream.codec_context.skip_frame = "NONREF" if packet.size and packet.pts not in place else "DEFAULT"
            for frame in stream.decode(packet):
                if frame.pts in place and not frame.is_corrupt:
                    yield place.pop(frame.pts), screen.picture(frame)
            if not place:
                return


def by_count(path: str | Path, wanted: list[int], before_key: int, screen: "Screen") -> Pictures:
    """Give the frames `wanted` (ascending), counting what is decoded; fewer if the file ends."""
    place = {number: place for place, number in enumerate(wanted)}
    with av.open(url(path)) as container:
        stream = screen.before(video_stream(container))
        for i, frame in enumerate(packets.decode_from(container, stream, before_key)):
            if i in place:
                yield place.pop(i), screen.picture(frame)
            if not place:
                return


class Screen:
    """Makes of each decoded frame the picture that a player shows; all pictures of a video have one size.

    The other decoders turn pictures by themselves, but don't mirror them.
    """

    def __init__(self, path: str | Path, square_pixels: bool = False) -> None:
        self.path, self.square_pixels = path, square_pixels
        self._convert = VideoReformatter()

    def before(self, stream: av.VideoStream) -> av.VideoStream:
        """Note what the header says of a stream, which is about to be decoded."""
        self._header, self._aspect = (stream.width, stream.height), stream.sample_aspect_ratio
        self._size = (0, 0)  # of pictures before they are turned, once the first one is there
        return stream

    def picture(self, frame: av.VideoFrame) -> Frames:
        """Return a frame as RGB (H, W, 3), valid until the next one."""
        if self._size == (0, 0):
            self._begin(frame)
        converted = self._convert.reformat(frame, *self._size, format="rgb24")
        plane = converted.planes[0]
        lines = np.frombuffer(memoryview(plane), np.uint8).reshape(converted.height, plane.line_size)  # padded
        picture = lines[:, : 3 * converted.width].reshape(converted.height, converted.width, 3)
        return (picture.swapaxes(0, 1) if self._turned else picture)[self._directions]

    def _begin(self, frame: av.VideoFrame) -> None:
        """See how pictures lie, and how large they are to be; the first frame of a clip says it for all of them.

        (A frame that is asked for its side data stays in memory for a while, so the others aren't.)
        """
        a, b, c, d = orientation(frame)
        self._turned = abs(b) + abs(c) > abs(a) + abs(d)  # rows become columns
        x, y = (c, b) if self._turned else (a, d)
        self._directions = slice(None, None, -1 if y < 0 else 1), slice(None, None, -1 if x < 0 else 1)
        self._size = self._header
        if (frame.width, frame.height) != self._header:  # the file's first frame has the header's size, or its own
            with av.open(url(self.path)) as container:
                first = next(container.decode(video_stream(container)))
                self._size = first.width, first.height
        if self.square_pixels and self._aspect:
            width, height = self._size
            self._size = (
                (width, round(height / self._aspect)) if self._turned else (round(width * self._aspect), height)
            )

    @property
    def pixel_aspect(self) -> Fraction | None:
        """Width / height of a pixel of the pictures so far; None if the file says nothing of it."""
        return 1 / self._aspect if self._aspect and self._turned else self._aspect or None


def orientation(frame: av.VideoFrame) -> tuple[int, int, int, int]:
    """Return a, b, c, d: what lies at (x, y) from the centre is to be shown at (a x + c y, b x + d y)."""
    matrix: Any = frame.side_data.get("DISPLAYMATRIX")
    if matrix is None:
        return 1, 0, 0, 1
    a, b, _, c, d, _, _, _, _ = struct.unpack("9i", bytes(matrix))
    return a, b, c, d
