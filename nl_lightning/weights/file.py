"""Our weight file: a network's tensors in the safetensors format, with all that it takes to use them in the header.

The header holds the network's configuration with every convention spelled out, what its input is and how it is
tested, and where the weights came from. So ``nl-lightning test --weights W`` needs nothing but data.
"""

import argparse
import contextlib
import hashlib
import itertools
import json
import os
import re
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nl_lightning.data.sampling import Spread
from nl_lightning.errors import UserError, nearest, one_line, visible
from nl_lightning.models.fast import FastVideoResNet
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.study.border import Length, checked, parse_json, shown
from nl_lightning.study.files import size_of, write_output
from nl_lightning.study.finding import shipped
from nl_lightning.study.study import shown_value

FORMAT = "nl-lightning 1"
HEADER = "nl_lightning_header"
"""The key of a training checkpoint of ours that holds a :class:`WeightsHeader` in JSON."""
PUBLISHED = Path("results/weights")
"""Where published networks lie, a folder a recipe."""
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class InputSettings:
    """What a network's input is, and how it is tested unless somebody says otherwise.

    Attributes:
        num_frames, frame_stride: a clip's frames, and from one to the next in the video.
        mean, std: of red, green and blue, in units of 0 to 255.
        test_short_side, test_crop: pixels; ``whole`` is the whole frame.
        num_clips, num_crops: views of a video.
        clip_starts: whose formula places the views, see :func:`nl_lightning.data.sampling.test_clips`.
        test_pool: side of the window that testing pools at every place of res5, or none for one global pool.
        multi_label: whether its scores are sigmoids, of several classes at once, not a softmax.
    """

    num_frames: Length
    frame_stride: Length
    mean: Colour = (114.75, 114.75, 114.75)
    std: Colour = (57.375, 57.375, 57.375)
    test_short_side: Length = 256
    test_crop: Length | Literal["whole"] = 256
    num_clips: Length = 10
    num_crops: Literal[1, 3] = 3
    clip_starts: Spread = "paper"
    test_pool: Length | None = None
    multi_label: bool = False

    def __post_init__(self) -> None:
        if not all(self.std):
            raise UserError("std: expected numbers other than 0, by which pixels are divided")


@dataclass(frozen=True)
class WeightsHeader:
    """What a weight file says of its tensors.

    Attributes:
        net: the network. Its number of classes means nothing without a `classifier`.
        input: what it sees.
        source: the kind of file that the tensors came from.
        source_sha256: of that file.
        classifier: whether the tensors of ``fc`` are there.
        classes: their names, or nothing if nobody knows them.
    """

    net: ResNetConfig
    input: InputSettings
    source: str
    source_sha256: str
    classifier: bool = True
    classes: tuple[str, ...] = ()

    def to_json(self) -> str:
        """One line of JSON; the inverse of :func:`header_from_json`."""
        raw = asdict(self)
        conventions = self.net.conventions
        for name, usual in (("min_channels", 1), ("control", None)):  # these came later: old headers stay as they were
            if raw["net"][name] == usual:
                del raw["net"][name]
        raw["net"]["conventions"] = {"profile": conventions.profile, **asdict(conventions.rules)}
        return json.dumps(raw)


def header_from_json(text: object, at: str) -> WeightsHeader:
    """Read what :meth:`WeightsHeader.to_json` wrote. UserError that names the mistake if it is something else."""
    if not isinstance(text, str):
        raise UserError(f"{at}: expected a text, got a {type(text).__name__}")
    return checked(WeightsHeader, parse_json(text, at), at)


def save_weights(path: Path, tensors: Mapping[str, Tensor], header: WeightsHeader) -> None:
    """Write a weight file, whole or not at all. The same network makes the same bytes."""
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    saved = safetensors.torch.save(whole, {"format": FORMAT, "nl_lightning": header.to_json()})
    start, end = 8, 8 + int.from_bytes(saved[:8], "little")
    head = json.loads(saved[start:end])
    head["__metadata__"] = dict(sorted(head["__metadata__"].items()))  # safetensors writes them in any order
    text = json.dumps(head, separators=(",", ":"), ensure_ascii=False).encode()
    write_output(path, saved[:start] + text.ljust(end - start) + saved[end:])


def read_weights(path: Path) -> tuple[dict[str, Tensor], WeightsHeader]:
    """The tensors of a weight file by name, and its header.

    UserError if the file is missing, truncated, or no weight file of ours, or holds what no weights can be.
    """
    with _opened(path) as (file, header):
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    return checked_numbers(tensors, f"weights: {path}"), header


def read_header(path: Path) -> WeightsHeader:
    """The header of a weight file, without its tensors. UserError as :func:`read_weights`."""
    with _opened(path) as (_, header):
        return header


def located(path: Path | str) -> Path:
    """The file of a published network by its name, ``VARIANT@RECIPE``; any other path as it is.

    Published networks lie in ``results/weights`` of the working folder, of a wheel, or of a checkout. UserError if no
    network of that name is published.
    """
    path = Path(path)
    if not re.fullmatch(r"[\w-]+@[\w-]+", str(path)) or path.exists():
        return path
    variant, _, recipe = str(path).partition("@")
    folders = (PUBLISHED, shipped(PUBLISHED))
    found = next((file for folder in folders if (file := folder / recipe / f"{variant}.safetensors").is_file()), None)
    if found is None:
        known = {f"{file.stem}@{file.parent.name}" for folder in folders for file in folder.glob("*/*.safetensors")}
        raise UserError(f"weights: no network {shown(str(path))} is published{nearest(str(path), known)}")
    return found


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[tuple[Any, WeightsHeader]]:
    path = located(path)
    if os.path.isdir(path):
        raise UserError(f"weights: {path} is a folder; expected a .safetensors file")
    size_of(path, "weights: there is no file")
    try:
        opened = safe_open(path, framework="pt")
    except (SafetensorError, OSError) as error:
        raise UserError(
            f"weights: {path} is no whole .safetensors file ({one_line(error)}); "
            "nl-lightning weights import makes one from other formats"
        ) from None
    with opened as file:
        said = file.metadata() or {}
        if said.get("format") != FORMAT:
            raise UserError(
                f"weights: {path} was not written by nl-lightning weights import, or by another version of it; "
                "weights import makes one from files of others"
            )
        yield file, header_from_json(said.get("nl_lightning"), f"weights: {path}: the header")


def load_weights(path: Path | str) -> tuple[VideoResNet, WeightsHeader]:
    """The network of a weight file, in eval mode, and the header that says what its input is.

    Args:
        path: a file, or the name of a published network, as ``c2d_r50_nl5@longrange`` (:func:`located`).

    Raises:
        UserError: the file is missing or broken, its tensors are not those of its header, or it has no classifier.
    """
    if not isinstance(path, str | Path):
        raise UserError(f"weights: expected a file or the name of a published network, not {path!r}")
    tensors, header = read_weights(Path(path))
    if not header.classifier:
        raise UserError(f"weights: {path} has no classifier: it can start a training (model.init_from), not be tested")
    with torch.device("meta"):  # without weights that would be thrown away
        net = FastVideoResNet(header.net)
    fill(net, tensors, f"weights: {path}", assign=True)
    return net.eval(), header


def fill(
    net: VideoResNet, tensors: Mapping[str, Tensor], at: str, new: Collection[str] = (), assign: bool = False
) -> list[str]:
    """Load all tensors of `net`; return what stays as it is initialised, as ``res3.non_local.1``.

    UserError if tensors are missing, left over or of another shape, which it names.

    Args:
        net: the network.
        tensors: by our names.
        at: where they are from, for the message.
        new: parts of the network that may stay new, such as ``fc`` or ``non_local``, where none of their tensors is
            given. Of a part with numbers, such as ``non_local``, each number stands for itself.
        assign: put them in place of the network's own, which may be on the meta device then.
    """
    ours = net.state_dict()
    given = {_part(name, new) for name in tensors}
    parts = {name: part for name in ours.keys() - tensors.keys() if (part := _part(name, new)) and part not in given}
    if wrong := mismatches({name: tensor for name, tensor in ours.items() if name not in parts}, tensors):
        raise UserError(f"{at}: the tensors are not this network's: {wrong}")
    net.load_state_dict({**ours, **tensors}, assign=assign)
    return list(dict.fromkeys(parts[name] for name in ours if name in parts))


def _part(name: str, new: Collection[str]) -> str | None:
    """The part among `new` that a tensor belongs to, with the number behind it if it has one."""
    words = name.split(".")
    for place, word in enumerate(words):
        if word in new:
            return ".".join(words[: place + 1 + words[place + 1].isdigit()])
    return None


def check_parts(net: VideoResNet, parts: Collection[str], key: str) -> None:
    """UserError for a part that no network like `net` has, with the nearest word. See :func:`fill`."""
    known = [*dict.fromkeys(name.partition(".")[0] for name in net.state_dict()), "non_local"]
    for part in parts:
        if part not in known:
            raise UserError(f"{key}: a network has no part {shown(part)}{nearest(part, known)}")


def network_in(checkpoint: object, at: str) -> dict[str, Tensor]:
    """The network's tensors in a training checkpoint of ours. UserError if it has none."""
    state = checkpoint.get("state_dict") if isinstance(checkpoint, Mapping) else None
    if not isinstance(state, Mapping):
        raise UserError(f"{at}: it has no state_dict")
    return {
        name.removeprefix("net."): tensor
        for name, tensor in state.items()
        if isinstance(name, str) and name.startswith("net.") and isinstance(tensor, Tensor)
    }


def fingerprint(net: VideoResNet, *more: bytes) -> str:
    """What tells a network, and what it was given, from others."""
    weights = (tensor.numpy().tobytes() for tensor in net.state_dict().values())
    return hashlib.sha256(b"".join((repr(net.config).encode(), *more, *weights))).hexdigest()[:16]


def classes_in(checkpoint: Mapping[str, Any], at: str) -> tuple[str, ...]:
    """Names of the classes of a training checkpoint of ours, or nothing. UserError if it says something odd."""
    return header_from_json(checkpoint[HEADER], at).classes if HEADER in checkpoint else ()


def check_classes(there: Sequence[str], here: Sequence[str], where: str) -> None:
    """UserError unless weights (`there`) and data (`here`) have the same classes in the same order.

    Labels are places in that order. Where one side doesn't name its classes, nothing is said.
    """
    for place, names in enumerate(itertools.zip_longest(there, here) if there and here else ()):
        if names[0] != names[1]:
            weights, data = ("none" if name is None else shown(name) for name in names)
            raise UserError(
                f"{where}: the classes are not those of the data: class {place} is {weights} there, {data} here"
            )


TRAINING_ONLY = {"nonlocal_init", "nonlocal_gamma", "residual_gamma", "decay_bn"}
"""Conventions that say how a network starts and is trained, not what it computes."""


def differences(there: ResNetConfig, here: ResNetConfig) -> list[str]:
    """How two networks differ in what they compute, one ``key: there, here`` each."""
    computing = []
    for config in (there, here):
        net = {key: value for key, value in vars(config).items() if key not in ("conventions", "dropout")}
        rules = {key: rule for key, rule in vars(config.conventions.rules).items() if key not in TRAINING_ONLY}
        computing.append({**net, **{f"conventions.{key}": rule for key, rule in rules.items()}})
    theirs, ours = computing
    return [f"{key} is {value} there, {ours[key]} here" for key, value in theirs.items() if value != ours[key]]


def mismatches(ours: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> str:
    """What `given` tensors lack, have too much, or have in another shape than `ours`; empty if nothing."""
    misshapen = [
        f"{name} {list(given[name].shape)} for {list(ours[name].shape)}"
        for name in sorted(ours.keys() & given.keys())
        if ours[name].shape != given[name].shape
    ]
    return wrong_tensors(sorted(ours.keys() - given.keys()), sorted(given.keys() - ours.keys()), misshapen)


def wrong_tensors(missing: Sequence[str], left_over: Sequence[str], misshapen: Sequence[str]) -> str:
    """The names of tensors that don't fit a network; empty if there are none."""
    wrong = {"missing": missing, "left over": left_over, "of another shape": misshapen}
    return "; ".join(f"{kind}: {some(names)}" for kind, names in wrong.items() if names)


def some(names: Sequence[str]) -> str:
    """The first names of many, which may be anybody's."""
    shown = ", ".join(visible(name[:100]) for name in names[:3])
    return shown if len(names) <= 3 else f"{shown} and {len(names) - 3} more"


def checked_numbers(tensors: Mapping[str, Tensor], at: str) -> dict[str, Tensor]:
    """The tensors of a network, weights as float32 whatever their precision; counters of batches stay as they are.

    UserError, which names them, for weights that are no plain floats, not finite, or a variance below zero.
    """
    found = {name: tensor.float() if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}
    weights = {name: tensor for name, tensor in found.items() if not name.endswith("num_batches_tracked")}
    kinds: dict[str, Callable[[str, Tensor], bool]] = {
        "no plain floats": lambda _, tensor: not tensor.is_floating_point() or tensor.layout != torch.strided,
        "not a number, or infinite,": lambda _, tensor: not bool(tensor.isfinite().all()),
        "a variance below zero": lambda name, tensor: name.endswith("running_var") and bool((tensor < 0).any()),
    }
    for what, wrong in kinds.items():
        if named := [name for name, tensor in weights.items() if wrong(name, tensor)]:
            raise UserError(f"{at}: {what} in {len(named)} tensors: {some(named)}")
    return found


# --------------------------------------------------------------------------- what a file says, as a command line

OF_THE_MODEL = ("mean", "std", "test_pool", "multi_label")
"""Input settings that are arguments of the classifier; the others are the data's."""


def with_weights(arguments: Sequence[str]) -> list[str]:
    """`arguments` of a LightningCLI command (its name first), with ``--weights W`` replaced by all that W says.

    The file's way to test comes first, then recipes, then what the network is and sees, then all other arguments:
    later ones win. UserError if the file can't be used or the command is ``fit``.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--weights", action="append", default=[])
    parser.add_argument("--config", action="append", default=[])
    found, others = parser.parse_known_args(arguments[1:])
    if not found.weights:
        return list(arguments)
    given = [*found.weights, *(word for word in others if word.partition("=")[0] == "--model.weights")]
    if len(given) > 1:
        raise UserError(f"--weights: expected one weight file, got {' and '.join(map(visible, given))}")
    if arguments[0] == "fit":
        raise UserError("--weights is for test and validate; --model.init_from=W starts a training from a weight file")
    header = read_header(Path(found.weights[0]))
    words = {
        name: f"--{'model' if name in OF_THE_MODEL else 'data'}.{name}={shown_value(value)}"
        for name, value in asdict(header.input).items()
    }
    # How a network is tested, a recipe may change; not what it was trained on.
    fixed = [words.pop(name) for name in ("num_frames", "frame_stride", "mean", "std", "multi_label")]
    network = json.dumps(json.loads(header.to_json())["net"])
    return [
        arguments[0],
        *words.values(),
        *(f"--config={recipe}" for recipe in found.config),
        f"--model.net={network}",
        f"--model.weights={found.weights[0]}",
        *fixed,
        *others,
    ]
