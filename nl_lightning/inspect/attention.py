"""``nl-lightning attend``: what a non-local block looks at from one position of a video (the paper's Fig. 3).

That is f(x_i, x_j) / C(x) over all j. Only the rows that are asked for are computed, never the N x N matrix. Checked
in the tests against the rows of that matrix, for every instantiation and mode.
"""

import itertools
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import EllipsisType
from typing import Any, NamedTuple

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from nl_lightning.data import decoding
from nl_lightning.data.decoding import Frames
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.sampling import test_clips
from nl_lightning.data.tools.prepare import write_mp4
from nl_lightning.data.transforms import TestViews
from nl_lightning.errors import UserError, visible
from nl_lightning.inspect.figures import (
    DRAWN,
    Attention,
    Numbers,
    draw_attention,
    nearest,
    overlay,
    save,
    strongest,
)
from nl_lightning.models.complexity import check_clip
from nl_lightning.models.conventions import STAGES, Triple
from nl_lightning.models.fast import channels_last
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.models.resnet import VideoResNet
from nl_lightning.study.files import refuse_foreign
from nl_lightning.weights.file import InputSettings, fingerprint, load_weights

NEAREST = "Below, a pixel shows the position whose centre is nearest: those at an edge reach up to it."
SEVERAL_FRAMES = "A frame of the map stands for several frames of the video; one of them is drawn."
FILM_SIDE, FILM_RATE = 256, 4  # pixels at least; frames a second, slow enough to look at
MOST_QUERIES = 64  # positions that `dependence` compares: some 2,000 pairs

Scope = tuple[int | slice | EllipsisType, ...]


def block_named(net: VideoResNet, name: str) -> NonLocalBlock:
    """The non-local block after a residual block, such as ``res3.1``. UserError naming those that there are."""
    blocks: dict[str, NonLocalBlock] = {
        f"{stage}.{after}": block
        for stage in STAGES
        for after, block in getattr(net, stage).non_local.items()
        if isinstance(block, NonLocalBlock)  # a control has no pairs
    }
    if not blocks:
        raise UserError("block: this network has no non-local block")
    if name not in blocks:
        raise UserError(f"block: this network has no non-local block '{name}'; it has {', '.join(blocks)}")
    return blocks[name]


def input_of(net: VideoResNet, block: NonLocalBlock, clip: Float[Tensor, "1 3 T H W"]) -> Float[Tensor, "G C t h w"]:
    """The map x that `block` is given for a normalised clip, in G groups of frames that it sees apart (mostly one)."""
    seen: list[Tensor] = []
    with torch.no_grad(), block.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0])):
        net.features(clip)
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
        A map for each query, as large as the keys': subsampled keys stand for 2 x 2 positions each.
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
    own = _entropy(maps)
    divergences = [  # a pair at a time: the mixtures of all pairs would be large
        _entropy((maps[a] + maps[b]) / 2) - (own[a] + own[b]) / 2 for a, b in itertools.combinations(range(len(own)), 2)
    ]
    return float(torch.stack(divergences).mean().clamp(0, 1)) if divergences else 0.0


def _entropy(distribution: Float[Tensor, "... K"]) -> Float[Tensor, "..."]:
    """In bits."""
    return -torch.xlogy(distribution, distribution).sum(dim=-1) / torch.log(torch.tensor(2.0, dtype=torch.float64))


# ------------------------------------------------------------------------------------------- where a position lies


class Places(NamedTuple):
    """Position k of a map is centred on ``first + k * step`` of the clip, along T (frames), H and W (pixels), from 0.

    A half lies between two frames or pixels.
    """

    first: Numbers = np.zeros(3)
    step: Numbers = np.ones(3)

    def centre(self, position: Triple) -> Numbers:
        """(frame, row, column) of a position."""
        return np.asarray(self.first + self.step * position)

    def along(self, axis: int, count: int) -> Numbers:
        """Where the first `count` positions lie along an axis."""
        return np.asarray(self.first[axis] + self.step[axis] * np.arange(count))

    def behind(self, layer: Any) -> "Places":
        """The places of what a convolution or a pool makes of the map."""
        kernel, stride, padding = map(np.array, (layer.kernel_size, layer.stride, layer.padding))
        return Places(self.first + self.step * ((kernel - 1) / 2 - padding), self.step * stride)


def places_in(net: VideoResNet, stage: str) -> Places:
    """The places of the positions of a stage, such as ``res3``."""
    pools = [net.pool1] if stage == "res2" else [net.pool1, net.pool2]
    strided = [getattr(net, name).blocks[0].conv2 for name in STAGES[: STAGES.index(stage) + 1]]
    places = Places()
    # All other layers keep positions in place. (pool2 lies between two of these: it is along time, they along space.)
    for layer in (net.conv1, *pools, *strided):
        places = places.behind(layer)
    return places


# ------------------------------------------------------------------------------------------------------ the command


def attend(video: Path, weights: Path, block: str, query: Triple, out: Path) -> list[str]:
    """Draw what `block` looks at from position `query` of its map, as PNG, SVG and MP4 in `out`; return what to say.

    UserError if the video or the weights can't be read, there is no such block, or `query` lies outside its map.
    """
    net, header = load_weights(weights)
    layer = block_named(net, block)
    frames, indices = _middle_clip(video, header.input)
    check_clip(header.net, frames.shape[:3])
    x = input_of(net, layer, _normalised(frames, header.input))
    last = len(x) * x.shape[2] - 1, x.shape[3] - 1, x.shape[4] - 1
    if not all(0 <= at <= most for at, most in zip(query, last, strict=True)):
        within = "frames 0 to {}, rows 0 to {}, columns 0 to {}".format(*last)
        raise UserError(f"--query: {query} lies outside the map of {block}: {within}")
    places = places_in(net, block.partition(".")[0])
    seen = _seen(layer, x, query, frames, indices, places)
    divergence = dependence(layer, x, query, torch.Generator().manual_seed(0))

    _, row, column = places.centre(query)
    height, width = frames.shape[1:3]
    name = seen.names[query[0]]
    shown = name if name.startswith("frame ") else f"frames {name.partition(',')[0]}"
    stands = f"{shown}, pixel ({row:g}, {column:g}) of the {height} x {width} crop"
    kind = layer.instantiation.replace("_", " ")
    said = [
        f"{video}: frames {indices[0]} to {indices[-1]} ({len(indices)} of them)",
        f"{block} ({kind}, sum over {layer.sum_over}): position {query} stands for {stands}",
        _shares(seen),
        f"maps of two queries differ by {divergence:.3f} bits on average (Jensen-Shannon: 0 alike, 1 nothing shared)",
    ]
    title = f"{block}, {kind}: where position {query} looks ({stands})"
    notes = [*said[2:], NEAREST, *([SEVERAL_FRAMES] if places.step[0] > 1 else [])]
    note = "\n".join(line[0].upper() + line[1:] for line in notes)
    name = f"attend_{video.stem}_{block}_{'-'.join(map(str, query))}"
    film = out / f"{name}.mp4"
    of = fingerprint(net, frames.tobytes())
    refuse_foreign([film], of, DRAWN)  # before the others are written
    files = save(draw_attention(seen, title, note), out / name, of)
    write_mp4(film, _film(seen, frames, places), FILM_RATE, of)
    return [*map(visible, said), *(visible(file) for file in [*files, film])]


def _middle_clip(video: Path, seen: InputSettings) -> tuple[Frames, list[int]]:
    """The clip in the middle of a video, its centre crop (T, H, W, 3), and which frames of the video these are."""
    try:
        length = decoding.num_frames(video)
        (indices,) = test_clips(length, seen.num_frames, seen.frame_stride, 1, "paper", None)
        views = TestViews(seen.test_short_side, seen.test_crop, 1)
        (frames,) = views.cropped(views.scaled(decoding.frames(video, indices)))
    except DecodeError as error:
        raise UserError(str(error)) from None
    return frames, indices.tolist()


def _normalised(frames: Frames, seen: InputSettings) -> Float[Tensor, "1 3 T H W"]:
    pixels = torch.from_numpy(np.ascontiguousarray(frames)).permute(3, 0, 1, 2)[None].float()
    mean, std = (torch.tensor(colours).view(3, 1, 1, 1) for colours in (seen.mean, seen.std))
    return channels_last((pixels - mean) / std)


def _seen(
    layer: NonLocalBlock, x: Tensor, query: Triple, frames: Frames, indices: Sequence[int], places: Places
) -> Attention:
    """The weights of all j. For each frame of the map, the frame in the middle of those that it stands for is drawn."""
    weights = attention_rows(layer, x, [query])[0].numpy()
    keys = places if isinstance(layer.pool, nn.Identity) else places.behind(layer.pool)
    centres = places.along(0, len(weights))
    stands_for = nearest(centres, len(frames))
    drawn = centres.astype(int).tolist()
    names = []
    for t, middle in enumerate(drawn):
        first, *_, last = [frame for frame, at in zip(indices, stands_for, strict=True) if at == t] * 2
        names.append(f"frame {first}" if first == last else f"{first} to {last}, drawn {indices[middle]}")
    _, row, column = places.centre(query)
    return Attention(
        frames=frames[drawn],
        names=tuple(names),
        weights=weights,
        rows=keys.along(1, weights.shape[1]),
        columns=keys.along(2, weights.shape[2]),
        query=(query[0], row, column),
    )


def _film(seen: Attention, frames: Frames, places: Places) -> Frames:
    """Every frame of the clip under the weights of the map's frame that is nearest to it."""
    _, height, width, _ = frames.shape
    even = frames[:, : height // 2 * 2, : width // 2 * 2]
    t, row, column = seen.query
    middle = int(places.centre((t, 0, 0))[0])
    weights = seen.weights[nearest(places.along(0, len(seen.weights)), len(frames))]
    whole = replace(seen, frames=even, weights=weights, query=(middle, row, column))
    return overlay(whole, -(-FILM_SIDE // min(even.shape[1:3])))


def _shares(seen: Attention) -> str:
    """How much of the weight the connections that are drawn hold, how much lies in the query's own frame, and signs."""
    sizes = np.abs(seen.weights)
    total = max(float(sizes.sum()), float(np.finfo(np.float32).tiny))
    drawn = strongest(seen.weights)
    held = 100 * sum(float(sizes[at]) for at in drawn) / total
    own = 100 * float(sizes[seen.query[0]].sum()) / total
    said = f"the {len(drawn)} strongest of {sizes.size} connections hold {held:.0f} % of the weight"
    said += f", those within i's own frame {own:.0f} %"
    negative = f", by absolute value; {(seen.weights < 0).sum()} weights are negative (blue)"
    return said + negative if seen.signed else said
