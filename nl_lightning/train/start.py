"""What a network starts from: ImageNet's weights, a training checkpoint, or a weight file."""

from pathlib import Path

from nl_lightning.errors import UserError
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.weights.file import differences, fill, read_weights
from nl_lightning.weights.safe import read_torch


def file_of(path: str, net: ResNetConfig) -> Path:
    """The file that a recipe names for each of its networks: ``{depth}`` and ``{blocks}`` are the network's."""
    blocks = sum(map(len, net.non_local.placement.values())) if net.non_local else 0
    return Path(path.replace("{depth}", str(net.depth)).replace("{blocks}", str(blocks)))


def load_tested_weights(net: VideoResNet, path: Path, stage: str) -> None:
    """Load a weight file that holds this very network. UserError if it doesn't, or if `stage` is ``fit``."""
    if stage == "fit":
        raise UserError("weights: is for testing; model.init_from starts a training from a weight file")
    tensors, header = read_weights(path)
    if not header.classifier:
        raise UserError(f"weights: {path} has no classifier to test; model.init_from starts a training from it")
    if differ := differences(header.net, net.config):
        raise UserError(f"weights: {path} is of another network: {'; '.join(differ)}")
    fill(net, tensors, f"weights: {path}")


def init_from(net: VideoResNet, path: Path) -> None:
    """Load the network of a checkpoint or of a weight file, strictly; without a classifier, the network's own stays.

    Raises:
        UserError: the file is missing, or holds another network.
    """
    if path.suffix == ".safetensors":
        tensors, header = read_weights(path)
        classes = header.net.num_classes, net.config.num_classes
        if header.classifier and classes[0] != classes[1]:
            raise UserError(
                f"init_from: {path} has {classes[0]} classes, and this network {classes[1]}: "
                "import it again --without-classifier"
            )
        fill(net, tensors, f"init_from: {path}", header.classifier)
        return
    if not path.exists():
        raise UserError(
            f"init_from: no checkpoint at {path}; train that run first (if its record is there already, "
            "delete that, or take another folder for --results)"
        )
    try:
        state = read_torch(path)["state_dict"]
        net.load_state_dict({k.removeprefix("net."): v for k, v in state.items() if k.startswith("net.")})
    except (UserError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:500]
        raise UserError(f"init_from: {path} holds no weights of this network: {reason}") from None
