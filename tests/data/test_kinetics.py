"""The CSV of Kinetics' authors, in the forms in which it is about."""

from pathlib import Path

import pytest

from nl_lightning.data.kinetics import is_kinetics, read_kinetics
from nl_lightning.errors import UserError

NAMES = ["-abcdefghij_000010_000020.mp4", "a_b-c_d-e_f_000000_000010.mp4", "00000000000_000101_000111.mp4"]
ROWS = [
    ["shooting goal (soccer)", "-abcdefghij", "10", "20"],
    ["abseiling", "a_b-c_d-e_f", "0.0", "10.0"],
    ["making tea, really", "00000000000", "101", "111"],
]


def written(tmp_path: Path, header: str, rows: list[str]) -> Path:
    file = tmp_path / "list.csv"
    file.write_text("\n".join([header, *rows]) + "\n")
    return file


def test_columns_are_found_by_their_names(tmp_path: Path) -> None:
    """In any order, quoted or not, with columns that nobody asked for; classes are in alphabetical order."""
    rows = [f'"{label}",{video},{start},{end},val' for label, video, start, end in ROWS]
    plain = read_kinetics(written(tmp_path, "label,youtube_id,time_start,time_end,split", rows), "val")
    assert plain == (NAMES, [2, 0, 1], ("abseiling", "making tea, really", "shooting goal (soccer)"))
    rows = [f'0,{end},{start},{video},"{label}"' for label, video, start, end in ROWS]
    file = written(tmp_path, '\ufeff"is_cc", "time_end",time_start,youtube_id,Label', [*rows, ""])
    assert is_kinetics(file.read_text(encoding="utf-8-sig").splitlines()[0])
    file.write_text(file.read_text().replace("\n", "\r\n").replace('", "', '","'))
    assert read_kinetics(file, "val") == plain


@pytest.mark.parametrize("word", ["val", "validate", "validation", "Validate"])
def test_a_split_is_taken_of_several(word: str, tmp_path: Path) -> None:
    """And a file of one split as a whole, whatever it calls it: test lists are often those for validation."""
    splits = ["train", word, "test"]
    rows = [f'"{label}",{",".join(rest)},{split}' for (label, *rest), split in zip(ROWS, splits, strict=True)]
    file = written(tmp_path, "label,youtube_id,time_start,time_end,split", rows)
    assert read_kinetics(file, "val").names == NAMES[1:2]
    assert read_kinetics(file, "train").labels == [2]
    assert len(read_kinetics(file, "train").classes) == 3
    one = written(tmp_path, "label,youtube_id,time_start,time_end,split", rows[1:2])
    assert read_kinetics(one, "test").names == NAMES[1:2]


def test_the_classes_of_a_file_of_their_own_come_first(tmp_path: Path) -> None:
    """With spaces or `_` in their names."""
    file = written(tmp_path, "label,youtube_id,time_start,time_end", ['"riding a bike",-abcdefghij,1,11'])
    assert read_kinetics(file, "train", ("abseiling", "riding_a_bike")).labels == [1]
    with pytest.raises(UserError, match=r"list\.csv: -abcdefghij_000001_000011\.mp4: no class 'riding_a_bike'"):
        read_kinetics(file, "train", ("abseiling", "riding a mule"))


def test_broken_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"list\.csv: no column 'label': this split can be neither"):
        read_kinetics(written(tmp_path, "youtube_id,time_start,time_end,split", []), "test")
    with pytest.raises(UserError, match=r"list\.csv: no column 'time_end'"):
        read_kinetics(written(tmp_path, "label,youtube_id,time_start", []), "test")
    for row in ("abseiling,-abcdefghij,0", "abseiling,-abcdefghij,soon,later"):
        file = written(tmp_path, "label,youtube_id,time_start,time_end", ["abseiling,00000000000,0,10", row])
        with pytest.raises(UserError, match=r"list\.csv:3: expected label, youtube_id, time_start, time_end, with"):
            read_kinetics(file, "train")
    assert not is_kinetics("a,b.mp4 0")
