"""What a network learns from the labels of a video: one class of many, or several at once.

:class:`~nl_lightning.train.classifier.VideoClassifier` trains and validates by one of these two; a batch is
(N, classes).
"""

from typing import Protocol

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn
from torchmetrics import CatMetric
from torchmetrics.classification import MulticlassAccuracy

from nl_lightning.train.average_precision import by_video


class Objective(Protocol):
    """The loss of a clip, its scores, and what is measured of them while a network is trained."""

    def loss(self, logits: Tensor, labels: Tensor) -> Tensor: ...

    def log_scores(self, logits: Float[Tensor, "*places classes"]) -> Float[Tensor, "*places classes"]:
        """Logarithms of the scores, which are from 0 to 1."""

    def trained(self, logits: Tensor, labels: Tensor) -> dict[str, Tensor]:
        """What is measured of a training batch, in percent."""

    def validate(self, logits: Tensor, labels: Tensor) -> None:
        """Take in a batch of validation."""

    def validated(self) -> dict[str, Tensor]:
        """What was measured of all batches since, the study's metric first, in percent."""


class OneLabel(nn.Module):
    """A video has one class: softmax, cross-entropy, top-1 and top-5."""

    def __init__(self, num_classes: int) -> None:
        super().__init__()
        # torchmetrics averages over classes unless told otherwise; top-1 averages over videos.
        self.top1 = MulticlassAccuracy(num_classes, average="micro")
        self.top5 = MulticlassAccuracy(num_classes, average="micro", top_k=min(5, num_classes))

    def loss(self, logits: Float[Tensor, "N classes"], labels: Int[Tensor, " N"]) -> Tensor:
        return F.cross_entropy(logits, labels)

    def log_scores(self, logits: Float[Tensor, "*places classes"]) -> Float[Tensor, "*places classes"]:
        return logits.log_softmax(dim=-1)

    def trained(self, logits: Float[Tensor, "N classes"], labels: Int[Tensor, " N"]) -> dict[str, Tensor]:
        return {"top1": 100 * (logits.argmax(dim=1) == labels).float().mean()}

    def validate(self, logits: Float[Tensor, "N classes"], labels: Int[Tensor, " N"]) -> None:
        self.top1(logits, labels)
        self.top5(logits, labels)

    def validated(self) -> dict[str, Tensor]:
        found = {"top1": 100 * self.top1.compute(), "top5": 100 * self.top5.compute()}
        self.top1.reset()
        self.top5.reset()
        return found


class SeveralLabels(nn.Module):
    """A video has several classes at once: a sigmoid each (paper, Sec. 5.2, Charades), binary cross-entropy, mAP.

    The loss is the mean over classes and clips; labels are 0 and 1 for each class.
    """

    def __init__(self) -> None:
        super().__init__()
        self.logits, self.labels = CatMetric(), CatMetric()

    def loss(self, logits: Float[Tensor, "N classes"], labels: Int[Tensor, "N classes"]) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))

    def log_scores(self, logits: Float[Tensor, "*places classes"]) -> Float[Tensor, "*places classes"]:
        return F.logsigmoid(logits)

    def trained(self, logits: Float[Tensor, "N classes"], labels: Int[Tensor, "N classes"]) -> dict[str, Tensor]:
        return {}  # a batch is too small for an average precision

    def validate(self, logits: Float[Tensor, "N classes"], labels: Int[Tensor, "N classes"]) -> None:
        self.logits(logits.float())
        self.labels(labels.float())

    def validated(self) -> dict[str, Tensor]:
        logits, labels = self.logits.compute(), self.labels.compute()
        self.logits.reset()
        self.labels.reset()
        return {"mAP": torch.tensor(by_video(logits.cpu().numpy(), labels.cpu().numpy() > 0).mean())}
