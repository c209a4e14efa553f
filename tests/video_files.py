"""Small video files of every kind, whose frames spell their numbers."""

import io
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from nl_lightning.data.decoding import Frames

BLOCK = 16  # pixels of a bar
BITS = 8


def barcode(number: int) -> Frames:
    """Return a picture (32, 128, 3) that spells `number` in eight black or white bars, the lowest bit on the left."""
    bars = np.repeat([255 * (number >> bit & 1) for bit in range(BITS)], BLOCK).astype(np.uint8)  # (128,)
    return np.tile(bars[None, :, None], (32, 1, 3))


def numbers(clip: Frames) -> list[int]:
    """Return what the frames of `clip` (T, 32, 128, 3) spell."""
    bars = clip[:, 8:24, BLOCK // 2 :: BLOCK].mean(axis=(1, 3)) > 127  # (T, 8)
    return [int(sum(1 << bit for bit in range(BITS) if row[bit])) for row in bars]


def write(
    path: Path,
    codec: str = "libx264",
    params: str = "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0",
    count: int = 60,
    pix_fmt: str = "yuv420p",
    when: Callable[[int], int] = lambda i: i,
    size: tuple[int, int] = (32, 128),
    aspect: Fraction | None = None,
    **options: str,
) -> Path:
    """Write frames 0 to `count` - 1, frame i shown at tick ``when(i)`` of 25 a second."""
    if codec == "libx264" and not options:
        options = {"x264-params": f"threads=1:{params}"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        (stream.height, stream.width), stream.pix_fmt = size, pix_fmt
        if aspect is not None:
            stream.codec_context.sample_aspect_ratio = aspect
        for i in range(count):
            picture = barcode(i).repeat(size[0] // 32, axis=0).repeat(size[1] // 128, axis=1)
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = when(i)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut(source: Path, path: Path, key: int, first: int) -> Path:
    """Copy the packets from key frame `key` on, without decoding, so that frame `first` is shown at time 0."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        packets = [packet for packet in old.demux(stream) if packet.size]
        tick = sorted(packet.pts for packet in packets)
        begun = False
        for packet in packets:
            begun = begun or packet.pts == tick[key]
            if begun:
                packet.pts -= tick[first]
                packet.dts -= tick[first]
                packet.stream = copy
                new.mux(packet)
    return path


def copy(
    source: Path,
    path: Path,
    turn: tuple[float, bool, bool] = (0, False, False),
    drop: Callable[[int, int], bool] = lambda place, key: False,
) -> Path:
    """Copy a video without decoding, marked to be shown turned (degrees) and mirrored (left-right, upside down).

    ``drop(place, key)`` says whether a packet is left out; `key` is the number of the last key frame, from 1.
    """
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        track = new.add_stream_from_template(old.streams.video[0])
        if any(turn):
            track.set_display_rotation(*turn)
        key = 0
        for place, packet in enumerate(packet for packet in old.demux(video=0) if packet.size):
            key += packet.is_keyframe
            if not drop(place, key):
                packet.stream = track
                new.mux(packet)
    return path


def append(first: Path, second: Path, path: Path) -> Path:
    """Copy two videos one behind the other, as one stream of which the header knows the first."""
    with av.open(str(path), "w") as new:
        track, begin = None, 0
        for source in (first, second):
            with av.open(str(source)) as old:
                track = track or new.add_stream_from_template(old.streams.video[0])
                packets = [packet for packet in old.demux(video=0) if packet.size]
                for packet in packets:
                    packet.pts, packet.dts, packet.stream = packet.pts + begin, packet.dts + begin, track
                    new.mux(packet)
                begin += 40 * len(packets)
    return path


def hide(source: Path, path: Path) -> Path:
    """Copy a VP8 video with a frame that is never shown before every key frame: that frame, its show bit cleared."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if not packet.size:
                continue
            packet.pts, packet.dts = packet.pts + 20, packet.dts + 20
            if packet.is_keyframe:
                data = bytearray(bytes(packet))
                data[0] &= ~16
                unseen = av.Packet(bytes(data))
                unseen.pts = unseen.dts = packet.pts - 10
                unseen.time_base, unseen.stream, unseen.is_keyframe = packet.time_base, copy, True
                new.mux(unseen)
            packet.stream = copy
            new.mux(packet)
    return path


def decode(file: bytes) -> Frames:
    """Return all frames of a video, without the package's own decoder."""
    with av.open(io.BytesIO(file)) as container:
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def sound_track(container: av.container.OutputContainer) -> None:
    """Write a moment of sound."""
    stream = container.add_stream("aac", rate=8000, layout="mono")
    frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = 8000, 0
    container.mux(stream.encode(frame))
    container.mux(stream.encode())
