"""The generated set ``tags``: pictures whose objects look alike, and a far one tells which is which. COCO's JSON, PNG.

A picture has two *tags*, a triangle and a cross, in two colours. Chance says which tag has which. Elsewhere lie

- two discs, one of each colour (``instances_*.json``). A disc belongs to the tag of its colour: its category is
  ``disc_of_triangle`` or ``disc_of_cross``. Tags are objects too.
- or two bars (``person_keypoints_*.json``), whose ends have the two colours. A bar's keypoints are the end in the
  triangle's colour, the middle, and the end in the cross's. Tags are not annotated.

Every picture has a *twin*, as likely as itself, in which only the tags have swapped their colours. docs/detection.md
says what follows from that, and which shortcuts are known.

Order of the draws of a picture: the hues, which tag has which, the places and angles, the background, the noise.
"""

import io
import json
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image
from pycocotools import mask as rle

from nl_lightning.data.generated import SPLITS, GeneratedSet, Picture, background, finished
from nl_lightning.errors import UserError

Mask = npt.NDArray[np.bool_]  # (H, W)
Plane = npt.NDArray[np.float64]  # (H, W)
Point = tuple[float, float]  # (y, x)
TINT = (60, 60, 60)  # RGB of the background
APART = 100.0  # least difference of the two hues in degrees
DISC, TAG, END, BAR = 9.0, 8.0, 6.0, 13.0  # radii; half the length of a bar between the middles of its ends (pixels)
GREY = 140  # as bright as the hues
GAP = 3.0  # least distance of two objects in pixels
DISCS = ("triangle", "cross", "disc_of_triangle", "disc_of_cross")
KEYPOINTS = ("triangle_end", "middle", "cross_end")


class Object(NamedTuple):
    """What is in a picture: a category from 1, a mask, and keypoints (x, y) if it has any."""

    category: int
    mask: Mask
    keypoints: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Tags(GeneratedSet):
    """How many pictures of which size, and of what.

    Args:
        train, val, test: pictures of each split.
        num_frames, fps, crop: of videos; not used.
        size: height and width of a picture.
        keypoints: bars with keypoints, not discs with masks.
        hues: of so many evenly spaced ones, the two of a picture differ; 0: any hues.
        grey: both tags are grey, a control: nothing in a picture tells which disc or end is which.
    """

    name: ClassVar[str] = "tags"
    version: ClassVar[int] = 2
    seeds: ClassVar[dict[str, int]] = {"train": 31, "val": 32, "test": 34}
    later: ClassVar[tuple[str, ...]] = ("grey",)

    train: int = 4000
    val: int = 300
    test: int = 1000
    num_frames: int = 1
    size: int = 96
    keypoints: bool = False
    hues: int = 0
    grey: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.size < 80:
            raise UserError(f"tags: size is {self.size}: expected 80 or more, so that all objects fit")
        if not (self.hues == 0 or 2 <= self.hues <= 360):
            raise UserError(f"tags: hues is {self.hues}: expected 2 to 360, or 0 for any")

    def classes(self) -> tuple[str, ...]:
        return ("bar",) if self.keypoints else DISCS

    def path(self, split: str, index: int, kind: int) -> str:
        return f"{split}/images/{index:05d}.png"

    def clip(self, split: str, index: int, kind: int) -> bytes:
        file = io.BytesIO()
        Image.fromarray(self.scene(split, index)[0]).save(file, "PNG")
        return file.getvalue()

    def lists(self) -> dict[str, str]:
        """The annotations in COCO's format, under COCO's names, and the pictures of each split."""
        kind = "person_keypoints" if self.keypoints else "instances"
        files = {f"{split}.txt": "".join(f"{i:05d}.png\n" for i in range(getattr(self, split))) for split in SPLITS}
        return files | {f"annotations/{kind}_{split}.json": json.dumps(self.annotations(split)) for split in SPLITS}

    def annotations(self, split: str) -> dict[str, Any]:
        pictures, size = range(getattr(self, split)), {"height": self.size, "width": self.size}
        images = [{"id": i + 1, "file_name": f"images/{i:05d}.png", **size} for i in pictures]
        found = ((i + 1, each) for i in pictures for each in self.scene(split, i)[1])
        objects = [{"id": k, "image_id": i, **_annotation(each)} for k, (i, each) in enumerate(found, start=1)]
        categories: list[dict[str, Any]] = [{"id": k, "name": name} for k, name in enumerate(self.classes(), start=1)]
        if self.keypoints:
            categories[0] |= {"keypoints": list(KEYPOINTS), "skeleton": [[1, 2], [2, 3]]}
        return {"images": images, "annotations": objects, "categories": categories}

    def scene(self, split: str, index: int, twin: bool = False) -> tuple[npt.NDArray[np.uint8], list[Object]]:
        """A picture (H, W, 3), or its twin, and what is annotated in it."""
        rng = self.rng(split, index)
        hues = draw_hues(rng, self.hues)
        swapped = bool(rng.integers(2)) ^ twin
        radius = BAR + END if self.keypoints else DISC
        (*tags, one, other), angles = draw_places(rng, (TAG, TAG, radius, radius), self.size), rng.uniform(0, 360, 2)
        picture = background(rng, TINT, self)
        y, x = np.mgrid[: self.size, : self.size] + 0.5  # middles of pixels
        objects: list[Object] = []
        for kind, (cy, cx) in enumerate(tags):  # the triangle, the cross
            mask = (_triangle, _cross)[kind](y - cy, x - cx)
            picture[mask] = GREY if self.grey else colour_of(hues[kind ^ swapped])
            objects.append(Object(kind + 1, mask))
        if self.keypoints:
            objects = [
                _bar(picture, y, x, at, turn, hues, swapped) for at, turn in zip((one, other), angles, strict=True)
            ]
        else:
            for kind, (cy, cx) in enumerate((one, other)):  # in the first hue, in the second
                mask = (y - cy) ** 2 + (x - cx) ** 2 <= DISC**2
                picture[mask] = colour_of(hues[kind])
                objects.append(Object(3 + (kind ^ swapped), mask))
        return finished(rng, picture[None])[0], objects


def draw_hues(rng: np.random.Generator, hues: int) -> tuple[float, float]:
    """Draw two hues in degrees: of so many evenly spaced ones, or any that are far enough apart."""
    if hues:
        first, step = int(rng.integers(hues)), int(rng.integers(1, hues))
        return 360 / hues * first, 360 / hues * (first + step)
    start = rng.uniform(0, 360)
    return start, start + rng.uniform(APART, 360 - APART)


def draw_places(rng: np.random.Generator, radii: tuple[float, ...], size: int) -> list[Point]:
    """Draw the middles (y, x) of objects that don't touch, all at once until they fit."""
    radius = np.array(radii)
    least = radius[:, None] + radius + GAP
    np.fill_diagonal(least, 0)
    while True:
        at = rng.uniform(radius + 1, size - radius - 1, (2, len(radius))).T
        if (np.hypot(*(at[:, None] - at).transpose(2, 0, 1)) >= least).all():
            return [(float(y), float(x)) for y, x in at]


def colour_of(hue: float) -> npt.NDArray[np.float64]:
    """RGB of a hue in degrees, equally bright."""
    return np.asarray(140 + 100 * np.cos(np.deg2rad(hue - np.array([0, 120, 240]))))


def _triangle(dy: Plane, dx: Plane) -> Mask:
    """Upright, with its corners on a circle."""
    return (dy <= TAG / 2) & (dy >= -TAG + np.abs(dx) * 3**0.5)


def _cross(dy: Plane, dx: Plane) -> Mask:
    return (np.minimum(abs(dy), abs(dx)) <= 2.5) & (np.maximum(abs(dy), abs(dx)) <= TAG - 1)


def _bar(
    picture: Picture, y: Plane, x: Plane, at: Point, angle: float, hues: tuple[float, float], swapped: bool
) -> Object:
    """Draw a grey bar with two coloured ends."""
    (cy, cx), turn = at, np.deg2rad(angle)
    step = BAR * np.array([np.sin(turn), np.cos(turn)])
    along = (y - cy) * np.sin(turn) + (x - cx) * np.cos(turn)
    across = (x - cx) * np.sin(turn) - (y - cy) * np.cos(turn)
    mask: Mask = (abs(along) <= BAR) & (abs(across) <= 2)
    picture[mask] = GREY
    ends = [(cy + sign * step[0], cx + sign * step[1]) for sign in (-1, 1)]
    for (ey, ex), hue in zip(ends, hues, strict=True):
        end = (y - ey) ** 2 + (x - ex) ** 2 <= END**2
        picture[end] = colour_of(hue)
        mask |= end
    points = [(float(ex), float(ey)) for ey, ex in ends]
    triangle, cross = points[swapped], points[not swapped]
    return Object(1, mask, (triangle, (float(cx), float(cy)), cross))


def _annotation(each: Object) -> dict[str, Any]:
    """As COCO has it: a box from pixel edge to pixel edge, a mask as run lengths, keypoints that are all visible."""
    coded = rle.encode(np.asfortranarray(each.mask.astype(np.uint8)))
    found: dict[str, Any] = {
        "category_id": each.category,
        "bbox": rle.toBbox(coded).tolist(),
        "area": float(rle.area(coded)),
        "segmentation": {"size": coded["size"], "counts": coded["counts"].decode("ascii")},
        "iscrowd": 0,
    }
    if each.keypoints:
        found["keypoints"] = [number for x, y in each.keypoints for number in (round(x, 2), round(y, 2), 2)]
        found["num_keypoints"] = len(each.keypoints)
    return found
