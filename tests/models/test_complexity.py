"""Parameters and MACs against the paper, against torch's own counter, and against tests/golden_complexity.json.

`python tests/models/test_complexity.py` counts all variants anew and writes that file. It is for a change that is
meant to change a count: say why in the commit.
"""

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
from networks import every_variant, network
from torch.utils.flop_counter import FlopCounterMode

from nl_lightning.errors import UserError
from nl_lightning.models.complexity import Complexity, block_costs, complexity
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.study.loading import load_study
from nl_lightning.study.study import Study, Variant

ROOT = Path(__file__).parents[2]
GOLDEN = ROOT / "tests" / "golden_complexity.json"
FRAMES = {None: 32, "more": 32, "thrice": 32, "128f": 128}
PROFILES = ("paper", "release")
Counts = dict[str, dict[str, Complexity]]
"""By profile and variant."""


def table2() -> Study:
    return load_study(ROOT / "experiments" / "table2.yaml")


def count(variant: Variant, profile: str) -> Complexity:
    """Cost of a variant for one clip of its length, 224 x 224."""
    return complexity(network(variant, profile=profile), (FRAMES[variant.clip], 224, 224))


@pytest.fixture(scope="module")
def counts() -> Counts:
    """The golden file, which `test_golden` holds against the networks."""
    golden = json.loads(GOLDEN.read_text())
    return {profile: {name: Complexity(**c) for name, c in of.items()} for profile, of in golden.items()}


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("variant", every_variant().values(), ids=lambda variant: variant.name)
def test_golden(variant: Variant, profile: str, counts: Counts) -> None:
    assert counts[profile][variant.name] == count(variant, profile)


def test_golden_is_of_every_study(counts: Counts) -> None:
    assert len(table2().variants) == 29
    for profile in PROFILES:
        assert counts[profile].keys() == every_variant().keys()


@pytest.mark.parametrize("profile", PROFILES)
def test_parameters_of_the_paper(profile: str, counts: Counts) -> None:
    c = counts[profile]
    assert round(c["c2d_r101"].params_conv_fc / 1e6, 1) == 43.2  # Table 2e
    r50 = c["c2d_r50"].params
    assert c["c2d_r50_nl1_res4"].params - r50 == 2_101_760
    assert c["c2d_r50_nl1_res4_dot"].params - r50 == 2_101_760
    assert c["c2d_r50_nl1_res4_concat"].params - r50 == 2_101_760 + 1024  # w_f
    assert c["c2d_r50_nl5"].params - r50 == 7_358_464
    assert c["c2d_r50_nl10"].params - r50 == 14_716_928
    for mode in ("space", "time"):
        assert c[f"c2d_r50_nl5_{mode}"].params == c["c2d_r50_nl5"].params
    for long in ("c2d_r50", "i3d311_r50_nl5", "i3d311_r101"):
        assert c[f"{long}_128f"].params == c[long].params


def test_parameters_of_five_gaussian_blocks() -> None:
    blocks = NonLocalConfig({"res3": [1, 3], "res4": [1, 3, 5]}, "gaussian")
    clip = (8, 64, 64)
    added = complexity(ResNetConfig(50, non_local=blocks), clip).params - complexity(ResNetConfig(50), clip).params
    assert added == 3_684_352


# Table 2e: parameters and FLOPs as multiples of ResNet-101 C2D's, with one digit.
TABLE_2E = {"i3d311_r101": (1.2, 1.5), "i3d333_r101": (1.5, 1.8), "c2d_r101_nl5": (1.2, 1.2)}


def ratios(counts: dict[str, Complexity], variant: str, macs: str) -> tuple[float, float]:
    cost, base = counts[variant], counts["c2d_r101"]
    return cost.params_conv_fc / base.params_conv_fc, getattr(cost, macs) / getattr(base, macs)


def test_ratios_of_table_2e(counts: Counts) -> None:
    """The released code's conventions, with the products of non-local blocks, give all six numbers."""
    for variant, reported in TABLE_2E.items():
        params, macs = ratios(counts["release"], variant, "macs")
        assert (round(params, 1), round(macs, 1)) == reported, variant


@pytest.mark.parametrize(
    ("profile", "macs", "expected"),
    [
        ("release", "macs", {"i3d311_r101": 1.464, "i3d333_r101": 1.763, "c2d_r101_nl5": 1.232}),
        ("release", "macs_conv_fc", {"i3d311_r101": 1.464, "i3d333_r101": 1.763, "c2d_r101_nl5": 1.146}),
        ("paper", "macs", {"i3d311_r101": 1.441, "i3d333_r101": 1.712, "c2d_r101_nl5": 1.318}),
        ("paper", "macs_conv_fc", {"i3d311_r101": 1.441, "i3d333_r101": 1.712, "c2d_r101_nl5": 1.233}),
    ],
)
def test_what_each_way_of_counting_gives(profile: str, macs: str, expected: dict[str, float], counts: Counts) -> None:
    found = {variant: round(ratios(counts[profile], variant, macs)[1], 3) for variant in expected}
    assert found == expected


def test_paper_conventions_with_all_of_res2_inflated_give_table_2e_too() -> None:
    """So Table 2e tells how res2 was inflated, but not where the pool was: it depends on what was counted."""
    variants = table2().variants
    for variant in ("i3d311_r101", "i3d333_r101"):
        cost, base = (
            complexity(network(variants[name], inflate_res2="all"), (32, 224, 224)).macs
            for name in (variant, "c2d_r101")
        )
        assert round(cost / base, 1) == TABLE_2E[variant][1]


def test_five_blocks_on_resnet_50_cost_less_than_resnet_101(counts: Counts) -> None:
    """Sec. 5.1: about 70 % of the parameters and 80 % of the FLOPs."""
    params, macs = ratios(counts["release"], "c2d_r50_nl5", "macs")
    assert (round(params, 3), round(macs, 3)) == (0.732, 0.808)
    assert round(ratios(counts["paper"], "c2d_r50_nl5", "macs_conv_fc")[1], 3) == 0.812


@pytest.mark.parametrize("profile", PROFILES)
def test_long_clips_cost_four_times_as_much_but_for_pairs(profile: str, counts: Counts) -> None:
    """Convolutions are linear in time and the pairs of spacetime quadratic; the classifier sees one mean."""
    c, fc = counts[profile], 2048 * 400
    for name in ("c2d_r50", "i3d311_r50_nl5"):
        short, long = c[name], c[f"{name}_128f"]
        assert long.macs_conv_fc - fc == 4 * (short.macs_conv_fc - fc)
        assert long.macs - long.macs_conv_fc == 16 * (short.macs - short.macs_conv_fc)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize(
    ("instantiation", "sum_over"),
    [
        ("embedded_gaussian", "space"),
        ("embedded_gaussian", "time"),
        ("embedded_gaussian", "spacetime"),
        ("gaussian", "spacetime"),
        ("dot_product", "spacetime"),
    ],
)
def test_agrees_with_torchs_counter(instantiation: Any, sum_over: Any, profile: Any) -> None:
    """torch counts two operations a MAC of what is really computed; odd sizes on purpose.

    (Not for concatenation: torch leaves out products with a vector, here w_f.)
    """
    blocks = NonLocalConfig({"res2": [0], "res3": [1, 3], "res4": [4]}, instantiation, sum_over)
    conventions = Conventions(profile=profile)
    config = ResNetConfig(50, "3x3x3", blocks, width=0.25, conventions=conventions)
    clip = (20, 76, 100)
    with torch.device("meta"), torch.no_grad():
        net = VideoResNet(config).eval()
        with FlopCounterMode(display=False) as counter:
            net(torch.empty(1, 3, *clip))
    counted = complexity(config, clip)
    assert 2 * counted.macs == counter.get_total_flops()
    assert counted.params == sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("arguments", "products"),
    [
        # res4 is 4 x 14 x 14: 784 queries of 1024 channels, 512 within the block, and 196 keys.
        ({"instantiation": "gaussian"}, 784 * 196 * (1024 + 512)),
        ({"instantiation": "embedded_gaussian"}, 784 * 196 * (512 + 512)),
        ({"instantiation": "dot_product"}, 784 * 196 * (512 + 512)),
        ({"instantiation": "concatenation"}, (784 + 196) * 512 + 784 * 196 * 512),
        ({"subsample": False}, 784 * 784 * (512 + 512)),
        ({"sum_over": "space"}, 4 * 196 * 49 * (512 + 512)),
        ({"sum_over": "time"}, 196 * 4 * 4 * (512 + 512)),
    ],
    ids=str,
)
def test_products_of_a_block(arguments: dict[str, Any], products: int) -> None:
    counted = complexity(ResNetConfig(50, non_local=NonLocalConfig({"res4": [4]}, **arguments)))
    assert counted.macs - counted.macs_conv_fc == products


def test_groups_of_frames_have_fewer_pairs() -> None:
    """128 frames leave 16 in res3: four groups of four have a quarter of the pairs."""
    blocks, clip = NonLocalConfig({"res3": [1]}), (128, 224, 224)
    whole, grouped = (
        complexity(ResNetConfig(non_local=blocks, conventions=Conventions("release", res3_group=group)), clip)
        for group in (0, 4)
    )
    assert whole.macs_conv_fc == grouped.macs_conv_fc
    assert whole.macs - whole.macs_conv_fc == 4 * (grouped.macs - grouped.macs_conv_fc)


@pytest.mark.parametrize(("frames", "wrong"), [(1, "small"), (10**15, "large")])
def test_a_clip_that_is_too_small_or_too_large_is_refused(frames: int, wrong: str) -> None:
    config = ResNetConfig(conventions=Conventions(profile="release"))
    with pytest.raises(UserError, match=rf"clip: {frames}x224x224 \(frames, height, width\) is too {wrong}") as refused:
        complexity(config, (frames, 224, 224))
    assert "\n" not in str(refused.value)


def test_forms_of_the_blocks_of_a_network() -> None:
    config = ResNetConfig(50, "none", NonLocalConfig({"res2": [1], "res4": [4]}, "dot_product"))
    res2, res4 = block_costs(config, (32, 224, 224))
    assert (res2.name, res2.sets, res2.queries, res2.keys, res2.form) == ("res2.1", 1, 25088, 6272, "associated")
    assert (res4.name, res4.sets, res4.queries, res4.keys, res4.form) == ("res4.4", 1, 784, 196, "pairs")
    assert res2.matrix == 25088 * 6272
    assert block_costs(ResNetConfig(50), (32, 224, 224)) == []
    embedded = ResNetConfig(50, "none", NonLocalConfig({"res3": [1]}))
    assert [block_costs(embedded, (32, 224, 224), "cpu", half)[0].form for half in (False, True)] == [
        "attention",
        "pairs",
    ]


COSTS = ROOT / "experiments" / "table2.costs.json"  # what reports compare without torch


def costs_of_table2(counts: Counts) -> str:
    """Parameters and MACs of the variants, as the released code builds them: its counts are the paper's."""
    found = {name: counts["release"][name] for name in table2().variants}
    return "{\n" + ",\n".join(f' "{name}": [{c.params}, {c.macs}]' for name, c in found.items()) + "\n}\n"


def test_the_costs_in_claims_are_the_papers_networks(counts: Counts) -> None:
    assert COSTS.read_text() == costs_of_table2(counts)


if __name__ == "__main__":
    golden = {
        profile: {name: asdict(count(variant, profile)) for name, variant in every_variant().items()}
        for profile in PROFILES
    }
    GOLDEN.write_text(json.dumps(golden, indent=1) + "\n")
    of = {profile: {name: Complexity(**c) for name, c in each.items()} for profile, each in golden.items()}
    COSTS.write_text(costs_of_table2(of))
