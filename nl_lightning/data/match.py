"""The generated set ``match``: small videos whose classes compare glyphs at pairs of places or moments.

A video has four glyphs in two pairs. The two of the *equal* pair have one shape (disc or square ring, of equal areas),
those of the *mixed* pair are a disc and a ring. The two glyphs of one of the pairs, and only of that one, have equal
colours. The class is which: ``match_<version>_equal`` or ``match_<version>_mixed``. The two of the other pair are the
*decoys*. docs/cards/match.md has the versions, all numbers, what is balanced, and the known shortcuts.

Colours lie on a sphere in RGB, so that a dot product compares them. The test split has two parts: ``match_<version>``
with decoys at all distances, as in training, and ``match_<version>_hard`` with the nearest ones.

Order of the draws inside a clip: that of `draw_scene`, then `render_scene`.
"""

import functools
import math
from dataclasses import dataclass
from typing import ClassVar, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from nl_lightning.data.generated import Clip, GeneratedSet, Place, background, blend, finished, mp4
from nl_lightning.errors import UserError

Version = Literal["space", "spacetime", "time"]
TINTS = {"space": (52, 36, 36), "time": (36, 52, 36), "spacetime": (36, 36, 58)}  # RGB of the background
SHAPES = ("disc", "ring", "plus")  # the plus is in stills only
MIDDLE, RADIUS = 128.0, 95.0  # of the sphere of colours
NEAREST, FARTHEST = 60.0, 190.0  # RGB distance of the decoys' colours
APART = 90.0  # least RGB distance of colours of different pairs
GLYPH = 9  # side of a glyph in pixels
GAP = 10  # least distance of two glyphs' corners in height or in width (pixels): they never touch
PERIOD = 16  # raw frames; of every other one, eight
EVENT = 4  # raw frames that a glyph is seen in a period

Colour = tuple[float, float, float]
Vector = npt.NDArray[np.float64]  # (3,)


@dataclass(frozen=True)
class Match(GeneratedSet):
    """How many videos of which size and version.

    Args:
        train, val, test: videos of each split. Half of those of test are hard.
        size: height and width of a frame; `crop` is the crop that no glyph is ever cut by.
        versions: which versions; each has two classes.
    """

    name: ClassVar[str] = "match"
    version: ClassVar[int] = 2
    seeds: ClassVar[dict[str, int]] = {"train": 11, "val": 12, "test": 14}

    train: int = 8000
    val: int = 600
    test: int = 3000
    num_frames: int = 16
    versions: tuple[Version, ...] = ("spacetime",)

    def __post_init__(self) -> None:
        super().__post_init__()
        self.refuse_unknown("versions", self.versions, TINTS)
        check_room(self)

    def classes(self) -> tuple[str, ...]:
        return tuple(f"match_{version}_{kind}" for version in self.versions for kind in ("equal", "mixed"))

    def kinds(self, split: str) -> list[int]:
        """The label; of hard test videos the label plus the number of classes."""
        return self.shuffled(split, len(self.classes()) * (2 if split == "test" else 1))

    def path(self, split: str, index: int, kind: int) -> str:
        hard, label = divmod(kind, len(self.classes()))
        return f"{split}/{self.classes()[label]}/{'hard' if hard else split}_{index:05d}.mp4"

    def clip(self, split: str, index: int, kind: int) -> bytes:
        return encode(self.frames(split, index, kind), self.fps)

    def frames(self, split: str, index: int, kind: int) -> Clip:
        """The frames of a video before they are encoded, uint8 (T, H, W, 3)."""
        hard, label = divmod(kind, len(self.classes()))
        rng = self.rng(split, index)
        return render_scene(rng, draw_scene(rng, label, self, hard=bool(hard)), self)

    def group(self, path: str) -> str:
        """``test/match_time_equal/hard_00000.mp4`` is of the group ``match_time_hard``."""
        *_, folder, file = path.split("/")
        return folder.rsplit("_", 1)[0] + ("_hard" if file.startswith("hard_") else "")


class Glyph(NamedTuple):
    """A glyph and when it is shown: `moment` is 0 to 3, in quarters of a period; None is always."""

    shape: int  # 0 disc, 1 ring, 2 plus
    colour: Colour
    place: Place
    moment: int | None


@dataclass(frozen=True)
class Scene:
    """What is shown in a clip, before any noise. Glyphs 0 and 1 are the equal pair, 2 and 3 the mixed one."""

    version: Version
    glyphs: tuple[Glyph, ...]
    phase: int  # raw frames


def draw_scene(rng: np.random.Generator, label: int, spec: Match, hard: bool = False) -> Scene:
    """Draw a scene of class `label`; nothing but which pair gets which colours depends on the class.

    Order of draws: shape of the equal pair; shape of the first of the mixed pair; the colours; phase; the four places;
    which pair comes first in ``time``.
    """
    version, matched = spec.versions[label // 2], label % 2
    equal, mixed = (int(shape) for shape in rng.integers(2, size=2))
    one, *decoys = draw_colours(rng, NEAREST if hard else float(rng.uniform(NEAREST, FARTHEST)))
    colours = [one, one, *decoys] if matched == 0 else [*decoys, one, one]
    phase = int(rng.integers(PERIOD))
    places = draw_places(rng, 4, spec, GLYPH)
    mixed_first = int(rng.integers(2))
    moments: tuple[int | None, ...] = (None,) * 4
    if version == "spacetime":
        moments = (0, 2, 0, 2)
    elif version == "time":
        moments = (mixed_first, 2 + mixed_first, 1 - mixed_first, 3 - mixed_first)
        places = places[:1] * 4
    shapes = (equal, equal, mixed, 1 - mixed)
    return Scene(version, tuple(map(Glyph, shapes, colours, places, moments)), phase)


def draw_colours(rng: np.random.Generator, distance: float) -> tuple[Colour, Colour, Colour]:
    """Draw the colour of the matching pair, and those of two decoys `distance` apart in RGB.

    All three are drawn again until neither decoy is near the first. Each alone is uniform on the sphere, and the decoys
    may change places.
    """
    angle = 2 * math.asin(distance / 2 / RADIUS)
    while True:
        one, decoy, side = (draw_direction(rng) for _ in range(3))
        side -= (side * decoy).sum() * decoy
        other = math.cos(angle) * decoy + math.sin(angle) * side / math.sqrt((side**2).sum())
        if min(((one - decoy) ** 2).sum(), ((one - other) ** 2).sum()) >= (APART / RADIUS) ** 2:
            return colour_of(one), colour_of(decoy), colour_of(other)


def draw_direction(rng: np.random.Generator) -> Vector:
    """Draw a direction, uniformly: a unit vector (3,)."""
    drawn: Vector = rng.standard_normal(3)
    return drawn / math.sqrt((drawn**2).sum())


def colour_of(direction: Vector) -> Colour:
    """Return the RGB colour in a direction from the middle of the sphere."""
    r, g, b = (MIDDLE + RADIUS * direction).tolist()
    return r, g, b


def check_room(spec: GeneratedSet, glyph: int = GLYPH) -> None:
    """UserError if four glyphs find no place on the frames of a set."""
    if spec.crop > spec.size or spec.crop - glyph - (spec.size - spec.crop) < GAP:
        raise UserError(
            f"{spec.name}: size {spec.size} and crop {spec.crop} leave no room for four glyphs of {glyph} pixels "
            f"{GAP} pixels apart; the set has size 36 and crop 32"
        )


def draw_places(rng: np.random.Generator, count: int, spec: GeneratedSet, glyph: int) -> list[Place]:
    """Draw the corners of `count` glyphs, all together again until all are far enough apart."""
    low, high = spec.size - spec.crop, spec.crop - glyph
    while True:
        corners = rng.integers(low, high + 1, size=(50, count, 2))
        far = np.abs(corners[:, :, None] - corners[:, None]).max(axis=-1) >= GAP  # (50, count, count)
        if (good := (far.sum(axis=(1, 2)) == count * (count - 1))).any():
            return [(y, x) for y, x in corners[good.argmax()].tolist()]


@functools.cache
def glyph_mask(shape: int, side: int = GLYPH) -> npt.NDArray[np.float64]:
    """Return the coverage in [0, 1] of a disc, a square ring of the same area, or a plus, (side, side)."""
    half, samples = side / 2, 16
    s = np.abs((np.arange(samples * side) + 0.5) / samples - half)  # pixels from the centre
    y, x = s[:, None], s[None, :]
    hole = math.sqrt(1 - math.pi / 4) * half  # so that the areas are equal
    inside = (y**2 + x**2 < half**2, np.maximum(y, x) > hole, np.minimum(y, x) < 0.2 * side)[shape]
    return np.asarray(inside.reshape(side, samples, side, samples).mean(axis=(1, 3)))


def shown(glyph: Glyph, scene: Scene, num_frames: int) -> npt.NDArray[np.bool_]:
    """Return in which of the (T,) frames a glyph is seen."""
    if glyph.moment is None:
        return np.ones(num_frames, bool)
    begin = scene.phase + glyph.moment * PERIOD // 4
    return (np.arange(num_frames) - begin) % PERIOD < EVENT


def render_scene(rng: np.random.Generator, scene: Scene, spec: Match) -> Clip:
    """Paint a scene, uint8 (T, H, W, 3). Order of draws: the background, then the noise."""
    still = background(rng, TINTS[scene.version], spec)  # (H, W, 3)
    video = np.repeat(still[None], spec.num_frames, axis=0)  # (T, H, W, 3)
    for glyph in scene.glyphs:
        y, x = glyph.place
        window = video[:, y : y + GLYPH, x : x + GLYPH]
        seen = shown(glyph, scene, spec.num_frames)
        window[seen] = blend(window[seen], glyph_mask(glyph.shape), glyph.colour)
    return finished(rng, video)


def encode(video: Clip, fps: int) -> bytes:
    """Return an MP4 of `video`, uint8 (T, H, W, 3): Motion JPEG, 4:4:4, at quantiser 2.

    Its colours are at full resolution, and its pictures stand alone, so that decord may read them too.
    """
    return mp4(video, fps, "mjpeg", "yuvj444p", {"qmin": "2", "qmax": "2"})
