"""What shortcuts reach on the generated sets: what each sees, small editions of it, and the page that cards quote."""

import dataclasses
import statistics
from pathlib import Path

import numpy as np
import pytest

from benchmarks import shortcuts
from nl_lightning.data.match import Match

CARDS = Path(__file__).parents[1] / "docs" / "cards"


def test_what_is_seen_is_as_defined() -> None:
    """The same numbers, one glyph and one pixel at a time."""
    spec = Match(versions=("space",), num_frames=2)
    scene = shortcuts.scene_of(spec, "train", 0, 1)
    bag = []
    for shape in (0, 1):
        colours = [[(c - 128) / 95 for c in glyph.colour] for glyph in scene.glyphs if glyph.shape == shape]
        products = [sum(c[i] * c[j] for c in colours) for i in range(3) for j in range(i, 3)]
        bag += [len(colours), *(sum(c[i] for c in colours) for i in range(3)), *products]
    assert shortcuts.good_bag(scene) == pytest.approx(bag)

    video = spec.frames("train", 0, 1)
    pixels = (video.reshape(-1, 3) / 255).T.tolist()  # of each channel
    means = [statistics.fmean(of) for of in pixels]
    off = [[value - mean for value in of] for of, mean in zip(pixels, means, strict=True)]
    second = [statistics.covariance(off[i], off[j]) for i in range(3) for j in range(i, 3)]
    third = [statistics.fmean(value**3 for value in of) for of in off]
    assert shortcuts.colour_moments(video) == pytest.approx([*means, *second, *third], rel=1e-3)  # of samples: n - 1

    frames = [
        [summary((frame[..., i] / 255).ravel().tolist()) for summary in (statistics.fmean, statistics.pstdev)
         for i in range(3)]
        for frame in video
    ]  # fmt: skip
    over = [summary(of) for summary in (statistics.fmean, statistics.pstdev) for of in zip(*frames, strict=True)]
    assert shortcuts.frame_colours(video) == pytest.approx(over)


def test_one_hidden_layer_learns_what_a_linear_rule_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whether two signs are equal; and the same seed gives the same rule."""
    monkeypatch.setattr(shortcuts, "STEPS", 300)
    rows = np.random.default_rng(0).standard_normal((600, 2))
    classes = rows[:, 0] * rows[:, 1] > 0
    for hidden, low, high in ((0, 0.35, 0.65), (16, 0.95, 1)):
        rule, again = (shortcuts.train(rows[:400], classes[:400], hidden, seed=3) for _ in range(2))
        assert low <= np.mean((rule(rows[400:]) > 0) == classes[400:]) <= high
        assert np.array_equal(rule(rows), again(rows))


@pytest.mark.parametrize("shortcut", shortcuts.SHORTCUTS, ids=lambda one: f"{one.parts[0]}: {one.name}")
def test_a_small_edition_has_the_rows_of_the_page(
    shortcut: shortcuts.Shortcut, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortcuts, "STEPS", 3)
    small = dataclasses.replace(shortcut, spec=dataclasses.replace(shortcut.spec, train=24, test=12))
    for name, *_, train, test in shortcuts.measure(small):
        assert (train, test) == (("24", "6") if "match" in name else ("8", "4"))


def test_the_cards_say_what_the_committed_page_says() -> None:
    """Each sentence of a card that holds a figure of the page; and the page names its command."""
    text = shortcuts.PAGE.read_text()
    assert text.startswith("# ")
    assert "`python -m benchmarks.shortcuts` wrote this page at commit " in text
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line[:1] == "|"]
    found = {(part, what, rule): (mean, of) for part, what, rule, mean, of, *_ in rows[2:]}
    names = [part for one in shortcuts.SHORTCUTS for part in one.parts for _ in one.hidden]
    assert sorted(part for part, *_ in found) == sorted(names)

    match, longrange = ((CARDS / f"{name}.md").read_text() for name in ("match", "longrange"))
    hidden = [found[f"match, {part}", "good bag", "hidden layer of 32"] for part in ("all", "hard")]
    linear = [found[f"match, {part}", "good bag", "linear"][0] for part in ("all", "hard")]
    assert "{} % of all distances ({} by seed) and {} % of the hard part ({}).".format(*hidden[0], *hidden[1]) in match
    assert f"A linear layer stays at {linear[0]} and {linear[1]} %." in match
    for rule, end in (("linear", "a linear layer"), ("hidden layer of 32", "32"), ("hidden layer of 256", "256")):
        assert "{} % ({}) with ".format(*found["match, hard", "colour moments", rule]) + end in match
    for sentence, what, rule in (
        ("One hidden layer of 32 reaches {}, {} and {} % in", "colour moments", "hidden layer of 32"),
        ("A linear layer reaches {}, {} and {} %.", "colour moments", "linear"),
        ("A linear rule on them reaches {}, {} and {} % in", "frames' colours", "linear"),
    ):
        groups = [found[name, what, rule] for name in shortcuts.SHORTCUTS[-1].parts]
        assert sentence.format(*(mean for mean, _ in groups)) in longrange
        for _, of in groups:
            low, high = map(float, of.split(" to "))
            assert high - low < 1, "the card says so"
