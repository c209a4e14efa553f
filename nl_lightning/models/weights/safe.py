"""Reading files of others without running anything that is in them."""

import hashlib
import pickle
import re
from pathlib import Path
from typing import Any

import torch

from nl_lightning.errors import UserError


def read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote: tensors and plain containers, and nothing else.

    Raises:
        UserError: the file is missing, truncated, no file of PyTorch, or asks for something else (which it names).
    """
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"there is no file {path}") from None
    except Exception as error:  # the reader of a broken file can raise anything
        if asked := re.search(r"Unsupported (?:global: GLOBAL|class) (\S+)", str(error)):
            raise UserError(
                f"{path}: refused: reading it would run {asked[1]}; only tensors and plain containers are read"
            ) from None
        reason = " ".join(str(error).split())[:200] if isinstance(error, pickle.UnpicklingError | RuntimeError) else ""
        raise UserError(
            f"{path} can't be read as a file of PyTorch ({type(error).__name__}{': ' if reason else ''}{reason}): "
            "is it whole?"
        ) from None


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits. UserError if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
