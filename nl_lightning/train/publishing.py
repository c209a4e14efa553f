"""``nl-lightning weights publish``: the networks of finished runs as weight files that others can take away."""

from pathlib import Path

from nl_lightning.errors import UserError
from nl_lightning.study.records import record_in_place
from nl_lightning.study.run import Run
from nl_lightning.train.evidence import weights
from nl_lightning.weights.file import network_in
from nl_lightning.weights.importing import import_weights
from nl_lightning.weights.safe import read_torch


def publish(run: Run, folder: Path) -> Path:
    """Write the network that a run tested to ``VARIANT.safetensors`` in `folder`, and return that file.

    Raises:
        UserError: the run has no record or no checkpoint, or the checkpoint does not hold what was tested.
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
