"""Run commands as a person would, against the stand-in W&B server, and write down what they print.

``python tests/transcript.py`` makes docs/wandb_transcript.md. It trains, so it takes as long as the sweep.
"""

import os
import re
import subprocess
import sys
import tempfile
from pathlib import Path

from wandb_standin import ENTITY, WandbServer

AGENTS = 2
REPOSITORY = Path(__file__).resolve().parent.parent
PAGE = REPOSITORY / "docs" / "wandb_transcript.md"
HEAD = """# From a sweep to LaTeX: a transcript

Made by `python tests/transcript.py` at commit {commit}: the real `wandb` and `nl-lightning` programs, and a stand-in
for W&B's server on loopback (`tests/wandb_standin.py`). W&B's own service was not reached. Two agents had
{cores} cores.
"""


def main() -> None:
    """Write the page. Nothing but the page is left."""
    server = WandbServer()
    try:
        with tempfile.TemporaryDirectory() as folder:
            clone = Path(folder) / "nl-lightning"
            subprocess.run(["git", "clone", "--quiet", str(REPOSITORY), str(clone)], check=True)
            text = _session(server, clone)
            asked = ["git", "-C", str(clone), "rev-parse", "--short", "HEAD"]
            commit = subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
    finally:
        server.stop()
    PAGE.write_text(f"{HEAD.format(commit=commit, cores=os.cpu_count())}\n```console\n{text}```\n")


def _session(server: WandbServer, clone: Path) -> str:
    shell = _Shell(server, clone)
    shell.say("wandb sweep sweeps/table2a.yaml")
    sweep = f"{ENTITY}/nl-lightning/{next(iter(server.state.sweeps))}"
    agents = [shell.start(f"wandb agent {sweep}") for _ in range(AGENTS)]
    for agent in agents:
        agent.communicate()
    shell.lines += [f"$ wandb agent {sweep}     # on one machine, and on another", "..."]
    shell.say("nl-lightning status table2 --table 2a")
    shell.say(f"nl-lightning report table2 --wandb {sweep} --results from_wandb | tail -3")
    shell.say("cat from_wandb/tables/longrange/table2a.tex")
    shell.say("nl-lightning report table2 > /dev/null && diff -r my_results/tables from_wandb/tables && echo the same")
    return shell.text()


class _Shell:
    """Commands, and what they print, in a folder."""

    def __init__(self, server: WandbServer, folder: Path) -> None:
        self.folder, self.lines = folder, list[str]()
        self.environment = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
        threads = max(1, (os.cpu_count() or 1) // AGENTS)
        self.environment |= server.environment(folder.parent) | {"COLUMNS": "110", "OMP_NUM_THREADS": str(threads)}
        self.environment["PYTHONPATH"] = str(folder)  # what was committed, whatever happens beside it
        self.environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        del self.environment["WANDB_SILENT"]
        self.private = {str(folder.parent): "~"}

    def start(self, command: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            command, shell=True, cwd=self.folder, env=self.environment, text=True,
            stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip

    def say(self, command: str) -> None:
        said, _ = self.start(command).communicate()
        self.lines += [f"$ {command}", said.rstrip()]

    def text(self) -> str:
        text = "\n".join(line.rstrip() for line in "\n".join(self.lines).splitlines()) + "\n"
        for private, public in self.private.items():
            text = text.replace(private, public)
        return re.sub(r"\x1b\[[0-9;]*m", "", text)


if __name__ == "__main__":
    main()
