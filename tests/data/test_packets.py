"""What is shown of a file is told from its packets, and a file that isn't whole, or no video, is named."""

import io
import os
from pathlib import Path

import av
import pytest
from av.stream import Disposition
from PIL import Image
from video_files import barcode, copy, numbers, sound_track, write

from nl_lightning.data import packets
from nl_lightning.data.decoding import frames, num_frames
from nl_lightning.data.packets import DecodeError

# --------------------------------------------------------------------- frames that are stored, not shown


@pytest.mark.parametrize(("codec", "options"), [("libx264", "x264"), ("libx265", "x265")])
@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
def test_a_film_that_begins_within_another(codec: str, options: str, suffix: str, tmp_path: Path) -> None:
    """Frames stored behind the first key frame and shown before it refer to what was cut away: no player shows them."""
    if (codec, suffix) == ("libx264", "ts"):
        pytest.skip("FFmpeg can't decode this copy at all: PyAV leaves the codec's parameters out of it")
    params = "keyint=12:min-keyint=12:scenecut=0:bframes=3:b-adapt=0:open-gop=1:log-level=none"
    whole = write(tmp_path / "whole.mkv", codec=codec, **{f"{options}-params": params})
    path = copy(whole, tmp_path / f"late.{suffix}", drop=lambda place, key: key < 2)
    assert num_frames(path) == 48
    assert numbers(frames(path, range(48))) == list(range(12, 60))


@pytest.mark.parametrize(
    ("name", "codec"),
    [("a.mkv", "libx264"), ("a.mkv", "mpeg4"), ("a.avi", "mpeg4"), ("a.webm", "libvpx"), ("a.webm", "libvpx-vp9")],
)
def test_packets_before_the_first_key_frame(name: str, codec: str, tmp_path: Path) -> None:
    options = {} if codec == "libx264" else {"g": "12", "b": "2M"}
    path = copy(
        write(tmp_path / name, codec=codec, **options), tmp_path / f"x_{name}", drop=lambda place, key: place < 5
    )
    assert num_frames(path) == 48
    assert numbers(frames(path, range(48))) == list(range(12, 60))


def test_frames_that_say_none(tmp_path: Path) -> None:
    """MPEG-4 stores a few bytes where a picture was dropped, as programs that capture do."""
    whole = write(tmp_path / "whole.avi", codec="mpeg4", g="12")
    path = tmp_path / "x.avi"
    with av.open(str(whole)) as old, av.open(str(path), "w") as new:
        track = new.add_stream_from_template(old.streams.video[0])
        packets = [packet for packet in old.demux(video=0) if packet.size]
        for place, packet in enumerate(packets):
            for data in (bytes(packet), bytes.fromhex("000001b650cf"))[: 1 + (place % 20 == 7)]:
                one = av.Packet(data)
                one.stream, one.time_base, one.is_keyframe = track, packet.time_base, packet.is_keyframe
                one.pts = one.dts = packet.dts + place // 20 + (place % 20 > 7) + (len(data) < 8)
                new.mux(one)
    assert num_frames(path) == 60
    assert numbers(frames(path, [0, 20, 59])) == [0, 20, 59]


def test_hidden_frames_of_vp9(tmp_path: Path) -> None:
    """One that stands by itself, and isn't shown."""
    is_shown = packets._Shown("vp9")
    for data, right in (
        (b"\x86\0", True),
        (b"\x84\0", False),
        (b"\x88\0", True),
        (b"\x84\xc1", True),
        (b"\xb2\0", False),
    ):
        assert is_shown(av.Packet(data)) == right


# --------------------------------------------------------------------- what is cut off, or no video


@pytest.mark.parametrize(
    "name", ["a.mkv", "a.webm", "a.avi", "a.ts", "a.flv", "a.wmv", "a.ogv", "a.gif", "a.mp4", "a.mxf"]
)
@pytest.mark.parametrize("share", [0.95, 0.7, 0.5])
def test_files_that_are_cut_off_are_named(name: str, share: float, tmp_path: Path) -> None:
    codec = {
        "a.webm": "libvpx", "a.avi": "mpeg4", "a.wmv": "wmv2", "a.ogv": "libvpx", "a.gif": "gif", "a.mxf": "mpeg2video",
    }.get(name, "libx264")  # fmt: skip
    whole = write(tmp_path / name, codec=codec, pix_fmt="rgb8" if codec == "gif" else "yuv420p")
    assert num_frames(whole) == 60
    content = whole.read_bytes()
    size = int(len(content) * share)
    size += size % 188 == 0
    (tmp_path / "x").write_bytes(content[:size])
    with pytest.raises(DecodeError, match="cut off"):
        num_frames(tmp_path / "x")
    # and in a tar, in which there are bytes behind it
    (tmp_path / "x.tar").write_bytes(b"x" * 100 + content[:size] + bytes(50_000))
    with pytest.raises(DecodeError, match="cut off"):
        num_frames(packets.stretch(tmp_path / "x.tar", 100, size))
    (tmp_path / "x.tar").write_bytes(b"x" * 100 + content + bytes(50_000))
    assert num_frames(packets.stretch(tmp_path / "x.tar", 100, len(content))) == 60


def test_sizes_that_were_never_written_say_nothing(tmp_path: Path) -> None:
    """As of a program that streams: it can't go back to the beginning."""
    for name, codec, place, count in (("a.mkv", "libx264", b"\x18\x53\x80\x67", 8), ("a.avi", "mpeg4", b"RIFF", 4)):
        content = bytearray(write(tmp_path / name, codec=codec).read_bytes())
        at = content.index(place) + 4
        content[at : at + count] = b"\x01" + b"\xff" * 7 if count == 8 else b"\xff" * 4
        (tmp_path / f"x{name}").write_bytes(content)
        assert num_frames(tmp_path / f"x{name}") == 60


@pytest.mark.parametrize("suffix", ["png", "jpg", "gif", "bmp", "tiff", "webp"])
def test_a_still_picture_is_no_video(suffix: str, tmp_path: Path) -> None:
    Image.fromarray(barcode(1)).save(tmp_path / f"x.{suffix}")
    (tmp_path / f"x.{suffix}").rename(tmp_path / "x.mp4")
    with pytest.raises(DecodeError, match=r"x\.mp4: a still picture is no video"):
        num_frames(tmp_path / "x.mp4")


def test_a_playlist_is_no_video(tmp_path: Path) -> None:
    """FFmpeg reads the files that it names."""
    write(tmp_path / "other.mp4")
    (tmp_path / "x.avi").write_text("ffconcat version 1.0\nfile other.mp4\n")
    with pytest.raises(DecodeError, match=r"x\.avi: it is a playlist \(concat\) of other files, not a video"):
        num_frames(tmp_path / "x.avi")


@pytest.mark.parametrize("name", ["pipe", "/dev/null", "/dev/zero"])
def test_a_pipe_or_a_device_is_no_video(name: str, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DecodeError, match=f"{name}: it is no regular file"):
        num_frames(tmp_path / name)


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    """Of a song; of a film it is not what is seen."""
    cover = io.BytesIO()
    Image.fromarray(barcode(99)).save(cover, "jpeg")
    for name, film in (("song.mp4", None), ("film.mp4", write(tmp_path / "plain.mp4"))):
        with av.open(str(tmp_path / name), "w") as container:
            picture = container.add_stream("mjpeg")
            picture.width, picture.height, picture.pix_fmt = 128, 32, "yuvj420p"
            picture.disposition = Disposition.attached_pic
            packet = av.Packet(cover.getvalue())
            packet.stream, packet.is_keyframe = picture, True
            if film is None:
                sound_track(container)
            else:
                with av.open(str(film)) as old:
                    track = container.add_stream_from_template(old.streams.video[0])
                    for one in old.demux(video=0):
                        if one.size:
                            one.stream = track
                            container.mux(one)
            packet.pts = packet.dts = 0
            container.mux(packet)
    with pytest.raises(DecodeError, match=r"song\.mp4: the file holds no video, only a picture"):
        num_frames(tmp_path / "song.mp4")
    assert numbers(frames(tmp_path / "film.mp4", [7, 59])) == [7, 59]
