"""``results/groups.md``: what blocks and controls reach, by group of videos."""

from benchmarks.groups import PAGE, page


def test_the_page_is_that_of_the_committed_records() -> None:
    found = page()
    assert PAGE.read_text(encoding="utf-8") == found
    line = next(line for line in found.splitlines() if line.startswith("| c2d_r50_nl1_res4 "))
    assert [cell.strip() for cell in line.split("|")[2:4]] == ["non-local, 1-block", "10"]
