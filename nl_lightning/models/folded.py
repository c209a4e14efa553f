"""3-D convolutions and pools computed as 2-D ones over folded axes: the same sums, several times faster.

A (N, C, T, H, W) map that lies in channels-last memory is also, without a copy, the (N T, C, H, W) map of its
frames and the (N, C, T, H W) map of its places. A kernel of one frame (1 x k x k) is a 2-D convolution of the
former, a kernel of one place (k x 1 x 1) one of the latter. Weights keep their 3-D shape, so a checkpoint doesn't
know. Checked in the tests against torch's own 3-D convolutions and pools.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from nl_lightning.models.precision import is_half
from nl_lightning.models.shifts import ShiftedSum

Triple = tuple[int, int, int]


def fold_frames(x: Tensor) -> Tensor:
    """(N, C, T, H, W) as (N T, C, H, W); a view if x is channels-last in memory."""
    return x.transpose(1, 2).flatten(0, 1)


def unfold_frames(x: Tensor, frames: int) -> Tensor:
    """(N T, C, H, W) as (N, C, T, H, W), channels-last in memory if x is."""
    return x.view(-1, frames, *x.shape[1:]).transpose(1, 2)


def fold_places(x: Tensor) -> Tensor:
    """(N, C, T, H, W) as (N, C, T, H W); a view if x is channels-last in memory.

    Not by ``x.flatten(3)``: for one clip it makes a stride of N up, by which torch no longer knows the layout.
    """
    return from_rows(rows(x).reshape(x.shape[0], x.shape[2], -1, x.shape[1]))


def unfold_places(x: Tensor, height: int) -> Tensor:
    """(N, C, T, H W) as (N, C, T, H, W)."""
    return from_rows(rows(x).reshape(x.shape[0], x.shape[2], height, -1, x.shape[1]))


def rows(x: Tensor) -> Tensor:
    """(N, C, ...) as (N, ..., C), a row of channels for each position; a view."""
    return x.movedim(1, -1)


def from_rows(x: Tensor) -> Tensor:
    """(N, ..., C) as (N, C, ...), channels-last in memory if the rows are contiguous; a view."""
    return x.movedim(-1, 1)


def fold_positions(x: Tensor) -> Tensor:
    """(N, C, ...) as an image (1, C, positions of all clips, 1); a view if x is channels-last in memory."""
    return from_rows(rows(x).reshape(1, -1, 1, x.shape[1]))


def unfold_positions(x: Tensor, like: Tensor) -> Tensor:
    """(1, D, positions, 1) as (N, D, ...) of the clips and positions of another map."""
    return from_rows(rows(x).reshape(like.shape[0], *like.shape[2:], x.shape[1]))


@dataclass(frozen=True)
class Fold:
    """How a convolution of a map (N, C, T, H, W) is one of an image.

    Attributes:
        image: of the map.
        back: of the image that the convolution makes, given the map that went in: the map that it stands for.
        kernel: of the weight.
    """

    image: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]
    kernel: Callable[[Tensor], Tensor]


POSITIONS = Fold(fold_positions, unfold_positions, lambda weight: weight.flatten(1)[:, :, None, None])
FRAMES = Fold(fold_frames, lambda y, x: unfold_frames(y, x.shape[2]), lambda weight: weight.squeeze(2))
PLACES = Fold(fold_places, lambda y, x: unfold_places(y, x.shape[3]), lambda weight: weight.flatten(3))
VOLUME = Fold(lambda x: x, lambda y, _: y, lambda weight: weight)


def pointwise(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A convolution by a kernel of one position, (D, C, 1, ...): a matrix product of its rows."""
    return from_rows(F.linear(rows(x), weight.flatten(1), bias))


class Conv3d(nn.Conv3d):
    """A convolution padded by half its kernel, computed over folded axes where the kernel allows. It has no bias."""

    def __init__(self, channels: int, out: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> None:
        kt, kh, kw = kernel
        super().__init__(channels, out, kernel, stride, (kt // 2, kh // 2, kw // 2), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.convolve(x, self.weight, None)

    def fold(self) -> tuple[Fold, list[int], list[int]]:
        """The image that the kernel sees, and its stride and padding there."""
        (kt, kh, kw), (st, sh, sw) = self.kernel_size, self.stride
        if (kt, kh, kw, st, sh, sw) == (1,) * 6:
            return POSITIONS, [1, 1], [0, 0]
        if kt == 1:
            return FRAMES, [sh, sw], [kh // 2, kw // 2]
        if (kh, kw, sh, sw) == (1, 1, 1, 1):
            return PLACES, [st, 1], [kt // 2, 0]
        return VOLUME, [st, sh, sw], [kt // 2, kh // 2, kw // 2]

    def kept_frames(self, x: Tensor) -> Tensor:
        """Those that a kernel of one frame is laid upon: its stride in time."""
        return x[:, :, :: self.stride[0]] if self.kernel_size[0] == 1 else x

    def convolve(self, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        """This convolution with another weight and bias of the same shape."""
        fold, stride, padding = self.fold()
        cpu = x.device.type == "cpu"
        if cpu and fold is POSITIONS:
            return pointwise(x, weight, bias)
        if cpu and self.kernel_size == (3, 1, 1) and stride == [1, 1] and _shifts_pay(x, weight):
            return shifted_products(x, weight, bias)
        if fold is VOLUME and cpu and self.stride[0] == 1:
            frames = self.kernel_size[0]
            if is_half(x) and self.in_channels * frames <= STACKED:
                return stacked_frames(x, weight, bias, self.stride[1])
            if not is_half(x) and self.out_channels * frames <= OUTPUTS:
                return summed_frames(x, weight, bias, self.stride[1])
        if fold is VOLUME:  # for one clip torch takes an algorithm that lays its output out channels-first
            return channels_last(F.conv3d(x, weight, bias, self.stride, self.padding))
        x = self.kept_frames(x)
        return fold.back(F.conv2d(fold.image(x), fold.kernel(weight), bias, stride, padding), x)


STACKED = 16
"""The 3 colours of 5 frames are still few channels to a convolution in half precision (measured: conv1 of I3D)."""


OUTPUTS = 20
"""5 frames' kernels of 4 channels fill two vectors of a CPU where each would take one (measured: conv1 of a narrow I3D
in half its time)."""


def _shifts_pay(x: Tensor, weight: Tensor) -> bool:
    """In training, and with many channels (measured): a convolution's gradient for such a kernel is slow."""
    return weight.requires_grad and torch.is_grad_enabled() and x.shape[1] >= (1024 if is_half(x) else 256)


def shifted_products(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3 x 1 x 1 convolution: one matrix product for the three kernels of a place, then the sum over three frames."""
    out = len(weight)
    each = F.linear(rows(x), weight.flatten(2).permute(2, 0, 1).flatten(0, 1))  # (N, T, H, W, 3 D)
    each = F.pad(each, (0, 0, 0, 0, 0, 0, 1, 1))  # a frame of zeros at either end
    before, same, after = torch.split(each, out, dim=-1)
    y = before[:, :-2] + same[:, 1:-1] + after[:, 2:]
    return from_rows(y if bias is None else y + bias)


def summed_frames(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """A k x h x w convolution as a 2-D one to the channels of all k kernels, then the sum over k frames."""
    frames, (out, _, k, *side) = x.shape[2], weight.shape
    kernels = weight.permute(2, 0, 1, 3, 4).flatten(0, 1)  # (k D, C, h, w)
    each = rows(F.conv2d(fold_frames(x), kernels, None, stride, (side[0] // 2, side[1] // 2)))  # (N T, h, w, k D)
    y = ShiftedSum.apply(each.reshape(-1, frames, each.shape[1] * each.shape[2], k, out))
    y = y if bias is None else y + bias
    return from_rows(y.view(-1, frames, *each.shape[1:3], out))


def stacked_frames(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
    """A k x h x w convolution as a 2-D one of the channels of k frames; only in space it has a stride."""
    frames, (k, side) = x.shape[2], weight.shape[2:4]
    padded = F.pad(rows(x), (0, 0, 0, 0, 0, 0, k // 2, k // 2))
    stacked = torch.cat([padded[:, i : i + frames] for i in range(k)], dim=-1)  # (N, T, H, W, k C)
    kernel = weight.transpose(1, 2).flatten(1, 2)
    return unfold_frames(F.conv2d(fold_frames(from_rows(stacked)), kernel, bias, stride, side // 2), frames)


class MaxPool3d(nn.Module):
    """A max pool, first over space, then over time (the maximum of maxima is the maximum).

    Args:
        kernel, stride: in (T, H, W).
        padded: pad by half the kernel, else not at all.
    """

    def __init__(self, kernel: Triple, stride: Triple, padded: bool) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        pt, ph, pw = (k // 2 if padded else 0 for k in kernel)
        self.padding = (pt, ph, pw)

    def forward(self, x: Tensor) -> Tensor:
        (kt, kh, kw), (st, sh, sw), (pt, ph, pw) = self.kernel, self.stride, self.padding
        if self.kernel == self.stride and not any(self.padding) and not torch.is_grad_enabled():
            return maxima(x, self.kernel)
        if (kh, kw) != (1, 1):
            x = unfold_frames(F.max_pool2d(fold_frames(x), (kh, kw), (sh, sw), (ph, pw)), x.shape[2])
        if (kt, st) != (1, 1):
            x = unfold_places(F.max_pool2d(fold_places(x), (kt, 1), (st, 1), (pt, 0)), x.shape[3])
        return x

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}, padding={self.padding}"


def maxima(x: Tensor, kernel: Triple) -> Tensor:
    """A max pool over windows side by side; without noting where the maxima are, as a gradient would need it."""
    for axis, k in enumerate(kernel, start=2):
        count = x.shape[axis] // k
        x = reduce(torch.maximum, torch.unflatten(x.narrow(axis, 0, count * k), axis, (count, k)).unbind(axis + 1))
    return x


def channels_last(clip: Tensor) -> Tensor:
    """The same clip laid out channels-last, which makes every fold above a view."""
    return clip.to(memory_format=torch.channels_last_3d)
