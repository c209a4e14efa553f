"""VideoDataModule: lists of video files -> batches of clips for training, of all views for testing."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from nl_lightning.data import decoding, longrange
from nl_lightning.data.datasets import Sample, VideoClips, VideoList, VideoViews, find_videos
from nl_lightning.data.decoded_copy import DecodedCopy
from nl_lightning.data.longrange import LongRange
from nl_lightning.errors import UserError


class Batch(NamedTuple):
    """Videos of a batch. `video` is an index into the list, from 0; views of unreadable videos are black."""

    views: Tensor  # uint8 (N, V, 3, T, H, W)
    label: Tensor  # int64 (N,)
    video: Tensor  # int64 (N,)
    readable: Tensor  # bool (N,)
    path: list[str]
    error: list[str]
