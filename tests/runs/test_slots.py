"""A machine shared among workers."""

import pytest

from nl_lightning.runs import slots
from nl_lightning.runs.slots import Slots


def shares(workers: int) -> list[dict[str, str]]:
    places = Slots(workers)
    return [places.environment(places.take()) for _ in range(workers)]


@pytest.mark.parametrize(
    ("gpus", "workers", "expected"),
    [
        ("0,1,2,3", 4, ["0", "1", "2", "3"]),
        ("0,1,2,3", 2, ["0,1", "2,3"]),
        ("4,5", 4, ["4", "5", "4", "5"]),  # two workers share a GPU
        ("GPU-a,GPU-b,GPU-c", 2, ["GPU-a", "GPU-b"]),
        ("3", 1, ["3"]),
    ],
)
def test_gpus_are_dealt_out(monkeypatch: pytest.MonkeyPatch, gpus: str, workers: int, expected: list[str]) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    assert [share["CUDA_VISIBLE_DEVICES"] for share in shares(workers)] == expected


def test_cores_are_dealt_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(slots, "cores", lambda: 8)
    assert shares(3) == [{"OMP_NUM_THREADS": "2"}] * 3
    assert shares(16)[0] == {"OMP_NUM_THREADS": "1"}
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    assert shares(2) == [{"OMP_NUM_THREADS": "3"}] * 2


def test_a_slot_that_is_given_back_is_taken_again() -> None:
    places = Slots(2)
    first, second = places.take(), places.take()
    places.give_back(second)
    assert places.take() == second != first
