"""VideoClassifier: how a network of Table 2 is trained and tested (paper, Sec. 4.1 and 5).

Training minimises the cross-entropy of one clip a video, over classes or, where a video has several, of each class
(:mod:`~nl_lightning.train.objectives`). Testing averages the scores of all views of a video. ``val/top1`` (one clip)
and ``test/top1`` (all views of a video) are different quantities and never mixed.
"""

import math
from collections import Counter
from pathlib import Path
from typing import Any

import pytorch_lightning as L
import torch
from jaxtyping import Float
from pytorch_lightning.cli import OptimizerCallable
from pytorch_lightning.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torchmetrics import MeanMetric

from nl_lightning.errors import UserError, say
from nl_lightning.models.conventions import Kernels
from nl_lightning.models.fast import channels_last, for_testing, use_kernels
from nl_lightning.models.initial import Init, network
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.train import start
from nl_lightning.train.objectives import OneLabel, SeveralLabels
from nl_lightning.train.optimization import Schedule, in_range, norms, optimize, paper_sgd, parameter_groups
from nl_lightning.train.precise_bn import ends, estimate_statistics, training_clips
from nl_lightning.train.predictions import PartWriter, VideoViews, ViewProtocol, merge, part_of, refuse_other, stored
from nl_lightning.train.scores import VideoScores, in_order, mean_softmax, measured, not_finite
from nl_lightning.train.together import from_all
from nl_lightning.weights import file as weight_file
from nl_lightning.weights.file import HEADER, Colour, InputSettings, WeightsHeader

TRAINED, STATE = "trained", "classifier"
"""Keys of a checkpoint: what the means of its epoch are made of so far, by process; what else the classifier keeps."""


class VideoClassifier(L.LightningModule):
    """Train and test one network.

    Args:
        net: the network.
        multi_label: videos have several classes at once (Charades), not one.
        optimizer: any optimiser of torch, made from parameter groups.
        schedule: how the learning rate changes.
        lr_batch: clips of an iteration, over all processes and accumulated batches, that the optimiser's learning rate
            is for; it is scaled in proportion (paper: 0.01 for 64, 0.0025 for 16). None: as it is.
        mean: taken from each pixel of 0 to 255: one number (the released code's), or one each for red, green and blue.
        std: what the rest is divided by, likewise.
        freeze_bn: keep all BN as it is, statistics and scales (paper, 128-frame networks).
        decay_one_dimensional: whether weight decay acts on biases and `w_f`. (On BN it is a convention.)
        init: how new weights are drawn: ``in_order``, from one stream, or ``by_name``, each tensor from the seed and
            its name, so that two networks of one seed share what they can (:mod:`~nl_lightning.models.initial`).
        imagenet: a file of torchvision's ImageNet weights to inflate (Sec. 4).
        init_from: what training starts from: a checkpoint of the same network on shorter clips (paper, 128 frames), or
            a weight file. Here and in `imagenet`, ``{depth}`` stands for the network's depth, ``{blocks}`` for how many
            non-local blocks it has.
        init_new: parts of the network that stay as they are initialised where `init_from` lacks them. ``[non_local]``
            starts a network with blocks from one without.
        loaded_lr: what the learning rate is multiplied by for weights that `imagenet` or `init_from` gave.
        weights: a weight file that holds this network, to test; ``nl-lightning test --weights`` sets it.
        test_pool: side of the window that testing slides over res5, for a softmax at every place and their mean: the
            side of res5 in training (7 in the paper, which tests fully convolutionally); none for one global pool.
        precise_bn: training batches on which the statistics of BN are estimated anew before testing (released code:
            200); 0: test with those that training left.
        views_per_forward: how many views of the test batch go through the network at a time.
        recompute: compute activations again for the backward pass: a third more work, memory of a few residual blocks.
        compile: let torch.compile make kernels; it starts slowly and needs a C++ compiler.
        kernels: ``fast``, or ``definition``: as the paper writes it, slower; the same numbers but for the last bits.
        predictions: where testing writes its table of videos (Parquet), or nowhere.
    """

    def __init__(
        self,
        net: ResNetConfig = ResNetConfig(),  # noqa: B008 - frozen
        multi_label: bool = False,
        optimizer: OptimizerCallable = paper_sgd,
        schedule: Schedule = Schedule(),  # noqa: B008 - frozen
        lr_batch: int | None = None,
        mean: float | Colour = 114.75,
        std: float | Colour = 57.375,
        freeze_bn: bool = False,
        decay_one_dimensional: bool = True,
        init: Init = "in_order",
        imagenet: str | None = None,
        init_from: str | None = None,
        init_new: tuple[str, ...] = (),
        loaded_lr: float = 1.0,
        weights: str | None = None,
        test_pool: int | None = None,
        precise_bn: int = 0,
        views_per_forward: int = 30,
        recompute: bool = False,
        compile: bool = False,
        kernels: Kernels = "fast",
        predictions: str | None = None,
    ) -> None:
        super().__init__()
        counts = {"lr_batch": lr_batch, "test_pool": test_pool, "views_per_forward": views_per_forward}
        for name, count in {**counts, "precise_bn": precise_bn or None}.items():
            in_range(f"model.{name}", count, 1, 2**31 - 1)
        in_range("model.net.width", net.width, 0, 16)
        in_range("model.net.num_classes", net.num_classes, 1, 1_000_000)
        in_range("model.net.min_channels", net.min_channels, 1, 4096)
        in_range("model.loaded_lr", loaded_lr, 0, 1e6)
        for name, values, least in (("mean", mean, -1e6), ("std", std, 1e-6)):
            for value in _colours(values):
                in_range(f"model.{name}", value, least, 1e6)
        if precise_bn and freeze_bn:
            raise UserError("precise_bn estimates the statistics anew that freeze_bn keeps: give one of them")
        self.multi_label = multi_label
        self.optimizer, self.schedule, self.lr_batch = optimizer, schedule, lr_batch
        self.mean, self.std, self.freeze_bn, self.decay_one_dimensional = mean, std, freeze_bn, decay_one_dimensional
        self.imagenet, self.init_from, self.init_new, self.weights = imagenet, init_from, init_new, weights
        self.loaded_lr, self.loaded = loaded_lr, frozenset[str]()
        self.test_pool, self.precise_bn = test_pool, precise_bn
        self.views_per_forward, self.predictions = views_per_forward, predictions
        self.configure_models(network(net, init), recompute, compile, kernels)
        self.objective: OneLabel | SeveralLabels = SeveralLabels() if multi_label else OneLabel()
        self.configure_metrics()
        self.train()  # nobody calls it before the first iteration

    def configure_models(self, net: VideoResNet, recompute: bool, compile: bool, kernels: Kernels) -> None:
        self.net = use_kernels(net, kernels)
        self.net.recompute(recompute)
        weight_file.check_parts(self.net, self.init_new, "model.init_new")
        self.compiled, self.kernels = compile, kernels
        self.as_tested: tuple[VideoResNet, ...] = ()  # no module of ours: its tensors are in no checkpoint
        if self.freeze_bn:
            for norm in norms(self.net):
                norm.requires_grad_(False)

    def configure_metrics(self) -> None:
        self.val_loss = MeanMetric(nan_strategy="disable")  # the others would leave out what is to be seen
        self.val_metrics = self.objective.metrics().clone(prefix="val/")
        self.trained: dict[str, Tensor | float] = {}  # sums over the epoch so far, in this process
        self.tested: dict[int, VideoScores] = {}  # by the place in the test list
        self.statistics_estimated = False  # of BN, on `precise_bn` batches, for the weights as they are
        self.broken_since: Tensor | float = math.inf  # the first step whose loss was no finite number
        self.diverged = ""  # what testing found to be no finite number, in one line

    # ------------------------------------------------------------------------------------------ weights and checkpoints

    def setup(self, stage: str) -> None:
        """Load start weights before training (a resumed run overwrites them from its own checkpoint)."""
        if self.compiled:
            self.net.compile()
        if self.weights is not None:
            start.load_tested_weights(self.net, Path(self.weights), stage, self._classes(stage))
            self.statistics_estimated = True  # they are the file's
        if stage == "fit":
            speaks, classes = getattr(self._trainer, "is_global_zero", True), self._classes(stage)
            self.loaded = start.load(self.net, self.imagenet, self.init_from, self.init_new, classes, speaks)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """UserError if a checkpoint is of another network, or of other classes than the data."""
        shapes = [{k: v.shape for k, v in state.items()} for state in (self.state_dict(), checkpoint["state_dict"])]
        differ = sorted(k for k in shapes[0].keys() | shapes[1].keys() if shapes[0].get(k) != shapes[1].get(k))
        if differ:
            raise UserError(f"ckpt_path: the checkpoint is of another network: {len(differ)} tensors, as {differ[0]}")
        classes = self._classes("fit" if self.trainer.state.fn == "fit" else "test")
        weight_file.check_classes(weight_file.classes_in(checkpoint, "ckpt_path"), classes, "ckpt_path")
        trained = checkpoint.get(TRAINED, [{}])
        self.trained = trained[self.global_rank % len(trained)]
        said = checkpoint.get(STATE, {})
        self.statistics_estimated = said.get("statistics_estimated", False)
        self.broken_since = said.get("broken_since", math.inf)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what network it is, so that a weight file can be made of it, and what the epoch's means are made of."""
        checkpoint[TRAINED] = from_all(self.sums())
        since = min(map(float, from_all(float(self.broken_since))))
        checkpoint[STATE] = {"statistics_estimated": self.statistics_estimated, "broken_since": since}
        data = self._data
        clip: dict[str, Any] = {"num_frames": 32, "frame_stride": 2} if data is None else data.test_settings()
        clip |= {"test_pool": self.test_pool, "multi_label": self.multi_label}
        settings = InputSettings(mean=_colours(self.mean), std=_colours(self.std), **clip)
        header = WeightsHeader(self.net.config, settings, "nl-lightning", "", classes=self._classes("fit"))
        checkpoint[HEADER] = header.to_json()

    @property
    def _data(self) -> Any:
        """The trainer's data module; None where batches come from elsewhere."""
        return getattr(self._trainer, "datamodule", None)

    def _classes(self, stage: str) -> tuple[str, ...]:
        """Names of the classes that the data of a stage have, or nothing."""
        found = () if self._data is None else self._data.videos("train" if stage == "fit" else "val").classes
        return found

    # --------------------------------------------------------------------------------------------------------- training

    def train(self, mode: bool = True) -> "VideoClassifier":
        super().train(mode)
        if self.freeze_bn:
            for norm in norms(self.net):
                norm.eval()
        return self

    def forward(self, clips: Tensor) -> Float[Tensor, "N classes"]:
        """Logits of uint8 clips (N, 3, T, H, W)."""
        return self._net(self._normalised(clips))  # type: ignore[no-any-return]

    @property
    def _net(self) -> VideoResNet:
        """The network, or its copy with BN folded in where one has been made and there is nothing to learn."""
        return self.as_tested[0] if self.as_tested and not self.training else self.net

    def share_statistics(self) -> None:
        """Give the first process's statistics of BN to all: each follows its own clips, a checkpoint has those."""
        if torch.distributed.is_initialized():
            for statistics in self.net.buffers():
                torch.distributed.broadcast(statistics, src=0)

    def copy_for_testing(self) -> None:
        """Test by a copy of the network as it is now, which is faster, until `as_tested` is empty again."""
        self.as_tested = () if self.compiled or self.kernels == "definition" else (for_testing(self.net),)

    def _normalised(self, clips: Tensor) -> Tensor:
        mean, std = (
            value if isinstance(value, int | float) else torch.tensor(value, device=clips.device).view(-1, 1, 1, 1)
            for value in (self.mean, self.std)
        )
        return channels_last((clips.float() - mean) / std)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        views, labels = batch.views[batch.readable], batch.label[batch.readable]
        if not len(views):
            # Lightning skips the iteration; several processes have to do one together, and this one adds nothing to it.
            return 0.0 * self(batch.views.flatten(0, 1)).sum() if self.trainer.world_size > 1 else None
        logits = self(views.flatten(0, 1))
        loss = self.objective.loss(logits, labels)
        self._measure({"loss": loss.detach(), **self.objective.of_batch(logits.detach(), labels)}, len(labels))
        return loss

    def _measure(self, measured: dict[str, Tensor], clips: int) -> None:
        """Add what was measured of a batch to the epoch's sums; log it every so many steps."""
        for name, value in measured.items():
            self.trained[name] = self.trained.get(name, 0.0) + clips * value
        self.trained["clips"] = self.trained.get("clips", 0.0) + clips
        broken = torch.where(measured["loss"].isfinite(), math.inf, self.global_step + 1)
        self.broken_since = torch.minimum(broken, torch.as_tensor(self.broken_since).to(broken))
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:  # logging costs a millisecond
            self.log_dict({f"train/{name}_step": value for name, value in measured.items()}, on_epoch=False)

    def on_train_epoch_start(self) -> None:
        self.trained = {}

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        self.statistics_estimated = False

    def on_train_epoch_end(self) -> None:
        self.log_dict({f"{name}_epoch": mean for name, mean in self.epoch_means().items()})
        if broken := self._what_diverged():
            self.trainer.should_stop = True  # no step makes numbers of the weights again
            if self.trainer.is_global_zero:
                say(f"the training has diverged and stops after step {self.global_step}: no finite number is {broken}")
        if ends(self.trainer):
            self.estimate_statistics()  # before the last checkpoint, which has what will be tested

    def estimate_statistics(self) -> None:
        """Estimate the statistics of BN on `precise_bn` training batches, unless that has been done for these weights.

        All processes of a run have to.
        """
        if self.precise_bn and not self.statistics_estimated:
            mode = self.net.training
            self.net.eval()  # without dropout
            clips = training_clips(self._data, self.device, self.precise_bn)
            estimate_statistics(self.net, map(self._normalised, clips))
            self.net.train(mode)
            self.statistics_estimated = True

    def _what_diverged(self) -> str:
        """What is no finite number in training, and since when; empty if the weights are all finite."""
        since = min(from_all(float(self.broken_since)))
        if all(bool(value.isfinite().all()) for value in self.net.parameters()):
            return ""
        return f"the loss from step {since:.0f} on" if since < math.inf else "the weights"

    def epoch_means(self) -> dict[str, float]:
        """Loss and what else is measured in training, over the epoch's clips so far; all processes have to ask."""
        sums: Counter[str] = Counter()
        for part in from_all(self.sums()):
            sums.update(part)
        clips = sums.pop("clips", 0)
        return {f"train/{name}": value / clips for name, value in sums.items()} if clips else {}

    def sums(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.trained.items()}

    def configure_optimizers(self) -> OptimizerLRScheduler:
        groups = parameter_groups(self.net, self.decay_one_dimensional, self.loaded, self.loaded_lr)
        scale = 1.0
        if self.lr_batch is not None:
            clips = self._data.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches
            scale = clips / self.lr_batch
        return optimize(self.optimizer, groups, self.schedule, self.trainer.estimated_stepping_batches, scale)

    # ------------------------------------------------------------------------------------------------------- validation

    def on_validation_start(self) -> None:
        self.share_statistics()
        self.copy_for_testing()

    def on_validation_end(self) -> None:
        self.as_tested = ()

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        views, labels = batch.views[batch.readable], batch.label[batch.readable]
        if len(views):
            logits = self(views.flatten(0, 1))
            self.val_loss.update(self.objective.loss(logits, labels), len(labels))
            self.val_metrics.update(logits, labels)

    def on_validation_epoch_end(self) -> None:
        found = {"val/loss": self.val_loss.compute(), **self.val_metrics.compute()}
        self.log_dict(found, prog_bar=True)
        if not all(math.isfinite(value) for value in found.values()) and self.trainer.is_global_zero:
            say(f"validation after step {self.global_step}: logits are no finite numbers: the network has diverged")
        self.val_loss.reset()
        self.val_metrics.reset()

    # ---------------------------------------------------------------------------------------------------------- testing

    def on_test_start(self) -> None:
        self.share_statistics()
        self.estimate_statistics()
        self.copy_for_testing()

    on_test_end = on_validation_end

    def on_test_epoch_start(self) -> None:
        self.tested = {}
        self.video_names = None if self._data is None else list(self._data.videos("test").paths.names())
        if self.predictions is not None:
            refuse_other(Path(self.predictions))
            self.part = PartWriter(part_of(Path(self.predictions), self.global_rank), self.multi_label)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        views = stored(self.log_probabilities(batch.views).cpu().numpy())  # (N, V, classes)
        self.views_of_a_video: int = views.shape[1]
        for row, video in enumerate(batch.video.tolist()):
            name = batch.path[row] if self.video_names is None else self.video_names[video]
            label = tuple(batch.label[row].nonzero()[:, 0].tolist()) if self.multi_label else int(batch.label[row])
            kept = views[row] if batch.readable[row] else None
            self.tested[video] = VideoScores(name, label, None if kept is None else mean_softmax(kept))
            if self.predictions is not None:
                self.part.add(video, VideoViews(name, label, kept))

    def log_probabilities(self, views: Tensor) -> Float[Tensor, "N V classes"]:
        """Logarithms of the scores of each view of (N, V, 3, T, H, W).

        With a `test_pool`, the scores of a view are their mean over the places of the window.
        """
        chunks = torch.split(views.flatten(0, 1), self.views_per_forward)
        return torch.unflatten(torch.cat([self._log_probabilities(chunk) for chunk in chunks]), 0, views.shape[:2])

    def _log_probabilities(self, clips: Tensor) -> Float[Tensor, "N classes"]:
        clips = self._normalised(clips)
        if self.test_pool is None:
            logits = self._net(clips)[:, None]  # one place
        else:
            logits = self._net.logits_at_places(clips, self.test_pool)
        scores = self.objective.log_scores(logits.float())  # (N, places, classes)
        mean: Tensor = scores.logsumexp(dim=1) - math.log(scores.shape[1])
        return torch.where(logits.isfinite().all(dim=2).all(dim=1, keepdim=True), mean, torch.nan)

    def on_test_epoch_end(self) -> None:
        if self.predictions is not None:
            self.part.close()
        tested = from_all(self.tested)  # after every part has been closed
        self.tested = {video: scores for part in tested for video, scores in part.items()}
        videos = in_order(self.tested)
        self.diverged = self._what_diverged() or not_finite(videos)
        for name, score in measured(videos, self.net.config.num_classes if self.multi_label else None).items():
            self.log(f"test/{name}", math.nan if self.diverged else score, rank_zero_only=True)
        if self.predictions is not None and self.trainer.is_global_zero:
            whole = Path(self.predictions)
            parts = [part_of(whole, process) for process in range(self.trainer.world_size)]
            merge(parts, whole, self._protocol())
            for part in parts:
                part.unlink()

    def _protocol(self) -> ViewProtocol:
        said: dict[str, Any] = {} if self._data is None else self._data.test_settings()
        words = said | {"test_pool": self.test_pool, "precise_bn": self.precise_bn}
        clips, crops = said.get("num_clips", self.views_of_a_video), said.get("num_crops", 1)
        return ViewProtocol(clips, crops, self.net.config.num_classes, words, self.multi_label)


def _colours(value: float | Colour) -> Colour:
    return (value, value, value) if isinstance(value, int | float) else value
