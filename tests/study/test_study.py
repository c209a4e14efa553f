import hashlib
import math
import re
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from nl_lightning.errors import UserError
from nl_lightning.study.checks import Part, Share
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import load_recipe
from nl_lightning.study.study import Study

REPOSITORY = Path(__file__).parents[2]
EXPERIMENTS = REPOSITORY / "experiments"

SMALL = """
name: small
title: "A small study"
reported_on: kinetics400
recipe: quick
variants:
  deep: {net: {depth: 101}}
  plain: {net: {depth: 50}}
  block: {net: {depth: 50, non_local: {placement: {res4: [4]}, instantiation: dot_product, sum_over: time}}}
  long: {net: {depth: 50}, clip: 128f, init_from: plain}
tables:
  a:
    caption: "One block"
    rows:
      - {label: none, variant: plain, reported: {top1: 71.8, top5: 89.7}}
      - {label: one, variant: block, baseline: plain, reported: {top1: 72.9, top5: 90.3}}
  b:
    caption: "Long clips"
    rows:
      - {label: long, variant: long, baseline: plain, reported: {top1: 73.8}}
  depth: {caption: "Depth", rows: [{label: deep, variant: deep}]}
claims:
  - id: helps
    table: a
    text: A block helps.
    checks:
      - better: {variant: block, than: plain, by: 0.5}
      - alike: {variants: [block, long], within: 1}
      - ordered: {variants: [plain, block, long]}
      - cheaper: {variant: plain, than: deep, in: params, reported: 0.5}
  - {id: why, text: Because., note: no row says so}
"""


@pytest.fixture(scope="module")
def table2() -> Study:
    return load_study(EXPERIMENTS / "table2.yaml")


def small(tmp_path: Path, text: str = SMALL) -> Study:
    path = tmp_path / "small.yaml"
    path.write_text(text)
    return load_study(path)


# ---------------------------------------------------------------------------------------------------- Table 2 itself


def test_table2_has_every_row_and_every_number(table2: Study) -> None:
    rows = [(table.name, row) for table in table2.tables.values() for row in table.rows]
    assert Counter(name for name, _ in rows) == {"2a": 5, "2b": 5, "2c": 8, "2d": 8, "2e": 4, "2f": 6, "2g": 6}
    assert len(table2.variants) == 29
    assert {row.variant for _, row in rows} == set(table2.variants)
    top1, top5, params, flops = (
        [row.reported[key] for _, row in rows if key in row.reported]
        for key in ("top1", "top5", "params_ratio", "flops_ratio")
    )
    assert (len(top1), len(top5), len(params), len(flops)) == (42, 42, 4, 4)
    assert round(sum(top1), 1) == 3098.7
    assert round(sum(top5), 1) == 3821.2
    assert (round(sum(params), 1), round(sum(flops), 1)) == (4.9, 5.5)


def test_no_reported_number_changes_by_accident(table2: Study) -> None:
    """The digest was taken when the numbers had been compared with the paper, one by one."""
    keys = ("top1", "top5", "params_ratio", "flops_ratio")
    lines = [
        f"{table.name} {row.label} {row.variant} {tuple(map(row.reported.get, keys))}"
        for table in table2.tables.values()
        for row in table.rows
    ]
    assert hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16] == "8b8c66c8c1c0f063"


def test_each_gain_is_taken_from_its_own_baseline(table2: Study) -> None:
    for table in table2.tables.values():
        for row in table.rows:
            variant = table2.variants[row.variant]
            if table.name == "2g":
                assert row.baseline == variant.init_from  # the same network on short clips
            elif row.variant in ("c2d_r50", "c2d_r101"):
                assert row.baseline is None
            else:
                assert row.baseline == f"c2d_r{variant.net['depth']}"


def test_the_names_of_variants_say_what_they_are(table2: Study) -> None:
    for variant in table2.variants.values():
        columns = variant.columns()
        assert variant.name.startswith("c2d" if columns["backbone"] == "c2d" else "i3d")
        assert f"_r{columns['depth']}" in variant.name
        blocks = re.search(r"_nl(\d+)", variant.name)
        assert columns["blocks"] == (int(blocks[1]) if blocks else 0)
        assert (variant.clip == "128f") == variant.name.endswith("_128f")
        if variant.init_from:  # the same network, on short clips
            assert variant.name == f"{variant.init_from}_128f"
            assert variant.net == table2.variants[variant.init_from].net
    assert table2.variants["c2d_r50_nl5_time"].columns() == {
        "variant": "c2d_r50_nl5_time",
        "backbone": "c2d",
        "depth": 50,
        "inflate": "none",
        "instantiation": "embedded_gaussian",
        "stage": "res3+res4",
        "blocks": 5,
        "placement": "res3x2+res4x3",
        "sum_over": "time",
        "control": "none",
        "clip": "default",
    }


def test_the_papers_own_numbers_fulfil_its_claims(table2: Study) -> None:
    """Every part of every claim, with margins as shares of the reported gains."""
    assert [claim.name for claim in table2.claims] == [
        "a1", "a2", "a3", "b1", "b2", "c1", "c2", "c3", "d1", "d2", "e1", "f1", "g1", "g2", "fig4",
    ]  # fmt: skip
    checks = [(claim.name, check) for claim in table2.claims for check in claim.checks if check.curve is None]
    for name, check in checks:
        for variant, than in check.pairs():
            if check.cost is not None:
                continue
            gain, over = table2.reported_gain(variant, than), check.over and table2.reported_gain(*check.over)
            assert gain is not None
            bounds = check.bounds
            if isinstance(check.margin, Share):
                effect = table2.reported_gain(*check.margin.of)
                assert effect is not None
                edge = check.margin.share * effect
                bounds = (edge, math.inf) if check.within is None else (-edge, edge)
            assert bounds is not None
            low, high = bounds
            assert low < gain - (over or 0) < high, (name, variant, than)


def test_run_order(table2: Study) -> None:
    order = table2.select()
    assert sorted(order) == sorted(table2.variants)
    assert order[:5] == [row.variant for row in table2.tables["2a"].rows]  # the first table is complete first
    depths = [table2.variants[name].net["depth"] for name in order]
    assert depths == [50] * 17 + [101] * 12
    for name in order:
        parent = table2.variants[name].init_from
        assert parent is None or order.index(parent) < order.index(name)


def test_selecting_takes_baselines_and_parents_along(table2: Study) -> None:
    assert table2.select(tables=["2e"]) == ["c2d_r101", "c2d_r101_nl5", "i3d333_r101", "i3d311_r101"]
    assert table2.select(variants=["i3d311_r50_128f"]) == ["i3d311_r50", "i3d311_r50_128f"]
    assert table2.select(tables=["2b", "2e"], variants=["c2d_r101", "c2d_r50_nl5"]) == ["c2d_r101"]
    assert table2.select(variants=[]) == []
    with pytest.raises(UserError, match="no table '2h'; known: 2a, 2b"):
        table2.select(tables=["2h"])
    with pytest.raises(UserError, match="no variant 'c2d_r50_nl6'; did you mean 'c2d_r50_nl5'"):
        table2.select(variants=["c2d_r50_nl6"])


def test_a_baseline_from_another_table_is_selected_too(tmp_path: Path) -> None:
    over_block = SMALL.replace("variant: long, baseline: plain", "variant: long, baseline: block")
    assert small(tmp_path, over_block).select(tables=["b"]) == ["block", "plain", "long"]


def test_arguments(table2: Study) -> None:
    assert table2.variants["c2d_r50"].arguments() == ["--model.net.depth=50"]
    assert table2.variants["i3d311_r50_nl5"].arguments() == [
        "--model.net.depth=50",
        "--model.net.inflate=3x1x1",
        '--model.net.non_local={"placement": {"res3": [1, 3], "res4": [1, 3, 5]}, '
        '"instantiation": "embedded_gaussian", "sum_over": "spacetime"}',
    ]


def test_controls_are_settings_like_blocks() -> None:
    controls = load_study(EXPERIMENTS / "controls.yaml")
    assert controls.variants["one_pixel"].arguments() == [
        "--model.net.depth=50",
        '--model.net.control={"kind": "pixel"}',
    ]
    residual = controls.variants["c2d_r50_residual5"]
    assert residual.arguments()[1:] == [
        '--model.net.control={"kind": "residual", "placement": {"res3": [1, 3], "res4": [1, 3, 5]}, "hidden": 0.49}'
    ]
    shown = {key: residual.columns()[key] for key in ("control", "instantiation", "blocks", "placement")}
    assert shown == {"control": "residual", "instantiation": "none", "blocks": 5, "placement": "res3x2+res4x3"}


def test_absolute_numbers_compare_on_the_papers_data_only(table2: Study, tmp_path: Path) -> None:
    assert table2.comparable("kinetics400_paper")
    assert not table2.comparable("longrange")
    assert small(tmp_path, SMALL.replace("reported_on: kinetics400\n", "")).comparable("longrange")


def test_looking_at_a_study_imports_no_torch() -> None:
    code = (
        "import sys, nl_lightning.study.loading, nl_lightning.study.run, nl_lightning.report\n"
        "slow = {'torch', 'pytorch_lightning', 'pandas', 'torchvision'} & set(sys.modules)\n"
        "import nl_lightning.report.render\n"
        "print(sorted(slow), sorted({'torch', 'pytorch_lightning', 'torchvision'} & set(sys.modules)))"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert output == "[] []\n"


def test_the_example_in_the_readme_is_a_study(tmp_path: Path) -> None:
    blocks = re.findall(r"```yaml\n(.*?)```", (EXPERIMENTS / "README.md").read_text(), re.DOTALL)
    example, grid, row, module, claim = blocks
    path = tmp_path / "early_or_late.yaml"
    path.write_text(example)
    study = load_study(path)
    assert study.name == path.stem
    assert study.select() == ["plain", "early", "late", "late_i3d"]
    assert load_recipe(study.recipe).name == "longrange"
    more, whole = yaml.safe_load(row), yaml.safe_load(example)
    whole["variants"] |= more["variants"]
    whole["tables"]["where"]["rows"] += more["tables"]["where"]["rows"]
    path.write_text(yaml.safe_dump(whole))
    assert load_study(path).tables["where"].variants[-1] == "three"
    path.write_text(example + claim)
    assert [part.kind for part in load_study(path).claims[1].parts] == ["direction", "size", "direction"]
    path.write_text(module)
    assert load_study(path).variants["deep"].arguments() == ["--data.batch_size=64", "--model.layers=2"]
    path.write_text(example + grid)
    product = load_study(path).grid
    assert product is not None
    assert "dot_product_res4x2_space" in product.variants
    assert list(product.impossible) == ["res5x4"]


# ---------------------------------------------------------------------------------------------------- what is refused


def test_a_small_study_is_read(tmp_path: Path) -> None:
    study = small(tmp_path)
    assert "top5" not in study.tables["b"].rows[0].reported
    assert [check.pairs() for check in study.claims[0].checks] == [
        [("block", "plain")],
        [("long", "block")],
        [("block", "plain"), ("long", "block")],
        [("plain", "deep")],
    ]
    assert study.claims[1].parts == (Part("direction", "Because.", (), {"": "no row says so"}),)
    assert study.select() == ["plain", "block", "long", "deep"]
    assert "top1" not in study.reported("deep")


DEEP = "{net: {depth: 101}}"


def test_a_network_is_written_once(tmp_path: Path) -> None:
    """`like` is another variant's network. `study` is another study's variant, wherever it has that from."""
    (tmp_path / "first.yaml").write_text(SMALL.replace("name: small", "name: first"))
    second = SMALL.replace("name: small", "name: second").replace("plain: {net: {depth: 50}}", "plain: {study: first}")
    second = second.replace(DEEP, "{like: block, clip: more}")
    (tmp_path / "second.yaml").write_text(second)
    third = second.replace("name: second", "name: third").replace("first", "second")
    third = re.sub(r"long: \{net: .*\}", "long: {study: second}", third)
    (tmp_path / "third.yaml").write_text(third)
    first, *others = (load_study(tmp_path / f"{name}.yaml").variants for name in ("first", "second", "third"))
    for found in others:
        assert list(found) == list(first)
        assert {name: found[name] for name in ("plain", "block", "long")} == {
            name: first[name] for name in ("plain", "block", "long")
        }
        assert found["deep"] == replace(first["block"], name="deep", clip="more")
    (tmp_path / "first.yaml").write_text(second.replace("first", "third"))
    with pytest.raises(UserError, match="goes round in a circle: plain -> plain -> plain"):
        load_study(tmp_path / "third.yaml")
    (tmp_path / "first.yaml").write_text(SMALL.replace("plain: {net: {depth: 50}}", "plain: {net: {depth: 101}}"))
    (tmp_path / "third.yaml").write_text(third.replace("plain: {study: second}", "plain: {net: {depth: 50}}"))
    with pytest.raises(UserError, match="variants.plain: long, of another study, starts from another network of it"):
        load_study(tmp_path / "third.yaml")
    (tmp_path / "second.yaml").write_text(second + "model: {class_path: beta.Net}\n")
    with pytest.raises(UserError, match=r"plain.study: .*first.yaml: model: expected the same as in .*second.yaml, or"):
        load_study(tmp_path / "second.yaml")


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("title:", "titel:", "unknown key 'titel'; did you mean 'title'"),
        ('title: "A small study"\n', "", "the key 'title' is missing"),
        ("name: small", "name: a/b", "name: 'a/b' names files"),
        ("  plain: {net", "  deep: {net", r"line 8: the key 'deep' is given twice"),
        (DEEP, "{net: {depth: 34}}", r"variants.deep.net.depth: expected 50 or 101, got 34"),
        (DEEP, "{net: {depth: 101}, settings: {model.net.depth: 50}}", "deep: model.net.depth is given twice"),
        (
            DEEP,
            "{settings: {model.net: {depth: 101}, model.net.depth: 50}}",
            "variants.deep: model.net.depth is given twice, by model.net too",
        ),
        (DEEP, "{net: {depth: 101}, settings: {model.predictions: a.parquet}}",
         "variants.deep.settings.model.predictions: each run has a file of its own; leave it out"),
        (DEEP, "{net: {depth: 101}, settings: {model.multi_label: true}}", "model.multi_label: belongs to a recipe"),
        (DEEP, "{settings: {trainer.default_root_dir: a}}", "trainer.default_root_dir: each run has a folder of its"),
        ("clip: 128f, init", "settings: {model.init_from: a.ckpt}, clip: 128f, init",
         "variants.long.settings.model.init_from: the variant starts from plain; leave it out"),
        (DEEP, "{nets: {depth: 101}}", "variants.deep: unknown key 'nets'; did you mean 'net'"),
        (DEEP, "{net: {depth: 101}, like: plain}", "like: the network is that of another variant; leave net and set"),
        (DEEP, "{like: plane}", "variants.deep.like: unknown 'plane'; did you mean 'plain'"),
        (DEEP, "{like: deep}", "goes round in a circle: deep -> deep"),
        (DEEP, "{like: plain, study: table2}", "study: the variant is what that study says"),
        (DEEP, "{net: {depth: 101, nonlocal: 1}}", "unknown key 'nonlocal'; did you mean 'non_local'"),
        (DEEP, "{net: {depth: 101, inflate: 3x3}}", "expected one of none, 3x1x1, 3x3x3, got '3x3'"),
        (DEEP, "{net: {depth: 101, width: wide}}", "width: expected a number above 0 and of at most 64, got 'wide'"),
        (DEEP, "{net: {depth: 101, conventions: {pool: x}}}", "unknown key 'pool'; did you mean 'max_pool'"),
        ("res4: [4]", "res4: [6]", "placement.res4: res4 of ResNet-50 has the residual blocks 0 to 5, not 6"),
        ("res4: [4]", "res4: [-1]", "0 to 5, not -1"),
        ("res4: [4]", "res4: [1, 1]", "residual block 1 is named twice"),
        ("res4: [4]", "res4: []", "placement.res4: expected numbers of residual blocks, got an empty list"),
        ("res4: [4]", "res6: [4]", "unknown key 'res6'; did you mean 'res"),
        ("{res4: [4]}", "{}", "placement: no stage"),
        ("dot_product", "dotproduct", "instantiation: expected one of gaussian, embedded_gaussian, dot_product"),
        ("sum_over: time}", "sum_over: when}", "sum_over: expected one of space, time, spacetime, got 'when'"),
        (", sum_over: time}", "}", "non_local: the key 'sum_over' is missing"),
        (DEEP, "{net: {depth: 101, control: {}}}", "deep.net.control: the key 'kind' is missing"),
        (DEEP, "{net: {depth: 101, control: {kind: averages}}}", "kind: expected one of .*did you mean 'average'"),
        (DEEP, "{net: {depth: 101, control: {kind: pixel, hiden: 1}}}", "unknown key 'hiden'; did you mean 'hidden'"),
        (DEEP, "{net: {depth: 101, control: {kind: average}}}", "control: placement: average stands in the place of"),
        (DEEP, "{net: {depth: 101, control: {kind: residual, placement: {res4: [23]}}}}",
         "deep.net.control.placement.res4: res4 of ResNet-101 has the residual blocks 0 to 22, not 23"),
        ("{depth: 50, non_local", "{depth: 50, control: {kind: pixel}, non_local",
         "block.net.control: pixel stands in the place of non-local blocks: leave non_local out"),
        ("sum_over: time}", "sum_over: time, subsample: 2}", "subsample: expected true or false, got 2"),
        ("init_from: plain", "init_from: plane", "variants.long.init_from: unknown 'plane'; did you mean 'plain'"),
        ("init_from: plain", "init_from: long", "goes round in a circle: long -> long"),
        ("plain: {net: {depth: 50}}", "plain: {net: {depth: 50}, init_from: long}", "plain -> long -> plain"),
        ("label: one", "label: none", "tables.a: two rows have the label 'none'"),
        ("label: one", "label: 1", r"tables.a.rows\[1\].label: expected a text, got 1; write it in quotes"),
        ("variant: block, baseline", "variant: plain, baseline", "'plain' can't be its own baseline"),
        ("one, variant: block, baseline: plain", "one, variant: plain", "two rows have the variant 'plain'"),
        ("variant: block, base", "variant: blok, base", r"rows\[1\].variant: unknown 'blok'; did you mean 'block'"),
        ("block, baseline: plain", "block, baseline: plan", "unknown 'plan'; did you mean"),
        ("top1: 72.9", "top1: 0729.0", "top1: expected percent, 0 to 100, got 729"),
        ("top1: 72.9", "top-1: 72.9", "reported: unknown key 'top-1'; did you mean 'top1'"),
        ("top1: 72.9", "mAP: 72.9", "reported: unknown key 'mAP'"),
        ("variant: block, baseline", "baseline", r"rows\[1\]: the key 'variant' is missing; only what others report"),
        ("recipe:", "metric: top2\nrecipe:", "metric: expected top1 or mAP, got 'top2'; did you mean 'top1'"),
        ("- {label: long,", "- {label: x, variant: block, reported: {top1: 70}}\n      - {label: long,",
         r"tables.b: block is reported with top1 70, but with 72.9 in table a"),
        ("id: helps", "id: why", "two claims have the id 'why'"),
        ("    table: a\n", "    table: c\n", r"claims\[0\].table: unknown 'c'"),
        ("better: {variant: block", "best: {variant: block", "unknown key 'best'; did you mean 'better'"),
        ("than: plain, by", "than: block, by", "better: 'block' is compared with itself"),
        ("variants: [block, long]", "variants: [block, lang]", "alike: unknown 'lang'; did you mean 'long'"),
        ("variants: [block, long]", "variants: [block, block]", "alike: 'block' is compared with itself"),
        ("variants: [block, long]", "variants: [block]", r"expected two or more different variants, got \['block'\]"),
        ("within: 1", "within: 0", "within: expected a margin above 0, in points or 'key: value' pairs, got 0"),
        (", within: 1", "", "alike: the key 'within' is missing"),
        ("within: 1", "within: {share: 0, of: {variant: block, than: plain}}",
         "alike: within: expected a share above 0, got 0"),
        ("than: plain, by: 0.5}", "than: plain, by: {share: 1, of: {variant: block, than: plain}}}",
         "better: by: expected a share below 1 of what is itself compared, got 1"),
        ("rows: [{label: deep, variant: deep}]", "rows: [{label: deep, variant: plain}]",
         "claims: helps compares 'deep', which is in no row; add a row for it"),
        ("kinetics400", "kinetics400\nreported_videos: 1.5", "reported_videos: expected a whole number of at least 1"),
        ("in: params", "in: euros", "cheaper.in: expected params or flops, got 'euros'"),
        (", note: no row says so", "", r"claims\[1\]: a claim has one of 'parts', 'checks'"),
        ("note: no row says so", "parts: [{direction: D.}]", r"parts\[0\]: a part has 'checks', or says in"),
        ("note: no row says so", "parts: [{direction: D., scope: S., not_testable: x}]", "exactly one of direction"),
        ("note: no row says so", "parts: [{not_testable: x}]", "a part says exactly one of direction, size"),
        ("note: no row says so",
         "parts: [{size: S., checks: [{ahead: {variant: plain, than: block}}], not_testable: x}]",
         "not_testable: a part with checks says on which data"),
        ("note: no row says so", "parts: [{size: S., checks: [{ahead: {variant: plain, than: blok}}]}]",
         r"claims\[1\] \(why\).ahead: unknown 'blok'; did you mean 'block'"),
        ("than: plain, by: 0.5}", "than: plain, by: {share: 0.5, of: {variant: block, than: none}}}", "unknown 'none'"),
        ("than: plain, by: 0.5}", "than: plain, by: {share: 0.5}}", "by: expected points or 'key"),
        ("than: plain, by: 0.5}", "than: plain, by: -150}", "better: expected points, -100 to 100, got -150"),
        ("better: {variant: block, than: plain, by: 0.5}",
         "contrast: {variant: block, than: plain, over: {variant: block, than: plain}}",
         "contrast: what 'block' gains over 'plain' is compared with itself"),
        ("reported: 0.5}", "within: 0.1}", "'within' needs the reported share"),
        ("recipe:", "also_reported: {gain: Theirs}\nrecipe:", "also_reported: 'gain' is measured here: choose another"),
        ("recipe:", "also_reported: {a: A, top5: B}\nrecipe:", "also_reported: 'top5' is measured here"),
        ("recipe:", "looks: [5, 3]\nrecipe:", "looks: expected numbers of seeds, each larger than the one before it"),
        ("recipe:", "looks: [1, 3]\nrecipe:", r"looks\[0\]: expected a whole number, 3 to 1000, got 1"),
        (", note: no row says so", ", checks: []", r"checks: expected one or more checks, got \[\]"),
        ("rows:\n      - {label: long", "rows: []\n    # - {label: long",
         r"tables.b.rows: expected a table of at least one row, got \[\]"),
    ],
)  # fmt: skip
def test_mistakes_are_named(tmp_path: Path, old: str, new: str, message: str) -> None:
    assert old in SMALL
    with pytest.raises(UserError, match=message) as caught:
        small(tmp_path, SMALL.replace(old, new, 1))
    assert str(caught.value).startswith(str(tmp_path / "small.yaml"))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"just words", b"- a list", b"\xff\xfe\x00", b"\x00"])
def test_files_that_are_no_study(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "small.yaml"
    path.write_bytes(content)
    with pytest.raises(UserError, match=re.escape(str(path))):
        load_study(path)


def test_studies_are_found_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # no ./experiments here: the repository's
    assert find_study("table2") == EXPERIMENTS / "table2.yaml"
    (tmp_path / "experiments").mkdir()
    (tmp_path / "experiments" / "mine.yaml").write_text(SMALL)
    assert find_study("mine") == Path("experiments/mine.yaml")
    assert find_study("table2") == EXPERIMENTS / "table2.yaml"  # both folders are searched
    assert find_study("experiments/mine.yaml") == Path("experiments/mine.yaml")
    with pytest.raises(UserError, match="no study 'tabel2' in .*; did you mean 'table2'"):
        find_study("tabel2")
    with pytest.raises(UserError, match="no study at nowhere/mine.yaml"):
        find_study("nowhere/mine.yaml")


def test_spelled_out_defaults_are_the_same_network(tmp_path: Path) -> None:
    spelled = SMALL.replace("{net: {depth: 101}}", "{net: {depth: 101, inflate: none, non_local: null}}")
    assert small(tmp_path, spelled).variants["deep"] == small(tmp_path).variants["deep"]
