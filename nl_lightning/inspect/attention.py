"""What a non-local block looks at: f(x_i, x_j) / C(x) over all j for a few positions i, as in the paper's Fig. 3.

Only the rows that are asked for are computed, never the N x N matrix. Checked in the tests against the rows of that
matrix, for every instantiation and mode.
"""

from collections.abc import Sequence
from types import EllipsisType

import torch
from jaxtyping import Float
from torch import Tensor

from nl_lightning.errors import UserError
from nl_lightning.models.conventions import STAGES, Triple
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.models.resnet import VideoResNet

MOST_QUERIES = 64
"""How many positions :func:`dependence` compares: some 2,000 pairs."""

Scope = tuple[int | slice | EllipsisType, ...]


def block_named(net: VideoResNet, name: str) -> NonLocalBlock:
    """The non-local block after a residual block, such as ``res3.1``. UserError naming those that there are."""
    blocks = {f"{stage}.{after}": block for stage in STAGES for after, block in getattr(net, stage).non_local.items()}
    if not blocks:
        raise UserError("block: this network has no non-local block")
    if name not in blocks:
        raise UserError(f"block: this network has no non-local block '{name}'; it has {', '.join(blocks)}")
    found: NonLocalBlock = blocks[name]
    return found


def input_of(net: VideoResNet, block: NonLocalBlock, clip: Float[Tensor, "1 3 T H W"]) -> Float[Tensor, "G C t h w"]:
    """The map x that `block` is given for a normalised clip, in G groups of frames that it sees apart (mostly one)."""
    seen: list[Tensor] = []
    handle = block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        with torch.no_grad():
            net.features(clip)
    finally:
        handle.remove()
    return seen[0]


@torch.no_grad()
def attention_rows(
    block: NonLocalBlock, x: Float[Tensor, "G C t h w"], queries: Sequence[Triple]
) -> Float[Tensor, "Q T hk wk"]:
    """f(x_i, x_j) / C(x) of some positions i, over the map of all positions j; 0 where j is not in the sum.

    Args:
        block: one of three dimensions.
        x: its input for one clip, see :func:`input_of`; T, the frames of all groups, is G t.
        queries: (frame, row, column) of each i in the whole map, from 0.

    Returns:
        One map for each query, as large as the keys': subsampled keys stand for 2 x 2 positions each.
    """
    theta, phi, _ = (maps.transpose(0, 1).flatten(1, 2) for maps in block.embed(x))  # (C, T, h, w), (C, T, hk, wk)
    rows = phi.new_zeros(len(queries), *phi.shape[1:])
    for row, query in zip(rows, queries, strict=True):
        scope = _compared_with(block, x.shape[2], query)
        keys = phi[:, *scope]  # (C, ...)
        i = theta[:, *query][None, None]  # (1, 1, C)
        row[scope] = block.pairwise(i, keys.flatten(1).mT[None]).view(keys.shape[1:])
    return rows


def _compared_with(block: NonLocalBlock, frames: int, query: Triple) -> Scope:
    """Where in a map (T, h, w) the positions are that a query is compared with; `frames` are those of a group."""
    t, h, w = query
    if block.sum_over == "space":
        return (t, ...)
    group = slice(t - t % frames, t - t % frames + frames)
    return (group, h, w) if block.sum_over == "time" else (group, ...)


def dependence(block: NonLocalBlock, x: Float[Tensor, "G C t h w"], query: Triple, generator: torch.Generator) -> float:
    """How much the map depends on the query: the mean Jensen-Shannon divergence of two queries' maps, in bits.

    0 if all queries have the same map, 1 if no two maps have a position in common. The queries are those that are
    compared with the same positions as `query` is, at most :data:`MOST_QUERIES` of them, drawn by `generator`. A map
    becomes a distribution by absolute value; one of zeros prefers nothing, and counts as uniform.
    """
    scope = _compared_with(block, x.shape[2], query)
    same = torch.zeros(len(x) * x.shape[2], *x.shape[3:], dtype=torch.bool)
    same[scope] = True
    candidates = same.nonzero()
    drawn = torch.randperm(len(candidates), generator=generator)[:MOST_QUERIES]
    queries: list[Triple] = [tuple(place) for place in candidates[drawn].tolist()]
    maps = attention_rows(block, x, queries)[:, *scope].flatten(1).abs().double()  # (Q, K)
    totals = maps.sum(dim=1, keepdim=True)
    maps = torch.where(totals > 0, maps / totals, 1 / maps.shape[1])
    first, second = torch.triu_indices(len(maps), len(maps), offset=1)
    own = _entropy(maps)
    divergences = [  # a pair at a time: the mixtures of all pairs would be large
        _entropy((maps[a] + maps[b]) / 2) - (own[a] + own[b]) / 2 for a, b in zip(first, second, strict=True)
    ]
    return float(torch.stack(divergences).mean().clamp(0, 1)) if divergences else 0.0


def _entropy(distribution: Float[Tensor, "... K"]) -> Float[Tensor, "..."]:
    """In bits."""
    return -torch.xlogy(distribution, distribution).sum(dim=-1) / torch.log(torch.tensor(2.0, dtype=torch.float64))
