"""COCO: images with boxes, masks or keypoints, read by torchvision and pycocotools, and checked before anything runs.

Files lie as COCO's own: ``train2017/*.jpg`` and ``annotations/instances_train2017.json``, or
``person_keypoints_train2017.json`` for keypoints. Another set with such files is read in the same way.
docs/detection.md says what is kept as it is, mended or refused.
"""

import contextlib
import io
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytorch_lightning as L
import torch
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.datasets import CocoDetection
from torchvision.ops import box_convert, clip_boxes_to_image
from torchvision.transforms.functional import pil_to_tensor

from nl_lightning.data.generated import SPLITS
from nl_lightning.data.videos import mirrored_labels
from nl_lightning.detection.tags import Tags
from nl_lightning.errors import UserError, nearest, say

Example = tuple[Tensor, dict[str, Any]]
Batch = tuple[list[Tensor], list[dict[str, Any]]]


class CocoSplit(Dataset[Example]):
    """The images of one annotation file, with targets as torchvision's detectors take them.

    UserError, naming the file and the annotation, if a file is missing or isn't COCO's, or an annotation is wrong.

    Args:
        images, annotations: a folder, and COCO's JSON.
        keypoints: whether objects need keypoints; masks otherwise.
        training: crowds and boxes without an area are left out of the targets, boxes are clipped.
        drop_empty: leave out images without annotations.
        flip: mirror every other image, by chance, if it is for training.
    """

    def __init__(
        self,
        images: Path,
        annotations: Path,
        keypoints: bool = False,
        training: bool = False,
        drop_empty: bool = False,
        flip: bool = False,
    ) -> None:
        self.path, self.keypoints, self.training, self.flip = annotations, keypoints, training, flip
        if not annotations.is_file():
            others = sorted(path.name for path in annotations.parent.glob("*"))
            raise UserError(f"no file {annotations}{nearest(annotations.name, others)}")
        try:
            with contextlib.redirect_stdout(io.StringIO()):  # pycocotools tells how long it took
                self.files = CocoDetection(str(images), str(annotations))
            self._check(images)
        except (UserError, OSError):
            raise
        except Exception as e:  # what isn't COCO's makes pycocotools, or the check, raise anything
            raise UserError(f"{annotations}: isn't COCO's JSON ({type(e).__name__}: {e})"[:300]) from None
        if drop_empty:
            with_objects = {one["image_id"] for one in self.files.coco.anns.values()}
            self.files.ids = [image for image in self.files.ids if image in with_objects]
        if not self.files.ids:
            raise UserError(f"{annotations}: has no images{' with annotations' if drop_empty else ''}")

    @property
    def categories(self) -> dict[int, str]:
        """Names of the categories, by id."""
        return {int(number): str(one["name"]) for number, one in self.files.coco.cats.items()}

    @property
    def num_keypoints(self) -> int:
        """Of an object, as the categories say; 0 if they say nothing."""
        return max(len(one.get("keypoints", ())) for one in self.files.coco.cats.values())

    def _check(self, folder: Path) -> None:
        coco = self.files.coco
        if not coco.cats or not coco.imgs:
            raise UserError(f"{self.path}: has no {'images' if coco.cats else 'categories'}")
        for kind, known in (("images", coco.imgs), ("annotations", coco.anns), ("categories", coco.cats)):
            given = [one["id"] for one in coco.dataset.get(kind, ())]
            if len(given) > len(known):  # pycocotools keeps the last, without a word
                twice = next(number for number, count in Counter(given).items() if count > 1)
                raise UserError(f"{self.path}: {kind}: the id {twice} is there twice; expected one of its own for each")
        if odd := [number for number in coco.imgs if not isinstance(number, int) or not 0 <= number < 2**63]:
            raise UserError(f"{self.path}: image {odd[0]!r:.60}: expected a number from 0 as its id")
        names = [image["file_name"] for image in coco.imgs.values()]
        if missing := [name for name in names if not (folder / name).is_file()]:
            raise UserError(f"{self.path}: {len(missing)} of {len(names)} images are not in {folder}: {missing[0]}")
        if wrong := [number for number in coco.cats if not isinstance(number, int) or number < 1]:
            raise UserError(f"{self.path}: category {wrong[0]}: expected a number from 1, as 0 is the background")
        if self.keypoints and not self.num_keypoints:
            raise UserError(f"{self.path}: no category has keypoints; person_keypoints_*.json are COCO's with some")
        clipped = flat = 0
        for one in coco.anns.values():
            at = f"{self.path}: annotation {one['id']}"
            if one["image_id"] not in coco.imgs:
                raise UserError(f"{at}: there is no image {one['image_id']}")
            if one["category_id"] not in coco.cats:
                raise UserError(f"{at}: there is no category {one['category_id']}{nearest('', map(str, coco.cats))}")
            image, box = coco.imgs[one["image_id"]], one["bbox"]
            if len(box) != 4 or not all(math.isfinite(number) for number in box) or min(box[2:]) < 0:
                raise UserError(f"{at}: expected a box of x, y, width and height, got {box}")
            x, y, wide, high = box
            if x >= image["width"] or y >= image["height"] or x + wide < 0 or y + high < 0:
                size = f"{image['width']} x {image['height']}"
                raise UserError(f"{at}: its box {box} lies outside of {image['file_name']}, which is {size}")
            flat += min(wide, high) == 0
            over = max(-x, -y, x + wide - image["width"], y + high - image["height"])
            clipped += over > 1  # less is rounding
            if one.setdefault("iscrowd", 0) not in (0, 1):
                raise UserError(f"{at}: iscrowd is {one['iscrowd']!r:.60}: expected 0 or 1")
            if self.keypoints:
                points = one.get("keypoints", ())
                if len(points) != 3 * self.num_keypoints or not all(math.isfinite(number) for number in points):
                    raise UserError(f"{at}: expected {self.num_keypoints} keypoints, each x, y and visibility")
                one.setdefault("num_keypoints", sum(seen > 0 for seen in points[2::3]))
                if "area" not in one:
                    raise UserError(f"{at}: has no area, by which OKS measures how far a keypoint may be off")
            elif not one.get("segmentation"):
                raise UserError(f"{at}: has no mask; expected polygons or run lengths as 'segmentation'")
            elif not _is_mask(one["segmentation"], [image["height"], image["width"]]):
                raise UserError(f"{at}: its mask isn't polygons of x, y, x, y ..., nor run lengths of its image's size")
            if not 0 <= one.setdefault("area", wide * high) < math.inf:
                raise UserError(f"{at}: area is {one['area']!r:.60}: expected a number from 0")
        if self.training and (clipped or flat):
            say(f"{self.path}: {clipped} boxes reach over an edge and are clipped, {flat} without an area are left out")

    def __len__(self) -> int:
        return len(self.files.ids)

    def __getitem__(self, place: int) -> Example:
        number = self.files.ids[place]
        known = self.files.coco.imgs[number]
        file = Path(self.files.root) / known["file_name"]
        try:
            with Image.open(file) as opened:
                image = pil_to_tensor(opened.convert("RGB")).float() / 255
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise UserError(f"{file}: can't be read as an image: {error}") from None
        height, width = image.shape[1:]
        if (height, width) != (known["height"], known["width"]):
            size = f"{known['width']} x {known['height']}"
            raise UserError(f"{file}: is {width} x {height}; {self.path.name} says {size}")
        annotations = self.files.coco.imgToAnns[number]
        target: dict[str, Any] = {"image_id": number, "size": (height, width)}
        if not self.training:
            return image, {**target, "annotations": annotations}
        target |= self._target([one for one in annotations if not one.get("iscrowd")], height, width)
        if self.flip and torch.rand(()) < 0.5:
            return image.flip(-1), self._flipped(target, width)
        return image, target

    def _target(self, objects: Sequence[dict[str, Any]], height: int, width: int) -> dict[str, Tensor]:
        """Boxes (N, 4) from corner to corner, labels (N,), and masks (N, H, W) or keypoints (N, K, 3)."""
        boxes = torch.tensor([one["bbox"] for one in objects], dtype=torch.float32).reshape(-1, 4)
        boxes = clip_boxes_to_image(box_convert(boxes, "xywh", "xyxy"), (height, width))
        kept = ((boxes[:, 2:] - boxes[:, :2]) > 0).all(1)
        objects = [one for one, keep in zip(objects, kept.tolist(), strict=True) if keep]
        found = {"boxes": boxes[kept], "labels": torch.tensor([one["category_id"] for one in objects]).long()}
        if self.keypoints:
            points = torch.tensor([one["keypoints"] for one in objects], dtype=torch.float32)
            return {**found, "keypoints": points.reshape(len(objects), self.num_keypoints, 3)}
        masks = [rle.decode(self.files.coco.annToRLE(one)) for one in objects]
        return {**found, "masks": torch.from_numpy(np.stack(masks)) if masks else torch.zeros(0, height, width).byte()}

    def _flipped(self, target: dict[str, Any], width: int) -> dict[str, Any]:
        """The target of the mirrored image; what is left becomes right."""
        flipped = {**target, "boxes": target["boxes"].clone()}
        flipped["boxes"][:, [0, 2]] = width - target["boxes"][:, [2, 0]]
        if "masks" in target:
            flipped["masks"] = target["masks"].flip(-1)
        else:
            names = max((one.get("keypoints", []) for one in self.files.coco.cats.values()), key=len)
            mirrored = mirrored_labels(names, letters=True)
            mirrored = np.where(mirrored < 0, np.arange(len(names)), mirrored)
            points = target["keypoints"][:, mirrored].clone()
            points[..., 0] = torch.where(points[..., 2] > 0, width - points[..., 0], points[..., 0])
            flipped["keypoints"] = points
        return flipped


def _is_mask(given: Any, size: list[int]) -> bool:
    """Whether these are polygons, or run lengths of an image of this height and width; pycocotools dies of others."""
    if isinstance(given, dict):
        runs = _runs(given["counts"])
        whole = all(isinstance(run, int) and run >= 0 for run in runs)
        return given["size"] == size and whole and sum(runs) == math.prod(size)
    return all(
        isinstance(one, list) and len(one) >= 6 and len(one) % 2 == 0 and all(map(_is_near, one)) for one in given
    )


def _is_near(point: Any) -> bool:
    return isinstance(point, int | float) and abs(point) < 1_000_000  # pixels; NaN isn't


def _runs(counts: str | list[int]) -> list[int]:
    """Run lengths as numbers. COCO's compressed ones: five bits a character, from the third on as differences."""
    if isinstance(counts, list):
        return counts
    runs: list[int] = []
    value = shift = 0
    for character in counts.encode():
        bits = character - 48
        value |= (bits & 31) << shift
        shift += 5
        if not bits & 32:
            value -= (1 << shift) * bool(bits & 16)
            runs.append(value + (runs[-2] if len(runs) > 2 else 0))
            value = shift = 0
    return runs


def together(examples: Sequence[Example]) -> Batch:
    """Images of different sizes stay a list, as torchvision's detectors take them."""
    images, targets = zip(*examples, strict=True)
    return list(images), list(targets)


class CocoData(L.LightningDataModule):
    """COCO, or a set with files like COCO's.

    Args:
        root: the folder of the images' folders and of ``annotations``.
        train, val, test: names of the splits, such as ``train2017``.
        tags: generate this set below `root`, if it isn't there, and read its splits.
        keypoints: read ``person_keypoints_*.json`` in place of ``instances_*.json``.
        empty: whether training keeps images without annotations, as background, or drops them.
        flip: mirror every other image in training.
        batch_size, test_batch_size: images of a batch, in each process.
        num_workers: processes that read images.
    """

    def __init__(
        self,
        root: str = "data/coco",
        train: str = "train2017",
        val: str = "val2017",
        test: str = "val2017",
        tags: Tags | None = None,
        keypoints: bool = False,
        empty: Literal["keep", "drop"] = "keep",
        flip: bool = True,
        batch_size: int = 2,
        test_batch_size: int = 8,
        num_workers: int = 0,
    ) -> None:
        super().__init__()
        for name, number in {"batch_size": batch_size, "test_batch_size": test_batch_size}.items():
            if number < 1:
                raise UserError(f"data.{name} is {number}: expected 1 or more")
        if tags is not None and tags.keypoints != keypoints:
            raise UserError(
                f"data.keypoints is {keypoints}, data.tags.keypoints is {tags.keypoints}: expected the same"
            )
        self.root, self.tags, self.keypoints, self.empty, self.flip = Path(root), tags, keypoints, empty, flip
        self.names = {"train": train, "val": val, "test": test} if tags is None else {s: s for s in SPLITS}
        self.batch_size, self.test_batch_size, self.num_workers = batch_size, test_batch_size, num_workers
        self.splits: dict[str, CocoSplit] = {}

    def prepare_data(self) -> None:
        if self.tags is not None:
            self.tags.generate(self.root)

    def setup(self, stage: str) -> None:
        needed = {"fit": ("train", "val"), "validate": ("val",)}.get(stage, ("test",))
        for split in needed:
            if split not in self.splits:
                self.splits[split] = self._split(split)
        first = self.splits[needed[0]].categories
        for split in needed[1:]:
            if (other := self.splits[split].categories) != first:
                odd = sorted(f"{number} {name}" for number, name in other.items() ^ first.items())
                raise UserError(f"{self.splits[split].path}: has other categories than {needed[0]}'s: {odd[0]}")

    def _split(self, split: str) -> CocoSplit:
        name, training = self.names[split], split == "train"
        file = f"{'person_keypoints' if self.keypoints else 'instances'}_{name}.json"
        at = (self.root / name, self.root / "annotations" / file)
        return CocoSplit(*at, self.keypoints, training, training and self.empty == "drop", training and self.flip)

    def train_dataloader(self) -> DataLoader[Any]:
        return self._loader("train", self.batch_size)

    def val_dataloader(self) -> DataLoader[Any]:
        return self._loader("val", self.test_batch_size)

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test", self.test_batch_size)

    def _loader(self, split: str, batch_size: int) -> DataLoader[Any]:
        train = split == "train"
        order: dict[str, Any] = {"shuffle": train, "drop_last": train}
        # Workers of one epoch: no checkpoint holds the random numbers of those that stay.
        return DataLoader(self.splits[split], batch_size, collate_fn=together, num_workers=self.num_workers, **order)
