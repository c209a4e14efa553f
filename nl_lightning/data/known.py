"""Counts of videos that are known from elsewhere, and how far two lists are of the same videos.

Videos of YouTube vanish, so that everybody's Kinetics is another one. A count says which copy a list is likely to be
of, and only a comparison by id whether it is.
"""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from nl_lightning.data.folders import youtube_id


@dataclass(frozen=True)
class Known:
    """A list of which the number of videos is known: of which data set and split, whose it is, and who says so."""

    data: str
    split: str
    videos: int
    whose: str
    source: str


KNOWN = (
    Known("Kinetics-400", "train", 246_535, "the data set's authors", "facebookresearch/video-nonlocal-net DATASET.md"),
    Known("Kinetics-400", "train", 241_258, "CVDF", "cvdfoundation/kinetics-dataset #51"),
    Known("Kinetics-400", "train", 240_436, "mmaction2", "open-mmlab/mmaction2 tools/data/kinetics"),
    Known("Kinetics-400", "train", 234_643, "the released code", "facebookresearch/video-nonlocal-net DATASET.md"),
    Known("Kinetics-400", "val", 19_907, "the data set's authors", "activitynet/ActivityNet #38"),
    Known("Kinetics-400", "val", 19_881, "CVDF", "cvdfoundation/kinetics-dataset #51"),
    Known("Kinetics-400", "val", 19_796, "mmaction2", "open-mmlab/mmaction2 tools/data/kinetics"),
    Known("Kinetics-400", "val", 19_761, "the released code", "facebookresearch/video-nonlocal-net DATASET.md"),
    Known("Kinetics-400", "val", 18_434, "Tushar-N/pytorch-resnet3d", "Tushar-N/pytorch-resnet3d README"),
    Known("Kinetics-400", "val", 17_747, "the data set's authors, later", "MCG-NJU/VideoMAE #94"),
    Known("Kinetics-600", "train", 427_549, "CVDF", "FiftyOne's documentation, Kinetics 600"),
    Known("Kinetics-600", "train", 383_393, "mmaction2", "open-mmlab/mmaction2 tools/data/kinetics"),
    Known("Kinetics-600", "train", 370_582, "the data set's authors, later", "FiftyOne's documentation, Kinetics 600"),
    Known("Kinetics-600", "val", 29_793, "CVDF", "FiftyOne's documentation, Kinetics 600"),
    Known("Kinetics-600", "val", 28_313, "the data set's authors, later", "FiftyOne's documentation, Kinetics 600"),
    Known("Kinetics-600", "val", 27_910, "mmaction2", "open-mmlab/mmaction2 tools/data/kinetics"),
    Known("Kinetics-700", "train", 542_357, "mmaction2", "open-mmlab/mmaction2 tools/data/kinetics"),
    Known("Kinetics-700", "val", 34_824, "mmaction2", "open-mmlab/mmaction2 tools/data/kinetics"),
    Known("Kinetics-700-2020", "train", 534_073, "CVDF", "FiftyOne's documentation, Kinetics 700-2020"),
    Known("Kinetics-700-2020", "val", 33_914, "CVDF", "FiftyOne's documentation, Kinetics 700-2020"),
    Known("UCF101", "train", 9_537, "split 1", "the data set's trainlist01.txt"),
    Known("UCF101", "train", 9_586, "split 2", "the data set's trainlist02.txt"),
    Known("UCF101", "train", 9_624, "split 3", "the data set's trainlist03.txt"),
    Known("UCF101", "val", 3_783, "split 1", "the data set's testlist01.txt"),
    Known("UCF101", "val", 3_734, "split 2", "the data set's testlist02.txt"),
    Known("UCF101", "val", 3_696, "split 3", "the data set's testlist03.txt"),
    Known("HMDB51", "train", 3_570, "each split", "70 videos of each of 51 classes"),
    Known("HMDB51", "val", 1_530, "each split", "30 videos of each of 51 classes"),
    Known("Something-Something v2", "train", 168_913, "the data set's authors", "their train.json"),
    Known("Something-Something v2", "val", 24_777, "the data set's authors", "their validation.json"),
)
"""Lists of testing are under ``val``, as videos for testing are those of the validation in all these data sets."""

NEAR = 0.05
"""How far a count may be from a known one, as a share of it, to say that it comes near."""


def closest(videos: int, split: str) -> Known | None:
    """The known list of a split with the nearest number of videos; None if that is more than :data:`NEAR` away."""
    side = "train" if split == "train" else "val"
    best = min((known for known in KNOWN if known.split == side), key=lambda known: abs(known.videos - videos))
    return best if abs(best.videos - videos) <= NEAR * best.videos else None


def said_of(videos: int, split: str) -> str:
    """One line on a count: which known list it is, or comes near; that it is like none of them."""
    known = closest(videos, split)
    if known is None:
        return f"{split}: {videos:,} videos, as many as in no list that is known"
    name = f"{known.data} {known.split} of {known.whose} ({known.source})"
    if known.videos == videos:
        return f"{split}: {videos:,} videos, as many as in {name}"
    difference = f"{abs(videos - known.videos):,} {'fewer' if videos < known.videos else 'more'} than"
    return f"{split}: {videos:,} videos, {difference} the {known.videos:,} of {name}"


@dataclass(frozen=True)
class Overlap:
    """How two lists share their videos, by YouTube's ids: in both, in the first only, in the second only.

    `without_id` are the names in either that hold no such id: nothing is said about them.
    """

    both: int
    first_only: int
    second_only: int
    without_id: int


def overlap(first: Iterable[str], second: Iterable[str]) -> Overlap:
    """Compare two lists by the names of their files, whatever the folders, times and endings in them."""
    one, other = ([youtube_id(name) for name in names] for names in (first, second))
    ids, others = _ids(one), _ids(other)
    return Overlap(len(ids & others), len(ids - others), len(others - ids), one.count(None) + other.count(None))


def _ids(found: Collection[str | None]) -> set[str]:
    return {one for one in found if one is not None}
