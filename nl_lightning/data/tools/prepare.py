"""``nl-lightning data prepare``: a copy of a data set that decodes several times faster.

Decoding a clip means decoding from the last key frame on, at the full size of the picture. The copy has a short side of
256, the paper's test size, or another that was asked for (never enlarged), a key frame every 16 frames, and H.264
without what costs a decoder most (x264's ``fastdecode``). Every copy has all frames that a player shows of its
original, at their times: the same indices are the same moments. They are turned and mirrored; the shape of pixels is
passed on. Pixels differ by the scaling and by what the encoder loses.

A copy keeps its original's name, whatever the suffix, so that the lists of the data set are right for the copy as well.
Content tells a decoder what it is. A repeated command knows what is done by the time of change of the original, which
the copy has as well.
"""

import io
import json
import os
import shutil
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.reformatter import Interpolation, VideoReformatter

from nl_lightning.data.decoding import Frames, Pictures, Screen, sources
from nl_lightning.data.packets import DecodeError, Index, index_of, reason, url, video_stream
from nl_lightning.data.reader import by_helpers
from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError, bars
from nl_lightning.study.border import shown
from nl_lightning.study.files import MARK, read_text, refuse_foreign, whole_file, write_atomically, write_output
from nl_lightning.study.lock import alone

SHORT_SIDE = 256
KEY_EVERY = 16
X264 = {"preset": "veryfast", "tune": "fastdecode", "crf": "23", "threads": "1", "g": str(KEY_EVERY)}
SIZE = "nl-lightning-prepared.json"  # says the size of the copies in its folder
LISTS = {".txt", ".csv", ".json", ".yaml", ".yml"}  # suffixes of what lists and describes videos
SECONDS = 3600.0  # of computing, after which a file is given up: films are long


@dataclass(frozen=True)
class Prepared:
    """How many videos were copied now, were there already, are absent, and could not be decoded: copied as they are."""

    made: int
    there: int
    absent: list[str]
    as_they_are: dict[str, str]


def copy_data_set(
    splits: Mapping[str, VideoList],
    lists: Iterable[str],
    root: Path,
    folder: Path,
    workers: int,
    side: int = SHORT_SIDE,
) -> Prepared:
    """Copy the videos of all splits, `workers` at a time, and what lists them, from `root` to `folder`.

    `side` is the short side of the copies, in pixels. `lists` are names of list files or folders of them, below `root`.

    Raises:
        UserError: a video lies outside of `root`, `folder` has copies of another size or files that this command didn't
            write, another process is at it, or the disk is full.
    """
    names = list(dict.fromkeys(name for videos in splits.values() for name, _ in videos.listed()))
    for name in names:
        if Path(name).is_absolute() or ".." in Path(name).parts:
            raise UserError(f"{name} lies outside of {root}: a copy can't have it below {folder}")
    at, lists = folder.resolve(), list(lists)
    if at == root.resolve() or (not lists and at.is_relative_to(root.resolve())):  # without lists, all of it is classes
        raise UserError(f"{folder} is the data set's own folder, or in it: name another one")
    with alone(folder / "prepared"):
        present = [name for name in names if (root / name).is_file()]
        begun = (folder / SIZE).exists()  # without it, what is there may be originals, copied with their times
        left = [name for name in present if not (begun and _is_made(root / name, folder / name))]
        refuse_foreign(folder / name for name in left)
        _keep_size(folder, side)
        texts = {folder / file.relative_to(root): file.read_bytes() for file in _lists(lists, root)}
        for target, content in texts.items():
            write_output(target, content)
        failed = {}
        requests = [(root / name, folder / name, side) for name in left]
        with bars() as bar:
            copies = by_helpers(f"{__name__}.copy_video", requests, workers, SECONDS)
            for place, error in bar.track(copies, len(left), description="copying"):
                if error is not None:
                    source, target, _ = requests[place]
                    with whole_file(target) as part:
                        shutil.copy2(source, part)
                    failed[left[place]] = str(error)
    absent = sorted(set(names) - set(present))
    return Prepared(len(left) - len(failed), len(present) - len(left), absent, failed)


def _lists(lists: Iterable[str], root: Path) -> Iterator[Path]:
    """The lists, and what lies beside them and looks like one: names of classes, annotations."""
    for place in {root, *((root / name).parent for name in lists), *(root / name for name in lists)}:
        for file in place.iterdir() if place.is_dir() else ():
            if file.is_file() and file.suffix.lower() in LISTS and file.is_relative_to(root) and file.name != SIZE:
                yield file


def _keep_size(folder: Path, side: int) -> None:
    """Write down the size of the copies in `folder`. UserError if it has copies of another size."""
    marker, said = folder / SIZE, json.dumps({"short_side": side})
    if marker.exists() and (found := read_text(marker).strip()) != said:
        raise UserError(f"{marker}: expected {said}, as --short-side says, not {shown(found)}: name another folder")
    write_atomically(marker, said + "\n")


def _is_made(source: Path, target: Path) -> bool:
    """Whether the copy is there: it has its original's time of change, in seconds, as some disks keep no more."""
    return target.exists() and int(target.stat().st_mtime) == int(source.stat().st_mtime)


def copy_video(source: Path, target: Path, side: int = SHORT_SIDE) -> None:
    """Write the copy of one video. DecodeError if it can't be read, or the copy has other frames."""
    version, index, copied = source.stat(), index_of(source), 0
    try:
        screen = Screen(source)
        for pictures in sources(source, np.arange(index.count), index, screen):
            content = _encoded(source, index, pictures, screen, side)
            copied = _count(content)
            if copied == index.count:
                break
    except Exception as error:
        raise DecodeError(f"{source}: {reason(error)}") from error
    if copied != index.count:
        raise DecodeError(f"{source}: only {copied} of {index.count} frames decode")
    write_atomically(target, content)
    os.utime(target, ns=(version.st_atime_ns, version.st_mtime_ns))


def _encoded(source: Path, index: Index, pictures: Pictures, screen: Screen, side: int) -> bytes:
    """The copy as MP4. Pictures go through RGB, so that no matrix or range of colours has to be passed on."""
    with av.open(url(source)) as old:
        stream = video_stream(old)
        rate, tick = stream.average_rate or Fraction(25), stream.time_base
    file, shrink = io.BytesIO(), VideoReformatter()
    with av.open(file, "w", format="mp4") as new:
        new.metadata["comment"] = MARK
        copy = new.add_stream("libx264", rate=rate, options=X264)
        copy.pix_fmt = "yuv420p"
        copy.codec_context.time_base = 1 / rate if index.times is None else Fraction(tick or 1 / rate)
        sized = False
        for number, picture in pictures:
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(picture), format="rgb24")
            if not sized:
                sized = True
                copy.height, copy.width = copied_size(frame.height, frame.width, side)
                if aspect := screen.pixel_aspect:
                    scaled = aspect * Fraction(frame.width * copy.height, frame.height * copy.width)
                    copy.codec_context.sample_aspect_ratio = scaled.limit_denominator(4096)
            small = shrink.reformat(frame, copy.width, copy.height, "yuv420p", interpolation=Interpolation.AREA)
            small.pts = number if index.times is None else int(index.times[number] - index.times[0])
            small.time_base = copy.codec_context.time_base
            new.mux(copy.encode(small))
        new.mux(copy.encode())
    return file.getvalue()


def copied_size(height: int, width: int, side: int = SHORT_SIDE) -> tuple[int, int]:
    """Height and width of a copy: short side `side` or less, even, as 4:2:0 wants it."""
    short = min(height, width)
    if short > side:  # as in transforms.resize, without importing torch into every helper
        height, width = height * side // short, width * side // short
    return max(2, height - height % 2), max(2, width - width % 2)


def _count(content: bytes) -> int:
    with av.open(io.BytesIO(content), "r") as container:
        return sum(packet.size > 0 for packet in container.demux(video_stream(container)))


def write_mp4(path: Path, frames: Frames, fps: Fraction | int, of: str = "") -> None:
    """Write frames (T, H, W, 3), RGB, of even height and width, as H.264 that players show: whole or not at all.

    The file says that it is ours, and what it is `of`.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        container.metadata["comment"] = f"{MARK} of {of}" if of else MARK
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"  # others don't play everywhere
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    write_output(path, file.getvalue())
