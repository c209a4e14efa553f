"""The generated benchmark ``longrange``: small videos whose classes need more than a sum over patches.

Fifteen classes in seven groups. docs/cards/longrange.md says what tells them apart, and which shortcuts are known. The
tint of the background gives away the group, which every network can see.

Inside a group the *expected bag of local patches* is the same for both classes, as identities, places and times are
balanced. So the prior is the optimum of a network whose logits are a sum over places of functions of a local patch (C2D
with a small receptive field, then average pooling). The two moments of a clip lie at least 3 frames apart when every
other frame is sampled, so no window of pool2 holds both.

Order of the draws inside a clip: that of `draw_scene`, then `render_scene`.
"""

import functools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from nl_lightning.data.generated import Clip, GeneratedSet, Place, background, blend, finished, mp4
from nl_lightning.errors import UserError

Group = Literal["context_space", "context_time", "context_spacetime", "motion", "look", "place", "slow"]
KINDS: dict[Group, tuple[str, ...]] = {
    "context_space": ("same", "diff"), "context_time": ("same", "diff"), "context_spacetime": ("same", "diff"),
    "motion": ("up", "down"), "look": ("0", "1", "2"), "place": ("above", "below"), "slow": ("same", "diff"),
}  # fmt: skip
CLASSES = tuple(f"{group}_{kind}" for group, kinds in KINDS.items() for kind in kinds)
TINTS: dict[Group, tuple[int, int, int]] = {  # RGB of the background
    "context_space": (52, 36, 36), "context_time": (36, 52, 36), "context_spacetime": (36, 36, 58),
    "motion": (50, 48, 32), "look": (36, 50, 50), "place": (58, 36, 58), "slow": (62, 62, 62),
}  # fmt: skip
COLOURS = ((235, 60, 50), (60, 210, 70), (80, 110, 250))  # RGB of glyph 0 disc, 1 plus, 2 square ring
SEEDS = {"train": 31, "val": 32, "test": 34}  # no choice may ever be made by looking at `test`
GLYPH = 10  # side of a glyph in pixels; of the two of `place` each is half as high
EVENT = 4  # raw frames that an event lasts
PERIOD = 16  # raw frames: eight of every other one
SLOW_BEGINS = 11  # raw frames in which the first event of `slow` may begin
SLOW_LATER = 18  # raw frames from its first event to the second: more than eight of every other frame span
MIN_DISTANCE = 13.0  # pixels between the top-left corners of the two places: their glyphs never touch
SPEED = (0.75, 1.0)  # pixels a raw frame, of the motion group


@dataclass(frozen=True)
class LongRange(GeneratedSet):
    """How many videos of which size; 32 frames hold both events of a slow video.

    Args:
        groups: which groups. `place` and `slow` have to be asked for.
    """

    name: ClassVar[str] = "longrange"
    version: ClassVar[int] = 2
    seeds: ClassVar[dict[str, int]] = SEEDS

    groups: tuple[Group, ...] = ("context_space", "context_time", "context_spacetime", "motion", "look")

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_unknown("groups", self.groups, TINTS)
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
        return tuple(name for name in CLASSES if group_of(name) in self.groups)

    def path(self, split: str, index: int, kind: int) -> str:
        return f"{split}/{self.classes()[kind]}/{split}_{index:05d}.mp4"

    def clip(self, split: str, index: int, kind: int) -> bytes:
        return encode(render_clip(self.rng(split, index), kind, self), self.fps)

    def group(self, path: str) -> str:
        """``test/place_above/test_00000.mp4`` is of the group ``place``."""
        return group_of(path.split("/")[-2])


@dataclass(frozen=True)
class Scene:
    """What is shown in a clip, before any noise: the result of all discrete draws."""

    group: Group
    first: int  # identity of a glyph
    second: int
    cue: int  # of `place`: the identity that is shown later, one of the two
    begin: int  # raw frame in which the first event begins
    places: tuple[Place, Place]
    start: float  # of the motion group: the first row (pixels)
    speed: float  # rows a raw frame; negative is up


class Event(NamedTuple):
    """A glyph, and in which frames it is seen."""

    identity: int
    place: Place
    shown: npt.NDArray[np.bool_]  # (T,)
    half: bool = False  # half as high


def group_of(class_name: str) -> Group:
    """Return the group of a class: ``group_of("place_above") == "place"``."""
    return cast(Group, class_name.rsplit("_", 1)[0])


def draw_scene(rng: np.random.Generator, label: int, spec: LongRange) -> Scene:
    """Draw a scene of class `label`; every draw is made for every class, so that the stream is the same for all.

    Order of draws: identity of the first glyph; step to another identity; begin of the first event, then that of a slow
    one; the pair of places; start and speed of the motion. Both places are drawn again until they are far enough apart:
    from the centre no partner exists.
    """
    name = spec.classes()[label]
    group, kind = group_of(name), name.rsplit("_", 1)[1]
    first = int(rng.integers(3))
    other = (first + int(rng.integers(1, 3))) % 3
    begin, slow_begin = int(rng.integers(PERIOD)), int(rng.integers(SLOW_BEGINS))
    low, high = spec.places
    while True:
        (py, px), (qy, qx) = rng.integers(low, high + 1, size=(2, 2)).tolist()
        if math.hypot(py - qy, px - qx) >= MIN_DISTANCE:
            break
    start, speed = float(rng.uniform(0, spec.size)), float(rng.uniform(*SPEED))
    if group == "look":
        first = int(kind)
    return Scene(
        group,
        first,
        second=other if kind == "diff" or group == "place" else first,
        cue=other if kind == "below" else first,
        begin=slow_begin if group == "slow" else begin,
        places=((py, px), (qy, qx)),
        start=start,
        speed=-speed if kind == "up" else speed,
    )


def events(scene: Scene, num_frames: int) -> list[Event]:
    """Return the glyphs of a scene and when they are seen; the motion group has none."""
    after = np.arange(num_frames) - scene.begin  # (T,)
    early, late = after % PERIOD < EVENT, (after - PERIOD // 2) % PERIOD < EVENT  # (T,), (T,)
    p, q = scene.places
    match scene.group:
        case "context_space":
            return [Event(scene.first, p, early | late), Event(scene.second, q, early | late)]
        case "context_time":
            return [Event(scene.first, p, early), Event(scene.second, p, late)]
        case "context_spacetime" | "look":
            return [Event(scene.first, p, early), Event(scene.second, q, late)]
        case "place":
            below = (p[0] + GLYPH // 2, p[1])
            return [
                Event(scene.first, p, early, True),
                Event(scene.second, below, early, True),
                Event(scene.cue, q, late),
            ]
        case "slow":
            seen = [(after >= later) & (after < later + EVENT) for later in (0, SLOW_LATER)]
            return [Event(scene.first, p, seen[0]), Event(scene.second, p, seen[1])]
        case _:
            return []


@functools.cache
def glyph_mask(identity: int) -> npt.NDArray[np.float64]:
    """Return the coverage in [0, 1] of glyph 0 (disc), 1 (plus) or 2 (square ring), (10, 10), four samples a side."""
    s = (np.arange(4 * GLYPH) + 0.5) / 4 - GLYPH / 2  # sample points in pixels from the centre
    y, x = np.abs(s)[:, None], np.abs(s)[None, :]
    inside = (y**2 + x**2 < 25, (y < 2) | (x < 2), np.maximum(y, x) > 2.5)[identity]
    return np.asarray(inside.reshape(GLYPH, 4, GLYPH, 4).mean(axis=(1, 3)))


def render_scene(rng: np.random.Generator, scene: Scene, spec: LongRange) -> Clip:
    """Paint a scene, uint8 (T, H, W, 3). Order of draws: the background, then the noise."""
    still = background(rng, TINTS[scene.group], spec)  # (H, W, 3)
    video = np.repeat(still[None], spec.num_frames, axis=0)  # (T, H, W, 3)
    for identity, (y, x), shown, half in events(scene, spec.num_frames):
        mask = glyph_mask(identity)
        if half:
            mask = mask.reshape(GLYPH // 2, 2, GLYPH).mean(axis=1)
        window = video[:, y : y + len(mask), x : x + GLYPH]
        window[shown] = blend(window[shown], mask, COLOURS[identity])
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
    """Return a video of class `label` (of the set's classes), uint8 (T, H, W, 3); equal for an equal `rng`."""
    return render_scene(rng, draw_scene(rng, label, spec), spec)


def encode(video: Clip, fps: int) -> bytes:
    """Return an MP4 (mpeg4 at quantiser 3) of `video`, uint8 (T, H, W, 3)."""
    return mp4(video, fps, "mpeg4", "yuv420p", {"qmin": "3", "qmax": "3"})
