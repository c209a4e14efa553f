"""Tables from W&B's runs, read from a server and from the folders of offline runs; what counts, what is listed."""

import json
import random
import re
import shutil
import struct
import subprocess
import sys
import zlib
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from wandb.proto.wandb_internal_pb2 import Record as Record_  # type: ignore[attr-defined]
from wandb_standin import ENTITY, KEY, Run, WandbServer

from nl_lightning.cli import main
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.records import Record, load_records
from nl_lightning.study.study import Study
from nl_lightning.tracking.offline import from_folders

Measure = Callable[..., Record]
Say = Callable[..., str]

TELL = """
import json, sys, wandb
for number, text in enumerate(json.load(sys.stdin)):
    with wandb.init(project="p", id=f"run{number}", name=f"name {number}", mode=sys.argv[1], resume="allow") as run:
        for step in range(100):
            run.log({"train/loss": 1 / (1 + step)})
        run.summary.update({"record": text, "top1": json.loads(text)["top1"]})
"""
"""A process that tells W&B of records, as a run does at its end."""


@pytest.fixture(autouse=True)
def user(online: WandbServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "200")


@pytest.fixture
def say(study: Study, recipe: Recipe, results: Path, capsys: pytest.CaptureFixture[str]) -> Say:
    """What ``nl-lightning report`` says with these arguments, its white space folded; it ends with `code`."""

    def report(*arguments: str | Path, code: int = 0) -> str:
        command = ["report", study.path, "--recipe", recipe.files[0], "--results", results, *arguments]
        assert main([str(word) for word in command]) == code
        output = capsys.readouterr()
        assert "Traceback" not in output.out + output.err
        assert KEY not in output.out + output.err
        return " ".join((output.out + output.err).split())

    return report


def tell(mode: str, *records: Record) -> None:
    texts = [json.dumps(asdict(record)) for record in records]
    subprocess.run([sys.executable, "-c", TELL, mode], input=json.dumps(texts), text=True, check=True, timeout=900)


def put(server: WandbServer, name: str, record: object = None, state: str = "finished", **summary: object) -> None:
    """A run on the server, in project p; a record is its text."""
    if isinstance(record, Record):
        record = json.dumps(asdict(record))
    found = summary if record is None else {"record": record, **summary}
    server.state.runs[name] = Run(ENTITY, "p", name, f"name of {name}", state, summary=found)


def tables(results: Path) -> dict[str, bytes]:
    found = {path.name: path.read_bytes() for path in (results / "tables" / "quick").iterdir()}
    assert len(found) == 8
    return found


@pytest.mark.usefixtures("one_seed")
def test_the_same_tables_from_a_server_and_from_folders_as_from_the_records(
    wandb_server: WandbServer, tmp_path: Path, results: Path, measure: Measure, say: Say
) -> None:
    measure("plain", 1, 66.125, config_hash="0123456789ab")
    measure("block", 1, 71.375)
    say()
    records = load_records(results, "quick")[0]
    tell("online", *records)
    tell("offline", *records)
    on_server = say("--results", tmp_path / "server", "--wandb", "tester/p")
    in_folders = say("--results", tmp_path / "folders", "--wandb-offline", tmp_path / "wandb_dir")
    assert tables(tmp_path / "server") == tables(tmp_path / "folders") == tables(results)
    assert b"made with another configuration" in tables(results)["small_a.csv"]
    for said in (on_server, in_folders):
        assert re.search(r"made with another configuration 1 name \d \(run\d\) 1 of 7 W&B runs left out$", said)
    assert wandb_server.errors == []


def test_a_sweep_is_read_by_itself(wandb_server: WandbServer, measure: Measure, say: Say) -> None:
    first, second = measure("plain", 0, 60.0), measure("plain", 1, 62.0)
    variables = {"projectName": "p", "config": "{method: grid, parameters: {seed: {values: [0, 1]}}}"}
    wandb_server.state.operations["UpsertSweep"](variables)
    (sweep,) = wandb_server.state.sweeps
    put(wandb_server, "inside", first)
    put(wandb_server, "outside", second)
    wandb_server.state.runs["inside"].sweep = sweep
    assert say("--wandb", f"tester/p/{sweep}").endswith("0 of 1 W&B runs left out")
    assert say("--wandb", "tester/p").endswith("0 of 2 W&B runs left out")


def test_what_does_not_count_is_listed_with_the_reason(
    wandb_server: WandbServer, measure: Measure, results: Path, say: Say
) -> None:
    record = measure("plain", 0, 60.0)
    later = replace(record, top1=61.0, finished="2026-01-02T03:04:06+00:00")
    put(wandb_server, "doubled", later)
    put(wandb_server, "repeat", record, repeat_of="good")
    put(wandb_server, "good", record, state="crashed")  # after its record was told
    put(wandb_server, "recipe", replace(record, recipe="slow"))
    put(wandb_server, "study", replace(record, study="large", variant="huge"))
    put(wandb_server, "changed", replace(record, config_hash="0123456789ab"))
    put(wandb_server, "torn", json.dumps(asdict(record))[:-9])
    put(wandb_server, "dict", asdict(record))
    put(wandb_server, "odd", replace(record, top1=160.0))
    put(wandb_server, "markup[/]")
    for state in ("running", "crashed", "failed", "preempted", "pending"):  # whatever W&B says, no record is none
        put(wandb_server, state, state=state)
    said = say("--wandb", "tester/p")
    for why, name in [
        ("doubled: another W&B run of the same finished first", "doubled"),
        ("repeats a run that counts already", "repeat"),
        ("of recipe slow", "recipe"),
        ("of another study (large)", "study"),
        ("made with another configuration", "changed"),
        ("broken record: expected a text, got dict", "dict"),
        ("broken record: top1: expected percent, 0 to 100, got 160.0", "odd"),
        ("no record: finished", "markup[/]"),
        *((f"no record: {state}", state) for state in ("running", "crashed", "failed", "preempted", "pending")),
    ]:
        assert f"{why} 1 name of {name} ({name})" in said
    assert re.search(r"broken record: isn.t JSON: .* 1 name of torn \(torn\)", said)
    assert said.endswith("14 of 15 W&B runs left out")
    assert ",ok,1,60.0," in tables(results)["small_a.csv"].decode()


def test_a_repeat_counts_where_its_first_is_not(wandb_server: WandbServer, measure: Measure, say: Say) -> None:
    record = measure("plain", 0, 60.0)
    put(wandb_server, "one", record, repeat_of="elsewhere")
    put(wandb_server, "other", record, repeat_of="elsewhere")
    said = say("--wandb", "tester/p")
    assert "repeats a run that counts already 1 name of other (other) 1 of 2" in said


def test_a_long_list_is_cut(wandb_server: WandbServer, say: Say) -> None:
    for number in range(12):
        put(wandb_server, f"run{number:02d}", state="crashed")
    said = say("--wandb", "tester/p")
    assert re.search(r"no record: crashed 12 name of run00 .* \(run09\) and 2 more 12 of 12 W&B runs left out$", said)


def test_different_tests_never_meet_in_a_table(wandb_server: WandbServer, measure: Measure, say: Say) -> None:
    record = measure("plain", 0, 60.0)
    put(wandb_server, "one", record)
    put(wandb_server, "two", replace(measure("block", 0, 61.0), num_clips=10))
    assert "W&B run one was tested with 2 clips a video (num_clips), W&B run two with 10" in say(
        "--wandb", "tester/p", code=2
    )


ODD: dict[str, dict[str, Any]] = {
    "list": {"summaryMetrics": "[1]"},
    "half": {"summaryMetrics": "{"},
    "nested": {"summaryMetrics": "[" * 100_000},
    "nothing": {"summaryMetrics": None},
    "nameless": {"displayName": None},
    "number": {"displayName": 5, "state": 7, "tags": 5},
    "config": {"config": "{"},
}
"""What a run on the server may have in place of what W&B's client expects."""


def test_a_run_that_wandb_cannot_read_hides_no_other(
    wandb_server: WandbServer, say: Say, measure: Measure, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(wandb_server, "good", measure("plain", 0, 60.0))
    for name in ODD:
        put(wandb_server, name)
    node = Run.node
    monkeypatch.setattr(Run, "node", lambda run: node(run) | ODD.get(run.name, {}))
    said = say("--wandb", "tester/p")
    assert f"{len(ODD)} of {len(ODD) + 1} W&B runs left out" in said
    assert "no record: its summary can't be read: Unable to convert [1] to a dict 1 name of list (list)" in said
    assert "nameless (nameless)" in said
    assert "5 (number)" in said
    # What no run can be told from is said in a line.
    monkeypatch.setattr(Run, "node", lambda run: node(run) | {"user": None})
    assert "--wandb tester/p: 'NoneType' object is not iterable" in say("--wandb", "tester/p", code=2)


@pytest.mark.parametrize("record", [5, [1], {"a": "b"}, True, "", "null", "[]", "[" * 100_000, '{"top1": 3'])
def test_records_of_odd_types_are_listed(wandb_server: WandbServer, say: Say, measure: Measure, record: object) -> None:
    put(wandb_server, "good", measure("plain", 0, 60.0))
    put(wandb_server, "odd", record)
    assert re.search(r"broken record: .* 1 name of odd \(odd\) 1 of 2 W&B runs left out", say("--wandb", "tester/p"))


def test_names_from_wandb_are_no_markup_and_no_command(wandb_server: WandbServer, say: Say, measure: Measure) -> None:
    put(wandb_server, "good", measure("plain", 0, 60.0))
    put(wandb_server, "odd")
    wandb_server.state.runs["odd"].display_name = "\x1b[2J\x1b]0;title\x07[bold]x[/nope]:smile:"
    wandb_server.state.runs["odd"].state = "[/]"
    said = say("--wandb", "tester/p")
    assert r"no record: [/] 1 \x1b[2J\x1b]0;title\x07[bold]x[/nope]:smile: (odd)" in said
    assert "\x1b" not in said


def offline_run(folder: Path, name: str, **summary: str) -> Path:
    """A file as W&B writes it, of a run with these values (JSON) in its summary."""
    records = [Record_(run={"run_id": name, "display_name": name})]
    items = [{"key": key, "value_json": value} for key, value in summary.items()]
    records.append(Record_(summary={"update": items}))
    content = b":W&B\xbe\xe1\x00"[:7]
    for data in (record.SerializeToString() for record in records):
        content += struct.pack("<IHB", zlib.crc32(data, zlib.crc32(b"\x01")), len(data), 1) + data
    file = folder / f"offline-run-20260101_000000-{name}" / f"run-{name}.wandb"
    file.parent.mkdir(parents=True)
    file.write_bytes(content)
    return file


def test_an_offline_run_that_cannot_be_read_hides_no_other(tmp_path: Path, measure: Measure) -> None:
    text = json.dumps(asdict(measure("plain", 0, 60.0)))
    here = tmp_path / "here"
    offline_run(here, "good", record=json.dumps(text))
    offline_run(here, "half", record='{"top1": 3')
    offline_run(here, "nested", record="[" * 30_000)
    offline_run(here, "nan", record="NaN")
    offline_run(here, "bytes").write_bytes(b"\xff" * 5000)
    (here / "run-20260101_000000-folder" / "run-folder.wandb").mkdir(parents=True)
    file = offline_run(here, "proto")
    data = b"\x0a\xff\xff\xff\xff\x0f"  # a chunk whose checksum is right, and that is no message
    file.write_bytes(
        file.read_bytes()[:7] + struct.pack("<IHB", zlib.crc32(data, zlib.crc32(b"\x01")), len(data), 1) + data
    )
    found = {run.id: run for run in from_folders(here)}
    assert found["good"].record == text
    assert found["half"].record == '{"top1": 3'  # no JSON: as it is
    assert found["nan"].record == "NaN"
    assert (found["bytes"].record, found["bytes"].state) == (None, "running or killed")
    assert found["folder"].state == "its file can't be read: Is a directory"
    assert (found["proto"].record, found["proto"].state) == (None, "running or killed")
    assert len(found) == 7


def test_no_damage_to_an_offline_run_is_more_than_a_run_without_record(tmp_path: Path) -> None:
    file = offline_run(tmp_path, "one", record='"x"', other="[1, 2]")
    whole, rng = file.read_bytes(), random.Random(0)
    for _ in range(300):
        damaged = bytearray(whole)
        for _ in range(rng.randint(1, 4)):
            damaged[rng.randrange(len(damaged))] = rng.randrange(256)
        file.write_bytes(damaged[: rng.randint(0, len(damaged))])
        (run,) = from_folders(tmp_path)
        assert run.record in (None, "x")


def test_attempts_of_a_run_and_files_that_end_early(tmp_path: Path, measure: Measure) -> None:
    record = measure("plain", 0, 60.0, right_top1="", steps=9000, curve=[{"step": float(step)} for step in range(9000)])
    tell("offline", record)
    (folder,) = (tmp_path / "wandb_dir" / "wandb").glob("offline-run-*")
    (file,) = folder.glob("run-*.wandb")
    content = file.read_bytes()
    assert len(content) > 5 * 32 * 1024  # records that go over several blocks
    killed = folder.with_name("offline-run-20200101_000000-run0")
    shutil.copytree(folder, killed)
    for length in (0, 7, 20, 40_000, len(content) // 2):
        (killed / "run-run0.wandb").write_bytes(content[:length])
        assert [run.record for run in from_folders(killed)] == [None]
        assert from_folders(killed)[0].state == "running or killed"
        (whole,) = from_folders(tmp_path)  # an attempt without a record, and one with it
        assert (whole.id, whole.name, whole.state) == ("run0", "name 0", "finished")
        assert json.loads(whole.record) == asdict(record)
    (killed / "run-run0.wandb").write_bytes(content[:-20])
    assert [run.state for run in from_folders(killed)] == ["running or killed"]
    assert from_folders(killed)[0].record == whole.record
    spoilt = bytearray(content)
    spoilt[50_000] ^= 1
    (killed / "run-run0.wandb").write_bytes(spoilt)
    assert from_folders(killed)[0].record is None


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--wandb", "p"), "--wandb: expected ENTITY/PROJECT or ENTITY/PROJECT/SWEEP, got 'p'"),
        (("--wandb", "tester//x"), "--wandb: expected ENTITY/PROJECT or ENTITY/PROJECT/SWEEP, got 'tester//x'"),
        (("--wandb", "tester/nothing"), "--wandb tester/nothing: Could not find project nothing"),
        (("--wandb", "nobody/p"), "--wandb nobody/p: Could not find project p"),
        (("--wandb", "tester/p/nothing"), "--wandb tester/p/nothing: Could not find sweep"),
        (("--wandb-offline", "nothing"), "--wandb-offline: nothing is no folder"),
        (("--wandb-offline", "."), "--wandb-offline: no W&B runs (offline-run-*/run-*.wandb) below ."),
        (("--wandb", "tester/p", "--wandb-offline", "."), "not allowed with argument --wandb"),
        (("--wandb", "tester/p", "--seed", "0"), "argument --seed: not allowed with records of W&B"),
    ],
)
def test_a_place_without_runs(
    arguments: tuple[str, ...], message: str, wandb_server: WandbServer, say: Say, tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    put(wandb_server, "one")
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path / "empty")
    assert message in say(*arguments, code=2)
    assert not list((tmp_path / "empty").iterdir())


def test_an_empty_sweep(wandb_server: WandbServer, say: Say) -> None:
    variables = {"projectName": "p", "config": "{method: grid, parameters: {seed: {values: [0]}}}"}
    wandb_server.state.operations["UpsertSweep"](variables)
    (sweep,) = wandb_server.state.sweeps
    assert say("--wandb", f"tester/p/{sweep}", code=2).endswith(f"--wandb tester/p/{sweep}: no runs there yet")


def test_a_server_that_does_not_let_us_look(
    wandb_server: WandbServer, say: Say, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = wandb_server.base_url
    monkeypatch.setenv("WANDB_API_KEY", "f" * 40)
    said = say("--wandb", "tester/p", code=2)
    assert said.endswith(f"W&B at {server} doesn't accept the API key; log in with 'wandb login', or set WANDB_API_KEY")
    assert "f" * 40 not in said
    monkeypatch.setenv("WANDB_API_KEY", "too-short")
    assert "API key must have 40+ characters" in say("--wandb", "tester/p", code=2)
    monkeypatch.delenv("WANDB_API_KEY")
    assert "nobody is logged in" in say("--wandb", "tester/p", code=2)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    del wandb_server.state.operations["Runs"]
    said = say("--wandb", "tester/p", code=2)
    assert said.endswith(f"W&B at {server} failed: input: unknown operation Runs; try again")
    monkeypatch.setenv("WANDB_HTTP_TIMEOUT", "2")
    wandb_server.stop()
    assert f"W&B at {server} can't be reached" in say("--wandb", "tester/p", code=2)
