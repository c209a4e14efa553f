"""COCO's files: what is read, what is mended, and the one line for what is wrong."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from nl_lightning.detection.coco import CocoData, CocoSplit, together
from nl_lightning.detection.tags import Tags
from nl_lightning.errors import UserError

SQUARE = [[2, 2, 12, 2, 12, 12, 2, 12]]


def content() -> dict[str, Any]:
    """Two images, of which the second is background."""
    one = {"id": 1, "image_id": 7, "category_id": 1, "bbox": [2, 2, 10, 10], "segmentation": SQUARE, "area": 100}
    return {
        "images": [
            {"id": 7, "file_name": "a.png", "width": 20, "height": 16},
            {"id": 8, "file_name": "b.png", "width": 20, "height": 16},
        ],
        "categories": [{"id": 1, "name": "dog"}, {"id": 90, "name": "toothbrush"}],
        "annotations": [{**one, "iscrowd": 0}, {**one, "id": 2, "category_id": 90, "iscrowd": 1}],
    }


def write(root: Path, found: object, name: str = "val", kind: str = "instances") -> Path:
    (root / name).mkdir(parents=True, exist_ok=True)
    for file in ("a.png", "b.png"):
        Image.new("RGB", (20, 16), (255, 0, 0)).save(root / name / file)
    path = root / "annotations" / f"{kind}_{name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(found if isinstance(found, str) else json.dumps(found))
    return path


def split(root: Path, found: object, **options: Any) -> CocoSplit:
    return CocoSplit(root / "val", write(root, found), **options)


def test_targets_are_as_torchvisions_detectors_take_them(tmp_path: Path) -> None:
    training = split(tmp_path, content(), training=True)
    image, target = training[0]
    assert image.shape == (3, 16, 20)
    assert image[0].eq(1).all()
    assert target["boxes"].tolist() == [[2, 2, 12, 12]]  # the crowd isn't trained on
    assert target["labels"].tolist() == [1]
    assert target["masks"].sum() == 100
    assert len(split(tmp_path, content())[0][1]["annotations"]) == 2
    assert training.categories == {1: "dog", 90: "toothbrush"}
    _, background = training[1]
    assert background["boxes"].shape == (0, 4)
    assert background["masks"].shape == (0, 16, 20)
    assert len(split(tmp_path, content(), training=True, drop_empty=True)) == 1
    images, targets = together([training[0], training[1]])
    assert [len(images), len(targets)] == [2, 2]


@pytest.mark.parametrize("sides", ["left_eye right_eye", "r_eye l_eye", "eye.L eye.R", "LEye REye", "E_LEFT E_RIGHT"])
def test_a_mirrored_image_has_mirrored_targets(sides: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "rand", lambda *_: torch.tensor(0.0))
    _, target = split(tmp_path, content(), training=True, flip=True)[0]
    assert target["boxes"].tolist() == [[8, 2, 18, 12]]
    assert target["masks"][0, 2:12, 8:18].all()
    found = content()
    found["categories"][0]["keypoints"] = ["nose", *sides.split()]
    for one in found["annotations"]:
        one["keypoints"] = [3, 4, 2, 5, 6, 2, 0, 0, 0]
    _, target = split(tmp_path, found, keypoints=True, training=True, flip=True)[0]
    assert target["keypoints"].tolist() == [[[17, 4, 2], [0, 0, 0], [15, 6, 2]]]


def test_boxes_over_an_edge_are_clipped_and_flat_ones_left_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = content()
    found["annotations"][0]["bbox"] = [-5, 2, 40, 10]
    found["annotations"] += [
        {**found["annotations"][0], "id": number, "bbox": box}
        for number, box in enumerate(([3, 3, 0, 5], [2, 2, 18.5, 13]), start=3)
    ]
    training = split(tmp_path, found, training=True)
    said = "1 boxes reach over an edge and are clipped, 1 without an area are left out"
    assert capsys.readouterr().err == f"nl-lightning: {training.path}: {said}\n"
    assert training[0][1]["boxes"].tolist() == [[0, 2, 20, 12], [2, 2, 20, 15]]
    split(tmp_path, found)  # testing takes them as they are
    assert not capsys.readouterr().err


def changed(change: Callable[[dict[str, Any]], Any]) -> dict[str, Any]:
    found = content()
    change(found)
    return found


@pytest.mark.parametrize(
    ("found", "line"),
    [
        ("{", r"instances_val\.json: isn't COCO's JSON \(JSONDecodeError"),
        ("[]", r"instances_val\.json: isn't COCO's JSON"),
        ('{"images": [{}]}', r"isn't COCO's JSON \(KeyError: 'id'\)"),
        (changed(lambda f: f.pop("categories")), "has no categories"),
        (changed(lambda f: f.update(images=[], annotations=[])), "has no images"),
        (changed(lambda f: f["images"][1].update(file_name="c.png")), r"1 of 2 images are not in .*val: c\.png"),
        (changed(lambda f: f["annotations"][0].update(image_id=9)), "annotation 1: there is no image 9"),
        (
            changed(lambda f: f["annotations"][1].update(category_id=3)),
            "annotation 2: there is no category 3; known: 1",
        ),
        (changed(lambda f: f["categories"][0].update(id=0)), "category 0: expected a number from 1"),
        (changed(lambda f: f["annotations"][0].update(bbox=[2, 2, 4])), "annotation 1: expected a box of x, y, width"),
        (changed(lambda f: f["annotations"][0].update(bbox=[2, 2, -4, 4])), "annotation 1: expected a box of x, y"),
        (changed(lambda f: f["annotations"][0].update(bbox=[2, 2, float("nan"), 4])), "annotation 1: expected a box"),
        (
            changed(lambda f: f["annotations"][0].update(bbox=[30, 2, 4, 4])),
            r"annotation 1: its box \[30, 2, 4, 4\] lies outside of a\.png, which is 20 x 16$",
        ),
        (changed(lambda f: f["annotations"][0].pop("segmentation")), "annotation 1: has no mask; expected polygons"),
        (changed(lambda f: f["annotations"][0].update(bbox=None)), r"isn't COCO's JSON \(TypeError"),
        (changed(lambda f: f["annotations"][0].update(bbox=[10**400, 2, 4, 4])), r"isn't COCO's JSON \(OverflowError"),
        ("[" * 10**5, r"isn't COCO's JSON \(RecursionError"),
        (changed(lambda f: f["annotations"][1].update(id=1)), "annotations: the id 1 is there twice"),
        (changed(lambda f: f["images"][1].update(id=7)), "images: the id 7 is there twice"),
        (
            changed(lambda f: [one.update(id=one["file_name"]) for one in f["images"]]),
            r"image 'a\.png': expected a number",
        ),
        (changed(lambda f: f["annotations"][0].update(iscrowd="no")), "annotation 1: iscrowd is 'no': expected 0 or 1"),
        (changed(lambda f: f["annotations"][0].update(area=-1)), "annotation 1: area is -1: expected a number from 0"),
        (changed(lambda f: f["annotations"][0].update(segmentation=[[1, 2, 3, 4]])), "annotation 1: its mask isn't"),
        (
            changed(lambda f: f["annotations"][0].update(segmentation={"size": [20, 16], "counts": [0, 320]})),
            "annotation 1: its mask isn't polygons of x, y, x, y ..., nor run lengths of its image's size$",
        ),
        *(
            (
                changed(lambda f, mask=mask: f["annotations"][1].update(segmentation=mask)),
                "annotation 2: its mask isn't",
            )
            for mask in (
                *({"size": [16, 20], "counts": counts} for counts in ("~~~~~~~~", [5, "x"], [-5, 325], [5.5, 314.5])),
                *([[2, 2, far, 2, 12, 12]] for far in ("a", None, float("nan"), float("-inf"), 1e9)),
            )
        ),
    ],
)
def test_what_is_wrong_is_one_line(found: object, line: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=line) as caught:
        split(tmp_path, found)
    assert "\n" not in str(caught.value)


def test_wrong_files_and_images_are_one_line(tmp_path: Path) -> None:
    path = write(tmp_path, content())
    with pytest.raises(UserError, match=r"^no file .*instances_vol\.json; did you mean 'instances_val\.json'\?$"):
        CocoSplit(tmp_path / "val", path.with_name("instances_vol.json"))
    reading = CocoSplit(tmp_path / "val", path)
    (tmp_path / "val" / "a.png").write_text("no image")
    with pytest.raises(UserError, match=r"a\.png: can't be read as an image"):
        reading[0]
    Image.new("1", (15_000, 15_000)).save(tmp_path / "val" / "a.png")
    with pytest.raises(UserError, match=r"a\.png: can't be read as an image: Image size \(225000000 pixels\) exceeds"):
        reading[0]
    Image.new("RGB", (16, 20)).save(tmp_path / "val" / "a.png")
    with pytest.raises(UserError, match=r"a\.png: is 16 x 20; instances_val\.json says 20 x 16$"):
        reading[0]
    found = content()
    found["annotations"] = []
    assert len(split(tmp_path, found)) == 2  # all background
    with pytest.raises(UserError, match="has no images with annotations"):
        split(tmp_path, found, drop_empty=True)


def test_keypoints_that_are_missing_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no category has keypoints; person_keypoints_\*\.json are COCO's with some"):
        split(tmp_path, content(), keypoints=True)
    found = content()
    found["categories"][0]["keypoints"] = ["nose", "left_eye"]
    found["annotations"][0]["keypoints"] = [1, 2, 2]
    with pytest.raises(UserError, match="annotation 1: expected 2 keypoints, each x, y and visibility"):
        split(tmp_path, found, keypoints=True)


def test_compressed_run_lengths_are_read(tmp_path: Path) -> None:
    mask = np.random.default_rng(0).integers(0, 2, (16, 20), np.uint8)
    coded = rle.encode(np.asfortranarray(mask))
    found = changed(lambda f: f["annotations"][0].update(segmentation={**coded, "counts": coded["counts"].decode()}))
    assert np.array_equal(split(tmp_path, found, training=True)[0][1]["masks"][0], mask)


def test_what_testing_needs_is_there_before_training(tmp_path: Path) -> None:
    found = content()
    for one in found["annotations"]:
        del one["area"], one["iscrowd"]
    assert [(one["area"], one["iscrowd"]) for one in split(tmp_path, found)[0][1]["annotations"]] == [(100, 0)] * 2
    found["categories"][0]["keypoints"] = ["nose", "left_eye"]
    for one in found["annotations"]:
        one["keypoints"] = [3, 4, 2, 0, 0, 0]
    with pytest.raises(UserError, match="annotation 1: has no area, by which OKS measures"):
        split(tmp_path, found, keypoints=True)
    for one in found["annotations"]:
        one["area"] = 50
    assert split(tmp_path, found, keypoints=True)[0][1]["annotations"][0]["num_keypoints"] == 1


def test_splits_have_the_same_categories(tmp_path: Path) -> None:
    write(tmp_path, content(), "train2017")
    found = content()
    found["categories"][1]["name"] = "hair drier"
    write(tmp_path, found, "val2017")
    with pytest.raises(UserError, match=r"instances_val2017\.json: has other categories than train's: 90 hair drier$"):
        CocoData(str(tmp_path)).setup("fit")
    with pytest.raises(UserError, match=r"data\.batch_size is 0: expected 1 or more"):
        CocoData(batch_size=0)
    with pytest.raises(UserError, match=r"data\.keypoints is False, data\.tags\.keypoints is True: expected the same"):
        CocoData(tags=Tags(keypoints=True))
