"""A run of several processes as on two machines: told to stop under torchrun, gone on, and tested as by one process."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from slurm_on_loopback import free_ports
from tiny_study import planned, write_tiny_study

from nl_lightning.cli import main
from nl_lightning.study.run import Run
from nl_lightning.train.lightning_cli import lightning_command

ON_TWO_MACHINES = {
    "devices: 1": "devices: 1, num_nodes: 2, strategy: ddp",
    "max_epochs: 3": "max_epochs: 5",  # more than it takes to be told to stop
    "batch_size: 11": "batch_size: 3",
    "test_batch_size: 4": "test_batch_size: 5",  # 22 videos: three batches for the one, two for the other
    "num_clips: 2\n  num_crops: 3": "num_clips: 1\n  num_crops: 1",
    "dropout: 0}": "dropout: 0.5}",
}
REPOSITORY = Path(__file__).resolve().parents[2]
LIMIT = 900
"""Seconds after which a test hangs."""


COMMAND = ["run", "study.yaml", "--recipe=tiny.yaml", "--variant=nl"]
PROGRAM = """
import sys
from nl_lightning import cli

cli.SECONDS_TO_STOP = 900.0
sys.exit(cli.main())
"""
"""``nl-lightning``, which may take its time to stop."""
TOGETHER = """
import os, sys
from nl_lightning.cli import main
from nl_lightning.train import execute  # seconds, once for all processes

def process(rank, results):
    os.environ.update(RANK=str(rank), GROUP_RANK=str(rank))
    os._exit(main([*sys.argv[2:], f"--results={results}"]))

for results in sys.argv[1].split():
    ranks = [os.fork() or process(rank, results) for rank in range(2)]
    print(results, *(os.waitstatus_to_exitcode(os.waitpid(rank, 0)[1]) for rank in ranks))
"""
"""Runs of two processes each, one run after the other, with the environment that torchrun gives them."""


def environment() -> dict[str, str]:
    return {**os.environ, "OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "PYTHONPATH": str(REPOSITORY)}


def stopped_under_torchrun(folder: Path, run: Run) -> list[int]:
    """One agent a machine, as a person would start them, told to stop after a step; their exit codes."""
    agent = [sys.executable, "-m", "torch.distributed.run", "--nnodes=2", "--nproc-per-node=1", "--rdzv-backend=c10d"]
    agent += [f"--rdzv-endpoint=127.0.0.1:{free_ports(1)[0]}", "program.py", *COMMAND, f"--results={run.results}"]
    (folder / "program.py").write_text(PROGRAM)
    patient = environment() | {"TORCH_ELASTIC_SHUTDOWN_TIMEOUT": "900"}
    agents = [subprocess.Popen(agent, cwd=folder, env=patient, stdout=subprocess.DEVNULL) for _ in range(2)]
    try:
        give_up = time.monotonic() + LIMIT
        while run.said().done < 1 and time.monotonic() < give_up:
            assert all(one.poll() is None for one in agents), "a process ended before it was told to stop"
            time.sleep(0.02)
        for one in agents:
            one.send_signal(signal.SIGTERM)
        return [one.wait(timeout=LIMIT) for one in agents]
    finally:
        for one in agents:
            one.kill()


def together(folder: Path, *runs: Run) -> str:
    """What becomes of runs of two processes."""
    torchrun = {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "2", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
    torchrun |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_ports(1)[0])}
    results = " ".join(str(run.results) for run in runs)
    script = [sys.executable, "-c", TOGETHER, results, *COMMAND]
    done = subprocess.run(
        script, cwd=folder, env=environment() | torchrun, capture_output=True, text=True, timeout=LIMIT
    )
    return done.stdout + done.stderr


@pytest.mark.filterwarnings("ignore:Be aware that when using `ckpt_path`")  # a test has no use for a training curve
def test_two_processes_do_as_one(tmp_path: Path, small_videos: Path) -> None:
    write_tiny_study(tmp_path, small_videos, ON_TWO_MACHINES)
    whole, stopped = planned(tmp_path, "nl", "whole"), planned(tmp_path, "nl", "stopped")
    assert all(stopped_under_torchrun(tmp_path, stopped))
    assert stopped.state().name == "preempted"
    said = together(tmp_path, stopped, whole)
    assert all(f"{run.results} 0 0" in said for run in (stopped, whole)), said

    records = [run.state().record for run in (whole, stopped)]
    assert records[0] is not None
    assert records[1] is not None
    assert records[0].curve == records[1].curve  # nothing was left out or done twice
    assert (records[0].steps, records[0].videos_scored) == (25, 22)  # 16 of 33 videos for each, in batches of 3

    arguments = [word for word in whole.arguments() if "predictions" not in word]
    alone = ["--trainer.num_nodes=1", "--trainer.strategy=auto", "--trainer.logger=false"]
    alone += [f"--model.predictions={tmp_path / 'alone.parquet'}", f"--ckpt_path={whole.checkpoint}"]
    assert lightning_command(["test", *arguments, *alone]) == 0
    assert pq.read_table(tmp_path / "alone.parquet").equals(pq.read_table(whole.predictions))


def test_torchrun_and_the_recipe_have_to_agree(
    tmp_path: Path, small_videos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_tiny_study(tmp_path, small_videos)
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "some")
    monkeypatch.setenv("WORLD_SIZE", "2")
    command = ["run", str(tmp_path / "study.yaml"), f"--recipe={tmp_path / 'tiny.yaml'}", f"--results={tmp_path / 'r'}"]
    assert main(command) == 2
    assert "torchrun starts the processes of one run, and 3 are left, c2d seed 0 first" in capsys.readouterr().err
    assert main([*command, "--variant=c2d"]) == 2
    assert "torchrun has started 2 processes, and recipe tiny says 1 x 1" in capsys.readouterr().err
    for ignored in ("--dry-run", "--workers=2", "--compare=.", "--cluster=local"):
        assert main([*command, "--variant=c2d", ignored]) == 2
        assert f"{ignored.partition('=')[0]} has no effect under torchrun: leave it out" in capsys.readouterr().err
