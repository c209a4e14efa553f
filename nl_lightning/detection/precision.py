"""Average precision as COCO defines it, of boxes, masks and keypoints, and how sure it is.

pycocotools matches detections with the truth, image by image (IoU, or OKS for keypoints). What it finds is kept as
:class:`Detections`, all that average precision (AP) is made of. So AP can be computed again for any weights of images.

AP is no mean over images, but each image's contribution to it has a closed form (Efron's infinitesimal jackknife). The
mean of the contributions *is* the AP. They can be paired by image, and averaged over seeds. :func:`bootstrap` resamples
the images instead. Checked in the tests against torchmetrics, COCOeval's own sums, and simulations.
"""

import contextlib
import io
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from jaxtyping import Float, Int
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.utilities import dim_zero_cat

from nl_lightning.errors import UserError
from nl_lightning.report.uncertainty import Difference, _std
from nl_lightning.study.files import whole_file

Kind = Literal["box", "mask", "keypoint"]
IOU_TYPES = {"box": "bbox", "mask": "segm", "keypoint": "keypoints"}
THRESHOLDS = 10
"""Of IoU or OKS: 0.50, 0.55 ... 0.95. A match or an ignored detection is a bit a threshold, the first the lowest."""
MOST = {"box": 100, "mask": 100, "keypoint": 20}
"""Detections of a category in an image that count (COCO's rule)."""
RECALLS = np.linspace(0, 1, 101)


class Detections(NamedTuple):
    """What matching found on n images, D detections of K categories; images are in the order of their ids.

    Attributes:
        images: ids (n,).
        image: of each detection, the place of its image (D,); within an image, the best score comes first.
        category: of each detection, the place of its category (D,).
        score: of each detection (D,).
        matched, ignored: of each detection at each threshold (10, D). Ignored ones lie on crowds.
        truths: objects to be found (n, K).
    """

    images: npt.NDArray[np.int64]
    image: npt.NDArray[np.int64]
    category: npt.NDArray[np.int64]
    score: npt.NDArray[np.float32]
    matched: npt.NDArray[np.bool_]
    ignored: npt.NDArray[np.bool_]
    truths: npt.NDArray[np.int64]

    def save(self, path: Path) -> None:
        """Write a compressed ``.npz`` file, whole or not at all; 10 bytes or less a detection."""
        bits = {name: np.packbits(getattr(self, name), axis=0) for name in ("matched", "ignored")}
        small = {"truths": self.truths.astype(np.uint16), "category": self.category.astype(np.uint16)}
        with whole_file(path) as temporary, temporary.open("wb") as file:
            np.savez_compressed(file, **{**self._asdict(), **bits, **small})

    @classmethod
    def load(cls, path: Path) -> "Detections":
        """Read what :meth:`save` wrote. UserError if the file is missing or another."""
        try:
            with path.open("rb") as opened, np.load(opened, allow_pickle=False) as file:
                found = {name: file[name] for name in cls._fields}
            for name in ("matched", "ignored"):
                found[name] = np.unpackbits(found[name], axis=0, count=THRESHOLDS).astype(bool)
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
            raise UserError(f"{path}: is no file of detections ({type(error).__name__}); testing writes one") from None
        return cls(**{**found, **{name: found[name].astype(np.int64) for name in ("truths", "category")}})


class AveragePrecision(Metric):
    """COCO's AP of one kind as a torchmetrics metric, in percent; its state is what matching found, so it is small.

    Args:
        kind: ``box``, ``mask`` or ``keypoint``.
        sigmas: of OKS, one a keypoint; COCO's 17 by default.
    """

    full_state_update = False
    rows: list[Tensor]
    scores: list[Tensor]
    truths: list[Tensor]
    seen: list[Tensor]

    def __init__(self, kind: Kind, sigmas: Sequence[float] | None = None) -> None:
        super().__init__()
        self.kind, self.sigmas = kind, sigmas
        self.found: Detections | None = None
        for state in ("rows", "scores", "truths", "seen"):
            self.add_state(state, [], dist_reduce_fx="cat")

    def update(self, predictions: Sequence[dict[str, Tensor]], targets: Sequence[dict[str, Any]]) -> None:
        """Match the detections of some images.

        Args:
            predictions: as torchvision's detectors return them.
            targets: with ``image_id``, ``size`` (height, width) and COCO's own ``annotations`` of each image.
        """
        rows, scores, counts = [], [], []
        bits = 1 << np.arange(THRESHOLDS)
        pairs = zip(predictions, targets, strict=True)
        found = [one for given, target in pairs for one in _as_coco(self.kind, given, target["image_id"])]
        for each in _evaluated(self.kind, self.sigmas, found, targets):
            image, category = each["image_id"], each["category_id"]
            matched = bits @ (each["dtMatches"] > 0)
            ignored = bits @ each["dtIgnore"]
            ranked = enumerate(zip(matched, ignored, strict=True))
            rows += [(image, category, rank, *of_thresholds) for rank, of_thresholds in ranked]
            scores += list(each["dtScores"])
            counts.append((image, category, int((np.asarray(each["gtIgnore"]) == 0).sum())))
        device = self.device
        self.rows.append(torch.tensor(rows, dtype=torch.int64, device=device).reshape(-1, 5))
        self.scores.append(torch.tensor(scores, dtype=torch.float32, device=device))
        self.truths.append(torch.tensor(counts, dtype=torch.int64, device=device).reshape(-1, 3))
        self.seen.append(torch.tensor([target["image_id"] for target in targets], device=device))

    def detections(self) -> Detections:
        """All that was matched. An image that several processes have seen counts once."""
        whole = [dim_zero_cat(state).cpu().numpy() for state in (self.rows, self.scores, self.truths, self.seen)]
        rows, first = np.unique(whole[0], axis=0, return_index=True)
        truths, images = np.unique(whole[2], axis=0), np.unique(whole[3])
        categories = np.unique(truths[:, 1])
        counts = np.zeros((len(images), len(categories)), np.int64)
        counts[np.searchsorted(images, truths[:, 0]), np.searchsorted(categories, truths[:, 1])] = truths[:, 2]
        bits = (1 << np.arange(THRESHOLDS))[:, None]
        return Detections(
            images,
            np.searchsorted(images, rows[:, 0]),
            np.searchsorted(categories, rows[:, 1]),
            whole[1][first],
            (rows[:, 3] & bits) > 0,
            (rows[:, 4] & bits) > 0,
            counts,
        )

    def compute(self) -> dict[str, float]:
        """``AP``, ``AP50`` and ``AP75`` in percent. What they are made of, of all processes, is kept as ``found``."""
        self.found = self.detections()
        by_threshold = average_precision(self.found)[0]
        return {"AP": float(by_threshold.mean()), "AP50": float(by_threshold[0]), "AP75": float(by_threshold[5])}


def _as_coco(kind: Kind, prediction: dict[str, Tensor], image: int) -> list[dict[str, Any]]:
    """An image's detections as COCO's result files have them."""
    boxes, scores, labels = (prediction[name].cpu().double().numpy() for name in ("boxes", "scores", "labels"))
    found = []
    for i, (box, score, label) in enumerate(zip(boxes, scores, labels, strict=True)):
        one: dict[str, Any] = {"image_id": image, "category_id": int(label), "score": float(score), "iscrowd": 0}
        one["bbox"] = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
        one["area"] = one["bbox"][2] * one["bbox"][3]
        if kind == "mask":
            mask = (prediction["masks"][i, 0] > 0.5).cpu().numpy().astype(np.uint8)
            one["segmentation"] = rle.encode(np.asfortranarray(mask))
        elif kind == "keypoint":
            one["keypoints"] = prediction["keypoints"][i].cpu().double().numpy().ravel().tolist()
        found.append(one)
    return found


def _evaluated(
    kind: Kind, sigmas: Sequence[float] | None, found: list[dict[str, Any]], targets: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """What COCOeval says of each image and category that have anything; `found` is as COCO's result files have it."""
    images = [dict(zip(("id", "height", "width"), (t["image_id"], *t["size"]), strict=True)) for t in targets]
    truths = [one for target in targets for one in target["annotations"]]
    categories = sorted({int(one["category_id"]) for one in [*truths, *found]})
    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells how long it took
        sides = []
        for annotations in (truths, found):
            side = COCO()
            side.dataset = {"images": images, "categories": [{"id": each} for each in categories]}
            side.dataset["annotations"] = [{**one, "id": number} for number, one in enumerate(annotations, start=1)]
            side.createIndex()
            sides.append(side)
        evaluation = COCOeval(*sides, IOU_TYPES[kind])
        evaluation.params.imgIds, evaluation.params.catIds = [image["id"] for image in images], categories
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.params.maxDets = [MOST[kind]]
        if kind == "keypoint" and sigmas is not None:
            evaluation.params.kpt_oks_sigmas = np.array(sigmas)
        evaluation.evaluate()
    return [each for each in evaluation.evalImgs if each is not None]


def average_precision(
    detections: Detections, weights: Float[np.ndarray, "B n"] | Int[np.ndarray, "B n"] | None = None
) -> Float[np.ndarray, "B 10"]:
    """AP at each threshold, in percent: the mean over the categories that have objects.

    Args:
        detections: on n images.
        weights: how often each image counts, B times; once by default. The images are then as if copied so often.
    """
    if weights is None:
        weights = np.ones((1, len(detections.images)))
    sums, categories = np.zeros((len(weights), THRESHOLDS)), np.zeros(len(weights))
    for k in range(detections.truths.shape[1]):
        order = _ranked(detections, k)
        truths = weights @ detections.truths[:, k]  # (B,)
        there = truths > 0
        categories += there
        weight = weights[:, detections.image[order]]  # (B, D)
        for t in range(THRESHOLDS):
            right = np.cumsum(weight * (detections.matched[t] & ~detections.ignored[t])[order], axis=1)
            counted = np.cumsum(weight * ~detections.ignored[t][order], axis=1)
            precision = right / (counted + np.spacing(1))
            envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
            for b in np.flatnonzero(there):
                places = np.searchsorted(right[b] / truths[b], RECALLS)
                sums[b, t] += envelope[b, places[places < len(order)]].sum() / len(RECALLS)
    return 100 * sums / np.maximum(categories, 1)[:, None]


def _ranked(detections: Detections, category: int) -> npt.NDArray[np.int64]:
    """The detections of a category, the highest score first; ties stay in order, as in COCOeval."""
    of_it = np.flatnonzero(detections.category == category)
    return of_it[np.argsort(-detections.score[of_it], kind="stable")]


def contributions(detections: Detections) -> Float[np.ndarray, " n"]:
    """What each image contributes to AP, in percent; their mean is the AP.

    For one category and threshold let E_j be the largest precision at detection j or a later one, reached at m(j). With
    weights w of the images, the area under the curve is sum_j w_j r_j E_j / sum_i w_i g_i, over right detections j
    (r_j = 1) and objects g_i. An image's influence is n times its derivative at w = 1: through its own right
    detections, through its objects, and through E_j of all j for which it has detections up to m(j).
    """
    total = np.zeros(len(detections.images))
    present = np.flatnonzero(detections.truths.any(axis=0))
    for k in present:
        ranked = _ranked(detections, int(k))
        truths = detections.truths[:, k].sum()
        for t in range(THRESHOLDS):
            order = ranked[~detections.ignored[t][ranked]]
            right = detections.matched[t][order].astype(float)
            counted = np.arange(1, len(order) + 1)
            precision = np.cumsum(right) / counted
            envelope = np.maximum.accumulate(precision[::-1])[::-1]
            at = np.where(precision == envelope, np.arange(len(order)), len(order))
            at = np.minimum.accumulate(at[::-1])[::-1]  # m(j)
            share = right / counted[at]  # what an E_j changes by, for each detection up to m(j)
            by_one, by_envelope = (
                np.bincount(at, weights, minlength=len(order))[::-1].cumsum()[::-1]
                for weights in (share, share * envelope)
            )
            own = right * envelope + right * by_one - by_envelope
            area = (right * envelope).sum() / truths
            total += np.bincount(detections.image[order], own, minlength=len(total)) / truths
            total -= area * detections.truths[:, k] / truths
    influence = 100 * total * len(total) / (max(len(present), 1) * THRESHOLDS)
    return average_precision(detections).mean() + influence  # type: ignore[no-any-return]


def bootstrap(
    first: Sequence[Detections], second: Sequence[Detections] | None = None, replicates: int = 1000, seed: int = 0
) -> Difference:
    """AP of `first`, or that minus AP of `second`, with its noise, from resampled images.

    Every replicate draws the same images for all networks, and under all seeds.

    Args:
        first, second: the detections of two networks on the same images, one a training seed.
        replicates: how often images are drawn.
        seed: of the draws.

    Raises:
        UserError: they were not tested on the same images, or not under as many seeds.
    """
    networks = [first] if second is None else [first, second]
    images = first[0].images
    if len({len(network) for network in networks}) > 1 or not all(
        np.array_equal(each.images, images) for network in networks for each in network
    ):
        raise UserError("bootstrap: expected the same images and as many seeds of both networks")
    drawn = np.random.default_rng(seed).multinomial(len(images), np.full(len(images), 1 / len(images)), replicates)
    weights = np.vstack([np.ones(len(images), drawn.dtype), drawn])
    of = [np.stack([average_precision(each, weights).mean(axis=1) for each in network]) for network in networks]
    by_seed = of[0] if second is None else of[0] - of[1]  # (S, 1 + replicates)
    measured, resampled = by_seed[:, 0], by_seed[:, 1:]
    seeds = len(measured)
    image_var = float(resampled.mean(axis=0).var(ddof=1))
    if seeds > 1:  # what changes with both seed and images is in the noise of the seeds already
        both = float((resampled - resampled.mean(axis=0)).var(axis=1, ddof=1).sum()) / (seeds - 1)
        image_var = max(image_var - both / seeds, 0.0)
    std = _std(measured)
    return Difference(
        mean=float(measured.mean()),
        centre=float(measured.mean()),
        seed_se=0.0 if std is None else std / seeds**0.5,
        video_se=image_var**0.5,
        seeds=seeds,
        videos=len(images),
        std=std,
    )
