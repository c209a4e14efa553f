"""Pictures, by what stands in them."""

from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch
from PIL import Image

from nl_lightning.inspect.figures import (
    Attention,
    draw_attention,
    draw_connections,
    draw_reach,
    draw_weights,
    overlay,
    save,
    strongest,
)


def attention(weights: np.ndarray) -> Attention:
    """A clip of 2 grey frames of 8 x 8 under weights (2, 2, 2), seen from the second frame."""
    frames = np.full((2, 8, 8, 3), 100, np.uint8)
    at = np.array([1.5, 5.5])
    return Attention(frames, ("frame 0", "frame 4"), weights, at, at, (1, 4.0, 4.0))


WEIGHTS = np.array([[[0.0, 0.5], [0.1, 0.0]], [[0.2, 0.0], [-0.3, 0.0]]])


def test_the_strongest_are_by_absolute_value_and_never_zero() -> None:
    assert strongest(WEIGHTS, 3) == [(0, 0, 1), (1, 1, 0), (1, 0, 0)]
    assert len(strongest(WEIGHTS)) == 4


def test_an_arrow_leads_to_each_of_the_strongest() -> None:
    ax = draw_connections(Figure().subplots(), attention(WEIGHTS), 3)
    arrows = [patch for patch in ax.patches if isinstance(patch, FancyArrowPatch)]
    ends = [tuple(np.round(arrow._posA_posB[1], 2)) for arrow in arrows]  # type: ignore[attr-defined]
    second = 8 * 1.08  # where the second frame begins
    assert ends == [(second + 1.5, 1.5), (second + 1.5, 5.5), (5.5, 1.5)]  # the strongest last, on top
    assert {text.get_text() for text in ax.texts} == {"frame 0", "frame 4", "$x_i$"}
    plus, minus = arrows[0].get_edgecolor()[:3], arrows[1].get_edgecolor()[:3]
    assert plus != minus
    assert arrows[2].get_edgecolor()[:3] == plus


@pytest.mark.parametrize(("weights", "limits"), [(WEIGHTS, (-0.5, 0.5)), (np.abs(WEIGHTS), (0, 0.5))])
def test_maps_share_a_scale_that_begins_at_zero_or_is_symmetric(
    weights: np.ndarray, limits: tuple[float, float]
) -> None:
    ax = draw_weights(Figure().subplots(), attention(weights))
    maps = [image for image in ax.images if image.get_array().ndim == 2]  # type: ignore[union-attr]
    assert [image.get_clim() for image in maps] == [limits] * 2
    assert maps[0].get_extent() == [-0.5, 7.5, 7.5, -0.5]  # nothing of the frame is left over
    dark = np.mean(maps[0].to_rgba(np.array([[0.0]]))[..., :3])
    assert all(np.mean(maps[0].to_rgba(np.array([[end]]))[..., :3]) > dark + 0.3 for end in limits if end)


def test_the_scale_says_what_it_is_of() -> None:
    figure = Figure()
    draw_weights(figure.subplots(), attention(WEIGHTS))
    (bar,) = (axes for axes in figure.axes[0].child_axes)
    assert "f(x_i, x_j)" in bar.get_ylabel()
    assert "C(x)" in bar.get_ylabel()


def test_weights_lie_over_the_frames_where_they_belong() -> None:
    film = overlay(attention(np.abs(WEIGHTS)), 4)
    assert film.shape == (2, 32, 32, 3)
    assert (film[0, :16, :16] == 100).all()  # no weight, no change
    assert film[0, :16, 16:].mean() > 150  # the greatest
    assert (film[1] == 255).all(axis=2).any()  # the mark
    assert not (film[0] == 255).all(axis=2).any()


def test_long_clips_go_on_in_the_next_line() -> None:
    frames = np.zeros((10, 8, 8, 3), np.uint8)
    seen = Attention(
        frames, tuple("abcdefghij"), np.ones((10, 2, 2)), np.array([1.5, 5.5]), np.array([1.5, 5.5]), (9, 4, 4)
    )
    texts = {text.get_text(): text.get_position() for text in draw_weights(Figure().subplots(), seen).texts}
    assert texts["i"][0] == texts["a"][0]
    assert texts["i"][1] > texts["h"][1] + 8


def test_files_are_whole_and_always_the_same(tmp_path: Path) -> None:
    png, svg = save(draw_attention(attention(WEIGHTS), "a title", "a note"), tmp_path / "picture.1", "these")
    assert (png.name, svg.name) == ("picture.1.png", "picture.1.svg")
    with Image.open(png) as picture:
        assert picture.size[0] > 200
    assert "a title" in svg.read_text()  # text stays text
    first = svg.read_bytes()
    save(draw_attention(attention(WEIGHTS), "a title", "a note"), tmp_path / "picture.1", "these")
    assert svg.read_bytes() == first


def test_reach_says_how_much_is_reached_and_leaves_the_rest_white() -> None:
    half = np.ones((3, 4, 4))
    half[0] = half[1, :2] = 0
    figure = draw_reach({"half": half, "all": np.ones((3, 4, 4))}, "a note")
    assert [ax.get_ylabel() for ax in figure.axes if "reached" in ax.get_ylabel()] == [
        "half\n50 % reached",
        "all\n100 % reached",
    ]
    first, second = (ax.images[0].get_array() for ax in figure.axes[:2])
    assert np.ma.getmaskarray(np.ma.masked_invalid(first)).all()  # type: ignore[no-untyped-call]
    assert np.ma.getmaskarray(np.ma.masked_invalid(second)).sum() == 8  # type: ignore[no-untyped-call]


def test_names_of_networks_are_text_whatever_they_are(tmp_path: Path) -> None:
    """Not formulas, and without characters that have no shape."""
    names = ["a$^b", "x\x1b[2J", "<b>&"]
    _, svg = save(draw_reach({name: np.ones((2, 4, 4)) for name in names}, "a note"), tmp_path / "picture", "these")
    assert "a$^b" in svg.read_text()
    assert "x\\x1b[2J" in svg.read_text()
    assert "&lt;b&gt;&amp;" in svg.read_text()


def test_a_network_that_nothing_passes_is_drawn_white() -> None:
    figure = draw_reach({"shut": np.zeros((3, 4, 4))}, "a note")
    assert any("0 % reached" in text.get_text() for axes in figure.axes for text in [axes.yaxis.label, *axes.texts])
