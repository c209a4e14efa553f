"""What several rooms' tests need."""

import gc
import os
import random
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from wandb_standin import WandbServer

from nl_lightning.cli import output
from nl_lightning.data import longrange
from nl_lightning.errors import STOP

OF_THE_PLACE = (
    "WANDB_", "SLURM_", "SBATCH_", "TORCHELASTIC_", "MASTER_", "RANK", "LOCAL_RANK", "WORLD_SIZE",  # an account, a job
    "HF_", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY",  # a network: the tests' servers are on 127.0.0.1
    "COLUMNS", "LINES", "FORCE_COLOR", "NO_COLOR", "TTY_",  # a terminal
    "GIT_DIR", "GIT_INDEX_FILE", "GIT_WORK_TREE", "GIT_PREFIX",  # a hook, whose repository tests would take
)  # fmt: skip
"""How environment variables begin that would steer what is tested."""

for name in [name for name in os.environ if name.upper().startswith(OF_THE_PLACE)]:
    del os.environ[name]
os.environ["OMP_NUM_THREADS"] = "1"  # several add up in another order, and networks with equal weights differ in bits
# Under nohup, or in the background of a script, they are ignored, here and in every process of a test.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)
# Under load, an example of a property takes any time. The same examples everywhere: one that fails can be had again.
settings.register_profile("tests", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("tests")
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


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """A test, and a fixture that is made for it, draws the same numbers whichever tests this process had before."""
    random.seed(0)
    np.random.seed(0)
    if (torch := sys.modules.get("torch")) is not None:
        torch.manual_seed(0)


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
def the_process_stays_as_it_is() -> Iterator[None]:
    """Called in this process, a command may leave stop signals ignored, and a seed or W&B's mode in the environment."""
    before, environment = {number: signal.getsignal(number) for number in STOP}, dict(os.environ)
    yield
    for number, handler in before.items():
        if signal.getsignal(number) != handler:
            signal.signal(number, handler)
    for name in {*os.environ, *environment} - {"WANDB_SERVICE"}:  # that W&B's own process is there, which stays
        if name not in environment:
            del os.environ[name]
        elif os.environ.get(name) != environment[name]:
            os.environ[name] = environment[name]


@pytest.fixture
def wandb_server() -> Iterator[WandbServer]:
    """A stand-in W&B server on a free port; nothing of it outlives the test."""
    server = WandbServer()
    try:
        yield server
    finally:
        server.stop()
