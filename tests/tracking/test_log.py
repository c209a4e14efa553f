"""What a run tells W&B, who is logged in, and which record of the project is believed."""

import json
import shutil
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import wandb
from wandb_standin import ENTITY, KEY, Run, WandbServer

from nl_lightning.errors import Stopped, UserError
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.records import Record, write_record
from nl_lightning.study.run import Run as PlannedRun
from nl_lightning.study.study import LeftOut, Study
from nl_lightning.tracking import agent
from nl_lightning.tracking import log as tracking


class Gone:
    """A W&B run whose own process has been ended."""

    def mark_preempting(self) -> None:
        raise ConnectionResetError("Connection lost")


def test_where_wandb_has_gone_first_a_run_still_says_why_it_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wandb, "run", Gone())
    tracking.end_without_record(Stopped(signal.SIGTERM))


@pytest.mark.parametrize(
    ("machine", "server", "known"),
    [
        (None, None, False),
        ("api.wandb.ai", None, True),
        ("elsewhere.org", None, False),
        ("wandb.lab.org:8443", "https://wandb.lab.org:8443", True),
        ("wandb.lab.org", "https://wandb.lab.org:8443", False),
        ("api.wandb.ai", "https://wandb.lab.org", False),
    ],
)
def test_who_is_logged_in_is_told_by_the_keys_on_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, machine: str | None, server: str | None, known: bool
) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.delenv("WANDB_BASE_URL", raising=False)
    if server is not None:
        monkeypatch.setenv("WANDB_BASE_URL", server)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    if machine is not None:
        (tmp_path / "netrc").write_text(f"machine {machine} login user password {'a' * 40}\n")
    wandb.teardown()  # it keeps what the environment said
    assert tracking.logged_in() is known
    monkeypatch.setenv("WANDB_IDENTITY_TOKEN_FILE", str(tmp_path / "token"))
    assert tracking.logged_in()
    wandb.teardown()


def test_a_broken_file_of_keys_is_nobody_logged_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    for content in (b"machine\n???", b"\xff\xfe\x00"):
        (tmp_path / "netrc").write_bytes(content)
        assert not tracking.logged_in()


# -------------------------------------------------------------------------------- a record found in the project


@pytest.fixture
def asked(study: Study, recipe: Recipe, results: Path) -> PlannedRun:
    """The run whose record is looked for: ``plain``, seed 0."""
    return PlannedRun(study, study.variants["plain"], recipe, 0, results)


def test_a_point_that_cannot_be_ends_at_once_as_left_out(
    online: WandbServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)

    def planned() -> list[PlannedRun]:
        raise LeftOut("no variant has stage=res5, blocks=5: res5 has 3 residual blocks")

    assert agent.run_point(planned, lambda runs, environment: runs) == 0
    assert "left out: no variant has stage=res5" in capsys.readouterr().out
    (run,) = online.state.runs.values()
    assert (run.state, run.tags) == ("finished", ["left out"])
    assert "res5 has 3 residual blocks" in str(run.summary["left_out"])


def put(server: WandbServer, name: str, record: object, hash_: str) -> None:
    """A finished run of the project that says to be of this configuration."""
    config = {"config_hash": {"value": hash_}}
    server.state.runs[name] = Run(
        ENTITY, "nl-lightning", name, name, "finished", config=config, summary={"record": record}
    )


def text(record: Record, **fields: object) -> str:
    return json.dumps(asdict(record) | fields)


def test_what_the_project_has_is_believed_only_if_it_is_the_record_of_this_run(
    asked: PlannedRun, online: WandbServer, measure: Callable[..., Record], capsys: pytest.CaptureFixture[str]
) -> None:
    right, other = measure("plain", 0, 60.0), measure("block", 0, 70.0)
    wrong = {
        "climbs": (text(right, recipe="../../../wb"), "recipe: '../../../wb' names files"),
        "climbs2": (text(right, variant="../x"), "variant: '../x' names files"),
        "variant": (text(other), "its record is of variant block, not plain"),
        "renamed": (text(right, variant="block"), "its record is of variant block, not plain"),
        "recipe": (text(right, recipe="slow"), "its record is of recipe slow, not quick"),
        "seed": (text(right, seed=1), "its record is of seed 1, not 0"),
        "init_from": (text(right, init_from="x", config={}), "its record is unreadable: init_from: expected None"),
        "hash": (
            text(right, config_hash="0" * 12),
            f"its record is of config_hash {'0' * 12}, not {asked.config_hash}",
        ),
        "half": ('{"top1": 3', "isn't JSON"),
        "nested": ("[" * 100_000, "lists and mappings lie more than 60 levels deep"),
        "number": (5, "record: expected a text, got 5"),
        "list": ([1], "record: expected a text, got [1]"),
        "field": (text(right, new=1), "unknown key 'new'"),
        "score": (text(right, top1=99.5), "top1: 99.5 is more than top5, 97.0"),
    }
    for name, (record, _) in wrong.items():
        put(online, name, record, asked.config_hash)
    assert tracking.find_record(asked) is None
    said = capsys.readouterr().err.splitlines()
    assert len(said) == len(wrong)
    for line, (name, (_, why)) in zip(said, wrong.items(), strict=True):
        assert line.startswith(f"nl-lightning: W&B run nl-lightning/{name}: {why}"), line
        assert line.endswith("; it isn't used, plain seed 0 is trained")
    put(online, "right", text(right), asked.config_hash)
    assert tracking.find_record(asked) == (right, "right")


def test_a_point_whose_record_in_the_project_is_not_its_own_is_run(
    asked: PlannedRun, online: WandbServer, measure: Callable[..., Record], monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """Half a record, one that leads out of the results folder, and one of another variant: none of them is written."""
    other = measure("block", 0, 70.0)
    climbs = text(other, config_hash=asked.config_hash, recipe="../../../climbed_out", variant="plain")
    for name, record in {"half": '{"top1": 3', "climbs": climbs, "others": text(other)}.items():
        put(online, name, record, asked.config_hash)
    monkeypatch.setenv("WANDB_SWEEP_ID", "some")
    brought = list[PlannedRun]()

    def bring(runs: Sequence[PlannedRun], environment: agent.Environment) -> list[PlannedRun]:
        brought.extend(runs)
        return []

    assert agent.run_point(lambda: [asked], bring) == 0
    assert capsys.readouterr().err.count("it isn't used, plain seed 0 is trained") == 3
    assert brought == [asked]
    assert not asked.is_done()
    assert not list(asked.results.parents[1].rglob("climbed_out"))


def test_a_point_that_another_machine_has_measured_is_a_repeat(
    asked: PlannedRun, online: WandbServer, measure: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    """This machine has no results; the record is found in the W&B project."""
    record = measure("plain", 0, 60.0)
    shutil.rmtree(asked.results)
    put(online, "first", text(record), asked.config_hash)
    monkeypatch.setenv("WANDB_SWEEP_ID", "some")
    monkeypatch.setenv("WANDB_RUN_ID", "again")
    assert agent.run_point(lambda: [asked], lambda runs, environment: pytest.fail("it is run")) == 0
    assert asked.state().record == record
    again = online.state.runs["again"]
    assert (again.state, again.tags[-1], again.summary["repeat_of"]) == ("finished", "repeat", "first")
    assert json.loads(again.summary["record"]) == asdict(record)


@pytest.mark.parametrize(("trained_as", "told"), [("first", ["first"]), ("own", [])])
def test_a_point_that_another_agent_measures_meanwhile_is_a_repeat(
    asked: PlannedRun, online: WandbServer, measure: Callable[..., Record], monkeypatch: pytest.MonkeyPatch,
    trained_as: str, told: list[str],
) -> None:  # fmt: skip
    """It was left to that one's process, of which this point's W&B run knows nothing."""
    record = measure("plain", 0, 60.0)
    shutil.rmtree(asked.results)
    monkeypatch.setenv("WANDB_SWEEP_ID", "some")
    monkeypatch.setenv("WANDB_RUN_ID", "own")

    def bring(runs: Sequence[PlannedRun], environment: agent.Environment) -> list[PlannedRun]:
        asked.prepare_folder()
        asked.note_wandb(trained_as, "some")
        write_record(asked.results, record)
        return []

    assert agent.run_point(lambda: [asked], bring) == 0
    assert [run.summary["repeat_of"] for run in online.state.runs.values()] == told


@pytest.mark.parametrize("before", [None, "older"])
def test_a_point_that_fails_before_it_tells_wandb_does_not_stay_pending(
    asked: PlannedRun, online: WandbServer, monkeypatch: pytest.MonkeyPatch, before: str | None
) -> None:
    """As where the run that it starts from fails; it may have been begun before, as another W&B run."""
    monkeypatch.setenv("WANDB_SWEEP_ID", "some")
    monkeypatch.setenv("WANDB_RUN_ID", "own")
    asked.prepare_folder()
    if before is not None:
        asked.note_wandb(before, "other")
    assert agent.run_point(lambda: [asked], lambda runs, environment: runs) == 1
    (run,) = online.state.runs.values()
    assert (run.state, run.summary["error"]) == ("failed", f"see {asked.log}")


@pytest.mark.parametrize("trouble", ["wrong key", "no server"])
def test_without_the_server_it_says_so_in_a_line_and_goes_on_offline(
    asked: PlannedRun, online: WandbServer, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    trouble: str,
) -> None:  # fmt: skip
    wrong = "f" * 40
    if trouble == "wrong key":
        monkeypatch.setenv("WANDB_API_KEY", wrong)
    else:
        monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "1")
    asked.prepare_folder()
    assert tracking.begin(asked).settings.mode == "offline"
    wandb.finish()
    said = "".join(capfd.readouterr())
    (line,) = [line for line in said.splitlines() if line.startswith("nl-lightning: W&B")]
    assert "going on offline; 'wandb sync' sends it later" in line
    assert wrong not in said
    assert KEY not in said
    assert online.state.runs == {}


def test_a_table_may_have_a_name_longer_than_tags_of_wandb(asked: PlannedRun, online: WandbServer) -> None:
    long = replace(asked.study.tables["a"], name="a" * 100)
    tracking.begin(replace(asked, study=replace(asked.study, tables={long.name: long})))
    wandb.finish()
    (run,) = online.state.runs.values()
    assert run.tags == ["a" * 64]


def test_a_project_that_wandb_cannot_read_has_no_record(
    asked: PlannedRun, online: WandbServer, measure: Callable[..., Record], monkeypatch: pytest.MonkeyPatch
) -> None:
    put(online, "right", text(measure("plain", 0, 60.0)), asked.config_hash)
    node = Run.node
    monkeypatch.setattr(Run, "node", lambda run: node(run) | {"user": None})
    assert tracking.find_record(asked) is None


def test_settings_of_wandb_that_make_no_sense_are_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    monkeypatch.setenv("WANDB_BASE_URL", "nowhere")
    wandb.teardown()
    with pytest.raises(UserError, match="W&B's settings: .*base_url"):
        tracking.logged_in()
    monkeypatch.delenv("WANDB_BASE_URL")
    wandb.teardown()
