"""ImageNet weights of a 2-D ResNet, inflated into a network of Table 1 (paper, Sec. 4).

A k x k kernel becomes t copies of itself in time, each divided by t, so that the inflated network sees a video of one
frame repeated as the 2-D network sees that frame. The weights are torchvision's for ResNet-50 or -101, which strides in
the 3x3 as we do. Loading is strict: a tensor that is left over, missing or of another shape is an error. Checked in the
tests against torchvision's own network, stage by stage, on such videos.
"""

from collections.abc import Iterable
from pathlib import Path

from torch import Tensor

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import BLOCKS
from nl_lightning.models.resnet import VideoResNet
from nl_lightning.weights.file import checked_numbers, wrong_tensors
from nl_lightning.weights.safe import read_torch
from nl_lightning.weights.sources import TORCHVISION_NAMES


def load_imagenet(net: VideoResNet, path: Path) -> list[str]:
    """Fill `net` with torchvision's ImageNet weights, a file such as ``resnet50-*.pth``.

    Returns the names of the tensors that keep their initialisation: those of non-local blocks and of the classifier.
    UserError if the file is missing, broken or of another network; `net` is then unchanged.
    """
    state = read_state_dict(path, "imagenet")
    try:
        inflated = inflate_imagenet(net, state)
    except UserError as error:
        raise UserError(f"imagenet: {path}: {error}") from None
    net.load_state_dict(inflated, strict=False)
    return [name for name in net.state_dict() if name not in inflated]


def read_state_dict(path: Path, key: str) -> dict[str, Tensor]:
    """The tensors of a file of torchvision's, by name. UserError, which names the setting `key`, if it is none."""
    if not path.exists():
        raise UserError(f"{key}: there is no file {path}; torchvision's resnet50-*.pth is one")
    try:
        state = read_torch(path)
    except UserError as error:
        raise UserError(f"{key}: can't be read as weights of PyTorch: {error}") from None
    if not isinstance(state, dict) or not all(isinstance(n, str) and isinstance(t, Tensor) for n, t in state.items()):
        raise UserError(f"{key}: {path} holds no state dict, that is tensors by name")
    return checked_numbers(state, f"{key}: {path}")


def repeated(kernel: Tensor, frames: int) -> Tensor:
    """A kernel of one frame as so many copies of itself, each divided by their number (paper, Sec. 4)."""
    return kernel.expand(-1, -1, frames, -1, -1) / frames


def inflate_imagenet(net: VideoResNet, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of `net` that torchvision's 2-D `state` fills, by our names and in our shapes.

    The classifier of `state` is dropped, as its classes are ImageNet's. UserError, which names tensors, if `state`
    doesn't fit the depth or the width of `net`.
    """
    theirs = {name: tensor for name, tensor in state.items() if not name.startswith("fc.")}
    inflated, missing, misshapen = {}, [], []
    for name, ours in net.state_dict().items():
        if ".non_local." in name or name.startswith("fc."):
            continue
        their_name = TORCHVISION_NAMES.theirs(name) or name
        tensor = theirs.pop(their_name, None)
        if tensor is None:
            # Files from before PyTorch 0.4.1 lack this counter; our BN has a momentum and doesn't use it.
            if not name.endswith(".num_batches_tracked"):
                missing.append(their_name)
            continue
        if ours.ndim == 5 and tensor.ndim == 4:
            tensor = repeated(tensor[:, :, None], ours.shape[2])
        if tensor.shape == ours.shape:
            inflated[name] = tensor
        else:
            misshapen.append(their_name)
    if wrong := wrong_tensors(missing, list(theirs), misshapen):
        raise UserError("; ".join(["these weights are not this network's", *_mismatch(net, state), wrong]))
    return inflated


def _mismatch(net: VideoResNet, state: Iterable[str]) -> list[str]:
    """The likeliest reason why `state` doesn't fit `net`, if one can be told."""
    stages = [{name.split(".")[1] for name in state if name.startswith(f"layer{i}.")} for i in range(1, 5)]
    blocks = tuple(len(stage) for stage in stages)
    depth, width = net.config.depth, net.config.width
    if blocks != BLOCKS[depth] and any(blocks):
        return [f"they have {blocks} residual blocks, and a ResNet-{depth} has {BLOCKS[depth]}"]
    if width != 1:
        return [f"ImageNet weights are of width 1, and this network is of width {width:g}"]
    return []
