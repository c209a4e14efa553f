import errno
import json
import math
import os
import re
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import fields, replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from nl_lightning.errors import UserError
from nl_lightning.models.complexity import complexity
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig
from nl_lightning.study.evidence import Evidence, Machine
from nl_lightning.study.files import write_atomically
from nl_lightning.study.loading import load_study
from nl_lightning.study.lock import Holder, acquire
from nl_lightning.study.metrics import MAP, TOP1
from nl_lightning.study.packing import pack, pack_numbers, unpack, unpack_numbers
from nl_lightning.study.recipe import Recipe, hash_of, load_recipe, run_hash
from nl_lightning.study.records import (
    Record,
    load_records,
    portable,
    read_record,
    record_path,
    videos_hash,
    write_record,
)
from nl_lightning.study.run import Marker, Run, State, begun, identified, plan
from nl_lightning.study.study import Study

RECORD = Record(
    study="small",
    recipe="quick",
    variant="plain",
    seed=0,
    config_hash="0123456789ab",
    config={},
    top1=64.25,
    top5=97.0,
    videos_expected=400,
    videos_scored=399,
    num_clips=2,
    num_crops=1,
    params=43_000,
    macs=2_000_000,
    steps=1125,
    train_seconds=95.5,
    test_seconds=11.0,
    device="CPU (x86_64), 2 thread(s)",
    decoder="decord 0.6.0",
    commit="0123456789abcdef0123456789abcdef01234567",
    dirty=False,
    finished="2026-01-02T03:04:05+00:00",
    unreadable=["time_same/test_00007.mp4"],
    top1_by_group={"space": 45.0, "look": 100},
    curve=[{"step": 0, "train/loss": 2.4}, {"step": 1, "train/loss": 1.9}],
    versions={"python": "3.11.7", "torch": "2.11.0"},
)


def file_of(results: Path, record: Record) -> Path:
    return record_path(results, record.recipe, record.variant, record.seed)


# ------------------------------------------------------------------------------------------- which videos are right


@given(st.lists(st.booleans(), max_size=40))
def test_a_bit_a_video_goes_in_and_out(right: list[bool]) -> None:
    assert unpack(pack(right), len(right)) == right


def test_the_videos_of_kinetics_take_few_bytes() -> None:
    assert len(pack([True, False] * 10_000)) < 3_400


def test_a_record_says_which_videos_are_right(tmp_path: Path) -> None:
    right = [True] * 257 + [False] * 143
    record = replace(RECORD, videos_hash="abc", right_top1=pack(right))
    read = read_record(write_record(tmp_path, record))
    assert read.right(1) == right
    assert read.right(5) is None


MULTI = replace(RECORD, top1=None, top5=None, mAP=40.0, videos_expected=4, videos_scored=4)


def test_a_record_may_have_an_map_in_place_of_accuracies(tmp_path: Path) -> None:
    record = replace(MULTI, mAP_by_video=pack_numbers([10.0, 20.0, -30.5, 160.5]))
    read = read_record(write_record(tmp_path, record))
    assert read == record
    assert unpack_numbers(read.mAP_by_video, 4) == [10.0, 20.0, -30.5, 160.5]
    assert read.score(MAP) == 40.0
    with pytest.raises(UserError, match="the record of plain, recipe .*, seed 0 has no top1"):
        read.score(TOP1)


SOFT = replace(
    RECORD, top1=50.0, top5=100.0, videos_expected=4, videos_scored=4, unreadable=[], curve=[],
    right_top1=pack([True, False, True, False]), soft=50.0, soft_by_video=pack_numbers([80.0, 20.0, 60.0, 40.0]),
    videos_by_group={"a": pack([True, True, False, False]), "b": pack([False, True, True, True])},
    top1_by_group={"a": 50.0, "b": 33.3333}, soft_by_group={"a": 50.0, "b": 40.0},
)  # fmt: skip


def test_a_record_has_the_soft_score_of_each_video(tmp_path: Path) -> None:
    read = read_record(write_record(tmp_path, SOFT))
    assert unpack_numbers(read.soft_by_video, 4) == [80.0, 20.0, 60.0, 40.0]
    assert read == SOFT


THIRTEEN = {"model": {"net": {"num_classes": 13}}}
RIGHT = pack([True] * 257 + [False] * 143)


@pytest.mark.parametrize(
    ("record", "fields", "said"),
    [
        (MULTI, {"mAP": None}, "the key 'top1' is missing"),
        (RECORD, {"top1": None}, "the key 'top1' is missing"),
        (RECORD, {"top5": None}, "the key 'top5' is missing"),
        (RECORD, {"top1": 640.0}, "top1: expected percent, 0 to 100, got 640.0"),
        (RECORD, {"top1": 98.0}, "top1: 98.0 is more than top5, 97.0"),
        (RECORD, {"curve": [{"step": 1.0}, {"val/top1": 50.0}]}, "curve[1]: the key 'step' is missing"),
        (RECORD, {"curve": [{"step": 2.0}, {"step": 1.0}]}, "curve: its points are at step 2 and then 1"),
        (RECORD, {"top1_by_group": {"a": 10.0, "b": 60.0}}, "top1_by_group: from 10.0 to 60.0, but top1 is 64.25"),
        (RECORD, {"videos_present": 401}, "videos_present: expected 0 to 400 (videos_expected), got 401"),
        (RECORD, {"videos_present": 398}, "videos_scored: expected 0 to 398 (videos_present), got 399"),
        (RECORD, {"videos_decodable": 398}, "videos_scored: expected 0 to 398 (videos_decodable), got 399"),
        (RECORD, {"train_videos": {"expected": 9, "decodable": 10}},
         "train_videos.decodable: expected 0 to 9 (train_videos.expected), got 10"),
        (RECORD, {"videos_scored": 0}, "videos_scored: expected 1 to 400 (videos_expected), got 0"),
        (RECORD, {"videos_scored": 398}, "unreadable: names 1 videos, but 2 of 400 were not scored"),
        (RECORD, {"videos_scored": 200, "unreadable": [*map(str, range(200))]},
         "top1: 64.25, but only 200 of 400 videos were scored"),
        (RECORD, {"evidence": Evidence(by_class=[64.25] * 12), "config": {"recipe": THIRTEEN}},
         "evidence.by_class: expected 13 numbers, one a class, got 12"),
        (RECORD, {"evidence": Evidence(by_class=[10.0, None, 60.0])},
         "evidence.by_class: from 10.00 to 60.00, but top1 is 64.25"),
        (MULTI, {"evidence": Evidence(by_class=[30.0, None, 40.0])},
         "evidence.by_class: from 35.00 to 35.00, but mAP is 40.0"),
        (RECORD, {"train_videos": {"exepcted": 1}}, "train_videos: unknown key 'exepcted'; did you mean 'expected'?"),
        (RECORD, {"right_top1": pack([True] * 357)}, "right_top1: not a bit for each of 400 videos"),
        (RECORD, {"right_top1": "?"}, "right_top1: not a bit for each of 400 videos"),
        (RECORD, {"right_top1": pack([True] * 256 + [False] * 144)},
         "right_top1: 64.000 % of its videos are right, but top1 is 64.25"),
        (RECORD, {"right_top1": RIGHT, "right_top5": pack([False] * 12 + [True] * 388)},
         "right_top1: a video is right by it, but isn't in right_top5"),
        (RECORD, {"right_top1": RIGHT, "read_videos": pack([False] + [True] * 399)},
         "right_top1: a video is right by it, but isn't in read_videos"),
        (MULTI, {"mAP_by_video": pack_numbers([40.0] * 3)}, "mAP_by_video: not a number for each of 4 videos"),
        (MULTI, {"mAP_by_video": "?"}, "mAP_by_video: not a number for each of 4 videos"),
        (MULTI, {"mAP_by_video": pack_numbers([41.0] * 4)}, "mAP_by_video: the videos' mean is 41.000, but mAP is 40"),
        (MULTI, {"mAP_by_video": pack_numbers([math.nan] * 4)}, "mAP_by_video: the videos' mean is nan"),
        (SOFT, {"soft": 51.0}, "soft_by_video: the videos' mean is 50.000, but soft is 51.0"),
        (SOFT, {"soft": None}, "soft_by_video: the videos' mean is 50.000, but soft is None"),
        (SOFT, {"soft_by_video": pack_numbers([50.0] * 3)}, "soft_by_video: not a number for each of 4 videos"),
        (SOFT, {"soft_by_video": pack_numbers([180.0, -80.0, 60.0, 40.0])},
         "soft_by_video: expected percent, 0 to 100, got -80.000 to 180"),
        (SOFT, {"soft_by_group": {"a": 50.0, "b": 41.0}}, "soft_by_group.b: its videos' mean is 40.000, but it says"),
        (SOFT, {"top1_by_group": {"a": 50.0, "b": 50.0}}, "top1_by_group.b: its videos' mean is 33.333, but it says"),
        (SOFT, {"top1_by_group": {"a": 50.0}}, "top1_by_group: of a, but videos_by_group is of a, b"),
        (SOFT, {"videos_by_group": SOFT.videos_by_group | {"b": "a"}}, "videos_by_group.b: not a bit for each of 4"),
        (SOFT, {"videos_by_group": {"a": pack([False] * 4), "b": pack([True] * 4)}}, "videos_by_group.a: expected at"),
    ],
)  # fmt: skip
def test_records_that_contradict_themselves_are_refused(
    tmp_path: Path, record: Record, fields: dict[str, object], said: str
) -> None:
    with pytest.raises(UserError, match=re.escape(f"record of plain, seed 0: {said}")):
        write_record(tmp_path, replace(record, **fields))
    assert list(tmp_path.iterdir()) == []


def test_a_record_of_an_older_version_is_read(tmp_path: Path) -> None:
    path = write_record(tmp_path, RECORD)
    older = {key: value for key, value in json.loads(path.read_text()).items() if "right" not in key}
    path.write_text(json.dumps(older))
    assert read_record(path).right(1) is None


def test_a_test_list_has_a_hash_of_its_order_and_labels() -> None:
    videos = [("a/1.mp4", 0), ("b/2.mp4", 1)]
    hashes = {videos_hash(v) for v in (videos, videos[::-1], [("a/1.mp4", 1), videos[1]], videos[:1])}
    assert len(hashes) == 4


# -------------------------------------------------------------------------------------------------------- the files


def test_a_record_comes_back_as_it_was(tmp_path: Path) -> None:
    path = write_record(tmp_path, RECORD)
    assert path == tmp_path / "records/quick/plain/seed0.json"
    assert read_record(path) == RECORD
    assert path.stat().st_mode & 0o777 == 0o644
    assert [file.name for file in path.parent.iterdir()] == ["seed0.json"]  # nothing temporary is left


def test_a_record_is_never_overwritten(tmp_path: Path) -> None:
    path = write_record(tmp_path, RECORD)
    before = path.read_bytes()
    with pytest.raises(UserError, match="has its record already; delete the file"):
        write_record(tmp_path, replace(RECORD, top1=66.0))
    assert path.read_bytes() == before


def test_another_configurations_record_is_moved_aside(tmp_path: Path) -> None:
    old, new = RECORD, replace(RECORD, config_hash="aaaaaaaaaaaa", top1=70.0)
    for record in (old, new, old, new):  # back and forth: each move has a name of its own
        path = write_record(tmp_path, record)
        assert read_record(path) == record
    assert sorted(file.name for file in path.parent.iterdir()) == [
        "seed0.0123456789ab.2.json",
        "seed0.0123456789ab.json",
        "seed0.aaaaaaaaaaaa.json",
        "seed0.json",
    ]
    assert load_records(tmp_path, "quick") == ([new], [])  # the others are history


def test_of_records_that_are_filed_at_once_each_is_kept(tmp_path: Path) -> None:
    records = [replace(RECORD, config_hash=f"{i:012x}", top1=60.0 + i) for i in range(4)]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda record: write_record(tmp_path, record), records))
    files = file_of(tmp_path, RECORD).parent.iterdir()
    assert sorted(read_record(file).top1 for file in files) == [record.top1 for record in records]


def test_a_broken_record_is_moved_aside_too(tmp_path: Path) -> None:
    path = file_of(tmp_path, RECORD)
    path.parent.mkdir(parents=True)
    path.write_text("{")
    write_record(tmp_path, RECORD)
    assert read_record(path) == RECORD
    assert (path.parent / "seed0.unreadable.json").read_text() == "{"


def test_records_are_loaded_by_variant_and_seed(tmp_path: Path) -> None:
    records = [replace(RECORD, variant=variant, seed=seed) for variant in ("a", "b") for seed in (2, 10)]
    for record in reversed(records):
        write_record(tmp_path, record)
    write_record(tmp_path, replace(RECORD, recipe="other"))
    assert load_records(tmp_path, "quick") == (records, [])
    assert load_records(tmp_path, "nothing") == ([], [])
    path = record_path(tmp_path, "quick", records[0].variant, records[0].seed)
    path.with_name("seed007.json").write_bytes(path.read_bytes())  # no name that a record has
    assert load_records(tmp_path, "quick") == (records, [])


def test_a_record_in_another_runs_place_is_refused(tmp_path: Path) -> None:
    path = write_record(tmp_path, RECORD)
    path.rename(path.with_name("seed1.json"))
    (one,) = load_records(tmp_path, "quick")[1]
    assert (one.variant, one.seed) == ("plain", 1)
    assert "seed1.json: holds the record of plain, seed 0, recipe quick; was it moved" in one.why


def test_one_bad_file_hides_no_other_record(tmp_path: Path) -> None:
    """Of another version (a field more, a field less), cut off by a full disk, or no file at all."""
    for variant in ("good", "more", "less", "cut", "folder"):
        write_record(tmp_path, replace(RECORD, variant=variant))
    spoil = {name: file_of(tmp_path, replace(RECORD, variant=name)) for name in ("more", "less", "cut", "folder")}
    raw = json.loads(spoil["more"].read_text())
    spoil["more"].write_text(json.dumps(raw | {"new_field": 1}))
    spoil["less"].write_text(
        json.dumps({key: value for key, value in raw.items() if key != "steps"} | {"variant": "less"})
    )
    spoil["cut"].write_text(spoil["cut"].read_text()[:200])
    spoil["folder"].unlink()
    spoil["folder"].mkdir()
    records, unreadable = load_records(tmp_path, "quick")
    assert [record.variant for record in records] == ["good"]
    why = {one.variant: one.why for one in unreadable}
    assert set(why) == {"more", "less", "cut", "folder"}
    assert "unknown key 'new_field'" in why["more"]
    assert "was it written by a newer version?" in why["more"]
    assert "the key 'steps' is missing" in why["less"]
    assert "isn't JSON" in why["cut"]
    assert "expected a file, got a folder" in why["folder"]


@pytest.mark.parametrize(
    ("trainer", "steps", "said"),
    [
        ({"max_epochs": 9}, 1125, None),
        ({"max_epochs": 9}, 99_999, "steps: the curve ends at 1125 after 9 epochs, but steps is 99999"),
        ({"max_epochs": 10}, 1125, "steps: expected 1250, as 10 epochs of 2007 videos make, got 1125"),
        ({"max_epochs": 10, "max_steps": 1125}, 1125, None),
        ({"max_epochs": 18, "devices": 2}, 1116, "steps: the curve has a point at 1125, but steps is 1116"),
        ({"max_epochs": 18, "devices": 2}, 1125, "steps: expected 1116, as 18 epochs"),
        ({"max_epochs": 18, "accumulate_grad_batches": 2}, 1134, None),
        ({"max_epochs": 18, "accumulate_grad_batches": 2}, 1125, "steps: expected 1134"),
        ({"max_epochs": 10, "limit_train_batches": 0.5}, 1125, None),
        ({"max_epochs": 10, "callbacks": {"class_path": "EarlyStopping"}}, 1125, None),
        ({"max_epochs": "10"}, 1125, None),
        ({"max_epochs": -1, "max_steps": 1125}, 1125, None),  # no end but that
        ({"max_epochs": 9, "devices": -1}, 1125, None),  # all there are
    ],
)
def test_steps_are_those_of_the_epochs(
    tmp_path: Path, trainer: dict[str, object], steps: int, said: str | None
) -> None:
    config = {"recipe": {"trainer": trainer, "data": {"batch_size": 16}}}
    curve = [{"step": 125.0 * epoch} for epoch in range(1, 10)]
    record = replace(RECORD, config=config, steps=steps, curve=curve, train_videos={"expected": 2007})
    if said is None:
        write_record(tmp_path, record)
        return
    with pytest.raises(UserError, match=re.escape(said)):
        write_record(tmp_path, record)
    with_census = {"expected": 4000, "decodable": 2007}  # which of them were left out isn't known
    write_record(tmp_path, replace(record, steps=1500, curve=[], train_videos=with_census, config={"recipe": {
        "trainer": {"max_epochs": 9}, "data": {"batch_size": 16}}}))  # fmt: skip


@pytest.mark.parametrize(
    ("setting", "steps"), [("data.batch_size=32", 558), ("trainer.max_epochs=10", 1250), ("trainer.max_time=1:00", 9)]
)
def test_steps_are_those_of_the_settings_of_the_variant(tmp_path: Path, setting: str, steps: int) -> None:
    recipe, arguments = {"trainer": {"max_epochs": 9}, "data": {"batch_size": 16}}, [f"--{setting}"]
    config, hash_ = {"recipe": recipe, "arguments": arguments}, hash_of(recipe, arguments, None, RECORD.seed)
    record = replace(RECORD, config=config, config_hash=hash_, steps=steps, train_videos={"expected": 2007})
    write_record(tmp_path, record)
    with pytest.raises(UserError, match="steps: expected 1125, as 9 epochs"):
        write_record(tmp_path, replace(record, config={"recipe": recipe}))


def test_the_hash_is_that_of_the_configuration(tmp_path: Path) -> None:
    config = {"recipe": {"trainer": {"max_epochs": 2}}, "arguments": ["--model.net.depth=50"]}
    hash_ = hash_of(config["recipe"], config["arguments"], None, 0)
    write_record(tmp_path, replace(RECORD, config=config, config_hash=hash_))
    other = {**config, "arguments": ["--model.net.depth=101"]}
    for wrong in (other, {**other, "recipe": {"note": "wait .../ a text, not a folder"}}):
        with pytest.raises(UserError, match=f"config_hash: expected [0-9a-f]{{12}}, as config has it, got {hash_}"):
            write_record(tmp_path, replace(RECORD, config=wrong, config_hash=hash_, seed=0, variant="deep"))
    # What can't be told isn't judged: the parent's hash, and folders of another machine.
    write_record(tmp_path, replace(RECORD, config=other, config_hash=hash_, variant="child", init_from="plain"))
    assert portable({"lists": "/home/me/lists", "note": "~5 %"}) == {"lists": ".../lists", "note": "~5 %"}
    lists = ({"data": {"lists": ".../lists"}}, []), ({}, ["--data.lists=.../lists"])
    for i, (recipe, arguments) in enumerate(lists):
        moved = {"recipe": recipe, "arguments": arguments}
        write_record(tmp_path, replace(RECORD, config=moved, config_hash=hash_, variant=f"moved{i}"))


def test_a_diverged_run_needs_no_metric(tmp_path: Path) -> None:
    curve = [{"step": 0, "loss": 2.0}, {"step": 1}]
    record = replace(RECORD, top1=None, top5=None, top1_by_group={}, diverged="the loss from step 7 on", curve=curve)
    assert read_record(write_record(tmp_path, record)).diverged == "the loss from step 7 on"


def test_every_committed_record_is_sound() -> None:
    records, unreadable = load_records(Path(__file__).parents[2] / "results" / "earlier" / "longrange", "longrange")
    assert (len(records), unreadable) == (29, [])


def test_the_costs_in_committed_records_are_their_networks() -> None:
    records, _ = load_records(Path(__file__).parents[2] / "results" / "earlier" / "longrange", "longrange")
    some = {record.variant: record for record in records if record.variant in ("c2d_r50", "i3d311_r50_nl5_128f")}
    for record in some.values():
        recipe = record.config["recipe"]
        of_variant = dict(one.removeprefix("--model.net.").split("=", 1) for one in record.config["arguments"])
        net = {**recipe["model"]["net"], "depth": int(of_variant.pop("depth")), "conventions": Conventions(
            **recipe["model"]["net"]["conventions"])}  # fmt: skip
        if "non_local" in of_variant:
            net["non_local"] = NonLocalConfig(**json.loads(of_variant.pop("non_local")))
        cost = complexity(ResNetConfig(**{**net, **of_variant}), (recipe["data"]["num_frames"], 32, 32))
        assert (cost.params, cost.macs) == (record.params, record.macs)
    assert len(some) == 2


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("top1", None, "the key 'top1' is missing"),
        ("top1", "64", "top1: expected percent, 0 to 100, got '64'"),
        ("top1", 100.5, "top1: expected percent, 0 to 100, got 100.5"),
        ("top5", -1, "top5: expected percent, 0 to 100, got -1"),
        ("seed", 0.5, "seed: expected a whole number, 0 to 4294967295, got 0.5"),
        ("seed", -1, "seed: expected a whole number, 0 to 4294967295, got -1"),
        ("macs", 0, "macs: expected a whole number of at least 1, got 0"),
        ("params", -1, "params: expected a whole number of at least 1, got -1"),
        ("steps", 0, "steps: expected a whole number of at least 1, got 0"),
        ("train_seconds", -1, "train_seconds: expected a number, 0 to 1000000000"),
        ("finished", "yesterday", "finished: expected a time such as 2026-01-02T03:04:05"),
        ("variant", "../../x", "variant: '../../x' names files"),
        ("recipe", "../../../wb", "recipe: '../../../wb' names files"),
        ("config_hash", "../x", "config_hash: expected 12 hexadecimal digits, got '../x'"),
        ("dirty", 0, "dirty: expected true or false, got 0"),
        ("videos_scored", 401, r"videos_scored: expected 0 to 400 \(videos_expected\), got 401"),
        ("unreadable", "a.mp4", "unreadable: expected a list, got 'a.mp4'"),
        ("unreadable", [1], r"unreadable\[0\]: expected a text, got 1"),
        ("top1_by_group", {"space": "x"}, "top1_by_group.space: expected percent, 0 to 100, got 'x'"),
        ("curve", [{"step": "x"}], r"curve\[0\].step: expected a number, got 'x'"),
        ("init_from", 3, "init_from: expected a text, got 3; write it in quotes"),
        ("top_1", 3, "unknown key 'top_1'; did you mean 'top1'.; was it written by a newer version"),
    ],
)
def test_broken_fields_are_named(tmp_path: Path, field: str, value: object, message: str) -> None:
    path = write_record(tmp_path, RECORD)
    raw = json.loads(path.read_text())
    if value is None:
        del raw[field]
    else:
        raw[field] = value
    path.write_text(json.dumps(raw))
    with pytest.raises(UserError, match=f"^{path}: {message}"):
        read_record(path)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"{", "isn't JSON"),
        (b"[1]", "expected 'key: value' pairs, got \\[1\\]"),
        (b"\xff\xfe", "can't be read: line 1 isn't text"),
        (b"[" * 100_000, "lists and mappings lie more than 60 levels deep"),
    ],
)
def test_files_that_are_no_record(tmp_path: Path, content: bytes, said: str) -> None:
    path = tmp_path / "seed0.json"
    path.write_bytes(content)
    with pytest.raises(UserError, match=f"seed0.json: {said}"):
        read_record(path)
    with pytest.raises(UserError, match="no record .*seed1.json"):
        read_record(tmp_path / "seed1.json")


@pytest.mark.parametrize("call", ["os.fsync", "os.replace"])
def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    path = tmp_path / "file.txt"
    write_atomically(path, "old")

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(call, full)
    with pytest.raises(UserError, match=r"file.txt: can't be written: No space left on device"):
        write_atomically(path, "new")
    monkeypatch.undo()
    assert path.read_text() == "old"
    assert [file.name for file in tmp_path.iterdir()] == ["file.txt"]


def test_a_disk_that_cannot_wait_for_folders_is_good_enough(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fsync(file: int) -> None:
        if stat.S_ISDIR(os.fstat(file).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "fsync", fsync)
    write_atomically(tmp_path / "file.txt", "new")
    assert (tmp_path / "file.txt").read_text() == "new"


# -------------------------------------------------------------------------------------------------- state of a run


@pytest.fixture
def study(tmp_path: Path) -> Study:
    path = tmp_path / "small.yaml"
    path.write_text(
        "{name: small, title: Small, recipe: quick, variants: {plain: {net: {depth: 50}},"
        " long: {net: {depth: 50}, clip: 128f, init_from: plain}},"
        " tables: {a: {caption: A, rows: [{label: a, variant: plain}]}}}"
    )
    return load_study(path)


@pytest.fixture
def recipe(tmp_path: Path) -> Recipe:
    path = tmp_path / "quick.yaml"
    path.write_text("trainer: {max_epochs: 2}")
    return load_recipe(path)


def state(results: Path, study: Study, recipe: Recipe, variant: str, seed: int) -> State:
    return Run(study, study.variants[variant], recipe, seed, results).state()


def mark(results: Path, **marker: object) -> None:
    path = results / "runs/quick/plain/seed0/state.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(marker))


def test_states_by_record(tmp_path: Path, study: Study, recipe: Recipe) -> None:
    assert state(tmp_path, study, recipe, "plain", 0).name == "missing"
    record = replace(RECORD, config_hash=run_hash(study, recipe, "plain", 0))
    write_record(tmp_path, record)
    done = state(tmp_path, study, recipe, "plain", 0)
    assert (done.name, done.record) == ("done", record)
    assert state(tmp_path, study, recipe, "plain", 1).name == "missing"

    (tmp_path / "quick.yaml").write_text("trainer: {max_epochs: 3}")
    longer = load_recipe(tmp_path / "quick.yaml")
    stale = state(tmp_path, study, longer, "plain", 0)
    assert (stale.name, stale.record) == ("stale", None)
    assert stale.note == f"made with configuration {record.config_hash}, now {run_hash(study, longer, 'plain', 0)}"


OF_DETECTION = {"module": "nl_lightning.detection.Detector", "videos_scored": 400, "metrics": {"test/AP": 0.3}}


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"init_from": "long"}, "init_from: expected None, as the study has it, got long"),
        (OF_DETECTION, "module: expected None, as the study has it, got nl_lightning.detection.Detector"),
        ({"mAP": 40.0}, "top1, by which the study compares, isn't among what was measured"),
    ],
)
def test_what_measured_something_else_is_unreadable_and_moved_aside(
    tmp_path: Path, study: Study, recipe: Recipe, fields: dict[str, object], why: str
) -> None:
    record = replace(RECORD, config_hash=run_hash(study, recipe, "plain", 0))
    other = {} if "init_from" in fields else {"top1": None, "top5": None, "top1_by_group": {}}
    path = write_record(tmp_path, replace(record, **other, **fields))  # type: ignore[arg-type]
    found = state(tmp_path, study, recipe, "plain", 0)
    assert (found.name, found.note, found.record) == ("unreadable", why, None)
    write_record(tmp_path, record)
    assert state(tmp_path, study, recipe, "plain", 0).record == record
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize(
    "content", ['{"top1": 3', "[1]", "null", '{"seed": 0}', "[" * 100_000, '{"top1": ' + "1" * 5000 + "}"]
)
def test_a_run_whose_record_cant_be_read_is_a_hole_with_its_reason(
    tmp_path: Path, study: Study, recipe: Recipe, content: str
) -> None:
    path = record_path(tmp_path, "quick", "plain", 0)
    path.parent.mkdir(parents=True)
    path.write_text(content)
    found = state(tmp_path, study, recipe, "plain", 0)
    assert (found.name, found.record) == ("unreadable", None)
    assert found.note.startswith(str(path))
    mark(tmp_path, state="failed", error="x")
    assert state(tmp_path, study, recipe, "plain", 0).name == "failed"  # what became of it since then


ODD_MARKERS = [
    '{"state": "running", "phase": "train", "done": "x", "total": 2}',
    '{"state": "running", "phase": "train", "done": NaN, "total": 2}',
    '{"state": "running", "phase": "train", "done": 1e999, "total": -5}',
    '{"state": "running", "phase": "train", "done": 1' + "0" * 400 + ', "total": 0}',
    '{"state": "running", "phase": {}, "done": null}',
    '{"state": "running", "phase": "train", "done": -1, "total": 2}',
    '{"state": "running", "pid": [1]}', '{"state": "runing"}', '{"state": ["failed"]}', '{"state": null}',
    '{"state": "failed", "error": {"a": 1}}', '{"state": "failed", "config_hash": "../../../elsewhere"}',
    "[1, 2]", '"running"', "", "\0", "[" * 100_000,
]  # fmt: skip


def test_a_marker_of_odd_values_is_no_marker(tmp_path: Path, study: Study, recipe: Recipe) -> None:
    run = Run(study, study.variants["plain"], recipe, 0, tmp_path)
    for marker in ODD_MARKERS:
        run.folder.mkdir(parents=True, exist_ok=True)
        run.marker.write_text(marker)
        assert run.state() == State("interrupted", f"{run.marker} can't be read"), marker
        assert run.said() == Marker(), marker
        run.prepare_folder()
        assert run.folder.is_dir(), marker


@pytest.mark.parametrize("marker", ["", '{"config_hash": 5}', None])
@pytest.mark.parametrize("kept", [True, False])
def test_a_checkpoint_of_another_configuration_is_not_gone_on_from(
    tmp_path: Path, study: Study, recipe: Recipe, marker: str | None, kept: bool
) -> None:
    """Also if a power cut has taken the marker, or emptied it; a run of older versions says its hash only there."""
    before = Run(study, study.variants["plain"], recipe, 0, tmp_path)
    before.prepare_folder()
    before.checkpoint.write_text("of before")
    before.say("failed")
    before.prepare_folder()
    assert before.checkpoint.read_text() == "of before"
    if not kept:
        before.configuration.unlink()
    if marker is None:
        before.marker.unlink()
    else:
        before.marker.write_text(marker)
    deeper = replace(study.variants["plain"], settings={"model.net.depth": 101})
    now = Run(replace(study, variants={**study.variants, "plain": deeper}), deeper, recipe, 0, tmp_path)
    assert now.config_hash != before.config_hash
    if kept and marker is None:  # with an odd marker or an unknown configuration, something was begun
        assert (before.state().name, now.state().name) == ("interrupted", "missing")
    now.prepare_folder()
    assert not now.checkpoint.exists()
    (aside,) = (path for path in now.folder.parent.iterdir() if path != now.folder)
    assert (aside / now.checkpoint.relative_to(now.folder)).read_text() == "of before"
    assert (before.config_hash if kept else "unknown") in aside.name


def test_a_marker_says_how_far_a_run_is(tmp_path: Path, study: Study, recipe: Recipe) -> None:
    run = Run(study, study.variants["plain"], recipe, 0, tmp_path)
    mark(tmp_path, state="running", phase="train", done=1, total=2, started="2026", of_a_newer_version=[1])
    assert run.said().share_done == 0.475
    mark(tmp_path, state="running", phase="test", done=7, total=0)
    assert run.said().share_done == 1.0


@pytest.mark.parametrize("text", ["{", '{"id": 5}', '{"id": "a/b"}', '{"id": ""}', '{"id": "x", "sweep": [1]}'])
def test_notes_of_wandb_with_odd_values_are_none(tmp_path: Path, study: Study, recipe: Recipe, text: str) -> None:
    run = Run(study, study.variants["plain"], recipe, 0, tmp_path)
    run.note_wandb("abc", "sweep1")
    assert (run.wandb.id, run.wandb.sweep) == ("abc", "sweep1")
    (run.folder / "wandb.json").write_text(text)
    assert (run.wandb.id, run.wandb.sweep) == (None, None)


@pytest.mark.parametrize("seed", [-1, 2**32, 10**20])
def test_seeds_out_of_range_are_refused(tmp_path: Path, study: Study, recipe: Recipe, seed: int) -> None:
    with pytest.raises(UserError, match="seed: expected a"):
        plan(study, recipe, [seed], tmp_path)
    with pytest.raises(UserError, match="seed: expected a"):
        identified(str(study.path), "plain", str(recipe.files[0]), str(seed), str(tmp_path))
    with pytest.raises(UserError, match="expected a seed"):
        identified(str(study.path), "plain", str(recipe.files[0]), "x", str(tmp_path))


def test_runs_that_were_begun_are_found_by_their_folders(tmp_path: Path, study: Study, recipe: Recipe) -> None:
    odd = ("plain/seed3.0123456789ab.7", "plain/seed²", "other/seed0", "plain/seed4294967296")
    for name in ("plain/seed3", "plain/seed4294967295", "long/seed10", *odd):
        (tmp_path / "runs/quick" / name).mkdir(parents=True)
    found = [run.name for run in begun(study, recipe, tmp_path)]
    assert found == ["long seed 10", "plain seed 3", "plain seed 4294967295"]


def test_a_done_run_stays_done_whatever_its_marker_says(tmp_path: Path, study: Study, recipe: Recipe) -> None:
    write_record(tmp_path, replace(RECORD, config_hash=run_hash(study, recipe, "plain", 0)))
    mark(tmp_path, state="failed", error="x")
    assert state(tmp_path, study, recipe, "plain", 0).name == "done"


def test_states_by_marker(tmp_path: Path, study: Study, recipe: Recipe) -> None:
    write_record(tmp_path, RECORD)  # stale: what runs now is of more interest

    def current() -> str:
        return state(tmp_path, study, recipe, "plain", 0).name

    mark(tmp_path, state="running", pid=os.getpid(), host="here")
    assert state(tmp_path, study, recipe, "plain", 0).note.startswith(f"process {os.getpid()} on here ")
    assert current() == "interrupted"  # nothing holds its claim
    with acquire(tmp_path / "runs/quick/plain/seed0") or pytest.fail("free"):
        assert current() == "running"
        assert state(tmp_path, study, recipe, "plain", 0).note == str(Holder.this())
        assert state(tmp_path, study, recipe, "plain", 1).name == "missing"
    (tmp_path / "runs/quick/plain/seed0/state.json").write_text("{")
    assert current() == "interrupted"
    mark(tmp_path, state="preempted")
    assert current() == "preempted"
    mark(tmp_path, state="queued", job="slurm job 7")
    assert state(tmp_path, study, recipe, "plain", 0).note == "slurm job 7"

    mark(tmp_path, state="failed", error="loss is NaN\n  at step 7")
    failed = state(tmp_path, study, recipe, "plain", 0)
    assert (failed.name, failed.note) == ("failed", "loss is NaN at step 7")
    mark(tmp_path, state="failed", error="x", config_hash=run_hash(study, recipe, "plain", 0))
    assert current() == "failed"
    mark(tmp_path, state="failed", error="x", config_hash="abcdefabcdef")
    assert current() == "stale"  # that failure was another configuration's


def test_a_recipe_without_long_clips_has_no_long_runs(tmp_path: Path, study: Study, recipe: Recipe) -> None:
    long = state(tmp_path, study, recipe, "long", 0)
    assert (long.name, long.note) == ("missing", "recipe quick has no quick_128f.yaml for 'clip: 128f'")
    (tmp_path / "quick_128f.yaml").write_text("trainer: {max_epochs: 1}")
    assert state(tmp_path, study, recipe, "long", 0).note == ""


def test_the_model_card_names_fields_of_a_record() -> None:
    """The last column of its tables: so nobody looks for a field that has another name by now."""
    card = (Path(__file__).parents[2] / "docs" / "cards" / "model.md").read_text()
    rows = [line.rstrip(" |").rsplit("|", 1)[-1] for line in card.splitlines() if line.startswith("| ")]
    named = {name for row in rows for name in re.findall(r"`([a-z_0-9A-Z.]+)`", row)}
    of = {"": Record, "machine": Machine, "evidence": Evidence}
    for name in named:
        inner, _, last = name.rpartition(".")
        if not name.startswith("config."):
            assert last in {one.name for one in fields(of[inner])}, name
    assert {"top1", "soft", "evidence.weights", "machine.energy"} <= named
