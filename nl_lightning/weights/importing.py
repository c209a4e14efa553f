"""``nl-lightning weights import``: a file of ours or of others -> our weight file.

Every tensor of both sides is accounted for: it fits, or a stated rule covers it, or the file is refused with its name.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from nl_lightning.errors import UserError, visible
from nl_lightning.models.conventions import BLOCKS, STAGES, Inflate, Instantiation
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.weights import blocks
from nl_lightning.weights.file import (
    HEADER,
    TRAINING_ONLY,
    WeightsHeader,
    checked_numbers,
    header_from_json,
    mismatches,
    network_in,
    save_weights,
    some,
)
from nl_lightning.weights.imagenet import repeated
from nl_lightning.weights.safe import read_others, sha256
from nl_lightning.weights.source import VARIANT_WORDS, Found, Semantics, Source, variant_words
from nl_lightning.weights.sources import SOURCES
from nl_lightning.weights.wrappers import State, below, preferred, prefixes, unwrapped

CLASSES_OF_NONE = 400
"""Stands for the number of classes where there is no classifier."""
Tensors = Mapping[str, Tensor]


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
        notes: what else people should know, a line each.
        out: where it was written.
    """

    tensors: Mapping[str, Tensor]
    header: WeightsHeader
    matched: int
    aside: Sequence[str] = ()
    filled: Sequence[str] = ()
    converted: Sequence[str] = ()
    notes: Sequence[str] = ()
    out: Path | None = None

    def lines(self) -> list[str]:
        """What was matched, a line each."""
        net, seen = self.header.net, self.header.input
        rules = asdict(net.conventions.rules)
        said = [
            f"{self.header.source}: {describe(net)}, {net.num_classes if self.header.classifier else 'no'} classes",
            f"matched: {self.matched} tensors, all of the file's and all of the network's",
            f"clips: {seen.num_frames}x{seen.frame_stride}, temporal strides {net.temporal_strides}",
            f"tested on: {seen.num_clips} clips ({seen.clip_starts}) x {seen.num_crops} crops of {seen.test_crop}, "
            f"short side {seen.test_short_side}, window on res5 {seen.test_pool or 'all of it'}",
            "conventions: " + ", ".join(f"{name} {rules[name]}" for name in rules if name not in TRAINING_ONLY),
        ]
        for what, names in (("left aside", self.aside), ("filled in", self.filled), ("to float32", self.converted)):
            said += [f"{what}: {len(names)} ({some(list(names))})"] if names else []
        said += [f"note: {visible(note)}" for note in self.notes]
        return [*said, f"written to {visible(self.out)}"] if self.out is not None else said


def import_weights(
    path: Path, out: Path, source: str = "auto", variant: str | None = None, classifier: bool = True
) -> Imported | list[str]:
    """Read the weights in `path`, write them to `out`, and return what was found.

    Single blocks of Non-local_pytorch become files of their own, and a few lines say what was found in them: see
    :func:`nl_lightning.weights.blocks.import_blocks`. UserError if the file can't be read, is of no known kind, has
    tensors too many or too few, or holds what no weights can be.

    Args:
        path: a file of ours (a training checkpoint) or of others.
        out: where to write; a ``.safetensors`` file.
        source: the name of one of :data:`SOURCES`, ``alexhex7`` for single blocks, or ``auto``.
        variant: words of :data:`VARIANT_WORDS`, for what tensors don't tell; the file's name if None.
        classifier: False leaves the classifier out.
    """
    if out.suffix != ".safetensors":
        raise UserError(f"--out: expected a name that ends in .safetensors, not {out.name}")
    words = _words(path, variant)
    try:
        content = read_others(path)
        if isinstance(content, Mapping) and HEADER in content:
            header = header_from_json(content[HEADER], "the header of the checkpoint")
            tensors = network_in(content, "a checkpoint of ours")
            imported = Imported(fitted(tensors, header.net), header, len(tensors))
        else:
            state = unwrapped(content)
            in_no_network = source == "auto" and blocks.blocks_in(state) and _recognised(state, SOURCES) is None
            if source == blocks.NAME or in_no_network:
                told: tuple[Instantiation, ...] = ("embedded_gaussian", "dot_product")
                return blocks.import_blocks(state, out, next((word for word in told if word in words), None))
            imported = translate(state, words, source, classifier)
        checked_numbers(imported.tensors, str(path))
        if classifier and "fc.weight" not in imported.tensors:
            rest = "--without-classifier imports the rest, to start a training from"
            raise UserError(f"there is no classifier in it; {rest}")
        kept = {name: t for name, t in imported.tensors.items() if classifier or not name.startswith("fc.")}
        header = replace(imported.header, source_sha256=sha256(path), classifier=classifier)
    except UserError as error:
        raise error if str(path) in str(error) else UserError(f"{path}: {error}") from None
    save_weights(out, kept, header)
    return replace(imported, tensors=kept, header=header, out=out)


def _words(path: Path, variant: str | None) -> frozenset[str]:
    if variant is None:
        return variant_words(path.name)
    unknown = variant.lower().replace("-", "_")
    for word in sorted(VARIANT_WORDS, key=len, reverse=True):  # embedded_gaussian before gaussian
        unknown = unknown.replace(word, "")
    if unknown.strip("_, "):
        raise UserError(f"--variant: expected words of {', '.join(VARIANT_WORDS)}, not '{variant}'")
    return variant_words(variant)


def translate(state: State, words: frozenset[str], source: str = "auto", classifier: bool = True) -> Imported:
    """The network in what was read from a file of others; see :func:`import_weights`."""
    kind, state = recognise(state, source)
    theirs = {name: tensor for name, tensor in state.tensors.items() if not re.fullmatch(kind.ignored, name)}
    if not classifier:  # of a projection head, or of other layers than one
        theirs = {name: tensor for name, tensor in theirs.items() if not name.startswith(kind.classifier)}
    beside = {**state.beside, **{name: t for name, t in state.tensors.items() if name not in theirs}}
    named = {name: kind.names.ours(name) for name in theirs}
    if left := sorted(name for name, ours in named.items() if ours is None):
        hint = "; --without-classifier leaves them out" if all(n.startswith(kind.classifier) for n in left) else ""
        raise UserError(f"as a file of {kind.name}, {len(left)} of its tensors are left over: {some(left)}{hint}")
    floats = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in theirs.items()}
    tensors = {ours: floats[name] for name, ours in named.items() if ours is not None}
    if len(tensors) < len(named):
        ours_of = list(named.values())
        twice = sorted(name for name, ours in named.items() if ours_of.count(ours) > 1)
        raise UserError(f"as a file of {kind.name}, it has a tensor under two names: {some(twice)}")
    if "conv1.weight" not in tensors:
        raise UserError(f"as a file of {kind.name}, it lacks its first convolution")
    axes = {name: 2 if name == "fc.weight" else 4 for name in tensors if re.search(r"(conv\d|W_z|^fc)\.weight$", name)}
    if odd := sorted(name for name, least in axes.items() if tensors[name].ndim < least):
        raise UserError(f"as a file of {kind.name}, it has weights that are no kernels: {some(odd)}")
    found = Found(tensors, frozenset(theirs), words, beside)
    semantics = kind.semantics(found)
    completed = kind.complete(found)
    found = replace(found, tensors={**completed, **tensors})
    config = architecture(found, semantics)
    whole = fitted(found.tensors, config)
    classes = semantics.classes if len(semantics.classes) == config.num_classes and "fc.weight" in tensors else ()
    formats = {str(t.dtype).removeprefix("torch.") for t in theirs.values()}
    return Imported(
        whole,
        WeightsHeader(config, semantics.input, kind.name, "", classes=classes),
        len(tensors),
        sorted(beside),
        sorted(completed),
        sorted(formats - {"float32", "int64"}),
        [*(f"taken off: {each}" for each in state.stripped), *semantics.notes],
    )


def recognise(state: State, source: str = "auto") -> tuple[Source, State]:
    """The source whose names fit most of the tensors, and the state without the prefix before them.

    UserError if none fits.
    """
    kinds = [kind for kind in SOURCES if source in ("auto", kind.name)]
    if not kinds:
        known = ", ".join([*dict.fromkeys(kind.name for kind in SOURCES), blocks.NAME])
        raise UserError(f"--from: expected auto or one of {known}, not '{source}'")
    found = _recognised(state, kinds)
    if found is None:
        raise UserError(
            f"its tensors are of no known kind of network: {some(sorted(state.tensors))}; known are "
            f"{', '.join(dict.fromkeys(kind.name for kind in kinds))}, under any prefix"
        )
    kind, prefix = found
    return kind, below(state, prefix)


def _recognised(state: State, kinds: Sequence[Source]) -> tuple[Source, str] | None:
    """The source and the prefix whose names most tensors have; None if no source knows half of those below a prefix."""
    best: tuple[int, Source, list[str]] | None = None
    under = prefixes(state.tensors, lambda _: True)
    videos = prefixes((name for name, tensor in state.tensors.items() if tensor.ndim == 5), lambda _: True)
    for kind in kinds:
        fits: dict[str, int] = {}
        for prefix, count in prefixes(state.tensors, kind.knows).items():
            if 2 * count >= under[prefix] and kind.video in (None, prefix in videos):
                fits[prefix] = count
        most = max(fits.values(), default=0)
        if fits and (best is None or most > best[0]):
            best = most, kind, [prefix for prefix, count in fits.items() if count == most]
    return None if best is None else (best[1], best[2][0] if len(best[2]) == 1 else preferred(best[2]))


def fitted(tensors: Mapping[str, Tensor], config: ResNetConfig) -> dict[str, Tensor]:
    """All tensors of the network of `config`, in its shapes: 2-D kernels inflated, BN's counters of batches at 0.

    UserError if tensors are missing, left over, or of another shape: the residual blocks that differ are named.
    """
    with torch.device("meta"):
        ours = VideoResNet(config).state_dict()
    if "fc.weight" not in tensors:
        ours = {name: tensor for name, tensor in ours.items() if not name.startswith("fc.")}
    whole = {name: torch.zeros((), dtype=torch.int64) for name in ours if name.endswith(".num_batches_tracked")}
    whole |= {name: _reshaped(tensor, ours.get(name, tensor).shape) for name, tensor in tensors.items()}
    if wrong := mismatches(ours, whole):
        raise UserError(f"it is of another architecture than {describe(config)}: {wrong}")
    return whole


def _reshaped(tensor: Tensor, shape: torch.Size) -> Tensor:
    """A 2-D kernel as t copies of itself, each divided by t; a classifier or w_f in the shape of a convolution."""
    if tensor.ndim == 4 and len(shape) == 5:
        return repeated(tensor[:, :, None], shape[2])
    if len(shape) < 3 and tensor.numel() == shape.numel():
        return tensor.reshape(shape)
    return tensor


# -------------------------------------------------- which network a set of tensors is, by our names and by shapes


def architecture(found: Found, semantics: Semantics) -> ResNetConfig:
    """The network of the tensors, with what `semantics` says of it. UserError if no ResNet has such residual blocks."""
    tensors = found.tensors
    inflate: Inflate
    if found.flat:
        inflate = "3x1x1" if "i3d" in found.words else "none"
    else:
        kinds: tuple[Inflate, Inflate] = ("3x1x1", "3x3x3")
        inflate = next((k for k in kinds if any(any(_inflated(tensors, stage, k)) for stage in STAGES)), "none")
    conventions: dict[str, Any] = {"norm": "batch" if "bn1.running_mean" in tensors else "affine"}
    if inflate != "none" and not found.flat:
        conventions["inflate_res2"] = "all" if all(_inflated(tensors, "res2", inflate)) else "alternate"
    if found.has_blocks:
        norm = {name.rpartition(".")[2] for name in tensors if re.search(r"\.non_local\.\d+\.bn\.", name)}
        conventions["nonlocal_norm"] = "batch" if "running_mean" in norm else "affine" if norm else "none"
    fc = tensors.get("fc.weight")
    return ResNetConfig(
        depth=_depth(tensors),
        inflate=inflate,
        non_local=_non_local(found, semantics),
        num_classes=CLASSES_OF_NONE if fc is None else fc.shape[0],
        width=tensors["conv1.weight"].shape[0] / 64,
        temporal_strides=semantics.temporal_strides,
        spatial_strides=semantics.spatial_strides,
        conventions=replace(semantics.conventions, **conventions),
    )


def _depth(tensors: Tensors) -> Any:
    blocks = tuple(len(_blocks(tensors, stage, "blocks")) for stage in STAGES)
    for depth, expected in BLOCKS.items():
        if blocks == expected:
            return depth
    known = " and ".join(f"{expected} of ResNet-{depth}" for depth, expected in BLOCKS.items())
    raise UserError(f"its stages have {blocks} residual blocks; known are {known}")


def _blocks(tensors: Tensors, stage: str, kind: str) -> list[int]:
    """The numbers of a stage's residual (``blocks``) or non-local (``non_local``) blocks."""
    found = (re.match(rf"{stage}\.{kind}\.(\d+)\.", name) for name in tensors)
    return sorted({int(match[1]) for match in found if match})


def _inflated(tensors: Tensors, stage: str, inflate: Inflate) -> list[bool]:
    """Which residual blocks of a stage have the kernel of 3 frames that `inflate` gives them."""
    conv = "conv1" if inflate == "3x1x1" else "conv2"
    weights = [tensors.get(f"{stage}.blocks.{block}.{conv}.weight") for block in _blocks(tensors, stage, "blocks")]
    return [weight is not None and weight.shape[2] == 3 for weight in weights]


def _non_local(found: Found, semantics: Semantics) -> NonLocalConfig | None:
    if not found.has_blocks:
        return None
    placed = {stage: _blocks(found.tensors, stage, "non_local") for stage in STAGES}
    instantiation = semantics.instantiation
    if any(name.endswith(".w_f") for name in found.tensors):
        instantiation = "concatenation"
    elif not any(".theta." in name for name in found.tensors):
        instantiation = "gaussian"
    return NonLocalConfig(
        {stage: blocks for stage, blocks in placed.items() if blocks}, instantiation, subsample=semantics.subsample
    )


def describe(config: ResNetConfig) -> str:
    """The network in a few words, for people."""
    kind = "C2D" if config.inflate == "none" else f"I3D {config.inflate}"
    words = [f"{kind} ResNet-{config.depth}"]
    if config.width != 1:
        words.append(f"of width {config.width:g}")
    if config.non_local is not None:
        placed = " and ".join(
            f"{stage} after {', '.join(map(str, after))}" for stage, after in config.non_local.placement.items()
        )
        words.append(f"with {config.non_local.instantiation} blocks in {placed}")
    return " ".join(words)
