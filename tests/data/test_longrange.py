"""The generated benchmark: the same on every machine, balanced, and without a local cue inside a group."""

import collections
import dataclasses
import functools
import hashlib
import json
import math
import os
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from video_files import decode

from nl_lightning.data import generated, longrange
from nl_lightning.data.longrange import CLASSES, GLYPH, TINTS, LongRange, Scene, draw_scene, events, render_clip
from nl_lightning.errors import UserError

SPEC = LongRange(groups=tuple(TINTS))
SMALL = LongRange(train=31, val=16, test=15, groups=tuple(TINTS))
GROUPS = [group for group in TINTS if group != "look"]  # the look group is local on purpose


def clip(split: str, index: int, label: int) -> longrange.Clip:
    """Return the rendered frames of one video of the benchmark."""
    return render_clip(np.random.default_rng((longrange.SEEDS[split], index)), label, SPEC)


@functools.cache
def scenes(label: int, count: int = 1500) -> list[Scene]:
    """Return many scenes of a class."""
    return [draw_scene(np.random.default_rng((9, label, i)), label, SPEC) for i in range(count)]


def hashes(root: Path) -> dict[str, str]:
    """Return the hash of every file below `root`, by its relative name."""
    files = (path for path in root.rglob("*") if path.is_file())
    return {str(path.relative_to(root)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the root of a small generated set."""
    root = tmp_path_factory.mktemp("longrange")
    SMALL.generate(root)
    return root


def test_first_clips_are_the_published_ones() -> None:
    """The pixels of the first video of every class are pinned: another hash is another benchmark (raise VERSION)."""
    digest = hashlib.sha256()
    for split in longrange.SEEDS:
        labels = SPEC.kinds(split)
        for label in range(len(CLASSES)):
            video = clip(split, labels.index(label), label)
            assert video.shape == (32, 36, 36, 3)
            assert video.dtype == np.uint8
            digest.update(video.tobytes())
    assert digest.hexdigest() == "e0b7d77b42680fd3c67af88c01873a64d3a4f29888dc53fa98d579f65e6ef6c8"


def test_labels_are_balanced_and_shuffled() -> None:
    """Counts of the classes differ by one at most, splits are ordered differently."""
    orders = [SPEC.kinds(split) for split in longrange.SEEDS]
    for labels, count in zip(orders, (2000, 600, 600), strict=True):
        counts = collections.Counter(labels)
        assert len(labels) == count
        assert set(counts) == set(range(15))
        assert max(counts.values()) - min(counts.values()) <= 1
        assert labels != sorted(labels)
    assert orders[1] != orders[2]


def test_group_is_the_class_name_without_its_kind() -> None:
    """Seven groups, six of two classes and one of three; a set may have some of them."""
    counts = collections.Counter(longrange.group_of(name) for name in CLASSES)
    assert counts == {**dict.fromkeys(GROUPS, 2), "look": 3}
    some = LongRange(groups=("slow", "look"))
    assert some.classes() == ("look_0", "look_1", "look_2", "slow_same", "slow_diff")
    assert draw_scene(np.random.default_rng(0), 3, some).group == "slow"


@pytest.mark.parametrize("group", GROUPS)
def test_marginals_are_equal_inside_a_group(group: str) -> None:
    """What a single glyph shows is distributed alike in both classes (4.5 standard errors): identity, place, begin.

    Of `place`, also which glyph is above, below, and shown later, and the two that are seen at one moment.
    """
    of = [scenes(label) for label, name in enumerate(CLASSES) if longrange.group_of(name) == group]
    n = len(of[0])

    def cell(place: tuple[int, int]) -> int:
        return (place[0] - 4) // 7 * 3 + (place[1] - 4) // 7

    counted: dict[str, Callable[[Scene], int]] = {
        "first": lambda s: s.first,
        "second": lambda s: s.second,
        "cue": lambda s: s.cue,
        "place": lambda s: cell(s.places[0]),
        "other place": lambda s: cell(s.places[1]),
        "begin": lambda s: s.begin,
    }
    if group == "place":
        counted["the pair"] = lambda s: 3 * s.first + s.second
    for what, number in counted.items():
        a, b = (np.bincount([number(s) for s in half], minlength=16) / n for half in of)
        error = np.sqrt((a * (1 - a) + b * (1 - b)) / n)
        assert np.all(np.abs(a - b) < 4.5 * error + 1e-9), (what, a, b)
        if what in ("first", "second", "cue"):
            assert np.all(np.abs(a[:3] - 1 / 3) < 4.5 * error[:3])
        if what == "begin":
            assert np.ptp(a[: 11 if group == "slow" else 16]) < 9 * error.max()


def test_the_label_of_place_is_where_the_cue_was() -> None:
    """Two different halves, one on top of the other, at one moment; later one of their identities, elsewhere, whole."""
    for kind, cued in (("above", 0), ("below", 1)):
        for scene in scenes(CLASSES.index(f"place_{kind}"), 200):
            *halves, cue = events(scene, 32)
            assert halves[0].identity != halves[1].identity
            assert halves[cued].identity == cue.identity
            (y, x), (below, column) = (half.place for half in halves)
            assert (below, column) == (y + 5, x)
            assert halves[0].half and halves[1].half and not cue.half  # noqa: PT018
            assert np.array_equal(halves[0].shown, halves[1].shown)


@pytest.mark.parametrize("group", ["context_space", "context_time", "context_spacetime", "slow"])
def test_same_and_different_mean_what_they_say(group: str) -> None:
    """Two glyphs, equal in the one class, in the other any two different ones equally often."""
    same, diff = CLASSES.index(f"{group}_same"), CLASSES.index(f"{group}_diff")
    assert all(events(s, 32)[0].identity == events(s, 32)[1].identity for s in scenes(same, 200))
    pairs = collections.Counter(tuple(event.identity for event in events(s, 32)) for s in scenes(diff))
    assert set(pairs) == {(a, b) for a in range(3) for b in range(3) if a != b}
    assert all(abs(count / 1500 - 1 / 6) < 4.5 * math.sqrt(5 / 36 / 1500) for count in pairs.values())


def test_no_crop_cuts_a_glyph_and_glyphs_never_touch() -> None:
    """Every event lies in the 28 rows and columns that all 32x32 crops share, and far enough from the other."""
    for label in range(len(CLASSES)):
        for scene in scenes(label, 300):
            (py, px), (qy, qx) = scene.places
            assert math.hypot(py - qy, px - qx) >= longrange.MIN_DISTANCE
            assert max(abs(py - qy), abs(px - qx)) >= GLYPH  # so the squares are disjoint
            for event in events(scene, 32):
                y, x = event.place
                for offset in (0, SPEC.size - SPEC.crop):
                    assert offset <= min(y, x)
                    assert max(y + GLYPH // (2 if event.half else 1), x + GLYPH) <= offset + SPEC.crop


@pytest.mark.parametrize("group", ["context_time", "context_spacetime", "place"])
def test_pool2_never_sees_two_moments(group: str) -> None:
    """At stride 2, at least 3 sampled frames from the last of an event to the first of the other, wrapping included."""
    for label in (label for label, name in enumerate(CLASSES) if longrange.group_of(name) == group):
        for scene in scenes(label, 200):
            early, *_, late = (np.tile(event.shown, 2) for event in events(scene, 32))
            for start in (0, 1):
                a, b = np.flatnonzero(early[start::2]), np.flatnonzero(late[start::2])
                assert np.abs(a[:, None] - b[None, :]).min() >= 3


def test_a_short_clip_holds_both_moments_of_all_but_slow_videos() -> None:
    """Eight frames at stride 2 hold two frames of each event; of a slow video never both. Sixteen frames hold all."""
    for label, name in enumerate(CLASSES):
        for scene in scenes(label, 100):
            shown = np.array([event.shown for event in events(scene, 32)])
            for start in range(17 if len(shown) else 0):
                counts = shown[:, start : start + 16 : 2].sum(axis=1)
                if name.startswith("slow"):
                    assert 1 <= counts.max() <= 2
                    assert counts.min() == 0
                else:
                    assert np.all(counts == (4 if name.startswith("context_space_") else 2))
            for start in (0, 1):
                assert not len(shown) or np.all(shown[:, start::2].sum(axis=1) >= 2)


def test_up_is_down_played_backwards() -> None:
    """An upward clip reversed in time is a downward clip of the same set: a frame alone knows no direction."""
    up, down = (scenes(CLASSES.index(f"motion_{kind}"), 300) for kind in ("up", "down"))
    assert all(-1 <= s.speed <= -0.75 for s in up)
    assert all(0.75 <= s.speed <= 1 for s in down)
    for scene in up[:20]:
        back = dataclasses.replace(scene, start=(scene.start + 31 * scene.speed) % 36, speed=-scene.speed)
        for t in range(32):
            np.testing.assert_allclose(
                longrange.moving_mask(scene, t, 36), longrange.moving_mask(back, 31 - t, 36), atol=1e-9
            )
    for of in (up, down):  # the start is uniform on the circle of rows, so the last frame's row is so as well
        assert np.all(np.abs(np.histogram([s.start for s in of], bins=4, range=(0, 36))[0] / 300 - 0.25) < 4.5 * 0.025)


def test_glyphs_differ_in_shape_and_are_drawn_whole() -> None:
    """The three masks fill most of their square, are symmetric and unlike each other."""
    masks = [longrange.glyph_mask(identity) for identity in range(3)]
    for mask in masks:
        assert mask.shape == (10, 10)
        assert 0.5 < mask.mean() < 0.8
        assert np.array_equal(mask, mask[::-1, ::-1])
    assert min(np.abs(masks[a] - masks[b]).mean() for a, b in ((0, 1), (0, 2), (1, 2))) > 0.15


def test_mp4_keeps_the_picture() -> None:
    """What is decoded is what was rendered, at 28 dB or better: most of the loss is pixel noise."""
    for label in range(len(CLASSES)):
        video = clip("val", label, label)
        decoded = decode(longrange.encode(video, SPEC.fps))
        assert decoded.shape == video.shape
        error = np.mean((decoded.astype(float) - video) ** 2)
        assert 10 * math.log10(255**2 / error) > 28


def test_a_decoded_frame_depends_on_no_other_frame() -> None:
    """No ghost of the first moment is left in the frames of the second, where one frame would give the class away."""
    label = CLASSES.index("context_spacetime_diff")
    video, other = clip("val", 0, label), clip("val", 1, label)
    mixed = np.where((np.arange(32) < 16)[:, None, None, None], other, video)
    assert np.array_equal(decode(longrange.encode(mixed, 16))[16:], decode(longrange.encode(video, 16))[16:])


def test_layout(small: Path) -> None:
    """Files, lists and marker are where the docstring says, labels are those of the folders."""
    assert (small / "classes.txt").read_text().split() == list(CLASSES)
    assert json.loads((small / "spec.json").read_text())["train"] == 31
    for split, count in (("train", 31), ("val", 16), ("test", 15)):
        lines = [line.rsplit(" ", 1) for line in (small / f"{split}.txt").read_text().splitlines()]
        assert len(lines) == count
        assert len(list((small / split).rglob("*.mp4"))) == count
        for i, (path, label) in enumerate(lines):
            assert path == f"{split}/{CLASSES[int(label)]}/{split}_{i:05d}.mp4"
            assert (small / path).is_file()
    assert not list(small.rglob("*.part"))
    assert not (small / "spec.unfinished.json").exists()


def test_generating_again_gives_the_same_bytes(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another run writes equal files, by any number of processes, and a run on a finished set writes nothing."""
    monkeypatch.setattr("nl_lightning.data.generated.cores", lambda: 1)
    SMALL.generate(tmp_path / "again")
    assert hashes(tmp_path / "again") == hashes(small)
    before = {path: path.stat().st_mtime_ns for path in small.rglob("*")}
    SMALL.generate(small)
    assert {path: path.stat().st_mtime_ns for path in small.rglob("*")} == before


def test_an_interrupted_run_goes_on(small: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a stop in the middle no marker is there; the next run keeps the finished files and ends the same."""

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(generated, "as_completed", stop)
        with pytest.raises(KeyboardInterrupt):
            SMALL.generate(tmp_path)
    assert not (tmp_path / "spec.json").exists()
    generated.write_clips(tmp_path, "train", list(enumerate(SMALL.kinds("train")))[:5], SMALL)
    kept = tmp_path / SMALL.path("train", 0, SMALL.kinds("train")[0])
    written = kept.stat().st_mtime_ns
    SMALL.generate(tmp_path)
    assert kept.stat().st_mtime_ns == written
    assert hashes(tmp_path) == hashes(small)


def test_another_specification_is_refused(small: Path, tmp_path: Path) -> None:
    """Neither a finished or begun set of other sizes nor somebody's files are touched."""
    with pytest.raises(UserError, match=r"spec\.json is of another longrange set"):
        dataclasses.replace(SMALL, train=32).generate(small)
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "spec.unfinished.json").write_text("{}")
    with pytest.raises(UserError, match=r"spec\.unfinished\.json is of another"):
        SMALL.generate(tmp_path / "begun")
    for name in ("train", "thesis"):
        (tmp_path / f"my {name}" / name).mkdir(parents=True)
        with pytest.raises(UserError, match=f"already holds '{name}', which is not of a longrange set"):
            SMALL.generate(tmp_path / f"my {name}")
        assert [path.name for path in (tmp_path / f"my {name}").rglob("*")] == [name]
    (tmp_path / "odd" / "spec.json").mkdir(parents=True)
    with pytest.raises(UserError, match=r"spec\.json is of another longrange set"):
        SMALL.generate(tmp_path / "odd")


@pytest.mark.parametrize("lost", ["train.txt", "val/look_0", "test"])
def test_a_set_that_lost_files_is_completed(lost: str, small: Path, tmp_path: Path) -> None:
    """As one whose copying was interrupted: the marker, an early letter, was copied before the videos."""
    root = tmp_path / "[/copy"
    shutil.copytree(small, root)
    shutil.rmtree(root / lost) if (root / lost).is_dir() else (root / lost).unlink()
    SMALL.generate(root)
    assert hashes(root) == hashes(small)


def kill(*_: object) -> int:
    os.kill(os.getpid(), signal.SIGKILL)
    return 0


def test_a_killed_process_is_said_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generated, "write_clips", kill)
    with pytest.raises(UserError, match="a process that generates videos was killed, .*; call again to go on"):
        SMALL.generate(tmp_path / "set")


@pytest.mark.parametrize(
    "wrong",
    [
        {"groups": ()},
        {"groups": ("space",)},
        {"groups": ("look", "look")},
        {"train": 0},
        {"size": 30},
        {"crop": 14, "size": 16},
        {"train": 10**12},
        {"num_frames": 10**6},
    ],
)
def test_impossible_sizes_are_refused(wrong: dict[str, Any]) -> None:
    """Counts below one or beyond reason, no or unknown groups, a crop larger than the frame, no room for two glyphs."""
    with pytest.raises(UserError, match="longrange"):
        LongRange(**wrong)


def test_colours_alone_do_not_tell_the_classes_of_a_group_apart() -> None:
    """A linear probe on the colour histogram of 16 frames stays at the prior inside a group, and sees look at once."""
    names = ("context_space", "place", "motion", "look")
    scores = {}
    for group in names:
        labels = [label for label, name in enumerate(CLASSES) if longrange.group_of(name) == group]
        features, targets = [], []
        for i in range(200):
            label = labels[i % len(labels)]
            video = clip("train", i, label)[::4]  # (8, 36, 36, 3)
            bright = video.max(axis=-1) > 100
            winner = video.argmax(axis=-1)
            features.append(
                [float((bright & (winner == c)).mean()) for c in range(3)] + video.mean(axis=(0, 1, 2)).tolist()
            )
            targets.append(np.eye(len(labels))[i % len(labels)])
        x, y = np.array(features), np.array(targets)
        x = np.c_[(x - x[:100].mean(0)) / x[:100].std(0), np.ones(len(x))]
        weights = np.linalg.lstsq(x[:100], y[:100], rcond=None)[0]
        scores[group] = float(np.mean((x[100:] @ weights).argmax(1) == y[100:].argmax(1)))
    assert scores["look"] > 0.95
    for group in names[:-1]:
        assert scores[group] < 0.5 + 4 * 0.05, scores  # 100 videos: standard error 0.05
