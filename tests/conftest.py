"""What several rooms' tests need."""

import gc
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from wandb_standin import WandbServer

from nl_lightning.cli import output
from nl_lightning.data import longrange
from nl_lightning.errors import STOP

signal.signal(signal.SIGHUP, signal.SIG_DFL)  # under nohup it is ignored, here and in every process of a test
gc.disable()  # what is imported is never garbage, and looking through it takes a tenth of the time of the tests


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


def pytest_unconfigure() -> None:
    gc.unfreeze()  # libraries complain of objects that outlive the process


def pytest_configure(config: pytest.Config) -> None:
    """Ignore Lightning's advice on loaders and loggers: tests use few workers and no validation on purpose.

    The process that only hands tests to others doesn't: to name the warning takes seconds, as Lightning is imported.
    """
    if hasattr(config, "workerinput") or not getattr(config.option, "numprocesses", None):
        import nl_lightning.tracking.log  # noqa: F401 - W&B after torch takes 1.9 s in place of 0.3

        advice = "lightning_fabric.utilities.warnings.PossibleUserWarning"
        config.addinivalue_line("filterwarnings", f"ignore::{advice}")


@pytest.fixture(scope="session")
def small_videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A generated set of 33 training, 11 validation and 22 test videos; copy it before spoiling it."""
    root = tmp_path_factory.mktemp("videos")
    longrange.LongRange(train=33, val=11, test=22).generate(root)
    return root


@pytest.fixture(autouse=True)
def no_signs_of_life(monkeypatch: pytest.MonkeyPatch) -> None:
    """Under load, a command takes long enough to say that it works; tests of what it prints don't expect that."""
    monkeypatch.setattr(output, "PATIENCE", 600.0)


@pytest.fixture(autouse=True)
def signals_stay_as_they_are() -> Iterator[None]:
    """A command that is called in this process may leave stop signals ignored, and so would every process after it."""
    before = {number: signal.getsignal(number) for number in STOP}
    yield
    for number, handler in before.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)


@pytest.fixture
def wandb_server() -> Iterator[WandbServer]:
    """A stand-in W&B server on a free port; nothing of it outlives the test."""
    server = WandbServer()
    try:
        yield server
    finally:
        server.stop()
