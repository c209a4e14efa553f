"""What is committed can't rot: every variant under every recipe is understood, and every command shown works."""

import functools
import math
import os
import re
import shlex
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from understood import understand

from nl_lightning.cli import main
from nl_lightning.cli.table import parser
from nl_lightning.data import longrange
from nl_lightning.data.datamodule import VideoDataModule
from nl_lightning.errors import UserError
from nl_lightning.models.conventions import Conventions
from nl_lightning.models.nonlocal_block import NonLocalConfig
from nl_lightning.models.resnet import ResNetConfig, VideoResNet
from nl_lightning.report.claim_words import summary
from nl_lightning.report.claims import report
from nl_lightning.report.collate import collect
from nl_lightning.report.render import README_END, README_START, readme_block, write_tables
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import load_recipe
from nl_lightning.study.records import Record, load_records
from nl_lightning.study.run import plan
from nl_lightning.study.study import Study
from nl_lightning.train.predictions import PartWriter, VideoViews, ViewProtocol, merge
from nl_lightning.train.run_cli import ANY_MACHINE, with_recipes
from nl_lightning.weights.exporting import export_weights
from nl_lightning.weights.file import HEADER, InputSettings, WeightsHeader, save_weights, with_weights

REPOSITORY = Path(__file__).parent.parent
RECIPES = sorted(
    path.stem
    for path in (REPOSITORY / "experiments" / "recipes").glob("*.yaml")
    if not path.stem.endswith(("_128f", "_stills", "_more", "_thrice")) and not path.stem.startswith(("coco", "tags"))
)
"""Of videos; tests/detection has the others."""


@pytest.fixture(scope="module")
def table2() -> Study:
    return load_study(REPOSITORY / "experiments" / "table2.yaml")


STUDIES = sorted(
    path.stem
    for path in (REPOSITORY / "experiments").glob("*.yaml")
    if "\nmodel: {" not in path.read_text() and path.stem != "real_video"
)  # of our own networks; those of real_video are in table2


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("name", STUDIES)
def test_every_variant_is_understood_under_every_recipe(name: str, recipe: str) -> None:
    study, plain = load_study(find_study(name)), load_recipe(recipe)
    if study.metric.multi_label != plain.known.model.multi_label:
        with pytest.raises(UserError, match=f"compared by {study.metric.key}, but videos of recipe '{recipe}' have"):
            plain.check_measures(study)
        return
    runs = plan(study, plain, [0], Path("results"))
    if recipe != study.recipe:  # of each kind one; a recipe says nothing of depths and placements
        runs = list({(run.variant.clip, "non_local" in run.variant.net): run for run in runs}.values())
    for run in runs:
        if run.variant.clip is not None and not plain.overlay(run.variant.clip).exists():
            continue
        config = understand(run.arguments())
        assert config.model.net.depth == run.variant.net["depth"]
        assert config.model.net.inflate == run.variant.net.get("inflate", "none")
        asked = run.variant.net.get("non_local")
        built = config.model.net.non_local
        assert (built is None) == (asked is None)
        if asked is not None:
            assert {key: built[key] for key in asked} == asked
        stated, control = run.variant.net.get("control"), config.model.net.control
        assert (control is None) == (stated is None)
        if stated is not None:
            assert {key: control[key] for key in stated} == stated
        if run.variant.clip == "128f":
            short = plain.config["data"]
            assert config.data.num_frames > short["num_frames"]
            spans = [config.data.num_frames * config.data.frame_stride, short["num_frames"] * short["frame_stride"]]
            assert spans[0] > spans[1] or (recipe == "match" and spans[0] == spans[1])  # its short clips are whole
            assert config.model.freeze_bn


def test_the_papers_schedule_is_in_the_papers_recipe() -> None:
    """Sec. 4: what each recipe of the paper must say, read from what is handed to Lightning."""
    config = understand([f"--config={file}" for file in load_recipe("kinetics400_paper").files])
    assert config.trainer.max_steps == 400_000
    assert config.trainer.devices * config.data.batch_size == 64
    assert list(config.model.schedule.milestones) == [150_000, 300_000]
    assert config.model.optimizer.init_args.lr == 0.01
    assert (config.data.num_frames, config.data.frame_stride, config.data.num_clips) == (32, 2, 10)
    assert list(config.data.short_side) == [256, 320]
    assert config.model.net.dropout == 0.5
    assert (config.data.test_short_side, config.data.test_crop, config.model.test_pool) == (256, "whole", 7)
    assert not config.model.freeze_bn
    sgd, (first, second) = config.model.optimizer.init_args, config.model.schedule.milestones
    assert (
        f"momentum {sgd.momentum} starts at a learning rate of {sgd.lr}. It falls to a tenth after {first:,} "
        f"iterations, and again after {second:,} of {config.trainer.max_steps:,}. "
        f"Weight decay is {sgd.weight_decay}, dropout {config.model.net.dropout}."
    ) in page("docs/kinetics.md")

    long = understand([f"--config={file}" for file in load_recipe("kinetics400_paper").with_clip("128f").files])
    assert long.trainer.devices * long.data.batch_size == 16
    assert long.model.optimizer.init_args.lr * 16 / long.model.lr_batch == 0.0025
    assert (long.data.num_frames, long.data.frame_stride) == (128, 1)
    assert long.model.freeze_bn


def test_the_papers_schedule_of_charades_is_in_its_recipe() -> None:
    """Sec. 5.2, Table 4: what is said there, and the window of Kinetics scaled from 224 to 288 pixels."""
    config = understand([f"--config={file}" for file in load_recipe("charades").files])
    assert config.trainer.max_steps == 200_000
    assert config.data.batch_size == 1
    assert config.model.optimizer.init_args.lr == 0.00125
    assert list(config.model.schedule.milestones) == [75_000, 150_000]
    assert (config.model.multi_label, config.model.net.num_classes) == (True, 157)
    assert config.data.crop == 288
    assert list(config.data.short_side) == [round(side * 288 / 224) for side in (256, 320)]
    assert (config.data.test_short_side, config.data.test_crop) == (320, "whole")
    assert config.model.test_pool == 288 // 32  # the side of res5 in training


@pytest.mark.parametrize(
    ("recipe", "first", "last"),
    [
        ("ucf101", "ucfTrainTestlist/testlist01.txt", "ucfTrainTestlist/testlist03.txt"),
        ("hmdb51", "testTrainMulti_7030_splits/*_test_split1.txt", "testTrainMulti_7030_splits/*_test_split3.txt"),
    ],
)
def test_seeds_are_official_splits_in_the_recipes_of_small_sets(recipe: str, first: str, last: str) -> None:
    assert load_recipe(recipe).folds == 3
    data = understand([f"--config={file}" for file in load_recipe(recipe).files]).data
    for seed, listed in ((0, first), (2, last)):
        assert VideoDataModule("data", test_list=data.test_list, folds=data.folds, seed=seed).lists["test"] == listed


def shown(file: str) -> list[list[str]]:
    """The words of each command of ours in the code blocks of a page, without its comment."""
    blocks = re.findall(r"```(\w*)\n(.*?)```", (REPOSITORY / file).read_text(), re.DOTALL)
    lines = [line for language, block in blocks if language in ("", "sh") for line in block.splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("nl-lightning ")]


@pytest.fixture(scope="module")
def released(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the README's commands on weights find: a released file, what comes of it, and predictions of it."""
    folder = tmp_path_factory.mktemp("released")
    net = ResNetConfig(inflate="3x1x1", width=1 / 64, conventions=Conventions("release"))
    weights = folder / "i3d_nl5.safetensors"
    save_weights(weights, VideoResNet(net).state_dict(), WeightsHeader(net, InputSettings(32, 2), "caffe2", ""))
    for kind in ("nonlocal", "baseline"):
        export_weights(weights, folder / f"i3d_{kind}_32x2_IN_pretrain_400k.pkl", "caffe2")
    shutil.copy(weights, folder / "mine.safetensors")
    part = PartWriter(folder / "part")
    part.add(0, VideoViews("a.mp4", 1, np.zeros((30, 400), np.float16)))
    part.close()
    merge([folder / "part"], folder / "i3d_nl5.parquet", ViewProtocol(10, 3, 400))
    for variant in ("c2d_r50", "c2d_r50_nl5", "i3d311_r50", "i3d311_r50_nl5", "c2d_r50_nl1_res4"):
        _trained(folder, variant)
    runs = folder / "my_results/runs"
    for variant in ("c2d_r50_nl5", "i3d311_r101_128f", "i3d311_r101_nl5_128f"):
        shutil.copytree(runs / "longrange/c2d_r50", runs / "kinetics400_paper" / variant)
    video = folder / "data/longrange/test/context_spacetime_same/test_00001.mp4"
    video.parent.mkdir(parents=True)
    video.write_bytes(longrange.encode(np.zeros((32, 36, 36, 3), np.uint8), 16))
    return folder


def _trained(folder: Path, variant: str) -> None:
    """What a run leaves behind, as far as the README's figures need it, and the weight file that comes of it."""
    net = ResNetConfig(
        non_local=NonLocalConfig({"res4": [4]}) if "nl" in variant else None,
        num_classes=11, width=1 / 64, temporal_strides=(1, 1, 2), spatial_strides=(2, 2, 1, 1, 1, 1),
    )  # fmt: skip
    header = WeightsHeader(net, InputSettings(8, 2, test_short_side=36, test_crop=32), "nl-lightning", "")
    state = VideoResNet(net).state_dict()
    checkpoint = folder / "my_results/runs/longrange" / variant / "seed0/checkpoints/last.ckpt"
    checkpoint.parent.mkdir(parents=True)
    torch.save({"state_dict": {f"net.{k}": v for k, v in state.items()}, HEADER: header.to_json()}, checkpoint)
    save_weights(folder / f"{variant}.safetensors", state, header)


PAGES = ["README.md", *(str(page.relative_to(REPOSITORY)) for page in sorted(REPOSITORY.glob("*/*.md")))]


@pytest.mark.parametrize("command", [words for page in PAGES for words in shown(page)], ids=" ".join)
def test_a_command_that_is_shown_works(
    command: list[str], released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(released, tmp_path, dirs_exist_ok=True)
    shutil.copytree(REPOSITORY / "experiments", tmp_path / "experiments")
    for name in ("sbatch", "srun"):  # --cluster slurm looks for them
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.chdir(tmp_path)
    verb, *rest = command
    if verb in ("fit", "test"):
        words = with_weights([verb, *(word for word in rest if not word.startswith("--ckpt_path"))])
        understand(with_recipes(words[1:]) + ANY_MACHINE)
    elif verb == "run" and "--failed" not in rest:
        assert main([verb, *rest, "--dry-run"]) == 0
    elif verb == "complexity":  # tests/models/test_complexity.py counts all of them
        assert main([*command, "--variant", "c2d_r50_nl1_res2"]) == 0
    elif verb == "tables":
        assert parser().parse_args(command)
        assert main([verb, "--report-only"]) == 0
    elif verb in ("data", "wandb-report") or {"--wandb", "--failed", "publish"} & {*rest}:  # no data, project or runs
        assert parser().parse_args(command)
    else:
        assert main(command) == 0


def test_commands_are_shown() -> None:
    """Every command stands on some page, and those that a newcomer needs on the first one."""
    assert {words[0] for words in shown("README.md")} >= {"run", "status", "report", "complexity"}
    assert {words[0] for page in PAGES for words in shown(page)} >= {
        "run", "status", "report", "power", "sweeps", "complexity", "fit", "test", "attend", "reach", "predict", "data",
        "weights", "rescore",
    }  # fmt: skip


def test_a_switch_is_one_difference() -> None:
    """Networks of implementation.yaml differ from the one that they are compared with in the switch that they name."""
    runs = {
        run.variant.name: run
        for run in plan(load_study(find_study("implementation")), load_recipe("longrange"), [0], Path("r"))
    }

    def rules(name: str) -> dict[str, Any]:
        return asdict(Conventions(**understand(runs[name].arguments()).model.net.conventions).rules)

    for name, switch in {
        "c2d_r50_nl5_pool_before": {"subsample": "before"}, "c2d_r50_nl5_unscaled": {"scale": False},
        "c2d_r50_nl5_gaussian_init": {"nonlocal_init": "gaussian"}, "c2d_r50_nl5_gamma1": {"nonlocal_gamma": 1.0},
        "c2d_r50_nl5_unpadded": {"max_pool": "unpadded"}, "c2d_r50_nl5_decay_bn": {"decay_bn": True},
        "i3d311_r50_nl5_res2_all": {"inflate_res2": "all"},
    }.items():  # fmt: skip
        assert rules(name) == rules(name.partition("_nl5")[0] + "_nl5") | switch
    assert rules("c2d_r50_nl5_release") == asdict(Conventions("release").rules)


FIRST = (0, 1, 2, 4, 5)  # seed 3 chose these recipes
SEEDS = {
    **{(study, "longrange"): range(5) for study in ("implementation", "long_training")},
    ("stages", "place"): FIRST,
    ("controls_thrice", "match"): (1, 2, 4),
}
"""Of studies that share networks with others, which have more seeds."""


@pytest.mark.parametrize(
    ("study", "recipe", "page"),
    [
        ("table2", "longrange", "README"),
        ("stages", "place", "stages"),
        ("table2", "match", "match"),
        ("controls", "match", "controls"),
        ("controls", "longrange", "controls_longrange"),
        ("controls", "place", "controls_place"),
        ("controls_thrice", "match", "controls_thrice"),
        ("implementation", "longrange", "implementation"),
        ("long_training", "longrange", "long_training"),
        ("real_video", "tennis7", "real_video"),
        ("table5", "tags", "table5"),
        ("table6", "tags_keypoints", "table6"),
        ("controls_objects", "tags", "controls_objects"),
        ("controls_keypoints", "tags_keypoints", "controls_keypoints"),
    ],
)
def test_what_is_shown_is_what_was_measured(study: str, recipe: str, page: str, tmp_path: Path) -> None:
    """The committed tables and the pages of results/ are those of the committed records, whose configuration stands."""
    results = REPOSITORY / "results"
    made = report(collect(load_study(find_study(study)), load_recipe(recipe), results, SEEDS.get((study, recipe))))
    assert {state.name for state in made.runs.states.values()} <= {"done", "missing"}
    way = f"tables/{recipe}/{study}.md"
    assert f"{README_START}\n{readme_block(made, way)}\n{README_END}" in (results / f"{page}.md").read_text()
    for path in write_tables(made, tmp_path):
        committed = results / path.relative_to(tmp_path)
        assert committed.read_text() == path.read_text()


@functools.cache
def records_of(recipe: str) -> list[Record]:
    return load_records(REPOSITORY / "results", recipe)[0]


def committed(recipe: str, field: str, group: str = "") -> dict[str, list[float]]:
    """A number of every committed record of a recipe, by variant: a score, or the score of a group of videos."""
    found: dict[str, list[float]] = {}
    for record in records_of(recipe):
        value = getattr(record, field)
        if value is not None and (not group or group in value):
            found.setdefault(record.variant, []).append(value[group] if group else value)
    return found


def hard_of_match() -> dict[str, list[float]]:
    return committed("match", "top1_by_group", "match_spacetime_hard")


def page(name: str) -> str:
    return " ".join((REPOSITORY / name).read_text().split())


def test_the_first_pages_numbers_are_measured() -> None:
    """The short table of the README: accuracies on hard videos are those of the committed records."""
    text = (REPOSITORY / "README.md").read_text()
    summary = text.partition("<!-- summary:start -->")[2].partition("<!-- summary:end -->")[0]
    lines = [[cell.strip(" `") for cell in line.strip("|").split("|")] for line in summary.strip().splitlines()[2:]]
    hard = hard_of_match()
    assert len(lines) == 12
    for name, *_, seeds, mean, around in lines:
        of = hard[name]
        assert (seeds, mean, around) == (str(len(of)), f"{np.mean(of):.1f}", f"{min(of):.1f} to {max(of):.1f}"), name


def test_sentences_on_match_are_so() -> None:
    """Numbers in sentences are means of the committed seeds. What is said of every training is so in every training."""
    each = {name.removeprefix("c2d_r50_"): of for name, of in hard_of_match().items()}
    hard = {name: np.mean(of) for name, of in each.items()}
    said = {
        "results/match.md": (
            f"One block in res4 ended between {min(each['nl1_res4']):.0f} and {max(each['nl1_res4']):.0f} %, "
            f"and eight of ten at {sorted(each['nl1_res4'])[2]:.0f} or more",
            "Gaussian {nl1_res4_gaussian:.0f}, embedded Gaussian {nl1_res4:.0f}, dot product {nl1_res4_dot:.0f}, "
            "concatenation {nl1_res4_concat:.0f} %",
            "res2 {nl1_res2:.0f}, res3 {nl1_res3:.0f}, res4 {nl1_res4:.0f}, res5 {nl1_res5:.0f} %",
            "five reach {nl5:.0f}, ten {nl10:.0f} %",
            "{i3d311_r50_nl5:.0f} against {nl5:.0f} %",
        ),
        "results/controls.md": (
            "{query_independent5:.0f} % of hard videos. One non-local block in res4 has {nl1_res4:.0f}, five have "
            "{nl5:.0f}.",
            "[{nl1_res4_concat:.0f} %](match.md)",
        ),
        "docs/cards/match.md": (
            "reaches {query_independent5:.0f} % of the hard part, one non-local block {nl1_res4:.0f} % and five "
            "{nl5:.0f} %",
        ),
    }
    for name, sentences in said.items():
        for sentence in sentences:
            assert sentence.format_map(hard) in page(name)
    fives = [name for name in each if name.endswith("5") and "nl" not in name]
    controls = ["one_pixel", "hidden", "average1", "query_independent1", "residual1", *fives]
    assert set(controls) == {n.removeprefix("c2d_r50_") for n in load_study(find_study("controls")).variants
                             if "nl" not in n and n != "c2d_r50"}  # fmt: skip
    assert max(controls, key=lambda name: hard[name]) == "query_independent5"
    others = [score for name in controls if name != "query_independent5" for score in each[name]]
    assert f"All other controls end at {max(others):.0f} % or below" in page("results/controls.md")
    assert max(each["nl1_res4_concat"]) < max(others)
    for name in controls:  # seed by seed
        ahead = [block > control for block, control in zip(each["nl1_res4"], each[name], strict=True)]
        assert len(ahead) == 10
        assert 10 - sum(ahead) == (name == "query_independent5"), "README.md, results/controls.md, the card"
        assert all(block > control for block, control in zip(each["nl5"], each[name], strict=True))
    assert max(hard[name] for name in ("nl1_res2", "nl1_res3", "nl1_res4_concat")) < hard["query_independent5"]
    assert min(each["nl5"] + each["nl10"]) > 87.5
    assert max(each["i3d311_r50_nl5"]) < min(each["nl5"])
    behind = {name: hard["nl1_res4"] - hard[name] for name in controls}
    assert min(behind.values()) > 15, "docs/cards/match.md"
    near = {name: min(np.subtract(each["nl1_res4"], each[name])) for name in controls if name != "query_independent5"}
    assert f"another control is {min(near.values()):.0f} points below" in page("docs/cards/match.md")
    verdicts = page("results/controls.md")
    assert "The 3 claims have 7 parts: 7 hold" in verdicts
    later = {name: hard["nl1_res4_thrice"] - hard[f"{name}_thrice"] for name in controls}
    assert [name for name in controls if min(behind[name], later[name]) < 15] == ["query_independent5"]
    card, rows = page("docs/cards/match.md"), load_study(find_study("controls")).tables.values()
    labels = {row.variant: row.label for table in rows for row in table.rows}
    for name in controls:
        label = labels[name if name in labels else f"c2d_r50_{name}"]
        met = "no" if min(behind[name], later[name]) < 15 else "yes"
        assert f"| {label} | {behind[name]:.0f} | {later[name]:.0f} | {met} |" in card
    longer = {name.removesuffix("_thrice"): score for name, score in hard.items() if name.endswith("_thrice")}
    for sentence in (
        "reach {query_independent5:.0f} % of hard videos. One non-local block has {nl1_res4:.0f}.",
        "Five average contexts reach {average5:.0f}, one reaches {average1:.0f}, and one attention "
        "{query_independent1:.0f} %. A hidden layer has {hidden:.0f} %.",
    ):
        assert sentence.format_map(longer) in page("results/controls_thrice.md")
    least = min(later[name] for name in controls if name.endswith("1"))
    assert f"every single module in its place, by {np.floor(least):.0f} points or more" in page(
        "results/controls_thrice.md"
    )
    assert (
        "that control has {query_independent5:.0f} % and one block {nl1_res4:.0f} % (three".format_map(longer) in card
    )
    assert {len(each[f"{name}_thrice"]) for name in [*controls, "nl1_res4"]} == {3}
    apart = {name: np.ptp(each[f"{name}_thrice"]) for name in [*controls, "nl1_res4"]}
    assert (
        f"end at most {np.ceil(max(apart.values())):.0f} points apart. One block ends within "
        f"{np.ceil(apart['nl1_res4']):.0f}"
    ) in page("results/controls_thrice.md")
    soft = committed("match", "soft_by_group", "match_spacetime_hard")
    for name in ("c2d_r50_thrice", "residual1_thrice", "residual5_thrice"):
        assert max(abs(score - 50) for score in soft["c2d_r50_" + name.removeprefix("c2d_r50_")]) < 1
    guessed, time = [*each["c2d_r50"], *each["nl5_space"], *each["i3d311_r50"]], each["nl5_time"]
    stay = f"stay near chance: {np.min(guessed):.0f} to {np.max(guessed):.0f} %"
    beyond = [top1 for top1 in guessed if abs(top1 - 50) > norm.isf(0.0005) * 50 / math.sqrt(1500)]
    assert beyond == [max(each["i3d311_r50"])]
    most = max(abs(score - 50) for name in ("c2d_r50", "c2d_r50_nl5_space", "i3d311_r50", "c2d_r50_nl5_time")
               for score in soft[name])  # fmt: skip
    over_time = f"Blocks over time alone reach {min(time):.0f} to {max(time):.0f} %."
    assert f"{stay}. {over_time}" in page("README.md")
    assert (
        f"{stay} in each training. One I3D, at {beyond[0]:.1f} %, is further from 50 than guessing comes in 999 of "
        f"1,000 tests. {over_time} By soft score none of these is more than {most:.1f} points above 50"
    ) in page("results/match.md")


def test_what_is_said_of_claims_on_match_is_so() -> None:
    """results/match.md: each sentence on a verdict beside the line of the committed table that it is taken from."""
    table, text = page("results/tables/match/table2.md"), page("results/match.md")
    for measured, said in (
        ("concatenation - Gaussian, embed is -31.6 [-39.3, -24.0]", "31.6 points of soft score [24.0, 39.3] behind"),
        ("Gaussian, embed - C2D baseline (+34.1 [28.0, 40.3])", "would be within 17.1, half of what one block"),
        ("(p = 0.034): concatenation - C2D baseline is +2.5 [0.2, 4.8]", "It is 2.5 points of soft score [0.2, 4.8]"),
        ("(p = 0.013), but not as one of 10 parts: dot-product - Gaussian, embed is -10.5 [-17.1, -3.8]",
         "The dot product is 10.5 points [3.8, 17.1] behind embedded Gaussian"),
        ("(p = 0.02): res2 - baseline is +14.3 [2.9, 25.8]",
         "in res2 (b1, premise): +14.3 points [2.9, 25.8], p = 0.020"),
        ("2 hold (fig4 direction, fig4 scope), 1 fails (a2), 4 stay undecided (a1 direction, a3 direction, b1 premise, "
         "b1 direction 1), 2 hold by cost alone", "The other 19 parts"),
    ):  # fmt: skip
        assert measured in table
        assert said in text
    learned = {name: sum(score > 75 for score in of) for name, of in committed(
        "match", "soft_by_group", "match_spacetime_hard").items()}  # fmt: skip
    assert [learned[f"c2d_r50_nl1_{stage}"] for stage in ("res2", "res3", "res4")] == [2, 2, 8]
    assert "On `match`, [ten seeds decide three](results/match.md)" in page("README.md")


def test_what_is_said_of_missed_aims_is_so(table2: Study) -> None:
    """results/README.md: trainings of blocks over space and time that have 95 % of a group, and spreads of seeds."""
    text = page("results/README.md")
    for recipe, group, said in (
        ("place", "place", "Under `place` {} of {} trainings"),
        ("match", "match_spacetime", "Under `match` {} of {} do so"),
        ("match", "match_spacetime_hard", "at all distances, and {} with hard ones"),
    ):
        found = committed(recipe, "top1_by_group", group)
        blocks = [name for name, of in table2.variants.items() if of.net.get("non_local") and name in found]
        of = [
            top1 for n in blocks if table2.variants[n].net["non_local"]["sum_over"] == "spacetime" for top1 in found[n]
        ]
        assert said.format(sum(top1 >= 95 for top1 in of), len(of)) in text
    spread = [np.std(committed("longrange", "top1")[name], ddof=1) for name in table2.variants]
    assert f"{sum(one <= 1.5 for one in spread)} of {len(spread)} networks keep to it" in text


def test_sentences_on_longrange_are_so(table2: Study) -> None:
    """What results/README.md says was seen is so in every committed seed."""
    groups = ("context_space", "context_time", "context_spacetime", "motion", "slow")
    scores = {group: committed("longrange", "soft_by_group", group) for group in groups}

    def learned(name: str) -> list[set[str]]:
        """What each training has learned."""
        every = zip(*(scores[group][name] for group in groups), strict=True)
        return [{g for g, x in zip(groups, of, strict=True) if x > table2.learned[g].threshold} for of in every]

    short = {name: of.net.get("non_local") for name, of in table2.variants.items() if of.clip is None}
    blocks = [name for name, non_local in short.items() if non_local and non_local["sum_over"] == "spacetime"]
    assert len(blocks) == 14
    text = page("results/README.md")
    trained = {(name, seed): found for name in blocks for seed, found in enumerate(learned(name))}
    missed = {key: found for key, found in trained.items() if not found >= set(groups[:3])}
    assert f"in {len(trained) - len(missed)} of {len(trained)} trainings" in text
    assert Counter(name for name, _ in missed) == {
        "c2d_r50_nl1_res4_gaussian": 1, "c2d_r50_nl1_res3": 1, "c2d_r101_nl1_res4": 4
    }  # fmt: skip
    assert [name for (name, _), found in missed.items() if not found] == ["c2d_r50_nl1_res3"]
    right = [committed("longrange", "top1_by_group", group) for group in groups[:3]]
    far = sum(min(of) >= 95 for name in blocks for of in zip(*(group[name] for group in right), strict=True))
    assert f"By accuracy, {far} of {len(trained)} have 95 % or more in each of the three" in text
    alone = [found for depth in ("r50", "r101") for found in learned(f"c2d_{depth}")]
    assert f"in {sum(map(bool, alone))} of {len(alone)} trainings, and of the groups" in text
    assert all(found <= {"context_space"} for found in alone)
    for depth in ("r50", "r101"):
        assert all(seed == {"context_space"} for seed in learned(f"c2d_{depth}_nl5_space"))
        assert all("context_time" in seed for seed in learned(f"c2d_{depth}_nl5_time"))
        assert all(seed >= {"motion", "context_time"} for seed in learned(f"i3d311_{depth}"))
        assert all("slow" in seed for seed in learned(f"i3d311_{depth}_nl5_128f"))
        assert not any("slow" in seed for kind in ("c2d", "i3d311") for seed in learned(f"{kind}_{depth}_128f"))
    each = committed("longrange", "top1")
    whole = {n: [x for seed, x in enumerate(each[n]) if (n, seed) not in missed] for n in blocks}
    of_c2d = [np.mean(of) for name, of in whole.items() if name.startswith("c2d")]
    assert max(of_c2d) - min(of_c2d) < 1, "is C2D with blocks still at the ceiling?"
    assert max(max(of) - min(of) for of in whole.values()) < 2
    behind = [min(whole[name]) - each[name][seed] for name, seed in missed]
    assert f"but for the six that missed groups: they are up to {max(behind):.0f} points behind" in text
    decided = {
        "13 hold": "a1 direction, a2, a3 direction, b1 premise, c1 scope, c2 direction, d2, f1 direction, f1 scope, "
        "g1 direction, g2, fig4 direction, fig4 scope",
        "4 stay undecided": "b1 direction 1, c2 scope, d1, g1 scope 1",
    }
    assert ", ".join(f"{said} ({names})" for said, names in decided.items()) in text, "what ten seeds decide"
    verdicts = page("results/tables/longrange/table2.md")
    for told in (
        "R101 5-block - R50 5-block is -0.2 [-0.3, 0.0]",
        "R101 space-only - R101 baseline is +2.1 [0.4, 3.8]",
        "R50 I3D - R50 I3D (2f) is +0.0 [-0.2, 0.2]",
        "but not as one of 17 parts: res4 - res3 is +2.4 [-2.2, 7.0]",
        "R101 I3D - I3D 3x1x1 (2e) | above 0 | +2.0 | +0.2 [-0.1, 0.5]",
    ):
        assert told in verdicts, "results/README.md"
    most = max(max(of) - min(of) for name, of in each.items() if name.startswith("i3d3"))
    assert f"Two trainings of I3D are up to {most:.0f} points apart" in text
    lead = np.subtract(each["c2d_r101_nl5"], np.maximum(each["i3d311_r101"], each["i3d333_r101"]))
    assert lead.min() < 0 < lead.max()
    done, stills, code = re.findall(r"runs: (\d+) of \1 done, (\d+) of them of stills .*? code: (.*?) - ", text)[0]
    assert int(done) - int(stills) == sum(map(int, re.findall(r"\((\d+) runs\)", code))), "code lines have no stills"
    low, high = re.findall(r"rank correlation of [-\d.]+ \[([-\d.]+), ([-\d.]+)\]", text)[0]
    assert float(low) < 0 < float(high), "have the gains the paper's order after all?"
    for name in ("c2d_r50", "i3d311_r50", "i3d311_r50_nl5"):
        assert len(scores["slow"][f"{name}_more"]) == 5, "results/long_training.md"
        assert max(scores["slow"][f"{name}_more"]) < 55
    text = page("results/long_training.md")
    assert "The one claim has 3 parts: 3 hold" in text
    soft = {name: committed("longrange", "soft")[name] for name in ("c2d_r50", "i3d311_r50")}
    for name, before in soft.items():
        change = np.subtract(committed("longrange", "soft")[f"{name}_more"], before[:5])
        assert abs(change.mean()) < 2.78 * change.std(ddof=1) / math.sqrt(5), "is it sure now?"


def test_sentences_on_controls_under_longrange_are_so(table2: Study) -> None:
    groups = ("context_space", "context_time", "context_spacetime")
    top1 = committed("longrange", "top1")
    learned = {
        name: sum(
            min(committed("longrange", "soft_by_group", group)[name]) > table2.learned[group].threshold
            for group in groups
        )
        for name in load_study(find_study("controls")).variants
    }  # in each training
    whole = {"hidden", "average1", "average5", "query_independent1", "query_independent5"}
    alike = {f"c2d_r50_{name}" for name in ("nl1_res4", "nl5", *whole)}
    assert {name for name, many in learned.items() if many == 3} == alike
    assert learned["one_pixel"] == 0
    for name in ("residual1", "residual5"):
        of = {group: committed("longrange", "soft_by_group", group)[f"c2d_r50_{name}"] for group in groups}
        assert [max(score) > table2.learned[group].threshold for group, score in of.items()] == [True, False, False]
    block = np.mean(top1["c2d_r50_nl1_res4"])
    assert all(abs(np.mean(top1[f"c2d_r50_{name}"]) - block) < 0.5 for name in whole)
    verdicts = page("results/controls_longrange.md")
    assert (
        "5 hold (c3 direction 1, c3 direction 2, affinity1 premise, affinity1 direction 2, affinity5), "
        "1 fails (affinity1 size), 1 stays undecided (affinity1 direction 1)" in verdicts
    )
    soft = {name: np.mean(of) for name, of in committed("longrange", "soft").items()}
    block = soft["c2d_r50_nl1_res4"]
    less = [f"{block - soft[f'c2d_r50_{name}']:.1f}" for name in ("average1", "query_independent1", "hidden")]
    brings = f"{block - soft['c2d_r50']:.1f}"
    assert f"A block brings {brings} points of soft score. Affinities bring {less[0]} of them beside an average, " in (
        verdicts
    )
    assert f"{less[1]} beside one attention, and {less[2]} beside a hidden layer" in verdicts
    assert f"within {less[2]} points of soft score of the {brings} that a block brings" in page(
        "docs/cards/longrange.md"
    )


def test_sentences_on_controls_under_place_are_so() -> None:
    text, limit = page("results/controls_place.md"), load_study(find_study("controls")).learned["place"].threshold
    assert "3 hold (c3 direction 1, c3 direction 2, affinity1 premise), 4 stay undecided" in text
    learned = {
        name.removeprefix("c2d_r50_"): sum(soft > limit for soft in of)
        for name, of in committed("place", "soft_by_group", "place").items()
        if len(of) == 10
    }
    assert learned["nl5"] == learned["query_independent5"] == 10
    said = (
        "one block in {nl1_res4} of 10, one attention in {query_independent1}, one average in {average1}. A hidden "
        "layer after pooling learned it in {hidden}, and five averages in {average5}."
    )
    assert said.format_map(learned) in text
    assert {learned[name] for name in ("c2d_r50", "one_pixel", "residual1", "residual5")} == {0}
    pixel = np.mean(committed("place", "top1_by_group", "context_spacetime")["one_pixel"])
    assert f"one pixel at a time gets {pixel:.0f} % of `context_spacetime`" in text
    assert max(committed("place", "soft_by_group", "context_spacetime")["one_pixel"]) < limit
    soft = {name.removeprefix("c2d_r50_"): np.mean(of) for name, of in committed("place", "soft").items()}
    leads = [soft["nl1_res4"] - soft[name] for name in ("average1", "hidden", "query_independent1")]
    assert f"its lead over them is {min(leads):.1f} to {max(leads):.1f} points" in text
    verdicts = page("results/tables/place/controls.md")
    for told in ("average context, 5 | above 0 | | +6.8 [2.7, 10.9]", "attention, 5 | above 0 | | +0.1 [-0.1, 0.2]"):
        assert told in verdicts


def test_sentences_on_switches_are_so() -> None:
    verdicts = page("results/tables/longrange/implementation.md")
    assert (
        "7 hold (pool, scale, start direction 1, start direction 2, padding, decay, release direction 1), "
        "3 stay undecided (inflation, release direction 2, release direction 3)" in verdicts
    )
    for told in (
        "max pools without padding - NL C2D is -0.8 [-1.0, -0.5]",
        "all of the release - NL C2D is -0.8 [-1.1, -0.5]",
        "inflated - NL I3D is +0.7 [-0.6, 2.0]",
    ):
        assert told in verdicts
    gain = re.findall(r"blocks do not start as the identity \| .*? \| +5 \| +(\S+) \[.*?, (\S+)\] \|", verdicts)[0]
    assert gain[0] == "-0.8"
    assert float(gain[1]) < 0


def test_what_holds_without_the_seed_that_chose_the_recipe(table2: Study, tmp_path: Path) -> None:
    """results/README.md says that the third look needs no seed 3."""
    records, whole = "records/longrange", REPOSITORY / "results"
    shutil.copytree(whole / records, tmp_path / records, ignore=shutil.ignore_patterns("seed3.json"))

    def held(results: Path) -> set[str]:
        said = summary(report(collect(table2, load_recipe("longrange"), results)))
        return set(re.findall(r"\d+ hold \((.*?)\)", said)[0].split(", "))

    without, all_ = held(tmp_path), held(whole)
    assert all_ == without
    assert len(all_) == 13


def test_the_seed_that_chose_place_changes_no_verdict(tmp_path: Path) -> None:
    study, recipe, results = load_study(find_study("stages")), load_recipe("place"), REPOSITORY / "results"
    shutil.copytree(results / "records/place", tmp_path / "records/place", ignore=shutil.ignore_patterns("seed5.json"))
    shutil.copytree(results / "earlier/place_seed3/records", tmp_path / "records", dirs_exist_ok=True)
    with_3, as_shown = (
        report(collect(study, recipe, of, seeds)).verdicts for of, seeds in ((tmp_path, range(5)), (results, FIRST))
    )
    assert [verdict.word for verdict in with_3] == [verdict.word for verdict in as_shown]


def test_sentences_on_real_video_are_so() -> None:
    found = {name: np.array(of) for name, of in committed("tennis7", "top1").items()}
    stills = found.pop("stills_r50")
    assert round(stills.mean()) == 39
    assert {round(of.mean()) for of in found.values()} == {39, 40}
    assert min(of.min() for of in found.values()) > 28.6
    assert {round(of.mean() - 28.6) for of in found.values()} == {10, 11}
    for name, said in (("c2d_r50", "C2D by {:.1f} points"), ("i3d311_r50", "I3D by {:.1f} [")):
        assert said.format((found[f"{name}_nl5"] - found[name]).mean()) in page("results/real_video.md")


def test_sentences_on_other_sets_are_so() -> None:
    soft = {name[-4:]: of[:5] for name, of in committed("place", "soft_by_group", "place").items() if "nl1" in name}
    learned = {stage: [score for score in of if score > 75] for stage, of in soft.items()}
    assert {len(of) for of in soft.values()} == {5}
    said = "with a block, {res2} learned the group `place` in res2, {res3} in res3, {res4} in res4 and {res5} in res5."
    assert said.format_map({stage: len(of) for stage, of in learned.items()}) in page("results/stages.md")
    top1 = [of[:5] for name, of in committed("place", "top1").items() if "nl1" in name]
    assert f"differ by {min(max(of) - min(of) for of in top1):.1f} points of top-1 or more" in page("results/stages.md")
    mean = {stage: np.mean(of) for stage, of in learned.items()}
    said = "is {res2:.0f} in res2, {res3:.0f} in res3, {res4:.0f} in res4 and {res5:.0f} in res5"
    assert said.format_map(mean) in page("results/stages.md")
    boxes = committed("tags", "metrics", "test/box_AP")
    table5 = load_study(find_study("table5")).variants
    assert max(max(of) for name, of in committed("tags", "metrics", "test/box_AP50").items() if name in table5) < 76.25
    mean = {name.removeprefix("mask_"): np.mean(of) for name, of in boxes.items()}
    assert mean["r101"] < mean["r50"], "results/table5.md"
    gains = [mean[f"r50_{name}"] - mean["r50"] for name in ("average1", "query_independent1", "residual1", "nl1")]
    for sentence in (
        f"the gain over grey tags is {mean['r50'] - mean['r50_grey']:.1f} points",
        f"the network with grey tags is ahead, by {mean['r50_nl1_grey'] - mean['r50_nl1']:.1f}.",
        f"gain {min(gains):.1f} to {max(gains):.1f} points, as it does",
    ):
        assert sentence in page("results/controls_objects.md")
    found = committed("tags_keypoints", "metrics", "test/keypoint_AP")
    less = [np.mean(found[n]) - np.mean(found[f"{n}_grey"]) for n in ("keypoint_r101", "keypoint_r101_nl5")]
    said = f"is {less[0]:.1f} points. With five blocks it is {less[1]:.1f}, and"
    assert said in page("results/controls_keypoints.md")
    table6 = load_study(find_study("table6")).variants
    for key, most in (("test/keypoint_AP", 36.75), ("test/keypoint_AP75", 0.95)):
        assert max(max(of) for name, of in committed("tags_keypoints", "metrics", key).items() if name in table6) < most
