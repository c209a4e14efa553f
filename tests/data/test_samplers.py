"""Orders that don't depend on how many processes share them, or on where one of them was interrupted."""

import pytest

from nl_lightning.data.samplers import EpochShuffle, Turns


def test_an_epochs_order_depends_on_seed_and_epoch_alone() -> None:
    sampler, again = EpochShuffle(20, seed=3), EpochShuffle(20, seed=3)
    first = list(sampler)
    assert first == list(sampler) == list(again)
    assert sorted(first) == [(0, video) for video in range(20)]
    sampler.set_epoch(1)
    second = list(sampler)
    assert [video for _, video in second] != [video for _, video in first]
    assert {epoch for epoch, _ in second} == {1}
    assert list(EpochShuffle(20, seed=4)) != first


@pytest.mark.parametrize("processes", [2, 3, 7])
def test_processes_share_one_order(processes: int) -> None:
    whole = list(EpochShuffle(20, seed=3))
    parts = [EpochShuffle(20, 3, process, processes) for process in range(processes)]
    assert {len(part) for part in parts} == {20 // processes}
    together = [video for turn in zip(*parts, strict=True) for video in turn]
    assert together == whole[: len(together)]
    assert len(whole) - len(together) < processes


@pytest.mark.parametrize("processes", [1, 2])
def test_an_epoch_goes_on_where_it_was(processes: int) -> None:
    whole = EpochShuffle(20, 3, 0, processes, epoch=5)
    resumed = EpochShuffle(20, 3, 0, processes, epoch=5, behind=4)
    assert list(resumed) == list(whole)[4:]
    assert len(resumed) == len(whole)  # of the epoch, so that its end is where it was
    resumed.set_epoch(6)
    whole.set_epoch(6)
    assert list(resumed) == list(whole)


def test_an_epoch_that_was_read_to_its_end_takes_nothing_from_the_next() -> None:
    """Stopped within the validation after it, a run begins with the next one: of this one nothing is asked for."""
    resumed = EpochShuffle(20, 3, epoch=5, behind=20)
    resumed.set_epoch(6)
    assert len(list(resumed)) == 20


@pytest.mark.parametrize("processes", [1, 2, 3, 9])
def test_every_video_is_tested_once_in_the_batches_of_a_single_process(processes: int) -> None:
    batches = [batch for process in range(processes) for batch in Turns(22, 4, process, processes)]
    assert sorted(batches) == list(Turns(22, 4))
    assert sorted(video for batch in batches for video in batch) == list(range(22))
