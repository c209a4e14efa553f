"""Detector: how the networks of Tables 5 and 6 are trained and tested on COCO.

Training minimises the sum of torchvision's losses. Testing logs ``test/box_AP``, ``test/mask_AP`` and their ``AP50``
and ``AP75``, or ``test/keypoint_AP``, in percent.
"""

from pathlib import Path
from typing import Any, Literal, cast

import pytorch_lightning as L
import torch
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn

from nl_lightning.detection.coco import Batch, CocoData
from nl_lightning.detection.network import Size, detector_network, load_start
from nl_lightning.detection.precision import AveragePrecision, Kind, contributions
from nl_lightning.errors import UserError
from nl_lightning.models.conventions import ControlConfig
from nl_lightning.train.optimization import Schedule, optimize


def coco_sgd(params: Any) -> torch.optim.Optimizer:
    """SGD with the rates that are usual on COCO for 16 images: 0.02, momentum 0.9, weight decay 1e-4."""
    return torch.optim.SGD(params, lr=0.02, momentum=0.9, weight_decay=1e-4)


class Detector(L.LightningModule):
    """Train and test one detector.

    Args:
        depth: of the ResNet.
        backbone_block: a non-local block right before the last residual block of res4 (Table 5).
        head_blocks: four blocks in the keypoint head, after every two of its eight convolutions (Table 6).
        num_classes: with the background, which is class 0. COCO's categories go to 90.
        num_keypoints: of each object, 17 in COCO; 0 for boxes and masks.
        sigmas: of OKS, one a keypoint; COCO's 17 by default.
        size: how wide the parts are. The default is the paper's.
        frozen_bn: keep BN as the start weights have it.
        trainable_layers: of conv1 and four stages, the last so many learn.
        settings: others of torchvision's ``MaskRCNN`` or ``KeypointRCNN``, such as ``min_size``.
        control: what the backbone has in the place of a block, to see what that buys.
        start: a file of torchvision's weights, of its ResNet (``resnet50-*.pth``) or of a detector. ``{depth}`` in it
            stands for the depth.
        optimizer: any optimiser of torch.
        schedule: how the learning rate changes.
        detections: where testing writes what it found, for each kind ``FOLDER/box.npz`` and so on, or nowhere.
    """

    def __init__(
        self,
        depth: Literal[50, 101] = 50,
        backbone_block: bool = False,
        head_blocks: bool = False,
        num_classes: int = 91,
        num_keypoints: int = 0,
        sigmas: tuple[float, ...] | None = None,
        size: Size = Size(),  # noqa: B008 - frozen
        frozen_bn: bool = True,
        trainable_layers: int = 3,
        settings: dict[str, Any] | None = None,
        control: ControlConfig | None = None,
        start: str | None = None,
        optimizer: OptimizerCallable = coco_sgd,
        schedule: Schedule = Schedule(milestones=(60_000, 80_000)),  # noqa: B008 - frozen
        detections: str | None = None,
    ) -> None:
        super().__init__()
        if num_keypoints and sigmas is None and num_keypoints != 17:
            raise UserError(f"model.sigmas: OKS needs one for each of the {num_keypoints} keypoints")
        if sigmas is not None and len(sigmas) != num_keypoints:
            raise UserError(f"model.sigmas: expected {num_keypoints}, one a keypoint, got {len(sigmas)}")
        blocks = (backbone_block, head_blocks, size, frozen_bn, trainable_layers, settings, control)
        self.net = detector_network(depth, num_classes, num_keypoints, *blocks)
        if start is not None:
            load_start(self.net, Path(start.replace("{depth}", str(depth))))
        self.num_classes, self.num_keypoints = num_classes, num_keypoints
        self.optimizer, self.schedule = optimizer, schedule
        self.detections = None if detections is None else Path(detections)
        kinds: tuple[Kind, ...] = ("keypoint",) if num_keypoints else ("box", "mask")
        self.precision = nn.ModuleDict({kind: AveragePrecision(kind, sigmas) for kind in kinds})
        self._outcomes: dict[int, float] = {}

    def setup(self, stage: str) -> None:
        data = getattr(self.trainer, "datamodule", None)
        if isinstance(data, CocoData):
            for split in data.splits.values():
                if (most := max(split.categories)) >= self.num_classes:
                    raise UserError(
                        f"{split.path}: has category {most}; model.num_classes is {self.num_classes}: set {most + 1}"
                    )
                if self.num_keypoints and split.num_keypoints != self.num_keypoints:
                    said = f"model.num_keypoints is {self.num_keypoints}"
                    raise UserError(f"{split.path}: objects have {split.num_keypoints} keypoints; {said}")
                if data.keypoints != bool(self.num_keypoints):
                    raise UserError(f"data.keypoints is {data.keypoints}, model.num_keypoints is {self.num_keypoints}")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        images, targets = batch
        tensors = [{name: each for name, each in target.items() if isinstance(each, Tensor)} for target in targets]
        losses: dict[str, Tensor] = self.net(images, tensors)
        loss = torch.stack(list(losses.values())).sum()
        logged = {f"train/{name}": each.detach() for name, each in losses.items()}
        self.log_dict({"train/loss": loss.detach(), **logged}, batch_size=len(images))
        return loss

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        images, targets = batch
        predictions = self.net(images)
        for _, metric in self._metrics():
            metric.update(predictions, targets)

    test_step = validation_step

    def _metrics(self) -> list[tuple[str, AveragePrecision]]:
        return cast(list[tuple[str, AveragePrecision]], list(self.precision.items()))

    def on_validation_epoch_end(self) -> None:
        self._log("val")

    def on_test_epoch_end(self) -> None:
        self._log("test")

    def _log(self, split: str) -> None:
        for kind, metric in self._metrics():
            self.log_dict({f"{split}/{kind}_{name}": value for name, value in metric.compute().items()})
            found = metric.found
            assert found is not None
            if split == "test" and kind != "mask":
                self._outcomes = dict(zip(found.images.tolist(), contributions(found).tolist(), strict=True))
            if split == "test" and self.detections is not None and self.trainer.is_global_zero:
                found.save(self.detections / f"{kind}.npz")
            metric.reset()

    def test_outcomes(self) -> dict[int, float]:
        """For a study: what each test image, by its id, contributes to the AP of boxes, or of keypoints."""
        return self._outcomes

    def configure_optimizers(self) -> OptimizerLRScheduler:
        learning = [parameter for parameter in self.net.parameters() if parameter.requires_grad]
        iterations = self.trainer.estimated_stepping_batches
        return optimize(self.optimizer, [{"params": learning}], self.schedule, iterations)
