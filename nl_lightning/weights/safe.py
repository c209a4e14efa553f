"""Reading files of others: nothing that is in them runs, and none of them takes more memory than its size allows."""

import hashlib
import itertools
import math
import pickle
import pickletools
import re
import warnings
import zipfile
from collections import OrderedDict
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any, NoReturn

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from nl_lightning.errors import UserError, one_line
from nl_lightning.study.files import size_of

OLD_TORCH = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."
"""What files of PyTorch before 1.6 start with: a pickled magic number."""


PICKLED = (b"\x80", b"(", b"}")
"""What plain pickles start with: those of protocols 2 and up, and of 0."""

OPERATIONS = {operation.code: operation for operation in pickletools.opcodes}

MEMO = ("PUT", "BINPUT", "LONG_BINPUT")
"""Operations of a pickle that give a value a number."""
MOST_PICKLED = 16 << 20
"""Bytes of the pickle in a file of PyTorch, which has everything but the tensors' numbers. A checkpoint has 1 MB."""
MOST_VALUES = 1_000_000
"""Values that a file may hold, a shared one counted wherever it occurs; our largest checkpoint has 20,000."""
SLACK = 64 << 20
"""Bytes that all tensors may take beyond four times their file's size: views of one another are stored once."""
DEPTH = 60
"""Levels of containers within each other."""


def read_torch(path: Path) -> Any:
    """What ``torch.save`` wrote: tensors and plain containers, and nothing else.

    UserError if the file is missing, truncated, no file of PyTorch, asks for something else (which it names), or would
    need far more memory than its size.
    """
    size = size_of(path, "there is no file")
    try:
        _check_kind(path, size)
        with warnings.catch_warnings(action="ignore"):  # of the pickle's protocol
            content = torch.load(path, map_location="cpu", weights_only=True)
    except UserError:
        raise
    except Exception as error:  # the reader of a broken file can raise anything
        if asked := re.search(r"(?:GLOBAL|class) ([\w.]+\.\w+)", str(error)):
            raise UserError(
                f"{path}: refused: reading it would run {asked[1]}; only tensors and plain containers are read"
            ) from None
        raise UserError(f"{path} can't be read as a file of PyTorch ({_reason(error)}): is it whole?") from None
    weigh(content, path, size)
    return content


def _check_kind(path: Path, size: int) -> None:
    """UserError if a file is none of PyTorch, or if its parts would be larger than itself; a broken one raises more."""
    with path.open("rb") as file:
        head = file.read(len(OLD_TORCH))
        file.seek(0)
        if head == OLD_TORCH:
            for _ in range(5):  # pickles: what it starts with, two of the format, the content, the tensors' names
                _check_operations(file, path)
            return
    if not head.startswith(b"PK"):
        if head.startswith(PICKLED):
            read_pickle(path)  # which names what it would run
        raise UserError(f"{path} is no file of PyTorch")
    with zipfile.ZipFile(path) as archive:
        parts = archive.infolist()
    pickled = max((part.file_size for part in parts if part.filename.endswith("data.pkl")), default=0)
    if sum(part.file_size for part in parts) > size or pickled > MOST_PICKLED:
        raise UserError(f"{path}: refused: its parts are larger than a file of PyTorch has them")


def _reason(error: Exception) -> str:
    """The kind of an error, and what it says if that is of use."""
    said = one_line(error, 200)
    useful = isinstance(error, pickle.UnpicklingError | RuntimeError | zipfile.BadZipFile)
    return f"{type(error).__name__}: {said}" if said and useful else type(error).__name__


def weigh(content: Any, path: Path, size: int) -> None:
    """Refuse what is small as a file of `size` bytes and huge for whoever walks through it or copies it.

    UserError if containers lie too deep, hold too many values with shared ones counted again, or a tensor or an array
    is larger than the file, or all of them by far.
    """
    levels: list[Iterator[Any]] = [iter((content,))]
    values = asked = 0
    while levels:
        value = next(levels[-1], levels)
        if value is levels:  # the end of this level
            levels.pop()
            continue
        values += 1
        if values > MOST_VALUES or len(levels) > DEPTH:
            raise UserError(f"{path}: refused: it holds too many values within each other")
        if isinstance(value, dict):  # as all mappings that the readers make
            levels.append(itertools.chain(value.keys(), value.values()))
        elif isinstance(value, list | tuple | set | frozenset):
            levels.append(iter(value))
        elif isinstance(value, Tensor | np.ndarray):
            needed = math.prod(value.shape) * value.itemsize
            asked += needed
            if needed > size or asked > 4 * size + SLACK:
                raise UserError(f"{path}: refused: it asks for {asked} bytes of memory, and has {size}")


def read_pickle(path: Path) -> Any:
    """What a plain pickle holds, of Python 2 too: arrays, as tensors, and plain containers, and nothing else.

    UserError if the file is no pickle, is truncated, asks for something else (which it names), or would need far more
    memory than its size.
    """
    size = size_of(path, "there is no file")
    try:
        with path.open("rb") as file:
            _check_operations(file, path)
            file.seek(0)
            content = _ArraysOnly(file, path).load()
        weigh(content, path, size)
        return _tensors(content)
    except UserError:
        raise
    except Exception as error:  # the unpickler of a broken file can raise anything
        raise UserError(f"{path} can't be read as a pickle ({type(error).__name__}): is it whole?") from None


def _check_operations(file: IO[bytes], path: Path) -> None:
    """UserError if a pickle makes too many values: each takes one byte in it, and up to a hundred in memory.

    (``pickletools.genops`` can't decode the texts of Python 2.)
    """
    for _ in range(MOST_VALUES):
        code = file.read(1)
        operation = OPERATIONS[code.decode("latin1")]
        if operation.name in ("STRING", "UNICODE"):
            file.readline()
        elif operation.arg is not None:
            argument = operation.arg.reader(file)
            if operation.name in MEMO and int(argument) > MOST_VALUES:  # Python makes room for as many
                raise UserError(f"{path}: refused: it numbers more than {MOST_VALUES} values")
        if code == b".":
            return
    raise UserError(f"{path}: refused: it holds more than {MOST_VALUES} values")


def _tensors(content: Any) -> Any:
    if isinstance(content, dict):
        return {key: _tensors(value) for key, value in content.items()}
    if isinstance(content, np.ndarray) and content.dtype.kind in "fiu":
        return torch.from_numpy(np.array(content, content.dtype.newbyteorder("=")))
    return content


class _ArraysOnly(pickle.Unpickler):
    """Knows numpy's arrays and plain containers, and refuses everything else by name."""

    CORES = ("numpy.core.multiarray", "numpy._core.multiarray")

    def __init__(self, file: IO[bytes], path: Path) -> None:
        super().__init__(file, encoding="latin1")  # Python 2's texts, and the bytes of its arrays
        self.path = path
        self.known: dict[tuple[str, str], Any] = {
            ("numpy", "ndarray"): _Array,
            ("numpy", "dtype"): np.dtype,
            ("collections", "OrderedDict"): OrderedDict,
            ("_codecs", "encode"): _encoded,
            **{(core, "_reconstruct"): _empty for core in self.CORES},
            **{(core, "scalar"): _scalar for core in self.CORES},
        }

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self.known:
            raise UserError(
                f"{self.path}: refused: reading it would run {module}.{name}; "
                "only numpy's arrays and plain containers are read"
            )
        return self.known[module, name]


# In place of numpy's own: they make empty arrays only, which the pickle then fills with bytes that it has to hold.


class _Array:
    """Stands for ``numpy.ndarray``, which would make an array of any size."""

    def __new__(cls, *_: object) -> NoReturn:
        raise UserError("refused: it asks for an array without its numbers")


def _empty(kind: object, shape: object, _: object) -> np.ndarray[Any, Any]:
    if kind is not _Array or shape != (0,):
        raise UserError("refused: it asks for an array without its numbers")
    return np.ndarray((0,), "b")


def _scalar(dtype: np.dtype[Any], raw: bytes | str) -> Any:
    return np.frombuffer(raw.encode("latin1") if isinstance(raw, str) else raw, dtype, 1)[0].item()


def _encoded(text: str, encoding: str = "latin1") -> bytes:
    if encoding != "latin1":
        raise UserError(f"refused: it asks for the encoding {encoding!r}")
    return text.encode(encoding)


def read_others(path: Path) -> Any:
    """The content of a file of PyTorch, of safetensors or of a pickle, whichever it is. UserError as those say."""
    size_of(path, "there is no file")
    with path.open("rb") as file:
        head = file.read(16)
    if head.startswith((b"PK", OLD_TORCH)):
        return read_torch(path)
    if head[4:9] == b"\0\0\0\0{":  # behind the header's length
        return _read_safetensors(path)
    if head.startswith(PICKLED):
        return read_pickle(path)
    raise UserError(f"{path} is neither a file of PyTorch, nor of safetensors, nor a pickle")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file of others, by name. UserError if it isn't one, or is cut off, or is ours."""
    try:
        with safe_open(path, framework="pt") as file:
            if str((file.metadata() or {}).get("format")).startswith("nl-lightning"):
                raise UserError(f"{path} is a weight file of ours already: use it as it is")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - no mapping
    except UserError:
        raise
    except (SafetensorError, OSError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        raise UserError(f"{path} can't be read as a .safetensors file ({_reason(error)}): is it whole?") from None


def check_tensor(name: str, tensor: Tensor) -> Tensor:
    """The tensor, if it holds its numbers one by one in memory; UserError if it is sparse, quantized, or has none."""
    dense = tensor.layout == torch.strided and tensor.device.type == "cpu" and not tensor.is_quantized
    if not dense or tensor.is_complex():
        raise UserError(f"the tensor {name} is {tensor.layout}, {tensor.dtype}, on {tensor.device}: not plain numbers")
    return tensor.detach()


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
