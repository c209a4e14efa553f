"""Clips a second of each decoder and of pytorchvideo's dataset, and what census, helper and copies cost or gain.

``python -m benchmarks.decoding [--quick]`` makes its own files (H.264, 10 s, a key frame every 250 frames), measures,
and writes a page of tables beside those of the other benchmarks. A clip is 32 frames, every other one, at a random
start, scaled to a short side of 256; opening the file is part of it. One thread; everything that is compared takes
turns, and figures are medians of processor time, but for the census, which is timed by the clock.
"""

import argparse
import importlib.metadata
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import av
import numpy as np
import psutil
import torch
import torchvision.transforms.functional

from benchmarks.machine import REPOSITORY, between, cores, folder, processor, table
from nl_lightning.data import decoding, packets
from nl_lightning.data.datasets import Files
from nl_lightning.data.tools import prepare
from nl_lightning.data.tools.check import take_census
from nl_lightning.data.transforms import resize
from nl_lightning.data.videos import VideoList
from nl_lightning.errors import UserError

PAGE = REPOSITORY / "docs" / "data.md"
SIZES = ((256, 340), (360, 640), (720, 1280))
NAMES = [f"{width} x {height}" for height, width in SIZES]
FRAMES, STRIDE, LENGTH, RATE = 32, 2, 300, 30
SHORT_SIDE = 256
Clip = Callable[[Path, int], object]
Row = tuple[Any, ...]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="few repeats: to see that it works")
    parser.add_argument("--machine", help="the folder of the figures (default: after the processor)")
    options = parser.parse_args()
    torch.set_num_threads(1)
    turns, files, clips = (3, 6, 300) if options.quick else (11, 20, 10_000)
    versions = (f"{name} {importlib.metadata.version(name)}" for name in ("av", "decord", "torch", "pytorchvideo"))
    parts = [f"`python -m benchmarks.decoding` on {processor()}, {cores()} cores; {', '.join(versions)}."]
    with tempfile.TemporaryDirectory() as made:
        videos = [write(Path(made) / f"{height}.mp4", height, width) for height, width in SIZES]
        for title, rows in (
            ("Clips a second, one core", decoders(videos, turns)),
            ("The helper process against decoding in the same process", helper(videos, turns)),
            ("Prepared copies against their originals", copies(videos, turns)),
            (f"Census of {files * len(videos)} files against bare decoders", census(videos, files, 3)),
            (f"Memory of a helper over {clips:,} clips", memory(Path(made), clips)),
        ):
            parts += [f"## {title}", table(rows[0], rows[1:])]
    found = "\n\n".join(parts)
    (folder(options.machine) / "decoding.md").write_text(f"# Decoding\n\n{found}\n")
    if not options.quick:
        PAGE.write_text(between(PAGE.read_text(), "decoding", found.replace("## ", "### ")))
    print(found)


def write(path: Path, height: int, width: int) -> Path:
    """A moving picture with grain, so that it has about the bits of a real one."""
    rng = np.random.default_rng(0)
    scene = np.kron(rng.integers(0, 256, (height // 8 + 40, width // 8 + 80, 3)), np.ones((8, 8, 1)))
    grain = rng.normal(0, 4, (4, height, width, 1))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"g": "250", "crf": "21", "preset": "fast"})
        stream.height, stream.width, stream.pix_fmt = height, width, "yuv420p"
        for i in range(LENGTH):
            top, left = int(100 + 100 * np.sin(i / 25)), i
            picture = scene[top : top + height, left : left + width] * 0.8 + grain[i % 4] + 20
            image = np.clip(picture, 0, 255).astype(np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    return path


def indices(start: int) -> np.ndarray:
    return np.arange(start, start + FRAMES * STRIDE, STRIDE)


def by(decoder: decoding.Decoder, prefix: str = "") -> Clip:
    """A clip as training reads it, the file, or the one whose name has this prefix, opened anew."""

    def read(path: Path, start: int) -> object:
        path = path.with_name(prefix + path.name)
        packets.read_index.cache_clear()
        decoding.misread.cache_clear()
        return resize(decoding.frames(path, indices(start), decoder), SHORT_SIDE)

    return read


def pytorchvideo() -> Clip:
    """A clip of pytorchvideo's dataset: random start, as many seconds, its own subsampling and scaling."""
    # It imports a module that torchvision has removed; what it wants of it lives on under this name.
    sys.modules.setdefault("torchvision.transforms.functional_tensor", torchvision.transforms.functional)
    from pytorchvideo.data import LabeledVideoDataset, make_clip_sampler
    from pytorchvideo.transforms import ApplyTransformToKey, ShortSideScale, UniformTemporalSubsample
    from torchvision.transforms import Compose

    transform = ApplyTransformToKey("video", Compose([UniformTemporalSubsample(FRAMES), ShortSideScale(SHORT_SIDE)]))
    sampler = make_clip_sampler("random", FRAMES * STRIDE / RATE)

    def read(path: Path, start: int) -> object:
        dataset = LabeledVideoDataset([(str(path), {"label": 0})], sampler, transform=transform, decode_audio=False)
        clip = next(iter(dataset))["video"]
        assert clip.shape[1] == FRAMES, clip.shape
        return clip

    return read


def seconds(clips: dict[str, Clip], path: Path, turns: int) -> dict[str, float]:
    """Median processor seconds of a clip of each, in turns over the same random starts; pytorchvideo draws its own."""
    spent: dict[str, list[float]] = {name: [] for name in clips}
    rng = np.random.default_rng(0)
    for turn in range(-1, turns):  # the first is not counted
        start = int(rng.integers(LENGTH - FRAMES * STRIDE))
        for name, read in clips.items():
            begun = processor_seconds()
            read(path, start)
            if turn >= 0:
                spent[name].append(processor_seconds() - begun)
    return {name: statistics.median(values) for name, values in spent.items()}


def processor_seconds() -> float:
    """Of this process and those that it has started, to the nanosecond."""
    helpers = (Path(f"/proc/{child.pid}/schedstat").read_text() for child in psutil.Process().children())
    return time.process_time() + sum(int(said.split()[0]) for said in helpers) / 1e9


def decoders(videos: list[Path], turns: int) -> list[Row]:
    clips: dict[str, Clip] = {}
    for name in decoding.DECODERS:
        try:
            decoding.named(name)
        except UserError as error:
            print(error, file=sys.stderr)
        else:
            clips[name] = by(name)
    clips["pytorchvideo"] = pytorchvideo()
    rows: list[Row] = [("file", *clips, "PyAV / pytorchvideo")]
    for path, size in zip(videos, NAMES, strict=True):
        spent = seconds(clips, path, turns)
        ratio = spent["pytorchvideo"] / spent["pyav"]
        rows.append((size, *(f"{1 / s:.1f}" for s in spent.values()), f"{ratio:.2f}x"))
    return rows


def helper(videos: list[Path], turns: int) -> list[Row]:
    files = Files(videos[0].parent)

    def asked(path: Path, start: int) -> object:
        files.num_frames(path)
        return resize(files.frames(path, indices(start)), SHORT_SIDE)

    def here(path: Path, start: int) -> object:
        decoding.num_frames(path)
        return resize(decoding.frames(path, indices(start)), SHORT_SIDE)

    rows: list[Row] = [("file", "same process, clips/s", "helper, clips/s", "helper / same")]
    for path, size in zip(videos, NAMES, strict=True):
        spent = seconds({"here": here, "helper": asked}, path, 2 * turns)
        speeds = (f"{1 / spent[way]:.1f}" for way in ("here", "helper"))
        rows.append((size, *speeds, f"{spent['here'] / spent['helper']:.2f}x"))
    files.helper.end()
    return rows


def copies(videos: list[Path], turns: int) -> list[Row]:
    rows: list[Row] = [("file", "original, clips/s", "copy, clips/s", "gain", "original kB", "copy kB")]
    for path, size in zip(videos, NAMES, strict=True):
        copy = path.with_name(f"copy_of_{path.name}")
        prepare.copy_video(path, copy)
        spent = seconds({"original": by("auto"), "copy": by("auto", "copy_of_")}, path, turns)
        speeds = (f"{1 / spent[which]:.1f}" for which in ("original", "copy"))
        sizes = (file.stat().st_size // 1000 for file in (path, copy))
        rows.append((size, *speeds, f"{spent['original'] / spent['copy']:.1f}x", *sizes))
    return rows


def census(videos: list[Path], copies_each: int, turns: int) -> list[Row]:
    """By the clock, with the start of the processes."""
    root = videos[0].parent / "set"
    root.mkdir()
    names = [f"{i}_{video.name}" for i in range(copies_each) for video in videos]
    for name in names:
        (root / name).symlink_to(videos[0].with_name(name.partition("_")[2]))
    workers, spent = cores(), {"bare": list[float](), "census": list[float]()}
    for _ in range(turns):
        begun = time.monotonic()
        with ProcessPoolExecutor(workers) as pool:
            assert all(count == LENGTH for count in pool.map(bare, [root / name for name in names]))
        spent["bare"].append(time.monotonic() - begun)
        begun = time.monotonic()
        rows = take_census({"train": VideoList.of(root, names, [0] * len(names))}, root, root / "m", workers, False)
        spent["census"].append(time.monotonic() - begun)
        assert not any(row.error for row in rows)
        (root / "m").unlink()
    speeds = {name: len(names) / statistics.median(values) for name, values in spent.items()}
    share = statistics.median(b / c for b, c in zip(spent["bare"], spent["census"], strict=True))
    return [
        ("processes", "bare decoders, files/s", "census, files/s", "census / bare, in the middle round"),
        (workers, f"{speeds['bare']:.1f}", f"{speeds['census']:.1f}", f"{share:.2f}x"),
    ]


def bare(path: Path) -> int:
    """What it takes to decode a file, and nothing else."""
    with av.open(str(path)) as container:
        container.streams.video[0].codec_context.thread_count = 1
        return sum(1 for _ in container.decode(video=0))


def memory(made: Path, clips: int) -> list[Row]:
    """Of the helper, each clip from a file that it has not seen."""
    small, files, rng = write(made / "small.mp4", 64, 96), Files(made), np.random.default_rng(0)
    rows: list[Row] = [("clips", "resident MB")]
    for clip in range(clips + 1):
        path = made / f"link{clip}.mp4"
        path.symlink_to(small)
        files.num_frames(path)
        files.frames(path, indices(int(rng.integers(LENGTH - FRAMES * STRIDE))))
        if clip * 10 % clips == 0 and clip:
            (process,) = psutil.Process().children()
            rows.append((f"{clip:,}", f"{process.memory_info().rss / 1e6:.1f}"))
    files.helper.end()
    return rows


if __name__ == "__main__":
    main()
