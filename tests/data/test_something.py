"""The JSON files of Something-Something v2."""

import json
from pathlib import Path
from typing import Any

import pytest

from nl_lightning.data.something import read_something
from nl_lightning.errors import UserError

LABELS = {"Pushing something from left to right": "1", "Holding something next to something": "0"}
VIDEOS = [
    {"id": "78687", "label": "holding potato next to bottle", "template": "Holding [something] next to [something]"},
    {"id": "42326", "label": "pushing it", "template": "Pushing [something] from left to right", "placeholders": []},
]


def written(tmp_path: Path, videos: Any, labels: Any = LABELS) -> Path:
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps(labels))
    (tmp_path / "train.json").write_text(json.dumps(videos))
    return tmp_path / "train.json"


def test_templates_are_the_classes(tmp_path: Path) -> None:
    """Without the brackets of a template, in the order of the labels."""
    classes = ("Holding something next to something", "Pushing something from left to right")
    assert read_something(written(tmp_path, VIDEOS)) == (["78687.webm", "42326.webm"], [0, 1], classes)


@pytest.mark.parametrize(
    ("videos", "labels", "message"),
    [
        ([{"id": "1"}], LABELS, r"train\.json: video 0: no 'id' and 'template': this split can't"),
        ([{"id": "1", "template": "Holding [x]"}], LABELS, r"train\.json: video 1: no class 'Holding x'"),
        ({}, LABELS, r"train\.json: expected a JSON list"),
        (VIDEOS, [], r"labels\.json: expected a JSON object"),
        (VIDEOS, {"a": "0", "b": "2"}, r"labels\.json: expected the labels 0 to 1, each once"),
    ],
)
def test_broken_files_are_named(videos: Any, labels: Any, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        read_something(written(tmp_path, videos, labels))


def test_files_that_are_not_there_or_no_json(tmp_path: Path) -> None:
    (tmp_path / "train.json").write_text("[")
    with pytest.raises(UserError, match=r"train\.json: expected one labels\.json beside it, found 0"):
        read_something(tmp_path / "train.json")
    (tmp_path / "labels.json").write_text("{}")
    with pytest.raises(UserError, match=r"train\.json: not JSON"):
        read_something(tmp_path / "train.json")
