"""The generated set: its files, and that nothing but the tags tells which disc or end is which."""

import hashlib
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from nl_lightning.detection.coco import CocoSplit
from nl_lightning.detection.precision import AveragePrecision
from nl_lightning.detection.tags import Tags, draw_hues
from nl_lightning.errors import UserError

SIGMAS = (0.1, 0.1, 0.1)  # of the recipe tags_keypoints


@pytest.mark.parametrize("keypoints", [False, True])
def test_the_twin_differs_in_the_tags_alone(keypoints: bool) -> None:
    spec = Tags(keypoints=keypoints)
    tags = Tags()  # says where the tags are in pictures without bars
    for i in range(5):
        (picture, objects), (twin, swapped) = (spec.scene("train", i, twin) for twin in (False, True))
        differs = (picture != twin).any(axis=2)
        assert 0 < differs.sum() < 2 * 200  # two tags of fewer pixels
        if keypoints:
            for one, other in zip(objects, swapped, strict=True):
                assert not (differs & one.mask).any()
                assert one.keypoints == other.keypoints[::-1]
        else:
            assert not (differs & ~(objects[0].mask | objects[1].mask)).any()
            for one, other in zip(objects[2:], swapped[2:], strict=True):
                assert np.array_equal(one.mask, other.mask)
                assert {one.category, other.category} == {3, 4}
    assert len(tags.scene("train", 0)[1]) == 4


@pytest.mark.parametrize("keypoints", [False, True])
def test_grey_tags_tell_nothing(keypoints: bool) -> None:
    """Twins are one picture, with two truths."""
    spec = Tags(keypoints=keypoints, grey=True)
    for i in range(3):
        (picture, objects), (twin, swapped) = (spec.scene("test", i, twin) for twin in (False, True))
        assert np.array_equal(picture, twin)
        assert [one.category for one in objects] != [one.category for one in swapped] or keypoints
        coloured, same = Tags(keypoints=keypoints).scene("test", i)
        assert [one[::2] for one in same] == [one[::2] for one in objects]
        assert 0 < (picture != coloured).any(axis=2).sum() < 2 * 200  # two tags of fewer pixels


def test_a_set_from_before_a_setting_came_is_the_same_set(tmp_path: Path) -> None:
    spec = Tags(train=1, val=1, test=1)
    spec.generate(tmp_path)
    assert "grey" not in json.loads((tmp_path / "spec.json").read_text())
    with pytest.raises(UserError, match="is of another tags set than the one asked for"):
        Tags(train=1, val=1, test=1, grey=True).generate(tmp_path)


def test_both_of_a_twin_are_as_likely() -> None:
    spec = Tags()
    first = [spec.scene("test", i)[1][2].category for i in range(60)]
    assert 18 < first.count(3) < 42


def test_what_does_not_see_the_tags_is_at_its_floor() -> None:
    """Perfect boxes, and both categories for each disc, as sure of the one as of the other: about 75 %."""
    metric = AveragePrecision("box")
    blind = torch.Generator().manual_seed(0)
    for target in annotated(Tags(), 100):
        boxes = corners(target)[[0, 1, 2, 2, 3, 3]]
        found = {"boxes": boxes, "labels": torch.tensor([1, 2, 3, 4, 3, 4]), "scores": torch.rand(6, generator=blind)}
        metric.update([found], [target])
    assert metric.compute()["AP"] == pytest.approx(75, abs=5)


def test_ends_of_bars_by_chance_are_at_their_floor() -> None:
    """Perfect boxes, and each bar this way or that: about 27 %, and chance moves it. Both ends in one place: 40 %."""
    metric, both = AveragePrecision("keypoint", SIGMAS), AveragePrecision("keypoint", SIGMAS)
    blind = np.random.default_rng(0)
    for target in annotated(Tags(keypoints=True), 100):
        points = torch.tensor([one["keypoints"] for one in target["annotations"]]).reshape(-1, 3, 3)
        points = torch.stack([each.flip(0) if blind.random() < 0.5 else each for each in points])
        found = {"boxes": corners(target), "labels": torch.ones(2).long(), "scores": torch.tensor(blind.random(2))}
        metric.update([{**found, "keypoints": points}], [target])
        both.update([{**found, "keypoints": points[:, [0, 1, 0]]}], [target])
    assert both.compute()["AP"] == pytest.approx(40)
    assert 15 < metric.compute()["AP"] < 40


def corners(target: dict[str, Any]) -> torch.Tensor:
    boxes = torch.tensor([one["bbox"] for one in target["annotations"]])
    boxes[:, 2:] += boxes[:, :2]
    return boxes


def annotated(spec: Tags, count: int) -> list[dict[str, Any]]:
    content = type(spec)(train=1, val=count, test=1, keypoints=spec.keypoints).annotations("val")
    of = {
        image["id"]: [one for one in content["annotations"] if one["image_id"] == image["id"]]
        for image in content["images"]
    }
    return [{"image_id": number, "size": (96, 96), "annotations": found} for number, found in of.items()]


@pytest.mark.parametrize(("keypoints", "file"), [(False, "instances"), (True, "person_keypoints")])
def test_files_are_cocos_and_the_same_for_a_seed(keypoints: bool, file: str, tmp_path: Path) -> None:
    spec = Tags(train=3, val=2, test=2, keypoints=keypoints)
    spec.generate(tmp_path)
    spec.generate(tmp_path)  # is there already
    content = json.loads((tmp_path / "annotations" / f"{file}_train.json").read_text())
    assert {image["file_name"] for image in content["images"]} == {f"images/{i:05d}.png" for i in range(3)}
    split = CocoSplit(tmp_path / "train", tmp_path / "annotations" / f"{file}_train.json", keypoints, training=True)
    image, target = split[1]
    picture, objects = spec.scene("train", 1)
    assert np.array_equal((image * 255).byte().permute(1, 2, 0).numpy(), picture)
    for place, one in enumerate(objects):
        rows, columns = np.nonzero(one.mask)
        edges = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert target["boxes"][place].tolist() == edges
        if keypoints:
            np.testing.assert_allclose(target["keypoints"][place, :, :2], one.keypoints, atol=0.01)
        else:
            assert np.array_equal(target["masks"][place].numpy(), one.mask)
    with pytest.raises(UserError, match="is of another tags set than the one asked for"):
        Tags(train=4, val=2, test=2, keypoints=keypoints).generate(tmp_path)


def test_pictures_stay_what_they_are() -> None:
    """Another hash: raise the set's version."""
    pictures = b"".join(Tags(keypoints=k).scene("train", i)[0].tobytes() for k in (False, True) for i in range(3))
    assert hashlib.sha256(pictures).hexdigest()[:16] == "03316c140adead2d"


def test_a_small_picture_is_refused() -> None:
    with pytest.raises(UserError, match=r"^tags: size is 40: expected 80 or more, so that all objects fit$"):
        Tags(size=40)


@pytest.mark.parametrize(("hues", "least"), [(0, 100), (3, 120), (6, 60)])
def test_the_two_hues_differ(hues: int, least: float) -> None:
    rng = np.random.default_rng(0)
    drawn = [draw_hues(rng, hues) for _ in range(200)]
    apart = [abs((second - first + 180) % 360 - 180) for first, second in drawn]
    assert least - 1e-9 <= min(apart) < least + 10
    assert not hues or {round(first) for first, _ in drawn} == {360 // hues * k for k in range(hues)}
    with pytest.raises(UserError, match=r"^tags: hues is 1: expected 2 to 360, or 0 for any$"):
        Tags(hues=1)


def test_png_is_lossless() -> None:
    spec = Tags()
    with Image.open(io.BytesIO(spec.clip("val", 0, 0))) as opened:
        assert np.array_equal(np.asarray(opened), spec.scene("val", 0)[0])
