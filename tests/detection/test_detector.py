"""A detector trained and tested by LightningCLI on a small generated set."""

from pathlib import Path

import numpy as np
import pytest
import pytorch_lightning as L
import yaml
from pytorch_lightning.cli import LightningCLI

from nl_lightning.detection import CocoData, Detections, Detector, Size, Tags, average_precision
from nl_lightning.errors import UserError

SMALL = {"width": 0.125, "channels": 16, "hidden": 32, "head": 8, "anchors": [8, 16, 32, 64, 128]}
FEW: dict[str, float] = {"min_size": 96, "max_size": 96, "rpn_post_nms_top_n_train": 20, "rpn_post_nms_top_n_test": 20}
FEW |= {"box_detections_per_img": 5, "box_score_thresh": 0.0, "box_batch_size_per_image": 8}


@pytest.mark.parametrize("keypoints", [False, True])
def test_fit_and_test_log_what_the_tables_have(
    keypoints: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = {"train": 4, "val": 2, "test": 4}
    model = {"num_classes": 5, "size": SMALL, "frozen_bn": False, "trainable_layers": 5, "settings": FEW}
    model |= {"backbone_block": True, "detections": str(tmp_path / "found")}
    if keypoints:
        model |= {"num_classes": 2, "num_keypoints": 3, "sigmas": [0.1] * 3, "head_blocks": True}
    config = {
        "seed_everything": 1,
        "model": model,
        "data": {"root": str(tmp_path / "data"), "tags": {**sizes, "keypoints": keypoints}, "keypoints": keypoints},
        "trainer": {"max_steps": 1, "accelerator": "cpu", "logger": False, "enable_checkpointing": False},
    }
    config["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False, "num_sanity_val_steps": 0}
    monkeypatch.setattr("sys.argv", ["fit"])
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(config))
    cli = LightningCLI(
        Detector, CocoData, run=False, save_config_callback=None, args=["--config", str(tmp_path / "config.yaml")]
    )
    cli.trainer.fit(cli.model, cli.datamodule)
    assert np.isfinite(float(cli.trainer.callback_metrics["train/loss"]))
    (tested,) = cli.trainer.test(cli.model, cli.datamodule, verbose=False)
    kinds = ["keypoint"] if keypoints else ["box", "mask"]
    assert set(tested) == {f"test/{kind}_{name}" for kind in kinds for name in ("AP", "AP50", "AP75")}
    each = cli.model.test_outcomes()
    assert len(each) == 4
    assert np.mean(list(each.values())) == pytest.approx(tested[f"test/{kinds[0]}_AP"], abs=1e-4)
    for kind in kinds:
        found = Detections.load(tmp_path / "found" / f"{kind}.npz")
        assert average_precision(found).mean() == pytest.approx(tested[f"test/{kind}_AP"], abs=1e-4)
        assert len(found.image) > 0


def test_a_network_that_does_not_fit_the_data_is_one_line(tmp_path: Path) -> None:
    spec = Tags(train=1, val=1, test=1)
    small = Size(0.125, 16, 32, 8)
    data = CocoData(str(tmp_path), tags=spec, flip=False)
    trainer = L.Trainer(accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False)
    with pytest.raises(UserError, match=r"instances_test\.json: has category 4; model\.num_classes is 4: set 5$"):
        trainer.test(Detector(num_classes=4, size=small), data)
    with pytest.raises(UserError, match=r"instances_test\.json: objects have 0 keypoints; model\.num_keypoints is 17$"):
        trainer.test(Detector(num_classes=5, num_keypoints=17, size=small), data)


def test_oks_needs_a_sigma_for_each_keypoint() -> None:
    with pytest.raises(UserError, match=r"^model\.sigmas: OKS needs one for each of the 3 keypoints$"):
        Detector(num_keypoints=3)
    with pytest.raises(UserError, match=r"^model\.sigmas: expected 3, one a keypoint, got 2$"):
        Detector(num_keypoints=3, sigmas=(0.1, 0.1))
