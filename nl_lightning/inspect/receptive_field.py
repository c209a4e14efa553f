"""``nl-lightning reach``: which positions of a clip can move one position of res5, network by network.

The paper's argument in one figure: convolutions reach what is near, and far places only through many layers, in which
their influence fades; a non-local block reaches all of them at once. What is drawn is the gradient of a feature of
res5 with respect to the clip.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nl_lightning.errors import UserError
from nl_lightning.inspect.figures import Map, draw_reach, save
from nl_lightning.models.complexity import check_clip
from nl_lightning.models.conventions import Triple
from nl_lightning.models.fast import channels_last
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.models.resnet import VideoResNet
from nl_lightning.study.recipe import Recipe
from nl_lightning.study.run import plan
from nl_lightning.study.study import Study, Variant
from nl_lightning.train.lightning_cli import network
from nl_lightning.weights.file import fingerprint, load_weights

CLIPS = 4  # of noise, that a gradient is the mean over: in one, ReLUs and max pools hide some of the paths
TRAINED = f"trained networks; mean over {CLIPS} clips of noise"
UNTRAINED = "untrained; branches that start at zero have been opened: what a network could use, not what it does"


def open_branches(net: VideoResNet) -> None:
    """Let every branch that starts at zero add something: scales of BN become 1, and a W_z is drawn.

    Non-local blocks start as the identity, and with some conventions residual blocks do: an untrained network would
    show the reach of its shortcuts only.
    """
    for module in net.modules():
        if isinstance(module, nn.BatchNorm3d) and not module.weight.any():
            nn.init.ones_(module.weight)
        if isinstance(module, NonLocalBlock) and not module.W_z.weight.any():
            nn.init.kaiming_normal_(module.W_z.weight)


def gradient(net: VideoResNet, clip: Triple, generator: torch.Generator) -> Float[Tensor, "T H W"]:
    """How much each position of a clip of (T, H, W) moves the centre of res5, before global pooling.

    The feature is the sum of the channels there; the gradient's absolute value is summed over colours and averaged
    over :data:`CLIPS` clips of normalised noise.
    """
    net = net.eval()
    total = torch.zeros(clip)
    for _ in range(CLIPS):
        noise = channels_last(torch.randn(1, 3, *clip, generator=generator)).requires_grad_()
        features = net.features(noise)
        t, h, w = (size // 2 for size in features.shape[2:])
        (moved,) = torch.autograd.grad(features[0, :, t, h, w].sum(), noise)
        total += moved[0].abs().sum(dim=0)
    return total / CLIPS


def reach(study: Study, recipe: Recipe, names: Sequence[str], out: Path) -> list[str]:
    """Draw the reach of variants (:func:`side_by_side` if none are named), untrained; return what to say.

    UserError if there is no such variant, or the variants' clips differ in length.
    """
    chosen, of = list(dict.fromkeys(names)) or side_by_side(study), ""
    runs = {run.variant.name: run for run in plan(study, recipe, [0], out, None, chosen, parents=False)}
    fields: dict[str, Map] = {}
    for name in chosen:
        torch.manual_seed(0)
        net, clip = network(runs[name])
        open_branches(net)
        of += _add(fields, name, net, clip)
    return _drawn(fields, UNTRAINED, out / f"reach_{recipe.name}", of)


def reach_of_weights(files: Sequence[Path], out: Path) -> list[str]:
    """Draw the reach of trained networks; return what to say. UserError if one can't be read, or two share a name."""
    fields, of = dict[str, Map](), ""
    for file in files:
        if file.stem in fields:
            raise UserError(f"--weights: two files are called {file.stem}, and could not be told apart")
        net, header = load_weights(file)
        seen = header.input
        side = seen.test_short_side if seen.test_crop == "whole" else seen.test_crop
        of += _add(fields, file.stem, net, (seen.num_frames, side, side))
    return _drawn(fields, TRAINED, out / f"reach_{'_'.join(fields)}", of)


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


def _add(fields: dict[str, Map], name: str, net: VideoResNet, clip: Triple) -> str:
    """Add a network's gradient; return what tells it. UserError if its clip is of another size than the others'."""
    for other, field in fields.items():
        if field.shape != clip:
            sizes = ", ".join(f"{who} {'x'.join(map(str, size))}" for who, size in ((other, field.shape), (name, clip)))
            raise UserError(f"reach: clips of different sizes can't be drawn side by side: {sizes}")
    check_clip(net.config, clip)
    fields[name] = gradient(net, clip, torch.Generator().manual_seed(0)).numpy()
    return fingerprint(net)


def _drawn(fields: Mapping[str, Map], state: str, path: Path, of: str) -> list[str]:
    shares = {name: 100 * np.count_nonzero(field) / field.size for name, field in fields.items()}
    said = [f"{name}: {share:.1f} % of the clip's positions" for name, share in shares.items()]
    return [*said, state, *map(str, save(draw_reach(fields, state), path, of))]
