"""Charades' annotations as its authors write them."""

from pathlib import Path

import pytest

from nl_lightning.data.annotations import read_annotation
from nl_lightning.data.charades import CLASSES
from nl_lightning.errors import UserError

HEADER = "id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length"
ROWS = """
46GP8,HR43,Kitchen,6,7,Yes,"Cooking, ""while"" watching.",food,"walks; in",c092 11.90 21.20;c147 0.00 12.60,24.83
N11GT,0KZ7,Stairs,4,7,No,A person runs.,door,"One, two.",,31.00
YSE6D,0KZ7,Stairs,4,7,No,A person runs.,door,Runs.,c001 0.00 5.00;c001 9.10 11.00,31.00
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / CLASSES).write_text("c001 Putting clothes somewhere\nc092 Holding some food\nc147 Cooking something\n")
    (tmp_path / "Charades_v1_train.csv").write_text(HEADER + ROWS)
    return tmp_path


def test_a_video_has_all_classes_of_its_actions_once(root: Path) -> None:
    """In ascending order; a video without any action is left out."""
    videos = read_annotation("Charades_v1_train.csv", root, "train")
    assert videos.listed() == [("46GP8.mp4", (1, 2)), ("YSE6D.mp4", (0,))]
    assert videos.classes == ("Putting clothes somewhere", "Holding some food", "Cooking something")
    assert videos.multi_label


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        (
            "Charades_v1_train.csv",
            "c092 11.90 21.20",
            "c093 11.90 21.20",
            "46GP8: expected actions as .* not 'c093 11.90",
        ),
        ("Charades_v1_train.csv", "c092 11.90 21.20", "c092", "46GP8: expected actions as .*, not 'c092'"),
        ("Charades_v1_train.csv", ',"One, two.",,31.00', "", "N11GT: the row is cut off before its actions"),
        (CLASSES, "c092 H", "92 H", f"{CLASSES}:2: expected a code and a name, as 'c000 Holding .*not '92 Holding"),
        ("Charades_v1_train.csv", ROWS, "\n", "Charades_v1_train.csv: the list of videos is empty"),
    ],
)
def test_mistakes_are_named(root: Path, file: str, old: str, new: str, message: str) -> None:
    path = root / file
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new))
    with pytest.raises(UserError, match=message) as refused:
        read_annotation("Charades_v1_train.csv", root, "train")
    assert "\n" not in str(refused.value)


def test_the_classes_have_to_be_there(root: Path) -> None:
    (root / CLASSES).unlink()
    with pytest.raises(UserError, match=CLASSES):
        read_annotation("Charades_v1_train.csv", root, "train")
