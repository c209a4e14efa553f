"""The same blocks and networks, computed in fewer passes over memory: ``kernels: fast``, the default.

:func:`use_kernels` turns a module's layers into the subclasses below and back. They have the same tensors under the
same names; only `forward` differs. A layer that somebody watches by a hook is called as it is, so that the hook sees
every map. :func:`for_testing` makes a copy with BN folded into the convolutions, for a whole test.

Figures in docstrings say how many times as long a training step or test pass of a whole ResNet-50 takes without this
form, with all others, on one core of a CPU (benchmarks/results, forms.md). Checked in the tests against the definition.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast, get_args

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.modules.module import _has_any_global_hook
from torch.nn.utils.fusion import fuse_conv_bn_eval, fuse_conv_bn_weights

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Kernels, Triple
from nl_lightning.models.forms import Form, associated, attention, form_of, sorted_average
from nl_lightning.models.nonlocal_block import Affine, NonLocalBlock
from nl_lightning.models.resnet import Bottleneck, VideoResNet, half

M = TypeVar("M", bound=nn.Module)


def use_kernels(module: M, kernels: Kernels = "fast") -> M:
    """Let all non-local blocks and networks of Table 2 within a module compute by these kernels; return the module.

    No tensor changes. Other modules stay as they are.
    """
    if kernels not in get_args(Kernels):
        raise UserError(f"kernels: expected one of {', '.join(get_args(Kernels))}, not {kernels!r}")
    table = FAST if kernels == "fast" else {fast: plain for plain, fast in FAST.items()}
    for part in a_module(module).modules():
        if isinstance(part, NonLocalBlock | VideoResNet):
            for layer in part.modules():
                if type(layer) in table and _is_usual(layer):
                    layer.__class__ = table[type(layer)]
    return module


def a_module(given: M) -> M:
    """What was given; UserError if it is no module."""
    if not isinstance(given, nn.Module):
        raise UserError(f"model: expected a torch.nn.Module, not a {type(given).__name__}")
    return given


def _is_usual(layer: nn.Module) -> bool:
    """Whether a convolution is padded by half its kernel and nothing else, as all of ours are."""
    if not isinstance(layer, nn.Conv3d):
        return True
    plain = layer.groups == 1 and layer.dilation == (1, 1, 1) and layer.padding_mode == "zeros"
    return plain and layer.padding == half(cast(Triple, layer.kernel_size))


def channels_last(clip: Tensor) -> Tensor:
    """The same clip (N, C, T, H, W) laid out channels-last, which makes every fold below a view."""
    return clip.to(memory_format=torch.channels_last_3d)


def watched(module: nn.Module) -> bool:
    """Whether somebody has hung a hook on the module, and so wants it called."""
    backward = module._backward_hooks or module._backward_pre_hooks
    return bool(module._forward_hooks or module._forward_pre_hooks or backward)


def product_dtype(x: Tensor) -> torch.dtype:
    """The type in which products with x are computed. torch.compile sees x's own only."""
    kind = x.device.type
    if torch.compiler.is_compiling() or not torch.amp.is_autocast_available(kind):
        return x.dtype
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else x.dtype


def is_half(x: Tensor) -> bool:
    """Whether products with x are computed in half precision."""
    return product_dtype(x) in (torch.bfloat16, torch.float16)


# ----------------------------------------------------------------------------------------------------- folded layers
# A map (N, C, T, H, W) that lies in channels-last memory is also, without a copy, the images (N T, C, H, W) of its
# frames and the image (N, C, T, H W) of its places. A kernel of one frame is a 2-D convolution of the former, a kernel
# of one place one of the latter, and a kernel of one position is a matrix product. torch's 2-D convolutions are better:
# a training step takes 1.3 to 1.5 times as long without this.


def rows(x: Tensor) -> Tensor:
    """(N, C, ...) as (N, ..., C), a row of channels for each position; a view."""
    return x.movedim(1, -1)


def from_rows(x: Tensor) -> Tensor:
    """(N, ..., C) as (N, C, ...), channels-last in memory if the rows are contiguous; a view."""
    return x.movedim(-1, 1)


class Fold(NamedTuple):
    """How a convolution of a map (N, C, T, H, W) is one of an image. All are views of a channels-last map.

    Attributes:
        image: of a map. (Not by flattening the map itself: for one clip torch then makes up the stride of N, and no
            longer knows the layout.)
        back: of the image that the convolution makes, given the map that went in: the map that it stands for.
        kernel: of the weight.
    """

    image: Callable[[Tensor], Tensor]
    back: Callable[[Tensor, Tensor], Tensor]
    kernel: Callable[[Tensor], Tensor]


FRAMES = Fold(  # (N T, C, H, W)
    lambda x: from_rows(rows(x).flatten(0, 1)),
    lambda y, x: from_rows(torch.unflatten(rows(y), 0, (x.shape[0], x.shape[2]))),
    lambda weight: weight.squeeze(2),
)
PLACES = Fold(  # (N, C, T, H W)
    lambda x: from_rows(rows(x).flatten(2, 3)),
    lambda y, x: from_rows(torch.unflatten(rows(y), 2, x.shape[3:])),
    lambda weight: weight.flatten(3),
)
POSITIONS = Fold(  # (1, C, N T H, W)
    lambda x: from_rows(rows(x).flatten(0, 2)[None]),
    lambda y, x: from_rows(torch.unflatten(rows(y)[0], 0, (x.shape[0], *x.shape[2:4]))),
    lambda weight: weight.squeeze(2),
)
VOLUME = Fold(lambda x: x, lambda y, _: channels_last(y), lambda weight: weight)  # torch may lay one clip out otherwise


class FastConv3d(nn.Conv3d):
    """A convolution padded by half its kernel, computed over folded axes where the kernel allows."""

    kernel_size: Triple
    stride: Triple
    padding: Triple

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D t h w"]:
        fold, stride, padding = self.fold()
        if fold is POSITIONS:
            return from_rows(F.linear(rows(x), self.weight.flatten(1), self.bias))
        if self.kernel_size == (3, 1, 1) and self.stride == (1, 1, 1) and self._shifts_pay(x):
            return shifted_products(x, self.weight, self.bias)
        x = self.kept_frames(x)
        convolve = F.conv3d if fold is VOLUME else F.conv2d
        return fold.back(convolve(fold.image(x), fold.kernel(self.weight), self.bias, stride, padding), x)

    def fold(self) -> tuple[Fold, list[int], list[int]]:
        """The image that the kernel sees, and its stride and padding there."""
        (kt, kh, kw), (st, sh, sw), (pt, ph, pw) = self.kernel_size, self.stride, self.padding
        if set(self.kernel_size) == set(self.stride) == {1}:
            return POSITIONS, [1, 1], [0, 0]
        if kt == 1:
            return FRAMES, [sh, sw], [ph, pw]
        if (kh, kw, sh, sw) == (1, 1, 1, 1):
            return PLACES, [st, 1], [pt, 0]
        return VOLUME, [st, sh, sw], [pt, ph, pw]

    def kept_frames(self, x: Tensor) -> Tensor:
        """Those that a kernel of one frame is laid upon: its stride in time."""
        return x[:, :, :: self.stride[0]] if self.kernel_size[0] == 1 else x

    def _shifts_pay(self, x: Tensor) -> bool:
        """In training on a CPU, with many channels (measured): a convolution's gradient for such a kernel is slow."""
        trains = self.weight.requires_grad and torch.is_grad_enabled() and x.device.type == "cpu"
        return trains and x.shape[1] >= (1024 if is_half(x) else 256)


def shifted_products(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """A 3 x 1 x 1 convolution: one matrix product for the three kernels of a place, then the sum over three frames.

    1.2 times: a training step of I3D without blocks.
    """
    each = F.linear(rows(x), weight.flatten(2).permute(2, 0, 1).flatten(0, 1))  # (N, T, H, W, 3 D)
    each = F.pad(each, (0, 0, 0, 0, 0, 0, 1, 1))  # a frame of zeros at either end
    before, same, after = torch.split(each, len(weight), dim=-1)
    y = before[:, :-2] + same[:, 1:-1] + after[:, 2:]
    return from_rows(y if bias is None else y + bias)


# ------------------------------------------------------------------------------------------------ blocks and networks


def conv_norm(
    x: Float[Tensor, "N C *P"], conv: nn.Module, norm: nn.Module, shortcut: Tensor | None = None, relu: bool = True
) -> Tensor:
    """``relu(norm(conv(x)) + shortcut)``, the sum and the ReLU in place where nobody else has their input."""
    if isinstance(conv, OnePassConv3d) and not watched(conv):
        y: Tensor = conv(x, shortcut, relu)  # `norm` is folded into it
        return y
    y = norm(conv(x))
    alone = not (watched(conv) or watched(norm) or _has_any_global_hook())  # type: ignore[no-untyped-call]
    if shortcut is not None:
        y = y.add_(shortcut) if alone and y.dtype == shortcut.dtype else y + shortcut
    return F.relu(y, inplace=alone) if relu else y


class FastBottleneck(Bottleneck):
    """:class:`Bottleneck` with each convolution and its batch normalisation in one."""

    def forward(self, x: Float[Tensor, "N C T H W"]) -> Float[Tensor, "N D T h w"]:
        y = conv_norm(x, self.conv1, self.bn1)
        y = conv_norm(y, self.conv2, self.bn2)
        return conv_norm(y, self.conv3, self.bn3, shortcut=self.downsample(x))


class FastVideoResNet(VideoResNet):
    """:class:`VideoResNet` with fast kernels from the start."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        use_kernels(self)

    def stem(self, clip: Float[Tensor, "N 3 T H W"]) -> Float[Tensor, "N D t h w"]:
        return conv_norm(channels_last(clip), self.conv1, self.bn1)


class FastNonLocalBlock(NonLocalBlock):
    """:class:`NonLocalBlock` by the cheapest exact form of Eq. (1), see :mod:`nl_lightning.models.forms`."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        use_kernels(self)

    def forward(self, x: Float[Tensor, "N C *positions"]) -> Float[Tensor, "N C *positions"]:
        if any(map(watched, self.children())):
            return super().forward(x)  # whoever watches wants every map
        self.check(x)
        theta, phi, g = map(self.sets, self.embed(x))  # (N, S, Q, C/2), (N, S, K, C/2), (N, S, K, C/2)
        form = form_of(self.instantiation, theta.shape, phi.shape, x.device.type, is_half(x))
        y = self.unite(self._mean(form, theta, phi, g), x)  # (N, C/2, T, H, W)
        return conv_norm(y, self.W_z, self.bn, shortcut=x, relu=False)

    def _mean(self, form: Form, theta: Tensor, phi: Tensor, g: Tensor) -> Float[Tensor, "N S Q D"]:
        """y of Eq. (1) in a form."""
        if form == "attention":
            return attention(theta, phi, g, self.scale)
        if form == "associated":
            return associated(theta, phi, g)
        if form == "sorted":
            return sorted_average(theta, phi, g, self.w_f)
        return self.pairwise(theta, phi) @ g


FAST: dict[type[nn.Module], type[nn.Module]] = {
    nn.Conv3d: FastConv3d,
    Bottleneck: FastBottleneck,
    VideoResNet: FastVideoResNet,
    NonLocalBlock: FastNonLocalBlock,
}


# ------------------------------------------------------------------------------------------------------------ testing

NORMS = {
    Bottleneck: (("conv1", "bn1"), ("conv2", "bn2"), ("conv3", "bn3")),
    nn.Sequential: (("0", "1"),),  # the shortcut of a stage
    VideoResNet: (("conv1", "bn1"),),
    NonLocalBlock: (("W_z", "bn"), ("theta", ""), ("phi", ""), ("g", "")),
}
"""By class, the convolutions and the norm that follows each, if one does."""


def for_testing(module: M) -> M:
    """A copy in evaluation mode that has BN folded into the convolutions before it, to be called without gradient.

    It doesn't follow the module: make one when testing starts, and drop it after. Watched layers stay as they are.
    1.2 to 1.8 times as long without it: a test pass of one clip of C2D.
    """
    made = copy.deepcopy(a_module(module)).eval().requires_grad_(False)
    for part in list(made.modules()):
        for kind, pairs in NORMS.items():
            for conv, norm in pairs if isinstance(part, kind) else ():
                _fold(part, conv, norm)
    return made


def _fold(part: nn.Module, conv_name: str, norm_name: str) -> None:
    conv, norm = getattr(part, conv_name, None), getattr(part, norm_name, nn.Identity())
    if type(conv) is not FastConv3d or watched(conv) or watched(norm):
        return
    if type(norm) is nn.BatchNorm3d and norm.track_running_stats:  # no subclass: it may hold an inserted block
        conv = fuse_conv_bn_eval(conv, norm)
    elif type(norm) is Affine:
        zeros, ones = torch.zeros_like(norm.bias), torch.ones_like(norm.bias)
        conv.weight, conv.bias = fuse_conv_bn_weights(conv.weight, conv.bias, zeros, ones, 0.0, norm.weight, norm.bias)
    elif type(norm) is not nn.Identity:
        return
    conv.__class__ = OnePassConv3d
    cast(OnePassConv3d, conv).packed = {}
    setattr(part, conv_name, conv)
    if norm_name:
        setattr(part, norm_name, nn.Identity())


class OnePassConv3d(FastConv3d):
    """A convolution that adds a shortcut and does a ReLU on its way out; its weight doesn't change any more.

    oneDNN, the library by which torch convolves on a CPU, can do both while the output is still in the caches. The
    operator is the one that torch.compile calls, with a weight that is laid out once. 1.1 to 1.6 times: a test pass of
    one clip.
    """

    packed: dict[torch.dtype, tuple[Tensor, Tensor | None]]

    def __getstate__(self) -> dict[str, Any]:  # oneDNN's tensors can be neither copied nor pickled
        return {**self.__dict__, "packed": {}}

    def forward(self, x: Tensor, shortcut: Tensor | None = None, relu: bool = False) -> Tensor:
        dtype = product_dtype(x)
        mixed = shortcut is not None and shortcut.dtype != dtype
        if mixed or torch.is_grad_enabled() or torch.compiler.is_compiling() or not has_one_pass(x.device.type, dtype):
            y = super().forward(x)
            y = y if shortcut is None else y + shortcut
            return F.relu(y) if relu else y
        fold, stride, padding = self.fold()
        x = self.kept_frames(x).to(dtype)
        geometry = padding, stride, [1] * len(stride), 1
        if dtype not in self.packed:
            kernel = fold.kernel(self.weight).to(dtype)
            packed = torch.ops.mkldnn._reorder_convolution_weight(kernel, *geometry, list(fold.image(x).shape))
            self.packed[dtype] = packed, None if self.bias is None else self.bias.to(dtype)
        weight, bias = self.packed[dtype]
        operator = torch.ops.mkldnn._convolution_pointwise
        if shortcut is None:
            # oneDNN's own ReLU makes 0 of NaN. This one doesn't, and 1e-20 of a number is as good as 0.
            after = ("leaky_relu", [1e-20], "") if relu else ("none", [], "")
            return fold.back(operator(fold.image(x), weight, bias, *geometry, *after), x)
        operands = fold.image(x), fold.image(shortcut), weight, bias
        y = fold.back(operator.binary(*operands, *geometry, "add", 1.0, None, [], None), x)
        return y.relu_() if relu else y


@functools.cache
def has_one_pass(device: str, dtype: torch.dtype) -> bool:
    """Whether the operators of :class:`OnePassConv3d` are there for a type of device and a precision."""
    names = ("_convolution_pointwise", "_reorder_convolution_weight", "_is_mkldnn_bf16_supported")
    if device != "cpu" or not torch._C._has_mkldnn:
        return False
    if not all(hasattr(torch.ops.mkldnn, name) for name in names):
        return False
    return dtype == torch.float32 or (dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported())
