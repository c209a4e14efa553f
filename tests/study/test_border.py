"""What comes from outside: everything that isn't what was asked for is one short line, at once."""

import contextlib
import copy
import errno
import math
import os
import random
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pydantic import Field

from nl_lightning.errors import UserError
from nl_lightning.study.border import (
    Count,
    Line,
    Name,
    Percent,
    Positive,
    Seed,
    checked,
    load_yaml,
    parse_json,
    read_json,
    shown,
)
from nl_lightning.study.files import read_text


@dataclass(frozen=True)
class Network:
    depth: Literal[50, 101]
    kind: Literal["gaussian", "dot_product", "concatenation"] = "gaussian"
    width: Annotated[float, Field(gt=0, le=8)] = 1.0
    after: Mapping[Literal["res2", "res3"], tuple[Count, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.width > 4 and self.depth == 101:
            raise ValueError("a network of depth 101 is at most 4 wide")


@dataclass(frozen=True, kw_only=True)
class Plan:
    name: Name
    networks: dict[Name, Network]
    title: Line = "none"
    score: Percent | None = None
    seed: Seed = 0
    rows: list[Network] = field(default_factory=list)
    frames: Positive | tuple[Positive, ...] = 1
    quick: bool = False
    pair: tuple[str, int] = ("a", 1)
    free: dict[str, Any] = field(default_factory=dict)


GOOD: dict[str, Any] = {
    "name": "a.plan",
    "networks": {"deep": {"depth": 101}, "plain": {"depth": 50, "after": {"res3": [1, 2]}}},
    "rows": [{"depth": 50, "width": 2}],
    "free": {"a": [1, {"b": None}]},
}


def test_what_is_right_becomes_an_instance() -> None:
    plan = checked(Plan, GOOD, "p.yaml")
    assert plan.networks["plain"].after == {"res3": (1, 2)}
    assert plan.rows == [Network(50, width=2.0)]
    assert isinstance(plan.rows[0].width, float)
    assert plan.free == {"a": [1, {"b": None}]}
    assert checked(Plan, asdict(plan), "again") == plan
    assert checked(dict[str, list[int]], {"a": [1]}, "d") == {"a": [1]}
    assert checked(tuple[float, ...], [1, 2.5], "t") == (1.0, 2.5)
    assert checked(Plan, GOOD | {"more": 1}, "p.yaml", unknown="ignore") == plan


def edited(place: str, value: object) -> Any:
    raw = copy.deepcopy(GOOD)
    *path, last = (int(key) if key.isdigit() else key for key in place.split("."))
    inside = raw
    for key in path:
        inside = inside[key]
    inside[last] = value
    return raw


@pytest.mark.parametrize(
    ("place", "value", "line"),
    [
        ("nam", "x", "p.yaml: unknown key 'nam'; did you mean 'name'?"),
        ("networks.deep.dept", 1, "p.yaml: networks.deep: unknown key 'dept'; did you mean 'depth'?"),
        ("networks.deep", {}, "p.yaml: networks.deep: the key 'depth' is missing"),
        ("networks.deep", 7, "p.yaml: networks.deep: expected 'key: value' pairs, got 7"),
        ("networks.deep.depth", 34, "p.yaml: networks.deep.depth: expected 50 or 101, got 34"),
        ("networks.deep.depth", True, "p.yaml: networks.deep.depth: expected 50 or 101, got True"),
        ("networks.deep.kind", "dotproduct", "p.yaml: networks.deep.kind: expected one of gaussian, dot_product, "
         "concatenation, got 'dotproduct'; did you mean 'dot_product'?"),
        ("rows.0.width", "1",
         "p.yaml: rows[0].width: expected a number above 0 and of at most 8, got '1'; write it as 1"),
        ("rows.0.width", "5e-1",
         "p.yaml: rows[0].width: expected a number above 0 and of at most 8, got '5e-1'; write it as 0.5"),
        ("networks.deep.width", 0, "p.yaml: networks.deep.width: expected a number above 0 and of at most 8, got 0"),
        ("networks.deep.width", 5, "p.yaml: networks.deep: a network of depth 101 is at most 4 wide"),
        ("networks.deep.after", {"res6": [1]}, "p.yaml: networks.deep.after: unknown key 'res6'; did you mean 'res3'?"),
        ("networks.plain.after.res3.1", -1,
         "p.yaml: networks.plain.after.res3[1]: expected a whole number of at least 0, got -1"),
        ("networks.plain.after.res3", 4, "p.yaml: networks.plain.after.res3: expected a list, got 4"),
        ("rows.0.depth", 50.5, "p.yaml: rows[0].depth: expected 50 or 101, got 50.5"),
        ("rows", [[]], "p.yaml: rows[0]: expected 'key: value' pairs, got []"),
        ("networks.a/b", {"depth": 50},
         "p.yaml: networks: 'a/b' names files: use letters, digits, and _ . - between them"),
        ("name", "..", "p.yaml: name: '..' names files: use letters, digits, and _ . - between them"),
        ("name", "", "p.yaml: name: '' names files: use letters, digits, and _ . - between them"),
        ("name", "x" * 300, f"p.yaml: name: '{'x' * 56}... names files: use at most 100 characters, not 300"),
        ("name", 5, "p.yaml: name: expected a text, got 5; write it in quotes"),
        ("title", " \n ", "p.yaml: title: expected a text, got ' \\n '"),
        ("title", "\x1b[2Jx", "p.yaml: title: expected a text without control characters, got '\\x1b[2Jx'"),
        ("title", "exe.\u202e4pm", "p.yaml: title: expected a text without control characters, got 'exe.\\u202e4pm'"),
        ("score", 729, "p.yaml: score: expected percent, 0 to 100, got 729"),
        ("score", math.nan, "p.yaml: score: expected a number, got nan"),
        ("seed", -1, "p.yaml: seed: expected a whole number, 0 to 4294967295, got -1"),
        ("seed", 2**32, "p.yaml: seed: expected a whole number, 0 to 4294967295, got 4294967296"),
        ("seed", False, "p.yaml: seed: expected a whole number, 0 to 4294967295, got False"),
        ("quick", 1, "p.yaml: quick: expected true or false, got 1"),
        ("pair", ["a", "b"], "p.yaml: pair[1]: expected a whole number, got 'b'"),
        ("pair", ["a"], "p.yaml: pair: expected a list of 2, got ['a']"),
        ("frames", [0], "p.yaml: frames[0]: expected a whole number of at least 1, got 0"),
        ("free.\x1b]0;x", 10**400, "p.yaml: free.\\x1b]0;x: expected a number of less than 20 digits, got 1000"),
        ("free", {"a": b"x"}, "p.yaml: free.a: expected a text, a number, a list or a mapping, got b'x'"),
        ("free", {1: 2}, "p.yaml: free: expected a text as key, got 1; write it in quotes"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(place: str, value: object, line: str) -> None:
    with pytest.raises(UserError) as caught:
        checked(Plan, edited(place, value), "p.yaml")
    assert str(caught.value) == line or (len(line) < len(str(caught.value)) and str(caught.value).startswith(line))


@example({"\xa0": None}, "networks.deep")
@given(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary() | st.dates(),
                    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner),
                    max_leaves=12), st.sampled_from(["name", "networks.deep", "networks.plain.after", "rows.0", "free",
                                                     "frames", "pair", "score", "networks.deep.kind"]))  # fmt: skip
def test_any_value_at_any_place_is_taken_or_refused_in_a_line(value: object, place: str) -> None:
    with contextlib.suppress(UserError):
        checked(Plan, edited(place, value), "p")
        return
    with pytest.raises(UserError) as caught:
        checked(Plan, edited(place, value), "p")
    said = str(caught.value)
    assert said.startswith("p: ")
    assert said.isprintable()
    assert len(said) < 400


def test_line_breaks_become_blanks() -> None:
    assert checked(Plan, edited("title", "two\nlines,  and\ttabs"), "p").title == "two lines, and tabs"
    assert checked(Plan, edited("title", "naïve →\U0001f469\u200d\U0001f4bb"), "p").title.startswith("naïve →")


def test_names_of_files_with_odd_bytes_are_escaped() -> None:
    assert checked(list[str], ["a\udcff.mp4", "ä"], "r") == ["a\\udcff.mp4", "ä"]


def test_numbers_stay_what_they_are() -> None:
    rng = random.Random(0)
    numbers = [rng.uniform(-1, 1) * 10 ** rng.randint(-300, 300) for _ in range(20_000)] + [-0.0, 5e-324, 0.1]
    assert list(map(repr, checked(list[float], numbers, "n"))) == list(map(repr, numbers))
    assert checked(dict[str, Any], {"a": numbers}, "n") == {"a": numbers}


# ----------------------------------------------------------------------------------------------------------- texts


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("[" * 100_000, "j: lists and mappings lie more than 60 levels deep"),
        ("[" * 70 + "]" * 70, "j: lists and mappings lie more than 60 levels deep"),
        ('{"a":' * 100_000, "j: lists and mappings lie more than 60 levels deep"),
        ("1" * 400, "j: expected a number of less than 20 digits, got 111"),
        ("[1, " + "1" * 5000 + "]", "j: isn't JSON: Exceeds the limit"),
        ('{"a": {"b": 1e999}}', "j: a.b: expected a number, got inf"),
        ("[NaN]", "j: [0]: expected a number, got nan"),
        ('{"a": 1, "a": 2}', "j: isn't JSON: the key 'a' is given twice"),
        ('{"top1": 3', "j: isn't JSON: Expecting"),
        ("", "j: isn't JSON: Expecting value"),
        (b"\xff\xfe\x00", "j: isn't JSON: line 1 isn't text in UTF-8"),
    ],
)
def test_texts_that_are_no_json(text: str | bytes, line: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_json(text, "j")
    assert str(caught.value).startswith(line)
    assert len(str(caught.value)) < 200


def test_a_byte_order_mark_is_no_mistake(tmp_path: Path) -> None:
    assert parse_json(b"\xef\xbb\xbf[1]", "j") == [1]
    (tmp_path / "a.json").write_bytes(b"\xef\xbb\xbf[1]")
    assert read_json(tmp_path / "a.json") == [1]


BOMB = "a0: &a0 [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 9)}]\n" for i in range(1, 12)
)
MERGES = "a: &a {b: 1}\nm0: &m0 {<<: [*a,*a]}\n" + "".join(
    f"m{i}: &m{i} {{<<: [{','.join([f'*m{i - 1}'] * 9)}]}}\n" for i in range(1, 9)
)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (BOMB, ", line 6: more than 100000 values with its aliases written out"),
        (MERGES, ", line 7: more than 100000 values with its aliases written out"),
        ("[" * 100_000, ", line 1: lists and mappings lie more than 60 levels deep"),
        ("- " * 100_000 + "x", ", line 1: lists and mappings lie more than 60 levels deep"),
        ("{a: " * 100_000, ", line 1: lists and mappings lie more than 60 levels deep"),
        ("a: &a [*a]", ", line 1: the alias 'a' stands within what it stands for"),
        ("\na: !!float abc", ", line 2: 'abc' can't be read"),
        ("a: !!int xyz", ", line 1: 'xyz' can't be read"),
        ("a: !!bool maybe", ", line 1: 'maybe' can't be read"),
        ("a: !!int ''", ", line 1: '' can't be read"),
        ("a: !!timestamp x", ", line 1: 'x' can't be read"),
        ("a: 2001-99-99", ", line 1: '2001-99-99' can't be read (month must be in 1..12)"),
        ("a: 1" + "0" * 5000, ", line 1: '1000"),
        ("a: !!python/object/apply:os.system [ls]", ", line 1: could not determine a constructor for the tag"),
        ("? [a]\n: 1", ", line 1: found unhashable key"),
        ("a: 1\nb: *nothing", ", line 2: found undefined alias"),
        ("a: 1\na: 2", ", line 2: the key 'a' is given twice"),
        ("a: &a {b: 1}\nc:\n  <<: *a\n  <<: {b: 2}", ", line 4: the key '<<' is given twice"),
        ("a: 'x", ", line 1: found unexpected end of stream"),
        ("a: \x00", ": isn't YAML: "),
        ("- !!binary 'a'", ", line 1: "),
    ],
)
def test_texts_that_are_no_yaml(tmp_path: Path, text: str, line: str) -> None:
    path = tmp_path / "y.yaml"
    path.write_text(text)
    begun = time.process_time()
    with pytest.raises(UserError) as caught:
        load_yaml(path)
    assert str(caught.value).startswith(f"{path}{line}")
    assert len(str(caught.value)) < 300 + len(str(path))
    assert time.process_time() - begun < 10


def test_yaml_with_a_few_aliases_is_read(tmp_path: Path) -> None:
    (tmp_path / "y.yaml").write_text("a: &a {b: 1, c: [1, 2]}\nd: {<<: *a, c: 3}\ne: [*a, *a]\n")
    a = {"b": 1, "c": [1, 2]}
    assert load_yaml(tmp_path / "y.yaml") == {"a": a, "d": {"b": 1, "c": 3}, "e": [a, a]}


@pytest.mark.parametrize("read", [read_text, read_json, load_yaml])
def test_what_cant_be_opened_is_named(tmp_path: Path, read: Callable[[Path], object]) -> None:
    threads = threading.active_count()
    (tmp_path / "file").write_text("1")
    (tmp_path / "odd").write_bytes(b"\xff\xfe\x00")
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    for name, said in [
        ("none", "no file "),
        ("x" * 300, f"can't be read: {os.strerror(errno.ENAMETOOLONG)}"),
        ("file/below", f"can't be read: {os.strerror(errno.ENOTDIR)}"),
        ("loop", f"can't be read: {os.strerror(errno.ELOOP)}"),
        ("nul\0", "can't be read: "),
        ("", "expected a file, got a folder"),
        ("pipe", "expected a file, got a device"),
        ("odd", "can't be read: line 1 isn't text in UTF-8"),
    ]:
        with pytest.raises(UserError) as caught:
            read(tmp_path / name)
        assert said in str(caught.value)
        assert str(caught.value).isprintable()
    with pytest.raises(UserError, match="has 1 bytes; at most 0 are read"):
        read_text(tmp_path / "file", most=0)
    assert threading.active_count() == threads


def test_values_are_shown_short() -> None:
    assert shown("x" * 1_000_000) == f"'{'x' * 56}..."
    assert shown([["a" * 1000] * 1000] * 1000).startswith("[['aaa")
    assert shown("\x1b[1m\u202e") == r"'\x1b[1m\u202e'"
    long = (b"x" * 100, 10**100, 10**5000, {"k" * 99: 1}, range(10**9), "\x1b" * 99)
    assert all(len(shown(value)) <= 60 for value in long)
