"""``nl-lightning weights import``: a file of ours or of others -> our weight file.

Every tensor of both sides is accounted for: it fits, or a stated rule covers it, or the file is refused with its name.
"""

import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nl_lightning.errors import UserError
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.weights import (
    alexhex7,
    caffe2,
    lightning,
    mmaction2,
    pytorchvideo,
    slowfast,
    torchvision,
    tushar_n,
)
from nl_lightning.weights.architecture import architecture, describe
from nl_lightning.weights.block import BlockSettings, save_block
from nl_lightning.weights.file import TRAINING_ONLY, WeightsHeader, check_finite, mismatches, save_weights, some
from nl_lightning.weights.safe import read_others, sha256
from nl_lightning.weights.source import VARIANT_WORDS, Found, Source, variant_words

SOURCES = (
    caffe2.SOURCE, slowfast.SOURCE, slowfast.CAFFE2, mmaction2.SOURCE, pytorchvideo.SOURCE, torchvision.SOURCE,
    tushar_n.SOURCE,
)  # fmt: skip
"""In the order in which they are tried; ``--from slowfast`` also reads Caffe2's names."""

BLOCK = "alexhex7"
"""Single blocks, not networks."""
WRAPPERS = ("blobs", "state_dict", "model_state", "model")
"""Where in a file the tensors may lie."""
PREFIXES = ("module.", "gpu_0/")
"""What stands before every name where several GPUs trained."""


@dataclass(frozen=True)
class Imported:
    """What an import found, for people to check.

    Attributes:
        tensors: by our names.
        header: of the weight file.
        matched: how many tensors of the file are the network's.
        aside: what else the file holds, and was left out on purpose.
        filled: our tensors that the source doesn't have, by rule, and what they are filled with.
        converted: the number formats that became float32.
    """

    tensors: Mapping[str, Tensor]
    header: WeightsHeader
    matched: int
    aside: Sequence[str] = ()
    filled: Sequence[str] = ()
    converted: Sequence[str] = ()

    def lines(self) -> list[str]:
        """What was matched, a line each."""
        net, seen = self.header.net, self.header.input
        rules = asdict(net.conventions.rules)
        said = [
            f"{self.header.source}: {describe(net)}, {net.num_classes if self.header.classifier else 'no'} classes",
            f"matched: {self.matched} tensors, all of the file's and all of the network's",
            f"clips: {seen.num_frames}x{seen.frame_stride}, temporal strides {net.temporal_strides}",
            "conventions: " + ", ".join(f"{name} {rules[name]}" for name in rules if name not in TRAINING_ONLY),
        ]
        for what, names in (("left aside", self.aside), ("filled in", self.filled), ("to float32", self.converted)):
            said += [f"{what}: {len(names)} ({some(list(names))})"] if names else []
        return said


@dataclass(frozen=True)
class ImportedBlock:
    """What the import of a single block found."""

    settings: BlockSettings
    matched: int

    def lines(self) -> list[str]:
        """What was matched, a line each."""
        return [f"{BLOCK}: {self.settings}", f"matched: {self.matched} tensors, all of the file's and of the block's"]


def import_weights(
    path: Path, out: Path, source: str = "auto", variant: str | None = None, classifier: bool = True
) -> Imported | ImportedBlock:
    """Read the weights in `path`, write them to `out`, and return what was found.

    A single block of Non-local_pytorch becomes a file of its own, see :mod:`nl_lightning.weights.block`.

    Args:
        path: a file of ours (a training checkpoint) or of others.
        out: where to write; a ``.safetensors`` file.
        source: the name of one of :data:`SOURCES`, :data:`BLOCK`, or ``auto``.
        variant: words of :data:`VARIANT_WORDS`, for what tensors don't tell; the file's name if None.
        classifier: False leaves the classifier out.

    Raises:
        UserError: the file can't be read, is of no known kind, has tensors too many or too few, or holds what is
            not a number.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"--out: expected a name that ends in .safetensors, not {out.name}")
    try:
        content = read_others(path)
        if source in ("auto", BLOCK) and alexhex7.is_block(_unwrapped(content)[0]):
            return _import_block(content, out, _words(path, variant))
        imported = _read(content, path, source, variant, classifier)
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None
    save_weights(out, imported.tensors, imported.header)
    return imported


def _import_block(content: object, out: Path, words: frozenset[str]) -> ImportedBlock:
    state, _ = _unwrapped(content)
    block, settings = alexhex7.import_block(state, "dot_product" if "dot_product" in words else "embedded_gaussian")
    check_finite(block.state_dict(), "the block")
    save_block(out, block, settings)
    return ImportedBlock(settings, len(state))


def _read(content: Any, path: Path, source: str, variant: str | None, classifier: bool) -> Imported:
    if lightning.is_checkpoint(content):
        tensors, header = lightning.read_checkpoint(content, path)
        imported = Imported(tensors, header, len(tensors))
    else:
        imported = translate(content, _words(path, variant), source)
    check_finite(imported.tensors, str(path))
    has_one = "fc.weight" in imported.tensors
    if classifier and not has_one:
        raise UserError("there is no classifier in it; --without-classifier imports the rest, to start a training from")
    kept = {name: t for name, t in imported.tensors.items() if classifier or not name.startswith("fc.")}
    header = dataclasses.replace(imported.header, source_sha256=sha256(path), classifier=classifier)
    return dataclasses.replace(imported, tensors=kept, header=header)


def _words(path: Path, variant: str | None) -> frozenset[str]:
    if variant is None:
        return variant_words(path.name)
    unknown = variant.lower().replace("-", "_")
    for word in sorted(VARIANT_WORDS, key=len, reverse=True):  # embedded_gaussian before gaussian
        unknown = unknown.replace(word, "")
    if unknown.strip("_, "):
        raise UserError(f"--variant: expected words of {', '.join(VARIANT_WORDS)}, not '{variant}'")
    return variant_words(variant)


def translate(content: object, words: frozenset[str], source: str = "auto") -> Imported:
    """The network in what was read from a file of others; see :func:`import_weights`."""
    state, beside = _unwrapped(content)
    kind = recognise(state, source)
    aside = {name: tensor for name, tensor in state.items() if re.fullmatch(kind.ignored, name)}
    theirs = {name: tensor for name, tensor in state.items() if name not in aside}
    named = {name: kind.names.ours(name) for name in theirs}
    if left := sorted(name for name, ours in named.items() if ours is None):
        raise UserError(f"as a file of {kind.name}, {len(left)} of its tensors are left over: {some(left)}")
    tensors = {ours: _as_float32(theirs[name]) for name, ours in named.items() if ours is not None}
    if len(tensors) < len(named):
        twice = sorted(name for name, ours in named.items() if list(named.values()).count(ours) > 1)
        raise UserError(f"as a file of {kind.name}, it has a tensor under two names: {some(twice)}")
    if "conv1.weight" not in tensors:
        raise UserError(f"as a file of {kind.name}, it lacks its first convolution")
    found = Found(tensors, frozenset(theirs), words, {**beside, **aside})
    semantics = kind.semantics(found)
    completed = kind.complete(found)
    found = dataclasses.replace(found, tensors={**completed, **tensors})
    config = architecture(found, semantics)
    return Imported(
        fitted(found.tensors, config),
        WeightsHeader(config, semantics.input, kind.name, ""),
        len(tensors),
        sorted([*beside, *aside]),
        sorted(completed),
        sorted({str(t.dtype).removeprefix("torch.") for t in theirs.values()} - {"float32", "int64"}),
    )


def _unwrapped(content: object) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The tensors by name, wherever they lie in the content of a file, and all that lies beside them."""
    beside: dict[str, Any] = {}
    while isinstance(content, Mapping) and (
        inside := [key for key in WRAPPERS if isinstance(content.get(key), Mapping)]
    ):
        beside |= {str(key): value for key, value in content.items() if key != inside[0]}
        content = content[inside[0]]
    if not isinstance(content, Mapping):
        raise UserError(f"expected tensors by name, found a {type(content).__name__}")
    state = {str(name): value for name, value in content.items() if isinstance(value, Tensor)}
    beside |= {str(name): value for name, value in content.items() if str(name) not in state}
    if not state:
        raise UserError("expected tensors by name, found none")
    for prefix in PREFIXES:
        if all(name.startswith(prefix) for name in state):
            state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return state, beside


def recognise(state: Mapping[str, Tensor], source: str = "auto") -> Source:
    """The source whose names fit most of the tensors. UserError if they fit none."""
    kinds = [kind for kind in SOURCES if source in ("auto", kind.name)]
    if not kinds:
        known = ", ".join([*dict.fromkeys(kind.name for kind in SOURCES), BLOCK])
        raise UserError(f"--from: expected auto or one of {known}, not '{source}'")
    axes = {tensor.ndim for tensor in state.values()}

    def fit(kind: Source) -> float:
        if kind.video is not None and (5 in axes) != kind.video:
            return 0.0
        known = [kind.names.ours(name) or re.fullmatch(kind.ignored, name) for name in state]
        return sum(map(bool, known)) / len(known)

    best = max(kinds, key=fit)
    if fit(best) < 0.5:
        raise UserError(f"its tensors are of no known kind of network: {some(sorted(state))}")
    return best


def _as_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.is_floating_point() else tensor


def fitted(tensors: Mapping[str, Tensor], config: ResNetConfig) -> dict[str, Tensor]:
    """All tensors of the network of `config`, in its shapes: 2-D kernels inflated, BN's counters of batches at 0.

    Raises:
        UserError: tensors are missing, left over, or of another shape: the residual blocks that differ are named.
    """
    with torch.device("meta"):
        shapes = {name: tensor.shape for name, tensor in VideoResNet(config).state_dict().items()}
    if "fc.weight" not in tensors:
        shapes = {name: shape for name, shape in shapes.items() if not name.startswith("fc.")}
    whole = {name: torch.zeros((), dtype=torch.int64) for name in shapes if name.endswith(".num_batches_tracked")}
    whole |= {name: _reshaped(tensor, shapes.get(name, tensor.shape)) for name, tensor in tensors.items()}
    if wrong := mismatches(shapes, {name: tensor.shape for name, tensor in whole.items()}):
        raise UserError(f"it is of another architecture than {describe(config)}: {wrong}")
    return whole


def _reshaped(tensor: Tensor, shape: torch.Size) -> Tensor:
    """A 2-D kernel as t copies of itself, each divided by t; a classifier or w_f in the shape of a convolution."""
    if tensor.ndim == 4 and len(shape) == 5:
        return (tensor[:, :, None] / shape[2]).expand(-1, -1, shape[2], -1, -1)
    if len(shape) < 3 and tensor.numel() == shape.numel():
        return tensor.reshape(shape)
    return tensor
