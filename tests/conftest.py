"""What several rooms' tests need."""

from pathlib import Path

import pytest

from nl_lightning.data import longrange


@pytest.fixture(scope="session")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated set of 33 training, 11 validation and 22 test videos; copy it before spoiling it."""
    root = tmp_path_factory.mktemp("videos")
    longrange.generate(root, longrange.LongRange(train=33, val=11, test=22), progress=False)
    return root
