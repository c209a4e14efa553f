"""What a W&B agent's command costs beside the training: ``python -m benchmarks.agent_start``.

From the start of the process to the checkpoint after the first step, for a bare ``fit`` and for the agent's command in
turn, with the stand-in server; then a repeat, beside its interpreter's imports alone. Medians of seconds.
"""

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(REPOSITORY / "tests"))

from tiny_study import write_tiny_study  # noqa: E402
from wandb_standin import WandbServer  # noqa: E402

from nl_lightning.data import longrange  # noqa: E402

TURNS = 5
ONE_STEP = "max_steps: 1, limit_val_batches: 0, "


def main() -> None:
    server = WandbServer()
    try:
        with tempfile.TemporaryDirectory() as folder:
            _measure(Path(folder), server)
    finally:
        server.stop()


def _measure(folder: Path, server: WandbServer) -> None:
    videos = folder / "generated"
    longrange.generate(videos, longrange.LongRange(train=33, val=11, test=22))
    write_tiny_study(folder, videos)
    recipe = folder / "tiny.yaml"
    recipe.write_text(recipe.read_text().replace("max_epochs: 3, ", ONE_STEP))
    at_home = {**os.environ, **server.environment(folder), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
    agent = {**at_home, "WANDB_SWEEP_ID": "sweep", "WANDB_RUN_ID": "agents-run"}
    program = [sys.executable, "-m", "nl_lightning.cli"]
    fit = [*program, "fit", "--config=tiny.yaml", "--model.net.depth=50", "--trainer.default_root_dir=fit"]
    run = [*program, "run", "study.yaml", "--recipe=tiny.yaml", "--variant=c2d", "--seed=0"]
    runs = Path("my_results/runs/tiny/c2d/seed0")
    steps: dict[str, list[float]] = {"bare fit": [], "agent": []}
    for _ in range(TURNS):
        for name, command, root, env in (("bare fit", fit, Path("fit"), at_home), ("agent", run, runs, agent)):
            for left in ("fit", "my_results"):
                shutil.rmtree(folder / left, ignore_errors=True)
            began = time.time()
            subprocess.run(command, cwd=folder, env=env, check=True, capture_output=True)
            steps[name].append((folder / root / "checkpoints" / "last.ckpt").stat().st_mtime - began)
    imports = [sys.executable, "-c", "import nl_lightning.cli, nl_lightning.tracking.log"]
    ends = {"imports": [_seconds(imports, folder, agent) for _ in range(TURNS)]}
    ends["repeat"] = [_seconds(run, folder, {**agent, "WANDB_RUN_ID": f"again{i}"}) for i in range(TURNS)]
    for what, name in (("to the first step", steps), ("to the end", ends)):
        print(", ".join(f"{key} {what}: {statistics.median(values):.1f} s" for key, values in name.items()))


def _seconds(command: list[str], folder: Path, environment: dict[str, str]) -> float:
    began = time.monotonic()
    subprocess.run(command, cwd=folder, env=environment, check=True, capture_output=True)
    return time.monotonic() - began


if __name__ == "__main__":
    main()
