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
import yaml

from benchmarks import machine
from benchmarks.machine import REPOSITORY, cores, processor

sys.path.insert(0, str(REPOSITORY / "tests"))

import tiny_study
from wandb_standin import WandbServer

from nl_lightning.data import longrange
from nl_lightning.study.loading import load_study
from nl_lightning.study.recipe import load_recipe
from nl_lightning.study.records import record_path
from nl_lightning.study.run import Run, plan

OF_THE_CLOCK = ("train_seconds", "test_seconds", "data_wait", "finished", "machine", "started")
"""Fields of a record, and of its evidence, that tell of time and memory; in the tables, the line that begins so."""
TIME_LINE = "- time in all"
WHILE, PAUSE = (1.0, 4.0), (0.5, 2.0)  # seconds that a fault lasts which is mended again, and from one to the next
PROGRAM = [sys.executable, "-m", "nl_lightning.cli"]
DISK = 512 << 20  # bytes of the small disk; more than the runner wants to have free


class Missed(Exception):
    """There is nothing now that this fault can strike."""


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

    def __post_init__(self) -> None:
        self.results = self.folder / "disk" / "disturbed"
        self.runner = self.start(self.results)

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
        while self.struck.total() < faults or not self.is_done():
            if self.is_done():
                self.seeds += 1
            self.ensure_runner()
            self.wait(*PAUSE)
            if self.struck.total() < faults:
                self.strike()
                print(f"{self.struck.total()} of {faults} faults, {self.seeds} seed(s)", flush=True)
        self.end_runner()

    def is_done(self) -> bool:
        """Whether every run has a record; what met the truncated video, and says so, is done anew."""
        for run in self.runs(self.results):
            state = run.state()
            met = state.record is not None and state.record.unreadable != [self.videos()[0]]
            if met or "can't be read, more than" in state.note:
                self.done_anew += 1
                shutil.rmtree(run.folder, ignore_errors=True)
                record_path(run.results, "chaos", run.variant.name, run.seed).unlink(missing_ok=True)
        return all(run.is_done() for run in self.runs(self.results))

    def videos(self) -> list[str]:
        """Those of training; the first can't be read, from the start."""
        root = self.folder / "videos"
        return [str(path.relative_to(root)) for path in sorted((root / "train").glob("*/*.mp4"))]

    def strike(self) -> None:
        """One fault, if there is something that it can strike now."""
        often = [self.kill, self.terminate, self.kill_worker, self.kill_decoder, self.spoil]
        seldom = [self.kill_runner, self.cut_wandb, self.truncate]
        new = [self.kill_service, self.kill_rank, self.suspend, self.strike_early, self.stop_runner_early]
        kind = self.dice.choice([*often, *often, *seldom, *new, *([self.fill_disk] if self.small_disk else [])])
        with contextlib.suppress(Missed, psutil.Error):
            kind()
            self.struck[str(kind.__doc__)] += 1

    def wait(self, fewest: float, most: float) -> None:
        time.sleep(self.dice.uniform(fewest, most))

    def ensure_runner(self) -> None:
        if self.runner.poll() is not None:
            self.runner = self.start(self.results)

    def end_runner(self) -> None:
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

    def target(self) -> tuple[Run, psutil.Process]:
        """Any of them; missed if nothing gets so far for long."""
        give_up = time.monotonic() + 60
        while not (found := self.at_work()):
            if time.monotonic() > give_up or all(run.is_done() for run in self.runs(self.results)):
                raise Missed
            self.ensure_runner()
            time.sleep(0.2)
        return self.dice.choice(found)

    def kill_one(self, processes: list[psutil.Process]) -> None:
        if not processes:
            raise Missed
        self.dice.choice(processes).kill()

    def kill_child(self, program: str) -> None:
        children = self.target()[1].children(recursive=True)
        self.kill_one([child for child in children if program in " ".join(child.cmdline())])

    def kill(self) -> None:
        """kill -9 of a run's process"""
        self.target()[1].kill()

    def terminate(self) -> None:
        """SIGTERM, SIGUSR1 or SIGUSR2 to a run's process"""
        self.target()[1].send_signal(self.dice.choice([signal.SIGTERM, signal.SIGUSR1, signal.SIGUSR2]))

    def kill_worker(self) -> None:
        """kill -9 of a worker that reads for a run, which fails and is resumed"""
        self.kill_child("nl_lightning.runs.worker")

    def kill_decoder(self) -> None:
        """kill -9 of a process that decodes for a worker, which starts another"""
        self.kill_child("nl_lightning.data.reader")

    def kill_service(self) -> None:
        """kill -9 of W&B's own process beside a run"""
        self.kill_child("wandb")

    def kill_rank(self) -> None:
        """kill -9 of the second process of a run of two"""
        parents = [process for run, process in self.at_work() if run.variant.name == "ranks"]
        children = [child for parent in parents for child in parent.children()]
        self.kill_one([child for child in children if child.environ().get("LOCAL_RANK") == "1"])

    def suspend(self) -> None:
        """a run's process, or one that works for it, is suspended for some seconds"""
        process = self.target()[1]
        chosen = self.dice.choice([process, *process.children(recursive=True)])
        chosen.suspend()
        self.wait(*WHILE)
        chosen.resume()

    def strike_early(self) -> None:
        """SIGINT, SIGTERM or SIGKILL to a run's process in its first seconds"""
        runner = psutil.Process(self.runner.pid)
        began = runner.children()
        give_up = time.monotonic() + 30
        while time.monotonic() < give_up and self.runner.poll() is None:
            if young := [child for child in runner.children() if child not in began]:
                self.wait(0, 3)
                return young[0].send_signal(self.dice.choice([signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
            time.sleep(0.05)
        raise Missed

    def stop_runner_early(self) -> None:
        """SIGINT or SIGTERM to the runner in its first seconds"""
        self.end_runner()
        self.runner = self.start(self.results)
        self.wait(0, 4)
        self.runner.send_signal(self.dice.choice([signal.SIGINT, signal.SIGTERM]))
        self.runner.wait()

    def kill_runner(self) -> None:
        """kill -9 of the runner, whose runs live on"""
        if self.runner.poll() is not None:
            raise Missed
        self.runner.kill()
        self.runner.wait()

    def truncate(self) -> None:
        """a video is truncated for some seconds"""
        video = self.folder / "videos" / self.dice.choice(self.videos()[1:])
        content = video.read_bytes()
        video.write_bytes(content[: len(content) // 3])
        self.wait(*WHILE)
        video.write_bytes(content)

    def spoil(self) -> None:
        """the newest checkpoint of a killed run is truncated, or a part of it zeroed or overwritten"""
        run, process = self.target()
        if not run.checkpoint.exists():
            raise Missed
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
            process.wait()
        if run.is_done():
            raise Missed
        content = run.checkpoint.read_bytes()
        at = self.dice.randrange(len(content) // 4, len(content) // 2)
        rest = self.dice.choice([b"", bytes(len(content) - at), self.dice.randbytes(4096) + content[at + 4096 :]])
        run.checkpoint.write_bytes(content[:at] + rest)

    def cut_wandb(self) -> None:
        """W&B's server goes away for some seconds"""
        self.server.stop()
        self.wait(*WHILE)
        self.server.start()

    def fill_disk(self) -> None:
        """the disk of the results is full for some seconds"""
        filler = self.folder / "disk" / "filler"
        with filler.open("wb") as file:
            for size in (1 << 20, 1 << 12):
                with contextlib.suppress(OSError):
                    while True:
                        os.posix_fallocate(file.fileno(), os.fstat(file.fileno()).st_size, size)
        self.wait(*WHILE)
        filler.unlink()


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
    """Write the tests' tiny study with a run of two processes, a longer recipe, and videos; the first one is broken."""
    videos = folder / "videos"
    longrange.LongRange(train=33, val=11, test=22).generate(videos)
    sorted((videos / "train").glob("*/*.mp4"))[0].write_bytes(b"broken")
    study, recipe = yaml.safe_load(tiny_study.STUDY), yaml.safe_load(tiny_study.RECIPE.format(root=videos))
    study |= {"name": "chaos", "recipe": "chaos"}
    study["variants"]["ranks"] = {"net": {"depth": 50}, "clip": "ranks"}
    study["tables"]["one"]["rows"].append({"label": "two processes", "variant": "ranks", "baseline": "c2d"})
    recipe["model"]["net"]["dropout"] = 0.5
    recipe["data"] |= {"max_unreadable": 0.1, "short_side": [36, 40], "batch_size": 6, "num_workers": 1}
    recipe["trainer"] |= {"max_epochs": epochs, "check_val_every_n_epoch": 3, "accumulate_grad_batches": 2}
    ranks = {"trainer": {"devices": 2, "strategy": "ddp"}}
    long = {"model": {"freeze_bn": True}, "trainer": {"max_epochs": epochs // 3}}
    files = {"study": study, "chaos": recipe, "chaos_ranks": ranks, "chaos_128f": long}
    for name, content in files.items():
        (folder / f"{name}.yaml").write_text(yaml.safe_dump(content, sort_keys=False))


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
    began, server = time.monotonic(), WandbServer()
    with tempfile.TemporaryDirectory() as name, small_disk(Path(name) / "disk") as mounted:
        prepare(Path(name), epochs)
        chaos = Chaos(Path(name), server, random.Random(seed), mounted, variants)
        try:
            chaos.disturb(faults)
            minutes, whole = (time.monotonic() - began) / 60, chaos.folder / "whole"
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
    faults, runs = chaos.struck.total(), chaos.runs(chaos.results)
    fallbacks = sum(run.log.read_text(errors="replace").count("is damaged (") for run in runs)
    lines = [
        f"# {faults} faults, {len(lost)} lost",
        "",
        f"`python -m benchmarks.chaos --faults {faults} {settings}`:",
        f"{processor()}, {cores()} core(s), {minutes:.0f} minutes: {len(runs)} runs, two at a time.",
        "",
        machine.table(["fault", "times"], sorted(chaos.struck.items())),
        "",
        f"- Lost: {', '.join(lost) or 'nothing'}.",
        f"- {fallbacks} times a run named its newest checkpoint as damaged and went on from the one before, or anew.",
        f"- {chaos.done_anew} times a run met the truncated video, said so, and was done anew.",
        "- Compared with the same study without faults: weights and predictions bit for bit; tables and records byte",
        f"  for byte but for {', '.join(OF_THE_CLOCK)}, and the line of the tables that begins with '{TIME_LINE}'.",
        *([] if chaos.small_disk else ["- No disk was filled: this user can't mount a small one."]),
    ]
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
