"""Drawing: arrays and an `ax` in, the `ax` out, or a figure where axes belong together. No torch; nothing is measured.

Strength is lightness in every map, so that they can be read in grey too: dark is nothing, light is much. Where there
are signs, hue tells them.
"""

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import LogNorm, Normalize
from matplotlib.figure import Figure
from matplotlib.image import AxesImage
from matplotlib.patches import FancyArrowPatch
from matplotlib.patheffects import withStroke

from nl_lightning.errors import visible
from nl_lightning.study.files import MARK, refuse_foreign, write_output

Frames = npt.NDArray[np.uint8]  # (T, H, W, 3), RGB
Map = npt.NDArray[np.floating[Any]]  # (T, h, w)
Numbers = npt.NDArray[np.floating[Any]]

CONNECTIONS = 20  # as many as in the paper's figure
PER_LINE = 8  # frames side by side, at most
DRAWN = " from these weights and videos"
GAP = 0.08  # between two frames, as a share of a frame
FAINTEST = 1e-3  # gradients below this share of the greatest look like it
STYLE: dict[Any, Any] = {
    "font.family": "sans-serif", "font.size": 8, "svg.fonttype": "none", "svg.hashsalt": "nl-lightning",
    "axes.titlesize": 8, "figure.constrained_layout.w_pad": 0.06, "axes.titlelocation": "left",
}  # fmt: skip
"""For ``matplotlib.rc_context``; text in an SVG stays text, and the same figure is the same file."""


@dataclass(frozen=True)
class Attention:
    """What one position i looks at in a clip."""

    frames: Frames  # the T frames of the clip that stand for the frames of the map
    names: tuple[str, ...]  # which frames of the video they stand for, and which are drawn
    weights: Map  # of all positions j, in the map's frames
    rows: Numbers  # of the clip, in pixels, on which the positions j are centred
    columns: Numbers
    query: tuple[int, float, float]  # i: the frame (of the T), row and column (pixels)

    @property
    def signed(self) -> bool:
        """Whether it is of both signs."""
        return bool((self.weights < 0).any())


def strongest(weights: Map, count: int = CONNECTIONS) -> list[tuple[int, int, int]]:
    """The (frame, row, column) of the `count` weights of the greatest absolute value above 0, the greatest first."""
    order = np.argsort(-np.abs(weights), axis=None, kind="stable")[:count]
    t, h, w = (axis.tolist() for axis in np.unravel_index(order, weights.shape))
    return [place for place in zip(t, h, w, strict=True) if weights[place] != 0]


def draw_attention(seen: Attention, title: str, note: str) -> Figure:
    """The connections above, the weights below."""
    lines = -(-len(seen.frames) // PER_LINE)
    _, height, width, _ = seen.frames.shape
    wide = min(len(seen.frames), PER_LINE) * (1 + GAP)
    inches = max(1.2, min(1.7, 9 / wide))  # of a frame
    with mpl.rc_context(STYLE):
        size = (wide * inches + 0.7, 2 * lines * (height / width + 3 * GAP) * inches + 0.8)
        figure = Figure(size, layout="constrained")
        above, below = figure.subplots(2, 1)
        draw_connections(above, seen).set_title(title, fontweight="bold")
        draw_weights(below, seen)
        figure.supxlabel(note, x=0.01, ha="left", fontsize=7, color="0.35")
    return figure


def save(figure: Figure, path: Path, of: str) -> list[Path]:
    """Write `path` with .png and with .svg at its end, each whole or not at all; return both.

    UserError if figures that are drawn from something else than `of`, have these names.
    """
    mark = f"{MARK} of {of}"
    about: dict[str, dict[str, str | None]] = {".png": {"Software": mark}, ".svg": {"Creator": mark, "Date": None}}
    written = {path.with_name(path.name + suffix): metadata for suffix, metadata in about.items()}
    refuse_foreign(written, mark, DRAWN)  # before one of them is written
    for file, metadata in written.items():
        content = io.BytesIO()
        with mpl.rc_context(STYLE):
            figure.savefig(content, format=file.suffix[1:], dpi=120, metadata=metadata)
        write_output(file, content.getvalue())
    return list(written)


def draw_connections(ax: Axes, seen: Attention, count: int = CONNECTIONS) -> Axes:
    """The frames, and an arrow from i to each of the `count` strongest j; wider is stronger (the paper's Fig. 3)."""
    _lay_out(ax, seen, 0.7 * seen.frames)
    ends = strongest(seen.weights, count)
    most = max((abs(seen.weights[end]) for end in ends), default=1.0)
    start = _at(seen, *seen.query)
    _, colours = _scale(seen)
    positive, negative = (colours(1.0), colours(0.0)) if seen.signed else (colours(0.85), None)
    for t, h, w in reversed(ends):  # the strongest on top
        share = abs(seen.weights[t, h, w]) / most
        colour = positive if seen.weights[t, h, w] > 0 else negative
        end = _at(seen, t, float(seen.rows[h]), float(seen.columns[w]))
        if end != start:
            ax.add_patch(
                FancyArrowPatch(
                    start, end, arrowstyle="-|>", mutation_scale=4 + 4 * share, shrinkA=0, shrinkB=0,
                    linewidth=0.4 + 1.4 * share, color=colour, alpha=0.35 + 0.6 * share,
                    connectionstyle="arc3,rad=0.12",
                )
            )  # fmt: skip
        else:  # i itself is among them
            ax.plot(*end, "o", markersize=3 + 3 * share, color=colour)
    _finish(ax, seen)
    return ax


def draw_weights(ax: Axes, seen: Attention) -> Axes:
    """The weight of every j as a heat map for each frame, with the scale beside it; j has the pixels nearest to it."""
    norm, colours = _scale(seen)
    _lay_out(ax, seen, 0.3 * seen.frames.mean(axis=3, keepdims=True).repeat(3, axis=3))
    for t, weights in enumerate(_of_pixels(seen)):
        (left, top), (height, width) = _at(seen, t, -0.5, -0.5), weights.shape
        extent = (left, left + width, top + height, top)
        ax.imshow(weights, cmap=colours, norm=norm, extent=extent, interpolation="none")
    _finish(ax, seen)
    bar = ax.inset_axes((1.015, 0.0, 0.012, 1.0))
    ticks = sorted({float(norm.vmin or 0), 0.0, float(norm.vmax or 0)})
    scale = ax.figure.colorbar(ScalarMappable(norm, colours), cax=bar, ticks=ticks, format="%.3g")
    scale.set_label("$f(x_i, x_j)\\,/\\,C(x)$", fontsize=8)
    scale.ax.tick_params(length=0, labelsize=7)
    scale.outline.set_visible(False)
    return ax


def _of_pixels(seen: Attention) -> Map:
    """(T, H, W): for each pixel, the weight of the position whose centre is nearest to it."""
    _, height, width, _ = seen.frames.shape
    return seen.weights[:, nearest(seen.rows, height)][:, :, nearest(seen.columns, width)]


def nearest(centres: Numbers, count: int) -> npt.NDArray[np.intp]:
    """For each of `count` frames, rows or columns from 0, the position whose centre is nearest to it."""
    return np.asarray(np.abs(centres[:, None] - np.arange(count)).argmin(axis=0))


def overlay(seen: Attention, scale: int) -> Frames:
    """The frames in grey, `scale` times as large, with the weights laid over them; a white square marks i."""
    norm, colours = _scale(seen)
    weights = _of_pixels(seen)
    strength = np.abs(weights) / max(float(np.abs(weights).max()), np.finfo(np.float32).tiny)
    grey = seen.frames.mean(axis=3, keepdims=True).repeat(3, axis=3)
    mixed = grey + 0.8 * strength[..., None] * (255 * colours(norm(weights))[..., :3] - grey)
    large: Frames = np.rint(mixed).astype(np.uint8).repeat(scale, axis=1).repeat(scale, axis=2)
    t, row, column = seen.query
    top, left = (int(scale * (at + 0.5)) for at in (row, column))
    half = max(2, large.shape[1] // 40)
    square = large[t, max(0, top - half) : top + half, max(0, left - half) : left + half]
    inside = square[2:-2, 2:-2].copy()
    square[:] = 255
    square[2:-2, 2:-2] = inside
    return large


def draw_reach(fields: Mapping[str, Map], note: str) -> Figure:
    """Networks in rows, frames in columns: the gradient (T, H, W) of one output position, as shares of the greatest."""
    frames, height, width = next(iter(fields.values())).shape
    shown = sorted({round(at) for at in np.linspace(0, frames - 1, min(frames, PER_LINE))})
    with mpl.rc_context(STYLE):
        inches = 0.8
        size = ((len(shown) + 2.6) * inches, (len(fields) * (height / width + 0.1) + 0.9) * inches)
        figure = Figure(size, layout="constrained")
        rows = figure.subplots(len(fields), len(shown), squeeze=False)
        for axes, (name, field) in zip(rows, fields.items(), strict=True):
            greatest = field.max() or 1.0  # nothing may move the position, as in a network whose ReLUs are all shut
            for ax, t in zip(axes, shown, strict=True):
                drawn = draw_gradient(ax, field[t] / greatest)
            share = 100 * np.count_nonzero(field) / field.size
            label = f"{visible(name)}\n{share:.0f} % reached"
            axes[0].set_ylabel(label, rotation=0, ha="right", va="center", parse_math=False)
        for ax, t in zip(rows[0], shown, strict=True):
            ax.set_title(f"frame {t}", color="0.35")
        label = "gradient, as a share of the network's greatest; white is none"
        scale = figure.colorbar(drawn, ax=rows, aspect=40, ticks=[FAINTEST, 1], format="%g", label=label)
        scale.ax.minorticks_off()
        scale.ax.yaxis.label.set_fontsize(7)
        scale.ax.tick_params(length=0, labelsize=7)
        figure.suptitle("What can move the centre of res5", x=0.01, ha="left", fontsize=9, fontweight="bold")
        figure.supxlabel(note, x=0.01, ha="left", fontsize=7, color="0.35")
    return figure


def draw_gradient(ax: Axes, frame: Map) -> AxesImage:
    """The gradient in one frame (H, W), as a share of the greatest anywhere, on a scale of powers; white is none."""
    seen = np.where(frame > 0, np.maximum(frame, FAINTEST), np.nan)
    drawn = ax.imshow(seen, cmap="inferno", norm=LogNorm(FAINTEST, 1), interpolation="none")
    ax.set(xticks=[], yticks=[])
    ax.spines[:].set(linewidth=0.5, color="0.6")
    return drawn


def _scale(seen: Attention) -> tuple[Normalize, mpl.colors.Colormap]:
    most = float(np.abs(seen.weights).max())
    if seen.signed:
        return Normalize(-most, most), mpl.colormaps["berlin"]  # dark in the middle
    return Normalize(0, most), mpl.colormaps["inferno"]


def _at(seen: Attention, t: int, row: float, column: float) -> tuple[float, float]:
    """(x, y) in the picture of a place in frame t; frames stand in lines of :data:`PER_LINE`."""
    line, place = divmod(t, PER_LINE)
    _, height, width, _ = seen.frames.shape
    return place * width * (1 + GAP) + column, line * height * (1 + 3 * GAP) + row


def _lay_out(ax: Axes, seen: Attention, images: Numbers) -> None:
    """Draw images (T, H, W, 3), 0 to 255, where the frames belong, with the frames' names above them."""
    _, height, width, _ = seen.frames.shape
    for t, (image, name) in enumerate(zip(images, seen.names, strict=True)):
        left, top = _at(seen, t, -0.5, -0.5)
        ax.imshow(image.astype(np.uint8), extent=(left, left + width, top + height, top), interpolation="none")
        ax.text(left, top - 0.03 * height, name, va="bottom", color="0.35")


def _finish(ax: Axes, seen: Attention) -> None:
    """Mark i by a white square with a dark edge, and set the limits, which every image resets."""
    start = _at(seen, *seen.query)
    for colour, edge in (("black", 3.0), ("white", 1.4)):
        ax.plot(*start, "s", markersize=6, markerfacecolor="none", markeredgecolor=colour, markeredgewidth=edge)
    label = ax.annotate("$x_i$", start, (5, 5), textcoords="offset points", color="white", fontsize=10)
    label.set_path_effects([withStroke(linewidth=1.5, foreground="black")])
    count, height, width, _ = seen.frames.shape
    ax.set_xlim(-0.5, _at(seen, min(count, PER_LINE) - 1, 0, width - 0.5)[0])
    ax.set_ylim(_at(seen, count - 1, height - 0.5, 0)[1], -0.5 - 0.12 * height)
    ax.set_aspect("equal")
    ax.axis("off")
