"""Frames by index: the right ones on every kind of file, one clear error on every broken one."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import av
import numpy as np
import pytest

from nl_lightning.data import decoding
from nl_lightning.data.decoding import DecodeError, choose, frames, num_frames
from nl_lightning.errors import UserError

BLOCK = 16  # pixels of a bar
BITS = 8


def barcode(number: int) -> decoding.Frames:
    """Return a picture (32, 128, 3) that spells `number` in eight black or white bars, the lowest bit on the left."""
    bars = np.repeat([255 * (number >> bit & 1) for bit in range(BITS)], BLOCK).astype(np.uint8)  # (128,)
    return np.tile(bars[None, :, None], (32, 1, 3))


def numbers(clip: decoding.Frames) -> list[int]:
    """Return what the frames of `clip` (T, 32, 128, 3) spell."""
    bars = clip[:, 8:24, BLOCK // 2 :: BLOCK].mean(axis=(1, 3)) > 127  # (T, 8)
    return [int(sum(1 << bit for bit in range(BITS) if row[bit])) for row in bars]


def write(
    path: Path,
    codec: str = "libx264",
    params: str = "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0",
    count: int = 60,
    pix_fmt: str = "yuv420p",
    when: Callable[[int], int] = lambda i: i,
    **options: str,
) -> Path:
    """Write frames 0 to `count` - 1, frame i shown at tick ``when(i)`` of 25 a second."""
    if codec == "libx264":
        options = {"x264-params": f"threads=1:{params}"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25, options=options)
        stream.height, stream.width, stream.pix_fmt = 32, 128, pix_fmt
        for i in range(count):
            frame = av.VideoFrame.from_ndarray(barcode(i), format="rgb24")
            frame.pts = when(i)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def cut(source: Path, path: Path, key: int, first: int) -> Path:
    """Copy the packets from key frame `key` on, without decoding, so that frame `first` is shown at time 0."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        stream = old.streams.video[0]
        copy = new.add_stream_from_template(stream)
        packets = [packet for packet in old.demux(stream) if packet.size]
        tick = sorted(packet.pts for packet in packets)
        begun = False
        for packet in packets:
            begun = begun or packet.pts == tick[key]
            if begun:
                packet.pts -= tick[first]
                packet.dts -= tick[first]
                packet.stream = copy
                new.mux(packet)
    return path


def turn(source: Path, path: Path) -> Path:
    """Copy a video with the mark that it is to be shown turned by a quarter."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        copy.set_display_rotation(90)
        for packet in old.demux(video=0):
            if packet.size:
                packet.stream = copy
                new.mux(packet)
    return path


def hide(source: Path, path: Path) -> Path:
    """Copy a VP8 video with a frame that is never shown before every key frame: that frame, its show bit cleared."""
    with av.open(str(source)) as old, av.open(str(path), "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if not packet.size:
                continue
            packet.pts, packet.dts = packet.pts + 20, packet.dts + 20
            if packet.is_keyframe:
                data = bytearray(bytes(packet))
                data[0] &= ~16
                unseen = av.Packet(bytes(data))
                unseen.pts = unseen.dts = packet.pts - 10
                unseen.time_base, unseen.stream, unseen.is_keyframe = packet.time_base, copy, True
                new.mux(unseen)
            packet.stream = copy
            new.mux(packet)
    return path


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return a video of every kind, by name."""
    root = tmp_path_factory.mktemp("videos")
    plain = write(root / "plain.mp4")
    return {
        "plain": plain,
        "matroska": write(root / "plain.mkv"),
        "cut": cut(plain, root / "cut.mp4", key=24, first=31),
        "open": write(root / "open.mp4", params="keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:open-gop=1"),
        "pauses": write(root / "pauses.mkv", when=lambda i: i + 100 * (i // 10)),
        "unsteady": write(root / "unsteady.mp4", when=lambda i: i + i // 7),
        "avi": write(root / "b.avi", codec="mpeg4", bf="2", g="12"),
        "ts": write(root / "b.ts", codec="mpeg2video", bf="2", g="12"),
        "444": write(root / "444.mp4", pix_fmt="yuv444p"),
        "turned": turn(plain, root / "turned.mp4"),
        "hidden": hide(write(root / "vp8.webm", codec="libvpx", g="12", b="2M"), root / "hidden.webm"),
    }


KINDS = {  # who reads it, which frames are shown
    "plain": ("decord", range(60)),
    "matroska": ("decord", range(60)),
    "cut": ("pyav", range(31, 60)),
    "open": ("pyav", range(60)),
    "pauses": ("decord", range(60)),
    "unsteady": ("decord", range(60)),
    "avi": ("pyav", range(60)),
    "ts": ("pyav", range(60)),
    "444": ("pyav", range(60)),
    "hidden": ("pyav", range(60)),
}


@pytest.mark.parametrize("kind", KINDS)
def test_right_to_the_frame(kind: str, videos: dict[str, Path]) -> None:
    """All frames at once, in random order with repeats, and each start of a strided clip on a reader of its own."""
    path, (decoder, shown) = videos[kind], KINDS[kind]
    n = len(shown)
    assert num_frames(path) == n
    assert choose(path) == decoder
    for way in ("auto", "pyav"):
        assert numbers(frames(path, range(n), way)) == list(shown)
        mixed = np.random.default_rng(0).integers(n, size=2 * n)
        assert numbers(frames(path, mixed, way)) == [shown[i] for i in mixed]
        for start in range(0, n - 8, 3):
            assert numbers(frames(path, list(range(start, start + 8, 2)), way)) == list(shown[start : start + 8 : 2])


OBJECTIONS = {
    "cut": "7 of 36 stored frames are hidden",
    "open": "frames shown before a key frame are stored behind it",
    "avi": "its container does not store the time of every frame",
    "ts": "its container does not store the time of every frame",
    "444": "its pictures are not 4:2:0",
    "hidden": "5 of 65 stored frames are hidden",
}


@pytest.mark.parametrize("kind", KINDS)
def test_why_decord_is_not_asked(kind: str, videos: dict[str, Path]) -> None:
    """The reason is the one that holds, and files without sure times are the ones that are counted from the start."""
    index = decoding.index_of(videos[kind])
    assert index.objection == OBJECTIONS.get(kind, "")
    assert (index.times is None) == (kind in ("avi", "ts", "444"))


@pytest.mark.parametrize("kind", ["plain", "matroska", "cut", "open", "pauses", "unsteady", "hidden"])
def test_decoding_from_a_key_frame_finds_all_frames(kind: str, videos: dict[str, Path]) -> None:
    """Where times are sure, no frame has to be looked for from the start, wherever the clip begins."""
    index, shown = decoding.index_of(videos[kind]), KINDS[kind][1]
    assert index.times is not None
    for start in range(len(shown)):
        wanted = range(start, min(start + 7, len(shown)), 3)
        found = decoding.by_time(videos[kind], index.times[wanted].tolist(), index)
        assert numbers(np.stack(found)) == [shown[i] for i in wanted]


@pytest.mark.parametrize("kind", [kind for kind, (decoder, _) in KINDS.items() if decoder == "decord"])
def test_both_decoders_give_the_same_pixels(kind: str, videos: dict[str, Path]) -> None:
    """Where decord is right, PyAV's frames are equal to its frames."""
    indices = [0, 13, 14, 40, 59]
    by_decord, by_pyav = (frames(videos[kind], indices, way) for way in ("decord", "pyav"))
    assert by_decord.shape == (5, 32, 128, 3)
    assert by_decord.dtype == by_pyav.dtype == np.uint8
    difference = np.abs(by_decord.astype(int) - by_pyav)
    assert difference.max() <= 2, (difference.max(), difference.mean())


@pytest.mark.parametrize("kind", ["cut", "open", "avi", "ts"])
def test_decord_is_wrong_on_what_is_kept_from_it(kind: str, videos: dict[str, Path]) -> None:
    """The detour is needed: decord by itself gives other frames there, and is refused if asked for by name."""
    path, shown = videos[kind], KINDS[kind][1]
    wrong = 0
    for start in range(0, len(shown) - 8, 3):
        indices = np.arange(start, start + 8, 2)
        wrong += numbers(decoding.read_decord(path, indices)) != [shown[i] for i in indices]
    assert wrong > 0
    with pytest.raises(DecodeError, match="decord would be wrong on this file: "):
        frames(path, [0], "decord")


def test_a_lying_frame_count_is_an_objection(videos: dict[str, Path]) -> None:
    """decord is refused where it believes in another number of frames, or cannot open the file at all."""
    assert decoding.miscount(str(videos["plain"]), 60) == ""
    assert decoding.miscount(str(videos["cut"]), 29) == "decord counts 36 of 29 frames"
    assert decoding.miscount(str(videos["plain"]) + "x", 60).startswith("decord cannot read it: ")


@pytest.mark.parametrize("width", [16, 24, 48, 72])
def test_widths_that_decord_cannot_read(width: int, tmp_path: Path) -> None:
    """They are no reason to call a sound file unreadable."""
    path = tmp_path / "narrow.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=25)
        stream.height, stream.width, stream.pix_fmt = 32, width, "yuv420p"
        for i in range(4):
            image = np.full((32, width, 3), 60 * i, np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    clip = frames(path, [3, 1])
    assert clip.shape == (2, 32, width, 3)
    assert np.abs(clip.mean(axis=(1, 2, 3)) - [180, 60]).max() < 5


def test_turned_videos_are_upright(videos: dict[str, Path]) -> None:
    """A video marked as turned comes turned, whoever reads it."""
    for way in ("decord", "pyav"):
        turned = frames(videos["turned"], [5, 37], way)
        assert turned.shape == (2, 128, 32, 3)
        assert numbers(np.rot90(turned, -1, axes=(1, 2))) == [5, 37]


def test_missing_frames_after_a_jump_are_looked_for_from_the_start(videos: dict[str, Path]) -> None:
    """If decoding from a key frame does not give all frames, they are counted from the first frame on."""
    index = decoding.index_of(videos["plain"])
    assert index.times is not None
    off = decoding.Index(index.count, index.times + 1, index.keys, index.objection)  # no frame has such a time
    assert decoding.by_time(videos["plain"], off.times[[7, 30]].tolist(), off) == []
    assert numbers(decoding.read_pyav(videos["plain"], np.array([7, 30]), off)) == [7, 30]


@pytest.mark.parametrize("index", [-1, 60, 1000])
@pytest.mark.parametrize("decoder", ["auto", "pyav"])
def test_index_outside(index: int, decoder: decoding.Decoder, videos: dict[str, Path]) -> None:
    """An index that the video does not have is an error, not another frame."""
    with pytest.raises(DecodeError, match=rf"plain\.mp4: no frame {index}, the video has 60 \(0 to 59\)$"):
        frames(videos["plain"], [3, index], decoder)


def test_wrong_arguments(videos: dict[str, Path]) -> None:
    """An unknown decoder is named with the nearest one; no indices at all is a mistake of the caller."""
    with pytest.raises(UserError, match="decoder is 'pyva'; did you mean 'pyav'"):
        frames(videos["plain"], [0], "pyva")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no indices"):
        frames(videos["plain"], [])


def sound(path: Path) -> None:
    """Write a file with a second of sound and no picture."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
        frame.sample_rate, frame.pts = 8000, 0
        container.mux(stream.encode(frame))
        container.mux(stream.encode())


@pytest.mark.parametrize("fault", ["missing", "empty", "text", "headless", "cut short", "folder", "sound"])
def test_broken_files(fault: str, tmp_path: Path, videos: dict[str, Path]) -> None:
    """Every broken file is a DecodeError of one line that begins with its path, whichever question is asked first."""
    path = tmp_path / "x.mp4"
    whole = videos["plain"].read_bytes()
    if fault == "empty":
        path.touch()
    elif fault == "text":
        path.write_text("not a video at all\n" * 50)
    elif fault == "headless":  # the table of frames stands at the end
        path.write_bytes(whole[: len(whole) // 2])
    elif fault == "cut short":  # the table of frames stands in front: all decoders open it
        with av.open(str(videos["plain"])) as old, av.open(str(path), "w", options={"movflags": "faststart"}) as new:
            copy = new.add_stream_from_template(old.streams.video[0])
            for packet in old.demux(video=0):
                if packet.size:
                    packet.stream = copy
                    new.mux(packet)
        assert num_frames(path) == 60
        path.write_bytes(path.read_bytes()[:-2000])
    elif fault == "folder":
        path.mkdir()
    elif fault == "sound":
        sound(path)
    for question in (num_frames, choose, lambda p: frames(p, [0]), lambda p: frames(p, [59], "pyav")):
        with pytest.raises(DecodeError) as caught:
            question(path)
        text = str(caught.value)
        assert text.startswith(f"{path}: ")
        assert "\n" not in text
        assert len(text) > len(f"{path}: ") + 5
    expected = {"missing": "No such file", "empty": "is empty", "cut short": "cut off", "sound": "no video"}
    assert expected.get(fault, "") in text


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_errors_while_decoding(
    decoder: decoding.Decoder, videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever a decoder raises on the way becomes a DecodeError; decord's own error derives from Exception only."""

    class DECORDError(Exception):
        """As in decord."""

    def fail(*_: object) -> None:
        raise DECORDError("first line\nstack trace")

    monkeypatch.setattr(decoding, f"read_{decoder}", fail)
    with pytest.raises(DecodeError, match=r"plain\.mp4: first line$"):
        frames(videos["plain"], [0], decoder)


def test_a_replaced_file_is_read_anew(tmp_path: Path) -> None:
    """What is remembered about a file is dropped when the file changes."""
    path = write(tmp_path / "x.mp4", count=20)
    assert num_frames(path) == 20
    write(path, count=31)
    assert num_frames(path) == 31
    path.unlink()
    with pytest.raises(DecodeError):
        num_frames(path)


def test_packets_are_read_once(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """Asking again costs no second pass over the file."""
    frames(videos["plain"], [0])
    misses = decoding.read_index.cache_info().misses
    frames(videos["plain"], [1])
    num_frames(str(videos["plain"]))
    assert decoding.read_index.cache_info().misses == misses


def test_without_decord_all_files_are_read(videos: dict[str, Path]) -> None:
    """decord is not imported before it is needed, and a machine without it decodes everything by PyAV."""
    program = (
        "import importlib.util, sys\n"
        "from nl_lightning.data import decoding\n"
        "assert 'decord' not in sys.modules\n"
        "find = importlib.util.find_spec\n"
        "importlib.util.find_spec = lambda name: None if name == 'decord' else find(name)\n"
        f"print(decoding.choose({str(videos['plain'])!r}), decoding.frames({str(videos['plain'])!r}, [3, 1]).shape)\n"
        "assert 'decord' not in sys.modules\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "pyav (2, 32, 128, 3)\n"
