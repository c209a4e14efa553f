"""One run: a variant, a recipe and a seed, trained and tested, ending in one record.

Everything a run needs is in its arguments, and everything it leaves lies in its own folder
(``<results>/runs/<recipe>/<variant>/seed<k>/``) until the record and the predictions are written, whole, at the end.
:mod:`nl_lightning.runs.worker` is the process around it.
"""

import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Protocol, TypeVar

import pytorch_lightning as L
import torch
from pytorch_lightning.callbacks import Callback
from pytorch_lightning.loggers import CSVLogger, Logger, TensorBoardLogger, WandbLogger

from nl_lightning.data.videos import below
from nl_lightning.errors import UserError
from nl_lightning.models.complexity import complexity
from nl_lightning.study.evidence import Evidence
from nl_lightning.study.lock import Lock
from nl_lightning.study.packing import pack, pack_numbers
from nl_lightning.study.records import Record, portable, videos_hash, write_record
from nl_lightning.study.run import Run
from nl_lightning.train.callbacks import Clock, Curve, Progress, UnreadableVideos
from nl_lightning.train.checkpoints import Saver, commit, newest_whole, versions
from nl_lightning.train.classifier import VideoClassifier
from nl_lightning.train.evidence import Meter, command, content, machine, weights
from nl_lightning.train.lightning_cli import VideoCLI
from nl_lightning.train.modules import ModuleCLI, check_tests, fields, handed_over, module_cli, sources, tests_all
from nl_lightning.train.run_cli import without_advice
from nl_lightning.train.scores import by_class, by_group, contributions, in_order, mean_loss, right, soft_scores

C = TypeVar("C", bound=Callback)
MOST_CLASSES = 1000
"""Of which a record says how each was recognised."""


class Tracker(Protocol):
    """Follows a run from outside, as W&B does (:mod:`nl_lightning.tracking.log`)."""

    def begin(self, run: Run, /) -> Any:
        """The run at the tracker, as Lightning's W&B logger wants it."""

    def end(self, record: Record, /) -> None:
        """File the record with the tracker."""


def execute(run: Run, held: Lock | None, tracker: Tracker) -> Record | None:
    """Train, test and record a run; goes on from its last checkpoint if it has one of the same configuration.

    Of several processes, the first one has the claim (`held`), and returns the record. `tracker` follows the run.
    UserError for what the user can mend.
    """
    progress, curve, clock, meter = Progress(run, held), Curve(), Clock(), Meter()
    progress.say("start", 0, 1)
    without_advice()
    quiet = {"logger": False, "enable_progress_bar": False}
    cli: VideoCLI | ModuleCLI
    if run.recipe.module is None:
        cli = VideoCLI(run.checkpoint_minutes, args=run.arguments(), run=False, trainer_defaults=quiet)
        if not tests_all(cli.trainer):
            raise UserError(
                "trainer.limit_test_batches and .fast_dev_run: leave them out; a record is of the whole test"
            )
    else:
        cli = module_cli(run)
        check_tests(cli)
    trainer, model, data = cli.trainer, cli.model, cli.datamodule
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    callbacks[:] = [progress, curve, *callbacks, clock, meter]  # the saver, which keeps the curve, comes after it
    if held is not None:
        (run.folder / "resolved.yaml").write_text(cli.parser.dump(cli.config, skip_none=False))
        trainer.loggers = _loggers(run, tracker)

    from_checkpoint = newest_whole(run.checkpoint, speaks=held is not None)
    with cli.files.mistakes_named():
        trainer.fit(model, datamodule=data, ckpt_path=from_checkpoint, weights_only=True)
    trained = time.monotonic()
    found = trainer.test(model, datamodule=data, verbose=False)
    metrics = {name: value for of_loader in found for name, value in of_loader.items()}
    if isinstance(cli, ModuleCLI):
        outcomes = handed_over(cli)
    else:
        unreadable = _callback(trainer, UnreadableVideos).everywhere()
    if not trainer.is_global_zero:
        return None
    seconds = round(time.monotonic() - trained, 1)
    more: dict[str, Any]
    if isinstance(cli, ModuleCLI):
        tensors = {name: value for name, value in model.state_dict().items() if isinstance(value, torch.Tensor)}
        measured, more = fields(run, cli, metrics, outcomes), {"source": sources(cli)}
    else:
        tensors = model.net.state_dict()
        measured, more = _video_fields(cli, metrics, unreadable)
    evidence = Evidence(command=command(run), started=meter.started, weights=weights(tensors), **more)
    record = _record(run, trainer, {**measured, "evidence": evidence}, seconds)
    write_record(run.results, record)
    tracker.end(record)
    return record


def _loggers(run: Run, tracker: Tracker) -> list[Logger]:
    """Who is told the curves, as Lightning has them. Each attempt has a CSV file of its own."""
    if run.logger == "wandb":
        return [WandbLogger(experiment=tracker.begin(run), save_dir=run.folder, log_model=False)]
    if run.logger == "csv":
        return [CSVLogger(run.folder, "csv")]
    return [TensorBoardLogger(run.folder, "tensorboard", "")] if run.logger == "tensorboard" else []


def _callback(trainer: L.Trainer, kind: type[C]) -> C:
    """The trainer's callback of a kind that it has one of."""
    callbacks: list[Callback] = trainer.callbacks  # type: ignore[attr-defined]
    (found,) = (callback for callback in callbacks if isinstance(callback, kind))
    return found


def _record(run: Run, trainer: L.Trainer, measured: Mapping[str, Any], test_seconds: float) -> Record:
    """The record of a run that has just been tested, of what was measured and of what every run has."""
    curve, clock = _callback(trainer, Curve), _callback(trainer, Clock)
    variant = replace(run.variant, settings=portable(run.variant.settings))
    device = f"CPU ({platform.machine()}), {torch.get_num_threads()} thread(s)"
    if trainer.strategy.root_device.type == "cuda":
        device = f"{trainer.num_devices} x {torch.cuda.get_device_name()}"
    return Record(
        study=run.study.name,
        recipe=run.recipe.name,
        variant=run.variant.name,
        seed=run.seed,
        config_hash=run.config_hash,
        config={"recipe": portable(run.recipe.config), "arguments": variant.arguments()},
        steps=trainer.global_step,
        train_seconds=round(clock.seconds, 1),
        data_wait=clock.data_wait,
        test_seconds=test_seconds,
        curve=curve.points,
        device=device,
        versions=versions(),
        finished=datetime.now(UTC).isoformat(timespec="seconds"),
        init_from=run.variant.init_from,
        earlier_code=_callback(trainer, Saver).earlier,
        machine=machine(trainer, _callback(trainer, Meter)),
        **measured,
        **commit(),
    )


def _video_fields(
    cli: VideoCLI, metrics: Mapping[str, float], unreadable: Mapping[str, Sequence[str]]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Fields of the record of a run of ours that has just been tested, and of its evidence."""
    model, data = cli.model, cli.datamodule
    read = [video.scores is not None for video in in_order(model.tested)]
    videos, classes = [] if model.diverged else in_order(model.tested), model.net.config.num_classes
    evidence = {
        "content": {split: content(data, split) for split in ("train", "val", "test")},
        "loss": mean_loss(videos, classes if model.multi_label else None),
        "by_class": by_class(videos, classes, model.multi_label) if videos and classes <= MOST_CLASSES else [],
    }
    present, decodable = _found(data, sum(read))
    train = {"expected": len(data.videos("train"))}
    if data.manifest is not None:
        train["present"], train["decodable"] = data.manifest.counts(data.videos("train").paths)
    return {
        "videos_expected": len(data.videos("test")),
        "videos_scored": sum(read),
        "unreadable": sorted(below(Path(p), data.root) for p in set().union(*unreadable.values())),
        "num_clips": data.num_clips,
        "num_crops": data.num_crops,
        "params": sum(p.numel() for p in model.net.parameters()),
        "macs": complexity(model.net.config, data.clip_shape).macs,
        "videos_hash": videos_hash(data.videos("test").listed()),
        **_measured(model, metrics, data.groups),
        "read_videos": "" if all(read) else pack(read),
        "decoder": data.files.decoder,
        "videos_present": present,
        "videos_decodable": decodable,
        "train_videos": train,
    }, evidence


def _found(data: Any, scored: int) -> tuple[int, int]:
    """Test videos that are there and decodable: as a census found, or as testing did, where more have come since."""
    present, decodable = data.found("test")
    decodable = max(scored, decodable or 0)
    return max(present, decodable), decodable


def _measured(model: VideoClassifier, metrics: Mapping[str, float], groups: Sequence[str]) -> dict[str, Any]:
    """Fields of a record that say what testing gave: of all videos, of each, and of groups of videos."""
    if model.diverged:
        return {"diverged": model.diverged}
    scores = {name.removeprefix("test/"): round(score, 4) for name, score in metrics.items()}
    videos = in_order(model.tested)
    if model.multi_label:
        each = contributions(videos, model.net.config.num_classes)
        return {**scores, "mAP_by_video": pack_numbers(each.tolist())}
    best, soft = right(videos, 1), soft_scores(videos)
    return {
        **scores,
        "right_top1": pack(best),
        "right_top5": pack(right(videos, 5)),
        "soft": round(sum(soft) / len(soft), 4),
        "soft_by_video": pack_numbers(soft),
        "top1_by_group": by_group([100 * one for one in best], groups) if groups else {},
        "soft_by_group": by_group(soft, groups) if groups else {},
        "videos_by_group": {name: pack([name == of for of in groups]) for name in dict.fromkeys(groups)},
    }
