"""Reading files of others without running anything that is in them."""

import hashlib
import pickle
import re
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch

from nl_lightning.errors import UserError

OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What files of PyTorch before 1.6 start with: a pickled magic number."""


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
        if asked := re.search(r"(?:GLOBAL|class) ([\w.]+\.\w+)", str(error)):
            raise UserError(
                f"{path}: refused: reading it would run {asked[1]}; only tensors and plain containers are read"
            ) from None
        reason = " ".join(str(error).split())[:200] if isinstance(error, pickle.UnpicklingError | RuntimeError) else ""
        raise UserError(
            f"{path} can't be read as a file of PyTorch ({type(error).__name__}{': ' if reason else ''}{reason}): "
            "is it whole?"
        ) from None


def read_pickle(path: Path) -> Any:
    """What a plain pickle holds, of Python 2 too: arrays, as tensors, and plain containers, and nothing else.

    Raises:
        UserError: the file is no pickle, is truncated, or asks for something else (which it names).
    """
    try:
        with path.open("rb") as file:
            return _tensors(_ArraysOnly(file, path).load())
    except UserError:
        raise
    except Exception as error:  # the unpickler of a broken file can raise anything
        raise UserError(f"{path} can't be read as a pickle ({type(error).__name__}): is it whole?") from None


def _tensors(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _tensors(value) for key, value in content.items()}
    if isinstance(content, np.ndarray) and content.dtype.kind in "fiu":
        return torch.from_numpy(np.array(content, content.dtype.newbyteorder("=")))
    return content


class _ArraysOnly(pickle.Unpickler):
    """Knows numpy's arrays and plain containers, and refuses everything else by name."""

    CORES = ("numpy.core.multiarray", "numpy._core.multiarray")
    ALLOWED = frozenset({
        ("numpy", "ndarray"), ("numpy", "dtype"), ("collections", "OrderedDict"), ("_codecs", "encode"),
        *((core, name) for core in CORES for name in ("_reconstruct", "scalar")),
    })  # fmt: skip

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="latin1")  # Python 2's texts, and the bytes of its arrays
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.ALLOWED:
            raise UserError(
                f"{self.path}: refused: reading it would run {module}.{name}; "
                "only numpy's arrays and plain containers are read"
            )
        return super().find_class("numpy._core.multiarray" if module in self.CORES else module, name)


def read_others(path: Path) -> Any:
    """The content of a file of PyTorch or of a pickle, whichever it is. UserError as those two say."""
    try:
        with path.open("rb") as file:
            head = file.read(16)
    except OSError as error:
        raise UserError(f"there is no file {path}" if not path.exists() else f"{path}: {error.strerror}") from None
    if head.startswith((b"PK", OLD_TORCH)):
        return read_torch(path)
    if head.startswith((b"\x80", b"(", b"}")):  # protocols 2 and up, and 0
        return read_pickle(path)
    raise UserError(f"{path} is neither a file of PyTorch nor a pickle")


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits. UserError if it can't be read."""
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise UserError(f"{path}: can't be read: {error.strerror}") from None
