"""The generated videos of the pipeline and the study: the recipe's own, or a few for a quick look."""

import getpass
import json
import tempfile
from pathlib import Path

from nl_lightning.data.longrange import LongRange

RECIPE = "longrange"
FEW = {"train": 66, "val": 11, "test": 22}


def arguments(quick: bool) -> list[str]:
    """What a quick look adds to a recipe's command line: its few videos are kept in the system's temporary folder."""
    if not quick:
        return []
    root = (
        Path(tempfile.gettempdir())
        / f"nl-lightning-{getpass.getuser()}"
        / f"longrange-{LongRange.version}-{sum(FEW.values())}"
    )
    return [f"--data.root={root}", f"--data.longrange={json.dumps(FEW)}"]
