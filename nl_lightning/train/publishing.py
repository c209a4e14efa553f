"""``nl-lightning weights publish``: the networks of finished runs as weight files that others can take away."""

from pathlib import Path

from nl_lightning.errors import UserError
from nl_lightning.models.complexity import block_costs
from nl_lightning.study.records import record_in_place
from nl_lightning.study.run import Run
from nl_lightning.train.evidence import weights
from nl_lightning.weights.file import network_in, read_header
from nl_lightning.weights.importing import import_weights
from nl_lightning.weights.safe import read_torch


def blocks_of(file: Path) -> list[tuple[str, str, str]]:
    """The blocks of a published network, by the map that they see: its size, their names, what they sum over.

    Where whole frames are tested, the size is that of square ones.
    """
    header = read_header(file)
    seen, non_local = header.input, header.net.non_local
    side = int(seen.test_short_side if seen.test_crop == "whole" else seen.test_crop)
    by_map: dict[str, list[str]] = {}
    for one in block_costs(header.net, (seen.num_frames, side, side)):
        by_map.setdefault(" x ".join(map(str, one.map)), []).append(one.name)
    return [(size, ", ".join(names), non_local.sum_over if non_local else "") for size, names in by_map.items()]


def publish(run: Run, folder: Path) -> Path:
    """Write the network that a run tested to ``VARIANT.safetensors`` in `folder`, and return that file.

    UserError if the run has no record or no checkpoint, or the checkpoint does not hold what was tested.
    """
    record = record_in_place(run.results, run.base.name, run.variant.name, run.seed)
    if not run.checkpoint.is_file():
        raise UserError(f"{run.name}: there is no checkpoint at {run.checkpoint}; publish where it was trained")
    tested = record.evidence.weights if record.evidence else ""
    if weights(network_in(read_torch(run.checkpoint), str(run.checkpoint))) != tested:
        raise UserError(f"{run.name}: {run.checkpoint} is not the network that its record was measured with")
    out = folder / f"{run.variant.name}.safetensors"
    import_weights(run.checkpoint, out)
    return out
