"""Rows by name."""

from nl_lightning.data.names import Names


def test_rows_are_found_by_name_and_nothing_else_is() -> None:
    names = [f"class {i % 7}/video_{i}.mp4" for i in range(1000)]
    found = Names(names)
    assert [found.row(name) for name in names] == list(range(1000))
    assert found.row("class 0/video_1.mp4") is None
    assert Names([]).row("x") is None
    assert Names(["\udcff.mp4"]).row("\udcff.mp4") == 0  # a name that is no UTF-8
