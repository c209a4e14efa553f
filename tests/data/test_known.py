"""What a number of videos says, and how lists are compared by id."""

import pytest

from nl_lightning.data.known import KNOWN, Overlap, closest, overlap, said_of


def test_no_two_known_lists_of_a_split_have_one_number() -> None:
    """Else the number wouldn't tell them apart."""
    assert len({(known.split, known.videos) for known in KNOWN}) == len(KNOWN)
    assert {known.split for known in KNOWN} == {"train", "val"}


@pytest.mark.parametrize(
    ("videos", "split", "said"),
    [
        (19_761, "val", "val: 19,761 videos, as many as in Kinetics-400 val of the released code (facebookresearch"),
        (19_796, "test", "test: 19,796 videos, as many as in Kinetics-400 val of mmaction2"),
        (19_880, "val", "val: 19,880 videos, 1 fewer than the 19,881 of Kinetics-400 val of CVDF"),
        (
            234_700,
            "train",
            "train: 234,700 videos, 57 more than the 234,643 of Kinetics-400 train of the released code",
        ),
        (9_537, "train", "train: 9,537 videos, as many as in UCF101 train of split 1"),
        (600, "val", "val: 600 videos, as many as in no list that is known"),
        (0, "train", "train: 0 videos, as many as in no list that is known"),
    ],
)
def test_the_closest_list_is_named(videos: int, split: str, said: str) -> None:
    assert said_of(videos, split).startswith(said)


def test_a_count_far_from_all_is_like_none() -> None:
    """A part of a data set is nobody's list, only because there happens to be one of a similar size."""
    assert closest(1_530, "val") is not None
    assert closest(1_400, "val") is None
    assert closest(1_530, "train") is None


def test_lists_are_compared_by_id() -> None:
    """Names differ in folder, times and ending; a name without an id is counted, and left out."""
    first = ["val/abseiling/-abcdefghij_000010_000020.mp4", "00000000000.mp4", "a/v_Archery_g01_c01.avi"]
    second = ["/scratch/abseiling/-abcdefghij.mp4", "00000000001_000000_000010.mkv"]
    assert overlap(first, second) == Overlap(both=1, first_only=1, second_only=1, without_id=1)
    assert overlap([], second) == Overlap(0, 0, 2, 0)
