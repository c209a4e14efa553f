"""Frames to a video file that players and browsers show."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt

from nl_lightning.study.files import write_atomically


def write_mp4(path: Path, frames: npt.NDArray[np.uint8], fps: Fraction | int) -> None:
    """Write frames (T, H, W, 3), RGB, of even height and width, as H.264: whole or not at all."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=fps, options={"crf": "18"})
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"  # others don't play everywhere
        for image in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(image, format="rgb24")))
        container.mux(stream.encode())
    write_atomically(path, file.getvalue())
