"""``nl-lightning predict``: the best classes of videos, by all views that a weight file says it is tested with."""

import json
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nl_lightning.data import decoding
from nl_lightning.data.datasets import TestVideos
from nl_lightning.data.locating import SUFFIXES, videos_below
from nl_lightning.data.transforms import TestViews
from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError, visible
from nl_lightning.models.complexity import complexity
from nl_lightning.study.evidence import cores
from nl_lightning.train.classifier import VideoClassifier
from nl_lightning.weights.file import read_header

MACS_OF_A_THREAD = 2e9
"""Multiply-adds of a forward pass that are worth a thread. A laptop network in two threads instead of one took three
times the processor time: they wait for one another more than they compute."""


@dataclass(frozen=True)
class Guess:
    """A class of a video: its number from 0, its name if the weight file knows it, and its score in 0..1."""

    label: int
    name: str | None
    score: float


@dataclass(frozen=True)
class Guesses:
    """The best classes of a video, the best first, from the mean scores of `views` views; or the `error`, in a line."""

    video: str
    views: int
    top5: tuple[Guess, ...]
    error: str = ""

    def as_text(self) -> str:
        """A line for the video, and one for each class."""
        if self.error:
            return f"{visible(self.error)} (left out)"
        lines = [f"{guess.score:8.1%}  {visible(guess.name or f'class {guess.label}')}" for guess in self.top5]
        return "\n".join([f"{visible(self.video)}  ({self.views} {'view' if self.views == 1 else 'views'})", *lines])


class Predictor:
    """The network of a weight file, ready for videos. UserError if the file can't be used."""

    def __init__(self, weights: Path) -> None:
        self.header = read_header(weights)
        seen = self.header.input
        # One clip's crops at a time: all views of a large network at once take gigabytes.
        self.model = VideoClassifier(
            self.header.net, mean=seen.mean, std=seen.std, weights=str(weights), test_pool=seen.test_pool,
            multi_label=seen.multi_label, views_per_forward=seen.num_crops,
        ).eval()  # fmt: skip
        self.model.setup("test")
        self.model.copy_for_testing()
        self.views = TestViews(seen.test_short_side, seen.test_crop, seen.num_crops, seen.clip_starts)
        clip = seen.num_frames, self.views.side, self.views.side
        self.threads = threads_for(seen.num_crops * complexity(self.header.net, clip).macs)

    def __call__(self, video: Path) -> Guesses:
        """The best five classes of a video."""
        seen = self.header.input
        alone = VideoList.of(Path(), [str(video)], [0])
        sample = TestVideos(alone, decoding, seen.num_frames, seen.frame_stride, self.views, seen.num_clips)[0]
        if not sample.readable:
            return Guesses(sample.path, 0, (), sample.error)
        with torch.no_grad(), threads(self.threads):
            views = self.model.log_probabilities(sample.views.permute(0, 4, 1, 2, 3)[None])  # (1, V, classes)
        scores = views[0].exp().mean(dim=0)
        best = scores.topk(min(5, len(scores)))
        names = dict(enumerate(self.header.classes))
        guesses = (Guess(k, names.get(k), s) for s, k in zip(best.values.tolist(), best.indices.tolist(), strict=True))
        return Guesses(sample.path, len(sample.views), tuple(guesses))


def threads_for(macs: float) -> int:
    """How many threads a forward pass of so many multiply-adds is worth, of the cores that this process may use."""
    return max(1, min(cores(), torch.get_num_threads(), round(macs / MACS_OF_A_THREAD)))


@contextmanager
def threads(count: int) -> Iterator[None]:
    """torch computes in so many threads meanwhile."""
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def videos_in(paths: Sequence[Path]) -> list[Path]:
    """Video files, and those below folders, in alphabetical order. UserError if a folder holds none."""
    found: list[Path] = []
    for path in paths:
        videos = sorted(path / name for name in videos_below(path)) if path.is_dir() else [path]
        if not videos:
            raise UserError(f"{path}: no video ({', '.join(sorted(SUFFIXES))}) lies in this folder or below it")
        found += videos
    return found


def as_json(found: Sequence[Guesses]) -> str:
    """A list of one object a video. Characters that a terminal would obey are escaped."""
    text = json.dumps([asdict(guesses) for guesses in found], indent=2, ensure_ascii=False)
    return re.sub("[\x7f-\x9f\u2028\u2029]", lambda found: f"\\u{ord(found[0]):04x}", text)
