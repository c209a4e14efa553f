"""``nl-lightning data prepare``: a copy of a data set that decodes several times faster.

Decoding a clip means decoding from the last key frame on, at the full size of the picture. The copy has a short side of
256 (the paper's test size; never enlarged), a key frame every 16 frames, and H.264 without what costs a decoder most
(x264's ``fastdecode``: no arithmetic coding, no deblocking). It is written by the x264 inside PyAV, so no ffmpeg
program is needed. Every copy has all frames of its original, at their times: the same indices are the same moments.
Pixels differ by the scaling and by what the encoder loses.

A copy keeps its original's name, whatever the suffix: content tells a decoder what it is, and so the lists of the data
set are right for the copy as well. It is written whole or not at all, is counted before it counts, and has the time of
change of its original, by which a repeated command knows what is done.
"""

import io
import os
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from nl_lightning.data.decoding import upright
from nl_lightning.data.helper import by_helpers
from nl_lightning.data.packets import DecodeError, index_of, reason, video_stream
from nl_lightning.data.sampling import resized
from nl_lightning.data.tools.commands import alone
from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError, bars
from nl_lightning.study.files import write_atomically

SHORT_SIDE = 256
KEY_EVERY = 16
X264 = {"preset": "veryfast", "tune": "fastdecode", "crf": "23", "threads": "1", "g": str(KEY_EVERY)}
LISTS = {".txt", ".csv", ".json", ".yaml", ".yml"}
"""Suffixes of what lists and describes videos."""
SECONDS = 3600.0
"""After which a file is given up: films are long."""


@dataclass(frozen=True)
class Prepared:
    """How many videos were copied now, were there already, are absent, and could not be decoded: copied as they are."""

    made: int
    there: int
    absent: list[str]
    as_they_are: dict[str, str]


def prepare(splits: Mapping[str, VideoList], lists: Iterable[str], root: Path, folder: Path, workers: int) -> Prepared:
    """Copy the videos of all splits, `workers` at a time, and what lists them, from `root` to `folder`.

    Args:
        splits: the lists of the data set.
        lists: names of list files or folders of them, below `root`.

    Raises:
        UserError: a video lies outside of `root`, another process is at it, or the disk is full.
    """
    names = list(dict.fromkeys(name for videos in splits.values() for name, _ in videos.listed()))
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{name} lies outside of {root}: a copy can't have it below {folder}")
    if folder.resolve() == root.resolve():
        raise UserError(f"{folder} is the data set's own folder: name another one")
    with alone(folder / "prepared"):
        _copy_lists(lists, root, folder, set(names))
        present = [name for name in names if (root / name).is_file()]
        left = [name for name in present if not _is_made(root / name, folder / name)]
        failed = _copy_all(left, root, folder, workers)
    absent = sorted(set(names) - set(present))
    return Prepared(len(left) - len(failed), len(present) - len(left), absent, failed)


def _copy_lists(lists: Iterable[str], root: Path, folder: Path, videos: set[str]) -> None:
    """Copy the lists, and what lies beside them and looks like one: names of classes, annotations."""
    for place in {root, *((root / name).parent for name in lists), *(root / name for name in lists)}:
        for file in place.iterdir() if place.is_dir() else ():
            if file.is_file() and file.suffix.lower() in LISTS and file.is_relative_to(root):
                write_atomically(folder / file.relative_to(root), file.read_bytes(), durable=False)


def _is_made(source: Path, target: Path) -> bool:
    """Whether the copy is there: it has its original's time of change, in seconds, as some disks keep no more."""
    return target.exists() and int(target.stat().st_mtime) == int(source.stat().st_mtime)


def _copy_all(names: list[str], root: Path, folder: Path, workers: int) -> dict[str, str]:
    """Make the copies; return what was wrong with which files, which are then copied as they are."""
    failed = {}
    requests = [(root / name, folder / name) for name in names]
    with bars() as progress:
        task = progress.add_task("copying", total=len(names))
        for place, error in by_helpers(f"{__name__}.copy_video", requests, workers, SECONDS):
            progress.advance(task)
            if error is not None:
                source, target = requests[place]
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy2(source, target)
                failed[names[place]] = str(error)
    return failed


def copy_video(source: Path, target: Path) -> None:
    """Write the copy of one video.

    Raises:
        DecodeError: the original can't be read, or the copy has other frames.
        UserError: the copy can't be written.
    """
    version = source.stat()
    count = index_of(source).count
    try:
        content = _encoded(source)
        copied = _count(content)
    except Exception as error:
        raise DecodeError(f"{source}: {reason(error)}") from error
    if copied != count:
        raise DecodeError(f"{source}: only {copied} of {count} frames decode")
    write_atomically(target, content)
    os.utime(target, ns=(version.st_atime_ns, version.st_mtime_ns))


def _encoded(source: Path) -> bytes:
    """The copy as MP4. Pictures go through RGB, upright, so that no matrix or range of colours has to be passed on."""
    file, turn, shrink = io.BytesIO(), VideoReformatter(), VideoReformatter()
    times = index_of(source).times
    with av.open(str(source)) as old, av.open(file, "w", format="mp4") as new:
        stream = video_stream(old)
        rate = stream.average_rate or Fraction(25)
        copy = new.add_stream("libx264", rate=rate, options=X264)
        copy.pix_fmt = "yuv420p"
        tick = copy.codec_context.time_base = 1 / rate if times is None else Fraction(stream.time_base or 1 / rate)
        for number, frame in enumerate(old.decode(stream)):
            picture = av.VideoFrame.from_ndarray(np.ascontiguousarray(upright(frame, turn)), format="rgb24")
            if number == 0:
                copy.height, copy.width = copied_size(picture.height, picture.width)
            small = shrink.reformat(picture, copy.width, copy.height, "yuv420p", interpolation=Interpolation.AREA)
            small.pts = number if times is None or frame.pts is None else frame.pts - int(times[0])
            small.time_base = tick
            new.mux(copy.encode(small))
        new.mux(copy.encode())
    return file.getvalue()


def copied_size(height: int, width: int) -> tuple[int, int]:
    """Height and width of a copy: short side 256 or less, even, as 4:2:0 wants it."""
    if min(height, width) > SHORT_SIDE:
        height, width = resized(height, width, SHORT_SIDE)
    return max(2, height - height % 2), max(2, width - width % 2)


def _count(content: bytes) -> int:
    with av.open(io.BytesIO(content), "r") as container:
        return sum(packet.size > 0 for packet in container.demux(video_stream(container)))
