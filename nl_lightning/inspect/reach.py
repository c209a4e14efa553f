"""``nl-lightning reach``: which positions of a clip can move one position of res5, network by network.

The paper's argument in one figure: convolutions reach what is near, and far places only through many layers, in which
their influence fades; a non-local block reaches all of them at once.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from nl_lightning.errors import UserError
from nl_lightning.inspect.figures import Map, draw_reach, save
from nl_lightning.inspect.receptive_field import CLIPS, gradient, open_branches
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.run import plan
from nl_lightning.study.study import Study, Variant
from nl_lightning.train.lightning_cli import network
from nl_lightning.weights.file import InputSettings, load_weights

TRAINED = f"trained networks; mean over {CLIPS} clips of noise"
UNTRAINED = "untrained; branches that start at zero have been opened: what a network could use, not what it does"


def reach(study: Study, recipe: Recipe, names: Sequence[str], out: Path) -> list[str]:
    """Draw the reach of variants (:func:`side_by_side` if none are named), untrained; return what to say.

    Raises:
        UserError: there is no such variant, or the variants' clips differ in length.
    """
    chosen = list(names) or side_by_side(study)
    runs = {run.variant.name: run for run in plan(study, recipe, [0], out, None, chosen, parents=False)}
    fields = {}
    for name in chosen:
        torch.manual_seed(0)
        net, clip = network(runs[name])
        open_branches(net)
        fields[name] = gradient(net, clip, torch.Generator().manual_seed(0)).numpy()
    return _drawn(fields, UNTRAINED, out / f"reach_{recipe.name}")


def reach_of_weights(files: Sequence[Path], out: Path) -> list[str]:
    """Draw the reach of trained networks; return what to say. UserError if one can't be read, or two share a name."""
    fields: dict[str, Map] = {}
    for file in files:
        if file.stem in fields:
            raise UserError(f"--weights: two files are called {file.stem}, and could not be told apart")
        net, header = load_weights(file)
        fields[file.stem] = gradient(net, _clip(header.input), torch.Generator().manual_seed(0)).numpy()
    return _drawn(fields, TRAINED, out / f"reach_{'_'.join(fields)}")


def side_by_side(study: Study) -> list[str]:
    """C2D and I3D, each without and with the same non-local blocks: the first such four of a study.

    UserError if it has none.
    """
    for variant in study.variants.values():
        if variant.net.get("inflate", "none") == "none" or not variant.net.get("non_local"):
            continue
        four = [_like(study, variant, dropped) for dropped in (("inflate", "non_local"), ("inflate",), ("non_local",))]
        if None not in four:
            return [*(name for name in four if name is not None), variant.name]
    raise UserError(f"{study.path}: no C2D and I3D, each without and with the same blocks: name variants")


def _like(study: Study, variant: Variant, dropped: Sequence[str]) -> str | None:
    """The variant that differs from another only in what it lacks, if there is one."""
    wanted = {key: value for key, value in variant.net.items() if key not in dropped}
    like = (v.name for v in study.variants.values() if v.net == wanted and v.clip == variant.clip)
    return next(like, None)


def _clip(seen: InputSettings) -> tuple[int, int, int]:
    side = seen.test_short_side if seen.test_crop == "whole" else seen.test_crop
    return seen.num_frames, side, side


def _drawn(fields: Mapping[str, Map], state: str, path: Path) -> list[str]:
    if len({field.shape for field in fields.values()}) > 1:
        sizes = ", ".join(f"{name} {'x'.join(map(str, field.shape))}" for name, field in fields.items())
        raise UserError(f"reach: clips of different sizes can't be drawn side by side: {sizes}")
    said = [f"{name}: {_reached(field):.1f} % of the clip's positions" for name, field in fields.items()]
    return [*said, state, *map(str, save(draw_reach(fields, state), path))]


def _reached(field: Map) -> float:
    """The percentage of positions with a gradient that is not zero."""
    return 100 * float(np.count_nonzero(field)) / field.size
