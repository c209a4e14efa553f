"""What a record says beside its numbers: energy by made-up counters, hashes of content and of weights."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from nl_lightning.data.videos import VideoList
from nl_lightning.train import evidence
from nl_lightning.train.evidence import Meter, content, processors, weights


def socket(folder: Path, name: str, microjoules: int, span: int = 1_000_000_000) -> Path:
    """A processor's counter as Linux shows it."""
    (folder / name).mkdir()
    (folder / name / "max_energy_range_uj").write_text(f"{span}\n")
    (folder / name / "energy_uj").write_text(f"{microjoules}\n")
    return folder / name / "energy_uj"


def test_energy_of_all_processors_over_several_attempts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "POWERCAP", tmp_path)
    first, second = socket(tmp_path, "intel-rapl:0", 999_000_000), socket(tmp_path, "intel-rapl:1", 5_000_000)
    socket(tmp_path, "intel-rapl:0:0", 7)  # a part of the first
    meter = Meter()
    first.write_text("1000000")  # it has started again from 0
    second.write_text("8000000")
    assert meter.state_dict()["joules"] == {"processors": pytest.approx(2 + 3)}
    again = Meter()
    again.load_state_dict(meter.state_dict())
    second.write_text("9000000")
    assert again.state_dict() == {"started": meter.started, "joules": {"processors": pytest.approx(6)}}


def test_no_energy_is_better_than_a_part_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evidence, "POWERCAP", tmp_path)
    assert Meter().joules == {}  # a machine that doesn't tell
    told = socket(tmp_path, "intel-rapl:0", 1)
    hidden = socket(tmp_path, "intel-rapl:1", 1)
    meter = Meter()
    hidden.write_text("")
    assert meter.state_dict()["joules"] == {}
    assert processors() == []
    hidden.unlink()
    assert processors() == []
    assert told.exists()


def test_accelerators_tell_by_their_own_library(monkeypatch: pytest.MonkeyPatch) -> None:
    def total(handle: Any, millijoules: Any) -> int:
        millijoules._obj.value = 5000
        return 0 if handle.value == 7 else 3

    def handle_of(uuid: bytes, handle: Any) -> int:
        handle._obj.value = 7 if uuid == b"GPU-one" else 8
        return 0

    library = SimpleNamespace(
        nvmlInit_v2=lambda: 0, nvmlDeviceGetHandleByUUID=handle_of, nvmlDeviceGetTotalEnergyConsumption=total
    )
    monkeypatch.setattr(evidence.ctypes, "CDLL", lambda name: library)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    for uuids, told in ((["one"], [5.0]), (["one", "silent"], [])):
        monkeypatch.setattr(torch.cuda, "device_count", lambda uuids=uuids: len(uuids))
        monkeypatch.setattr(
            torch.cuda, "get_device_properties", lambda index, uuids=uuids: SimpleNamespace(uuid=uuids[index])
        )
        assert [read() for read, _ in evidence.accelerators()] == told


def data(root: Path, **more: Any) -> Any:
    videos = VideoList.of(root, ["a.mp4", "b.mp4"], [0, 0])
    return SimpleNamespace(**{"videos": lambda split: videos, "manifest": None, "shards": None, **more})


def test_the_hash_of_a_split_follows_its_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.mp4").write_bytes(b"one")
    found = [content(data(tmp_path), "test")]  # one of its two files is missing
    for file, bytes_ in (("b.mp4", b"two"), ("b.mp4", b"owt"), ("b.mp4", b"three")):
        (tmp_path / file).write_bytes(bytes_)
        found.append(content(data(tmp_path), "test"))
    assert len(set(found)) == 4
    assert {one.partition(":")[0] for one in found} == {"bytes"}
    monkeypatch.setattr(evidence, "MOST_READ", 7)  # a large set is asked for sizes alone
    sizes = content(data(tmp_path), "test")
    (tmp_path / "b.mp4").write_bytes(b"eerht")
    assert content(data(tmp_path), "test") == sizes
    assert sizes.startswith("sizes:")
    census = SimpleNamespace(content=lambda paths: "what it found")
    assert content(data(tmp_path, manifest=census), "test").startswith("census:")
    assert content(data(tmp_path, shards=object()), "test").startswith("list:")


def test_weights_are_hashed_to_the_last_bit() -> None:
    net = {"a": torch.zeros(3, 2), "b": torch.tensor(1)}
    assert weights(net) == weights(dict(reversed(net.items())))
    assert weights(net) == weights({**net, "a": net["a"].t().contiguous().t()})  # whatever its strides
    others = [{**net, "a": torch.zeros(2, 3)}, {**net, "b": torch.tensor(2)}, {"a": net["a"], "c": net["b"]}]
    assert len({weights(net), *map(weights, others)}) == 4
