"""Single blocks of AlexHex7/Non-local_pytorch, of one, two or three dimensions -> :class:`NonLocalBlock`.

Its keys are pooled after their convolution, and nothing is scaled; without its `bn_layer` there is no BN after W_z.
"""

from collections.abc import Mapping
from typing import Literal

from torch import Tensor

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Instantiation
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.weights.block import BlockSettings
from nl_lightning.weights.file import mismatches, some
from nl_lightning.weights.names import Names
from nl_lightning.weights.source import NORM

NAMES = Names(
    [
        ("{conv}.{tensor}", "{conv}.{tensor}"),
        ("{conv}.{tensor}", "{conv}.0.{tensor}"),  # then a pool, or a BN
        ("w_f", "concat_project.0.weight"),
        ("bn.{norm}", "W.1.{norm}"),
    ],
    {
        "conv": {"theta": "theta", "phi": "phi", "g": "g", "W_z": "W"},
        "tensor": {"weight": "weight", "bias": "bias"},
        "norm": NORM,
    },
)


def is_block(state: Mapping[str, object]) -> bool:
    """Whether these are names of one of its blocks alone."""
    return "g.weight" in state or "g.0.weight" in state


def import_block(
    state: Mapping[str, Tensor], instantiation: Instantiation = "embedded_gaussian"
) -> tuple[NonLocalBlock, BlockSettings]:
    """The block of one of its state dicts, in eval mode, and its settings.

    Args:
        state: of one block alone.
        instantiation: for a block with theta and no `concat_project`: ``embedded_gaussian`` or ``dot_product``, which
            have the same tensors.

    Raises:
        UserError: tensors are left over, missing or of another shape, which it names.
    """
    named = {name: NAMES.ours(name) for name in state}
    if left := sorted(name for name, ours in named.items() if ours is None):
        raise UserError(f"not one block of Non-local_pytorch alone: {len(left)} tensors are left over: {some(left)}")
    tensors = {ours: state[name].float() for name, ours in named.items() if ours is not None}
    if "g.weight" not in tensors:
        raise UserError("not a block of Non-local_pytorch: it lacks g")
    if "w_f" in tensors:
        instantiation, tensors["w_f"] = "concatenation", tensors["w_f"].flatten()
    elif "theta.weight" not in tensors:
        instantiation = "gaussian"
    g = tensors["g.weight"]
    norm: Literal["batch", "none"] = "batch" if "bn.weight" in tensors else "none"
    settings = BlockSettings(g.shape[1], instantiation, "g.0.weight" in state, g.ndim - 2, norm)
    block = settings.block()
    ours = {name: tensor for name, tensor in block.state_dict().items() if name in tensors or "num_batches" not in name}
    shapes = [{name: tensor.shape for name, tensor in side.items()} for side in (ours, tensors)]
    if wrong := mismatches(*shapes):
        raise UserError(f"not the block of {g.shape[1]} channels that its g is of: {wrong}")
    block.load_state_dict(tensors, strict=False)
    return block.eval(), settings
