"""The generated set ``match``: balanced in what a bag of local features sees, and readable from its files."""

import collections
import hashlib
import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from scipy import ndimage
from video_files import decode

from nl_lightning.data import decoding
from nl_lightning.data.annotations import read_annotation
from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.data.longrange import LongRange
from nl_lightning.data.match import (  # fmt: skip
    GLYPH,
    Match,
    Scene,
    draw_scene,
    encode,
    glyph_mask,
    render_scene,
    shown,
)
from nl_lightning.errors import UserError

SPEC = Match(versions=("space", "spacetime", "time"))
SMALL = Match(train=13, val=6, test=24, versions=("space", "spacetime", "time"))


def scenes(label: int, count: int, hard: bool = False) -> list[Scene]:
    return [draw_scene(np.random.default_rng((9, label, i)), label, SPEC, hard) for i in range(count)]


def colours(found: list[Scene]) -> npt.NDArray[np.float64]:
    """Of each glyph: (scenes, 4, 3)."""
    return np.array([[glyph.colour for glyph in scene.glyphs] for scene in found])


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of a small set."""
    root = tmp_path_factory.mktemp("match")
    SMALL.generate(root)
    return root


def test_first_clips_are_the_published_ones() -> None:
    """The pixels of six videos of each split are pinned: another hash is another set (raise its version)."""
    digest = hashlib.sha256()
    for split in SPEC.seeds:
        for index, kind in enumerate(SPEC.kinds(split)[:6]):
            digest.update(SPEC.frames(split, index, kind).tobytes())
    assert digest.hexdigest() == "467418956334633ea51a64c9bcf96e39f99c238de8e1dd6cbf8c46f5ee8b56ee"


def test_kinds_are_balanced() -> None:
    """Each class has as many videos, and in testing each class as many hard ones."""
    for split in ("train", "val", "test"):
        counts = collections.Counter(SPEC.kinds(split))
        assert len(counts) == (12 if split == "test" else 6)
        assert max(counts.values()) - min(counts.values()) <= 1


@pytest.mark.parametrize("label", range(0, 6, 2))
def test_what_a_glyph_is_does_not_depend_on_the_class(label: int) -> None:
    """Shape, place, moment and colour of single glyphs, and what is seen together, alike in both classes (5 s.e.)."""
    n = 700
    equal, mixed = scenes(label, n), scenes(label + 1, n)

    def moments(found: list[Scene]) -> npt.NDArray[np.float64]:
        """Numbers of each scene, (scenes, k), whose means may not differ."""
        rows = []
        for scene, c in zip(found, (colours(found) - 128) / 95, strict=True):
            ring = np.array([glyph.shape for glyph in scene.glyphs])
            when = np.array([glyph.moment or 0 for glyph in scene.glyphs])
            place = np.array([glyph.place for glyph in scene.glyphs]) / 16 - 1
            early = [0, 2] if scene.version == "spacetime" else [0, 1, 2, 3]
            one, other = c[early[0]], c[early[-1]]
            alike = one @ other if scene.version == "spacetime" else c.sum(axis=0) @ c.sum(axis=0)
            bag = [ring.sum(), *c.sum(axis=0), *(c**2).sum(axis=0), *(ring @ c), *(ring @ c**2), alike]
            rows.append([*bag, *(when @ c), when @ ring, *(when @ place), *place.sum(axis=0), scene.phase])
        return np.array(rows)

    a, b = moments(equal), moments(mixed)
    error = np.sqrt((a.var(axis=0) + b.var(axis=0)) / n)
    assert np.all(np.abs(a.mean(axis=0) - b.mean(axis=0)) <= 5 * error + 1e-9)
    for found in (equal, mixed):
        for glyphs in np.moveaxis((colours(found) - 128) / 95, 1, 0):  # each glyph's colours cover the sphere evenly
            np.testing.assert_allclose(np.linalg.norm(glyphs, axis=1), 1)
            assert np.all(np.abs(glyphs.mean(axis=0)) < 5 * math.sqrt(1 / 3 / n))


def test_exactly_one_pair_has_equal_colours() -> None:
    """The pairs' shapes are as named; decoys as far apart as said; different pairs at least 90."""
    for label in range(6):
        for hard in (False, True):
            found = scenes(label, 100, hard)
            for scene, c in zip(found, colours(found), strict=True):
                shapes = [glyph.shape for glyph in scene.glyphs]
                assert (shapes[0] == shapes[1], shapes[2] == shapes[3]) == (True, False)
                distance = np.linalg.norm(c[:, None] - c[None], axis=-1)
                within = [distance[0, 1], distance[2, 3]]
                assert within[label % 2] == pytest.approx(0)
                assert 60 - 1e-9 <= within[1 - label % 2] <= 190 + 1e-9
                assert not hard or within[1 - label % 2] == pytest.approx(60)
                assert distance[:2, 2:].min() >= 90 - 1e-9
            if not hard:  # by chance over all distances
                first = 2 - 2 * (label % 2)
                decoys = np.linalg.norm(np.diff(colours(found)[:, first : first + 2], axis=1), axis=-1)
                shares = np.histogram(decoys, bins=4, range=(60, 190))[0] / len(found)
                assert np.all(np.abs(shares - 0.25) < 5 * math.sqrt(0.25 * 0.75 / len(found)))


def test_glyphs_never_touch_and_no_crop_cuts_one() -> None:
    for label in range(6):
        for scene in scenes(label, 100):
            places = np.array([glyph.place for glyph in scene.glyphs])
            assert places.min() >= SPEC.size - SPEC.crop
            assert places.max() + GLYPH <= SPEC.crop
            if scene.version != "time":
                gaps = np.abs(places[:, None] - places[None]).max(axis=-1) + 99 * np.eye(4)
                assert gaps.min() > GLYPH


def test_every_other_frame_shows_each_glyph_twice_and_no_pair_at_once() -> None:
    """From any start; the two of a pair lie three frames apart or more, beyond pool2 and a kernel of three frames."""
    for label in range(2, 6):
        for scene in scenes(label, 50):
            seen = np.array([np.tile(shown(glyph, scene, 16), 2) for glyph in scene.glyphs])
            for start in range(16):
                assert np.all(seen[:, start : start + 16 : 2].sum(axis=1) == 2)
            for one, other in ((0, 1), (2, 3)):
                for start in (0, 1):
                    a, b = np.flatnonzero(seen[one, start::2]), np.flatnonzero(seen[other, start::2])
                    assert np.abs(a[:, None] - b[None]).min() >= 3


def test_disc_and_ring_have_equal_areas() -> None:
    areas = [glyph_mask(shape).sum() for shape in range(2)]
    assert max(areas) / min(areas) < 1.01


def glyphs_of(frame: npt.NDArray[np.float64]) -> list[tuple[npt.NDArray[np.float64], bool, npt.NDArray[np.float64]]]:
    """(corner, is a ring, colour) of each glyph in a frame."""
    found = []
    stroke = np.minimum(glyph_mask(0), glyph_mask(1)) > 0.999  # what both shapes cover
    bright = np.linalg.norm(frame - np.median(frame, axis=(0, 1)), axis=-1) > 36
    marked, _ = ndimage.label(ndimage.binary_fill_holes(bright))
    for rows, columns in ndimage.find_objects(marked):
        y, x = (round((part.start + part.stop - GLYPH) / 2) for part in (rows, columns))
        window = frame[max(y, 0) : y + GLYPH, max(x, 0) : x + GLYPH]
        if window.shape[:2] == (GLYPH, GLYPH) and rows.stop - rows.start >= 7:
            colour = window[stroke].mean(axis=0)
            ring = bool(np.linalg.norm(window[3:6, 3:6].mean(axis=(0, 1)) - colour) > 25)
            found.append((np.array([y, x]), ring, colour))
    return found


def solve(video: npt.NDArray[np.float64]) -> str:
    """Whether the two glyphs of nearest colours have equal shapes."""
    version = ("space", "time", "spacetime")[np.median(video, axis=(0, 1, 2)).argmax()]
    frames = video.mean(axis=0, keepdims=True) if version == "space" else video
    glyphs = [(t, *glyph) for t, frame in enumerate(frames) for glyph in glyphs_of(frame)]
    pairs = {}
    for i, (t, place, ring, colour) in enumerate(glyphs):
        for s, there, other_ring, other in glyphs[:i]:
            if 5 <= t - s <= 11 if version == "time" else np.abs(place - there).max() > 3:
                pairs[float(np.linalg.norm(colour - other))] = ring == other_ring
    return "equal" if pairs[min(pairs)] else "mixed"


@pytest.mark.parametrize("version", SPEC.versions)
def test_an_analytic_reader_solves_the_hard_part(version: str) -> None:
    """From frames that were encoded and decoded."""
    label = SPEC.classes().index(f"match_{version}_equal")
    right = []
    for i in range(60):
        kind = label + i % 2 + len(SPEC.classes())
        right.append(solve(stored(SPEC.frames("test", i, kind))) == ("equal", "mixed")[i % 2])
    assert np.mean(right) > 0.95


def stored(video: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The frames of a video after encoding and decoding."""
    return decode(encode(video, 16)).astype(np.float64)


def test_colours_are_kept_in_the_file() -> None:
    """The middle of a glyph's stroke is stored to within 5 RGB units on average, so decoys of 60 stay apart."""
    errors: dict[int, list[float]] = {0: [], 1: []}
    for i in range(40):
        rng = np.random.default_rng((7, i))
        scene = draw_scene(rng, 0, SPEC, hard=True)
        video = stored(render_scene(rng, scene, SPEC)).mean(axis=0)
        for glyph in scene.glyphs:
            y, x = glyph.place
            middle = video[y : y + GLYPH, x : x + GLYPH][glyph_mask(glyph.shape) > 0.999].mean(axis=0)
            errors[glyph.shape].append(float(np.linalg.norm(middle - glyph.colour)))
    assert max(map(np.mean, errors.values())) < 5
    assert np.quantile(errors[0] + errors[1], 0.99) < 10


def test_a_linear_bag_of_pixels_is_at_chance_on_the_hard_part() -> None:
    """Twelve moments of all colours of a clip, whose best linear rule is sought on training clips at all distances."""

    few = Match(versions=("space",), num_frames=2)  # in this version all frames show the same

    def bag(split: str, index: int, kind: int) -> npt.NDArray[np.float64]:
        pixels = few.frames(split, index, kind).reshape(-1, 3) / 255.0
        off = pixels - pixels.mean(axis=0)
        spread = (off[:, :, None] * off[:, None]).mean(axis=0)[np.triu_indices(3)]
        return np.concatenate([pixels.mean(axis=0), spread, (off**3).mean(axis=0), [1.0]])

    train = np.array([bag("train", i, i % 2) for i in range(600)])
    hard = np.array([bag("test", i, 2 + i % 2) for i in range(600)])
    scale = train.std(axis=0) + 1e-9
    weights = np.linalg.lstsq(train / scale, np.arange(600) % 2 - 0.5, rcond=None)[0]
    right = ((hard / scale) @ weights > 0) == (np.arange(600) % 2 == 1)
    assert abs(right.mean() - 0.5) < 4 * math.sqrt(0.25 / 600)


def test_layout_and_groups(small: Path) -> None:
    """Lists and folders agree; hard test videos are a group of their own."""
    assert (small / "classes.txt").read_text().split() == list(SMALL.classes())
    for split, count in (("train", 13), ("val", 6), ("test", 24)):
        listed = read_annotation(f"{split}.txt", small, split)
        assert len(listed) == count
        for name, label in listed.listed():
            assert name.split("/")[1] == SMALL.classes()[label]
            assert decoding.num_frames(small / name) == 16
    data = VideoDataModule(str(small), match=SMALL)
    versions = ("match_space", "match_spacetime", "match_time")
    groups = {name for version in versions for name in (version, f"{version}_hard")}
    assert collections.Counter(data.groups) == dict.fromkeys(groups, 4)
    for (name, _), group in zip(data.videos("test").listed(), data.groups, strict=True):
        assert ("/hard_" in name) == group.endswith("_hard")
        assert group.removesuffix("_hard") == name.split("/")[1].rsplit("_", 1)[0]


def test_every_decoder_gives_the_same_bits(small: Path) -> None:
    """Pictures of Motion JPEG stand alone, so decord may jump in them though they aren't 4:2:0."""
    file = next((small / "train").rglob("*.mp4"))
    whole = decoding.all_frames(file)
    for decoder in decoding.DECODERS:
        try:
            if decoder != "pyav":  # which is always there
                decoding.library(decoder)
        except UserError:
            continue
        assert np.array_equal(decoding.frames(file, [13, 2, 5], decoder), whole[[13, 2, 5]])


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"versions": ()}, "match: versions are none, expected some of space, time, spacetime"),
        ({"versions": ("space", "space")}, "each once"),
        ({"versions": ("place",)}, "match: versions are place"),
        ({"crop": 20}, "match: size 36 and crop 20 leave no room for four glyphs"),
    ],
)
def test_impossible_sets_are_refused(wrong: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Match(**wrong)  # type: ignore[arg-type]


def test_one_generated_set_at_a_time(small: Path) -> None:
    with pytest.raises(UserError, match=r"data\.longrange and data\.match are both given: set all but one to null"):
        VideoDataModule(str(small), match=SMALL, longrange=LongRange())
