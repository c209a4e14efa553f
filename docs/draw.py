"""Draw figures of the docs: ``python docs/draw.py``. A test draws them again and compares."""

import io
from itertools import pairwise
from pathlib import Path

import matplotlib as mpl
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, Patch, Rectangle

from nl_lightning.models.nonlocal_block import concatenation, dot_product, embedded_gaussian, gaussian

FIGURES = Path(__file__).parent / "figures"
PAPER, INK, SOFT, FAINT, BLUE, ORANGE = "#fdfcf9", "#1d1d20", "#5c5a55", "#e9e5da", "#1d558f", "#b0470f"
STYLE = {"svg.fonttype": "path", "svg.hashsalt": "nl-lightning", "font.size": 9, "text.color": INK}


def block() -> Figure:
    """Fig. 2 of the paper: an embedded Gaussian block, with the shapes of a map of 1024 channels."""
    figure, ax = _figure(6.4, 5.6, (0, 12.8), (0, 11.2))

    def box(x: float, y: float, text: str, colour: str = INK, width: float = 2.6) -> None:
        ax.add_patch(Rectangle((x - width / 2, y - 0.4), width, 0.8, fc="white", ec=colour, lw=1.2))
        ax.text(x, y, text, ha="center", va="center", color=colour)

    def sign(x: float, y: float, text: str) -> None:
        ax.text(
            x,
            y,
            text,
            ha="center",
            va="center",
            fontsize=14,
            bbox={"boxstyle": "circle,pad=0.12", "fc": "white", "ec": INK},
        )

    def arrow(*points: tuple[float, float], shape: str = "", side: float = 0.15) -> None:
        for start, end in pairwise(points):
            style = "-|>" if end == points[-1] else "-"
            ax.annotate(
                "", end, start, arrowprops={"arrowstyle": style, "color": SOFT, "shrinkA": 0, "shrinkB": 0, "lw": 1}
            )
        if shape:
            (x, y), (_, y_end) = points[-2:]
            align = "left" if side > 0 else "right"
            ax.text(x + side, (y + y_end) / 2, shape, color=SOFT, fontsize=7.5, va="center", ha=align)

    box(6.4, 0.6, "$x$", width=1.2)
    ax.text(7.2, 0.6, "$T \\times H \\times W \\times 1024$", color=SOFT, fontsize=7.5, va="center")
    for x, name in ((2.4, "\\theta"), (6.4, "\\phi"), (10.4, "g")):
        arrow((6.4, 1.0), (6.4, 1.5), (x, 1.5), (x, 2.1))
        box(x, 2.5, f"${name}$: $1 \\times 1 \\times 1$", BLUE)
    arrow((2.4, 2.9), (2.4, 4.6), (3.9, 4.6), shape="")
    ax.text(2.25, 3.7, "$THW \\times 512$", color=SOFT, fontsize=7.5, ha="right", va="center")
    arrow((6.4, 2.9), (6.4, 4.6), (4.9, 4.6))
    ax.text(6.55, 3.7, "$512 \\times THW/4$", color=SOFT, fontsize=7.5, va="center")
    sign(4.4, 4.6, "$\\times$")
    arrow((4.4, 5.1), (4.4, 5.9), shape="$THW \\times THW/4$", side=-0.15)
    box(4.4, 6.3, "softmax: $f / \\mathcal{C}$", ORANGE, 3.2)
    arrow((4.4, 6.7), (4.4, 7.4), (5.9, 7.4))
    arrow((10.4, 2.9), (10.4, 7.4), (6.9, 7.4))
    ax.text(10.25, 5.2, "$THW/4 \\times 512$", color=SOFT, fontsize=7.5, ha="right", va="center")
    sign(6.4, 7.4, "$\\times$")
    arrow((6.4, 7.9), (6.4, 8.6), shape="$y$: $T \\times H \\times W \\times 512$")
    box(6.4, 9.0, "$W_z$: $1 \\times 1 \\times 1$, BN", BLUE, 3.6)
    arrow((6.4, 9.4), (6.4, 9.9))
    sign(6.4, 10.4, "$+$")
    arrow((5.8, 0.6), (0.5, 0.6), (0.5, 10.4), (5.9, 10.4))
    arrow((6.9, 10.4), (8.2, 10.4))
    ax.text(8.4, 10.4, "$z$", va="center")
    ax.text(8.9, 10.4, "$T \\times H \\times W \\times 1024$", color=SOFT, fontsize=7.5, va="center")
    return figure


def positions() -> Figure:
    """Which positions j a position i looks at, by ``sum_over``."""
    figure, ax = _figure(6.4, 3.9, (-3.6, 13.2), (-1, 9.2))
    seen = {
        "spacetime": lambda t, y, x: True,
        "space": lambda t, y, x: t == 1,
        "time": lambda t, y, x: (y, x) == (1, 1),
    }
    for line, (name, looks) in enumerate(seen.items()):
        bottom = 6.2 - 3.1 * line
        ax.text(-0.5, bottom + 1.1, name, ha="right", va="center", family="monospace")
        for t in range(3):
            for y in range(3):
                for x in range(4):
                    at_i = (t, y, x) == (1, 1, 1)
                    colour = ORANGE if at_i else BLUE if looks(t, y, x) else FAINT
                    ax.add_patch(Rectangle((4.5 * t + 0.95 * x, bottom + 0.8 * y), 0.85, 0.7, fc=colour, lw=0))
                    if at_i:
                        ax.text(
                            4.5 * t + 0.95 * x + 0.42,
                            bottom + 0.8 * y + 0.33,
                            "$i$",
                            color="white",
                            ha="center",
                            va="center",
                        )
    for t in range(3):
        ax.text(4.5 * t + 1.85, -0.5, f"frame {t + 1}", ha="center", va="center", color=SOFT, fontsize=8)
    return figure


def choices() -> Figure:
    """One row of f / C for the four instantiations: the same twelve positions j, the same i."""
    generator = torch.Generator().manual_seed(3)
    theta, phi = torch.randn(1, 12, 4, generator=generator), torch.randn(1, 12, 4, generator=generator)
    rows = {
        "Gaussian, (2)": gaussian(theta, theta, 1.0),
        "embedded Gaussian, (3)": embedded_gaussian(theta, phi, 1.0),
        "dot product, (4)": dot_product(theta, phi),
        "concatenation, (5)": concatenation(theta, phi, torch.randn(8, generator=generator)),
    }
    with mpl.rc_context(STYLE):
        figure = Figure((6.4, 2.6), layout="constrained", facecolor=PAPER)
        for ax, (name, f) in zip(figure.subplots(1, 4), rows.items(), strict=True):
            row = f[0, 4].numpy()
            ax.bar(range(12), row, color=[BLUE if value >= 0 else ORANGE for value in row], width=0.8)
            ax.axhline(0, color=INK, lw=0.8)
            ax.set_title(f"{name}\nsum {row.sum():.2f}", fontsize=8, loc="left")
            ax.set_facecolor(PAPER)
            ax.set_xticks([4], ["$i$"])
            ax.tick_params(labelsize=7, length=2)
            ax.spines[["top", "right", "bottom"]].set_visible(False)
        figure.supxlabel("position $j$", fontsize=8, color=SOFT)
    return figure


def glyphs() -> Figure:
    """Eight frames of a video of each generated set, as a scheme: where which glyph is seen."""
    figure, ax = _figure(6.4, 2.6, (-0.1, 9.3), (0, 3.8))
    red, blue, green, violet, sand = "#eb3c32", "#506efa", "#5cc08a", "#b07ae0", "#d9b25c"
    shown: dict[str, list[tuple[str, str, float, float, int]]] = {
        "longrange: are they the same? Here not.": [("disc", red, 0.3, 0.7, 1), ("ring", blue, 0.7, 0.4, 5)],
        "match: two have equal colours. Have they equal shapes, too? Here yes.": [
            ("disc", green, 0.25, 0.3, 1), ("disc", violet, 0.7, 0.65, 1),
            ("disc", green, 0.6, 0.75, 5), ("ring", sand, 0.3, 0.25, 5),
        ],
    }  # fmt: skip
    for line, (caption, seen) in enumerate(shown.items()):
        bottom = 2.2 - 1.9 * line
        ax.text(0, bottom + 1.2, caption, fontsize=8, va="center")
        for frame in range(8):
            ax.add_patch(Rectangle((1.15 * frame, bottom), 1, 1, fc="#24243a", lw=0))
            for shape, colour, x, y, since in seen:
                if since <= frame < since + 2:
                    ax.add_patch(_glyph(shape, colour, 1.15 * frame + x, bottom + y))
    return figure


def _glyph(shape: str, colour: str, x: float, y: float) -> Patch:
    if shape == "disc":
        return Circle((x, y), 0.14, fc=colour, lw=0)
    return Rectangle((x - 0.12, y - 0.12), 0.24, 0.24, fc="none", ec=colour, lw=2)


def _figure(width: float, height: float, x: tuple[float, float], y: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure((width, height), facecolor=PAPER)
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=x, ylim=y)
    ax.axis("off")
    return figure, ax


def svg(figure: Figure) -> bytes:
    """The figure as a file; the same figure gives the same bytes."""
    content = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(content, format="svg", metadata={"Date": None, "Creator": None})
    return content.getvalue()


DRAWN = {"block": block, "positions": positions, "pairwise": choices, "glyphs": glyphs}

if __name__ == "__main__":
    for name, draw in DRAWN.items():
        (FIGURES / f"{name}.svg").write_bytes(svg(draw()))
