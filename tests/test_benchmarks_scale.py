"""The queue of a study on a cluster, against what can be computed without simulating; and the page made of it."""

from dataclasses import replace

import numpy as np
import pytest

from benchmarks.machine import between
from benchmarks.scale import PAGE, Assumed, Job, bound, jobs, report, simulate

NEVER = replace(Assumed(), preempted=0)
QUEUE = [Job("a", 8, 1), Job("b", 4, 1), Job("c", 16, 1, after="b"), Job("d", 2, 1)]


def run(gpus: int, together: int = 1, assumed: Assumed = NEVER, longest_first: bool = False, seed: int = 0) -> float:
    return simulate(QUEUE, gpus, together, assumed, np.random.default_rng(seed), longest_first).hours


def test_one_gpu_does_everything_one_after_the_other() -> None:
    assert run(1) == 30
    assert run(8, 8) == 30 / 8


def test_many_gpus_wait_for_the_longest_chain() -> None:
    assert run(100) == 4 + 16
    assert bound(QUEUE, 100, 1) == 20
    assert bound(QUEUE, 1, 1) == 30


def test_two_gpus_by_hand() -> None:
    """In order: a and b begin; c follows b at 4; d follows a at 8; c ends at 20. Chain first changes nothing here."""
    assert run(2) == run(2, longest_first=True) == 20
    late = [Job("d", 10, 1), Job("a", 10, 1), Job("b", 4, 1), Job("c", 16, 1, after="b")]
    hours = [simulate(late, 2, 1, NEVER, np.random.default_rng(0), first).hours for first in (False, True)]
    assert hours == [10 + 4 + 16, 20]


def test_preemptions_cost_what_they_should_on_average() -> None:
    assumed = replace(NEVER, preempted=100, checkpoint=30, restart=15)  # one in ten hours, half an hour each time
    found = [simulate(QUEUE, 1, 1, assumed, np.random.default_rng(seed), False) for seed in range(400)]
    assert np.mean([one.hours for one in found]) == pytest.approx(30 * (1 + 0.1 * 0.5), rel=0.01)
    assert np.mean([one.lost for one in found]) == pytest.approx(30 * 0.1 * 0.5, rel=0.1)


@pytest.mark.parametrize("gpus", [8, 64, 1000])
def test_no_order_beats_the_bound(gpus: int) -> None:
    queue = jobs(NEVER)
    assert len(queue) == 29
    for first in (False, True):
        found = simulate(queue, gpus, 8, NEVER, np.random.default_rng(0), first)
        assert found.hours >= bound(queue, gpus, 8) - 1e-9
        assert found.busy == pytest.approx(sum(job.hours for job in queue))


def test_hours_of_a_network_by_hand() -> None:
    """C2D ResNet-50: 20.2 G multiply-adds a clip, three times, of 25.6 million clips; and its test."""
    (c2d,) = (job for job in jobs(Assumed()) if job.name == "c2d_r50")
    assert c2d.hours == pytest.approx(20.233617408e9 * (3 * 25.6e6 + 200_000 * 256 * 340 / 224**2) / 20e12 / 3600)


def test_the_page_is_what_the_command_writes() -> None:
    text = PAGE.read_text()
    assert text == between(text, "scale", report(Assumed()))
