"""Schedule, loss, weight decay, frozen BN, view averaging and what is written of a test."""

import math
import shutil
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import pytorch_lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig
from nl_lightning.train import start
from nl_lightning.train.classifier import VideoClassifier
from nl_lightning.train.optimization import Schedule, parameter_groups
from nl_lightning.train.predictions import ViewProtocol, read_predictions, read_protocol
from nl_lightning.train.scores import (
    VideoScores,
    by_group,
    by_video,
    contributions,
    in_order,
    mean_softmax,
    measured,
    rank,
    right,
    soft_scores,
)

TINY = ResNetConfig(
    width=1 / 64, num_classes=3, temporal_strides=(1, 1, 2), spatial_strides=(2, 2, 1, 1, 1, 1), dropout=0.0
)
WITH_BLOCK = ResNetConfig(**{**vars(TINY), "non_local": NonLocalConfig({"res4": [4]})})


class Batch(NamedTuple):
    views: Tensor
    label: Tensor
    video: Tensor
    readable: Tensor
    path: list[str]


def batch(videos: list[int], views: int = 1, unreadable: tuple[int, ...] = ()) -> Batch:
    """Random clips of 4 frames of 16 x 16, the same for the same video."""
    clips = [
        torch.randint(0, 256, (views, 3, 4, 16, 16), generator=torch.Generator().manual_seed(v), dtype=torch.uint8)
        for v in videos
    ]
    return Batch(
        torch.stack(clips),
        torch.tensor([v % 3 for v in videos]),
        torch.tensor(videos),
        torch.tensor([v not in unreadable for v in videos]),
        [f"v{v}.mp4" for v in videos],
    )


def scored(path: str, label: int, scores: list[float]) -> VideoScores:
    return VideoScores(path, label, np.array(scores))


def loader(*batches: Batch) -> DataLoader[Batch]:
    return DataLoader(list(batches), batch_size=None)  # type: ignore[arg-type]


def trainer(tmp_path: Path, **kwargs: object) -> L.Trainer:
    return L.Trainer(
        accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path, **kwargs,  # type: ignore[arg-type]
    )  # fmt: skip


def test_steps_are_the_papers() -> None:
    factors = [Schedule().factor(i, 400_000) for i in (0, 149_999, 150_000, 299_999, 300_000, 399_999)]
    assert factors == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])


def test_cosine_after_a_linear_warmup() -> None:
    schedule = Schedule("cosine", warmup=0.1)
    factors = [schedule.factor(i, 100) for i in range(101)]
    assert factors[:10] == pytest.approx([(i + 1) / 11 for i in range(10)])
    assert factors[10] == 1
    assert factors[55] == pytest.approx(0.5 * (1 + math.cos(math.pi / 2)))
    assert factors[100] == pytest.approx(0, abs=1e-12)
    assert max(factors) == 1


def test_topk_counts_ties_nans_and_unreadable_videos_as_wrong() -> None:
    videos = [
        scored("right", 2, [0.1, 0.2, 0.7]),
        scored("second", 1, [0.1, 0.2, 0.7]),
        scored("tie", 0, [0.5, 0.5, 0.0]),
        scored("nan", 0, [math.nan] * 3),
        scored("beside a nan", 1, [math.nan, 0.3, 0.2]),  # which counts as higher
        VideoScores("unreadable", 0, None),
    ]
    assert [sum(right(videos, k)) for k in (1, 2, 3)] == [1, 4, 4]
    assert measured(videos, None) == {"top1": pytest.approx(100 / 6), "top5": pytest.approx(400 / 6)}
    assert measured([], None) == {"top1": 0, "top5": 0}


def test_log_probabilities_of_the_views_however_many_at_a_time() -> None:
    torch.manual_seed(0)
    model = VideoClassifier(TINY, views_per_forward=3).eval()
    views = batch([0, 1], views=5).views
    with torch.no_grad():
        expected = torch.stack([model(video).log_softmax(dim=1) for video in views])
        torch.testing.assert_close(model.log_probabilities(views), expected)


def test_a_window_gives_the_mean_softmax_of_its_places() -> None:
    """Sec. 4, inference: fully convolutional. A window of all of res5 is the plain test."""
    torch.manual_seed(0)
    plain, sliding = VideoClassifier(TINY).eval(), VideoClassifier(TINY, test_pool=3).eval()
    sliding.load_state_dict(plain.state_dict())
    views = batch([0, 1], views=2).views  # res5 is 4 x 4
    with torch.no_grad():
        clips = (views.flatten(0, 1).float() - plain.mean) / plain.std
        features = plain.net.features(clips)
        places = [
            features[..., top : top + 3, left : left + 3].mean(dim=(2, 3, 4)) for top in (0, 1) for left in (0, 1)
        ]
        expected = torch.stack([plain.net.fc(place).softmax(dim=1) for place in places]).mean(dim=0).log()
        torch.testing.assert_close(sliding.log_probabilities(views).flatten(0, 1), expected)
        sliding.test_pool = 4
        torch.testing.assert_close(sliding.log_probabilities(views), plain.log_probabilities(views))


@pytest.mark.parametrize(("mean", "std"), [(100, 50), ((1.0, 2.0, 3.0), (4.0, 5.0, 6.0))])
def test_input_is_normalised_in_units_of_0_to_255(mean: Any, std: Any) -> None:
    """By one number, or by one of each colour."""
    model = VideoClassifier(TINY, mean=mean, std=std).eval()
    clip = batch([0]).views[:, 0]
    mean, std = (torch.tensor(values).expand(3).view(3, 1, 1, 1) for values in (mean, std))
    with torch.no_grad():
        torch.testing.assert_close(model(clip), model.net((clip.float() - mean) / std))


@pytest.mark.parametrize(
    ("decay_bn", "decay_one_dimensional", "spared"),
    [(True, True, set()), (False, True, {"bn"}), (False, False, {"bn", "bias"}), (True, False, {"bias"})],
)
def test_weight_decay_acts_where_it_is_asked_to(decay_bn: bool, decay_one_dimensional: bool, spared: set[str]) -> None:
    config = ResNetConfig(**{**vars(WITH_BLOCK), "conventions": Conventions(decay_bn=decay_bn)})
    model = VideoClassifier(config)
    groups = parameter_groups(model.net, decay_one_dimensional)
    assert "weight_decay" not in groups[0]
    assert groups[1]["weight_decay"] == 0
    norms = [m for m in model.net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    of_norms = {id(p) for m in norms for p in m.parameters()}
    expected = {
        id(p) for p in model.net.parameters()
        if ("bn" in spared and id(p) in of_norms) or ("bias" in spared and p.ndim == 1 and id(p) not in of_norms)
    }  # fmt: skip
    assert {id(p) for p in groups[1]["params"]} == expected
    assert len(groups[0]["params"]) + len(groups[1]["params"]) == len(list(model.net.parameters()))


def test_frozen_bn_stays_as_it_is_through_training(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model = VideoClassifier(WITH_BLOCK, freeze_bn=True)
    frozen = {k: v.clone() for k, v in model.net.state_dict().items() if "bn" in k or "downsample.1" in k}
    weight = model.net.conv1.weight.clone()
    trainer(tmp_path, max_epochs=3).fit(model, loader(batch([0, 1, 2])))
    after = model.net.state_dict()
    assert all(torch.equal(after[k], v) for k, v in frozen.items())
    assert not torch.equal(after["conv1.weight"], weight)
    assert sum("running_mean" in k for k in frozen) == 54  # 53 convolutions, and the block's


def test_training_leaves_out_what_is_unreadable(tmp_path: Path) -> None:
    """An unreadable video changes nothing; a batch of nothing else is skipped."""
    after = []
    for extra in ([], [9]):
        torch.manual_seed(0)
        model = VideoClassifier(TINY)
        only_bad = [batch([9], unreadable=(9,))] if extra else []
        trainer(tmp_path, max_epochs=1).fit(model, loader(batch([0, 1, 2, *extra], unreadable=(9,)), *only_bad))
        after.append(model.net.state_dict())
    for key, value in after[0].items():
        torch.testing.assert_close(value, after[1][key])


def test_testing_counts_every_video_once_and_writes_one_line_each(tmp_path: Path) -> None:
    torch.manual_seed(0)
    path = tmp_path / "deep" / "predictions.parquet"
    model = VideoClassifier(TINY, predictions=str(path))
    # Video 1 comes twice, as a distributed sampler that fills up the last batch would have it.
    metrics = trainer(tmp_path).test(
        model, loader(batch([0, 1], views=2), batch([4, 1], views=2, unreadable=(4,))), verbose=False
    )[0]
    assert [p.name for p in path.parent.iterdir()] == ["predictions.parquet"]
    videos = list(read_predictions(path))
    assert [v.video for v in videos] == ["v0.mp4", "v1.mp4", "v4.mp4"]
    assert [v.label for v in videos] == [0, 1, 1]
    assert videos[2].views is None
    with torch.no_grad():
        expected = model.eval().log_probabilities(batch([0, 1], views=2).views)
    for views, logs in zip(videos[:2], expected, strict=True):
        assert views.views is not None
        np.testing.assert_allclose(views.views, logs, rtol=2**-10, atol=2**-14)
    ranked = [v.views is not None and rank(mean_softmax(v.views), v.label) == 1 for v in videos]
    assert metrics["test/top1"] == pytest.approx(100 * sum(ranked) / 3)
    assert right(in_order(model.tested), 1) == ranked
    assert read_protocol(path) == ViewProtocol(2, 1, 3, {"test_pool": None, "precise_bn": 0})


def test_a_video_with_several_classes_has_a_sigmoid_each(tmp_path: Path) -> None:
    """An unreadable one scores 0 in every class; mAP is of what is written."""
    torch.manual_seed(0)
    path = tmp_path / "predictions.parquet"
    model = VideoClassifier(TINY, multi_label=True, predictions=str(path))
    hot = torch.tensor([[1, 0, 1], [0, 1, 0]], dtype=torch.uint8)
    metrics = trainer(tmp_path).test(
        model,
        loader(
            batch([0, 1], views=2)._replace(label=hot), batch([2, 3], views=2, unreadable=(3,))._replace(label=1 - hot)
        ),
        verbose=False,
    )[0]
    videos = list(read_predictions(path))
    assert [v.label for v in videos] == [(0, 2), (1,), (1,), (0, 2)]
    with torch.no_grad():
        first = model.eval()(batch([0], views=2).views[0]).sigmoid().mean(dim=0)
    scores = [np.zeros(3) if v.views is None else mean_softmax(v.views) for v in videos]
    np.testing.assert_allclose(scores[0], first, rtol=1e-2)
    labels = torch.cat([hot, 1 - hot]).numpy().astype(bool)
    assert metrics == {"test/mAP": pytest.approx(by_video(np.array(scores), labels).mean())}
    assert contributions(in_order(model.tested), 3).mean() == pytest.approx(metrics["test/mAP"])


def test_accuracy_and_soft_score_by_group() -> None:
    videos = [scored("a", 0, [0.7, 0.3, 0]), scored("b", 1, [0.9, 0.1, 0]), scored("c", 2, [0, 0, 1.0])]
    soft = soft_scores([*videos, VideoScores("d", 1, None)])
    assert soft == pytest.approx([70, 10, 100, 0])
    assert by_group([100 * one for one in right(videos, 1)], ["x", "x", "y"]) == {"x": 50, "y": 100}
    assert by_group(soft, ["y", "x", "x", "x"]) == {"y": 70, "x": pytest.approx(110 / 3, abs=1e-4)}
    assert by_group([], []) == {}


def test_longer_clips_start_from_the_weights_of_shorter_ones(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    torch.manual_seed(0)
    short = VideoClassifier(TINY)
    fitted = trainer(tmp_path, max_epochs=1)
    fitted.fit(short, loader(batch([0, 1, 2])))
    fitted.save_checkpoint(tmp_path / "short.ckpt")
    long = VideoClassifier(TINY)
    start.init_from(long.net, tmp_path / "short.ckpt")
    assert all(torch.equal(v, long.net.state_dict()[k]) for k, v in short.net.state_dict().items())

    with pytest.raises(UserError, match="no checkpoint at .*nowhere.ckpt"):
        start.init_from(long.net, tmp_path / "nowhere.ckpt")
    (tmp_path / "broken.ckpt").write_bytes(b"nothing of the kind")
    with pytest.raises(UserError, match="broken.ckpt"):
        start.init_from(long.net, tmp_path / "broken.ckpt")
    gone = {f"net.{name}": tensor * math.nan for name, tensor in short.net.state_dict().items()}
    torch.save({"state_dict": gone}, tmp_path / "gone.ckpt")
    with pytest.raises(UserError, match="gone.ckpt: not a number, or infinite, in [0-9]+ tensors: conv1"):
        start.init_from(long.net, tmp_path / "gone.ckpt")
    with pytest.raises(UserError, match="res4.non_local"):
        start.init_from(VideoClassifier(WITH_BLOCK).net, tmp_path / "short.ckpt")
    capsys.readouterr()
    new = VideoClassifier(WITH_BLOCK, init_from=str(tmp_path / "short.ckpt"), init_new=("non_local",))
    trainer(tmp_path, max_epochs=0).fit(new, loader(batch([0, 1, 2])))
    said = [line for line in capsys.readouterr().err.splitlines() if "init_from" in line]
    assert said == [f"nl-lightning: init_from: {tmp_path}/short.ckpt lacks res4.non_local.4: new, as initialised"]
    with pytest.raises(UserError, match="model.init_new: a network has no part 'nonlocal'; did you mean 'non_local'"):
        VideoClassifier(TINY, init_new=("nonlocal",))


def test_a_recipe_names_start_weights_for_each_of_its_networks(tmp_path: Path) -> None:
    for net, name in ((TINY, "r50_nl0"), (WITH_BLOCK, "r50_nl1")):
        model = VideoClassifier(net, init_from=str(tmp_path / "r{depth}_nl{blocks}.ckpt"))
        with pytest.raises(UserError, match=f"no checkpoint at .*{name}.ckpt"):
            model.setup("fit")


def small_data(root: Path) -> VideoDataModule:
    """Batches of 8 clips of 4 frames of 32 x 32."""
    lists: dict[str, Any] = {f"{split}_list": f"{split}.txt" for split in ("train", "val", "test")}
    sizes: dict[str, Any] = {"short_side": (36, 36), "crop": 32, "test_short_side": 36, "test_crop": 32}
    return VideoDataModule(
        str(root), **lists, **sizes, num_frames=4, num_clips=1, num_crops=1, batch_size=8, test_batch_size=11
    )


def test_the_learning_rate_follows_the_batch(tmp_path: Path, small_videos: Path) -> None:
    """Two accumulated batches of 8 clips are a quarter of the paper's 64."""
    net = ResNetConfig(**{**vars(TINY), "num_classes": 11})
    for lr_batch, expected in ((None, 0.01), (64, 0.0025)):
        model = VideoClassifier(net, schedule=Schedule(milestones=()), lr_batch=lr_batch)
        run = trainer(tmp_path, max_steps=1, accumulate_grad_batches=2, limit_val_batches=0)
        run.fit(model, datamodule=small_data(small_videos))
        assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(expected)


def test_statistics_are_estimated_anew_before_testing(tmp_path: Path, small_videos: Path) -> None:
    """On training batches, and only where it is asked for; the test says so in what it writes."""
    root = shutil.copytree(small_videos, tmp_path / "videos")
    net = ResNetConfig(**{**vars(TINY), "num_classes": 11})
    data = small_data(root)
    for batches in (0, 2):
        path = tmp_path / f"{batches}.parquet"
        model = VideoClassifier(net, precise_bn=batches, predictions=str(path))
        trainer(tmp_path).test(model, datamodule=data, verbose=False)
        assert bool(model.net.bn1.running_mean.any()) == bool(batches)  # type: ignore[operator, union-attr]
        assert read_protocol(path).words["precise_bn"] == batches
    with pytest.raises(UserError, match="precise_bn estimates the statistics anew that freeze_bn keeps"):
        VideoClassifier(TINY, precise_bn=2, freeze_bn=True)


@pytest.mark.parametrize("stage", ["validation", "test"])
def test_all_processes_measure_by_the_first_ones_statistics(monkeypatch: pytest.MonkeyPatch, stage: str) -> None:
    """BN's follow each process's own clips, and a checkpoint has the first's: a run that goes on would differ."""
    first, second = VideoClassifier(TINY), VideoClassifier(TINY)
    second.load_state_dict(first.state_dict())
    for value in first.net.buffers():
        value.copy_(torch.rand(value.shape) + 0.5)
    theirs = iter(list(first.net.buffers()))
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "broadcast", lambda value, src: value.copy_(next(theirs)))
    getattr(second, f"on_{stage}_start")()
    first.copy_for_testing()
    clips = torch.randn(1, 3, 4, 16, 16)
    with torch.inference_mode():
        outputs = [model.eval()._net(clips) for model in (first, second)]
    assert torch.equal(*outputs)
