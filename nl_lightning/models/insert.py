"""Non-local blocks put into any network, and taken out again.

A layer that gets a block keeps its place, its parts and the names of its tensors. Its class becomes a subclass that
calls the block after the layer's own forward pass, as torch's `fully_shard` and `parametrize` do it. So an old
checkpoint of the network still fits, and `torch.compile`, `torch.export`, DDP, `deepcopy` and `pickle` see an ordinary
module.
"""

import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.lazy import LazyModuleMixin
from torch.nn.parameter import is_lazy
from torch.utils._pytree import tree_map_only

from nl_lightning.errors import UserError, nearest, one_line
from nl_lightning.models.conventions import Conventions, Instantiation, SumOver
from nl_lightning.models.fast import FastNonLocalBlock, a_module

NetworkT = TypeVar("NetworkT", bound=nn.Module)


def insert_non_local(
    model: NetworkT,
    layers: str | Sequence[str],
    *,
    instantiation: Instantiation = "embedded_gaussian",
    sum_over: SumOver = "spacetime",
    subsample: bool = True,
    conventions: Conventions = Conventions(),  # noqa: B008 - frozen
    example: Any = None,
) -> NetworkT:
    """Put a non-local block (Eq. 6) after layers of a network.

    A new block returns its input unchanged until it learns. So the network's output stays the same to the bit.

    The tensors of a block are called ``LAYER.non_local.*``. All other names stay. An old checkpoint loads with
    ``strict=False``, and the ``missing_keys`` of `load_state_dict` are exactly the tensors of the new blocks. Create
    the optimizer after inserting, and insert before wrapping the network in DDP. Insert after
    `convert_sync_batchnorm`: it replaces BN layers, and a block right behind one would be lost.

    Args:
        model: any network. It is changed in place.
        layers: names of layers as in ``model.named_modules()``, such as ``layer3.4``. The output of a layer must be a
            map (N, C, L), (N, C, H, W) or (N, C, T, H, W).
        instantiation, sum_over, subsample: see :class:`NonLocalConfig`.
        conventions: where the paper and the released code differ. With a `nonlocal_gamma` other than 0, the output
            changes at once.
        example: an input of the network: a tensor, or a tuple or dict of arguments. The network runs on it once to see
            the shape of each layer's output. Without it, the last convolution or norm inside the layer tells the
            channels C and the number of dimensions.

    Returns:
        The same model.

    Raises:
        UserError: a layer is unknown, is named twice, or has a block already; its output is no map; its channels can't
            be told without an example; or the settings don't fit its dimensions. The network is unchanged then.
    """

    def make(channels: int, dimensions: int) -> nn.Module:
        return FastNonLocalBlock(channels, instantiation, sum_over, subsample, dimensions, conventions)

    return insert_after(model, layers, make, example)


def insert_after(
    model: NetworkT, layers: str | Sequence[str], make: Callable[[int, int], nn.Module], example: Any = None
) -> NetworkT:
    """:func:`insert_non_local` of any block: `make` makes one for the channels and dimensions of a layer's output."""
    if isinstance(model, nn.parallel.DistributedDataParallel):
        raise UserError("insert_non_local: insert the blocks before wrapping the network in DistributedDataParallel")
    if torch.is_inference_mode_enabled():
        raise UserError("insert_non_local: insert the blocks outside torch.inference_mode, or they can't be trained")
    names = [layers] if isinstance(layers, str) or not isinstance(layers, Iterable) else list(layers)
    if not all(isinstance(name, str) for name in names):
        raise UserError("layers: expected names as in model.named_modules(), such as 'layer3.4'")
    named = _named(a_module(model), names)
    outputs = {} if example is None else _dry_run(model, named, example)
    blocks = {}
    for name, layer in named.items():
        output = outputs.get(name)
        channels, dimensions = _told_by_parts(name, layer) if output is None else (output.shape[1], output.ndim - 2)
        try:
            block = make(channels, dimensions)
        except UserError as error:
            raise UserError(f"layer '{name}': {error}") from None
        blocks[name] = _like(block, layer, model)
        if output is not None:
            _try_out(name, blocks[name], output)
    for name, layer in named.items():
        layer.add_module("non_local", blocks[name])
        layer.__class__ = _with_block(type(layer))  # type: ignore[arg-type]
    return model


def remove_non_local(model: NetworkT) -> NetworkT:
    """Take out every block that :func:`insert_non_local` put in: the same modules and tensor names as before.

    Blocks that a network was built with, as those of :class:`VideoResNet`, stay.

    Raises:
        UserError: a layer's class was changed after the block was put in. The network is unchanged then.
    """
    layers = {name: layer for name, layer in a_module(model).named_modules() if isinstance(layer, _WithBlock)}
    for name, layer in layers.items():
        if type(layer) is not _with_block(layer.plain_class):  # type: ignore[arg-type]
            raise UserError(f"layer '{name}' was parametrised or wrapped after its block was inserted; undo that first")
    for layer in layers.values():
        del layer.non_local
        layer.__class__ = layer.plain_class  # type: ignore[assignment]
    return model


class _WithBlock(nn.Module):
    """What the class of a layer gets in front of it: the layer's own forward pass, then the block."""

    plain_class: type[nn.Module]
    non_local: nn.Module

    def forward(self, *args: Any, **kwargs: Any) -> Tensor:
        x = super().forward(*args, **kwargs)
        z: Tensor = self.non_local(x)
        # The last bits of a convolution that follows depend on how its input lies in memory: leave that as it was.
        return torch.empty_like(x).copy_(z)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        # The class exists at run time only: pickle and deepcopy make it again from the layer's own.
        return _empty, (self.plain_class,), self.__getstate__()  # type: ignore[no-untyped-call]


class _SequentialWithBlock(_WithBlock):
    """A Sequential runs the parts that it iterates over. The block comes after the whole forward pass instead."""

    def __iter__(self) -> Iterator[nn.Module]:
        return iter([part for name, part in self._modules.items() if name != "non_local" and part is not None])

    def __len__(self) -> int:
        return len(self._modules) - 1

    def __getitem__(self, index: Any) -> Any:
        return self._refuse() if isinstance(index, slice) else super().__getitem__(index)  # type: ignore[misc]

    def _refuse(self, *_: object) -> Any:
        raise UserError("this Sequential has a non-local block: remove_non_local first, then edit, slice or add it")

    __add__ = __radd__ = __iadd__ = __mul__ = __rmul__ = __imul__ = __delitem__ = append = insert = _refuse


@functools.cache
def _with_block(plain: type[nn.Module]) -> type[nn.Module]:
    """The subclass of a layer's class that calls a block at the end; always the same one."""
    first = _SequentialWithBlock if issubclass(plain, nn.Sequential) else _WithBlock
    return type(plain.__name__, (first, plain), {"plain_class": plain, "__module__": plain.__module__})


def _empty(plain: type[nn.Module]) -> nn.Module:
    made: type[nn.Module] = _with_block(plain)  # type: ignore[arg-type]
    return made.__new__(made)


def _named(model: nn.Module, names: Sequence[str]) -> dict[str, nn.Module]:
    """The layers of these names. UserError if one of them can't have a block."""
    known = {name: layer for name, layer in model.named_modules(remove_duplicate=False) if name}
    if not names:
        raise UserError(f"layers: expected the name of at least one layer{nearest('', known)}")
    found: dict[str, nn.Module] = {}
    for name in names:
        if name not in known:
            raise UserError(f"layer '{name}': the network has no such layer{nearest(name, known)}")
        layer = known[name]
        for other, earlier in found.items():
            if earlier is layer:
                also = "is named twice" if other == name else f"is the same module as '{other}'"
                raise UserError(f"layer '{name}' {also}; expected each layer once")
        if wrong := _unfit(layer):
            raise UserError(f"layer '{name}' {wrong}")
        found[name] = layer
    return found


def _unfit(layer: nn.Module) -> str:
    """Why a layer can't have a block, whatever its output is."""
    if isinstance(layer, _WithBlock):
        return "has a non-local block already; remove_non_local(model) takes it out"
    if isinstance(layer, torch.jit.ScriptModule | torch.fx.GraphModule):
        return "is compiled by TorchScript or traced by torch.fx; insert the blocks before that"
    if "forward" in vars(layer):
        return "has a forward pass that was put onto the instance; insert the blocks before that"
    if type(layer).forward is nn.Module.forward:
        parts = ", ".join(name for name, _ in layer.named_children())
        return f"is a {type(layer).__name__} without a forward pass; name one of its parts ({parts})"
    code = getattr(inspect.unwrap(type(layer).forward), "__code__", None)
    loops = code is not None and {"children", "named_children", "_modules"} & {*code.co_names}
    if loops or isinstance(layer, nn.ModuleList | nn.ModuleDict):
        return f"is a {type(layer).__name__}, which would run the block as one of its parts; name the last of them"
    if hasattr(layer, "non_local"):
        return "has a part called non_local, which is the name that a block would get"
    return ""


def _dry_run(model: nn.Module, layers: Mapping[str, nn.Module], example: Any) -> dict[str, Tensor]:
    """The output (N, C, ...) of each layer for the example. The network stays as it is, in its own mode."""
    outputs: dict[str, list[Any]] = {name: [] for name in layers}
    hooks = [
        layer.register_forward_hook(lambda _module, _args, output, name=name: outputs[name].append(output))
        for name, layer in layers.items()
    ]
    modes = {module: module.training for module in model.modules()}
    buffers = [(module, *named) for module in modes for named in module.named_buffers(recurse=False)]
    buffers = [(module, name, buffer) for module, name, buffer in buffers if not is_lazy(buffer)]
    try:
        with torch.no_grad(), torch.random.fork_rng():
            example = tree_map_only(Tensor, Tensor.clone, example)
            for module, name, buffer in buffers:
                setattr(module, name, buffer.clone())
            model.eval()
            if isinstance(example, Mapping):
                model(**example)
            else:
                model(*(example if isinstance(example, tuple | list) else (example,)))
    except Exception as error:
        raise UserError(f"example: the network can't run on it: {one_line(error)}") from error
    finally:
        for hook in hooks:
            hook.remove()
        for module, mode in modes.items():
            module.training = mode
        for module, name, buffer in buffers:
            setattr(module, name, buffer)
    return {name: _map_of(name, layers[name], calls) for name, calls in outputs.items()}


def _map_of(name: str, layer: nn.Module, calls: list[Any]) -> Tensor:
    """The one output of a layer. UserError if it isn't a map with channels first, or isn't the only one."""
    if len(calls) != 1:
        often = f"runs {len(calls)} times in" if calls else "is not called in"
        raise UserError(f"layer '{name}' {often} a forward pass; expected a layer that runs once")
    (output,) = calls
    if not isinstance(output, Tensor):
        said = f"a {type(output).__name__}"
    elif output.ndim not in (3, 4, 5) or not output.is_floating_point():
        said = f"{str(output.dtype).removeprefix('torch.')} {tuple(output.shape)}"
    elif _is_channels_last(layer, output):
        said = f"{tuple(output.shape)} with the channels last"
    else:
        return output
    raise UserError(f"layer '{name}': expected an output (N, C, ...) of 1 to 3 dimensions after C, got {said}")


def _is_channels_last(layer: nn.Module, output: Tensor) -> bool:
    """Whether the parts of a layer, as in a Transformer, say that its channels are the last axis and not the second."""
    last: int | None = None
    for part in layer.modules():
        if isinstance(part, _ConvNd | _NormBase) and _channels(part) == output.shape[1]:
            return False
        if isinstance(part, nn.LayerNorm):
            last = part.normalized_shape[-1]
        elif isinstance(part, nn.Linear):
            last = part.out_features
    return last == output.shape[-1]


def _channels(part: _ConvNd | _NormBase) -> int:
    return part.out_channels if isinstance(part, _ConvNd) else part.num_features


def _told_by_parts(name: str, layer: nn.Module) -> tuple[int, int]:
    """Channels and dimensions of a layer's output, as its last convolution or norm has them."""
    example = "give an example input: example=torch.zeros(1, 3, ...)"
    parts = [part for part in layer.modules() if isinstance(part, _ConvNd | _NormBase)]
    if any(isinstance(part, LazyModuleMixin) for part in layer.modules()):
        raise UserError(f"layer '{name}' is lazy and has no sizes yet; run the network once, or {example}")
    convs = [part for part in parts if isinstance(part, _ConvNd)]
    dimensions = len(convs[-1].kernel_size) if convs else _dimensions(parts[-1]) if parts else 0
    if not dimensions:
        raise UserError(f"layer '{name}': it has no convolution that tells its channels and dimensions; {example}")
    if convs and _channels(convs[-1]) != _channels(parts[-1]):
        counts = f"{_channels(convs[-1])} and {_channels(parts[-1])}"
        raise UserError(f"layer '{name}': its last convolution and norm have {counts} channels; {example}")
    return _channels(parts[-1]), dimensions


def _dimensions(norm: nn.Module) -> int:
    """Of the map that a norm is for; 0 if its class doesn't say."""
    kinds = (nn.BatchNorm1d | nn.InstanceNorm1d, nn.BatchNorm2d | nn.InstanceNorm2d, nn.BatchNorm3d | nn.InstanceNorm3d)
    return next((dimensions for dimensions, kind in enumerate(kinds, start=1) if isinstance(norm, kind)), 0)


def _like(block: nn.Module, layer: nn.Module, model: nn.Module) -> nn.Module:
    """The block on the device, in the precision and in the mode of its layer."""
    tensors = (t for module in (layer, model) for t in (*module.parameters(), *module.buffers()))
    if (like := next((t for t in tensors if t.is_floating_point()), None)) is not None:
        block = block.to(like.device, like.dtype)
    return block.train(layer.training)


def _try_out(name: str, block: nn.Module, output: Tensor) -> None:
    """UserError if the block can't take the layer's output, as a map of one pixel can't be subsampled."""
    mode = block.training
    try:
        with torch.no_grad():
            block.eval()(output)
    except (UserError, RuntimeError) as error:
        raise UserError(f"layer '{name}', output {tuple(output.shape)}: {one_line(error)}") from None
    finally:
        block.train(mode)
