"""``nl-lightning weights export``: our weight file -> one of the released code, or of PySlowFast.

A file is only written if reading it back gives this very network: conventions that the other side doesn't have are
refused by name.
"""

import io
import struct
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import yaml
from torch import Tensor

from nl_lightning.errors import UserError, say
from nl_lightning.models.conventions import STAGES
from nl_lightning.study.files import write_output
from nl_lightning.weights import slowfast
from nl_lightning.weights.file import InputSettings, WeightsHeader, differences, read_weights
from nl_lightning.weights.importing import translate
from nl_lightning.weights.source import CLIPS, Source, variant_words
from nl_lightning.weights.sources import AFFINE_RATE, CAFFE2, FINE_TUNING_RATE, SLOWFAST
from nl_lightning.weights.wrappers import unwrapped

Target = Literal["caffe2", "slowfast"]
SUFFIXES = {"caffe2": ".pkl", "slowfast": ".pyth"}


def export_weights(path: Path, out: Path, to: Target) -> int:
    """Write the weights of our file `path` to `out`, as the code `to` names them; return how many tensors.

    UserError if `path` can't be read, or `to` has no network that computes the same.
    """
    if out.suffix != SUFFIXES[to]:
        raise UserError(f"--out: expected a name that ends in {SUFFIXES[to]}, not {out.name}")
    tensors, header = read_weights(path)
    if out.exists() and out.samefile(path):
        raise UserError(f"{out} is the file to export itself: name another one with --out")
    kind = CAFFE2 if to == "caffe2" else SLOWFAST
    if header.net.control is not None:
        raise UserError(f"{kind.name} has no control networks, such as this one with {header.net.control.kind}")
    if (least := header.net.min_channels) > 1:
        raise UserError(f"{kind.name} has no network whose layers have at least {least} channels each (min_channels)")
    theirs = _renamed(tensors, kind)
    beside: dict[str, Any]
    if to == "caffe2":  # the released code asks for a learning rate, and tells files with folded BN by it
        affine = header.net.conventions.rules.norm == "affine"
        beside = {"lr": torch.tensor([AFFINE_RATE if affine else FINE_TUNING_RATE])}
    else:
        beside = {"cfg": yaml.safe_dump(_configuration(header))}
    read_back = _read_back(theirs, beside, header, kind)
    if differ := differences(read_back.net, header.net):
        raise UserError(f"{kind.name} has no network that computes this: {'; '.join(differ)}")
    if lost := _lost(header.input, read_back.input):
        say(f"files of {kind.name} can't hold these settings, and read back as others: {', '.join(lost)}")
    if to == "caffe2":
        blobs = {name: tensor.numpy() for name, tensor in (theirs | beside).items()}
        write_output(out, python2_pickle(blobs))
    else:
        content = io.BytesIO()
        torch.save({"model_state": theirs, **beside}, content)
        write_output(out, content.getvalue())
    return len(theirs)


def _renamed(tensors: Mapping[str, Tensor], kind: Source) -> dict[str, Tensor]:
    # BN's count of batches, which nothing reads and Caffe2 doesn't have.
    kept = [name for name in tensors if kind is not CAFFE2 or not name.endswith(".num_batches_tracked")]
    named = {name: kind.names.theirs(name) for name in kept}
    if unknown := sorted(name for name, theirs in named.items() if theirs is None):
        raise UserError(f"{kind.name} has no name for {unknown[0]}")
    return {theirs: tensors[name] for name, theirs in named.items() if theirs is not None}


def _configuration(header: WeightsHeader) -> dict[str, Any]:
    """The part of PySlowFast's configuration that says which network it is."""
    net, blocks = header.net, header.net.non_local
    arch = ("c2d" if net.inflate == "none" else "i3d") if net.temporal_strides[2] == 2 else "slow_i3d"
    more: dict[str, Any] = {
        "MODEL.ARCH": arch,
        "MODEL.NUM_CLASSES": net.num_classes,
        "RESNET.DEPTH": net.depth,
        "RESNET.SPATIAL_STRIDES": [[stride] for stride in net.spatial_strides[2:]],
    }
    if blocks is not None:
        spelled = {ours: theirs for theirs, ours in slowfast.INSTANTIATIONS.items()}
        pool = [1, 2, 2] if blocks.subsample else [1, 1, 1]
        more |= {
            "NONLOCAL.LOCATION": [[blocks.placement.get(stage, [])] for stage in STAGES],
            "NONLOCAL.INSTANTIATION": spelled.get(blocks.instantiation, blocks.instantiation),
            "NONLOCAL.POOL": [[pool] for _ in STAGES],
        }
    return slowfast.configuration(header.input, more)


def _read_back(
    theirs: Mapping[str, Tensor], beside: Mapping[str, Any], header: WeightsHeader, kind: Source
) -> WeightsHeader:
    """The header that an import of what is written would give. UserError if there can be none."""
    seen, blocks = header.input, header.net.non_local
    clip = f"{seen.num_frames}x{seen.frame_stride}"
    if kind is CAFFE2 and clip not in CLIPS:
        raise UserError(f"caffe2 has no network for clips of {clip}, only for {', '.join(CLIPS)}")
    if blocks is not None and blocks.instantiation not in slowfast.INSTANTIATIONS.values():
        raise UserError(f"{kind.name} has no {blocks.instantiation} blocks")
    words = variant_words(f"{clip} {blocks.instantiation if blocks else ''}")
    return translate(unwrapped({"model_state": dict(theirs), **beside}), words, kind.name).header


def _lost(ours: InputSettings, back: InputSettings) -> list[str]:
    """The settings that are read back as others, a few words each; colours may differ by rounding."""
    lost = []
    for name, was in vars(ours).items():
        now = getattr(back, name)
        if was != now and not (isinstance(was, tuple) and np.allclose(was, now, rtol=1e-6, atol=0)):
            lost.append(f"{name} {was} ({now})")
    return lost


def python2_pickle(blobs: Mapping[str, Any]) -> bytes:
    """``{'blobs': blobs}`` as Python 2's pickle of protocol 2 has it, with the names of numpy's modules of its time."""
    entries = b"".join(_text(name) + _array(np.asarray(array, "<f4")) + b"s" for name, array in blobs.items())
    return b"\x80\x02}" + _text("blobs") + b"}" + entries + b"s."


def _text(text: str | bytes) -> bytes:
    raw = text.encode() if isinstance(text, str) else text
    return b"T" + struct.pack("<i", len(raw)) + raw


def _array(array: np.ndarray[Any, np.dtype[np.float32]]) -> bytes:
    """What numpy of Python 2 pickles: an empty array, then its state: version, shape, type, order of axes, bytes."""
    empty = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + _text("b") + b"\x87R"
    shape = b"(" + b"".join(b"J" + struct.pack("<i", size) for size in array.shape) + b"t"
    kind = b"cnumpy\ndtype\n" + _text("f4") + b"K\x00K\x01\x87R"
    kind += b"(K\x03" + _text("<") + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    return empty + b"(K\x01" + shape + kind + b"\x89" + _text(array.tobytes()) + b"tb"
