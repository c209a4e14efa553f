"""Bad values and damaged files, made from good ones: what a careless or a hostile person would hand over.

Each function takes a ``random.Random`` and returns something spoiled, for commands that :mod:`benchmarks.fuzz` runs.
"""

import copy
import io
import itertools
import json
import os
import pickle
import struct
from collections.abc import Iterator
from random import Random
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

WORDS = (
    "", " ", "x", "x" * 300, "/" * 5000, ".", "..", "../../outside", "/etc/passwd", "/dev/zero", "nothing/here",
    "a\x00b", "[/red]", "[bold]x", "\x1b[31mred\x1b[0m", "\x1b]0;title\x07", "<script>alert(1)</script>", "a|b\nc",
    "$x_1$ \\input", "=1+1", "é", "e\u0301", "\u202egnp.exe", "日本", "🙂", "http://127.0.0.1:9/x.ckpt",
    "s3://bucket/x", "--help", "-1", "0", "1.5", "1e400", "nan", "inf", "-inf", "True", "null", "2001-99-99",
    "1" + "0" * 400, "\u00b2", "0x10", "1_000", "{depth}", "${HOME}", "%s%n", "a,b,c", "1,2", "1,2,3",
    "9,9,9999999",
)  # fmt: skip
"""Words for the command line and for files; none of them is right anywhere but by chance."""

VALUES: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2**31, 2**63, 10**400, 1.5, 1e308, float("nan"), float("inf"), -0.0,
    [], {}, [[]], [None], {"": ""}, {"x": {"x": {}}}, [0] * 1000, *WORDS,
)  # fmt: skip
"""Values for YAML and JSON."""


def spoil(random: Random, tree: Any) -> Any:
    """A copy of nested dictionaries and lists with one or two places changed."""
    tree = copy.deepcopy(tree)
    for _ in range(random.choice((1, 1, 2))):
        places = list(_places(tree))
        if not places:
            return random.choice(VALUES)
        holder, key = random.choice(places)
        match random.randrange(6):
            case 0 | 1:
                holder[key] = random.choice(VALUES)
            case 2:
                del holder[key]
            case 3 if isinstance(holder, dict):
                holder[random.choice((f"{key}s", random.choice(WORDS)))] = holder[key]
            case 3:
                holder.append(random.choice((holder[key], random.choice(VALUES))))
            case 4:
                holder[key] = random.choice(([holder[key]], {"x": holder[key]}, str(holder[key])))
            case 5:
                there, name = random.choice(places)
                holder[key] = copy.deepcopy(there[name]) if isinstance(there, dict) == (name in there) else None
    return tree


def _places(tree: Any) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every value in a tree."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree)) if isinstance(tree, list) else ()
    for key in keys:
        yield tree, key
        yield from _places(tree[key])


def damage(random: Random, content: bytes) -> bytes:
    """The bytes of a file, cut off, changed, or replaced."""
    at = random.randrange(len(content) + 1)
    some = random.randbytes(random.choice((1, 4, 64)))
    before, after = content[:at], content[at + len(some) :]
    return random.choice(
        (before, before + some + after, before + after, before + bytes(len(some)) + after, content + content, b"",
         some, b"\xff\xfe" + content, b"[" * 100_000, b"\x89PNG\r\n\x1a\n" + some)
    )  # fmt: skip


def spoiled_json(random: Random, content: bytes) -> bytes:
    """A JSON file with another structure, or damaged."""
    if random.random() < 0.25:
        return damage(random, content)
    text = json.dumps(spoil(random, json.loads(content)))
    return (text.replace("{", '{"twice": 1, "twice": 2, ', 1) if random.random() < 0.05 else text).encode()


LETTERS = list(itertools.pairwise("abcdefghi"))
YAML_BOMBS = (
    "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(f"{b}: &{b} [{', '.join([f'*{a}'] * 9)}]\n" for a, b in LETTERS),
    "a: &a {x: 1}\n"
    + "".join(f"{b}: &{b} {{<<: [{', '.join([f'*{a}'] * 9)}], {b}{b}: {{<<: *{a}}}}}\n" for a, b in LETTERS),
    "!!python/object/apply:os.system ['touch PWNED']",
    "a: !!float abc",
    "a: !!timestamp 2001-99-99",
    "&a [*a]",
    "? [a, b]\n: 1",
    "- " * 20_000,
)


def spoiled_yaml(random: Random, content: bytes) -> bytes:
    """A YAML file with another structure, damaged, or a bomb."""
    chance = random.random()
    if chance < 0.15:
        return damage(random, content)
    if chance < 0.3:
        return random.choice(YAML_BOMBS).encode()
    return yaml.safe_dump(spoil(random, yaml.safe_load(content)), allow_unicode=True).encode("utf-8", "surrogatepass")


def spoiled_lines(random: Random, content: bytes) -> bytes:
    """A list of videos with other lines, or damaged."""
    if random.random() < 0.3:
        return damage(random, content)
    lines = content.decode().splitlines()
    for _ in range(random.choice((1, 1, 3))):
        line, number = random.choice(lines), random.randrange(len(lines))
        path, _, label = line.rpartition(" ")
        others = [f"{path} {random.choice(WORDS)}", f"{random.choice(WORDS)} {label}", path, f"{line} 1 2"]
        others += [f"{path},{label}", f"{path}\t{label}", line, "#", f'"{path}" {label}']
        lines[number] = random.choice(others)
    return "\n".join(lines).encode("utf-8", "surrogatepass")


def spoiled_parquet(random: Random, content: bytes) -> bytes:
    """A Parquet file with other columns, types, rows or metadata, or damaged."""
    if random.random() < 0.3:
        return damage(random, content)
    table = pq.read_table(io.BytesIO(content))
    name = random.choice(table.column_names)
    at = table.column_names.index(name)
    match random.randrange(7):
        case 0:
            table = table.drop_columns([name])
        case 1:
            table = table.rename_columns([f"{c}s" if c == name else c for c in table.column_names])
        case 2:
            table = table.set_column(at, name, pa.array([str(random.choice(WORDS)) for _ in range(len(table))]))
        case 3:
            table = table.set_column(at, name, pa.nulls(len(table)))
        case 4:
            table = table.replace_schema_metadata(None)
        case 5:
            table = table.slice(random.randrange(len(table) + 1))
        case 6:
            table = table.replace_schema_metadata({b"nl_lightning": json.dumps(random.choice(VALUES)).encode()})
    spoiled = io.BytesIO()
    pq.write_table(table, spoiled)
    return spoiled.getvalue()


def spoiled_safetensors(random: Random, content: bytes) -> bytes:
    """A weight file whose header says something else, or damaged."""
    if random.random() < 0.3:
        return damage(random, content)
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    own = next((key for key, value in header.get("__metadata__", {}).items() if value.startswith("{")), None)
    if own and random.random() < 0.7:
        header["__metadata__"][own] = json.dumps(spoil(random, json.loads(header["__metadata__"][own])))
    else:
        header = spoil(random, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + content[8 + length :]


class _Runs:
    """Unpickling it would run a command."""

    def __reduce__(self) -> Any:
        return os.system, ("touch PWNED",)


def _shared_dictionaries() -> Any:
    deep: Any = {}
    for _ in range(60):
        deep = {"a": deep, "b": deep}
    return deep


def _huge_array() -> bytes:
    """A pickle of an array whose shape asks for 16 GB."""
    small = pickle.dumps(np.zeros(7, np.uint8), protocol=2)
    return small.replace(b"K\x07\x85", b"\x8a\x05\x00\x00\x00\x00\x04\x85")


def spoiled_pickle(random: Random, content: bytes) -> bytes:
    """A pickle that runs a command, explodes, nests, or is damaged."""
    made = (
        lambda: pickle.dumps({"state_dict": _Runs()}),
        lambda: pickle.dumps(_shared_dictionaries(), protocol=4),
        _huge_array,
        lambda: b"\x80\x04" + b"]" * 50_000 + b"." ,
        lambda: b"cos\nsystem\n(S'touch PWNED'\ntR.",
        lambda: pickle.dumps({"state_dict": {"w": 1}}),
        lambda: pickle.dumps(random.choice(VALUES)),
    )  # fmt: skip
    return damage(random, content) if random.random() < 0.5 else random.choice(made)()
