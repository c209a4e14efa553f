"""Generated sets of small videos: what writes the files. What is drawn in them is a set's own.

Video i of a split has a random generator of its own, ``default_rng((seed of the split, i))``. So no file depends on the
number of processes or on the order of the work.
"""

import glob
import io
import json
import os
from collections.abc import Collection
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import ClassVar

import av
import numpy as np
import numpy.typing as npt

from nl_lightning.errors import UserError, bars
from nl_lightning.study import border
from nl_lightning.study.evidence import cores
from nl_lightning.study.files import write_atomically
from nl_lightning.study.lock import waiting_for

Clip = npt.NDArray[np.uint8]  # (T, H, W, 3)
Place = tuple[int, int]  # (y, x) of a glyph's top-left corner
Picture = npt.NDArray[np.float64]  # (..., H, W, 3), not rounded yet

SPLITS = ("train", "val", "test")


@dataclass(frozen=True)
class GeneratedSet:
    """How many videos of which size. A set says its classes, files and clips.

    Args:
        train, val, test: videos of each split.
        num_frames: raw frames of a video.
        size: height and width of a frame; `crop` is the crop that no glyph of an event is ever cut by.
        fps: frames a second, written to the file.
    """

    name: ClassVar[str]  # as messages have it
    version: ClassVar[int]  # raise it whenever the same specification gives other pixels: old copies are then refused
    seeds: ClassVar[dict[str, int]]  # of the splits
    later: ClassVar[tuple[str, ...]] = ()  # settings that older copies lack; where 0 or False, the file says nothing

    train: int = 2000
    val: int = 600
    test: int = 600
    num_frames: int = 32
    size: int = 36
    crop: int = 32
    fps: int = 16

    def __post_init__(self) -> None:
        for field in fields(GeneratedSet):
            value = getattr(self, field.name)
            most = 1_000_000 if field.name in SPLITS else 1000
            if not isinstance(value, int) or not 1 <= value <= most:
                raise UserError(
                    f"{self.name}: {field.name} is {border.shown(value)}, expected a whole number from 1 to {most:,}"
                )

    def refuse_unknown(self, what: str, chosen: tuple[str, ...], known: Collection[str]) -> None:
        """UserError unless those that were chosen are some of the known ones, each once."""
        if not chosen or len({*chosen}) < len(chosen) or not {*chosen} <= {*known}:
            said = f"expected some of {', '.join(known)}, each once"
            raise UserError(f"{self.name}: {what} are {', '.join(chosen) or 'none'}, {said}")

    def classes(self) -> tuple[str, ...]:
        """The names of the classes, in the order of the labels."""
        raise NotImplementedError

    def path(self, split: str, index: int, kind: int) -> str:
        """The file of a video of a kind, below the set's folder."""
        raise NotImplementedError

    def clip(self, split: str, index: int, kind: int) -> bytes:
        """The MP4 of a video."""
        raise NotImplementedError

    def group(self, path: str) -> str:
        """The group of the test video at `path`, by which accuracies are given; empty if the set has no groups."""
        return ""

    def kinds(self, split: str) -> list[int]:
        """The kind of each video of a split: its label, unless the set knows more kinds. Balanced and shuffled."""
        return self.shuffled(split, len(self.classes()))

    def shuffled(self, split: str, kinds: int) -> list[int]:
        """So many kinds, balanced to within one video, shuffled by the seed of the split."""
        count: int = getattr(self, split)
        return list(map(int, np.random.default_rng(self.seeds[split]).permutation(np.arange(count) % kinds)))

    def rng(self, split: str, index: int) -> np.random.Generator:
        return np.random.default_rng((self.seeds[split], index))

    def lists(self) -> dict[str, str]:
        """The text of each list file, by name."""
        lists = {"classes.txt": "".join(f"{name}\n" for name in self.classes())}
        for split in SPLITS:
            videos = ((self.path(split, i, kind), kind) for i, kind in enumerate(self.kinds(split)))
            lists[f"{split}.txt"] = "".join(f"{path} {kind % len(self.classes())}\n" for path, kind in videos)
        return lists

    def generate(self, root: Path) -> None:
        """Write the set below `root`: one MP4 a video, list files, and last of all ``spec.json``.

        Layout: ``train/<class>/train_00000.mp4``, the same for val and test; ``train.txt``, ``val.txt``, ``test.txt``
        with a ``path label`` a line; ``classes.txt``. What is missing, as after an interruption, is written, by all
        processor cores. UserError if `root` holds another specification, or files that this function did not write.
        """
        said = {name: value for name, value in asdict(self).items() if value or name not in self.later}
        marker = json.dumps({"version": self.version, "seeds": self.seeds, **said}, indent=2) + "\n"
        done, begun = root / "spec.json", root / "spec.unfinished.json"
        for path in (done, begun):
            if os.path.lexists(path) and not (path.is_file() and path.read_bytes() == marker.encode()):
                raise UserError(
                    f"{path} is of another {self.name} set than the one asked for ({self}); "
                    "give another folder as root, or delete this one"
                )
        if done.exists() and not _missing(root, self):
            return
        with waiting_for(root):  # of several processes that begin together one generates
            missing = _missing(root, self)
            if missing or not done.exists():
                if not (done.exists() or begun.exists()) and (foreign := sorted(glob.glob("*", root_dir=root))):
                    raise UserError(
                        f"{root} already holds '{foreign[0]}', which is not of a {self.name} set; give an empty folder"
                    )
                write_atomically(begun, marker)
                _write_missing(root, missing, self)
                for name, text in self.lists().items():
                    write_atomically(root / name, text)
                os.replace(begun, done)


def write_clips(root: Path, split: str, clips: list[tuple[int, int]], spec: GeneratedSet) -> int:
    """Write the (index, kind) `clips` of a split, each file whole or not at all; return how many."""
    for index, kind in clips:
        write_atomically(root / spec.path(split, index, kind), spec.clip(split, index, kind))
    return len(clips)


def _missing(root: Path, spec: GeneratedSet) -> dict[str, list[tuple[int, int]]]:
    """The (index, kind) of each clip that isn't there, by split, of splits that aren't whole."""
    there = set(glob.glob("*/*/*", root_dir=root))  # one look at a folder, and not at each file: disks may be far away
    missing = {}
    for split in SPLITS:
        clips = [clip for clip in enumerate(spec.kinds(split)) if spec.path(split, *clip) not in there]
        if clips or not (root / f"{split}.txt").exists():
            missing[split] = clips
    return missing


def _write_missing(root: Path, missing: dict[str, list[tuple[int, int]]], spec: GeneratedSet) -> None:
    """Write clips in processes: threads gain nothing, as most of the time the interpreter's lock is held."""
    jobs = [(split, part[i : i + 25]) for split, part in missing.items() for i in range(0, len(part), 25)]
    with ProcessPoolExecutor(cores()) as pool:
        futures = [pool.submit(write_clips, root, *job, spec) for job in jobs]  # before the bar starts a thread
        try:
            with bars() as bar:
                task = bar.add_task(f"generating {root}", total=sum(map(len, missing.values())))
                for future in as_completed(futures):
                    bar.advance(task, future.result())
        except BrokenProcessPool:
            raise UserError(
                f"{root}: a process that generates videos was killed, as when memory is full; call again to go on"
            ) from None
        finally:
            pool.shutdown(cancel_futures=True)


def mp4(video: Clip, fps: int, codec: str, pix_fmt: str, options: dict[str, str]) -> bytes:
    """Return an MP4 of `video`, uint8 (T, H, W, 3); the same bytes for the same frames.

    Every frame is a key frame. Predicted frames keep a faint ghost of a glyph that has gone. In it a single frame would
    show both moments of a clip, and the direction of a motion.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        options = {"g": "1", **options, "flags": "+bitexact", "threads": "1"}
        stream = container.add_stream(codec, rate=fps, options=options)
        assert isinstance(stream, av.VideoStream)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = pix_fmt
        for image in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def background(rng: np.random.Generator, tint: tuple[float, float, float], spec: GeneratedSet) -> Picture:
    """Return a clip's background (H, W, 3): tint * (1 + 0.18 * smooth field (H, W)) + colour offset (3,).

    The field is drawn before the offset.
    """
    field = enlarge(rng.standard_normal((5, 5)), spec.size)
    return np.asarray(tint) * (1 + 0.18 * field[..., None]) + rng.normal(0, 3, size=3)


def finished(rng: np.random.Generator, video: Picture) -> Clip:
    """Return `video` (T, H, W, 3) with grey noise, one value a pixel and frame, and rounded."""
    video += rng.normal(0, 4, size=(*video.shape[:3], 1))
    return np.asarray(np.rint(video.clip(0, 255)), np.uint8)


def enlarge(grid: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Return `grid` (k, k) enlarged to (size, size), bilinearly, corners on corners.

    Sums are written out: a matrix product may round differently on another machine.
    """
    at = np.linspace(0, len(grid) - 1, size)
    low = np.minimum(at.astype(int), len(grid) - 2)
    part = at - low
    rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]  # (size, k)
    return np.asarray(rows[:, low] * (1 - part) + rows[:, low + 1] * part)


def blend(window: Picture, mask: npt.NDArray[np.float64], colour: npt.ArrayLike) -> Picture:
    """Lay a colour (3,) over `window` (..., h, w, 3) by its coverage `mask` (h, w)."""
    return window * (1 - mask[..., None]) + np.asarray(colour) * mask[..., None]
