"""What an importer knows of a code base: how it names tensors, and what its networks compute beyond their tensors.

Two networks may have the same tensors and compute different things: the order of pool and convolution in a block,
a scale before the softmax, the strides of a clip. That is an importer's business as much as names are.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from torch import Tensor

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Conventions, Instantiation
from nl_lightning.study.border import checked, shown
from nl_lightning.weights.file import InputSettings

CLIPS = {"32x2": (2, 2, 2), "128x1": (2, 2, 2), "8x8": (1, 1, 2), "32x4": (1, 1, 2)}
"""Clips of the released code, frames x stride, and the temporal strides of conv1, pool1 and pool2 that go with them."""

VARIANT_WORDS = (*CLIPS, "embedded_gaussian", "dot_product", "gaussian", "c2d", "i3d", "affine", "finetune", "nopool")

Words = Mapping[str, Mapping[str, str]]
"""By field of a name, what stands there for each of our words."""


def variant_words(text: str) -> frozenset[str]:
    """The :data:`VARIANT_WORDS` in a variant or a file's name."""
    text = text.lower().replace("-", "_").replace(" ", "_")
    found = {word for word in VARIANT_WORDS if re.search(rf"(?<![0-9]){word}(?![0-9])", text)}
    return frozenset(found - {"gaussian"} if "embedded_gaussian" in found else found)


class Names:
    """Two spellings of the names of a network's tensors, ours and another code base's.

    One table serves both directions, so what goes in under a name comes out under it. For example,
    ``("res{stage}.blocks.{block}.conv{n}.weight", "res{stage}_{block}_branch2{n}_w")`` pairs all the convolutions of
    residual blocks.

    Args:
        pairs: (ours, theirs). Where theirs has several spellings, the first is the one that is written.
        words: see :data:`Words`. A field that isn't in it is a number and the same in both.
    """

    def __init__(self, pairs: Iterable[tuple[str, str]], words: Words) -> None:
        here = {field: {word: word for word in spelled} for field, spelled in words.items()}
        self._pairs = [(_pattern(ours, here), ours, _pattern(theirs, words), theirs) for ours, theirs in pairs]
        self._there = words
        self._here = {field: {there: word for word, there in spelled.items()} for field, spelled in words.items()}

    def ours(self, theirs: str) -> str | None:
        """Our name of their tensor, or None if there is none."""
        for _, ours, pattern, _ in self._pairs:
            if found := pattern.fullmatch(theirs):
                return _spelled(ours, found.groupdict(), self._here)
        return None

    def theirs(self, ours: str) -> str | None:
        """Their name of our tensor, or None if there is none."""
        for pattern, _, _, theirs in self._pairs:
            if found := pattern.fullmatch(ours):
                return _spelled(theirs, found.groupdict(), self._there)
        return None


def _pattern(template: str, words: Words) -> re.Pattern[str]:
    def field(found: re.Match[str]) -> str:
        spelled = words.get(found[1])
        return f"(?P<{found[1]}>{'|'.join(map(re.escape, spelled.values())) if spelled else '[0-9]{1,4}'})"

    return re.compile(re.sub(r"\\{(\w+)\\}", field, re.escape(template)))


def _spelled(template: str, groups: Mapping[str, str], words: Words) -> str:
    return template.format(**{field: words[field][word] if field in words else word for field, word in groups.items()})


@dataclass(frozen=True)
class Found:
    """What was read from a file.

    Attributes:
        tensors: by our names.
        theirs: the names in the file.
        words: of its variant, as given or as in the file's name.
        beside: what else the file holds, beside its tensors.
    """

    tensors: Mapping[str, Tensor]
    theirs: frozenset[str]
    words: frozenset[str]
    beside: Mapping[str, Any] = field(default_factory=dict)

    @property
    def has_blocks(self) -> bool:
        """Whether there are non-local blocks."""
        return any(".non_local." in name for name in self.tensors)

    @property
    def untold(self) -> bool:
        """Whether there are blocks whose tensors don't tell embedded Gaussian from dot product."""
        return any(".theta." in name for name in self.tensors) and not any(
            name.endswith("w_f") for name in self.tensors
        )

    @property
    def flat(self) -> bool:
        """Whether the network is 2-D, an image's."""
        return self.tensors["conv1.weight"].ndim == 4

    def clip(self, known: Iterable[str], default: str | None = None) -> str:
        """The clip that the network was trained on. UserError if nothing says so."""
        said = [clip for clip in known if clip in self.words]
        if len(said) == 1:
            return said[0]
        if default is not None and not self.words & set(CLIPS):
            return default
        raise UserError(f"--variant: say which clips the network is for, one of {', '.join(known)}: tensors don't tell")

    def instantiation(self) -> Instantiation:
        """Of the blocks, where tensors don't tell. UserError if nothing else does."""
        for word in ("embedded_gaussian", "dot_product"):
            if word in self.words:
                return word
        raise UserError("--variant: say embedded_gaussian or dot_product: the blocks' tensors don't tell")


@dataclass(frozen=True)
class Semantics:
    """What a network computes, as far as its tensors don't tell.

    Attributes:
        conventions: of its pools and blocks.
        temporal_strides: of conv1, pool1 and pool2.
        input: what it sees, and how its own code tests it.
        instantiation: of its blocks, unless they have no theta or have a w_f.
        subsample: whether its blocks pool their keys.
        spatial_strides: of conv1, pool1, res2, res3, res4 and res5.
        classes: names of its classes, or nothing.
        notes: what people should know about how all this was found, a line each.
    """

    conventions: Conventions
    temporal_strides: tuple[int, int, int]
    input: InputSettings
    instantiation: Instantiation = "embedded_gaussian"
    subsample: bool = True
    spatial_strides: tuple[int, int, int, int, int, int] = (2, 2, 1, 2, 2, 2)
    classes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Source:
    """A code base whose weights can be read.

    Attributes:
        name: what ``--from`` calls it.
        names: of its tensors.
        semantics: what its networks compute.
        classifier: what the names of its classifier begin with.
        video: whether its networks are 3-D (True), 2-D (False), or both (None).
        ignored: a pattern of tensors that are no part of a network, as an optimiser's.
        complete: our tensors that its files lack by design, and what they are.
    """

    name: str
    names: Names
    semantics: Callable[[Found], Semantics]
    classifier: str
    video: bool | None = True
    ignored: str = "(?!)"
    complete: Callable[[Found], Mapping[str, Tensor]] = lambda _: {}

    def knows(self, name: str) -> bool:
        """Whether a tensor of this name can be in its files."""
        return self.names.ours(name) is not None or re.fullmatch(self.ignored, name) is not None


def clip_settings(clip: str, **more: Any) -> InputSettings:
    """The input settings of a clip of :data:`CLIPS`."""
    frames, stride = map(int, clip.split("x"))
    return InputSettings(frames, stride, **more)


@dataclass(frozen=True)
class Keys:
    """What is done with each key of a code base's configuration.

    It is *read*. Or it changes what is computed or seen and has no counterpart here: it is refused unless it has a
    value that we compute (*only*). Or it is *ignored*: it is about training, data paths or logging, or tensors tell it.

    Attributes:
        code: its name, for messages.
        read: for each key its type, and its value where a configuration doesn't have it.
        only: for each key the values that have a counterpart here. Of a list, each element has to be one of them.
        ignored: patterns of keys, as of file names.
    """

    code: str
    read: Mapping[str, tuple[Any, Any]]
    only: Mapping[str, tuple[Any, ...]]
    ignored: tuple[str, ...]

    def decides(self, key: str) -> bool:
        """Whether a table has this key."""
        return key in self.read or key in self.only or any(fnmatchcase(key, pattern) for pattern in self.ignored)

    def settings(self, flat: Mapping[str, Any]) -> dict[str, Any]:
        """The values of all keys that are read. UserError names a key of the wrong type, or without counterpart."""
        for key, values in self.only.items():
            others = [leaf for leaf in _leaves(flat.get(key, values[0])) if leaf not in values]
            if others:
                self.refuse(key, others[0], f"only {' or '.join(map(str, values))} has a counterpart here")
        return {
            key: checked(kind, flat[key], f"{self.code}: its configuration: {key}") if key in flat else default
            for key, (kind, default) in self.read.items()
        }

    def refuse(self, key: str, value: object, why: str) -> None:
        """Raise the UserError that names a setting and why it isn't possible."""
        raise UserError(f"{self.code}: its configuration has {key} {shown(value)}: {why}")

    def notes(self, flat: Mapping[str, Any]) -> tuple[str, ...]:
        """A line that names the keys that no table has."""
        unknown = sorted(key for key in flat if not self.decides(key))
        listed = ", ".join(unknown[:5]) + (", ..." if len(unknown) > 5 else "")
        return (f"its configuration has keys that are not known, and were not read: {listed}",) if unknown else ()


def _leaves(value: object) -> list[object]:
    if isinstance(value, dict):
        value = list(value.values())
    return [leaf for item in value for leaf in _leaves(item)] if isinstance(value, list | tuple) else [value]


def flattened(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    found: dict[str, Any] = {}
    for key, inner in value.items():
        found |= flattened(inner, f"{prefix}{key}.") if isinstance(inner, dict) else {f"{prefix}{key}": inner}
    return found
