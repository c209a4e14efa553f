"""Faults in the middle of a study, and what is lost by them: ``python -m benchmarks.chaos --faults 100 --seed 0``.

A small study is run by two workers, with W&B's stand-in, on a disk of its own, while faults strike it in an order that
the seed gives, until there were as many as asked for. Then the same study is run without faults. Lost is what differs:
weights and predictions are compared bit for bit, records and tables byte for byte, but for :data:`OF_THE_CLOCK`.

One video is broken from the start, in both: every record has to name it, however often its run was killed. Another one
is truncated for some seconds only. A run that reads it then is not the undisturbed one and can't be; its record has to
say so, by the video's name, and the run is done anew. (One that doesn't say so counts as lost.)
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import torch

from benchmarks import machine

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))

from wandb_standin import WandbServer  # noqa: E402

from nl_lightning.data import longrange  # noqa: E402
from nl_lightning.study.loading import load_study  # noqa: E402
from nl_lightning.study.recipe import load_recipe  # noqa: E402
from nl_lightning.study.records import record_path  # noqa: E402
from nl_lightning.study.run import Run, plan  # noqa: E402

OF_THE_CLOCK = ("train_seconds", "test_seconds", "data_wait", "finished", "machine", "started")
"""Fields of a record, and of its evidence, that tell of time and memory; in the tables, the line that begins so."""
TIME_LINE = "- time in all"
WHILE = (1.0, 4.0)
"""Seconds that a fault lasts which is mended again: fewest and most."""
PAUSE = (0.5, 2.0)
"""Seconds from one fault to the next."""
PROGRAM = [sys.executable, "-m", "nl_lightning.cli"]
"""``nl-lightning``."""
DISK = 512 << 20
"""Bytes of the small disk; more than the runner wants to have free."""
STUDY = """
name: chaos
title: A study to be disturbed
recipe: chaos
variants:
  c2d: {net: {depth: 50}}
  nl: {net: {depth: 50, non_local: {placement: {res4: [4]}, instantiation: dot_product, sum_over: spacetime}}}
  long: {net: {depth: 50}, clip: 128f, init_from: c2d}
  ranks: {net: {depth: 50}, clip: ranks}
tables:
  one:
    caption: Everything
    rows:
      - {label: C2D, variant: c2d}
      - {label: NL, variant: nl, baseline: c2d}
      - {label: long, variant: long, baseline: c2d}
      - {label: two processes, variant: ranks, baseline: c2d}
"""
RECIPE = """
model:
  net: {{num_classes: 11, width: 0.015625, temporal_strides: [1, 1, 2],
         spatial_strides: [2, 2, 1, 1, 1, 1], dropout: 0.5}}
  optimizer: {{class_path: torch.optim.AdamW, init_args: {{lr: 0.003}}}}
data:
  root: {root}
  train_list: train.txt
  val_list: val.txt
  test_list: test.txt
  max_unreadable: 0.1
  num_frames: 8
  short_side: [36, 40]
  crop: 32
  test_short_side: 36
  test_crop: 32
  num_clips: 2
  num_crops: 3
  batch_size: 6
  test_batch_size: 4
  num_workers: 1
trainer:
  {{accelerator: cpu, devices: 1, max_epochs: {epochs}, check_val_every_n_epoch: 3, accumulate_grad_batches: 2,
    enable_model_summary: false}}
"""


@dataclass
class Chaos:
    """A study, its runner, and what has struck them.

    Attributes:
        folder: of the study, its data and its results.
        server: W&B's stand-in.
        dice: decides what comes next.
        small_disk: whether the results lie on a disk that can be filled.
        variants: those that are run; none: all.
    """

    folder: Path
    server: WandbServer
    dice: random.Random
    small_disk: bool
    variants: tuple[str, ...] = ()
    seeds: int = 1
    struck: Counter[str] = field(default_factory=Counter)
    done_anew: int = 0
    runner: "subprocess.Popen[bytes] | None" = None

    @property
    def results(self) -> Path:
        return self.folder / "disk" / "disturbed"

    def runs(self, results: Path) -> list[Run]:
        study, recipe = load_study(self.folder / "study.yaml"), load_recipe(self.folder / "chaos.yaml")
        return plan(study, recipe, range(self.seeds), results, variants=self.variants or None)

    def start(self, results: Path) -> "subprocess.Popen[bytes]":
        """The command that a person would type, and type again."""
        command = [*PROGRAM, "run", "study.yaml", "--recipe=chaos.yaml", "--workers=2"]
        command += [f"--results={results}", "--checkpoint-minutes=0.02"]
        command += [f"--seed={seed}" for seed in range(self.seeds)] + [f"--variant={name}" for name in self.variants]
        environment = {**os.environ, **self.server.environment(self.folder), "OMP_NUM_THREADS": "1"}
        environment["PYTHONPATH"] = str(REPOSITORY)
        with (self.folder / "runner.log").open("ab") as log:
            return subprocess.Popen(command, cwd=self.folder, env=environment, stdout=log, stderr=log)

    def disturb(self, faults: int) -> None:
        """Strike so often, and let the study come to its end."""
        while sum(self.struck.values()) < faults or not self.is_done():
            if self.is_done():
                self.seeds += 1
            self.ensure_runner()
            time.sleep(self.dice.uniform(*PAUSE))
            if sum(self.struck.values()) < faults:
                self.strike()
                print(f"{sum(self.struck.values())} of {faults} faults, {self.seeds} seed(s)", flush=True)
        self.end_runner()

    def is_done(self) -> bool:
        """Whether every run has a record; what met the truncated video, and says so, is done anew."""
        for run in self.runs(self.results):
            state = run.state()
            met = state.record is not None and state.record.unreadable != [self.broken]
            if met or "can't be read, more than" in state.note:
                self.done_anew += 1
                shutil.rmtree(run.folder, ignore_errors=True)
                record_path(run.results, "chaos", run.variant.name, run.seed).unlink(missing_ok=True)
        return all(run.is_done() for run in self.runs(self.results))

    @property
    def broken(self) -> str:
        """The video that can't be read, from the start."""
        return self.videos()[0]

    def videos(self) -> list[str]:
        root = self.folder / "videos"
        return [str(path.relative_to(root)) for path in sorted((root / "train").glob("*/*.mp4"))]

    def strike(self) -> None:
        """One fault, if there is something that it can strike now."""
        often = [self.kill, self.terminate, self.kill_worker, self.kill_decoder, self.spoil]
        seldom = [self.kill_runner, self.cut_wandb, self.truncate]
        new = [self.kill_service, self.kill_rank, self.suspend, self.strike_early, self.stop_runner_early]
        kinds = [*often, *often, *seldom, *new]
        if self.small_disk:
            kinds.append(self.fill_disk)
        kind = self.dice.choice(kinds)
        if kind():
            self.struck[str(kind.__doc__)] += 1

    def ensure_runner(self) -> None:
        if self.runner is None or self.runner.poll() is not None:
            self.runner = self.start(self.results)

    def end_runner(self) -> None:
        if self.runner is not None:
            self.runner.terminate()
            self.runner.wait()

    def at_work(self) -> list[tuple[Run, psutil.Process]]:
        """Runs that train or test, and their processes."""
        found = []
        for run in self.runs(self.results):
            said = run.said()
            if said.state == "running" and said.phase is not None and said.pid is not None:
                with contextlib.suppress(psutil.NoSuchProcess):
                    process = psutil.Process(said.pid)
                    if "nl_lightning.runs.worker" in process.cmdline():
                        found.append((run, process))
        return found

    def one_at_work(self) -> tuple[Run, psutil.Process] | None:
        """Any of them; None if nothing gets so far for long."""
        give_up = time.monotonic() + 60
        while not (found := self.at_work()):
            if time.monotonic() > give_up or all(run.is_done() for run in self.runs(self.results)):
                return None
            self.ensure_runner()
            time.sleep(0.2)
        return self.dice.choice(found)

    def send(self, number: signal.Signals) -> bool:
        if (target := self.one_at_work()) is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            target[1].send_signal(number)
        return True

    def kill(self) -> bool:
        """kill -9 of a run's process"""
        return self.send(signal.SIGKILL)

    def terminate(self) -> bool:
        """SIGTERM, SIGUSR1 or SIGUSR2 to a run's process"""
        return self.send(self.dice.choice([signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]))

    def kill_worker(self) -> bool:
        """kill -9 of a worker that reads for a run, which fails and is resumed"""
        return self.kill_child("nl_lightning.runs.worker")

    def kill_decoder(self) -> bool:
        """kill -9 of a process that decodes for a worker, which starts another"""
        return self.kill_child("nl_lightning.data.reader")

    def kill_child(self, program: str) -> bool:
        if (target := self.one_at_work()) is None:
            return False
        with contextlib.suppress(psutil.NoSuchProcess):
            children = target[1].children(recursive=True)
            if found := [child for child in children if program in " ".join(child.cmdline())]:
                self.dice.choice(found).kill()
                return True
        return False

    def kill_service(self) -> bool:
        """kill -9 of W&B's own process beside a run"""
        return self.kill_child("wandb-core") or self.kill_child("wandb")

    def kill_rank(self) -> bool:
        """kill -9 of the second process of a run of two"""
        for run, process in self.at_work():
            if run.variant.name != "ranks":
                continue
            with contextlib.suppress(psutil.Error):
                for child in process.children():
                    if child.environ().get("LOCAL_RANK") == "1":
                        child.kill()
                        return True
        return False

    def suspend(self) -> bool:
        """a run's process, or one that works for it, is suspended for some seconds"""
        if (target := self.one_at_work()) is None:
            return False
        with contextlib.suppress(psutil.Error):
            chosen = self.dice.choice([target[1], *target[1].children(recursive=True)])
            chosen.suspend()
            time.sleep(self.dice.uniform(*WHILE))
            chosen.resume()
            return True
        return False

    def strike_early(self) -> bool:
        """SIGINT, SIGTERM or SIGKILL to a run's process in its first seconds"""
        assert self.runner is not None
        began = {child.pid for child in self.worker_processes()}
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up and self.runner.poll() is None:
            if young := [child for child in self.worker_processes() if child.pid not in began]:
                time.sleep(self.dice.uniform(0, 3))
                with contextlib.suppress(psutil.Error):
                    young[0].send_signal(self.dice.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
                    return True
            time.sleep(0.05)
        return False

    def worker_processes(self) -> list[psutil.Process]:
        """The processes that the runner has started, however young."""
        assert self.runner is not None
        with contextlib.suppress(psutil.Error):
            return psutil.Process(self.runner.pid).children()
        return []

    def stop_runner_early(self) -> bool:
        """SIGINT or SIGTERM to the runner in its first seconds"""
        self.end_runner()
        self.runner = self.start(self.results)
        time.sleep(self.dice.uniform(0, 4))
        self.runner.send_signal(self.dice.choice([signal.SIGINT, signal.SIGTERM]))
        self.runner.wait()
        return True

    def kill_runner(self) -> bool:
        """kill -9 of the runner, whose runs live on"""
        assert self.runner is not None
        if self.runner.poll() is not None:
            return False
        self.runner.kill()
        self.runner.wait()
        return True

    def truncate(self) -> bool:
        """a video is truncated for some seconds"""
        video = self.folder / "videos" / self.dice.choice(self.videos()[1:])
        content = video.read_bytes()
        video.write_bytes(content[: len(content) // 3])
        time.sleep(self.dice.uniform(*WHILE))
        video.write_bytes(content)
        return True

    def spoil(self) -> bool:
        """the newest checkpoint of a killed run is truncated, or a part of it zeroed or overwritten"""
        if (target := self.one_at_work()) is None or not target[0].checkpoint.exists():
            return False
        run, process = target
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            process.wait()
        if run.is_done():
            return False
        content = bytearray(run.checkpoint.read_bytes())
        at = self.dice.randrange(len(content) // 4, len(content) // 2)
        match self.dice.choice(["truncated", "zeros", "garbage"]):
            case "truncated":
                content = content[:at]
            case "zeros":
                content[at:] = bytes(len(content) - at)
            case _:
                content[at : at + 4096] = self.dice.randbytes(4096)
        run.checkpoint.write_bytes(content)
        return True

    def cut_wandb(self) -> bool:
        """W&B's server goes away for some seconds"""
        self.server.stop()
        time.sleep(self.dice.uniform(*WHILE))
        self.server.start()
        return True

    def fill_disk(self) -> bool:
        """the disk of the results is full for some seconds"""
        filler = self.folder / "disk" / "filler"
        with filler.open("wb") as file:
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
        time.sleep(self.dice.uniform(*WHILE))
        filler.unlink()
        return True


def differences(one: Run, other: Run) -> list[str]:
    """In what the outcome of a disturbed run differs from the undisturbed one."""
    if not one.is_done():
        return ["record missing"]
    records = [json.loads(record_path(r.results, "chaos", r.variant.name, r.seed).read_text()) for r in (one, other)]
    records = [record | record.pop("evidence") for record in records]
    apart = [key for key in records[1] if key not in OF_THE_CLOCK and records[0].get(key) != records[1][key]]
    weights = [torch.load(run.checkpoint, weights_only=True)["state_dict"] for run in (one, other)]
    bits = {
        "predictions": one.predictions.read_bytes() == other.predictions.read_bytes(),
        "weights": all(torch.equal(weights[0][key], weights[1][key]) for key in weights[1]),
    }
    return [f"{key} of the record" for key in apart] + [what for what, same in bits.items() if not same]


def tables(results: Path) -> dict[str, str]:
    """Every rendered table, without the line that tells of time."""
    found = sorted((results / "tables" / "chaos").iterdir())
    lines = {path.name: path.read_text().splitlines() for path in found if path.is_file()}
    return {name: "\n".join(line for line in text if not line.startswith(TIME_LINE)) for name, text in lines.items()}


def prepare(folder: Path, epochs: int) -> None:
    """Write the study, its recipe and its videos, the first of which is broken."""
    videos = folder / "videos"
    longrange.LongRange(train=33, val=11, test=22).generate(videos)
    sorted((videos / "train").glob("*/*.mp4"))[0].write_bytes(b"broken")
    (folder / "study.yaml").write_text(STUDY)
    (folder / "chaos.yaml").write_text(RECIPE.format(root=videos, epochs=epochs))
    (folder / "chaos_ranks.yaml").write_text("trainer: {devices: 2, strategy: ddp}\n")
    (folder / "chaos_128f.yaml").write_text(f"model: {{freeze_bn: true}}\ntrainer: {{max_epochs: {epochs // 3}}}\n")


@contextlib.contextmanager
def small_disk(at: Path) -> Iterator[bool]:
    """A small disk at a folder, if this user may mount one."""
    at.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK}", "tmpfs", str(at)]
    mounted = shutil.which("mount") is not None and subprocess.run(command, capture_output=True).returncode == 0
    try:
        yield mounted
    finally:
        if mounted:
            subprocess.run(["umount", "--lazy", str(at)], check=True)


def measure(faults: int, seed: int, epochs: int, variants: tuple[str, ...] = ()) -> tuple[list[str], str]:
    """What was lost, and the report."""
    began = time.monotonic()
    server = WandbServer()
    with tempfile.TemporaryDirectory() as name, small_disk(Path(name) / "disk") as mounted:
        chaos = Chaos(Path(name), server, random.Random(seed), mounted, variants)
        prepare(chaos.folder, epochs)
        try:
            chaos.disturb(faults)
            minutes = (time.monotonic() - began) / 60
            whole = chaos.folder / "whole"
            for results in (whole, chaos.results):  # the second one only renders its tables
                if chaos.start(results).wait():
                    raise RuntimeError((chaos.folder / "runner.log").read_text()[-2000:])
            lost = compare(chaos, whole)
        finally:
            chaos.end_runner()
            server.stop()
        return lost, report(chaos, lost, minutes, f"--seed {seed} --epochs {epochs}")


def compare(chaos: Chaos, whole: Path) -> list[str]:
    """A line for each run and table that differs from the undisturbed one."""
    pairs = zip(chaos.runs(chaos.results), chaos.runs(whole), strict=True)
    lost = [f"{one.name}: {what}" for one, other in pairs for what in differences(one, other)]
    disturbed, undisturbed = tables(chaos.results), tables(whole)
    return lost + [name for name in undisturbed if disturbed.get(name) != undisturbed[name]]


def report(chaos: Chaos, lost: list[str], minutes: float, settings: str) -> str:
    """The figures in Markdown."""
    faults, runs = sum(chaos.struck.values()), chaos.runs(chaos.results)
    fallbacks = sum(run.log.read_text(errors="replace").count("is damaged (") for run in runs)
    lines = [
        f"# {faults} faults, {len(lost)} lost",
        "",
        f"`python -m benchmarks.chaos --faults {faults} {settings}`:",
        f"{machine.processor()}, {machine.cores()} core(s), {minutes:.0f} minutes: {len(runs)} runs, two at a time.",
        "",
        "| fault | times |",
        "| --- | ---: |",
        *(f"| {kind} | {times} |" for kind, times in sorted(chaos.struck.items())),
        "",
        f"- Lost: {', '.join(lost) or 'nothing'}.",
        f"- {fallbacks} times a run named its newest checkpoint as damaged and went on from the one before, or anew.",
        f"- {chaos.done_anew} times a run met the truncated video, said so, and was done anew.",
        "- Compared with the same study without faults: weights and predictions bit for bit; tables and records byte",
        f"  for byte but for {', '.join(OF_THE_CLOCK)}, and the line of the tables that begins with '{TIME_LINE}'.",
    ]
    if not chaos.small_disk:
        lines.append("- No disk was filled: this user can't mount a small one.")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    """Strike, compare, and print; the figures go to this machine's folder. 1 if something was lost."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=18, help="of each run; a longer run is struck more often")
    parser.add_argument("--variant", action="append", default=[], help="run these only (default: all)")
    parser.add_argument("--out", type=Path, help="file of the report (default: in benchmarks/results)")
    options = parser.parse_args(arguments)
    lost, text = measure(options.faults, options.seed, options.epochs, tuple(options.variant))
    print(text)
    (options.out or machine.folder() / "chaos.md").write_text(text)
    return 1 if lost else 0


if __name__ == "__main__":
    sys.exit(main())
