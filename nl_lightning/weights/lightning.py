"""Our own training checkpoints -> our weight file. They say what their network is; see :class:`VideoClassifier`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from nl_lightning.errors import UserError
from nl_lightning.weights.file import WeightsHeader, header_from_json

HEADER = "nl_lightning_header"
"""The key of a checkpoint that holds a :class:`WeightsHeader` in JSON."""


def is_checkpoint(content: object) -> bool:
    """Whether the content of a file of PyTorch is a training checkpoint of ours."""
    return isinstance(content, Mapping) and HEADER in content


def read_checkpoint(content: Mapping[str, Any], path: Path) -> tuple[dict[str, Tensor], WeightsHeader]:
    """The network's tensors and the header that the checkpoint holds. UserError if they can't be understood."""
    try:
        header = header_from_json(content[HEADER])
        state = content["state_dict"].items()
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise UserError(f"{path}: a checkpoint of another version: {error}") from None
    return {name.removeprefix("net."): tensor for name, tensor in state if name.startswith("net.")}, header
