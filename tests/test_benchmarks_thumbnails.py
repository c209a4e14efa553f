"""The control of real videos: the nearest thumbnail."""

from pathlib import Path

import numpy as np
import pytest

from benchmarks import thumbnails
from nl_lightning.data.tools.prepare import write_mp4


def test_a_video_gets_the_label_of_the_nearest_middle_frame(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Shades by class; one test video has the shade of the other class. Only the middle frame says the shade."""
    for name, shade in {
        "train/dark/0": 40, "train/dark/1": 60, "train/light/2": 200, "train/light/3": 220,
        "val/dark/4": 50, "val/dark/5": 250, "val/light/6": 190, "val/light/7": 230,
    }.items():  # fmt: skip
        frames = np.full((5, 28, 48, 3), 128, np.uint8)
        frames[2] = shade
        write_mp4(tmp_path / f"{name}.mp4", frames, 25)
    thumbnails.main(["folder", "--root", str(tmp_path)])
    assert capsys.readouterr().out.splitlines() == [
        "test videos by training videos: 75.0 %",
        "all videos, each by all others: 87.5 %",
        "chance: 50.0 %; 4 training and 4 test videos",
    ]
