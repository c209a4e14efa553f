"""A single non-local block in a weight file of its own: for who puts it into another network."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

import safetensors.torch
from safetensors import SafetensorError, safe_open

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Conventions, Instantiation
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.study.records import write_atomically

FORMAT = "nl-lightning block 1"


@dataclass(frozen=True)
class BlockSettings:
    """What a block is: its input has `dimensions` beside the batch and the channels; `norm` comes after W_z."""

    channels: int
    instantiation: Instantiation
    subsample: bool
    dimensions: int
    norm: Literal["batch", "none"]

    def block(self) -> NonLocalBlock:
        """A new block; its keys are pooled after their convolutions, as in the paper."""
        conventions = Conventions("paper", nonlocal_norm=self.norm)
        return NonLocalBlock(
            self.channels,
            self.instantiation,
            subsample=self.subsample,
            dimensions=self.dimensions,
            conventions=conventions,
        )

    def __str__(self) -> str:
        pooled = "subsampled" if self.subsample else "not subsampled"
        norm = "BN" if self.norm == "batch" else "no BN"
        return (
            f"{self.dimensions}-D block of {self.channels} channels, {self.instantiation}, {pooled}, {norm} after W_z"
        )


def save_block(path: Path, block: NonLocalBlock, settings: BlockSettings) -> None:
    """Write a block's tensors and its settings, whole or not at all."""
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in block.state_dict().items()}
    header = {"format": FORMAT, "nl_lightning": json.dumps(asdict(settings))}
    write_atomically(path, safetensors.torch.save(tensors, header))


def load_block(path: Path) -> NonLocalBlock:
    """The block of a file, in eval mode. UserError if the file isn't a block's, or is broken."""
    try:
        with safe_open(path, framework="pt") as file:
            said = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
        if said.get("format") != FORMAT:
            raise ValueError("it holds no block alone")
        block = BlockSettings(**json.loads(said["nl_lightning"])).block()
        block.load_state_dict(tensors)
    except (SafetensorError, OSError, ValueError, TypeError, KeyError, RuntimeError) as error:
        raise UserError(f"{path}: not a block's weight file: {' '.join(str(error).split())}") from None
    return block.eval()
