"""What a network learns from one label a video, and from several."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torchmetrics.classification import MulticlassAccuracy

from nl_lightning.train.objectives import OneLabel, SeveralLabels
from nl_lightning.train.scores import by_video

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0], [1.0, 4.0, 0.0]])


def test_one_label_is_a_softmax() -> None:
    objective, labels = OneLabel(), torch.tensor([0, 0, 1])
    scores = LOGITS.softmax(dim=1)
    assert float(objective.loss(LOGITS, labels)) == pytest.approx(-float(scores[range(3), labels].log().mean()))
    torch.testing.assert_close(objective.log_scores(LOGITS).exp(), scores)
    assert float(objective.of_batch(LOGITS, labels)["top1"]) == pytest.approx(200 / 3)


def test_several_labels_are_a_sigmoid_each() -> None:
    """The loss, by its definition: the mean over classes and clips of -log of what is right."""
    objective, labels = SeveralLabels(), torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0]], dtype=torch.uint8)
    scores = 1 / (1 + torch.exp(-LOGITS))
    expected = -torch.where(labels == 1, scores, 1 - scores).log().mean()
    torch.testing.assert_close(objective.loss(LOGITS, labels), expected)
    torch.testing.assert_close(objective.log_scores(LOGITS).exp(), scores)
    assert objective.log_scores(torch.tensor([-100.0, 100.0])).tolist() == pytest.approx([-100.0, 0.0])
    assert objective.of_batch(LOGITS, labels) == {}


def test_validation_is_over_all_batches_since_the_last() -> None:
    logits, labels = torch.randn(12, 7, generator=torch.Generator().manual_seed(0)), torch.eye(7).repeat(2, 1)[:12]
    several, one = SeveralLabels().metrics(), OneLabel().metrics()
    peers = [MulticlassAccuracy(7, average="micro", top_k=k) for k in (1, 5)]
    for _ in range(2):  # nothing is left over from the first time
        for start in (0, 4, 8):
            part = logits[start : start + 4], labels[start : start + 4]
            several.update(part[0], part[1].byte())
            one.update(part[0], part[1].argmax(dim=1))
            for peer in peers:
                peer.update(part[0], part[1].argmax(dim=1))
        expected = by_video(F.sigmoid(logits).numpy(), labels.numpy().astype(bool)).mean()
        assert {name: float(value) for name, value in several.compute().items()} == {
            "mAP": pytest.approx(float(expected))
        }
        assert {name: float(value) for name, value in one.compute().items()} == {
            f"top{k}": pytest.approx(100 * float(peer.compute())) for k, peer in zip((1, 5), peers, strict=True)
        }
        for metric in (several, one, *peers):
            metric.reset()


def test_top5_of_three_classes_is_all() -> None:
    one = OneLabel().metrics()
    one.update(LOGITS, torch.tensor([1, 2, 2]))
    assert {name: float(value) for name, value in one.compute().items()} == {"top1": 0, "top5": 100}


@pytest.mark.parametrize("broken", [torch.nan, torch.inf, -torch.inf])
def test_a_network_whose_logits_are_not_finite_has_no_accuracy(broken: float) -> None:
    """NaN in, NaN out: argmax would take a class for the best."""
    logits = LOGITS.clone()
    logits[1, 0] = broken
    one, several = OneLabel().metrics(), SeveralLabels().metrics()
    one.update(LOGITS, torch.tensor([0, 0, 1]))
    one.update(logits, torch.tensor([0, 0, 1]))
    several.update(logits, torch.ones(3, 3))
    assert all(math.isnan(value) for value in {**one.compute(), **several.compute()}.values())
    assert math.isnan(OneLabel().of_batch(logits, torch.tensor([0, 0, 1]))["top1"])


def test_no_state_of_validation_is_part_of_a_checkpoint() -> None:
    for objective, labels in ((SeveralLabels(), torch.ones(3, 3)), (OneLabel(), torch.tensor([0, 0, 1]))):
        metrics = objective.metrics()
        metrics.update(LOGITS, labels)
        assert not metrics.state_dict()
        assert all(np.isfinite(float(value)) for value in metrics.compute().values())
