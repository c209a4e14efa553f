"""Files of ours and of others -> weight files."""

from pathlib import Path

import lightning as L
import pytest
import torch

from nl_lightning.classifier import VideoClassifier
from nl_lightning.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig
from nl_lightning.models.weights.file import differences, load_weights
from nl_lightning.models.weights.importing import import_weights

SMALL = ResNetConfig(
    non_local=NonLocalConfig({"res4": [4]}), num_classes=3, width=1 / 64, conventions=Conventions(scale=True)
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A training checkpoint of ours."""
    torch.manual_seed(0)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_progress_bar=False, default_root_dir=tmp_path)
    model = VideoClassifier(SMALL, mean=80, std=60)
    model.trainer = trainer
    trainer.strategy.connect(model)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    return tmp_path / "last.ckpt"


def test_a_checkpoint_of_ours_says_what_it_is(checkpoint: Path, tmp_path: Path) -> None:
    import_weights(checkpoint, tmp_path / "w.safetensors")
    net, header = load_weights(tmp_path / "w.safetensors")
    assert differences(header.net, SMALL) == []
    assert header.input.mean == (80, 80, 80)
    state = torch.load(checkpoint, weights_only=True)["state_dict"]
    assert all(torch.equal(tensor, state[f"net.{name}"]) for name, tensor in net.state_dict().items())
