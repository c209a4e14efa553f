"""The words of the paper that networks and studies share, and where the paper and the released code differ.

No torch here: looking at a study must be quick.

The paper is arXiv 1711.07971v3; the released code is its Caffe2 implementation. Which of the two made Table 2 is not
known; re-runs of the released code land within 0.3 points of it. ``Conventions(profile="paper")`` and
``Conventions(profile="release")`` set every switch; a switch that is given overrides its profile.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, get_args, get_type_hints

from nl_lightning.errors import UserError

Instantiation = Literal["gaussian", "embedded_gaussian", "dot_product", "concatenation"]
SumOver = Literal["space", "time", "spacetime"]
Inflate = Literal["none", "3x1x1", "3x3x3"]
Control = Literal["hidden", "average", "query_independent", "residual", "pixel"]
Kernels = Literal["fast", "definition"]
"""How Eq. (1) and the layers of Table 1 are computed: in fewer passes over memory, or as the paper writes them."""
Triple = tuple[int, int, int]
"""Sizes along T, H and W."""
INSTANTIATIONS: tuple[Instantiation, ...] = get_args(Instantiation)
SUM_OVER: tuple[SumOver, ...] = get_args(SumOver)
INFLATE: tuple[Inflate, ...] = get_args(Inflate)
CONTROLS: dict[Control, float] = {
    "hidden": 0.25, "average": 0.5, "query_independent": 0.5, "residual": 0.25, "pixel": 0.25,
}  # fmt: skip
"""The kinds of control, with the usual `hidden` of each."""

STAGES = ("res2", "res3", "res4", "res5")
BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
"""Residual blocks of each stage, by depth (Table 1)."""


def check_placement(depth: int, placement: Mapping[str, Sequence[object]], at: str = "placement") -> None:
    """UserError if a placement names what a ResNet of this depth doesn't have, or a residual block twice."""
    if not isinstance(placement, Mapping):
        raise UserError(f"{at}: expected stages with residual blocks, as {{'res4': [4]}}, not {placement!r}")
    for stage, after in placement.items():
        if stage not in STAGES:
            raise UserError(f"{at}: expected a stage of {', '.join(STAGES)}, not '{stage}'")
        blocks = BLOCKS[depth][STAGES.index(stage)]
        if not after or not isinstance(after, Sequence):
            said = repr(after) if after else "an empty list"
            raise UserError(f"{at}.{stage}: expected numbers of residual blocks, got {said}")
        for block in after:
            if isinstance(block, bool) or not isinstance(block, int) or not 0 <= block < blocks:
                known = f"{stage} of ResNet-{depth} has the residual blocks 0 to {blocks - 1}"
                raise UserError(f"{at}.{stage}: {known}, not {block!r}")
            if list(after).count(block) > 1:
                raise UserError(f"{at}.{stage}: residual block {block} is named twice")


@dataclass(frozen=True)
class ControlConfig:
    """What a network has in place of non-local blocks, to see what these buy. None of it is in the paper.

    Attributes:
        kind: ``hidden``: one hidden layer between global pooling and the classifier.
            ``average``: in the place of a block, the average of g(x_j) over all positions j, added at every position.
            ``query_independent``: the same with a softmax over j that is one for all positions i (as in GCNet).
            ``residual``: in the place of a block, a plain residual block.
            ``pixel``: no ResNet at all: one 1 x 1 convolution, global average, one hidden layer, classifier.
        placement: where ``average``, ``query_independent`` and ``residual`` stand, as that of non-local blocks.
        hidden: channels of the hidden layer, as a share of the channels of the map that it sees (``pixel``: of res5).
            None is the usual share, see :data:`CONTROLS`.
    """

    kind: Control
    placement: dict[str, list[int]] = field(default_factory=dict)
    hidden: float | None = None

    def __post_init__(self) -> None:
        if self.kind not in tuple(CONTROLS):
            raise UserError(f"kind: expected one of {', '.join(CONTROLS)}, not {self.kind!r}")
        if self.hidden is not None and not (isinstance(self.hidden, int | float) and 0 < self.hidden <= 8):
            raise UserError(f"hidden: expected a share of the channels, above 0 and up to 8, not {self.hidden!r}")
        if self.placed and not self.placement:
            raise UserError(f"placement: {self.kind} stands in the place of blocks: name stages and residual blocks")
        if self.placement and not self.placed:
            raise UserError(f"placement: {self.kind} has no place in a stage; leave it out")

    @property
    def placed(self) -> bool:
        """Whether it stands in the place of blocks."""
        return self.kind not in ("hidden", "pixel")

    def check(self, depth: int, blocks: bool, at: str = "control") -> None:
        """UserError if a ResNet of this depth, with or without non-local blocks, can't have it."""
        check_placement(depth, self.placement, f"{at}.placement")
        if blocks and self.kind != "hidden":
            raise UserError(f"{at}: {self.kind} stands in the place of non-local blocks: leave non_local out")

    def channels(self, of: int) -> int:
        """Channels of the hidden layer for a map of so many."""
        return max(1, round(of * (self.hidden or CONTROLS[self.kind])))


@dataclass(frozen=True)
class Rules:
    """Choices that the paper and the released code make differently.

    Attributes:
        subsample: max-pool ``"after"`` phi and g (paper, Sec. 3.3) or ``"before"`` them (release), which costs a
            quarter of their products.
        scale: multiply the Gaussian exponents by (similarity channels)^-0.5. Not in Eq. (2)-(3); in the release.
        max_pool: ``"padded"``: Table 1's temporal kernel of 3, padded so that sizes are Table 1's;
            ``"unpadded"``: kernel 2 in time and no padding, which makes res2 55 x 55 (release); or
            ``"padded_in_space"``: pool1 of one frame, padded, and pool2 of two, unpadded (the ports of others).
        nonlocal_init: ``"he"`` (paper, Sec. 4.1) or ``"gaussian"``, standard deviation 0.01 (release).
        inflate_res2: which first kernels of res2 an I3D inflates: ``"alternate"``, one for every two blocks
            (paper, Sec. 4), or ``"all"`` three (release; only this gives the FLOPs of Table 2e).
        nonlocal_gamma: start value of the scale of the BN after W_z. 0 makes a new block the identity.
        residual_gamma: start value of the scale of the last BN of a residual block. The release starts at 0;
            the paper is silent (1), and ImageNet weights replace it in both.
        decay_bn: whether weight decay acts on the scales and shifts of BN. The release has none there.
        norm: ``"batch"``: BN in the residual blocks; ``"affine"``: a scale and a shift that stay as they are, into
            which BN has been folded (release, long clips).
        nonlocal_norm: after W_z: ``"batch"`` (paper, Sec. 4.1), ``"affine"``, or ``"none"``, where W_z itself starts
            at zero (release, long clips).
        res3_group: frames of res3 among which its non-local blocks sum, apart from all others; 0 is all frames.
            The release has 4 in long clips, which the paper doesn't mention.
    """

    subsample: Literal["before", "after"]
    scale: bool
    max_pool: Literal["padded", "unpadded", "padded_in_space"]
    nonlocal_init: Literal["he", "gaussian"]
    inflate_res2: Literal["alternate", "all"]
    nonlocal_gamma: float
    residual_gamma: float
    decay_bn: bool
    norm: Literal["batch", "affine"] = "batch"
    nonlocal_norm: Literal["batch", "affine", "none"] = "batch"
    res3_group: int = 0


PROFILES = {
    "paper": Rules(
        subsample="after",
        scale=False,
        max_pool="padded",
        nonlocal_init="he",
        inflate_res2="alternate",
        nonlocal_gamma=0.0,
        residual_gamma=1.0,
        decay_bn=True,
    ),
    "release": Rules(
        subsample="before",
        scale=True,
        max_pool="unpadded",
        nonlocal_init="gaussian",
        inflate_res2="all",
        nonlocal_gamma=0.0,
        residual_gamma=0.0,
        decay_bn=False,
    ),
}


@dataclass(frozen=True)
class Conventions:
    """A profile, and what overrides it: a field that is ``None`` is as the profile has it. See :class:`Rules`.

    The profile is looked up when `rules` is read and never written into the fields: the command line merges what it is
    given into the default field by field, and values filled in there would override another profile.
    """

    profile: Literal["paper", "release"] = "paper"
    subsample: Literal["before", "after"] | None = None
    scale: bool | None = None
    max_pool: Literal["padded", "unpadded", "padded_in_space"] | None = None
    nonlocal_init: Literal["he", "gaussian"] | None = None
    inflate_res2: Literal["alternate", "all"] | None = None
    nonlocal_gamma: float | None = None
    residual_gamma: float | None = None
    decay_bn: bool | None = None
    norm: Literal["batch", "affine"] | None = None
    nonlocal_norm: Literal["batch", "affine", "none"] | None = None
    res3_group: int | None = None

    def __post_init__(self) -> None:
        for name, kind in get_type_hints(Conventions).items():
            value = getattr(self, name)
            if value is None and name != "profile":
                continue
            words = [word for part in (kind, *get_args(kind)) for word in get_args(part) if isinstance(word, str)]
            types = (int, float) if float in get_args(kind) else get_args(kind)
            if value not in words if words else not (isinstance(value, types) and math.isfinite(value)):
                known = "True or False" if bool in types else "a whole number" if float not in types else "a number"
                raise UserError(f"{name}: expected {'one of ' + ', '.join(words) if words else known}, not {value!r}")

        if self.res3_group is not None and self.res3_group < 0:
            raise UserError(f"res3_group: expected a number of frames, or 0 for all, not {self.res3_group}")

    @property
    def rules(self) -> Rules:
        """The rule for every difference."""
        given = {field.name: getattr(self, field.name) for field in fields(Rules)}
        return replace(PROFILES[self.profile], **{name: rule for name, rule in given.items() if rule is not None})
