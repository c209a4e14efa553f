"""3-D convolutions and pools computed as 2-D ones over folded axes: the same sums, several times faster.

A (N, C, T, H, W) map that lies in channels-last memory is also, without a copy, the (N T, C, H, W) map of its
frames and the (N, C, T, H W) map of its places. A kernel of one frame (1 x k x k) is a 2-D convolution of the
former, a kernel of one place (k x 1 x 1) one of the latter. Weights keep their 3-D shape, so a checkpoint doesn't
know. Checked in the tests against torch's own 3-D convolutions and pools.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Triple = tuple[int, int, int]


def fold_frames(x: Tensor) -> Tensor:
    """(N, C, T, H, W) as (N T, C, H, W); a view if x is channels-last in memory."""
    return x.transpose(1, 2).flatten(0, 1)


def unfold_frames(x: Tensor, frames: int) -> Tensor:
    """(N T, C, H, W) as (N, C, T, H, W), channels-last in memory if x is."""
    return x.view(-1, frames, *x.shape[1:]).transpose(1, 2)


class Conv3d(nn.Conv3d):
    """A convolution without bias, padded by half its kernel, computed over folded axes where the kernel allows."""

    def __init__(self, channels: int, out: int, kernel: Triple, stride: Triple = (1, 1, 1)) -> None:
        kt, kh, kw = kernel
        super().__init__(channels, out, kernel, stride, (kt // 2, kh // 2, kw // 2), bias=False)

    def forward(self, x: Tensor) -> Tensor:
        (kt, kh, kw), (st, sh, sw) = self.kernel_size, self.stride
        if kt == 1:
            x = x[:, :, ::st]
            y = F.conv2d(fold_frames(x), self.weight.squeeze(2), None, (sh, sw), (kh // 2, kw // 2))
            return unfold_frames(y, x.shape[2])
        if kh == kw == sh == sw == 1:
            y = F.conv2d(x.flatten(3), self.weight.flatten(3), None, (st, 1), (kt // 2, 0))
            return y.view(*y.shape[:3], *x.shape[3:])
        return super().forward(x)


class MaxPool3d(nn.Module):
    """A max pool, first over space, then over time (the maximum of maxima is the maximum).

    Args:
        kernel, stride: in (T, H, W).
        padded: pad by half the kernel, else not at all.
    """

    def __init__(self, kernel: Triple, stride: Triple, padded: bool) -> None:
        super().__init__()
        self.kernel, self.stride = kernel, stride
        self.padding = tuple(k // 2 if padded else 0 for k in kernel)

    def forward(self, x: Tensor) -> Tensor:
        (kt, kh, kw), (st, sh, sw), (pt, ph, pw) = self.kernel, self.stride, self.padding
        if (kh, kw) != (1, 1):
            x = unfold_frames(F.max_pool2d(fold_frames(x), (kh, kw), (sh, sw), (ph, pw)), x.shape[2])
        if (kt, st) != (1, 1):
            y = F.max_pool2d(x.flatten(3), (kt, 1), (st, 1), (pt, 0))
            x = y.view(*y.shape[:3], *x.shape[3:])
        return x

    def extra_repr(self) -> str:
        return f"kernel={self.kernel}, stride={self.stride}, padding={self.padding}"


def channels_last(clip: Tensor) -> Tensor:
    """The same clip laid out channels-last, which makes every fold above a view."""
    return clip.to(memory_format=torch.channels_last_3d)
