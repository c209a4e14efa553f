"""Single non-local blocks: of AlexHex7/Non-local_pytorch and tea1528/Non-Local-NN-Pytorch, alone or within any network.

Checked against lib/non_local_*.py of the first and models/non_local.py of the second. Keys are pooled after their
convolution, or not at all; nothing is scaled; without `bn_layer` there is no BN after W_z. A block becomes a weight
file of its own, for who puts it into another network.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import safetensors.torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nl_lightning.errors import UserError, one_line, visible
from nl_lightning.models.conventions import Conventions, Instantiation
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.study.border import Positive, checked, parse_json
from nl_lightning.study.files import write_output
from nl_lightning.weights.file import checked_numbers, mismatches, some
from nl_lightning.weights.source import Names
from nl_lightning.weights.sources import NORM, TENSOR
from nl_lightning.weights.wrappers import State, cuts, prefixes

FORMAT = "nl-lightning block 1"
NAME = "alexhex7"
"""What ``--from`` calls such files."""
NAMES = Names(
    [
        ("{conv}.{tensor}", "{conv}.{tensor}"),
        ("{conv}.{tensor}", "{conv}.0.{tensor}"),  # then a pool, or a BN
        ("w_f", "concat_project.0.weight"),
        ("bn.{norm}", "W.1.{norm}"),
        ("W_z.{tensor}", "W_z.{tensor}"),  # tea1528's
        ("W_z.{tensor}", "W_z.0.{tensor}"),
        ("w_f", "W_f.0.weight"),
        ("bn.{norm}", "W_z.1.{norm}"),
    ],
    {"conv": {"theta": "theta", "phi": "phi", "g": "g", "W_z": "W"}, "tensor": TENSOR, "norm": NORM},
)


@dataclass(frozen=True)
class BlockSettings:
    """What a block is: its input has `dimensions` beside the batch and the channels; `norm` comes after W_z."""

    channels: Positive
    instantiation: Instantiation
    subsample: bool
    dimensions: Literal[1, 2, 3]
    norm: Literal["batch", "none"]

    def block(self) -> NonLocalBlock:
        """A new block; its keys are pooled after their convolutions, as in the paper."""
        more: dict[str, Any] = {"subsample": self.subsample, "dimensions": self.dimensions}
        conventions = Conventions("paper", nonlocal_norm=self.norm)
        return NonLocalBlock(self.channels, self.instantiation, **more, conventions=conventions)

    def __str__(self) -> str:
        pooled = "subsampled" if self.subsample else "not subsampled"
        norm = "BN" if self.norm == "batch" else "no BN"
        return (
            f"{self.dimensions}-D block of {self.channels} channels, {self.instantiation}, {pooled}, {norm} after W_z"
        )


def load_block(path: Path) -> NonLocalBlock:
    """The block of a file, in eval mode. UserError if the file isn't a block's, or is broken."""
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            tensors = checked_numbers({name: file.get_tensor(name) for name in file.keys()}, "its tensors")  # noqa: SIM118
        if said.get("format") != FORMAT:
            raise UserError("it holds no block alone")
        block = checked(BlockSettings, parse_json(said.get("nl_lightning", ""), "its header"), "its header").block()
        block.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError, RuntimeError) as error:
        raise UserError(f"{path}: not a block's weight file: {one_line(error)}") from None
    return block.eval()


def blocks_in(state: State) -> dict[str, dict[str, Tensor]]:
    """The tensors of each block in a network, by the prefix before their names; a block alone has the prefix ``''``."""
    found = prefixes((name for name in state.tensors if name.endswith(("g.weight", "g.0.weight"))), NAMES.ours)
    blocks: dict[str, dict[str, Tensor]] = {prefix: {} for prefix in sorted(found)}
    for name, tensor in state.tensors.items():
        for prefix in cuts(name):
            if prefix in blocks:
                blocks[prefix][name.removeprefix(prefix)] = tensor
    return blocks


def import_block(
    state: Mapping[str, Tensor], instantiation: Instantiation = "embedded_gaussian"
) -> tuple[NonLocalBlock, BlockSettings]:
    """The block of one of their state dicts, which is of one block alone, in eval mode, and its settings.

    `instantiation` is for a block with theta and no `concat_project`: ``embedded_gaussian`` or ``dot_product``, which
    have the same tensors. UserError if tensors are left over, missing or of another shape, which it names.
    """
    named = {name: NAMES.ours(name) for name in state}
    if left := sorted(name for name, ours in named.items() if ours is None):
        raise UserError(f"not one block of Non-local_pytorch alone: {len(left)} tensors are left over: {some(left)}")
    tensors = {ours: state[name].float() for name, ours in named.items() if ours is not None}
    g = tensors.get("g.weight")
    if g is None or not 3 <= g.ndim <= 5:
        raise UserError("not a block of Non-local_pytorch: it lacks g")
    if "w_f" in tensors:
        instantiation, tensors["w_f"] = "concatenation", tensors["w_f"].flatten()
    elif "theta.weight" not in tensors:
        instantiation = "gaussian"
    norm: Literal["batch", "none"] = "batch" if "bn.weight" in tensors else "none"
    dimensions: dict[int, Literal[1, 2, 3]] = {3: 1, 4: 2, 5: 3}
    settings = BlockSettings(g.shape[1], instantiation, "g.0.weight" in state, dimensions[g.ndim], norm)
    block = settings.block()
    ours = {name: tensor for name, tensor in block.state_dict().items() if name in tensors or "num_batches" not in name}
    if wrong := mismatches(ours, tensors):
        raise UserError(f"not the block of {g.shape[1]} channels that its g is of: {wrong}")
    block.load_state_dict(tensors, strict=False)
    return block.eval(), settings


def import_blocks(state: State, out: Path, instantiation: Instantiation | None) -> list[str]:
    """Write each block in a network to a file of its own: `out`, with the block's prefix before its suffix.

    Returns what was matched, a line each. UserError if there is no block, or if one isn't whole.
    """
    blocks = blocks_in(state)
    if not blocks:
        raise UserError("no block of Non-local_pytorch is in it: no names that end in g.weight or g.0.weight")
    at = {prefix: f"{visible(prefix.rstrip('.'))}: " if prefix else "" for prefix in blocks}
    made = {}
    for prefix, tensors in blocks.items():
        try:
            checked_numbers(tensors, "the block")
            made[prefix] = import_block(tensors, instantiation or "embedded_gaussian")
        except UserError as error:
            raise UserError(f"{at[prefix]}{error}") from None
    files = {prefix: out.with_suffix(f"{_in_a_name(prefix)}{out.suffix}") for prefix in made}
    if len(set(files.values())) < len(files):
        raise UserError(f"the blocks {some(sorted(files))} would be written to files of the same name")
    said = []
    for prefix, (block, settings) in made.items():
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in block.state_dict().items()}
        header = {"format": FORMAT, "nl_lightning": json.dumps(asdict(settings))}
        write_output(files[prefix], safetensors.torch.save(tensors, header))
        said.append(f"{NAME}: {at[prefix]}{settings}")
        said += [f"matched: {len(blocks[prefix])} tensors, all of the block's", f"written to {files[prefix]}"]
    if instantiation is None and any(each.instantiation == "embedded_gaussian" for _, each in made.values()):
        said.append("embedded_gaussian and dot_product have the same tensors: --variant=dot_product says the other")
    inside = {prefix + name for prefix, tensors in blocks.items() for name in tensors}
    if aside := sorted(state.tensors.keys() - inside):
        said.append(f"left aside: {len(aside)} tensors of the network around ({some(aside)})")
    return said


def _in_a_name(prefix: str) -> str:
    """A prefix as a part of a file's name, with a dot before it."""
    return f".{re.sub('[^A-Za-z0-9_.-]', '_', prefix).strip('.') or '_'}" if prefix else ""
