"""Frames that are written come back, nearly: H.264 loses a little."""

from pathlib import Path

import numpy as np

from nl_lightning.data.decoding import frames
from nl_lightning.data.encoding import write_mp4


def test_frames_come_back(tmp_path: Path) -> None:
    ramp = np.linspace(0, 255, 64).astype(np.uint8)
    film = np.stack([np.broadcast_to(level, (48, 64)) for level in (ramp, ramp[::-1], ramp // 2)])
    film = np.ascontiguousarray(film[..., None].repeat(3, axis=3))  # (3, 48, 64, 3)
    write_mp4(tmp_path / "film.mp4", film, 4)
    back = frames(tmp_path / "film.mp4", [0, 1, 2])
    assert back.shape == film.shape
    assert np.abs(back.astype(int) - film).mean() < 5
