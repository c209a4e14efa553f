"""What an index of 650,000 videos costs: seconds to read it, and memory of a worker that has looked at all of it.

    python -m benchmarks.index [--videos 650000]

A list as of Kinetics-700 is generated, with empty files, read as a run reads it, and handed to a forked worker, which
looks at every video. Its memory is what it doesn't share with the process that started it, and what the index adds to
that one.
"""

import argparse
import gc
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.machine import table
from nl_lightning.data.annotations import read_annotation
from nl_lightning.data.videos import VideoList, refuse_outside

FORK = multiprocessing.get_context("fork")


def write_list(root: Path, videos: int) -> None:
    """So many empty files in 700 class folders, with a list and a table of them."""
    for label in range(700):
        (root / "train" / f"class number {label:03d}").mkdir(parents=True)
    with (root / "train.txt").open("w") as lines, (root / "train.csv").open("w") as rows:
        rows.write("label,youtube_id,time_start,time_end,split\n")
        for video in range(videos):
            label, start = video % 700, video % 300
            name = f"train/class number {label:03d}/{video:011d}_{start:06d}_{start + 10:06d}.mp4"
            lines.write(f"{name} {label}\n")
            rows.write(f"class number {label:03d},{video:011d},{start},{start + 10},train\n")
            (root / name).touch()


def memory() -> int:
    """Bytes of this process that it doesn't share, from Linux's account of it."""
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    return sum(1024 * int(line.split()[1]) for line in lines if line.startswith("Private_Dirty"))


def measured(annotation: str, root: Path, said: Any) -> None:
    """Read the list and start a worker; send (seconds, those of the CPU, bytes held, bytes of the worker)."""
    gc.collect()
    before, began, began_cpu = memory(), time.perf_counter(), time.process_time()
    videos = read_annotation(annotation, root, "train")
    refuse_outside(videos.paths)
    seconds, of_cpu = time.perf_counter() - began, time.process_time() - began_cpu
    gc.collect()
    said.send((seconds, of_cpu, memory() - before, in_a_process(looked_at, videos)))


def looked_at(videos: VideoList, said: Any) -> None:
    before = memory()
    for video in range(len(videos)):
        _ = os.fspath(videos.paths[video]), int(videos.labels[video])
    said.send(memory() - before)


def in_a_process(of: Any, *arguments: Any) -> Any:
    """What a function sends from a forked process."""
    receiver, sender = FORK.Pipe(duplex=False)
    process = FORK.Process(target=of, args=(*arguments, sender))
    process.start()
    said = receiver.recv()
    process.join()
    return said


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=650_000)
    videos, rows = parser.parse_args().videos, []
    with tempfile.TemporaryDirectory() as folder:
        write_list(Path(folder), videos)
        for name, annotation in (("'path label' lines", "train.txt"), ("Kinetics' CSV", "train.csv")):
            seconds, of_cpu, held, own = in_a_process(measured, annotation, Path(folder))
            rows.append([name, f"{seconds:.1f}", f"{of_cpu:.1f}", f"{held / 1e6:.0f}", f"{own / 1e6:.0f}"])
    header = [f"{videos:,} videos", "seconds to read", "of them CPU", "MB held", "MB that a worker adds"]
    print(table(header, rows))


if __name__ == "__main__":
    main()
