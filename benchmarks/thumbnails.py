"""How much of a set of videos one thumbnail tells: ``python -m benchmarks.thumbnails RECIPE [--root FOLDER]``.

The control for real videos: clips of one place look alike, whatever happens in them. Of each video only the middle
frame is seen, at 24 x 14 pixels. A video gets the label of the training video whose thumbnail is nearest. For a folder
of your own videos, RECIPE is ``folder``. A network that is no better than this may know nothing but the places.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image

from nl_lightning.cli.videos import DataSet
from nl_lightning.data import decoding
from nl_lightning.data.videos import VideoList

SIZE = (24, 14)  # width and height in pixels


def thumbnails(videos: VideoList) -> npt.NDArray[np.float64]:
    """The middle frame of each video, small, as a row (N, D)."""
    rows = []
    for path in videos.paths:
        (frame,) = decoding.frames(path, [decoding.num_frames(path) // 2])
        rows.append(np.asarray(Image.fromarray(frame).resize(SIZE, Image.Resampling.BOX), float).ravel())
    return np.stack(rows)


def accuracy(near: npt.NDArray[np.float64], known: npt.NDArray[np.int32], asked: npt.NDArray[np.int32]) -> float:
    """Percent of rows whose nearest column has the right label, from distances (asked, known)."""
    return float(100 * (known[near.argmin(axis=1)] == asked).mean())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="whose data: name or path")
    parser.add_argument("--root", type=Path, help="folder of the data set (default: the recipe's)")
    of = parser.parse_args(arguments)
    data = DataSet(of.recipe, root=of.root).load()
    train, test = data.videos("train"), data.videos("test")
    rows, labels = np.concatenate([thumbnails(train), thumbnails(test)]), np.concatenate([train.labels, test.labels])
    distances = np.stack([((rows - row) ** 2).sum(axis=1) for row in rows])  # (N, N)
    count = len(train)
    print(f"test videos by training videos: {accuracy(distances[count:, :count], train.labels, test.labels):.1f} %")
    np.fill_diagonal(distances, np.inf)
    print(f"all videos, each by all others: {accuracy(distances, labels, labels):.1f} %")
    print(f"chance: {100 / len(np.unique(labels)):.1f} %; {count} training and {len(test)} test videos")


if __name__ == "__main__":
    main()
