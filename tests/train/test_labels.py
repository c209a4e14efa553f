"""What a network learns from one label a video, and from several."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from nl_lightning.train.average_precision import by_video
from nl_lightning.train.labels import OneLabel, SeveralLabels

LOGITS = torch.tensor([[2.0, -1.0, 0.5], [0.1, 0.2, -3.0], [1.0, 4.0, 0.0]])


def test_one_label_is_a_softmax() -> None:
    objective, labels = OneLabel(3), torch.tensor([0, 0, 1])
    scores = LOGITS.softmax(dim=1)
    assert float(objective.loss(LOGITS, labels)) == pytest.approx(-float(scores[range(3), labels].log().mean()))
    torch.testing.assert_close(objective.log_scores(LOGITS).exp(), scores)
    assert float(objective.trained(LOGITS, labels)["top1"]) == pytest.approx(200 / 3)


def test_several_labels_are_a_sigmoid_each() -> None:
    """The loss, by its definition: the mean over classes and clips of -log of what is right."""
    objective, labels = SeveralLabels(), torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 0]], dtype=torch.uint8)
    scores = 1 / (1 + torch.exp(-LOGITS))
    expected = -torch.where(labels == 1, scores, 1 - scores).log().mean()
    torch.testing.assert_close(objective.loss(LOGITS, labels), expected)
    torch.testing.assert_close(objective.log_scores(LOGITS).exp(), scores)
    assert objective.log_scores(torch.tensor([-100.0, 100.0])).tolist() == pytest.approx([-100.0, 0.0])
    assert objective.trained(LOGITS, labels) == {}


def test_validation_is_over_all_batches_since_the_last() -> None:
    logits, labels = torch.randn(12, 3, generator=torch.Generator().manual_seed(0)), torch.eye(3).repeat(4, 1).byte()
    several, one = SeveralLabels(), OneLabel(3)
    for _ in range(2):  # nothing is left over from the first time
        for start in (0, 4, 8):
            several.validate(logits[start : start + 4], labels[start : start + 4])
            one.validate(logits[start : start + 4], labels[start : start + 4].argmax(dim=1))
        found = several.validated(), one.validated()
        expected = by_video(F.sigmoid(logits).numpy(), labels.numpy().astype(bool)).mean()
        assert {name: float(value) for name, value in found[0].items()} == {"mAP": pytest.approx(float(expected))}
        right = float((logits.argmax(dim=1) == labels.argmax(dim=1)).float().mean())
        assert {name: float(value) for name, value in found[1].items()} == {
            "top1": pytest.approx(100 * right),
            "top5": 100,
        }


def test_no_state_of_validation_is_part_of_a_checkpoint() -> None:
    several = SeveralLabels()
    several.validate(LOGITS, torch.ones(3, 3))
    assert not several.state_dict()
    assert not OneLabel(3).state_dict()
    assert np.isfinite(float(several.validated()["mAP"]))
