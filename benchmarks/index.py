"""What an index of 650,000 videos costs: seconds to read it, and memory of a worker that has looked at all of it.

    python -m benchmarks.index [--videos 650000]

A list as of Kinetics-700 is generated, with empty files, read as a run reads it, and handed to a forked worker, which
looks at every video. Its memory is what it doesn't share with the process that started it, and what the index adds to
that one. Below, the same for a tuple of paths and a tuple of labels.
"""

import argparse
import gc
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from nl_lightning.data.annotations import read_annotation
from nl_lightning.data.videos import refuse_outside

MB = 1e6


def write_list(root: Path, videos: int) -> None:
    """So many empty files in 700 class folders, with a list and a table of them."""
    for label in range(700):
        (root / "train" / f"class number {label:03d}").mkdir(parents=True)
    with (root / "train.txt").open("w") as lines, (root / "train.csv").open("w") as table:
        table.write("label,youtube_id,time_start,time_end,split\n")
        for video in range(videos):
            label = video % 700
            start = video % 300
            name = f"train/class number {label:03d}/{video:011d}_{start:06d}_{start + 10:06d}.mp4"
            lines.write(f"{name} {label}\n")
            table.write(f"class number {label:03d},{video:011d},{start},{start + 10},train\n")
            os.close(os.open(root / name, os.O_CREAT))


def indexed(annotation: str, root: Path) -> tuple[Any, Any]:
    """The index of the package, with the checks of a run."""
    videos = read_annotation(annotation, root, "train")
    refuse_outside(videos.paths)
    return videos.paths, videos.labels


def tuples(root: Path) -> tuple[Sequence[Path], Sequence[int]]:
    """An object for each path."""
    lines = [line.rpartition(" ") for line in (root / "train.txt").read_text().splitlines()]
    return tuple(root / path for path, _, _ in lines), tuple(int(label) for _, _, label in lines)


def memory(of: str, field: str = "Private_Dirty") -> int:
    """Bytes of a process that it doesn't share, from Linux's account of it."""
    lines = Path(f"/proc/{of}/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


def measured(read: Callable[[Path], tuple[Sequence[Path], Sequence[int]]], root: Path, said: Any) -> None:
    """Read the list and start a worker; send (seconds, those of the CPU, bytes held, bytes of the worker)."""
    gc.collect()
    before, began, began_cpu = memory("self"), time.perf_counter(), time.process_time()
    paths, labels = read(root)
    seconds, of_cpu = time.perf_counter() - began, time.process_time() - began_cpu
    gc.collect()
    held = memory("self") - before
    receiver, sender = multiprocessing.Pipe(duplex=False)
    worker = multiprocessing.get_context("fork").Process(target=looked_at, args=(paths, labels, sender))
    worker.start()
    own = receiver.recv()
    worker.join()
    said.send((seconds, of_cpu, held, own))


def looked_at(paths: Sequence[Path], labels: Sequence[int], said: Any) -> None:
    before = memory("self")
    for video in range(len(paths)):
        _ = os.fspath(paths[video]), int(labels[video])
    said.send(memory("self") - before)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=650_000)
    videos = parser.parse_args().videos
    print(f"{videos:,} videos, Python {sys.version.split()[0]}\n")
    print(
        "| index | seconds to read | of them CPU | MB held | MB that a worker adds |\n"
        "| --- | ---: | ---: | ---: | ---: |"
    )
    with tempfile.TemporaryDirectory() as folder:
        write_list(Path(folder), videos)
        ways = {
            "index of 'path label' lines": partial(indexed, "train.txt"),
            "index of Kinetics' CSV": partial(indexed, "train.csv"),
            "tuples of objects": tuples,
        }
        for name, read in ways.items():
            receiver, sender = multiprocessing.Pipe(duplex=False)
            process = multiprocessing.get_context("fork").Process(target=measured, args=(read, Path(folder), sender))
            process.start()
            seconds, of_cpu, held, own = receiver.recv()
            process.join()
            print(f"| {name} | {seconds:.1f} | {of_cpu:.1f} | {held / MB:.0f} | {own / MB:.0f} |")


if __name__ == "__main__":
    main()
