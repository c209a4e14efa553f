"""What a network learns from the labels of a video: one class of many, or several at once.

:class:`~nl_lightning.train.classifier.VideoClassifier` trains and validates by one of these two. A batch of logits is
(N, classes). A logit that is not a finite number makes every metric of its batches NaN: such a network has no accuracy.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor
from torchmetrics import Metric, MetricCollection
from torchmetrics.utilities import dim_zero_cat

from nl_lightning.train.scores import by_video


class TopK(Metric):
    """Percent of clips whose class is among the k highest logits."""

    right: Tensor
    clips: Tensor

    def __init__(self, k: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.k = k
        self.add_state("right", torch.tensor(0.0), dist_reduce_fx="sum")
        self.add_state("clips", torch.tensor(0.0), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.right += right_in_topk(logits, labels, self.k).sum()
        self.clips += len(labels)

    def compute(self) -> Tensor:
        return 100 * self.right / self.clips


class MeanAveragePrecision(Metric):
    """mAP in percent, see :mod:`~nl_lightning.train.scores`."""

    logits: list[Tensor]
    labels: list[Tensor]

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.add_state("logits", [], dist_reduce_fx="cat")
        self.add_state("labels", [], dist_reduce_fx="cat")

    def update(self, logits: Tensor, labels: Tensor) -> None:
        self.logits.append(logits.float())
        self.labels.append(labels.float())

    def compute(self) -> Tensor:
        logits, labels = (dim_zero_cat(part).cpu().numpy() for part in (self.logits, self.labels))
        mean = torch.tensor(by_video(logits, labels > 0).mean())
        return mean if torch.from_numpy(logits).isfinite().all() else mean * torch.nan


def right_in_topk(logits: Float[Tensor, "N classes"], labels: Int[Tensor, " N"], k: int) -> Float[Tensor, " N"]:
    """1 for a clip whose class is among the k highest logits, 0 for another, NaN where a logit isn't finite."""
    best = logits.topk(min(k, logits.shape[1])).indices
    right = (best == labels[:, None]).any(dim=1).float()
    return torch.where(logits.isfinite().all(dim=1), right, torch.nan)


# Both have the loss of clips, and the logarithms of their scores, which are from 0 to 1. `metrics` is what validation
# measures, the study's metric first, and `of_batch` what is measured of a training batch; both are in percent.


class OneLabel:
    """A video has one class: softmax, cross-entropy, top-1 and top-5."""

    def loss(self, logits: Float[Tensor, "N classes"], labels: Int[Tensor, " N"]) -> Tensor:
        return F.cross_entropy(logits, labels)

    def log_scores(self, logits: Float[Tensor, "*places classes"]) -> Float[Tensor, "*places classes"]:
        return logits.log_softmax(dim=-1)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"top1": TopK(1), "top5": TopK(5)}, compute_groups=False)

    def of_batch(self, logits: Float[Tensor, "N classes"], labels: Int[Tensor, " N"]) -> dict[str, Tensor]:
        return {"top1": 100 * right_in_topk(logits, labels, 1).mean()}


class SeveralLabels:
    """A video has several classes at once: a sigmoid each (paper, Sec. 5.2, Charades), binary cross-entropy, mAP.

    The loss is the mean over classes and clips; labels are 0 and 1 for each class.
    """

    def loss(self, logits: Float[Tensor, "N classes"], labels: Int[Tensor, "N classes"]) -> Tensor:
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))

    def log_scores(self, logits: Float[Tensor, "*places classes"]) -> Float[Tensor, "*places classes"]:
        return F.logsigmoid(logits)

    def metrics(self) -> MetricCollection:
        return MetricCollection({"mAP": MeanAveragePrecision()})

    def of_batch(self, logits: Float[Tensor, "N classes"], labels: Int[Tensor, "N classes"]) -> dict[str, Tensor]:
        return {}  # a batch is too small for an average precision
