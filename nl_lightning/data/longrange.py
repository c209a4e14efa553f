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

Random numbers. The labels of a split are ``default_rng(seed).permutation(arange(n) % 11)``. The order of the draws
inside a clip is that of `draw_scene`, then `render_scene`. :mod:`~nl_lightning.data.generated` writes the files.
"""

import functools
import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from nl_lightning.data.generated import Clip, GeneratedSet, Place, background, blend, finished, mp4
from nl_lightning.errors import UserError

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


@dataclass(frozen=True)
class LongRange(GeneratedSet):
    """How many videos of which size; 32 frames hold one slow period.

    Args:
        train, val, test: videos of each split.
        num_frames: raw frames of a video.
        size: height and width of a frame; `crop` is the crop that no glyph of an event is ever cut by.
        fps: frames a second, written to the file.
    """

    name: ClassVar[str] = "longrange"
    version: ClassVar[int] = 1
    seeds: ClassVar[dict[str, int]] = SEEDS

    def __post_init__(self) -> None:
        """Raise UserError for counts below one and for frames on which two glyphs find no place."""
        super().__post_init__()
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

    def classes(self) -> tuple[str, ...]:
        return CLASSES

    def file(self, split: str, kind: int) -> tuple[str, str]:
        return CLASSES[kind], split

    def clip(self, split: str, index: int, kind: int) -> bytes:
        return encode(render_clip(self.rng(split, index), kind, self), self.fps)

    def group(self, path: str) -> str:
        """``test/space_same/test_00000.mp4`` is of the group ``space``."""
        return group_of(path.split("/")[-2])


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

    Order of draws: the background, then the noise.
    """
    still = background(rng, TINTS[scene.group], spec)  # (H, W, 3)
    video = np.repeat(still[None], spec.num_frames, axis=0)  # (T, H, W, 3)
    for identity, (y, x), shown in events(scene, spec.num_frames):
        window = video[:, y : y + GLYPH, x : x + GLYPH]
        window[shown] = blend(window[shown], glyph_mask(identity), COLOURS[identity])
    if scene.group == "motion":
        x = scene.places[0][1]
        for t in range(spec.num_frames):
            window = video[t, :, x : x + GLYPH]
            window[...] = blend(window, moving_mask(scene, t, spec.size), COLOURS[scene.first])
    return finished(rng, video)


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


def render_clip(rng: np.random.Generator, label: int, spec: LongRange) -> Clip:
    """Return a video of class `label` (0-based, order of `CLASSES`), uint8 (T, H, W, 3); equal for an equal `rng`."""
    return render_scene(rng, draw_scene(rng, label, spec), spec)


def encode(video: Clip, fps: int) -> bytes:
    """Return an MP4 (mpeg4 at quantiser 3) of `video`, uint8 (T, H, W, 3)."""
    return mp4(video, fps, "mpeg4", "yuv420p", {"qmin": "3", "qmax": "3"})
