"""VideoClassifier: how a network of Table 2 is trained and tested (paper, Sec. 4 and 5).

Training minimises the cross-entropy of one clip a video, over classes or, where a video has several, of each class
(:mod:`~nl_lightning.train.labels`). Testing averages the scores of all views of a video. ``val/top1`` (one clip) and
``test/top1`` (all views of a video) are different quantities and never mixed.
"""

import itertools
import math
import pickle
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import numpy as np
import torch
import torch.distributed
from jaxtyping import Float
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torchmetrics import MeanMetric

from nl_lightning.data.together import from_all
from nl_lightning.errors import UserError
from nl_lightning.models.folded import channels_last
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.train.average_precision import by_video
from nl_lightning.train.labels import Objective, OneLabel, SeveralLabels
from nl_lightning.train.precise_bn import estimate_statistics
from nl_lightning.train.predictions import PartWriter, Prediction, Protocol, Scores, mean_softmax, merge, rank, stored
from nl_lightning.weights.file import Colour, InputSettings, WeightsHeader, differences, fill, read_weights
from nl_lightning.weights.imagenet import load_imagenet
from nl_lightning.weights.lightning import HEADER

TRAINED = "trained"
"""The key of a checkpoint that holds what the means of its epoch are made of so far, by process."""


@dataclass(frozen=True)
class Schedule:
    """The learning rate of an iteration, as a factor of the optimiser's own.

    Attributes:
        kind: ``steps``: times `gamma` at each milestone (paper, Sec. 4); ``cosine``: half a cosine down to 0.
        milestones: iterations, from 0. The paper's 150k and 300k of 400k.
        gamma: what a milestone multiplies by.
        warmup: share of all iterations over which the factor grows linearly to 1 (the paper has none).
    """

    kind: Literal["steps", "cosine"] = "steps"
    milestones: tuple[int, ...] = (150_000, 300_000)
    gamma: float = 0.1
    warmup: float = 0.0

    def __post_init__(self) -> None:
        if not 0 <= self.warmup < 1:
            raise UserError(f"schedule.warmup is {self.warmup}: expected a share of all iterations, from 0 up to 1")

    def factor(self, iteration: int, iterations: int) -> float:
        """The factor at `iteration` (from 0) of `iterations`."""
        warm = self.warmup * iterations
        if iteration < warm:
            return (iteration + 1) / (warm + 1)
        if self.kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * (iteration - warm) / (iterations - warm)))
        return self.gamma ** sum(iteration >= milestone for milestone in self.milestones)


class VideoScores(NamedTuple):
    """What is known of a tested video: `scores` in 0..1, the mean of its views', or ``None`` if unreadable."""

    path: str
    label: int | tuple[int, ...]
    scores: Scores | None


def _paper_sgd(params: Iterable[Any]) -> torch.optim.Optimizer:
    """SGD as in Sec. 4: learning rate 0.01, momentum 0.9, weight decay 1e-4. (The released code's is Nesterov's.)"""
    return torch.optim.SGD(params, lr=0.01, momentum=0.9, weight_decay=1e-4)


class VideoClassifier(L.LightningModule):
    """Train and test one network.

    Args:
        net: the network.
        multi_label: videos have several classes at once (Charades), not one.
        optimizer: any optimiser of torch, made from parameter groups.
        schedule: how its learning rate changes.
        lr_batch: the clips of an iteration that the optimiser's learning rate is for; with others, over all processes
            and accumulated batches, it is scaled in proportion (paper: 0.01 for 64, 0.0025 for 16). None: as it is.
        mean, std: of the input, in units of 0 to 255: one number for all colours (the released code's), or one each
            for red, green and blue.
        freeze_bn: keep all BN as it is, statistics and scales (paper, 128-frame networks).
        decay_one_dimensional: whether weight decay acts on biases and `w_f`. (On BN it is a convention.)
        imagenet: a file of torchvision's ImageNet weights to inflate (Sec. 4), or none; ``{depth}`` in it stands
            for the network's depth.
        init_from: what training starts from, or nothing: a checkpoint of the same network on shorter clips (paper,
            128 frames), or a weight file. ``{depth}`` in it stands for the network's depth, ``{blocks}`` for how many
            non-local blocks it has.
        weights: a weight file that holds this network, to test; ``nl-lightning test --weights`` sets it.
        test_pool: side of the window that testing slides over res5, for a softmax at every place and their mean: the
            side of res5 in training (7 in the paper, which tests fully convolutionally); none for one global pool.
        precise_bn: how many training batches the statistics of BN are estimated on anew before testing (released code:
            200), or 0 to test with those that training left.
        views_per_forward: how many views of the test batch go through the network at a time.
        recompute: compute the activations of residual blocks again for the backward pass instead of keeping them, for
            long clips on small GPUs: a third more work, memory of a few blocks.
        compile: let torch.compile make kernels for the network; pays on GPUs in runs of hours, as it starts slowly and
            needs a C++ compiler.
        predictions: where testing writes its table of videos (Parquet), or nowhere.
    """

    def __init__(
        self,
        net: ResNetConfig = ResNetConfig(),  # noqa: B008 - frozen
        multi_label: bool = False,
        optimizer: OptimizerCallable = _paper_sgd,
        schedule: Schedule = Schedule(),
        lr_batch: int | None = None,
        mean: float | Colour = 114.75,
        std: float | Colour = 57.375,
        freeze_bn: bool = False,
        decay_one_dimensional: bool = True,
        imagenet: str | None = None,
        init_from: str | None = None,
        weights: str | None = None,
        test_pool: int | None = None,
        precise_bn: int = 0,
        views_per_forward: int = 30,
        recompute: bool = False,
        compile: bool = False,
        predictions: str | None = None,
    ) -> None:
        super().__init__()
        self.net = VideoResNet(net)
        self.net.recompute(recompute)
        self.compiled = compile
        self.optimizer, self.schedule, self.lr_batch = optimizer, schedule, lr_batch
        self.mean, self.std = mean, std
        self.freeze_bn, self.decay_one_dimensional = freeze_bn, decay_one_dimensional
        self.imagenet, self.init_from, self.weights = imagenet, init_from, weights
        if precise_bn and freeze_bn:
            raise UserError("precise_bn estimates the statistics anew that freeze_bn keeps: give one of them")
        self.test_pool, self.precise_bn = test_pool, precise_bn
        self.views_per_forward, self.predictions = views_per_forward, predictions
        self.multi_label = multi_label
        self.objective: Objective = SeveralLabels() if multi_label else OneLabel(net.num_classes)
        self.val_loss = MeanMetric(nan_strategy="disable")  # which would leave out what is to be seen
        self.trained: dict[str, Tensor | float] = {}  # sums over the epoch so far, here
        self.tested: dict[int, VideoScores] = {}
        if freeze_bn:
            for norm in self._norms():
                norm.requires_grad_(False)
        self.train()  # nobody calls it before the first iteration

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """UserError if a checkpoint is of another network."""
        shapes = [{k: v.shape for k, v in state.items()} for state in (self.state_dict(), checkpoint["state_dict"])]
        differ = sorted(k for k in shapes[0].keys() | shapes[1].keys() if shapes[0].get(k) != shapes[1].get(k))
        if differ:
            raise UserError(f"ckpt_path: the checkpoint is of another network: {len(differ)} tensors, as {differ[0]}")
        trained = checkpoint.get(TRAINED, [{}])
        self.trained = trained[self.global_rank % len(trained)]

    def _norms(self) -> Iterator[nn.Module]:
        return (m for m in self.net.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm))

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Say what network it is, so that a weight file can be made of it, and what the epoch's means are made of."""
        checkpoint[TRAINED] = from_all(self._sums())
        data: Any = getattr(self.trainer, "datamodule", None)
        paper = {"num_frames": 32, "frame_stride": 2}
        clip: dict[str, Any] = paper if data is None else data.test_settings()
        settings = InputSettings(
            **clip,
            mean=_colours(self.mean),
            std=_colours(self.std),
            test_pool=self.test_pool,
            multi_label=self.multi_label,
        )
        names: tuple[str, ...] = () if data is None else data.videos("train").classes
        checkpoint[HEADER] = WeightsHeader(self.net.config, settings, "nl-lightning", "", classes=names).to_json()

    def setup(self, stage: str) -> None:
        """Load start weights before training (a resumed run overwrites them from its own checkpoint)."""
        if self.compiled:
            self.net.compile()
        if self.weights is not None:
            self.load_weights(Path(self.weights), stage)
        if stage != "fit":
            return
        if self.imagenet is not None:
            load_imagenet(self.net, self._own_file(self.imagenet))
        if self.init_from is not None:
            self.load_network(self._own_file(self.init_from))

    def _own_file(self, path: str) -> Path:
        """The file that a recipe names for each of its networks."""
        net = self.net.config
        blocks = sum(map(len, net.non_local.placement.values())) if net.non_local else 0
        return Path(path.replace("{depth}", str(net.depth)).replace("{blocks}", str(blocks)))

    def load_weights(self, path: Path, stage: str) -> None:
        """Load a weight file that holds this very network. UserError if it doesn't, or if `stage` is ``fit``."""
        if stage == "fit":
            raise UserError("weights: is for testing; model.init_from starts a training from a weight file")
        tensors, header = read_weights(path)
        if not header.classifier:
            raise UserError(f"weights: {path} has no classifier to test; model.init_from starts a training from it")
        if differ := differences(header.net, self.net.config):
            raise UserError(f"weights: {path} is of another network: {'; '.join(differ)}")
        fill(self.net, tensors, f"weights: {path}")

    def load_network(self, checkpoint: Path) -> None:
        """Load the network of `checkpoint` or of a weight file, strictly; without a classifier, this one's stays.

        Raises:
            UserError: the file is missing, or holds another network.
        """
        if checkpoint.suffix == ".safetensors":
            tensors, header = read_weights(checkpoint)
            classes = header.net.num_classes, self.net.config.num_classes
            if header.classifier and classes[0] != classes[1]:
                raise UserError(
                    f"init_from: {checkpoint} has {classes[0]} classes, and this network {classes[1]}: "
                    "import it again --without-classifier"
                )
            fill(self.net, tensors, f"init_from: {checkpoint}", header.classifier)
            return
        try:
            state = torch.load(checkpoint, map_location="cpu", weights_only=True)["state_dict"]
            self.net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
        except FileNotFoundError:
            raise UserError(
                f"init_from: no checkpoint at {checkpoint}; train that run first (if its record is there already, "
                "delete that, or take another folder for --results)"
            ) from None
        except (IsADirectoryError, RuntimeError, KeyError, TypeError, EOFError, pickle.UnpicklingError) as error:
            reason = " ".join(str(error).split())
            raise UserError(f"init_from: {checkpoint} holds no weights of this network: {reason}") from None

    def train(self, mode: bool = True) -> "VideoClassifier":
        super().train(mode)
        if self.freeze_bn:
            for norm in self._norms():
                norm.eval()
        return self

    def forward(self, clips: Tensor) -> Float[Tensor, "N classes"]:
        """Logits of uint8 clips (N, 3, T, H, W)."""
        logits: Tensor = self.net(self._normalised(clips))
        return logits

    def _normalised(self, clips: Tensor) -> Tensor:
        mean, std = (_per_channel(value, clips.device) for value in (self.mean, self.std))
        return channels_last((clips.float() - mean) / std)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor | None:
        views, labels = batch.views[batch.readable], batch.label[batch.readable]
        if not len(views):
            # Lightning skips the iteration; several processes have to do one together, and this one adds nothing to it.
            return 0.0 * self(batch.views.flatten(0, 1)).sum() if self.trainer.world_size > 1 else None
        logits = self(views.flatten(0, 1))
        loss = self.objective.loss(logits, labels)
        measured = {"loss": loss.detach(), **self.objective.trained(logits, labels)}
        for name, value in {**measured, "clips": torch.ones_like(loss)}.items():
            self.trained[name] = self.trained.get(name, 0) + len(labels) * value
        every = self.trainer.log_every_n_steps  # type: ignore[attr-defined]
        if every and (self.global_step + 1) % every == 0:  # of the others, which cost a millisecond, nobody is told
            self.log_dict({f"train/{name}_step": value for name, value in measured.items()}, on_epoch=False)
        return loss

    def on_train_epoch_start(self) -> None:
        self.trained = {}

    def epoch_means(self) -> dict[str, float]:
        """Loss and what else is measured in training, over the epoch's clips so far; all processes have to ask."""
        sums: Counter[str] = Counter()
        for part in from_all(self._sums()):
            sums.update(part)
        clips = sums.pop("clips", 0)
        return {f"train/{name}": value / clips for name, value in sums.items()} if clips else {}

    def _sums(self) -> dict[str, float]:
        return {name: float(value) for name, value in self.trained.items()}

    def on_train_epoch_end(self) -> None:
        self.log_dict({f"{name}_epoch": mean for name, mean in self.epoch_means().items()})

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        views, labels = batch.views[batch.readable], batch.label[batch.readable]
        if not len(views):
            return
        logits = self(views.flatten(0, 1))
        self.val_loss.update(self.objective.loss(logits, labels), len(labels))
        self.objective.validate(logits, labels)

    def on_validation_epoch_end(self) -> None:
        self.log("val/loss", self.val_loss.compute())
        self.val_loss.reset()
        for place, (name, value) in enumerate(self.objective.validated().items()):
            self.log(f"val/{name}", value, prog_bar=place == 0)

    def on_test_start(self) -> None:
        if torch.distributed.is_initialized():  # BN follows each process's own clips; a checkpoint has the first one's
            for statistics in self.net.buffers():
                torch.distributed.broadcast(statistics, src=0)
        if self.precise_bn:
            estimate_statistics(self.net, self._training_clips(self.precise_bn))

    def _training_clips(self, batches: int) -> Iterator[Float[Tensor, "N 3 T H W"]]:
        """Normalised clips of so many training batches, of each process its own."""
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        for batch in itertools.islice(data.train_dataloader(), batches):
            moved = data.on_after_batch_transfer(data.transfer_batch_to_device(batch, self.device, 0), 0)
            if moved.readable.any():
                yield self._normalised(moved.views[moved.readable].flatten(0, 1))

    def on_test_epoch_start(self) -> None:
        self.tested = {}
        data: Any = getattr(self.trainer, "datamodule", None)
        self.video_names = None if data is None else [path for path, _ in data.listed("test")]
        if self.predictions is not None:
            self.part = PartWriter(self._part(self.global_rank), self.multi_label)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        views = stored(self.log_probabilities(batch.views).cpu().numpy())  # (N, V, classes)
        for row, video in enumerate(batch.video.tolist()):
            name = batch.path[row] if self.video_names is None else self.video_names[video]
            kept = views[row] if batch.readable[row] else None
            label = tuple(batch.label[row].nonzero()[:, 0].tolist()) if self.multi_label else int(batch.label[row])
            self.tested[video] = VideoScores(name, label, None if kept is None else mean_softmax(kept))
            self.views_of_a_video = len(views[row])
            if self.predictions is not None:
                self.part.add(video, Prediction(name, label, kept))

    def log_probabilities(self, views: Tensor) -> Float[Tensor, "N V classes"]:
        """Logarithms of the scores of each view of (N, V, 3, T, H, W).

        With a `test_pool`, the scores of a view are their mean over the places of the window.
        """
        chunks = torch.split(views.flatten(0, 1), self.views_per_forward)
        return torch.unflatten(torch.cat([self._log_probabilities(chunk) for chunk in chunks]), 0, views.shape[:2])

    def _log_probabilities(self, clips: Tensor) -> Float[Tensor, "N classes"]:
        clips = self._normalised(clips)
        if self.test_pool is None:
            logits = self.net(clips)[:, None]  # one place
        else:
            logits = self.net.logits_at_places(clips, self.test_pool)
        scores = self.objective.log_scores(logits.float())  # (N, places, classes)
        mean: Tensor = scores.logsumexp(dim=1) - math.log(scores.shape[1])
        return mean

    def on_test_epoch_end(self) -> None:
        if self.predictions is not None:
            self.part.close()
        tested = from_all(self.tested)  # after every part has been closed
        self.tested = {video: scores for part in tested for video, scores in part.items()}
        for name, score in self._scores().items():
            self.log(f"test/{name}", score, rank_zero_only=True)
        if self.predictions is not None and self.trainer.is_global_zero:
            parts = [self._part(process) for process in range(self.trainer.world_size)]
            merge(parts, Path(self.predictions), self._protocol())
            for part in parts:
                part.unlink()

    def _part(self, process: int) -> Path:
        """Where a process writes what it tests, until all have."""
        path = Path(str(self.predictions))
        return path.with_name(f".{path.name}.part{process}")

    def _protocol(self) -> Protocol:
        data: Any = getattr(self.trainer, "datamodule", None)
        words = {} if data is None else data.test_settings()
        clips, crops = words.get("num_clips", self.views_of_a_video), words.get("num_crops", 1)
        return Protocol(
            clips,
            crops,
            self.net.config.num_classes,
            {**words, "test_pool": self.test_pool, "precise_bn": self.precise_bn},
            self.multi_label,
        )

    def _scores(self) -> dict[str, float]:
        """What testing gave, in percent."""
        if self.multi_label:
            return {"mAP": float(self.contributions().mean())}
        return {f"top{k}": topk_accuracy(tuple(self.tested.values()), k) for k in (1, 5)}

    def contributions(self) -> Float[np.ndarray, " V"]:
        """What each tested video contributes to the mAP, in the order of the test list.

        One that is unreadable scores 0 in every class.
        """
        videos = [self.tested[video] for video in sorted(self.tested)]
        scores = np.zeros((len(videos), self.net.config.num_classes))
        labels = np.zeros(scores.shape, bool)
        for row, video in enumerate(videos):
            labels[row, video.label] = True
            if video.scores is not None:
                scores[row] = video.scores
        return by_video(scores, labels)

    def top1_by(self, groups: Sequence[str]) -> dict[str, float]:
        """Top-1 in percent of the tested videos by group, `groups` naming the group of each class (or empty)."""
        members: dict[str, list[VideoScores]] = {}
        for video in self.tested.values():
            if groups:
                members.setdefault(groups[_only(video)], []).append(video)
        return {group: round(topk_accuracy(members[group], 1), 4) for group in groups if group in members}

    def right(self, k: int) -> list[bool]:
        """Whether each tested video's class is among its k best, in the order of the test list."""
        return right((self.tested[video] for video in sorted(self.tested)), k)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = self.optimizer(self._parameter_groups())
        if self.lr_batch is not None:
            for group in optimizer.param_groups:
                group["lr"] *= self._clips_an_iteration() / self.lr_batch
        iterations = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda iteration: self.schedule.factor(iteration, iterations)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _clips_an_iteration(self) -> int:
        data: Any = self.trainer.datamodule  # type: ignore[attr-defined]
        return int(data.batch_size * self.trainer.world_size * self.trainer.accumulate_grad_batches)

    def _parameter_groups(self) -> Any:
        """Parameters with the optimiser's weight decay, then those without any."""
        norms = {id(p) for norm in self._norms() for p in norm.parameters()}
        decay_bn = self.net.config.conventions.rules.decay_bn
        decayed: list[nn.Parameter] = []
        spared: list[nn.Parameter] = []
        for p in self.net.parameters():
            if not p.requires_grad:
                continue
            keep = decay_bn if id(p) in norms else self.decay_one_dimensional or p.ndim > 1
            (decayed if keep else spared).append(p)
        return [{"params": decayed}, {"params": spared, "weight_decay": 0.0}]


def _colours(value: float | Colour) -> Colour:
    return (value, value, value) if isinstance(value, int | float) else value


def _per_channel(value: float | Colour, device: torch.device) -> float | Tensor:
    """One number, or one for each channel of (N, 3, T, H, W)."""
    return value if isinstance(value, int | float) else torch.tensor(value, device=device).view(-1, 1, 1, 1)


def right(videos: Iterable[VideoScores], k: int) -> list[bool]:
    """Whether each video's label is among its k highest scores (see :func:`rank`); never, if it is unreadable."""
    return [video.scores is not None and rank(video.scores, _only(video)) <= k for video in videos]


def _only(video: VideoScores) -> int:
    """The label of a video that has one."""
    assert isinstance(video.label, int)
    return video.label


def topk_accuracy(videos: Sequence[VideoScores], k: int) -> float:
    """Percent of videos that are :func:`right`."""
    return 100 * sum(right(videos, k)) / max(1, len(videos))
