"""Frames by index: the right ones on every kind of file, one clear error on every broken one."""

import re
import subprocess
import sys
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from video_files import append, copy, cut, hide, numbers, sound_track, write

from nl_lightning.data import decoding, packets
from nl_lightning.data.decoding import frames, num_frames, objection
from nl_lightning.data.packets import DecodeError
from nl_lightning.errors import UserError


def together(found: decoding.Pictures) -> decoding.Frames:
    """Return pictures as one array."""
    return np.stack([picture.copy() for _, picture in found])


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
        "turned": copy(plain, root / "turned.mp4", turn=(90, False, False)),
        "hidden": hide(write(root / "vp8.webm", codec="libvpx", g="12", b="2M"), root / "hidden.webm"),
    }


KINDS = {  # which frames are shown, and who else than PyAV is right
    "plain": (range(60), ("decord", "torchcodec")),
    "matroska": (range(60), ("decord", "torchcodec")),
    "cut": (range(31, 60), ("torchcodec",)),
    "open": (range(60), ("torchcodec",)),
    "pauses": (range(60), ("decord", "torchcodec")),
    "unsteady": (range(60), ("decord", "torchcodec")),
    "avi": (range(60), ()),
    "ts": (range(60), ()),
    "444": (range(60), ()),
    "hidden": (range(60), ()),
}
PAIRS = [(kind, decoder) for kind in KINDS for decoder in decoding.DECODERS]


def skip_without(decoder: str) -> None:
    """Skip a test, with the reason, where TorchCodec or FFmpeg's libraries are missing."""
    try:
        decoding.named(decoder)  # type: ignore[arg-type]
    except UserError as error:
        pytest.skip(str(error))


@pytest.mark.parametrize(("kind", "decoder"), PAIRS)
def test_right_to_the_frame_or_refused(kind: str, decoder: decoding.Decoder, videos: dict[str, Path]) -> None:
    """All frames at once, in random order with repeats, and each start of a strided clip on a reader of its own."""
    skip_without(decoder)
    path, (shown, right) = videos[kind], KINDS[kind]
    n = len(shown)
    assert num_frames(path) == n
    if decoder not in ("pyav", *right):
        with pytest.raises(DecodeError, match=f"{decoder} would be wrong on this file: "):
            frames(path, [0], decoder)
        return
    assert numbers(frames(path, range(n), decoder)) == list(shown)
    mixed = np.random.default_rng(0).integers(n, size=2 * n)
    assert numbers(frames(path, mixed, decoder)) == [shown[i] for i in mixed]
    for start in range(0, n - 8, 3):
        assert numbers(frames(path, list(range(start, start + 8, 2)), decoder)) == list(shown[start : start + 8 : 2])


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
    index = packets.index_of(videos[kind])
    assert objection(videos[kind], index, "decord") == index.objection == OBJECTIONS.get(kind, "")
    assert (index.times is None) == (kind in ("avi", "ts", "444"))


@pytest.mark.parametrize("kind", ["plain", "matroska", "cut", "open", "pauses", "unsteady", "hidden"])
def test_decoding_from_a_key_frame_finds_all_frames(kind: str, videos: dict[str, Path]) -> None:
    """Where times are sure, no frame has to be looked for from the start, wherever the clip begins."""
    index, shown = packets.index_of(videos[kind]), KINDS[kind][0]
    assert index.times is not None
    for start in range(len(shown)):
        wanted = range(start, min(start + 7, len(shown)), 3)
        screen = decoding.Screen(videos[kind])
        found = decoding.by_time(videos[kind], index.times[wanted].tolist(), index.keys, screen)
        assert numbers(together(found)) == [shown[i] for i in wanted]


@pytest.mark.parametrize(("kind", "decoder"), [(kind, name) for kind, (_, right) in KINDS.items() for name in right])
def test_all_decoders_give_the_same_pixels(kind: str, decoder: decoding.Decoder, videos: dict[str, Path]) -> None:
    """So that a record need not say who read which file."""
    skip_without(decoder)
    indices = [0, 13, 14, 28]
    theirs, by_pyav = (frames(videos[kind], indices, way) for way in (decoder, "pyav"))
    assert theirs.shape == (4, 32, 128, 3)
    assert theirs.dtype == by_pyav.dtype == np.uint8
    difference = np.abs(theirs.astype(int) - by_pyav)
    assert difference.max() <= 2, (difference.max(), difference.mean())


@pytest.mark.parametrize("kind", ["cut", "open", "avi", "ts"])
def test_decord_is_wrong_on_what_is_kept_from_it(kind: str, videos: dict[str, Path]) -> None:
    """The detour is needed: decord by itself gives other frames there."""
    path, shown = videos[kind], KINDS[kind][0]
    wrong = 0
    for start in range(0, len(shown) - 8, 3):
        indices = np.arange(start, start + 8, 2)
        found = next(decoding.sources(path, indices, packets.index_of(path), decoding.Screen(path), "decord"))
        wrong += numbers(together(found)) != [shown[i] for i in indices]
    assert wrong > 0


def test_a_lying_frame_count_is_an_objection(videos: dict[str, Path]) -> None:
    """decord is refused where it believes in another number of frames, or cannot open the file at all."""
    for name, count, said in (
        ("plain", 60, "$"),
        ("cut", 29, "it counts 36 of 29 frames"),
        ("none", 1, "it cannot read"),
    ):
        path = videos.get(name, Path("none.mp4"))
        assert re.match(said, decoding.misread(str(path), "decord", count, 0, 0))


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


@pytest.mark.parametrize("decoder", decoding.DECODERS)
def test_turned_videos_are_upright(decoder: decoding.Decoder, videos: dict[str, Path]) -> None:
    """A video marked as turned comes turned, whoever reads it."""
    skip_without(decoder)
    turned = frames(videos["turned"], [5, 37], decoder)
    assert turned.shape == (2, 128, 32, 3)
    assert numbers(np.rot90(turned, -1, axes=(1, 2))) == [5, 37]


def test_missing_frames_after_a_jump_are_looked_for_from_the_start(
    videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """If decoding from a key frame does not give all frames, they are counted from the first frame on."""
    index = packets.index_of(videos["plain"])
    assert index.times is not None
    screen = decoding.Screen(videos["plain"])
    off = packets.Index(index.count, index.times + 1, index.keys, index.objection)  # no frame has such a time
    assert list(decoding.by_time(videos["plain"], off.times[[7, 30]].tolist(), off.keys, screen)) == []
    monkeypatch.setattr(packets, "index_of", lambda path, facts: off)
    assert numbers(frames(videos["plain"], [30, 7])) == [30, 7]


# ------------------------------------------------------------------------------------ what a file says of its picture


@pytest.mark.parametrize("degrees", [0, 90, 180, 270])
@pytest.mark.parametrize(("mirror", "upside_down"), [(False, False), (True, False), (False, True)])
def test_pictures_are_turned_and_mirrored_as_the_file_says(
    degrees: int, mirror: bool, upside_down: bool, videos: dict[str, Path], tmp_path: Path
) -> None:
    path = copy(videos["plain"], tmp_path / "x.mp4", turn=(degrees, mirror, upside_down))
    right = np.rot90(frames(videos["plain"], [5, 37]), degrees // 90, axes=(1, 2))
    right = right[:, :: -1 if upside_down else 1, :: -1 if mirror else 1]
    assert np.array_equal(frames(path, [5, 37]), right)
    if mirror or upside_down:
        with pytest.raises(DecodeError, match="decord would be wrong on this file: its pictures are to be mirrored"):
            frames(path, [5], "decord")


@pytest.mark.parametrize("turned", [False, True])
def test_pixels_that_are_not_square(turned: bool, tmp_path: Path) -> None:
    """They are left alone, as by others, or made square, as by players."""
    path = copy(write(tmp_path / "a.mp4", aspect=Fraction(3, 2)), tmp_path / "x.mp4", turn=(90 * turned, False, False))
    assert frames(path, [5]).shape == ((1, 128, 32, 3) if turned else (1, 32, 128, 3))
    square = frames(path, [5, 37], square_pixels=True)
    assert square.shape == ((2, 128, 21, 3) if turned else (2, 32, 192, 3))  # the width is scaled
    bars = np.rot90(square, -1, axes=(1, 2)) if turned else square[:, :, 1::3].repeat(2, axis=2)
    assert numbers(bars) == [5, 37]
    with pytest.raises(UserError, match="data.square_pixels needs PyAV: set data.decoder to auto, not decord"):
        frames(path, [5], "decord", square_pixels=True)


@pytest.mark.parametrize("first", [(32, 128), (64, 256)])
def test_pictures_that_change_their_size_get_that_of_the_first(first: tuple[int, int], tmp_path: Path) -> None:
    """Wherever a clip begins: the file's first frame counts, not the clip's."""
    second = (96, 256) if first[0] == 32 else (32, 128)
    parts = [
        write(tmp_path / f"{height}.webm", codec="libvpx", size=(height, width), b="2M", g="12")
        for height, width in (first, second)
    ]
    path = append(*parts, tmp_path / "both.webm")  # type: ignore[call-arg]
    assert num_frames(path) == 120
    for start in (0, 50, 70, 113):
        clip = frames(path, range(start, start + 7))
        assert clip.shape == (7, *first, 3)
        small = clip[:, :: first[0] // 32, :: first[1] // 128]
        assert numbers(small) == [(start + i) % 60 for i in range(7)]


def test_a_colon_makes_no_address(videos: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("http:x.mp4").write_bytes(videos["plain"].read_bytes())
    for decoder in ("pyav", "decord"):
        assert numbers(frames("http:x.mp4", [7], decoder)) == [7]  # type: ignore[arg-type]


@pytest.mark.parametrize("index", [-1, 60, 1000])
def test_index_outside(index: int, videos: dict[str, Path]) -> None:
    """An index that the video does not have is an error, not another frame."""
    with pytest.raises(DecodeError, match=rf"plain\.mp4: no frame {index}, the video has 60 \(0 to 59\)$"):
        frames(videos["plain"], [3, index])


def test_wrong_arguments(videos: dict[str, Path]) -> None:
    """An unknown decoder is named with the nearest one; no indices at all is a mistake of the caller."""
    with pytest.raises(UserError, match="data.decoder is 'pyva'; did you mean 'pyav'"):
        frames(videos["plain"], [0], "pyva")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="no indices"):
        frames(videos["plain"], [])


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
        with av.open(str(path), "w") as container:
            sound_track(container)
    for question in (
        num_frames,
        lambda p: frames(p, [0]),
        lambda p: frames(p, [59], "pyav"),
    ):
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

    monkeypatch.setattr(decoding, "sources", fail)
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
    misses = packets.read_index.cache_info().misses
    frames(videos["plain"], [1])
    num_frames(str(videos["plain"]))
    assert packets.read_index.cache_info().misses == misses


@pytest.mark.parametrize("decoder", ["decord", "torchcodec"])
def test_a_decoder_that_is_not_there(decoder: str, videos: dict[str, Path]) -> None:
    """One line for who asks for it; nobody else needs it, and it isn't imported."""
    module = "torchcodec.decoders" if decoder == "torchcodec" else decoder
    program = (
        "import sys\n"
        f"sys.modules[{module!r}] = None\n"
        "from nl_lightning.data import decoding\n"
        f"print(decoding.frames({str(videos['plain'])!r}, [3, 1]).shape)\n"
        f"decoding.frames({str(videos['plain'])!r}, [3, 1], {decoder!r})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout == "(2, 32, 128, 3)\n"
    assert f"UserError: data.decoder is {decoder}, which can't be loaded here (" in done.stderr
    assert re.search(rf"it needs pip install ('nl-lightning\[)?{decoder}", done.stderr)


def test_torchcodec_without_ffmpeg(videos: dict[str, Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """It can be imported, and then reads nothing: that is no fault of the file."""
    torchcodec = pytest.importorskip("torchcodec")
    monkeypatch.setattr(torchcodec, "ffmpeg_major_version", None, raising=False)
    with pytest.raises(
        UserError, match=r"decoder is torchcodec, which can't be loaded here .*FFmpeg's shared libraries"
    ):
        frames(videos["plain"], [0], "torchcodec")


def test_a_stretch_of_a_larger_file_is_a_file(videos: dict[str, Path], tmp_path: Path) -> None:
    """As in a tar shard: every decoder reads it there, and a cut one is found out by its own size."""
    content = videos["plain"].read_bytes()
    file = tmp_path / "some, file.tar"
    file.write_bytes(b"x" * 1000 + content + b"y" * 1000)
    inside = packets.stretch(file, 1000, len(content))
    for decoder in ("pyav", "decord"):
        assert np.array_equal(frames(inside, [31, 5], decoder), frames(videos["plain"], [31, 5]))  # type: ignore[arg-type]
    with pytest.raises(DecodeError):
        frames(packets.stretch(file, 1000, len(content) // 2), [0])
