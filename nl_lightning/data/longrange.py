"""The generated benchmark ``longrange``: small videos whose classes need non-local interaction.

It tests the mechanism of the paper, not accuracy on Kinetics. Eleven classes in five groups. The tint of the background
gives away the group, which every network can see. The class inside a group is told by

=========  =======================  ===============================================================================
group      classes                  what tells them apart
=========  =======================  ===============================================================================
space      space_same, _diff        two glyphs at two places, shown together: equal or different identity
time       time_same, _diff         one place; an identity, half a period later another one (or the same again)
spacetime  spacetime_same, _diff    an identity at one place, half a period later an identity at another place
motion     motion_up, _down         the direction of one glyph that moves vertically (flips are horizontal)
look       look_0, _1, _2           the identity itself, shown at two places in turn: every network can tell
=========  =======================  ===============================================================================

Why this separates the networks: inside a group the *expected bag of local patches* is the same for both classes, as
identities, places and times are balanced. So the prior is the optimum of a network whose logits are a sum over places
of functions of a local patch (C2D with a small receptive field, then average pooling). The two moments of a ``time`` or
``spacetime`` clip lie at least 3 frames apart when every other frame is sampled, so no window of pool2 holds both.

The set shows the need for non-additive, long-range interaction. It doesn't show that pairwise affinities beat other
global context: a global bag of colours through an MLP solves the relation groups as well.

Random numbers. The labels of a split are ``default_rng(seed).permutation(arange(n) % 11)``. Clip i of the split has a
generator of its own, ``default_rng((seed, i))``, so nothing depends on the number of workers or the order of the work.
The order of the draws inside a clip is that of `draw_scene`, then `render_scene`.
"""

import dataclasses
import functools
import io
import json
import math
import os
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from nl_lightning.errors import UserError, bars
from nl_lightning.study import border
from nl_lightning.study.files import write_atomically
from nl_lightning.study.lock import waiting_for

CLASSES = (
    "space_same", "space_diff", "time_same", "time_diff", "spacetime_same", "spacetime_diff",
    "motion_up", "motion_down", "look_0", "look_1", "look_2",
)  # fmt: skip
TINTS = {
    "space": (52, 36, 36),
    "time": (36, 52, 36),
    "spacetime": (36, 36, 58),
    "motion": (50, 48, 32),
    "look": (36, 50, 50),
}  # RGB of the background
COLOURS = ((235, 60, 50), (60, 210, 70), (80, 110, 250))  # RGB of glyph 0 disc, 1 plus, 2 square ring
SEEDS = {"train": 1, "val": 2, "test": 4}  # no choice may ever be made by looking at `test`
GLYPH = 10  # side of a glyph in pixels
EVENT = 4  # raw frames that an event lasts
FAST, SLOW, SLOW_SHARE = 16, 32, 0.2  # raw frames of a period; share of the slow videos
MIN_DISTANCE = 13.0  # pixels between the top-left corners of the two places: their glyphs never touch
SPEED = (0.75, 1.0)  # pixels a raw frame, of the motion group
VERSION = 1  # raise it whenever the same specification gives other pixels: old copies are then refused

Clip = npt.NDArray[np.uint8]  # (T, H, W, 3)
Place = tuple[int, int]  # (y, x) of a glyph's top-left corner


@dataclass(frozen=True)
class LongRange:
    """How many videos of which size.

    Args:
        train, val, test: videos of each split.
        num_frames: raw frames of a video; 32 hold one slow period.
        size: height and width of a frame; `crop` is the crop that no glyph of an event is ever cut by.
        fps: frames a second, written to the file.
    """

    train: int = 2000
    val: int = 600
    test: int = 600
    num_frames: int = 32
    size: int = 36
    crop: int = 32
    fps: int = 16

    def __post_init__(self) -> None:
        """Raise UserError for counts below one and for frames on which two glyphs find no place."""
        for name, value in dataclasses.asdict(self).items():
            most = 1_000_000 if name in SEEDS else 1000
            if not isinstance(value, int) or not 1 <= value <= most:
                raise UserError(
                    f"longrange: {name} is {border.shown(value)}, expected a whole number from 1 to {most:,}"
                )
        low, high = self.places
        if self.crop > self.size or (high - low) * math.sqrt(2) < MIN_DISTANCE:
            raise UserError(
                f"longrange: size {self.size} and crop {self.crop} leave no room for two glyphs of {GLYPH} pixels "
                f"{MIN_DISTANCE:g} pixels apart; the benchmark has size 36 and crop 32"
            )

    @property
    def places(self) -> tuple[int, int]:
        """Smallest and largest coordinate of a glyph's top-left corner ((4, 22) at 36 and 32 pixels)."""
        return self.size - self.crop, self.crop - GLYPH


@dataclass(frozen=True)
class Scene:
    """What is shown in a clip, before any noise: the result of all discrete draws."""

    group: str
    first: int  # identity of a glyph
    second: int
    period: int  # raw frames
    phase: int
    places: tuple[Place, Place]
    start: float  # of the motion group: the first row (pixels)
    speed: float  # rows a raw frame; negative is up


def group_of(class_name: str) -> str:
    """Return the group of a class: ``group_of("space_same") == "space"``."""
    return class_name.rsplit("_", 1)[0]


def draw_scene(rng: np.random.Generator, label: int, spec: LongRange) -> Scene:
    """Draw a scene of class `label`; every draw is made for every class, so that the stream is the same for all.

    Order of draws: identity of the first glyph; step to another identity; slow or fast; phase; the pair of places;
    start and speed of the motion. Both places are drawn again until they are far enough apart: from the centre no
    partner exists.
    """
    group, kind = CLASSES[label].rsplit("_", 1)
    first = int(rng.integers(3))
    other = (first + int(rng.integers(1, 3))) % 3
    period = SLOW if rng.random() < SLOW_SHARE else FAST
    phase = int(rng.integers(period))
    low, high = spec.places
    while True:
        (py, px), (qy, qx) = rng.integers(low, high + 1, size=(2, 2)).tolist()
        if math.hypot(py - qy, px - qx) >= MIN_DISTANCE:
            break
    start, speed = float(rng.uniform(0, spec.size)), float(rng.uniform(*SPEED))
    if group == "look":
        first = int(kind)
    second = other if kind == "diff" else first
    return Scene(group, first, second, period, phase, ((py, px), (qy, qx)), start, -speed if kind == "up" else speed)


def events(scene: Scene, num_frames: int) -> list[tuple[int, Place, npt.NDArray[np.bool_]]]:
    """Return (identity, place, shown in which of the (T,) frames) of a scene's glyphs; the motion group has none."""
    t = np.arange(num_frames)
    early = (t - scene.phase) % scene.period < EVENT  # (T,)
    late = (t - scene.phase - scene.period // 2) % scene.period < EVENT  # (T,)
    p, q = scene.places
    match scene.group:
        case "space":
            return [(scene.first, p, early | late), (scene.second, q, early | late)]
        case "time":
            return [(scene.first, p, early), (scene.second, p, late)]
        case "spacetime" | "look":
            return [(scene.first, p, early), (scene.second, q, late)]
        case _:
            return []


@functools.cache
def glyph_mask(identity: int) -> npt.NDArray[np.float64]:
    """Return the coverage in [0, 1] of glyph 0 (disc), 1 (plus) or 2 (square ring), (10, 10), four samples a side."""
    s = (np.arange(4 * GLYPH) + 0.5) / 4 - GLYPH / 2  # sample points in pixels from the centre
    y, x = np.abs(s)[:, None], np.abs(s)[None, :]
    inside = (y**2 + x**2 < 25, (y < 2) | (x < 2), np.maximum(y, x) > 2.5)[identity]
    mask: npt.NDArray[np.float64] = inside.reshape(GLYPH, 4, GLYPH, 4).mean(axis=(1, 3))
    mask.setflags(write=False)  # it is cached
    return mask


def render_scene(rng: np.random.Generator, scene: Scene, spec: LongRange) -> Clip:
    """Paint a scene, uint8 (T, H, W, 3).

    Background: tint * (1 + 0.18 * smooth field) + colour offset, one of each a clip; over the glyphs grey noise, one
    value a pixel and frame. Order of draws: the (5, 5) field, the colour offset (3,), the noise (T, H, W).
    """
    field = enlarge(rng.standard_normal((5, 5)), spec.size)  # (H, W)
    offset = rng.normal(0, 3, size=3)
    background = np.asarray(TINTS[scene.group]) * (1 + 0.18 * field[..., None]) + offset  # (H, W, 3)
    video = np.repeat(background[None], spec.num_frames, axis=0)  # (T, H, W, 3)
    for identity, (y, x), shown in events(scene, spec.num_frames):
        window = video[:, y : y + GLYPH, x : x + GLYPH]
        window[shown] = blend(window[shown], glyph_mask(identity), identity)
    if scene.group == "motion":
        x = scene.places[0][1]
        for t in range(spec.num_frames):
            window = video[t, :, x : x + GLYPH]
            window[...] = blend(window, moving_mask(scene, t, spec.size), scene.first)
    video += rng.normal(0, 4, size=(*video.shape[:3], 1))
    pixels: Clip = np.rint(video.clip(0, 255)).astype(np.uint8)
    return pixels


def moving_mask(scene: Scene, t: int, size: int) -> npt.NDArray[np.float64]:
    """Return the coverage (size, 10) of the motion group's glyph in frame `t`, in the columns that it moves along.

    Rows wrap around, so that no row is special; a glyph between two rows is shared between them.
    """
    top = (scene.start + scene.speed * t) % size
    row, part = int(top), top - int(top)
    rows = (row + np.arange(GLYPH)) % size
    mask = np.zeros((size, GLYPH))
    mask[rows] += (1 - part) * glyph_mask(scene.first)
    mask[(rows + 1) % size] += part * glyph_mask(scene.first)
    return mask


def blend(window: npt.NDArray[np.float64], mask: npt.NDArray[np.float64], identity: int) -> npt.NDArray[np.float64]:
    """Lay the colour of a glyph over `window` (..., h, w, 3) by its coverage `mask` (h, w)."""
    return window * (1 - mask[..., None]) + np.asarray(COLOURS[identity]) * mask[..., None]


def enlarge(grid: npt.NDArray[np.float64], size: int) -> npt.NDArray[np.float64]:
    """Return `grid` (k, k) enlarged to (size, size), bilinearly, corners on corners.

    Sums are written out: a matrix product may round differently on another machine.
    """
    at = np.linspace(0, len(grid) - 1, size)
    low = np.minimum(at.astype(int), len(grid) - 2)
    part = at - low
    rows = grid[low] * (1 - part)[:, None] + grid[low + 1] * part[:, None]  # (size, k)
    out: npt.NDArray[np.float64] = rows[:, low] * (1 - part) + rows[:, low + 1] * part
    return out


def render_clip(rng: np.random.Generator, label: int, spec: LongRange) -> Clip:
    """Return a video of class `label` (0-based, order of `CLASSES`), uint8 (T, H, W, 3); equal for an equal `rng`."""
    return render_scene(rng, draw_scene(rng, label, spec), spec)


def labels_of(split: str, spec: LongRange) -> list[int]:
    """Return the labels of a split in the order of its videos: balanced to within one, shuffled by the split's seed."""
    count: int = getattr(spec, split)
    labels: list[int] = np.random.default_rng(SEEDS[split]).permutation(np.arange(count) % len(CLASSES)).tolist()
    return labels


def clip_path(split: str, index: int, label: int) -> str:
    return f"{split}/{CLASSES[label]}/{split}_{index:05d}.mp4"


def encode(video: Clip, fps: int) -> bytes:
    """Return an MP4 (mpeg4 at quantiser 3) of `video`, uint8 (T, H, W, 3); the same bytes for the same frames.

    Every frame is a key frame: predicted frames keep a faint ghost of a glyph that has gone, in which a single frame
    would show both moments of a clip, and the direction of a motion.
    """
    file = io.BytesIO()
    with av.open(file, "w", format="mp4", options={"fflags": "+bitexact"}) as container:
        options = {"g": "1", "qmin": "3", "qmax": "3", "flags": "+bitexact", "threads": "1"}
        stream = container.add_stream("mpeg4", rate=fps, options=options)
        stream.height, stream.width = video.shape[1:3]
        stream.pix_fmt = "yuv420p"
        for image in video:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return file.getvalue()


def write_clips(root: Path, split: str, clips: list[tuple[int, int]], spec: LongRange) -> int:
    """Write the (index, label) `clips` of a split, each file whole or not at all; return how many."""
    for index, label in clips:
        path = root / clip_path(split, index, label)
        rng = np.random.default_rng((SEEDS[split], index))
        write_atomically(path, encode(render_clip(rng, label, spec), spec.fps))
    return len(clips)


def generate(root: Path, spec: LongRange) -> None:
    """Write the benchmark below `root`: one MP4 a video, list files, class list, and last of all ``spec.json``.

    Layout: ``train/<class>/train_00000.mp4``, the same for val and test; ``train.txt``, ``val.txt``, ``test.txt`` with
    a ``path label`` a line; ``classes.txt``. What is missing, as after an interruption, is written, by all processor
    cores. The files do not depend on how many there are.

    Raises:
        UserError: `root` holds another specification or files that this function did not write.
    """
    marker = json.dumps({"version": VERSION, "seeds": SEEDS, **dataclasses.asdict(spec)}, indent=2) + "\n"
    done, begun = root / "spec.json", root / "spec.unfinished.json"
    for path in (done, begun):
        if os.path.lexists(path) and not (path.is_file() and path.read_bytes() == marker.encode()):
            raise UserError(
                f"{path} is of another longrange set than the one asked for ({spec}); "
                "give another folder as root, or delete this one"
            )
    if done.exists() and not _missing(root, spec):
        return
    with waiting_for(root):  # of several processes that begin together one generates
        missing = _missing(root, spec)
        if missing or not done.exists():
            if not (done.exists() or begun.exists()) and (foreign := _listed(root)):
                raise UserError(
                    f"{root} already holds '{foreign[0]}', which is not of a longrange set; give an empty folder"
                )
            write_atomically(begun, marker)
            _write_missing(root, missing, spec)
            for split in SEEDS:
                clips = enumerate(labels_of(split, spec))
                lines = "".join(f"{clip_path(split, i, label)} {label}\n" for i, label in clips)
                write_atomically(root / f"{split}.txt", lines)
            write_atomically(root / "classes.txt", "".join(f"{name}\n" for name in CLASSES))
            os.replace(begun, done)


def _listed(folder: Path) -> list[str]:
    """What isn't hidden in a folder."""
    return sorted(name for name in os.listdir(folder) if name[0] != ".") if folder.is_dir() else []


def _missing(root: Path, spec: LongRange) -> dict[str, list[tuple[int, int]]]:
    """The (index, label) of each clip that isn't there, by split, of splits that aren't whole."""
    missing = {}
    for split in SEEDS:
        there = {f"{split}/{name}/{file}" for name in CLASSES for file in _listed(root / split / name)}
        clips = [clip for clip in enumerate(labels_of(split, spec)) if clip_path(split, *clip) not in there]
        if clips or not (root / f"{split}.txt").exists():
            missing[split] = clips
    return missing


def _write_missing(root: Path, missing: dict[str, list[tuple[int, int]]], spec: LongRange) -> None:
    """Write clips in processes: threads gain nothing, as most of the time the interpreter's lock is held."""
    for split in SEEDS:
        for name in CLASSES:
            (root / split / name).mkdir(parents=True, exist_ok=True)
    jobs = [(split, part[i : i + 25]) for split, part in missing.items() for i in range(0, len(part), 25)]
    with ProcessPoolExecutor(os.cpu_count()) as pool:
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
