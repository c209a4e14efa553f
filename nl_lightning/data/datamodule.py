"""VideoDataModule: lists of video files -> batches of clips for training and of all views for testing."""

import functools
import signal
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pytorch_lightning as L
import torch
from pytorch_lightning.utilities import rank_zero_warn
from torch.utils.data import DataLoader

from nl_lightning.data.annotations import read_annotation
from nl_lightning.data.datasets import Files, Reader, Sample, TestVideos, TrainClips, check_room
from nl_lightning.data.decoded_copy import DecodedCopy
from nl_lightning.data.decoding import Decoder, named
from nl_lightning.data.locating import COPIES, scan_folder
from nl_lightning.data.longrange import LongRange
from nl_lightning.data.manifest import NAME, Manifest
from nl_lightning.data.match import Match
from nl_lightning.data.sampling import EpochShuffle, Spread, turns
from nl_lightning.data.shards import Shards
from nl_lightning.data.stills import Stills
from nl_lightning.data.transforms import TestViews, TrainView
from nl_lightning.data.videos import VideoList, every_fifth, refuse_outside, same_classes
from nl_lightning.errors import UserError, ignore_stops
from nl_lightning.study.border import shown

GRACE = 20  # seconds that a worker goes on reading when it is told to stop


CLIP = ("num_frames", "frame_stride", "short_side", "crop", "test_short_side", "test_crop")
RANGES: dict[str, tuple[float, float]] = {  # the smallest and the largest value of each setting that is a number
    **dict.fromkeys(CLIP, (1, 10_000)), "folds": (1, 1000), "num_clips": (1, 1000), "num_workers": (0, 1000),
    "batch_size": (1, 100_000), "test_batch_size": (1, 100_000), "decode_seconds": (0.01, 1_000_000),
    "num_classes": (1, 1_000_000), "max_unreadable": (0, 1), "seed": (0, 2**32 - 1),
}  # fmt: skip


def _check_ranges(given: Mapping[str, Any]) -> None:
    """UserError for a number out of its range, and for one that is none (NaN)."""
    for name, (low, high) in RANGES.items():
        for value in given[name] if isinstance(given[name], tuple | list) else [given[name]]:
            if value is not None and value != "whole" and not low <= value <= high:
                bound = f"at most {high:,}" if value > high else f"at least {low:g}"
                raise UserError(f"data.{name} is {shown(given[name])}: expected {bound}")


class VideoDataModule(L.LightningDataModule):
    """Videos of three splits. Each is a list file, or else the class folders in ``<root>/<split>``.

    Where `root` itself holds the class folders, every fifth video of a class is for validation.

    Args:
        root: folder of the data set. Lists lie in it, and paths in them are relative to it; ``classes.txt`` in it names
            the classes, one a line, where the list doesn't.
        train_list: a list file, of any kind that :mod:`~nl_lightning.data.annotations` knows. ``{fold}`` in its name is
            the number of the official split.
        val_list: likewise, to validate on.
        test_list: likewise, to test on.
        folds: official splits of the data set; with 3, the seeds 0, 1, 2, 3 ... take the splits 1, 2, 3, 1 ...
        allow_outside: take videos that lie outside of `root`, be it by a path or a symbolic link.
        longrange, match, stills: generate this set at `root` if it isn't there.
        shards: the folder of the same data set, packed (``nl-lightning data shards``); lists come from there as well.
        manifest: what ``nl-lightning data check`` found; if not given, ``census.parquet`` in `root`, if it is there.
            Videos that it found bad are left out of training; in testing they count as wrong.
        decoder: who decodes, see :mod:`~nl_lightning.data.decoding`.
        decode_seconds: after which a file is given up, named and set aside.
        square_pixels: scale the width of videos whose file says that its pixels aren't square, as a player does. By
            default pictures are taken as they are stored, as the authors' code and the peers take them. PyAV only.
        decoded_copy: keep all frames decoded, for small sets of videos of one size and length.
        num_frames: T of a clip.
        frame_stride: frames from one to the next.
        short_side: smallest and largest shorter side in training (pixels).
        crop: side of the square that is trained on (pixels).
        flip: mirror half of the training clips.
        test_short_side: shorter side in validation and testing.
        test_crop: its square; ``whole`` tests on whole frames (paper, Sec. 4.1) and validates on crops of `crop`.
        num_clips, num_crops: views of a test video, in time and in space.
        clip_starts: where test clips and crops lie: the paper's or a code base's formula, see
            :func:`~nl_lightning.data.sampling.test_clips`.
        batch_size: clips in training and validation, for each process.
        test_batch_size: videos in testing, each with all its views.
        num_workers: processes that read ahead; 0 reads in the training process.
        num_classes: that labels may name; the command line gives it the network's.
        multi_label: whether a video has several labels at once; the command line gives it the model's.
        max_unreadable: the share of videos that may be unreadable before a run stops.
        seed: of order and augmentation; the command line gives it the run's seed.
    """

    def __init__(
        self,
        root: str,
        train_list: str | None = None,
        val_list: str | None = None,
        test_list: str | None = None,
        folds: int = 1,
        allow_outside: bool = False,
        longrange: LongRange | None = None,
        match: Match | None = None,
        stills: Stills | None = None,
        shards: str | None = None,
        manifest: str | None = None,
        decoder: Decoder = "auto",
        decode_seconds: float = 120.0,
        square_pixels: bool = False,
        decoded_copy: bool = False,
        num_frames: int = 32,
        frame_stride: int = 2,
        short_side: tuple[int, int] = (256, 320),
        crop: int = 224,
        flip: bool = True,
        test_short_side: int = 256,
        test_crop: int | Literal["whole"] = 256,
        num_clips: int = 10,
        num_crops: int = 3,
        clip_starts: Spread = "paper",
        batch_size: int = 8,
        test_batch_size: int = 1,
        num_workers: int = 0,
        num_classes: int | None = None,
        multi_label: bool = False,
        max_unreadable: float = 0.01,
        seed: int = 0,
    ) -> None:
        _check_ranges(locals())
        super().__init__()
        whole = test_crop == "whole"
        if whole and test_batch_size > 1:
            raise UserError("data.test_crop is whole, and videos differ in size: set data.test_batch_size to 1")
        if square_pixels and decoded_copy:
            raise UserError("data.decoded_copy keeps pictures as they are stored: set data.square_pixels to false")
        if shards is not None and folds > 1:
            raise UserError(f"data.shards hold the lists of one official split, and data.folds is {folds}: set it to 1")
        generated = [spec for spec in (longrange, match, stills) if spec is not None]
        if len(generated) > 1:
            both = " and ".join(f"data.{spec.name}" for spec in generated)
            raise UserError(f"{both} are both given: set all but one to null")
        self.root, self.generated, self.decoded_copy = Path(root), next(iter(generated), None), decoded_copy
        self.allow_outside = allow_outside
        lists = {"train": train_list, "val": val_list, "test": test_list}
        if self.generated is not None:
            lists = {split: f"{split}.txt" for split in lists}
        fold = str(seed % folds + 1)
        self.folds, self.fold = folds, f"_split{fold}" if folds > 1 else ""  # in the names of decoded copies
        self.lists = {split: name and name.replace("{fold}", fold) for split, name in lists.items()}
        self.num_frames, self.frame_stride = num_frames, frame_stride
        self.train_view = TrainView(short_side, crop, flip)
        self.val_view = TestViews(test_short_side, crop if whole else test_crop, 1, clip_starts)
        self.test_views = TestViews(test_short_side, test_crop, num_crops, clip_starts)
        self.num_clips, self.num_crops, self.clip_starts = num_clips, num_crops, clip_starts
        self.batch_size, self.test_batch_size, self.num_workers = batch_size, test_batch_size, num_workers
        self.num_classes, self.multi_label = num_classes, multi_label
        self.max_unreadable, self.seed = max_unreadable, seed
        self._videos: dict[str, VideoList] = {}
        self._place = {"epoch": 0, "batches": 0}  # where training begins
        self.allow_zero_length_dataloader_with_multiple_devices = True  # in testing, a process may have nothing to do
        self.decoder, self.square_pixels = named(decoder, square_pixels), square_pixels
        self.decode_seconds = decode_seconds
        self._shards, self._manifest = shards, manifest

    def state_dict(self) -> dict[str, int]:
        """Where training stands: the epoch, and the batches that each process has read of it."""
        loop = cast(L.Trainer, self.trainer).fit_loop
        epochs: Any = loop.epoch_progress.current
        batches: Any = loop.epoch_loop.batch_progress.current
        within = epochs.processed != epochs.ready
        return {"epoch": epochs.processed, "batches": batches.ready if within else 0}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on where training stood; Lightning asks for the batches after this."""
        if cast(L.Trainer, self.trainer).state.fn == "fit":
            self._place = state

    @property
    def _process(self) -> tuple[int, int]:
        """Which process of the run this is, from 0, and of how many."""
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    @functools.cached_property
    def shards(self) -> Shards | None:
        """What the videos are packed in, if they are."""
        return None if self._shards is None else Shards(Path(self._shards), self.root)

    @functools.cached_property
    def manifest(self) -> Manifest | None:
        """The manifest that was named, or that lies beside the lists; none for shards, whose files are others."""
        if self._manifest is not None:
            return Manifest(Path(self._manifest))
        file = self.root / NAME
        return Manifest(file) if self.shards is None and file.is_file() else None

    @functools.cached_property
    def files(self) -> Files:
        return Files(self.root, self.decoder, self.decode_seconds, self.manifest, self.shards, self.square_pixels)

    @property
    def clip_shape(self) -> tuple[int, int, int]:
        """(T, H, W) of a training clip."""
        return self.num_frames, self.train_view.crop, self.train_view.crop

    def test_settings(self) -> dict[str, Any]:
        """The arguments that say what a clip is and how videos are tested, by name."""
        views = self.test_views
        return {
            "num_frames": self.num_frames, "frame_stride": self.frame_stride, "test_short_side": views.short_side,
            "test_crop": views.crop, "num_clips": self.num_clips, "num_crops": self.num_crops,
            "clip_starts": self.clip_starts,
        }  # fmt: skip

    @property
    def groups(self) -> list[str]:
        """The group of each test video, where the data set has groups; else nothing."""
        if self.generated is None or self.multi_label:
            return []
        return list(map(self.generated.group, self.videos("test").paths.names()))

    def generate(self) -> None:
        """Generate the set that the recipe asks for, if it does."""
        if self.generated is not None and self.shards is None:
            self.generated.generate(self.root)

    def prepare_data(self) -> None:
        """Generate and decode what the recipe asks for, with progress; nothing if that has been done."""
        self.generate()
        if self.decoded_copy:
            for split in self.lists:
                self._copy(split).make()

    def setup(self, stage: str) -> None:
        """Check that the splits agree, before hours are spent.

        UserError if a list is missing or broken, or the splits have different classes, or more than the network has.
        """
        fit = stage == "fit"
        splits = ("train", "val") if fit else ("val", "test")
        views = self.batch_size if fit else self.test_batch_size * self.num_clips * self.num_crops
        side = self.train_view.crop if fit else self.test_views.side  # of whole frames, about
        check_room(self.num_workers, 3 * views * self.num_frames * side**2)
        for split in splits:
            self._check_census(split)
            same_classes(self.videos(splits[0]), self.videos(split), split)
            self._check_labels(split)
        if fit:
            self._check_batches()

    def _check_batches(self) -> None:
        """UserError if a process would have no batch to train on, or, of several, none to validate on."""
        train, val = self.training_videos(), self.videos("val")
        if absent := val.labels_beyond(train):
            rank_zero_warn(
                f"{self.root}: no video to train on of {len(absent)} classes that val has, {absent[0]} among them"
            )
        _, processes = self._process
        most = len(train) // processes
        if processes > 1:  # they wait for each other
            most = min(most, (len(val) - 1) // (processes - 1))
        if most < self.batch_size:
            raise UserError(
                f"data.batch_size is {self.batch_size}, but {self.root} has {len(train)} train and "
                f"{len(val)} val videos for {processes} process(es): expected at most {most}"
            )

    def _check_labels(self, split: str) -> None:
        videos = self.videos(split)
        if videos.multi_label != self.multi_label:
            each = "several labels" if videos.multi_label else "one label"
            raise UserError(f"{self.root}: videos of {split} have {each} each: set model.multi_label to say the same")
        most = videos.labels.max()
        if self.num_classes is not None and most >= self.num_classes:
            raise UserError(
                f"{self.root}: {split} has the label {most}, but the network {self.num_classes} classes, "
                f"0 to {self.num_classes - 1}: set model.net.num_classes"
            )
        if videos.multi_label and self.num_classes not in (None, len(videos.classes)):
            raise UserError(
                f"{self.root} has {len(videos.classes)} classes, but the network {self.num_classes}: set "
                "model.net.num_classes"
            )

    def videos(self, split: str) -> VideoList:
        """The videos of ``train``, ``val`` or ``test``; without test videos, those of val."""
        if split not in self._videos:
            videos = self._find_videos(split)
            if not self.allow_outside:
                refuse_outside(videos.paths)
            self._videos[split] = videos
        return self._videos[split]

    def splits(self) -> dict[str, VideoList]:
        return {split: self.videos(split) for split in self.lists}

    def training_videos(self) -> VideoList:
        """The videos to train on: those of train without those that a census found bad."""
        videos = self.videos("train")
        if self.manifest is None:
            return videos
        return videos.take(np.delete(np.arange(len(videos)), list(self.manifest.bad(videos.paths))))

    def _check_census(self, split: str) -> None:
        """Say what a census found bad; UserError if it is more than may be."""
        if self.manifest is None or not (bad := self.manifest.bad(self.videos(split).paths)):
            return
        first = next(iter(bad))
        said = (
            f"{len(bad)} of {len(self.videos(split))} {split} videos can't be used, "
            f"{self.videos(split).paths.name(first)} among them ({bad[first]}); {self.manifest.file} names all"
        )
        if len(bad) > self.max_unreadable * len(self.videos(split)):
            raise UserError(f"{said}. More than {self.max_unreadable:.0%} (data.max_unreadable)")
        rank_zero_warn(f"{said}: {'left out' if split == 'train' else 'counted as wrong'}")

    def found(self, split: str) -> tuple[int, int | None]:
        """How many videos of a split are present, and how many decodable, if a census has looked."""
        videos = self.videos(split)
        if self.manifest is not None:
            return self.manifest.counts(videos.paths)
        return sum(map(self.files.is_present, videos.paths)), None

    def _find_videos(self, split: str) -> VideoList:
        if self.shards is not None:
            return self.shards.videos(split)
        listed = self.lists[split]
        if listed is not None:
            return read_annotation(listed, self.root, split)
        if split == "test" and not (self.root / split).is_dir():
            return self.videos("val")
        if self.lists["train"] is None and not (self.root / "train").is_dir():
            train, val = every_fifth(scan_folder(self.root, self.root))
            if not len(val):
                raise UserError(f"{self.root}: fewer than five videos in each class leave none to validate on")
            return train if split == "train" else val
        return scan_folder(self.root / split, self.root)

    def _copy(self, split: str) -> DecodedCopy:
        file = self.root / COPIES / f"{split}{self.fold}.npy"
        return DecodedCopy(file, self.videos(split).paths, self.decode_seconds)

    def _reader(self, split: str) -> Reader:
        return self._copy(split).open() if self.decoded_copy else self.files

    def train_dataloader(self) -> DataLoader[Sample]:
        videos = self.training_videos()
        clips = TrainClips(
            videos, self._reader("train"), self.num_frames, self.frame_stride, self.train_view, self.seed
        )
        place, self._place = self._place, {"epoch": 0, "batches": 0}
        behind = place["batches"] * self.batch_size
        order = EpochShuffle(len(videos), self.seed, *self._process, place["epoch"], behind)
        # A last, smaller batch would have its own BN statistics.
        return self._loader(clips, batch_size=self.batch_size, sampler=order, drop_last=True)

    def val_dataloader(self) -> DataLoader[Sample]:
        return self._in_turns("val", self.val_view, 1, self.batch_size)

    def test_dataloader(self) -> DataLoader[Sample]:
        return self._in_turns("test", self.test_views, self.num_clips, self.test_batch_size)

    def _in_turns(self, split: str, views: TestViews, clips: int, batch_size: int) -> DataLoader[Sample]:
        list_, reader = self.videos(split), self._reader(split)
        videos = TestVideos(list_, reader, self.num_frames, self.frame_stride, views, clips)
        return self._loader(videos, batch_sampler=turns(len(videos), batch_size, *self._process))

    def _loader(self, dataset: Any, **kwargs: Any) -> DataLoader[Sample]:
        # PyTorch's advice where there are more workers than cores: who waits for a network disk has a reason for them.
        warnings.filterwarnings("ignore", "This DataLoader will create")
        return DataLoader(
            dataset,
            num_workers=self.num_workers,
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # its own, or every epoch would draw from those of dropout
            persistent_workers=self.num_workers > 0,
            pin_memory=torch.cuda.is_available(),
            **kwargs,
        )

    def on_after_batch_transfer(self, batch: Sample, dataloader_idx: int) -> Sample:
        """Views as (N, V, 3, T, H, W): no copy, so that the clips are channels-last in memory."""
        return batch._replace(views=batch.views.permute(0, 1, 5, 2, 3, 4))


def _begin_worker(worker: int) -> None:
    """A cluster tells the workers to stop as well; the process that they read for still wants its iteration's batch."""
    ignore_stops()
    signal.signal(signal.SIGTERM, lambda number, frame: signal.alarm(GRACE))
