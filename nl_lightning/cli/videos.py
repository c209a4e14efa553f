"""The commands on files: ``weights``, ``complexity``, ``attend``, ``reach``, ``predict``, ``data``, ``rescore``.

They need torch, which takes seconds to import, so each of them imports it when it is called.
"""

import os
from collections.abc import Sequence
from dataclasses import KW_ONLY, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

from nl_lightning.cli.output import plain_table, print_lines, working
from nl_lightning.cli.parsing import POSITION, whole
from nl_lightning.cli.studies import OfStudy, Selected, Workers
from nl_lightning.errors import UserError, terminal, visible
from nl_lightning.study.evidence import cores
from nl_lightning.study.files import overwriting, write_output
from nl_lightning.study.recipe import Recipe, load_recipe
from nl_lightning.study.study import STILLS

if TYPE_CHECKING:
    from nl_lightning.data.datamodule import VideoDataModule
    from nl_lightning.data.videos import VideoList

FIGURES = Path("my_results/figures")
CORES = cores()


def _ours(recipe: Recipe) -> Recipe:
    """The recipe. UserError: it is of another LightningModule, whose networks and data only that one knows."""
    if any({"class_path", "init_args"} & recipe.config.get(part, {}).keys() for part in ("model", "data")):
        raise UserError(f"{recipe.files[0]}: is of another LightningModule: this command is of our own networks")
    return recipe


def weights_import(
    file: Path,
    *,
    from_: Literal[
        "auto", "caffe2", "slowfast", "mmaction2", "pytorchvideo", "torchvision", "tushar_n", "alexhex7"
    ] = "auto",
    variant: str | None = None,
    without_classifier: bool = False,
    out: Path,
    overwrite: bool = False,
) -> int:
    """Make a weight file from a checkpoint, ours or of other projects.

    Args:
        file: a .pkl, .pyth or .pth file, or a checkpoint of ours.
        from_: whose file it is, if the names of its tensors don't tell.
        variant: what its tensors don't tell, as 8x8 (default: the words of the file's name).
        without_classifier: leave the classifier out.
        out: where to write, as W.safetensors.
        overwrite: replace a file that nl-lightning didn't write.
    """
    with overwriting(overwrite), working(f"reading {file}"):
        from nl_lightning.weights.importing import import_weights

        imported = import_weights(file, out, from_, variant, not without_classifier)
    print_lines(*(imported if isinstance(imported, list) else imported.lines()))
    return 0


def weights_export(file: Path, *, to: Literal["caffe2", "slowfast"], out: Path, overwrite: bool = False) -> int:
    """Make a file of the released code, or of PySlowFast, from a weight file of ours.

    Args:
        file: a weight file of ours.
        to: whose file to make.
        out: where to write, as W.pkl for caffe2 and W.pyth for slowfast.
        overwrite: replace what is there.
    """
    with overwriting(overwrite), working(f"reading {file}"):
        from nl_lightning.weights.exporting import export_weights

        count = export_weights(file, out, to)
    print_lines(f"{count} tensors written to {out}")
    return 0


def weights_publish(which: Selected, *, out: Path = Path("my_results/weights"), overwrite: bool = False) -> int:
    """Make weight files of finished runs, and their model card.

    In results/weights they have names: nl.load_weights("c2d_r50_nl5@longrange").

    Args:
        out: folder; the files go to a folder of the recipe's name in it.
        overwrite: replace files that nl-lightning didn't write.
    """
    study, recipe = which.load()
    _ours(recipe.over(study))
    runs = [run for run in which.runs(parents=False) if run.is_done() and run.variant.clip != STILLS]
    if not runs or len({run.seed for run in runs}) > 1:
        raise UserError(f"{study.name}, recipe {recipe.name}: expected finished runs of one seed, found {len(runs)}")
    with overwriting(overwrite), working(f"reading {len(runs)} checkpoints"):
        from nl_lightning.report.card import card
        from nl_lightning.train.publishing import blocks_of, publish

        files = [publish(run, out / recipe.name) for run in runs]
        records = {run.variant.name: record for run in runs if (record := run.state().record)}
        blocks = {run.variant.name: blocks_of(file) for run, file in zip(runs, files, strict=True)}
        page = card(study, recipe.name, records, runs[0].seed, blocks)
        write_output(out / recipe.name / "README.md", page.encode())
    print_lines(f"{len(files)} networks and their card are in {out / recipe.name}")
    return 0


def complexity(which: Selected, *, explain: bool = False) -> int:
    """Count the parameters and multiply-adds of the variants of a study.

    Args:
        explain: how each non-local block computes Eq. (1), for one clip.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # nothing is multiplied here: threads would only be started
    runs = which.runs()
    for one in runs:
        _ours(one.recipe)
    tables = [] if explain else [plain_table("variant", "params M", "multiply-adds G a clip")]
    with working(f"building {len(runs)} networks"):
        from nl_lightning.models import complexity as counting  # takes seconds: torch
        from nl_lightning.train.lightning_cli import network

        for one in runs:
            net, clip = network(one)
            if not explain:
                cost = counting.complexity(net.config, clip)
                tables[0].add_row(one.variant.name, f"{cost.params / 1e6:.3f}", f"{cost.macs / 1e9:.3f}")
                continue
            columns = ("block", "sets", "queries", "keys", "N x N, MiB", "on a CPU", "on a GPU")
            tables.append(plain_table(*columns, title=one.variant.name, title_justify="left", title_style="bold"))
            half = "16" in str(one.recipe.config["trainer"].get("precision", ""))  # 16-mixed, bf16-true ...
            costs = (counting.block_costs(net.config, clip, device, half) for device in ("cpu", "cuda"))
            for cpu, gpu in zip(*costs, strict=True):
                sizes = (str(size) for size in (cpu.sets, cpu.queries, cpu.keys))
                tables[-1].add_row(cpu.name, *sizes, f"{cpu.matrix * 4 / 2**20:.3g}", cpu.form, gpu.form)
    terminal().print(*tables, sep="")
    return 0


def attend(
    video: Path,
    *,
    weights: Path,
    block: str,
    query: Annotated[tuple[int, int, int], POSITION],
    out: Path = FIGURES,
    overwrite: bool = False,
) -> int:
    """Draw what a non-local block looks at in a video (the paper's Fig. 3).

    Args:
        video: a video file; its middle clip is taken.
        weights: a weight file, as 'weights import' makes them, or a published network's name.
        block: a non-local block, by what it follows: res3.1.
        query: a position of the block's map, each number from 0.
        out: folder for the figures.
        overwrite: replace files that nl-lightning didn't write.
    """
    with overwriting(overwrite), working(f"looking at {video}"):
        from nl_lightning.inspect.attention import attend

        lines = attend(video, weights, block, query, out)
    print_lines(*lines)
    return 0


def reach(
    variant: Sequence[str] = (),
    *,
    study: str = "table2",
    recipe: str | None = None,
    weights: Sequence[Path] = (),
    out: Path = FIGURES,
    overwrite: bool = False,
) -> int:
    """Draw which input positions can move one output position.

    Args:
        variant: networks of the study (default: C2D and I3D, without and with non-local blocks).
        study: its name, or the path of its YAML file.
        recipe: name or path (default: the study's).
        weights: a trained network (a weight file) in place of variants.
        out: folder for the figures.
        overwrite: replace files that nl-lightning didn't write.
    """
    if weights and (variant or recipe):
        raise UserError("--weights: trained networks are drawn in place of variants; give one or the other")
    with overwriting(overwrite), working("following gradients through the networks"):
        from nl_lightning.inspect import receptive_field as drawing

        if weights:
            lines = drawing.reach_of_weights(weights, out)
        else:
            named, under = OfStudy(study, recipe=recipe).load()
            _ours(under.over(named))
            lines = drawing.reach(named, under, variant, out)
    print_lines(*lines)
    return 0


def predict(video: Sequence[Path], *, weights: Path, json: bool = False) -> int:
    """Say the five best classes of videos.

    Args:
        video: video files, and folders of them.
        weights: a weight file, as 'weights import' makes them, or a published network's name.
        json: print JSON.
    """
    with working("reading the weights"):
        from nl_lightning.inspect.predict import Guesses, Predictor, as_json, videos_in

        files, predictor = videos_in(video), Predictor(weights)
    found: list[Guesses] = []
    for number, file in enumerate(files, 1):
        with working(f"looking at {file} ({number} of {len(files)})"):
            found.append(predictor(file))
        if not json:
            print_lines(found[-1].as_text())
    if json:
        print(as_json(found))
    return 1 if any(guesses.error for guesses in found) else 0


@dataclass(frozen=True)
class DataSet:
    """The data of a recipe.

    Attributes:
        recipe: whose data: name or path.
        root: folder of the data set (default: the recipe's).
        workers: processes.
    """

    recipe: str
    _: KW_ONLY
    root: Path | None = None
    workers: Workers = CORES

    def load(self) -> "VideoDataModule":
        """The data of the recipe; what is generated is there then."""
        data = self._of_seed(0)
        data.generate()
        return data

    def of_each_fold(self) -> "list[VideoDataModule]":
        """The same for each official split of the data set: a video may be in some of them only."""
        first = self.load()
        return [first, *map(self._of_seed, range(1, first.folds))]

    def _of_seed(self, seed: int) -> "VideoDataModule":
        from nl_lightning.train.lightning_cli import data_of  # takes seconds: torch

        root = [f"--data.root={self.root}"] if self.root is not None else []
        files = (f"--config={file}" for file in _ours(load_recipe(self.recipe)).files)
        return data_of([*files, *root, f"--seed_everything={seed}"])


def lists_of(folds: "Sequence[VideoDataModule]") -> "dict[str, VideoList]":
    """All lists, by split; where there are several official ones, as ``train_split2``."""
    return {f"{split}{data.fold}": videos for data in folds for split, videos in data.splits().items()}


def data_check(of: DataSet, *, hash: bool = False, out: Path | None = None, compare: Path | None = None) -> int:
    """Read every file of a data set once, and write down what is there and what is wrong.

    Args:
        hash: also hash the bytes of each file.
        out: the manifest (default: census.parquet in the data set's folder).
        compare: also say how many ids each split shares with this list.
    """
    with working("reading the lists"):
        from nl_lightning.data.annotations import read_annotation
        from nl_lightning.data.locating import overlap, said_of
        from nl_lightning.data.manifest import NAME
        from nl_lightning.data.tools.check import by_error, counts, take_census

        folds = of.of_each_fold()
        data, splits = folds[0], lists_of(folds)
        file = out or data.root / NAME
    rows = take_census(splits, data.root, file, of.workers, hash)
    table = plain_table("", "expected", "present", "decodable")
    for split, *numbers in counts(rows):
        table.add_row(split, *map(str, numbers))
    terminal().print(table)
    print_lines(*(f"{count} x {visible(error)} ({visible(example)})" for error, count, example in by_error(rows)))
    for split, videos in splits.items():
        if made := data.generated:
            said = f"{split}: {len(videos):,} videos of the generated set {made.name}, version {made.version}"
        else:
            said = said_of(len(videos), split)
        print_lines(said)
        if compare is not None:
            other = read_annotation(str(compare.resolve()), data.root, split.partition("_")[0])
            both, ours, theirs, without = overlap(videos.paths.names(), other.paths.names())
            print_lines(
                f"{split} and {compare}: {both} ids in both, {ours} in {split} only, "
                f"{theirs} in the list only, {without} names without an id"
            )
    print_lines(f"written to {file}")
    return 0


def data_prepare(
    of: DataSet, *, out: Path, short_side: Annotated[int, whole(2, 10_000)] = 256, overwrite: bool = False
) -> int:
    """Copy a data set at a small size, with a key frame every 16 frames, so that it decodes fast.

    Args:
        out: folder where the copy goes. Each size needs a folder of its own.
        short_side: of the copies, in pixels. Nothing is enlarged.
        overwrite: replace files there that nl-lightning didn't write.
    """
    with working("reading the lists"):
        from nl_lightning.data.tools.prepare import copy_data_set

        folds = of.of_each_fold()
    lists = [name for data in folds for name in data.lists.values() if name is not None]
    with overwriting(overwrite):
        made = copy_data_set(lists_of(folds), lists, folds[0].root, out, of.workers, short_side)
    print_lines(*(f"{visible(error)} (copied as it is: {visible(name)})" for name, error in made.as_they_are.items()))
    print_lines(
        f"{made.made} videos copied, {made.there} were there, {len(made.as_they_are)} copied as they are, "
        f"{len(made.absent)} absent; train with --data.root={out}"
    )
    return 0


def data_shards(of: DataSet, *, out: Path, shard_mb: Annotated[int, whole(1, 10**6)] = 1000) -> int:
    """Pack a data set into tar files, as WebDataset reads them.

    Args:
        out: folder where the shards go.
        shard_mb: MB of a shard, about.
    """
    with working("reading the lists"):
        from nl_lightning.data.shards import write_shards

        data = of.load()
    packed, absent = write_shards(data.splits(), data.root, out, shard_mb * 1_000_000)
    print_lines(f"{packed} videos packed, {len(absent)} absent; train with --data.shards={out}")
    return 0


def rescore(record: Path) -> int:
    """Say what one test would have scored under other protocols.

    Args:
        record: a record (.json), or the predictions that a test wrote (.parquet).
    """
    from nl_lightning.report.rescore import lines, rescore, rescore_record
    from nl_lightning.report.words import counted

    if record.suffix == ".parquet":
        rescored = rescore(record)
    else:
        rescored, of = rescore_record(record)
        print_lines(f"the stored views give the record's {of.top1} % and {of.top5} % again, video by video")
    table = plain_table("views", "a video's score", "top-1 %", "top-5 %", "soft %")
    for views, rule, *numbers in lines(rescored):
        table.add_row(views, rule, *(f"{number:.2f}" if number == number else "" for number in numbers))
    terminal().print(table)
    videos, missing = len(rescored.labels), int((~rescored.read).sum())
    print_lines(f"{counted(videos, 'video')}, {missing} missing: wrong, unless a line says otherwise")
    return 0
