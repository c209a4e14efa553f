"""What all of Table 2 on Kinetics costs, on paper: ``python -m benchmarks.scale [--rate 20] [--decode 13.1]``.

Multiply-adds are exact. What a GPU and a core do in a second is assumed, and said. The queue of the runs is simulated:
runs wait for those that they start from, are preempted, and go on from their last checkpoint. The page
``docs/scale.md`` is written anew from the usual assumptions, see :class:`Assumed`.
"""

import argparse
import heapq
import itertools
import json
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from benchmarks.machine import REPOSITORY, between, table
from nl_lightning.study.finding import find_study
from nl_lightning.study.loading import load_study

PAGE = REPOSITORY / "docs" / "scale.md"
GPUS = (1, 8, 64, 1000)


@dataclass(frozen=True)
class Assumed:
    """What nobody has measured here.

    Attributes:
        rate: multiply-adds that a GPU does in a second of training, in 10^12; 20 is 40 TFLOP/s.
        decode: clips of 32 frames that a core decodes in a second; measured on a CPU core from files of 340 x 256.
        watts: of a GPU with its share of the machine and of the cooling.
        preempted: times that a GPU's job is preempted, a thousand GPU-hours.
        checkpoint: minutes from one checkpoint to the next.
        restart: minutes until a preempted run trains again.
    """

    rate: float = 20.0
    decode: float = 13.1
    watts: float = 900.0
    preempted: float = 2.0
    checkpoint: float = 10.0
    restart: float = 10.0


@dataclass(frozen=True)
class Job:
    """A run in the queue: hours on one GPU, and the run that it starts from."""

    name: str
    hours: float
    clips: float
    after: str | None = None


ITERATIONS = 400_000  # paper, Sec. 4.1, and the same for 128 frames (Sec. 5.1)
BATCH = {None: 64, "128f": 16}  # 8 GPUs x 8 clips, or x 2
TRAIN = 3  # forward, and twice that backward
TEST = 20_000 * 10  # videos x clips
WHOLE = 256 * 340 / 224**2  # how much larger the whole frame is than a crop of training


def jobs(assumed: Assumed) -> list[Job]:
    """The 29 runs of Table 2 on Kinetics-400, in the study's order."""
    study = load_study(find_study("table2"))
    costs = json.loads(study.path.with_suffix(".costs.json").read_text())
    found = []
    for name in study.select(None):
        clip, macs = study.variants[name].clip, costs[name][1]
        clips = ITERATIONS * BATCH[clip]
        done = macs * (TRAIN * clips + WHOLE * TEST)
        found.append(Job(name, done / assumed.rate / 1e12 / 3600, clips, study.variants[name].init_from))
    return found


@dataclass(frozen=True)
class Finish:
    """How a queue went: hours until the last run ended, GPU-hours of all runs, and those done twice or waited for."""

    hours: float
    busy: float
    lost: float


def simulate(
    queue: Sequence[Job], gpus: int, together: int, assumed: Assumed, rng: np.random.Generator, longest_first: bool
) -> Finish:
    """Run a queue on `gpus` GPUs, `together` of which train one run; a run waits for the one that it starts from.

    A free group of GPUs takes the first run of the queue that can start. With `longest_first`, the queue is sorted by
    the hours of a run and of all that wait for it.
    """
    hours = {job.name: job.hours / together for job in queue}
    left = sorted(queue, key=lambda job: -_chain(job, queue, hours)) if longest_first else list(queue)
    free, running, done = gpus // together, list[tuple[float, int, str]](), set[str]()
    now = busy = lost = 0.0
    number = itertools.count()
    while left or running:
        for job in [job for job in left if job.after is None or job.after in done][:free]:
            left.remove(job)
            free -= 1
            again = _again(hours[job.name], together, assumed, rng)
            busy, lost = busy + together * (hours[job.name] + again), lost + together * again
            heapq.heappush(running, (now + hours[job.name] + again, next(number), job.name))
        now, _, name = heapq.heappop(running)
        done.add(name)
        free += 1
    return Finish(now, busy, lost)


def _chain(job: Job, queue: Sequence[Job], hours: dict[str, float]) -> float:
    return hours[job.name] + max((_chain(one, queue, hours) for one in queue if one.after == job.name), default=0.0)


def _again(hours: float, together: int, assumed: Assumed, rng: np.random.Generator) -> float:
    """Hours that preemptions cost a run: what came after its last checkpoint, and until it trains again."""
    times = int(rng.poisson(hours * together * assumed.preempted / 1000))
    return float((rng.uniform(0, assumed.checkpoint, times) + assumed.restart).sum() / 60)


def bound(queue: Sequence[Job], gpus: int, together: int) -> float:
    """Hours that no order can beat: all work on all groups of GPUs, or the longest chain of runs."""
    hours = {job.name: job.hours / together for job in queue}
    return max(sum(hours.values()) / (gpus // together), max(_chain(job, queue, hours) for job in queue))


def report(assumed: Assumed, tries: int = 20) -> str:
    """The tables of the page, in Markdown."""
    queue = jobs(assumed)
    total = sum(job.hours for job in queue)
    clips = sum(job.clips for job in queue)
    frames = sum(job.clips * (4 if job.name.endswith("128f") else 1) for job in queue)
    all_runs = [
        ("GPU-hours", f"{total:,.0f}"),
        ("of which the six networks of 128 frames", f"{sum(job.hours for job in queue if job.after):,.0f}"),
        ("energy, MWh", f"{total * assumed.watts / 1e6:.1f}"),
        ("clips trained on, millions", f"{clips / 1e6:,.0f}"),
        ("core-hours of decoding", f"{frames / assumed.decode / 3600:,.0f}"),
        ("cores that decode for one GPU", f"{frames / assumed.decode / (total * 3600):.1f}"),
    ]
    ways = [(gpus, together) for gpus in GPUS for together in sorted({min(gpus, 8), max(8, gpus // 29 // 8 * 8)})]
    rows = [_row(queue, gpus, together, assumed, tries) for gpus, together in ways if together <= gpus]
    header = ["GPUs", "of one run", "hours, in the study's order", "longest chain first", "no order can beat"]
    said = (
        f"Assumed: a GPU trains at {assumed.rate:g} x 10^12 multiply-adds a second. A core decodes {assumed.decode:g} "
        f"clips of 32 frames a second. A GPU and its share of all else take {assumed.watts:g} W. There are "
        f"{assumed.preempted:g} preemptions in 1,000 GPU-hours, checkpoints every {assumed.checkpoint:g} minutes, and "
        f"{assumed.restart:g} minutes until a preempted run trains again."
    )
    header += ["GPUs in use", "done twice"]
    return "\n\n".join([said, table(["all 29 networks, one seed", ""], all_runs), table(header, rows, labels=0)])


def _row(queue: Sequence[Job], gpus: int, together: int, assumed: Assumed, tries: int) -> list[str]:
    runs = [
        [simulate(queue, gpus, together, assumed, np.random.default_rng(seed), first) for seed in range(tries)]
        for first in (False, True)
    ]
    hours = [f"{np.mean([one.hours for one in some]):,.0f}" for some in runs]
    use = np.mean([one.busy / one.hours / gpus for one in runs[1]])
    twice = np.mean([one.lost / one.busy for one in runs[1]])
    least = f"{bound(queue, gpus, together):,.0f}"
    return [f"{gpus:,}", f"{together}", *hours, least, f"{use:.0%}", f"{twice:.1%}"]


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, usual in vars(Assumed()).items():
        parser.add_argument(f"--{name}", type=float, default=usual, help=f"default: {usual:g}")
    given = vars(parser.parse_args(words))
    found = report(Assumed(**given))
    print(found)
    if Assumed(**given) == Assumed():
        PAGE.write_text(between(PAGE.read_text(), "scale", found))


if __name__ == "__main__":
    main()
