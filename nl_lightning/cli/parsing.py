"""From functions to the options of a command: names and types by the signature, help by the docstring.

A parameter before ``*`` is an argument by position; one after it is an option. ``False`` as a default makes a flag, a
sequence an option that can be repeated, no default a required one, a ``Literal`` a choice. A parameter whose type is a
dataclass stands for the dataclass's fields. ``Annotated[T, parse]`` says how to make a T from a word.

jsonargparse makes a parser of the same functions, too. But it loses what is given by position, wants lists as JSON,
lets numbers out of bounds pass, puts the usage before each message, and takes half a second to import.
"""

import argparse
import contextlib
import dataclasses
import difflib
import inspect
import re
import types
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, Union, get_args, get_origin

from nl_lightning.errors import UserError

Command = Callable[..., int]
SEVERAL = "+"
"""In an annotation: the option takes several words at once."""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, with the nearest known word, and without the usage."""

    def error(self, message: str) -> NoReturn:
        """Refuse the words: a UserError with the nearest known one."""
        unknown = re.search(r"(?:invalid choice: '|unrecognized arguments: )([^' =]+)", message)
        choices = re.findall(r"[^\s',()]+", message.partition("choose from")[2]) or self._option_string_actions
        near = difflib.get_close_matches(unknown[1], choices, n=1) if unknown else []
        hint = f"; did you mean '{near[0]}'?" if near else ""
        raise UserError(f"{message[:500]}{hint} (see {self.prog} --help)")

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as argparse does, but leave no word over."""
        found, unknown = super().parse_known_args(args, namespace)
        if unknown:  # said by the parser of the command, which knows its options
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return found, unknown


def add_commands(commands: Any, table: Mapping[str, Any], purposes: Mapping[str, str]) -> None:
    """Add commands: of each its function, for a group of commands a table of its verbs, or None: it isn't parsed here.

    `purposes`: what those without a function are for.
    """
    for name, entry in table.items():
        about = (inspect.getdoc(entry) or "").partition("\nArgs:")[0].strip() if callable(entry) else purposes[name]
        parser = commands.add_parser(
            name, help=about.splitlines()[0].rstrip("."), description=about,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )  # fmt: skip
        if callable(entry):
            parser.set_defaults(command=entry)
            _add_options(parser, entry)
        elif entry is not None:
            add_commands(parser.add_subparsers(required=True, metavar="VERB"), entry, purposes)


def _add_options(parser: argparse.ArgumentParser, taker: Any) -> None:
    helps = _helps(taker)
    for name, parameter in inspect.signature(taker).parameters.items():
        kind, default = parameter.annotation, parameter.default
        if dataclasses.is_dataclass(kind):
            _add_options(parser, kind)
            continue
        base, *about = get_args(kind) if get_origin(kind) is Annotated else (kind,)
        if get_origin(base) in (types.UnionType, Union):
            base = next(each for each in get_args(base) if each is not type(None))
        repeated = get_origin(base) is Sequence
        item = get_args(base)[0] if repeated else base
        parse = next(filter(callable, about), path if item is Path else str)
        settings: dict[str, Any] = {"help": helps[name].replace("%", "%%")}
        if default is False:
            settings["action"] = "store_true"
        elif get_origin(base) is Literal:
            settings["choices"] = get_args(base)
        else:
            settings["type"] = parse
        if parameter.kind is not parameter.KEYWORD_ONLY:
            count = (SEVERAL if default is parameter.empty else "*") if repeated else None
            parser.add_argument(name, nargs=count, **settings)
            continue
        if "type" in settings:
            settings["metavar"] = getattr(parse, "metavar", {Path: "PATH", int: "N", float: "X"}.get(item, "NAME"))
        if repeated and SEVERAL in about:
            settings |= {"action": "extend", "nargs": SEVERAL}
        elif repeated:
            settings |= {"action": "append", "help": f"{settings['help']} (can be repeated)"}
        elif default not in (None, False, parameter.empty):
            settings |= {"help": f"{settings['help']} (default: {default})", "default": default}
        option = f"--{name.rstrip('_').replace('_', '-')}"  # from_ is --from
        parser.add_argument(option, dest=name, required=default is parameter.empty, **settings)


def _helps(taker: Any) -> dict[str, str]:
    """The help of each parameter: from the docstring's ``Args``, or ``Attributes`` of a dataclass and its bases."""
    found: dict[str, str] = {}
    for of in reversed(taker.__mro__[:-1]) if isinstance(taker, type) else [taker]:
        section = re.split(r"^(?:Args|Attributes):$", inspect.getdoc(of) or "", flags=re.M)[-1]
        for name, text in re.findall(r"^ {4}(\w+): ((?:.|\n {8})+)", section, flags=re.M):
            found[name] = " ".join(text.split()).rstrip(".")
    return found


def bind(taker: Callable[..., Any], found: argparse.Namespace) -> Any:
    """Call a function, or make a dataclass, with the options that were found."""
    values = {}
    for name, parameter in inspect.signature(taker).parameters.items():
        if dataclasses.is_dataclass(parameter.annotation):
            values[name] = bind(parameter.annotation, found)  # type: ignore[arg-type]
        else:
            value = getattr(found, name)
            values[name] = () if value is None and parameter.default == () else value
    return taker(**values)


# ------------------------------------------------------------------------------------------------ words to values


def whole(least: int, most: int) -> Callable[[str], int]:
    """A parser of whole numbers within bounds."""

    def parse(text: str) -> int:
        digits = re.fullmatch("0*([0-9]+)", text)
        value = least - 1 if digits is None else most + 1 if len(digits[1]) > 18 else int(digits[1])
        if not least <= value <= most:
            bound = f"at least {least}" if value < least else f"at most {most}"
            raise argparse.ArgumentTypeError(f"expected a whole number of {bound}, not '{_short(text)}'")
        return value

    return parse


def number(above: float, most: float, expected: str) -> Callable[[str], float]:
    """A parser of finite numbers within bounds, without the lower one. `expected` says so to people."""

    def parse(text: str) -> float:
        with contextlib.suppress(ValueError):
            if above < float(text) <= most:
                return float(text)
        raise argparse.ArgumentTypeError(f"expected {expected}, not '{_short(text)}'")

    return parse


SEED = whole(0, 2**32 - 1)
"""A seed, as NumPy takes it."""


def path(text: str) -> Path:
    """A path that says something."""
    if not text:
        raise argparse.ArgumentTypeError("expected a path, not an empty text")
    return Path(text)


def _named(metavar: str, parse: Callable[[str], Any]) -> Callable[[str], Any]:
    parse.metavar = metavar  # type: ignore[attr-defined]
    return parse


def _key_value(text: str) -> tuple[str, str]:
    column, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"expected COLUMN=VALUE, not '{_short(text)}'")
    if column == "seed":
        SEED(value)
    return column, value


def _option(text: str) -> tuple[str, str | bool]:
    """Of sbatch, as submitit takes it; a key without a value stands for itself."""
    key, equals, value = text.partition("=")
    return key.replace("-", "_"), value if equals else True


def _position(text: str) -> tuple[int, int, int]:
    numbers = text.split(",")
    if len(numbers) != 3 or not all(re.fullmatch(r"\s*[0-9]{1,9}\s*", each) for each in numbers):
        raise argparse.ArgumentTypeError(
            f"expected frame,row,column of the map, each from 0, as 2,4,4; not '{_short(text)}'"
        )
    t, y, x = map(int, numbers)
    return t, y, x


KEY_VALUE = _named("COLUMN=VALUE", _key_value)
OPTION = _named("KEY=VALUE", _option)
POSITION = _named("T,Y,X", _position)


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
