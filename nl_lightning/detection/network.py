"""The networks of Tables 5 and 6: torchvision's Mask R-CNN and Keypoint R-CNN with FPN, and non-local blocks in them.

Without blocks they are torchvision's own, tensor by tensor. :class:`Size` makes all parts narrower, never shallower,
for sets that two CPU cores can learn. Checked in the tests against torchvision: names, losses, gradients.
"""

import inspect
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN, KeypointRCNN, MaskRCNN
from torchvision.models.detection.backbone_utils import BackboneWithFPN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.models.resnet import Bottleneck, ResNet
from torchvision.ops.misc import FrozenBatchNorm2d

from nl_lightning.errors import UserError, nearest, one_line
from nl_lightning.models.controls import stand_in
from nl_lightning.models.conventions import BLOCKS, STAGES, ControlConfig, Conventions
from nl_lightning.models.initial import drawn_by_name
from nl_lightning.models.insert import insert_after, insert_non_local
from nl_lightning.models.resnet import Bottleneck as ResidualBlock
from nl_lightning.weights.file import wrong_tensors
from nl_lightning.weights.imagenet import read_state_dict

HEAD_LAYERS = ("3", "7", "11", "15")
"""Of the keypoint head: the ReLU of every second of its eight convolutions."""
LAYERS = ("layer4", "layer3", "layer2", "layer1", "conv1")
OURS = ("self", "kwargs", "backbone", "num_classes", "num_keypoints", "rpn_anchor_generator")


@dataclass(frozen=True)
class Size:
    """How wide the parts of a detector are. The default is torchvision's, and the paper's.

    Attributes:
        width: factor of the backbone's channels; each stage keeps 8 at least.
        channels: of the feature pyramid.
        hidden: of the box head's two layers.
        head: channels of the convolutions of the mask head or the keypoint head. None: 256 and 512.
        anchors: side of the anchors on each level of the pyramid, in pixels.
    """

    width: float = 1.0
    channels: int = 256
    hidden: int = 1024
    head: int | None = None
    anchors: tuple[int, int, int, int, int] = (32, 64, 128, 256, 512)

    def __post_init__(self) -> None:
        numbers = [self.width, self.channels, self.hidden, self.head or 1, *self.anchors]
        if not all(0 < number <= 10_000 for number in numbers):
            raise UserError(f"size: expected numbers above 0, up to 10,000, got {self}")


def detector_network(
    depth: Literal[50, 101] = 50,
    num_classes: int = 91,
    num_keypoints: int = 0,
    backbone_block: bool = False,
    head_blocks: bool = False,
    size: Size = Size(),
    frozen_bn: bool = True,
    trainable_layers: int = 3,
    settings: Mapping[str, Any] | None = None,
    control: ControlConfig | None = None,
) -> FasterRCNN:
    """Mask R-CNN, or Keypoint R-CNN, with weights drawn from torch's seed and each tensor's name.

    The arguments are those of :class:`~nl_lightning.detection.detector.Detector`.

    Raises:
        UserError: a setting is unknown or wrong, or blocks are asked for in a head that isn't there.
    """
    if head_blocks and not num_keypoints:
        raise UserError("head_blocks: they are in the keypoint head; set num_keypoints, or leave them out")
    if control is not None:
        control.check(depth, backbone_block)
        if not control.placed:
            raise UserError(f"control: {control.kind} is of networks that classify; expected one that has a placement")
    kind = KeypointRCNN if num_keypoints else MaskRCNN
    known = {*inspect.signature(kind.__init__).parameters, *inspect.signature(FasterRCNN.__init__).parameters}
    known = {name for name in known if name not in OURS and "_head" not in name and "_pred" not in name}
    for name in settings or {}:
        if name not in known:
            raise UserError(f"settings.{name}: {kind.__name__} has no such setting{nearest(name, sorted(known))}")

    norm = FrozenBatchNorm2d if frozen_bn else nn.BatchNorm2d

    def make() -> FasterRCNN:
        resnet = _narrow(size.width)(Bottleneck, list(BLOCKS[depth]), norm_layer=norm)
        for name, parameter in resnet.named_parameters():
            parameter.requires_grad_(name.split(".")[0].replace("bn1", "conv1") in LAYERS[:trainable_layers])
        stages = {f"layer{i + 1}": str(i) for i in range(4)}
        channels = [getattr(resnet, stage)[-1].conv3.out_channels for stage in stages]
        backbone = BackboneWithFPN(resnet, stages, channels, size.channels)
        ratios = ((0.5, 1.0, 2.0),) * len(size.anchors)
        wide = size.head or (512 if num_keypoints else 256)
        heads: dict[str, Any] = {
            "box_head": TwoMLPHead(size.channels * 7**2, size.hidden),
            "box_predictor": FastRCNNPredictor(size.hidden, num_classes),
            "rpn_anchor_generator": AnchorGenerator(tuple((side,) for side in size.anchors), ratios),
        }
        if num_keypoints:
            heads["keypoint_head"] = KeypointRCNNHeads(size.channels, (wide,) * 8)
            heads["keypoint_predictor"] = KeypointRCNNPredictor(wide, num_keypoints)
        else:
            heads["mask_head"] = MaskRCNNHeads(size.channels, (wide,) * 4, 1)
            heads["mask_predictor"] = MaskRCNNPredictor(wide, wide, num_classes)
        try:
            net = kind(backbone, **heads, **(settings or {}))
        except (TypeError, ValueError) as error:
            raise UserError(f"settings: {one_line(error, 300)}") from error
        if backbone_block:
            insert_non_local(net, f"backbone.body.layer3.{BLOCKS[depth][STAGES.index('res4')] - 2}")
        if control is not None:
            _put_control(net.backbone.body, control)
        if head_blocks:
            insert_non_local(net.roi_heads.keypoint_head, HEAD_LAYERS, example=torch.zeros(1, size.channels, 14, 14))
        return net

    return drawn_by_name(make, torch.initial_seed())


class _OneFrame(nn.Module):
    """A control for clips, on maps (N, C, H, W)."""

    def __init__(self, control: nn.Module) -> None:
        super().__init__()
        self.control = control

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.control(x[:, :, None])
        return z[:, :, 0]


def _put_control(body: nn.Module, control: ControlConfig) -> None:
    """Put a control where a non-local block would be, after each residual block that its placement names."""

    def make(channels: int, dimensions: int) -> nn.Module:
        return _OneFrame(stand_in(control, channels, Conventions().rules, ResidualBlock))

    for stage, places in control.placement.items():
        insert_after(body, [f"layer{STAGES.index(stage) + 1}.{after}" for after in places], make)


def _narrow(width: float) -> Any:
    """torchvision's ResNet with fewer channels: it makes the stages one by one, each of `planes` times four."""
    if width == 1:
        return ResNet

    class Narrow(ResNet):  # type: ignore[misc]  # torchvision has no types
        def _make_layer(self, block: type[Bottleneck], planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
            narrow = max(8, round(planes * width))
            if planes == 64:  # the first stage: conv1 before it is as narrow
                self.inplanes = narrow
                self.conv1 = nn.Conv2d(3, narrow, kernel_size=7, stride=2, padding=3, bias=False)
                self.bn1 = self._norm_layer(narrow)
            made: nn.Sequential = super()._make_layer(block, narrow, *args, **kwargs)
            return made

    return Narrow


def load_start(net: FasterRCNN, path: Path) -> list[str]:
    """Fill a detector from a file of torchvision's: ImageNet weights of its ResNet, or those of a whole detector.

    A detector's predictors may be for other classes: they then keep their initialisation, as do non-local blocks. The
    names of such tensors are returned. UserError if the file is missing, broken or of another network; the network is
    then unchanged.
    """
    state = read_state_dict(path, "start")
    ours = net.state_dict()
    if not any(name.startswith("backbone.") for name in state):
        state = {f"backbone.body.{name}": tensor for name, tensor in state.items() if not name.startswith("fc.")}
        kept = [name for name in ours if not name.startswith("backbone.body.")]
    else:
        state = {_renamed(name): tensor for name, tensor in state.items()}
        kept = [name for name in ours if "_predictor." in name and name in state and _differs(ours, state, name)]
        state = {name: tensor for name, tensor in state.items() if name not in kept}
    kept += [name for name in ours if ".non_local." in name and name not in state]
    if ours.keys().isdisjoint(f"{name.rpartition('.')[0]}.num_batches_tracked" for name in state):  # BN is frozen
        state = {name: tensor for name, tensor in state.items() if not name.endswith(".num_batches_tracked")}
    missing = [name for name in ours if name not in state and name not in kept and "num_batches" not in name]
    misshapen = [name for name in state if name in ours and _differs(ours, state, name)]
    if wrong := wrong_tensors(missing, [name for name in state if name not in ours], misshapen):
        raise UserError(f"start: {path}: these weights are not this network's; {wrong}")
    net.load_state_dict(state, strict=False)
    return kept


def _renamed(name: str) -> str:
    """Files from before torchvision 0.13 name three convolutions otherwise."""
    name = re.sub(r"^(backbone\.fpn\.(?:inner|layer)_blocks\.\d+)\.(weight|bias)$", r"\1.0.\2", name)
    name = re.sub(r"^rpn\.head\.conv\.(weight|bias)$", r"rpn.head.conv.0.0.\1", name)
    return re.sub(r"^(roi_heads\.mask_head)\.mask_fcn(\d+)\.", lambda found: f"{found[1]}.{int(found[2]) - 1}.0.", name)


def _differs(ours: Mapping[str, Tensor], state: Mapping[str, Tensor], name: str) -> bool:
    return ours[name].shape != state[name].shape
