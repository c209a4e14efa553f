"""``nl-lightning attend``: what a non-local block looks at from one position of a video (the paper's Fig. 3)."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from nl_lightning.data import decoding
from nl_lightning.data.decoding import Frames
from nl_lightning.data.packets import DecodeError
from nl_lightning.data.sampling import clip_indices, test_starts
from nl_lightning.data.tools.prepare import write_mp4
from nl_lightning.data.transforms import TestViews
from nl_lightning.errors import UserError
from nl_lightning.inspect.attention import attention_rows, block_named, dependence, input_of
from nl_lightning.inspect.figures import Attention, draw_attention, overlay, save, strongest
from nl_lightning.inspect.places import Places, places_in
from nl_lightning.models.conventions import Triple
from nl_lightning.models.fast import channels_last
from nl_lightning.models.nonlocal_block import NonLocalBlock
from nl_lightning.study.files import refuse_foreign
from nl_lightning.weights.file import InputSettings, load_weights

CONNECTIONS = 20
"""As many as in the paper's figure."""
FILM_SIDE, FILM_RATE = 256, 4  # pixels at least; frames a second, slow enough to look at


@dataclass(frozen=True)
class Clip:
    """One clip of a video as a network sees it: its frames, and which of the video's they are."""

    frames: Frames  # (T, H, W, 3)
    indices: tuple[int, ...]

    def normalised(self, seen: InputSettings) -> Tensor:
        """(1, 3, T, H, W)."""
        pixels = torch.from_numpy(np.ascontiguousarray(self.frames)).permute(3, 0, 1, 2)[None].float()
        mean, std = (torch.tensor(colours).view(3, 1, 1, 1) for colours in (seen.mean, seen.std))
        return channels_last((pixels - mean) / std)


def middle_clip(video: Path, seen: InputSettings) -> Clip:
    """The clip in the middle of a video, its centre crop. UserError if the video can't be read."""
    try:
        length = decoding.num_frames(video)
        (start,) = test_starts(length, seen.num_frames, seen.frame_stride, 1, "paper")
        indices = clip_indices(start, length, seen.num_frames, seen.frame_stride)
        views = TestViews(seen.test_short_side, seen.test_crop, 1)
        (frames,) = views.cropped(views.scaled(decoding.frames(video, indices)))
    except DecodeError as error:
        raise UserError(str(error)) from None
    return Clip(frames, tuple(indices.tolist()))


def attend(video: Path, weights: Path, block: str, query: Triple, out: Path) -> list[str]:
    """Draw what `block` looks at from position `query` of its map, as PNG, SVG and MP4 in `out`; return what to say.

    Raises:
        UserError: the video or the weights can't be read, there is no such block, or `query` lies outside its map.
    """
    net, header = load_weights(weights)
    layer = block_named(net, block)
    clip = middle_clip(video, header.input)
    x = input_of(net, layer, clip.normalised(header.input))
    _check(query, (len(x) * x.shape[2], x.shape[3], x.shape[4]), block)
    places = places_in(net, block.partition(".")[0])
    seen = _seen(layer, x, query, clip, places)
    divergence = dependence(layer, x, query, torch.Generator().manual_seed(0))

    frame, row, column = places.centre(query)
    where = f"frame {clip.indices[int(frame)]}, pixel ({row:g}, {column:g}) of the {_size(clip.frames)} crop"
    kind = layer.instantiation.replace("_", " ")
    title = f"{block}, {kind}: where position {query} looks ({where})"
    said = [
        f"{video}: frames {clip.indices[0]} to {clip.indices[-1]} ({len(clip.indices)} of them)",
        f"{block} ({kind}, sum over {layer.sum_over}): position {query} stands for {where}",
        _shares(seen),
        f"maps of two queries differ by {divergence:.3f} bits on average (Jensen-Shannon: 0 alike, 1 nothing shared)",
    ]
    name = f"attend_{video.stem}_{block}_{'-'.join(map(str, query))}"
    film = out / f"{name}.mp4"
    refuse_foreign([film])  # before the others are written
    files = save(draw_attention(seen, title, f"{said[2]}\n{said[3]}", CONNECTIONS), out / name)
    write_mp4(film, _film(seen, clip, places), FILM_RATE)
    return [*said, *map(str, [*files, film])]


def _check(query: Triple, size: Triple, block: str) -> None:
    if not all(0 <= at < most for at, most in zip(query, size, strict=True)):
        t, h, w = (most - 1 for most in size)
        raise UserError(
            f"--query: {query} lies outside the map of {block}: frames 0 to {t}, rows 0 to {h}, columns 0 to {w}"
        )


def _seen(layer: NonLocalBlock, x: Tensor, query: Triple, clip: Clip, places: Places) -> Attention:
    """The weights of all j, with the clip's frame on which each frame of the map is centred."""
    weights = attention_rows(layer, x, [query])[0].numpy()
    pooled = weights.shape[1:] != x.shape[3:]
    keys = places.behind((1, 2, 2), (1, 2, 2), (0, 0, 0)) if pooled else places
    shown = [int(places.centre((t, 0, 0))[0]) for t in range(len(weights))]
    _, row, column = places.centre(query)
    return Attention(
        frames=clip.frames[shown],
        names=tuple(f"frame {clip.indices[t]}" for t in shown),
        weights=weights,
        rows=np.array([keys.centre((0, h, 0))[1] for h in range(weights.shape[1])]),
        columns=np.array([keys.centre((0, 0, w))[2] for w in range(weights.shape[2])]),
        query=(query[0], row, column),
    )


def _film(seen: Attention, clip: Clip, places: Places) -> Frames:
    """Every frame of the clip under the weights of the map's frame that is nearest to it."""
    centres = np.array([places.centre((t, 0, 0))[0] for t in range(len(seen.weights))])
    nearest = np.abs(centres[:, None] - np.arange(len(clip.frames))).argmin(axis=0)  # (T,)
    _, height, width, _ = clip.frames.shape
    even = clip.frames[:, : height // 2 * 2, : width // 2 * 2]
    t, row, column = seen.query
    scale = -(-FILM_SIDE // min(even.shape[1:3]))
    whole = dataclasses.replace(seen, frames=even, weights=seen.weights[nearest], query=(int(centres[t]), row, column))
    return overlay(whole, scale)


def _shares(seen: Attention) -> str:
    """How much of the weight the connections that are drawn hold, how much lies in the query's own frame, and signs."""
    sizes = np.abs(seen.weights)
    total = max(float(sizes.sum()), float(np.finfo(np.float32).tiny))
    drawn = strongest(seen.weights, CONNECTIONS)
    held = 100 * sum(float(sizes[at]) for at in drawn) / total
    own = 100 * float(sizes[seen.query[0]].sum()) / total
    said = f"the {len(drawn)} strongest of {sizes.size} connections hold {held:.0f} % of the weight"
    said += f", those within i's own frame {own:.0f} %"
    if not seen.signed:
        return said
    return f"{said}, by absolute value; {int((seen.weights < 0).sum())} weights are negative (blue)"


def _size(frames: Frames) -> str:
    return f"{frames.shape[1]} x {frames.shape[2]}"
