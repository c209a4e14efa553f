"""``nl-lightning test --weights W``, in words that LightningCLI knows."""

import argparse
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from nl_lightning.errors import UserError
from nl_lightning.weights.file import read_header

OF_THE_MODEL = ("mean", "std", "test_pool", "multi_label")
"""Input settings that are arguments of the classifier; the others are the data's."""
OF_THE_WEIGHTS = ("num_frames", "frame_stride")
"""What a network was trained on, which no recipe changes; how it is tested, a recipe may."""


def with_weights(arguments: Sequence[str]) -> list[str]:
    """`arguments` of a LightningCLI command (its name first), with ``--weights W`` replaced by all that W says.

    The file's way to test comes first, then recipes, then what the network is and sees, then all other arguments:
    later ones win. UserError if the file can't be used or the command is ``fit``.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--config", action="append", default=[])
    found, others = parser.parse_known_args(arguments[1:])
    if found.weights is None:
        return list(arguments)
    if arguments[0] == "fit":
        raise UserError("--weights is for test and validate; --model.init_from=W starts a training from a weight file")
    header = read_header(found.weights)
    words = {
        name: f"--{'model' if name in OF_THE_MODEL else 'data'}.{name}={_word(value)}"
        for name, value in asdict(header.input).items()
    }
    fixed = {name: words.pop(name) for name in (*OF_THE_WEIGHTS, "mean", "std", "multi_label")}
    network = json.dumps(json.loads(header.to_json())["net"])
    return [
        arguments[0],
        *words.values(),
        *(f"--config={recipe}" for recipe in found.config),
        f"--model.net={network}",
        f"--model.weights={found.weights}",
        *fixed.values(),
        *others,
    ]


def _word(value: Any) -> str:
    """Texts as they are, the rest as JSON."""
    return value if isinstance(value, str) else json.dumps(value)
