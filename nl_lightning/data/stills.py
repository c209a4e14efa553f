"""The generated set ``stills``: single pictures from which a 2-D network learns glyphs before it sees ``match``.

In the paper every network starts from a 2-D one that was trained on ImageNet. Stills take the place of ImageNet.

The label ``disc_+0-`` says: there is a disc whose colour lies in this direction from grey (red high, green as grey,
blue low). There are 26 directions, those to a cube's faces, edges and corners. A colour lies in all directions whose
angle to it has a cosine of at least 0.8, mostly two or three. No label tells whether two colours are equal.

A file has eight pictures of the same glyphs, at other places, in another size and on another background. A clip of one
frame takes one of them. The lists are in the format of Charades (``id,actions``), which has several labels a video.

Order of the draws of a file: shape and colour of each glyph; then for every picture its tint, background, size and
places; the noise last.
"""

import itertools
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from nl_lightning.data import match
from nl_lightning.data.annotations import CHARADES_CLASSES
from nl_lightning.data.generated import SPLITS, Clip, GeneratedSet, background, blend, finished

DIRECTIONS = tuple(d for d in itertools.product((-1, 0, 1), repeat=3) if any(d))
NEAR = 0.8  # least cosine of the angle between a colour and its direction
GLYPHS = 4  # at most in a picture
SIDES = (8, 10)  # smallest and largest side of a glyph in pixels
TINT = (30, 62)  # each part of a background's RGB


@dataclass(frozen=True)
class Stills(GeneratedSet):
    """How many files of which size.

    Args:
        train, val, test: files of each split.
        num_frames: pictures in a file.
        size: height and width of a picture; `crop` is the crop that no glyph is ever cut by.
        fps: frames a second, written to the file.
    """

    name: ClassVar[str] = "stills"
    version: ClassVar[int] = 1
    seeds: ClassVar[dict[str, int]] = {"train": 21, "val": 22, "test": 24}

    train: int = 6000
    val: int = 300
    test: int = 300
    num_frames: int = 8

    def __post_init__(self) -> None:
        super().__post_init__()
        match.check_room(self, SIDES[1])

    def classes(self) -> tuple[str, ...]:
        return tuple(f"{shape}_{''.join('-0+'[sign + 1] for sign in d)}" for shape in match.SHAPES for d in DIRECTIONS)

    def kinds(self, split: str) -> list[int]:
        """The number of glyphs less one."""
        return self.shuffled(split, GLYPHS)

    def path(self, split: str, index: int, kind: int) -> str:
        return f"{split}/{kind + 1}_glyphs/{split}_{index:05d}.mp4"

    def clip(self, split: str, index: int, kind: int) -> bytes:
        return match.encode(self.frames(split, index, kind), self.fps)

    def frames(self, split: str, index: int, kind: int) -> Clip:
        """The pictures of a file before they are encoded, uint8 (T, H, W, 3)."""
        rng = self.rng(split, index)
        glyphs = draw_glyphs(rng, kind + 1)
        pictures = []
        for _ in range(self.num_frames):
            red, green, blue = rng.uniform(*TINT, size=3).tolist()
            picture = background(rng, (red, green, blue), self)
            side = int(rng.integers(SIDES[0], SIDES[1] + 1))
            for (shape, colour), (y, x) in zip(glyphs, match.draw_places(rng, len(glyphs), self, side), strict=True):
                window = picture[y : y + side, x : x + side]
                window[...] = blend(window, match.glyph_mask(shape, side), colour)
            pictures.append(picture)
        return finished(rng, np.stack(pictures))

    def labels(self, split: str, index: int, kind: int) -> list[int]:
        glyphs = draw_glyphs(self.rng(split, index), kind + 1)
        return sorted({label for glyph in glyphs for label in labels_of(*glyph)})

    def lists(self) -> dict[str, str]:
        """As those of Charades: a code and a name of each class, and what each video has."""
        lists = {CHARADES_CLASSES: "".join(f"c{label:03d} {name}\n" for label, name in enumerate(self.classes()))}
        for split in SPLITS:
            rows = ["id,actions\n"]
            for i, kind in enumerate(self.kinds(split)):
                actions = ";".join(f"c{label:03d} 0 1" for label in self.labels(split, i, kind))
                rows.append(f"{self.path(split, i, kind).removesuffix('.mp4')},{actions}\n")
            lists[f"{split}.txt"] = "".join(rows)
        return lists


def draw_glyphs(rng: np.random.Generator, count: int) -> list[tuple[int, match.Colour]]:
    """Draw shape and colour of each glyph."""
    return [(int(rng.integers(len(match.SHAPES))), match.colour_of(match.draw_direction(rng))) for _ in range(count)]


def labels_of(shape: int, colour: match.Colour) -> list[int]:
    """The labels that a glyph gives to its picture: one or more."""
    to = (np.array(colour) - match.MIDDLE) / match.RADIUS
    cosines = np.array(DIRECTIONS) @ to / np.linalg.norm(DIRECTIONS, axis=1)
    return [shape * len(DIRECTIONS) + int(place) for place in np.flatnonzero(cosines >= NEAR)]
