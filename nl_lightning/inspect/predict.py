"""``nl-lightning predict``: the best classes of videos, by all views that a weight file says it is tested with."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch

from nl_lightning.data import decoding
from nl_lightning.data.datasets import TestVideos
from nl_lightning.data.locating import SUFFIXES
from nl_lightning.data.transforms import TestViews
from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError
from nl_lightning.train.classifier import VideoClassifier
from nl_lightning.weights.file import InputSettings, WeightsHeader, read_header


@dataclass(frozen=True)
class Guess:
    """A class of a video: its number from 0, its name if the weight file knows it, and its score in 0..1."""

    label: int
    name: str | None
    score: float


@dataclass(frozen=True)
class Prediction:
    """The best classes of a video, the best first, from the mean scores of `views` views; or the `error`, in a line."""

    video: str
    views: int
    top5: tuple[Guess, ...]
    error: str = ""


def predictions(paths: Sequence[Path], weights: Path) -> Iterator[Prediction]:
    """The best five classes of each video in `paths`, files or folders of files, in order.

    Raises:
        UserError: the weight file can't be used, or a folder holds no video.
    """
    videos = tuple(video for path in paths for video in _videos(path))
    header = read_header(weights)
    seen = header.input
    # One clip's crops at a time: all views of a large network at once take gigabytes.
    model = VideoClassifier(
        header.net, mean=seen.mean, std=seen.std, weights=str(weights), test_pool=seen.test_pool,
        multi_label=seen.multi_label,
        views_per_forward=seen.num_crops,
    ).eval()  # fmt: skip
    model.setup("test")
    model.copy_for_testing()
    return _predicted(model, header, _dataset(videos, seen))


def _videos(path: Path) -> list[Path]:
    """The videos below a folder, in alphabetical order, or the file itself."""
    if not path.is_dir():
        return [path]
    found = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.name[0] != ".")
    if not found:
        raise UserError(f"{path}: no video ({', '.join(sorted(SUFFIXES))}) lies in this folder or below it")
    return found


def _dataset(videos: tuple[Path, ...], seen: InputSettings) -> TestVideos:
    views = TestViews(seen.test_short_side, seen.test_crop, seen.num_crops, seen.clip_starts)
    unlabelled = VideoList.of(Path(), [str(video) for video in videos], [0] * len(videos))
    return TestVideos(unlabelled, decoding, seen.num_frames, seen.frame_stride, views, seen.num_clips, seen.clip_starts)


def _predicted(model: VideoClassifier, header: WeightsHeader, videos: TestVideos) -> Iterator[Prediction]:
    for index in range(len(videos)):
        sample = videos[index]
        if not sample.readable:
            yield Prediction(sample.path, 0, (), sample.error)
            continue
        with torch.no_grad():
            views = model.log_probabilities(sample.views.permute(0, 4, 1, 2, 3)[None])  # (1, V, classes)
        scores = views[0].exp().mean(dim=0)
        best = scores.topk(min(5, len(scores)))
        names = dict(enumerate(header.classes))
        guesses = (Guess(k, names.get(k), s) for s, k in zip(best.values.tolist(), best.indices.tolist(), strict=True))
        yield Prediction(sample.path, len(sample.views), tuple(guesses))


def as_text(prediction: Prediction) -> str:
    """A line for the video, and one for each class."""
    if prediction.error:
        return f"{prediction.error} (left out)"
    lines = [f"{guess.score:8.1%}  {guess.name or f'class {guess.label}'}" for guess in prediction.top5]
    return "\n".join([f"{prediction.video}  ({prediction.views} views)", *lines])


def as_json(found: Sequence[Prediction]) -> str:
    """A list of one object a video."""
    return json.dumps([asdict(prediction) for prediction in found], indent=2, ensure_ascii=False)
