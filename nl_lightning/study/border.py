"""The border: what comes from outside is read here, and checked against a type before anything believes it.

Studies, recipes, records, weight headers, manifests, notes of jobs and what W&B says are texts that anybody may have
written. :func:`load_yaml`, :func:`read_json` and :func:`parse_json` make plain Python data of such a text and survive
any text. :func:`checked` makes an instance of a type of plain data. Each mistake is one
:class:`~nl_lightning.errors.UserError` that says where, what was expected and what was there.

pydantic does the checking, on ordinary dataclasses. (msgspec was tried on the same mistakes: it doesn't say which entry
of a mapping is wrong, nor which value was there, and lets NaN and unknown keys of a dataclass pass.)
"""

import contextlib
import dataclasses
import functools
import json
import math
import reprlib
import types
import typing
import unicodedata
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, cast, get_args, get_origin

import pydantic
import yaml
from pydantic import AfterValidator, Field

from nl_lightning.errors import UserError, nearest, one_line
from nl_lightning.study.files import MOST_BYTES, read_text, reason

T = TypeVar("T")

DEPTH = 60
"""Levels of lists and mappings within each other that are read. Our own files have up to eight."""
MOST_VALUES = 100_000
"""Values that a YAML file may have with its aliases written out. Our own have up to a thousand."""
MOST_YAML = 4 << 20
"""Bytes of a YAML text that is read. Our own have some 10 kB."""

# ----------------------------------------------------------------------------------------------- types of values


def _file_name(text: str) -> str:
    plain = text.replace("_", "").replace(".", "").replace("-", "")
    if not (plain.isascii() and plain.isalnum() and text[0].isalnum()):
        raise ValueError(f"{shown(text)} names files: use letters, digits, and _ . - between them")
    if len(text) > 100:
        raise ValueError(f"{shown(text)} names files: use at most 100 characters, not {len(text)}")
    return text


def _a_line(text: str) -> str:
    line = one_line(text)
    if not line:
        raise ValueError(f"expected a text, got {shown(text)}")
    if any(unicodedata.category(each) == "Cc" or each in TURNING for each in line):
        raise ValueError(f"expected a text without control characters, got {shown(text)}")
    return line


TURNING = "\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069"
"""Characters that turn the direction of the text after them: it can look like another text."""
Name = Annotated[str, AfterValidator(_file_name)]
"""What becomes the name of a file: ASCII letters and digits, with ``_ . -`` between them, at most 100."""
Line = Annotated[str, AfterValidator(_a_line)]
"""A text for people. A line break becomes a blank, several blanks become one; control characters are refused."""
Count = Annotated[int, Field(ge=0)]
Positive = Annotated[int, Field(ge=1)]
Length = Annotated[int, Field(ge=1, le=100_000)]  # frames or pixels: far above any clip, and no memory is asked for it
Percent = Annotated[float, Field(ge=0, le=100), "percent, 0 to 100"]
Ratio = Annotated[float, Field(gt=0, le=1e6)]
Seed = Annotated[int, Field(ge=0, le=2**32 - 1)]
"""What NumPy and Lightning take as a seed."""

# ----------------------------------------------------------------------------------------------- what is said of it


def shown(value: object) -> str:
    """A value as a message shows it: in at most 60 characters, none of which a terminal obeys."""
    try:
        return _cut(repr(value[:61]) if isinstance(value, str | bytes) else _REPR.repr(value))
    except ValueError:
        return "a number of thousands of digits"


_REPR = reprlib.Repr()
_REPR.maxlong = _REPR.maxstring = _REPR.maxother = 61


def _cut(text: str, most: int = 60) -> str:
    """Blanks other than the usual one are escaped: a key with one looks like the right key."""
    short = text if len(text) <= most else f"{text[: most - 3]}..."
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in short)


# ------------------------------------------------------------------------------------------------ checking by type


def checked(type_: type[T], raw: object, at: str, *, unknown: Literal["refuse", "ignore"] = "refuse") -> T:
    r"""An instance of `type_` made of plain data; UserError, in one line, if the data aren't of this type.

    Nothing is converted, except that an integer is taken for a float and a list for a tuple. Numbers are finite. A text
    that isn't Unicode, such as a file name with odd bytes, gets these bytes escaped (``\udcff``).

    Args:
        type_: a dataclass, ``dict[str, X]``, ``list[X]``, ``tuple[X, ...]``, a ``Literal``, or ``Annotated`` with
            pydantic's ``Field`` for bounds. A text among the annotations is what the message says is expected. A
            dataclass's ``__post_init__`` runs; a ValueError from there is a mistake at its place.
        raw: what YAML or JSON gave, or ``dataclasses.asdict`` of an instance.
        at: where `raw` is from, for the message: a file as a rule.
        unknown: what to do with keys that a dataclass doesn't have.
    """
    plain = _plain(raw, at, ())
    try:
        # As JSON, because on Python's own values pydantic can't both be strict and take a list for a tuple.
        return cast(T, _adapter(cast(Any, type_), unknown).validate_json(json.dumps([plain]))[0])
    except pydantic.ValidationError as error:
        raise UserError(_message(at, type_, plain, error.errors(include_url=False))) from None


@functools.cache
def _adapter(type_: Any, unknown: str) -> pydantic.TypeAdapter[list[Any]]:
    extra: Literal["forbid", "ignore"] = "forbid" if unknown == "refuse" else "ignore"
    # A list, because pydantic takes no configuration for a bare dataclass.
    return pydantic.TypeAdapter(list[type_], config=pydantic.ConfigDict(strict=True, extra=extra, allow_inf_nan=False))


def _plain(raw: object, at: str, path: tuple[str | int, ...]) -> Any:
    """A copy that JSON can hold. UserError for what can't be: dates, bytes, NaN, huge numbers, deep nesting."""
    if len(path) > DEPTH:
        raise UserError(f"{at}: lists and mappings lie more than {DEPTH} levels deep")
    if isinstance(raw, str):
        return as_unicode(raw)
    if isinstance(raw, float) and not math.isfinite(raw):
        raise UserError(f"{_join(at, path)}expected a number, got {shown(raw)}")
    if isinstance(raw, int) and abs(raw) >= 2**63:
        raise UserError(f"{_join(at, path)}expected a number of less than 20 digits, got {shown(raw)}")
    if raw is None or isinstance(raw, int | float):
        return raw
    if isinstance(raw, Mapping):
        for key in raw:
            if not isinstance(key, str):
                raise UserError(f"{_join(at, path)}expected a text as key, got {shown(key)}; write it in quotes")
        return {as_unicode(key): _plain(value, at, (*path, key)) for key, value in raw.items()}
    if isinstance(raw, list | tuple):
        return [_plain(value, at, (*path, i)) for i, value in enumerate(raw)]
    raise UserError(f"{_join(at, path)}expected a text, a number, a list or a mapping, got {shown(raw)}")


def as_unicode(text: str) -> str:
    r"""A text without what isn't Unicode: odd bytes in a file's name are written as ``\udcff``."""
    return text if text.isascii() else text.encode("utf-8", "backslashreplace").decode()


def _message(at: str, type_: Any, plain: Any, errors: Sequence[Any]) -> str:
    """The first mistake that pydantic found, in our words."""
    # A misspelt key is one unknown key and one missing key: the first says more.
    first = min(errors, key=lambda each: each["type"] != "unexpected_keyword_argument")
    start = _place(plain, first["loc"])
    # A value that fits no arm of a union has a mistake for each: the innermost says more.
    inside = [each for each in errors if _place(plain, each["loc"])[: len(start)] == start]
    error = max(inside, key=lambda each: (len(_place(plain, each["loc"])), each is first))
    path = _place(plain, error["loc"])
    value = functools.reduce(lambda outer, key: outer[key], path, plain)
    kind, last = error["type"], error["loc"][-1]
    of_key = last == "[key]"
    if kind == "missing" and isinstance(last, str):
        return f"{_join(at, path)}the key '{last}' is missing"
    if of_key or kind == "unexpected_keyword_argument":
        value = path.pop()
    wanted = _within(type_, path)
    if of_key:
        wanted = get_args(_bare(wanted))[0]
    here = _join(at, path)
    if kind == "unexpected_keyword_argument" or (of_key and kind == "literal_error"):
        known = get_args(_bare(wanted)) if of_key else _fields(wanted)
        return f"{here}unknown key '{_cut(value)}'{nearest(value, known)}"
    if kind == "value_error":
        return f"{here}{error['ctx']['error']}"
    return f"{here}expected {_in_words(wanted)}, got {shown(value)}{_hint(_bare(wanted), value)}"


def _place(plain: Any, loc: Sequence[Any]) -> list[Any]:
    """Where in the data a mistake is: pydantic's place without the list around them and the names of unions' arms."""
    path = []
    for key in loc[1:]:
        if (isinstance(plain, dict) and key in plain) or (isinstance(plain, list) and key in range(len(plain))):
            path.append(key)
            plain = plain[key]
    return path


def _hint(wanted: Any, value: object) -> str:
    if wanted is str and isinstance(value, int | float):
        return "; write it in quotes"
    if wanted in (int, float) and isinstance(value, str):  # as YAML reads 1e-3
        with contextlib.suppress(ValueError):
            return f"; write it as {float(value):g}" if math.isfinite(float(value)) else ""
    if get_origin(wanted) is Literal and isinstance(value, str):
        return nearest(value, map(str, get_args(wanted)), otherwise_all=False)
    return ""


def _join(at: str, path: Iterable[str | int]) -> str:
    """``file.yaml: tables.a.rows[3]: ``, or nothing."""
    steps = "".join(f"[{key}]" if isinstance(key, int) else f".{_cut(key)}" for key in path)
    return "".join(f"{part}: " for part in (at, steps.removeprefix(".")) if part)


def _arms(type_: Any) -> Iterator[Any]:
    """The types that a union consists of, without None and annotations; of another type, only itself."""
    if get_origin(type_) is Annotated:
        yield from _arms(get_args(type_)[0])
    elif get_origin(type_) in (typing.Union, types.UnionType):
        for arm in get_args(type_):
            yield from _arms(arm)
    elif type_ is not types.NoneType:
        yield type_


def _bare(type_: Any) -> Any:
    return next(_arms(type_), types.NoneType)


def _fields(type_: Any) -> dict[str, Any]:
    """The keys that a mapping may have, with their types; none if the type isn't a dataclass."""
    bare = _bare(type_)
    if not dataclasses.is_dataclass(bare):
        return {}
    hints = typing.get_type_hints(bare, include_extras=True)
    return {_alias(hints[field.name]) or field.name: hints[field.name] for field in dataclasses.fields(bare)}


def _alias(type_: Any) -> str | None:
    """The key in the file, where it can't be a name in Python: ``in``."""
    return next((note.alias for note in getattr(type_, "__metadata__", ()) if getattr(note, "alias", None)), None)


def _within(type_: Any, path: Sequence[str | int]) -> Any:
    """The type of what lies at `path` within a value of `type_`."""
    for key in path:
        items = [arm for arm in _arms(type_) if get_args(arm) or (isinstance(key, str) and key in _fields(arm))]
        if not items:
            return Any
        args = get_args(items[0])
        if not args:
            type_ = _fields(items[0])[str(key)]
        elif get_origin(items[0]) is tuple and isinstance(key, int) and Ellipsis not in args:
            type_ = args[key] if key < len(args) else Any
        else:
            type_ = args[0] if isinstance(key, int) else args[-1]
    return type_


def _in_words(type_: Any) -> str:
    """What a type takes: ``a whole number of at least 1``."""
    origin, args = get_origin(type_), get_args(type_)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_in_words(arm) for arm in args if arm is not types.NoneType)
    if origin is Annotated:
        said = [note for note in args[1:] if isinstance(note, str)]
        return said[0] if said else _in_words(args[0]) + _bounds(args[1:])
    if origin is Literal:
        return f"one of {', '.join(map(str, args))}" if len(args) > 2 else " or ".join(map(str, args))
    if origin is tuple and Ellipsis not in args:
        return f"a list of {len(args)}"
    words = {str: "a text", int: "a whole number", float: "a number", bool: "true or false"}
    return words.get(type_, "a list" if origin in (list, tuple) else "'key: value' pairs")


def _bounds(notes: Iterable[Any]) -> str:
    bounds = {
        key: value
        for note in notes
        for bound in getattr(note, "metadata", [note])
        for key in ("ge", "gt", "le", "lt", "min_length", "max_length")
        if (value := getattr(bound, key, None)) is not None
    }
    if {"ge", "le"} <= bounds.keys():
        return f", {bounds['ge']} to {bounds['le']}"
    words = {"ge": "of at least", "gt": "above", "le": "of at most", "lt": "below"}
    words |= {"min_length": "with a length of at least", "max_length": "with a length of at most"}
    said = " and ".join(f"{words[key]} {value}" for key, value in bounds.items())
    return f" {said}" if said else ""


# -------------------------------------------------------------------------------------------------- reading texts


def read_json(path: Path, most: int = MOST_BYTES) -> object:
    """The value in a JSON file, as plain Python data. UserError if there is none; see :func:`parse_json`."""
    return parse_json(read_text(path, most), str(path))


def parse_json(text: str | bytes, at: str) -> object:
    """The value in a JSON text. UserError if it is none, gives a key twice, nests too deeply, has NaN or 20 digits."""
    try:
        raw = json.loads(text.decode("utf-8-sig") if isinstance(text, bytes) else text, object_pairs_hook=_once)
    except RecursionError:
        raise UserError(f"{at}: lists and mappings lie more than {DEPTH} levels deep") from None
    except ValueError as error:
        raise UserError(f"{at}: isn't JSON: {_cut(reason(error), 120)}") from None
    return _plain(raw, at, ())


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        keys = [key for key, _ in pairs]
        twice = next(key for i, key in enumerate(keys) if key in keys[:i])
        raise ValueError(f"the key '{twice}' is given twice")
    return found


def load_yaml(path: Path) -> object:
    """The value in a YAML file. UserError, with the line, if there is none; see :func:`parse_yaml`."""
    return parse_yaml(read_text(path, MOST_YAML), str(path))


def parse_yaml(text: str, at: str) -> object:
    """The value in a YAML text. UserError, with the line, if it can't be read or gives a key twice.

    Also if it nests too deeply, or if its aliases and merges (``<<``) would make it huge. The value may hold dates and
    other types that YAML has and JSON hasn't: :func:`checked` refuses them.
    """
    if len(text) > MOST_YAML:
        raise UserError(f"{at}: has {len(text)} characters; at most {MOST_YAML} are read")
    try:
        weigh_yaml(text, at)
        return yaml.load(text, _Loader)
    except yaml.MarkedYAMLError as error:
        line = f", line {error.problem_mark.line + 1}" if error.problem_mark else ""
        raise UserError(f"{at}{line}: {_cut(error.problem or 'not YAML', 200)}") from None
    except (yaml.YAMLError, RecursionError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"{at}: isn't YAML: {_cut(' '.join(str(error).split()), 200)}") from None


_SafeLoader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)  # five times faster, but not in every build of PyYAML


class _Loader(_SafeLoader):  # type: ignore[misc, valid-type]
    """PyYAML keeps the last of two equal keys in silence; this one refuses the second. So it does odd values."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode):
                if key.value in seen:
                    raise yaml.MarkedYAMLError(
                        problem=f"the key '{key.value}' is given twice", problem_mark=key.start_mark
                    )
                seen.add(key.value)
        return cast(dict[Any, Any], super().construct_mapping(node, deep))

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        try:
            return super().construct_object(node, deep)
        except (ValueError, OverflowError, LookupError, AttributeError) as error:
            # !!int x, 2001-99-99, a number of 5,000 digits; and !!bool maybe, !!int '', !!timestamp x
            said = f"{shown(node.value)} can't be read ({one_line(error)}); write it in quotes if it is a text"
            raise yaml.MarkedYAMLError(problem=said, problem_mark=node.start_mark) from None


def weigh_yaml(text: str, at: str) -> None:
    """Refuse a text that is small and would become huge: the events of the parser need no memory and no stack.

    (PyYAML's C code builds nested nodes by recursion, and ends the process where a text nests 100,000 times.)
    """
    sizes: dict[str | None, int] = {}  # how many values each anchor stands for
    open_: list[tuple[str | None, int]] = []  # the anchor and the values before each list or mapping that isn't closed
    values = 0
    for event in yaml.parse(text, _SafeLoader):
        if isinstance(event, yaml.CollectionEndEvent):
            anchor, before = open_.pop()
            sizes[anchor] = values - before
        elif isinstance(event, yaml.AliasEvent):
            if any(anchor == event.anchor for anchor, _ in open_):
                problem = f"the alias '{event.anchor}' stands within what it stands for"
                raise yaml.MarkedYAMLError(problem=problem, problem_mark=cast(Any, event.start_mark))
            values += sizes.get(event.anchor, 1)
        elif isinstance(event, yaml.NodeEvent):
            sizes[event.anchor] = 1
            if isinstance(event, yaml.CollectionStartEvent):
                open_.append((event.anchor, values))
            values += 1
        line = getattr(event.start_mark, "line", 0) + 1
        if len(open_) > DEPTH:
            raise UserError(f"{at}, line {line}: lists and mappings lie more than {DEPTH} levels deep")
        if values > MOST_VALUES:
            raise UserError(f"{at}, line {line}: more than {MOST_VALUES} values with its aliases written out")
