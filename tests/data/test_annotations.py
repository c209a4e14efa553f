"""Annotations of every kind, recognised by themselves, to files on this machine."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest

from nl_lightning.data.annotations import CHARADES_CLASSES, read_annotation, read_classes
from nl_lightning.data.videos import Labels
from nl_lightning.errors import UserError

ID = "-abcdefghij"


def made(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def read(
    root: Path, text: str | bytes, file: str = "list.txt", split: str = "train"
) -> tuple[list[str], list[int | Labels], tuple[str, ...]]:
    """Names, labels and classes of a list with this text."""
    (root / file).write_bytes(text if isinstance(text, bytes) else text.encode())
    return content(root, file, split)


def content(root: Path, file: str, split: str = "train") -> tuple[list[str], list[int | Labels], tuple[str, ...]]:
    found = read_annotation(file, root, split)
    return [name for name, _ in found.listed()], [label for _, label in found.listed()], found.classes


def refused(root: Path, message: str, text: str | bytes, file: str = "list.txt", split: str = "train") -> None:
    """The list is refused, with this in one line."""
    with pytest.raises(UserError, match=message) as said:
        read(root, text, file, split)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("lists", "asked", "file"),
    [
        ({"val.csv": f'label,youtube_id,time_start,time_end,split\n"b c",{ID},10,20,val\na,x,0,1,val'}, "val.csv", ""),
        ({"val.csv": f"b_c/{ID}.mp4,1"}, "val.csv", ""),
        ({"val.txt": f"b_c/{ID}.mp4 1"}, "val.txt", ""),
        ({"val.txt": f"/scratch/someone/val_256/b_c/{ID}.mp4 1"}, "val.txt", ""),
        ({"val.txt": f"D:\\kinetics\\val\\b c\\{ID}.mp4 1"}, "val.txt", ""),
        ({"sub/val.txt": f"b_c/{ID}.mp4 1"}, "sub/val.txt", ""),
        ({"split/classInd.txt": "1 a\n2 b_c", "split/testlist01.txt": f"b_c/{ID}.mp4"}, "split/testlist01.txt", ""),
        ({"s/a_test_split1.txt": "x 0", "s/b_c_test_split1.txt": f"{ID}.mp4 2"}, "s/*_test_split1.txt", ""),
        ({"labels.json": '{"a": "0", "b c": "1"}', "val.json": '[{"id": "7", "template": "b [c]"}]'}, "val.json", "7"),
    ],
)
@pytest.mark.parametrize("folder", ["val/b c/", "b_c/"])
def test_every_kind_finds_its_file(lists: dict[str, str], asked: str, file: str, folder: str, tmp_path: Path) -> None:
    """The same video, however it is annotated and wherever it lies."""
    there = f"{folder}{file or ID}.mp4"
    made(tmp_path, there, *lists)
    for name, text in lists.items():
        (tmp_path / name).write_text(text)
    found = read_annotation(asked, tmp_path, "val").listed()
    if "csv" in asked and "youtube_id" in lists[asked]:
        assert found == [(there, 1), ("x_000000_000001.mp4", 0)]
    else:
        assert found == [(there, 1)]


def test_paths_are_written_as_they_lie_below_the_root(tmp_path: Path) -> None:
    """So that the hash of a list is the same everywhere; what isn't there keeps its place in the list."""
    (tmp_path / "link").symlink_to(tmp_path / "data")
    made(tmp_path, "data/a/1.avi", "data/a/2.avi", "out/3.avi")
    names = ["./a//1.avi", f"{tmp_path}/data/a/2.avi", "a/gone.avi", "/gone/with/it.avi", "lost/4.avi"]
    (tmp_path / "data/list.txt").write_text("".join(f"{name} {i}\n" for i, name in enumerate(names)))
    for root in (tmp_path / "data", tmp_path / "link"):
        found = read_annotation("list.txt", root, "train")
        assert list(found.paths.names()) == ["a/1.avi", "a/2.avi", "a/gone.avi", "with/it.avi", "lost/4.avi"]
    (tmp_path / "data/list.txt").write_text(f"{tmp_path}/out/3.avi 0\n../out/3.avi 1\n")
    found = read_annotation("list.txt", tmp_path / "data", "train")
    assert list(found.paths.names()) == [f"{tmp_path}/out/3.avi", "../out/3.avi"]


def test_a_video_that_is_listed_again_counts_once(tmp_path: Path) -> None:
    """In whatever spelling; with two labels it is refused, as one of them is wrong."""
    made(tmp_path, "a/1.avi")
    (tmp_path / "list.txt").write_text("a/1.avi 1\na/2.avi 0\na\\1.avi 1\n./a/1.avi 1\n")
    with pytest.warns(UserWarning, match=r"list\.txt: 2 videos are listed again, a/1\.avi among them"):
        assert read_annotation("list.txt", tmp_path, "train").listed() == [("a/1.avi", 1), ("a/2.avi", 0)]
    (tmp_path / "list.txt").write_text("a/1.avi 1\na/1.avi 0\n")
    with pytest.raises(UserError, match=r"list\.txt:2: a/1\.avi has the label 0, but 1 in line 1"):
        read_annotation("list.txt", tmp_path, "train")


def test_no_list_and_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "empty.txt").write_text("\n")
    with pytest.raises(UserError, match=r"empty\.txt: the list of videos is empty"):
        read_annotation("empty.txt", tmp_path, "train")
    with pytest.raises(UserError, match=r"none\.txt: no list of videos can be read here: there is no such file"):
        read_annotation("none.txt", tmp_path, "train")


# ----------------------------------------------------------------------------------------- texts and names of classes


def test_class_names(tmp_path: Path) -> None:
    """One a line, names may hold spaces and stand in quotes; no file, no names; a name counts once."""
    (tmp_path / "classes.txt").write_bytes(b'\xef\xbb\xbf"riding a bike"\r\nabseiling\r\n')
    assert read_classes(tmp_path / "classes.txt") == ("riding a bike", "abseiling")
    assert read_classes(tmp_path / "none.txt") == ()
    (tmp_path / "classes.txt").write_text("a\nb\na\n")
    with pytest.raises(UserError, match=r"classes\.txt: the class 'a' is named twice"):
        read_classes(tmp_path / "classes.txt")


@pytest.mark.parametrize("file", ["list.txt", "list.json", "a_test_split1.txt"])
def test_what_is_no_text_is_refused_by_its_line(file: str, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text("{}")
    (tmp_path / file).write_bytes("a.mp4 0\nü.mp4 1\n".encode("latin-1"))
    with pytest.raises(UserError, match=f"{file}: .*line 2 isn't text in UTF-8"):
        read_annotation(file.replace("a_", "*_"), tmp_path, "train")


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match="folder: no list of videos .*: expected a file, got a folder"):
        read_annotation("folder", tmp_path, "train")
    with pytest.raises(UserError, match="no list of videos can be read here"):
        read_annotation("a\0b", tmp_path, "train")


@pytest.mark.parametrize("on_disk", ["NFC", "NFD"])
@pytest.mark.parametrize("in_list", ["NFC", "NFD"])
def test_names_may_be_composed_or_not(on_disk: Any, in_list: Any, tmp_path: Path) -> None:
    """A copy from macOS has decomposed names; lists as a rule have composed ones. The file's own name is taken."""
    there = [unicodedata.normalize(on_disk, name) for name in ("v/über.mp4", "vé/x.mp4", "val/vö/y.mp4")]
    made(tmp_path, *there)
    listed = ["v/über.mp4", "/scratch/vé/x.mp4", "vö/y.mp4"]
    text = "".join(f"{unicodedata.normalize(in_list, name)} {label}\n" for label, name in enumerate(listed))
    names, labels, _ = read(tmp_path, text, split="val")
    assert (names, labels) == (there, [0, 1, 2])


def test_of_two_files_whose_names_look_alike_the_very_one_is_taken(tmp_path: Path) -> None:
    names = [unicodedata.normalize(form, "v/ü.mp4") for form in ("NFC", "NFD")]
    made(tmp_path, *names)
    assert read(tmp_path, "".join(f"{name} {label}\n" for label, name in enumerate(names)))[:2] == (names, [0, 1])


# --------------------------------------------------------------------------------------------------- path label a line

NAMES = ["a b/c d.mp4", "x, y.mp4", "-_-.mp4"]


@pytest.mark.parametrize(
    "text",
    [
        "a b/c d.mp4 1\n\nx, y.mp4 0\n-_-.mp4 1\n",
        "a b/c d.mp4,1\nx, y.mp4,0\n-_-.mp4,1",
        '"a b/c d.mp4", 1\n"x, y.mp4",0\n  -_-.mp4,  1 ',
        "\ufeffa b/c d.mp4\t1\r\nx, y.mp4 0\r\n-_-.mp4 1\r\n",
    ],
)
def test_a_list_file(text: str, tmp_path: Path) -> None:
    """With spaces, commas, quotes, tabs, a byte order mark, ends of lines of either kind, and blank lines."""
    assert read(tmp_path, text) == (NAMES, [1, 0, 1], ())
    (tmp_path / "classes.txt").write_text("first\nsecond\n")
    assert read(tmp_path, text) == (NAMES, [1, 0, 1], ("first", "second"))


@pytest.mark.parametrize(
    ("line", "name"),
    [
        ('"v/a 25" 1', "v/a 25"),
        (f"riding a bike/{ID} 1", f"riding a bike/{ID}"),
        ("v/a\u2028b\x85c.mp4 1", "v/a\u2028b\x85c.mp4"),
        ("2 minutes/3.webm 1", "2 minutes/3.webm"),
        ("v/no_ending 1", "v/no_ending"),
    ],
)
def test_paths_that_look_odd_and_are_clear(line: str, name: str, tmp_path: Path) -> None:
    """Quotes, an id of YouTube, what some take for ends of lines."""
    assert read(tmp_path, f"{line}\n")[:2] == ([name], [1])


@pytest.mark.parametrize("line", ["x.mp4", "x.mp4 one", "x.mp4 -1", " 3", "x.mp4 1.0", ",3", "x.mp4,", "x.mp4 \u00b3"])
def test_a_bad_line_is_named_by_file_and_number(line: str, tmp_path: Path) -> None:
    """Neither skipped nor guessed."""
    refused(tmp_path, r"list\.txt:2: expected 'path label'", f"a.mp4 0\n{line}\n")


@pytest.mark.parametrize("line", ["v/a 25 1", "v/a.mp4 25 1", "v/a.mp4,25,1", "a.mp4 0 b.mp4 1", "v/a.mp4\t25\t1"])
def test_more_columns_than_two_are_no_part_of_the_path(line: str, tmp_path: Path) -> None:
    """A folder of frames, their number and a label; several labels; two paths."""
    said = r"list\.txt:2: expected 'path label', not \d columns as in .*; a path with blanks or commas stands in quotes"
    refused(tmp_path, said, f"a.mp4 0\n{line}\n")


@pytest.mark.parametrize("label", ["99999999999", "2147483648", "9" * 900, "9" * 5000])
def test_a_label_that_is_too_large_is_named_by_file_and_number(label: str, tmp_path: Path) -> None:
    refused(tmp_path, r"list\.txt:1: (label|expected 'path label')", f"v/a.mp4 {label}\n")


def test_a_label_without_a_class_is_refused(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("a\nb\n")
    refused(tmp_path, r"list\.txt:1: label 2, but there are 2 classes, 0 to 1", "a.mp4 2\n")


@pytest.mark.parametrize("name", ["a\0b.mp4", f"v/{'x' * 300}.mp4", f"v/{'ü' * 130}.mp4"])
def test_a_name_that_no_file_can_have_is_named_by_file_and_number(name: str, tmp_path: Path) -> None:
    refused(tmp_path, r"list\.txt:2: no file can have the name '", f"a.mp4 0\n{name} 1\n")


# ------------------------------------------------------------------------------------------------------------ Kinetics

KINETICS = ["-abcdefghij_000010_000020.mp4", "a_b-c_d-e_f_000000_000010.mp4", "00000000000_000101_000111.mp4"]
ROWS = [
    ["shooting goal (soccer)", "-abcdefghij", "10", "20"],
    ["abseiling", "a_b-c_d-e_f", "0.0", "10.0"],
    ["making tea, really", "00000000000", "101", "111"],
]
HEADER = "label,youtube_id,time_start,time_end"


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    """In any order, quoted or not, with columns that nobody asked for; classes are in alphabetical order."""
    rows = [f'"{label}",{video},{start},{end},val' for label, video, start, end in ROWS]
    plain = read(tmp_path, "\n".join([f"{HEADER},split", *rows]), split="val")
    assert plain == (KINETICS, [2, 0, 1], ("abseiling", "making tea, really", "shooting goal (soccer)"))
    rows = [f'0,{end},{start},{video},"{label}"' for label, video, start, end in ROWS]
    text = "\r\n".join(['\ufeff"is_cc","time_end",time_start,youtube_id,Label', *rows, ""])
    assert read(tmp_path, text, split="val") == plain


@pytest.mark.parametrize("word", ["val", "validate", "validation", "Validate"])
def test_a_split_is_taken_of_several(word: str, tmp_path: Path) -> None:
    """And a file of one split as a whole, whatever it calls it: test lists are often those for validation.

    Rows for testing may have no label: that is no class.
    """
    splits = ["train", word, "test"]
    rows = [f'"{label}",{",".join(rest)},{split}' for (label, *rest), split in zip(ROWS, splits, strict=True)]
    text = "\n".join([f"{HEADER},split", *rows, ",99999999999,0,10,test"])
    assert read(tmp_path, text, split="val")[0] == KINETICS[1:2]
    assert read(tmp_path, text, split="train")[1] == [2]
    assert len(read(tmp_path, text, split="train")[2]) == 3
    refused(tmp_path, r"list\.txt:5: no class ''", text, split="test")
    one = "\n".join([f"{HEADER},split", rows[1]])
    assert read(tmp_path, one, split="test")[0] == KINETICS[1:2]


def test_the_classes_of_a_file_of_their_own_come_first(tmp_path: Path) -> None:
    """With spaces or `_` in their names, composed or not."""
    text = f'{HEADER}\n"riding a bike",-abcdefghij,1,11\ncafé,00000000000,1,11'
    (tmp_path / "classes.txt").write_text("abseiling\nriding_a_bike\n" + unicodedata.normalize("NFD", "café"))
    assert read(tmp_path, text)[1] == [1, 2]
    (tmp_path / "classes.txt").write_text("abseiling\nriding a mule\n")
    refused(tmp_path, r"list\.txt:2: no class 'riding a bike'; did you mean 'riding_a_mule'", text)


@pytest.mark.parametrize(
    ("text", "split", "message"),
    [
        ("youtube_id,time_start,time_end,split\n", "test", "no column 'label': this split can be neither"),
        ("label,youtube_id,time_start\na,b,0", "train", "no column 'time_end'"),
        (f"{HEADER},Label\na,b,0,10,c", "train", "several columns 'label'; expected label, youtube_id"),
        (f"{HEADER}\na,b,0,10\na,b,0", "train", "3: 3 columns where the first line has 4; expected label, youtube_id"),
        (f"{HEADER}\na,b,0,10\na,b,0,10,20", "train", "3: 5 columns where the first line has 4"),
        *(
            (f"{HEADER}\na,b,0,10\n{row}", "train", "3: expected label, youtube_id, time_start, time_end, with times")
            for row in ("a,b,soon,later", "a,b,nan,inf", "a,b,0,1e300", "a,b,10,0", "a,b,-5,5", "a,,0,10")
        ),
        (f'{HEADER}\n"a,b,0,10\na",c,0,10', "train", "3: a quote isn't closed in its line"),
        (f"{HEADER}\n{'x' * 200_000},b,0,10", "train", "2: field larger than field limit"),
        (f"{HEADER}\na,b\0,0,10", "train", "2: no file can have the name"),
    ],
)
def test_broken_tables_of_kinetics_are_named(text: str, split: str, message: str, tmp_path: Path) -> None:
    refused(tmp_path, rf"list\.txt: ?{message}", text, split=split)


# ------------------------------------------------------------------------------------------------------------ Charades

CHARADES = """id,subject,scene,quality,relevance,verified,script,objects,descriptions,actions,length
46GP8,HR43,Kitchen,6,7,Yes,"Cooking, ""while"" watching.",food,"walks; in",c092 11.90 21.20;c147 0.00 12.60,24.83
N11GT,0KZ7,Stairs,4,7,No,A person runs.,door,"One, two.",,31.00
YSE6D,0KZ7,Stairs,4,7,No,A person runs.,door,Runs.,c001 0.00 5.00;c001 9.10 11.00,31.00
"""


@pytest.fixture
def charades(tmp_path: Path) -> Path:
    (tmp_path / CHARADES_CLASSES).write_text(
        "c001 Putting clothes somewhere\nc092 Holding some food\nc147 Cooking something\n"
    )
    return tmp_path


def test_a_video_has_all_classes_of_its_actions_once(charades: Path) -> None:
    """In ascending order; a video without any action is left out."""
    classes = ("Putting clothes somewhere", "Holding some food", "Cooking something")
    assert read(charades, CHARADES) == (["46GP8.mp4", "YSE6D.mp4"], [(1, 2), (0,)], classes)
    assert read_annotation("list.txt", charades, "train").multi_label


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("c092 11.90 21.20", "c093 11.90 21.20", ":2: expected actions as .* not 'c093 11.90"),
        ("c092 11.90 21.20", "c092", ":2: expected actions as .*, not 'c092'"),
        (',"One, two.",,31.00', "", ":3: 8 columns where the first line has 11"),
        ("N11GT,", ",", ":3: the row has no id"),
        (CHARADES.partition("\n")[2], "\n", ": the list of videos is empty"),
    ],
)
def test_mistakes_in_charades_are_named(charades: Path, old: str, new: str, message: str) -> None:
    assert old in CHARADES
    refused(charades, rf"list\.txt{message}", CHARADES.replace(old, new))


@pytest.mark.parametrize("line", ["92 Holding some food", "c001 Putting clothes again"])
def test_the_classes_of_charades_have_to_be_right(charades: Path, line: str) -> None:
    (charades / CHARADES_CLASSES).write_text(f"c001 Putting clothes somewhere\n{line}\n")
    refused(
        charades, f"{CHARADES_CLASSES}:2: expected a code and a name, each code once, as 'c000 Hol.*{line}", CHARADES
    )
    (charades / CHARADES_CLASSES).unlink()
    refused(charades, CHARADES_CLASSES, CHARADES)


# ------------------------------------------------------------------------------------------------- Something-Something

LABELS = {"Pushing something from left to right": "1", "Holding something next to something": "0"}
VIDEOS = [
    {"id": "78687", "label": "holding potato next to bottle", "template": "Holding [something] next to [something]"},
    {"id": "42326", "label": "pushing it", "template": "Pushing [something] from left to right", "placeholders": []},
]


def test_templates_are_the_classes(tmp_path: Path) -> None:
    """Without the brackets of a template, in the order of the labels."""
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps(LABELS))
    classes = ("Holding something next to something", "Pushing something from left to right")
    assert read(tmp_path, json.dumps(VIDEOS), "train.json") == (["78687.webm", "42326.webm"], [0, 1], classes)


@pytest.mark.parametrize(
    ("videos", "labels", "message"),
    [
        *(
            ([video], LABELS, r"train\.json: video 0: expected texts as 'id' and 'template', .* split can't .*, not")
            for video in ({"id": "1"}, 3, *({"id": of, "template": "x"} for of in ("../1", [1, 2], True, None)))
        ),
        ([{"id": "1", "template": "Holding [x]"}], LABELS, r"train\.json: video 1: no class 'Holding x'"),
        ({}, LABELS, r"train\.json: expected a JSON list"),
        (VIDEOS, [], r"labels\.json: expected a JSON object"),
        (VIDEOS, {"a": "0", "b": "2"}, r"labels\.json: expected the labels 0 to 1, each once"),
        (VIDEOS, {"a": "zero", "b": None}, r"labels\.json: expected the labels 0 to 1, each once"),
    ],
)
def test_broken_json_is_named(videos: Any, labels: Any, message: str, tmp_path: Path) -> None:
    (tmp_path / "something-something-v2-labels.json").write_text(json.dumps(labels))
    refused(tmp_path, message, json.dumps(videos), "train.json")


def test_json_that_is_not_there_or_no_json(tmp_path: Path) -> None:
    refused(tmp_path, r"train\.json: expected one labels\.json beside it, found 0", "[", "train.json")
    (tmp_path / "labels.json").write_text("{}")
    refused(tmp_path, r"train\.json: isn't JSON", "[", "train.json")
    refused(tmp_path, r"train\.json: .* levels deep", "[" * 100_000, "train.json")


# --------------------------------------------------------------------------------------------------- UCF101 and HMDB51

UCF101 = ("Archery", "ApplyLipstick", "Basketball")


@pytest.fixture
def ucf101(tmp_path: Path) -> Path:
    (tmp_path / "classInd.txt").write_text("".join(f"{i} {name}\r\n" for i, name in enumerate(UCF101, 1)))
    return tmp_path


@pytest.mark.parametrize("labels", [(" 1", " 3"), (" 0", " 2"), ("", "")])
def test_ucf101(labels: tuple[str, str], ucf101: Path) -> None:
    """Training lists have labels from 1, testing lists have none, other people's have labels from 0."""
    names = ["Archery/v_Archery_g01_c01.avi", "UCF-101/Basketball/v_Basketball_g02_c01.avi"]
    text = "\r\n".join(n + label for n, label in zip(names, labels, strict=True)) + "\r\n"
    assert read(ucf101, text) == (names, [0, 2], UCF101)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Archery/v_Archery_g01_c01.avi 3", r"list\.txt:1: label '3', but classInd\.txt has 1 for Archery"),
        ("Archry/v_Archery_g01_c01.avi 1", r"list\.txt:1: no class 'Archry'; did you mean 'Archery'"),
        ("Archery/v_Archery_g01_c01.avi 1 25", r"list\.txt:1: expected 'class/video label'"),
    ],
)
def test_lines_that_ucf101_cannot_have(line: str, message: str, ucf101: Path) -> None:
    refused(ucf101, message, f"{line}\n")


def test_the_classes_of_ucf101_have_to_be_numbered(ucf101: Path) -> None:
    (ucf101 / "classInd.txt").write_text("1 Archery\nBasketball 2\n")
    refused(ucf101, r"classInd\.txt:2: expected 'label class', not 'Basketball 2'", "Archery/a.avi 1")
    for second in (1, 3):
        (ucf101 / "classInd.txt").write_text(f"1 Archery\n{second} Basketball\n")
        refused(ucf101, r"classInd\.txt: expected the labels 1 to 2, each once", "Archery/a.avi 1")


def test_hmdb51(tmp_path: Path) -> None:
    """1 is to train on, 2 to test, 0 for neither; names hold whatever names can."""
    (tmp_path / "clap_test_split2.txt").write_text("#1 a(b)_nm.avi 1 \nx;y_nm.avi 2 \nz.avi 0 \n")
    (tmp_path / "brush_hair_test_split2.txt").write_text("A!.avi 2\n\n")
    (tmp_path / "clap_test_split1.txt").write_text("other.avi 1\n")
    assert content(tmp_path, "*_test_split2.txt") == (["clap/#1 a(b)_nm.avi"], [1], ("brush_hair", "clap"))
    for split in ("val", "test"):
        names, labels, _ = content(tmp_path, "*_test_split2.txt", split)
        assert (names, labels) == (["brush_hair/A!.avi", "clap/x;y_nm.avi"], [0, 1])
    assert content(tmp_path / "elsewhere", f"{tmp_path}/*_test_split2.txt", "val")[1] == [0, 1]
    with pytest.raises(UserError, match=r"\*_test_split3\.txt: there is no such file"):
        content(tmp_path, "*_test_split3.txt")
    for line in ("b.avi 3", "b.avi 1 2", "b.avi"):
        (tmp_path / "clap_test_split2.txt").write_text(f"a.avi 1\n{line}\n")
        with pytest.raises(UserError, match=rf"clap_test_split2\.txt:2: expected 'video 0', 1 or 2, not '{line}"):
            content(tmp_path, "*_test_split2.txt")
