"""The generated stills: labels say what is painted, and the lists are read as those of Charades are."""

import hashlib
from pathlib import Path

import numpy as np

from nl_lightning.data.annotations import read_annotation
from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.data.match import colour_of
from nl_lightning.data.stills import DIRECTIONS, Stills, draw_glyphs, labels_of

SMALL = Stills(train=8, val=4, test=5)


def test_first_files_are_the_published_ones() -> None:
    """The pixels of four files of each split are pinned: another hash is another set (raise its version)."""
    digest = hashlib.sha256()
    for split in SMALL.seeds:
        for index, kind in enumerate(Stills().kinds(split)[:4]):
            digest.update(Stills().frames(split, index, kind).tobytes())
    assert digest.hexdigest() == "8375ce4182f05f915e1ed01d350593ff21ee1f688a22e001077c346a29f7f4ec"


def test_labels_name_shape_and_direction_of_colour() -> None:
    names = Stills().classes()
    assert len(names) == len(set(names)) == 3 * 26
    for shape, name in enumerate(("disc", "ring", "plus")):
        for direction in DIRECTIONS:
            to = np.array(direction) / np.linalg.norm(direction)
            said = [names[label] for label in labels_of(shape, colour_of(to))]
            assert f"{name}_{''.join('-0+'[sign + 1] for sign in direction)}" in said
            assert {label.split("_")[0] for label in said} == {name}
    # Every colour has a label, and a colour of the other side of the sphere has none of the same.
    for i in range(300):
        ((_, colour),) = draw_glyphs(np.random.default_rng(i), 1)
        there = set(labels_of(0, colour))
        assert 1 <= len(there) <= 4
        r, g, b = (256 - part for part in colour)
        assert not there & set(labels_of(0, (r, g, b)))


def test_every_label_has_files_to_learn_from() -> None:
    spec = Stills()
    labels = [spec.labels("train", i, kind) for i, kind in enumerate(spec.kinds("train")[:1500])]
    assert np.bincount(np.concatenate(labels), minlength=78).min() > 40


def test_a_set_is_read_with_its_labels(tmp_path: Path) -> None:
    SMALL.generate(tmp_path)
    data = VideoDataModule(str(tmp_path), stills=SMALL, multi_label=True, num_classes=78, num_frames=1, batch_size=4)
    data.setup("test")
    assert data.groups == []
    for split in ("train", "val", "test"):
        videos = data.videos(split)
        assert videos.classes == SMALL.classes()
        assert videos.listed() == read_annotation(f"{split}.txt", tmp_path, split).listed()
        for i, (kind, (name, labels)) in enumerate(zip(SMALL.kinds(split), videos.listed(), strict=True)):
            assert name == f"{split}/{kind + 1}_glyphs/{split}_{i:05d}.mp4"
            assert labels == tuple(SMALL.labels(split, i, kind))
    assert data.files.frames(tmp_path / data.videos("val").paths.name(0), np.array([0, 7])).shape == (2, 36, 36, 3)
