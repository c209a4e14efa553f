"""Bad input to every command: no traceback, no hang, no more than 1 GB, nothing executed, nothing foreign touched.

``python -m benchmarks.fuzz --cases 1500 --seed 0`` writes ``benchmarks/results/<machine>/fuzz.md``. Half of the cases
are bad values of every option of every command, the other half damaged files at every border. A case is a forked
process, so that importing torch is paid once. ``--only WORD`` runs the cases whose name has the word, ``--case N`` a
single one, loudly.
"""

import argparse
import contextlib
import itertools
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import psutil

from benchmarks import machine, mutations
from benchmarks.machine import REPOSITORY

SECONDS = 30
"""Of CPU time; ten times as long on the wall, as the machine may be busy."""
MEMORY = 1 << 30
"""Bytes above what is there before the command."""
ENDS = (0, 1, 2, 130, 143)
"""Exit codes that a command may have."""
FOREIGN = ("thesis.tar", "out/thesis.tar", "out/notes.md", "out/table2.html")
"""Files of the user's that no command may touch."""


@dataclass(frozen=True)
class Case:
    """One command with something bad: `spoil` makes it so in the folder in which it runs."""

    name: str
    arguments: list[str]
    spoil: Callable[[Path], None] = lambda folder: None


@dataclass(frozen=True)
class Outcome:
    """How a case ended; `faults` is empty if it ended well."""

    code: int
    seconds: float
    memory: int
    output: str
    faults: list[str]


# -------------------------------------------------------------------------------------------------------- cases

ONE = "study.yaml --recipe tiny.yaml"
FIT = "fit --config tiny.yaml --model.net.depth=50 --trainer.fast_dev_run=true"
TEST = "test --config tiny.yaml --model.net.depth=50 --trainer.fast_dev_run=true"
CHECK = "data check tiny.yaml --workers 1"
PREDICT = "predict videos/test --weights w.safetensors"
ATTEND = "attend v.mp4 --weights w.safetensors --block res4.4 --query 0,0,0"
EXPORT = "weights export w.safetensors"
IMPORT = "weights import c.ckpt --out o.safetensors"
DRY = f"run {ONE} --dry-run"
PAPER = "table2 --results results"

READS = {
    "study": [f"status {ONE}", f"report {ONE}", DRY, f"sweeps {ONE}", f"complexity {ONE}", f"power {ONE}"],
    "recipe": [f"status {ONE}", DRY, f"complexity {ONE}", CHECK, FIT],
    "record": [f"status {PAPER}", f"report {PAPER} --html", f"power {PAPER}", "rescore {record}"],
    "marker": [f"status {PAPER}", f"run {PAPER} --variant c2d_r50_nl10 --dry-run", f"run {PAPER} --failed --dry-run"],
    "weights": [PREDICT, ATTEND, f"{TEST} --weights w.safetensors", "reach --weights w.safetensors",
                f"{EXPORT} --to caffe2 --out o.pkl"],
    "checkpoint": [IMPORT, f"{TEST} --ckpt_path c.ckpt", f"{FIT} --model.init_from=c.ckpt"],
    "predictions": ["rescore p.parquet"],
    "list": [CHECK, FIT],
    "video": [PREDICT, CHECK, ATTEND, "predict v.mp4 --weights w.safetensors"],
    "census": [CHECK, FIT],
    "shards": [f"{FIT} --data.shards=shards"],
}  # fmt: skip
"""The commands that read each kind of file; all of them are right as long as the files are."""

RECORD = "results/records/longrange/c2d_r50/seed0.json"
RUN = "results/runs/longrange/c2d_r50_nl10/seed0"
FILES: dict[str, tuple[list[str], Callable[[Random, bytes], bytes]]] = {
    "study": (["study.yaml"], mutations.spoiled_yaml),
    "recipe": (["tiny.yaml"], mutations.spoiled_yaml),
    "record": ([RECORD], mutations.spoiled_json),
    "marker": ([f"{RUN}/{name}.json" for name in ("state", "wandb", "job")], mutations.spoiled_json),
    "weights": (["w.safetensors"], mutations.spoiled_safetensors),
    "checkpoint": (["c.ckpt"], mutations.spoiled_pickle),
    "predictions": (["p.parquet"], mutations.spoiled_parquet),
    "list": (["videos/train.txt", "videos/val.txt"], mutations.spoiled_lines),
    "video": (["v.mp4", "videos/train/look_0/*.mp4"], mutations.damage),
    "census": (["videos/census.parquet"], mutations.spoiled_parquet),
    "shards": (["shards/index.parquet"], mutations.spoiled_parquet),
}

SETTINGS = {
    "data": """root train_list num_frames frame_stride crop short_side batch_size num_workers num_clips num_crops
        decoder manifest shards max_unreadable decode_seconds test_crop folds clip_starts""",
    "model": """net.depth net.width net.num_classes net.inflate net.dropout net.non_local net.temporal_strides mean
        std schedule lr_batch init_from init_new loaded_lr imagenet weights test_pool precise_bn
        views_per_forward predictions""",
    "trainer": "devices max_epochs precision accelerator default_root_dir limit_val_batches accumulate_grad_batches",
}
"""Settings of ``fit`` and ``test`` that are tried with bad values."""


def options(random: Random) -> Iterator[Case]:
    """Every option and argument of every command with bad values, without end."""
    commands = list(_commands())
    settings = [f"--{group}.{key}" for group, keys in SETTINGS.items() for key in keys.split()]
    settings += ["--seed_everything", "--ckpt_path", "--config", "--nonsense"]
    while True:
        random.shuffle(commands)
        for words, flags in commands:
            flag = random.choice(flags)
            word = random.choice(mutations.WORDS)
            if "\x00" not in word:  # no shell can hand one over
                yield Case(f"option {' '.join(words[:2])} {flag}", [*words, f"{flag}={word}" if flag else word])
        flag, word = random.choice(settings), random.choice(mutations.WORDS)
        verb = random.choice(("fit", "test"))
        run = [verb, "--config=tiny.yaml", "--model.net.depth=50", "--trainer.fast_dev_run=true"]
        run += ["--weights=w.safetensors"] * (verb == "test")
        if "\x00" not in word:
            yield Case(f"option {verb} {flag}", [*run, *random.choice(([f"{flag}={word}"], [flag, word]))])


def _commands() -> Iterator[tuple[list[str], list[str]]]:
    """A right command of each kind, and its options ("" is an argument too many)."""
    from nl_lightning.cli.table import parser as all_commands

    lines = {line.format(record=RECORD) for lines in READS.values() for line in lines}
    right = sorted(line for line in lines if not line.startswith(("fit", "test")))
    for line in right:
        parser, words = all_commands(), line.split()
        names = words[:2] if words[0] in ("data", "weights") else words[:1]
        for name in names:
            choices = next(a.choices for a in parser._actions if isinstance(a, argparse._SubParsersAction))
            parser = choices[name]
        flags = [a.option_strings[-1] for a in parser._actions if a.option_strings and a.nargs != 0]
        yield words, [*flags, ""]
        yield [*names], [""]


def files(random: Random) -> Iterator[Case]:
    """Damaged files of every kind, for the commands that read them, without end."""
    for kind in itertools.cycle(FILES):
        paths, spoiled = FILES[kind]
        path, seed = random.choice(paths), random.random()

        def spoil(folder: Path, path: str = path, seed: float = seed, spoiled: Callable[..., bytes] = spoiled) -> None:
            file = min(folder.glob(path))
            content = file.read_bytes()
            file.write_bytes(spoiled(Random(seed), content))

        yield Case(f"file {kind} {Path(path).name}", random.choice(READS[kind]).format(record=RECORD).split(), spoil)


# ------------------------------------------------------------------------------------------------- a good folder


def make_folder(folder: Path) -> None:
    """A small study with videos, weights, a checkpoint, predictions, records and markers: all of them right."""
    sys.path.insert(0, str(REPOSITORY / "tests"))
    import json

    import numpy as np
    import torch
    from tiny_study import write_tiny_study
    from weight_files import write_weights

    from nl_lightning.cli import main
    from nl_lightning.data import longrange
    from nl_lightning.models.nonlocal_block import NonLocalConfig
    from nl_lightning.train.predictions import PartWriter, VideoViews, ViewProtocol, merge
    from nl_lightning.weights.file import read_weights

    made = folder / "made"
    longrange.LongRange(train=22, val=11, test=11).generate(made)
    write_tiny_study(folder, made)
    shutil.rmtree(made)
    recipe = (folder / "tiny.yaml").read_text().replace(str(folder / "videos"), "videos")
    (folder / "tiny.yaml").write_text(recipe)
    write_weights(folder / "w.safetensors", NonLocalConfig({"res4": [4]}, "dot_product"))
    tensors, _ = read_weights(folder / "w.safetensors")
    torch.save({"state_dict": {f"net.{key}": value for key, value in tensors.items()}}, folder / "c.ckpt")
    first = next((folder / "videos/test").rglob("*.mp4"))
    shutil.copy(first, folder / "v.mp4")
    part = PartWriter(folder / "part")
    for index in range(8):
        part.add(index, VideoViews(f"{index}.mp4", index % 3, np.full((2, 3), -1.0, np.float16)))
    part.close()
    merge([folder / "part"], folder / "p.parquet", ViewProtocol(2, 1, 3))
    for variant in ("c2d_r50", "c2d_r50_nl1_res4"):
        there = folder / f"results/records/longrange/{variant}"
        there.mkdir(parents=True)
        shutil.copy(REPOSITORY / f"results/earlier/longrange/records/longrange/{variant}/seed0.json", there)
    shutil.copytree(REPOSITORY / "experiments", folder / "experiments")
    run = folder / RUN
    run.mkdir(parents=True)
    for name, marker in {
        "state": {"state": "failed", "error": "a reason", "pid": 1, "host": "here", "config_hash": "0", "done": 1,
                  "total": 2},
        "wandb": {"id": "x", "sweep": None},
        "job": {"cluster": "slurm", "job": "1", "host": "here"},
    }.items():  # fmt: skip
        (run / f"{name}.json").write_text(json.dumps(marker))
    with contextlib.chdir(folder), contextlib.redirect_stdout(None):
        assert main(["data", "check", "tiny.yaml", "--workers", "1"]) == 0
        assert main(["data", "shards", "tiny.yaml", "--out", "shards"]) == 0
    (folder / "out").mkdir()
    for name in FOREIGN:
        (folder / name).write_text(f"precious {name}")


# ------------------------------------------------------------------------------------------------------ one case


def attempt(case: Case, good: Path) -> Outcome:
    """Run a case in a copy of the good folder, in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="fuzz-") as name:
        folder = Path(name) / "work"
        shutil.copytree(good, folder)
        case.spoil(folder)
        said = Path(name) / "said"
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            _be_the_command(case, folder, said)
        status, usage = _wait(child, began)
        output = said.read_bytes().decode(errors="replace") if said.exists() else ""
        code = os.waitstatus_to_exitcode(status)
        memory = usage.ru_maxrss * 1024
        seconds = usage.ru_utime + usage.ru_stime
        faults = list(_faults(code, seconds, memory, output, folder))
        return Outcome(code, seconds, memory, output, faults)


def _be_the_command(case: Case, folder: Path, said: Path) -> None:
    """In the child: the command, its output in a file, its exit code that of the process."""
    code = 99
    try:
        os.setsid()
        os.chdir(folder)
        file = os.open(said, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(file, 1)
        os.dup2(file, 2)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS + 5, SECONDS + 10))
        os.environ |= {"WANDB_MODE": "offline", "PYTHONPATH": str(REPOSITORY), "NO_COLOR": "1"}
        from nl_lightning.cli import main

        try:
            code = main(case.arguments)
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _wait(child: int, began: float) -> tuple[int, resource.struct_rusage]:
    while True:
        pid, status, usage = os.wait4(child, os.WNOHANG)
        if pid:
            break
        with contextlib.suppress(psutil.Error):
            if time.monotonic() - began > 10 * SECONDS or psutil.Process(child).memory_info().rss > 3 * MEMORY:
                os.killpg(child, signal.SIGKILL)
        time.sleep(0.01)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child, signal.SIGKILL)  # what it left behind
    return status, usage


def _faults(code: int, seconds: float, memory: int, output: str, folder: Path) -> Iterator[str]:
    if "Traceback (most recent call last)" in output:
        yield "traceback"
    if code not in ENDS:
        yield f"exit code {code}"
    if seconds > SECONDS:
        yield f"{seconds:.0f} s"
    if memory > _BASE + MEMORY:
        yield f"{memory >> 20} MiB"
    if "\x1b" in output:
        yield "escape sequence"
    if code == 2 and "nl-lightning: " not in output:
        yield "no line of ours"
    if any(folder.rglob("PWNED")):
        yield "executed"
    for name in FOREIGN:
        file = folder / name
        if not file.is_file() or file.read_text(errors="replace") != f"precious {name}":
            yield f"touched {name}"


_BASE = 0


def main() -> None:
    global _BASE
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=1500)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", help="cases whose name has this word")
    parser.add_argument("--case", type=int, help="this case alone, with its output")
    parser.add_argument("--dry", action="store_true", help="write no page")
    given = parser.parse_args()
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    import nl_lightning.cli.table
    import nl_lightning.train.execute  # noqa: F401 - torch, once for all cases

    with tempfile.TemporaryDirectory(prefix="fuzz-good-") as name:
        good = Path(name) / "good"
        good.mkdir()
        make_folder(good)
        _BASE = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
        random = Random(given.seed)
        both = itertools.chain.from_iterable(zip(options(random), files(random), strict=True))
        cases = list(itertools.islice(both, given.cases))
        if given.case is not None:
            outcome = attempt(cases[given.case], good)
            print(cases[given.case].name, cases[given.case].arguments, outcome.output, outcome, sep="\n")
            return
        counted, found, worst = Counter[str](), Counter[str](), {"seconds": 0.0, "memory": 0}
        for number, case in enumerate(cases):
            if given.only not in case.name:
                continue
            outcome, kind = attempt(case, good), " ".join(case.name.split()[:2])
            counted[kind] += 1
            worst = {name: max(most, getattr(outcome, name)) for name, most in worst.items()}
            if outcome.faults:
                found[kind] += 1
                last = outcome.output.strip().splitlines()[-1:] or [""]
                what = f"{case.arguments!r:.300}: {', '.join(outcome.faults)}: {last[0]:.160}"
                print(f"{number}: {case.name} {what}", flush=True)
    print(f"{counted.total()} cases, {found.total()} faults")
    if not given.dry and not given.only:
        page = machine.folder() / "fuzz.md"
        page.write_text(report(given, counted, found, **worst))
        print(page)
    sys.exit(1 if found else 0)


def report(given: argparse.Namespace, counted: Counter[str], found: Counter[str], seconds: float, memory: float) -> str:
    rows = [(kind, counted[kind], found[kind]) for kind in sorted(counted)]
    return f"""# Bad input

`python -m benchmarks.fuzz --cases {given.cases} --seed {given.seed}`
gives bad values to every option, and damaged files of every kind to the commands that read them.
A fault is a traceback, more than {SECONDS} s of CPU time, more than 1 GB, an escape sequence in the output,
an executed file, or a foreign file that was touched.

{machine.table(["what", "cases", "faults"], [*rows, ("all", counted.total(), found.total())])}

Slowest: {seconds:.1f} s of CPU time. Most memory: {int(memory) - _BASE >> 20} MiB above an idle command.
"""


if __name__ == "__main__":
    main()
