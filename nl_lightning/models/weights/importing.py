"""``nl-lightning weights import``: a file of ours or of others -> our weight file."""

import dataclasses
from pathlib import Path

from nl_lightning.errors import UserError
from nl_lightning.models.weights.file import WeightsHeader, check_finite, save_weights
from nl_lightning.models.weights.lightning import is_checkpoint, read_checkpoint
from nl_lightning.models.weights.safe import read_torch, sha256


def import_weights(path: Path, out: Path) -> WeightsHeader:
    """Read the weights in `path`, write them to `out`, and return the header.

    Raises:
        UserError: the file can't be read, is of no known kind, or holds what is not a number.
    """
    content = read_torch(path)
    if not is_checkpoint(content):
        raise UserError(f"{path}: no training checkpoint of ours")
    tensors, header = read_checkpoint(content, path)
    check_finite(tensors, str(path))
    header = dataclasses.replace(header, source_sha256=sha256(path))
    save_weights(out, tensors, header)
    return header
