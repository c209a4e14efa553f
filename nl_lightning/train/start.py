"""What a network starts from: ImageNet's weights, a training checkpoint, or a weight file."""

from collections.abc import Collection, Sequence
from pathlib import Path

from torch import Tensor

from nl_lightning.errors import UserError, say
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.weights.file import (
    check_classes,
    checked_numbers,
    classes_in,
    differences,
    fill,
    network_in,
    read_weights,
)
from nl_lightning.weights.imagenet import load_imagenet, repeated
from nl_lightning.weights.safe import read_torch


def file_of(path: str, net: ResNetConfig) -> Path:
    """The file that a recipe names for each of its networks: ``{depth}`` and ``{blocks}`` are the network's."""
    blocks = sum(map(len, net.non_local.placement.values())) if net.non_local else 0
    return Path(path.replace("{depth}", str(net.depth)).replace("{blocks}", str(blocks)))


def load_tested_weights(net: VideoResNet, path: Path, stage: str, classes: Sequence[str] = ()) -> None:
    """Load a weight file that holds this very network, for data with these `classes` (names, or nothing).

    UserError if it doesn't, if its classes are others, or if `stage` is ``fit``.
    """
    if stage == "fit":
        raise UserError("weights: is for testing; model.init_from starts a training from a weight file")
    tensors, header = read_weights(path)
    if not header.classifier:
        raise UserError(f"weights: {path} has no classifier to test; model.init_from starts a training from it")
    if differ := differences(header.net, net.config):
        raise UserError(f"weights: {path} is of another network: {'; '.join(differ)}")
    check_classes(header.classes, classes, f"weights: {path}")
    fill(net, tensors, f"weights: {path}")


def load(
    net: VideoResNet,
    imagenet: str | None,
    named: str | None,
    new: Collection[str],
    classes: Sequence[str],
    speaks: bool,
) -> frozenset[str]:
    """Load what a training starts from; return the names of the tensors that are not as initialised any more.

    `imagenet` and `named` are files as a recipe names them, `new` and `classes` are those of :func:`init_from`. Which
    parts stay new is said if it `speaks`.
    """
    loaded: set[str] = set()
    if imagenet is not None:
        loaded |= net.state_dict().keys() - load_imagenet(net, file_of(imagenet, net.config))
    if named is not None:
        file = file_of(named, net.config)
        parts = init_from(net, file, new, classes)
        lacking = [part for part in parts if part != "fc"]
        if lacking and speaks:
            say(f"init_from: {file} lacks {', '.join(lacking)}: new, as initialised")
        loaded |= {name for name in net.state_dict() if not name.startswith(tuple(f"{part}." for part in parts))}
    return frozenset(loaded)


def init_from(net: VideoResNet, path: Path, new: Collection[str] = (), classes: Sequence[str] = ()) -> list[str]:
    """Load the network of a checkpoint or of a weight file; return what stays new, as ``res3.non_local.1`` or ``fc``.

    Kernels of a 2-D network are inflated into an I3D as ImageNet's are (paper, Sec. 4): t copies, each divided by t.
    UserError if the file is missing, holds another network or other classes, or numbers that no network can have.

    Args:
        net: the network.
        path: a checkpoint of ours, or a weight file. Without a classifier in it, the network's own stays.
        new: parts of the network that may stay new where the file lacks them, see
            :func:`~nl_lightning.weights.file.fill`. ``fc`` also stays new where the file's classes are others.
        classes: names of the data's classes, or nothing. Where the classifier is kept, the file's have to be the same.
    """
    at, ours = f"init_from: {path}", net.state_dict()
    if path.suffix == ".safetensors":
        tensors, header = read_weights(path)
        named, new = header.classes, new if header.classifier else {*new, "fc"}
    else:
        if not path.exists():
            raise UserError(
                f"init_from: no checkpoint at {path}; train that run first (if its record is there already, "
                "delete that, or take another folder for --results)"
            )
        try:
            content = read_torch(path)
        except UserError as error:
            raise UserError(f"{at} holds no weights of this network: {error}") from None
        tensors = checked_numbers(network_in(content, f"{at} holds no weights of this network"), at)
        named = classes_in(content, at)
    kept = tensors.get("fc.weight")
    fits = kept is not None and kept.shape[:1] == (net.config.num_classes,)
    if kept is not None and "fc" in new and not (fits and named == tuple(classes)):
        tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith("fc.")}
    elif kept is not None:
        again = "nl-lightning weights import --without-classifier leaves its classifier out"
        if kept.ndim and not fits:
            raise UserError(f"{at} has {len(kept)} classes, and this network {net.config.num_classes}: {again}")
        check_classes(named, classes, f"{at} ({again})")
    return fill(net, {name: _inflated(tensor, ours.get(name)) for name, tensor in tensors.items()}, at, new)


def _inflated(kernel: Tensor, ours: Tensor | None) -> Tensor:
    """A kernel that spans one frame, as one that spans as many as `ours`; any other tensor as it is."""
    if ours is None or kernel.ndim != 5 or kernel.shape == ours.shape or kernel.shape[2] != 1:
        return kernel
    return repeated(kernel, ours.shape[2])
