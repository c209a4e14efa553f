"""What an importer knows of a code base: how it names tensors, and what its networks compute beyond their tensors.

Two networks may have the same tensors and compute different things: the order of pool and convolution in a block,
a scale before the softmax, the strides of a clip. That is an importer's business as much as names are.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Conventions, Inflate, Instantiation
from nl_lightning.weights.file import InputSettings
from nl_lightning.weights.names import Names

CLIPS = {"32x2": (2, 2, 2), "128x1": (2, 2, 2), "8x8": (1, 1, 2), "32x4": (1, 1, 2)}
"""Clips of the released code, frames x stride, and the temporal strides of conv1, pool1 and pool2 that go with them."""

VARIANT_WORDS = (*CLIPS, "embedded_gaussian", "dot_product", "gaussian", "c2d", "i3d", "affine", "finetune", "nopool")


def variant_words(text: str) -> frozenset[str]:
    """The :data:`VARIANT_WORDS` in a variant or a file's name."""
    text = text.lower().replace("-", "_").replace(" ", "_")
    found = {word for word in VARIANT_WORDS if re.search(rf"(?<![0-9]){word}(?![0-9])", text)}
    return frozenset(found - {"gaussian"} if "embedded_gaussian" in found else found)


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

    def inflate(self) -> Inflate:
        """For a 2-D network, how its kernels are to be inflated."""
        return "3x1x1" if "i3d" in self.words else "none"

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
    """

    conventions: Conventions
    temporal_strides: tuple[int, int, int]
    input: InputSettings
    instantiation: Instantiation = "embedded_gaussian"
    subsample: bool = True


@dataclass(frozen=True)
class Source:
    """A code base whose weights can be read.

    Attributes:
        name: what ``--from`` calls it.
        names: of its tensors.
        semantics: what its networks compute.
        video: whether its networks are 3-D (True), 2-D (False), or both (None).
        ignored: a pattern of tensors that are no part of a network, as an optimiser's.
        complete: our tensors that its files lack by design, and what they are.
    """

    name: str
    names: Names
    semantics: Callable[[Found], Semantics]
    video: bool | None = True
    ignored: str = "$^"
    complete: Callable[[Found], Mapping[str, Tensor]] = lambda _: {}


def clip_settings(clip: str, **more: Any) -> InputSettings:
    """The input settings of a clip of :data:`CLIPS`."""
    frames, stride = map(int, clip.split("x"))
    return InputSettings(frames, stride, **more)


NORM = {"weight": "weight", "bias": "bias", "running_mean": "running_mean", "running_var": "running_var",
        "num_batches_tracked": "num_batches_tracked"}  # fmt: skip
"""PyTorch's own words for the tensors of a BN."""
