"""Where a position of a feature map lies in the clip that a network was given: the centre of what it sees."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import cast

from torch import nn

from nl_lightning.models.conventions import STAGES, Triple
from nl_lightning.models.resnet import VideoResNet


@dataclass(frozen=True)
class Places:
    """Position k of a map is centred on ``first + k * step`` of the clip, along T (frames), H and W (pixels), from 0.

    A half lies between two frames or pixels.
    """

    first: tuple[float, float, float] = (0.0, 0.0, 0.0)
    step: Triple = (1, 1, 1)

    def centre(self, position: Triple) -> tuple[float, float, float]:
        """(frame, row, column) of a position."""
        t, h, w = (first + k * step for first, k, step in zip(self.first, position, self.step, strict=True))
        return t, h, w

    def behind(self, kernel: Triple, stride: Triple, padding: Triple) -> "Places":
        """The places of what a convolution or a pool makes of the map."""
        t, h, w = (
            first + step * ((k - 1) / 2 - p)
            for first, step, k, p in zip(self.first, self.step, kernel, padding, strict=True)
        )
        dt, dh, dw = (step * s for step, s in zip(self.step, stride, strict=True))
        return Places((t, h, w), (dt, dh, dw))


def places_in(net: VideoResNet, stage: str) -> Places:
    """The places of the positions of a stage, such as ``res3``."""
    places = Places()
    for kernel, stride, padding in _layers(net, stage):
        places = places.behind(kernel, stride, padding)
    return places


def _layers(net: VideoResNet, stage: str) -> Iterator[tuple[Triple, Triple, Triple]]:
    """Kernel, stride and padding of the layers that move positions, up to a stage; all others keep them in place."""
    pools = [net.pool1] if stage == "res2" else [net.pool1, net.pool2]
    strided = [getattr(net, name).blocks[0].conv2 for name in STAGES[: STAGES.index(stage) + 1]]
    yield _sizes(net.conv1)
    yield from map(_sizes, pools)
    yield from map(_sizes, strided)  # pool2 lies between two of them, but it is along time and they are along space


def _sizes(layer: nn.Conv3d | nn.MaxPool3d) -> tuple[Triple, Triple, Triple]:
    kernel, stride, padding = (cast(Triple, sizes) for sizes in (layer.kernel_size, layer.stride, layer.padding))
    return kernel, stride, padding
