"""AP against torchmetrics and COCOeval, its contributions against resampling, intervals against simulated truth."""

import contextlib
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torchmetrics.detection import MeanAveragePrecision

from nl_lightning.detection.precision import (
    IOU_TYPES,
    RECALLS,
    AveragePrecision,
    Detections,
    Kind,
    _as_coco,
    average_precision,
    bootstrap,
    contributions,
)
from nl_lightning.errors import UserError
from nl_lightning.report.uncertainty import paired_numbers

SIDE = 40


def scene(rng: np.random.Generator, image: int) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """A made-up image of three categories, with a crowd now and then, and what a detector says of it."""
    truths, found = [], []
    for number in range(int(rng.integers(0, 5))):
        x, y, wide, high = rng.integers([0, 0, 8, 8], [20, 20, 20, 20]).tolist()
        points = [coordinate for x, y in rng.uniform(5, 30, (3, 2)) for coordinate in (x, y, 2)]
        corners = [x, y, x + wide, y, x + wide, y + high, x, y + high]
        one = {"id": number + 1, "image_id": image, "category_id": int(rng.integers(1, 4)), "bbox": [x, y, wide, high]}
        one |= {"area": wide * high, "segmentation": [corners], "keypoints": points, "num_keypoints": 3}
        truths.append({**one, "iscrowd": int(rng.random() < 0.1)})
        if rng.random() < 0.8:
            shift = rng.integers(-2, 3, 2)
            label = one["category_id"] if rng.random() < 0.8 else int(rng.integers(1, 4))
            noisy = np.add(np.reshape(points, (3, 3)), [*rng.normal(0, 1.5, 2), 0])
            found.append((np.add([x, y, x + wide, y + high], [*shift, *shift]), label, noisy))
    for _ in range(int(rng.integers(0, 3))):
        found.append((np.array([5, 5, 20, 25]), int(rng.integers(1, 4)), rng.uniform(0, 40, (3, 3))))
    boxes = torch.tensor(np.array([box for box, *_ in found]), dtype=torch.float32).reshape(-1, 4).clamp(0, SIDE)
    masks = torch.zeros(len(found), 1, SIDE, SIDE)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[0, top:bottom, left:right] = 0.9
    prediction = {"boxes": boxes, "masks": masks, "labels": torch.tensor([label for _, label, _ in found]).long()}
    prediction["scores"] = torch.tensor(rng.choice([0.2, 0.4, 0.6, 0.8], len(found)), dtype=torch.float32)  # ties
    prediction["keypoints"] = torch.tensor(np.array([p for *_, p in found]), dtype=torch.float32).reshape(-1, 3, 3)
    return prediction, {"image_id": image, "size": (SIDE, SIDE), "annotations": truths}


@pytest.fixture(scope="module")
def scenes() -> list[tuple[dict[str, torch.Tensor], dict[str, Any]]]:
    rng = np.random.default_rng(0)
    return [scene(rng, image) for image in range(3, 33)]


def test_boxes_and_masks_as_torchmetrics_has_them(scenes: list[Any]) -> None:
    """torchmetrics rounds thresholds to float32, which moves the AP of few images: it gets COCO's own."""
    thresholds = {"iou_thresholds": np.linspace(0.5, 0.95, 10).tolist(), "rec_thresholds": RECALLS.tolist()}
    theirs = MeanAveragePrecision(iou_type=("bbox", "segm"), **thresholds)
    ours = {"bbox": AveragePrecision("box"), "segm": AveragePrecision("mask")}
    full = scenes
    for at in range(0, len(full), 7):
        predictions, targets = zip(*full[at : at + 7], strict=True)
        for metric in ours.values():
            metric.update(predictions, targets)
        plain = [{**each, "masks": each["masks"][:, 0] > 0.5} for each in predictions]
        theirs.update(plain, [as_torchmetrics(each["annotations"]) for each in targets])
    expected = theirs.compute()
    for name, metric in ours.items():
        found = metric.compute()
        for key, its in {"AP": "map", "AP50": "map_50", "AP75": "map_75"}.items():
            assert found[key] == pytest.approx(100 * float(expected[f"{name}_{its}"]), abs=1e-4)


def as_torchmetrics(annotations: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
    boxes = torch.tensor([one["bbox"] for one in annotations], dtype=torch.float32).reshape(-1, 4)
    boxes[:, 2:] += boxes[:, :2]
    masks = torch.zeros(len(boxes), SIDE, SIDE, dtype=torch.bool)
    for mask, (left, top, right, bottom) in zip(masks, boxes.int().tolist(), strict=True):
        mask[top:bottom, left:right] = True
    labels = torch.tensor([one["category_id"] for one in annotations]).long()
    return {
        "boxes": boxes,
        "labels": labels,
        "masks": masks,
        "iscrowd": torch.tensor([o["iscrowd"] for o in annotations]),
    }


@pytest.mark.parametrize("kind", ["box", "mask", "keypoint"])
def test_all_kinds_as_cocoeval_has_them(kind: Kind, scenes: list[Any]) -> None:
    metric = AveragePrecision(kind, sigmas=(0.1, 0.05, 0.1))
    for prediction, target in scenes:
        metric.update([prediction], [target])
    truth, found = COCO(), COCO()
    for side in (truth, found):
        side.dataset = {"categories": [{"id": k} for k in (1, 2, 3)]}
        side.dataset["images"] = [{"id": t["image_id"], "height": SIDE, "width": SIDE} for _, t in scenes]
    truth.dataset["annotations"] = [one for _, target in scenes for one in target["annotations"]]
    found.dataset["annotations"] = [one for p, t in scenes for one in _as_coco(kind, p, t["image_id"])]
    for side in (truth, found):
        for number, one in enumerate(side.dataset["annotations"], start=1):
            one["id"] = number
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        found.createIndex()
        evaluation = COCOeval(truth, found, IOU_TYPES[kind])
        if kind == "keypoint":
            evaluation.params.kpt_oks_sigmas = np.array((0.1, 0.05, 0.1))
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    assert 5 < 100 * evaluation.stats[0] < 80
    expected = dict(zip(("AP", "AP50", "AP75"), 100 * evaluation.stats[:3], strict=True))
    assert metric.compute() == pytest.approx(expected)


def test_an_image_that_two_processes_have_seen_counts_once(scenes: list[Any], tmp_path: Path) -> None:
    once, twice = AveragePrecision("box"), AveragePrecision("box")
    for at, (prediction, target) in enumerate(scenes):
        once.update([prediction], [target])
        for _ in range(1 + (at < 3)):
            twice.update([prediction], [target])
    found = once.detections()
    for name, array in found._asdict().items():
        assert np.array_equal(array, getattr(twice.detections(), name))
    found.save(tmp_path / "found" / "box.npz")
    for name, array in Detections.load(tmp_path / "found" / "box.npz")._asdict().items():
        assert np.array_equal(array, getattr(found, name)), name
    (tmp_path / "text.npz").write_text("no")
    np.savez(tmp_path / "other.npz", **dict.fromkeys(Detections._fields, np.zeros(3)))
    for name in ("text.npz", "other.npz"):
        with pytest.raises(UserError, match="is no file of detections"):
            Detections.load(tmp_path / name)
    whole = (tmp_path / "found" / "box.npz").read_bytes()
    (tmp_path / "cut.npz").write_bytes(whole[:-30] + bytes(30))
    with pytest.raises(UserError, match=r"cut\.npz: is no file of detections \(BadZipFile\)"):
        Detections.load(tmp_path / "cut.npz")


def test_nothing_found_and_nothing_there() -> None:
    metric = AveragePrecision("box")
    none = {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0).long()}
    metric.update([none], [{"image_id": 1, "size": (9, 9), "annotations": []}])
    assert metric.compute() == {"AP": 0, "AP50": 0, "AP75": 0}
    assert contributions(metric.detections()).tolist() == [0]


def world(rng: np.random.Generator, hard: npt.NDArray[np.float64], skill: float) -> Detections:
    """What a network finds on images of which some are harder than others."""
    objects = 1 + np.random.default_rng(int(1e6 * abs(hard[0]))).poisson(1.5, len(hard))  # the same for all networks
    image = np.repeat(np.arange(len(hard)), objects)
    ease = skill - hard[image] + rng.normal(0, 0.5, len(image))
    there = rng.random(len(image)) < 1 / (1 + np.exp(-ease - 1))
    wrong = np.repeat(np.arange(len(hard)), rng.poisson(0.8, len(hard)))
    at = np.concatenate([image[there], wrong])
    score = np.concatenate([ease[there] + rng.normal(0, 0.7, there.sum()), rng.normal(-1, 1, len(wrong))])
    level = np.concatenate([np.clip(np.rint(5 + 2.5 * ease[there]), 0, 10), np.zeros(len(wrong))])
    order = np.lexsort((-score, at))
    matched = np.arange(10)[:, None] < level[order]
    category = np.zeros(len(order), np.int64)
    ignored = np.zeros_like(matched)
    return Detections(
        np.arange(len(hard)), at[order], category, score[order].astype(np.float32), matched, ignored, objects[:, None]
    )


def copied(found: Detections, places: npt.NDArray[np.int64]) -> Detections:
    """The detections on these images, in this order, some of them several times."""
    rows = [np.flatnonzero(found.image == place) for place in places]
    at = np.concatenate(rows)
    image = np.repeat(np.arange(len(places)), [len(each) for each in rows])
    return Detections(
        np.arange(len(places)),
        image,
        found.category[at],
        found.score[at],
        found.matched[:, at],
        found.ignored[:, at],
        found.truths[places],
    )


def test_weights_are_copies_of_images() -> None:
    rng = np.random.default_rng(1)
    found = world(rng, rng.normal(0, 0.7, 40), 1)
    draws = rng.integers(0, 40, (5, 40))
    weights = np.stack([np.bincount(draw, minlength=40) for draw in draws])
    expected = [average_precision(copied(found, np.sort(draw)))[0] for draw in draws]
    np.testing.assert_allclose(average_precision(found, weights), expected)


def test_contributions_have_the_ap_as_mean_and_resampling_as_noise(scenes: list[Any]) -> None:
    metric = AveragePrecision("box")
    metric.update(*zip(*scenes, strict=True))
    each = contributions(metric.detections())  # crowds, ties, three categories
    assert each.mean() == pytest.approx(metric.compute()["AP"])
    rng = np.random.default_rng(2)
    found = world(rng, rng.normal(0, 0.7, 200), 1)
    each = contributions(found)
    assert each.mean() == pytest.approx(average_precision(found).mean())
    resampled = bootstrap([found], replicates=400)
    assert resampled.mean == pytest.approx(each.mean())
    assert each.std(ddof=1) / 200**0.5 == pytest.approx(resampled.video_se, rel=0.1)
    without = 1 - np.eye(200)[:30]
    left_out = average_precision(found, without).mean(axis=1)  # each image's weight from 1 to 0
    assert np.corrcoef(each[:30] - each.mean(), each.mean() - left_out)[0, 1] > 0.95


def test_intervals_have_the_true_difference() -> None:
    """Two networks, three seeds each, on 100 images. The truth is their difference on very many."""
    rng = np.random.default_rng(3)
    many = rng.normal(0, 0.7, 10_000)
    skills, noise = (1.0, 0.6), 0.15
    at = [[world(rng, many, skill + shift) for shift in (-noise, 0, noise)] for skill in skills]
    (a, b) = [np.mean([average_precision(each).mean() for each in of]) for of in at]
    closed, resampled = [], []
    for _ in range(40):
        hard = rng.normal(0, 0.7, 100)
        one, other = ([world(rng, hard, skill + rng.choice([-1, 0, 1]) * noise) for _ in range(3)] for skill in skills)
        gains = np.stack([contributions(x) - contributions(y) for x, y in zip(one, other, strict=True)])
        closed.append(paired_numbers(gains))
        resampled.append(bootstrap(one, other, replicates=40))
    for found in (closed, resampled):
        covered = np.mean([low <= a - b <= high for low, high in (each.interval() for each in found)])
        assert 0.9 <= covered <= 1
        assert np.median([each.p_below(0) for each in found]) > 0.5
    widths = [np.median([high - low for low, high in (each.interval() for each in of)]) for of in (closed, resampled)]
    assert widths[0] == pytest.approx(widths[1], rel=0.1)


def test_bootstrap_needs_the_same_images() -> None:
    rng = np.random.default_rng(4)
    one, other = (world(rng, rng.normal(0, 0.7, count), 1) for count in (5, 6))
    with pytest.raises(UserError, match="expected the same images and as many seeds"):
        bootstrap([one], [other])
    with pytest.raises(UserError, match="expected the same images and as many seeds"):
        bootstrap([one, one], [one])
