"""The wheel, as somebody has it who has no checkout: unpacked, and used from an empty folder."""

import os
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from weight_files import write_weights

import nl_lightning as nl

ROOT = Path(__file__).parent.parent
OF_THE_BUILD = ("pyproject.toml", "setup.py", "MANIFEST.in", "README.md", "LICENSE")
BESIDE = [name for name in ("experiments", "results/records", "results/weights") if (ROOT / name).is_dir()]
USES = """
import sys
from pathlib import Path
from nl_lightning.cli import main
from nl_lightning.runs import schedule

schedule.prepare = lambda study, recipe: 0  # seconds, to do what the run's own process does

def call(*words, code=0):
    print("$", *words, flush=True)
    assert main(list(words)) == code, words

call("run", "table2", "--recipe", "longrange_smoke", "--dry-run", "--variant", "c2d_r50_nl5")
call("init", ".")
call("run", "mine", "--variant", "spacetime")
call("status", "mine")
call("report", "mine", "--html")
call("status", "table2", "--recipe", "longrange_smoke")
call("sweeps", "table2")
call("complexity", "table2", "--variant", "c2d_r50")
call("predict", next(map(str, Path("data/mine").rglob("test/**/*.mp4"))), "--weights", sys.argv[1])
exec(compile(Path(sys.argv[2]).read_text(), "README", "exec"))
"""


def files(folder: Path) -> set[str]:
    """Of a folder, below it, but for what Python caches."""
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    return {str(path) for path in found if "__pycache__" not in path.parts}


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the wheel installs. It is built from a copy, as a build leaves files beside its sources."""
    copy, site = tmp_path_factory.mktemp("copy"), tmp_path_factory.mktemp("site")
    for name in OF_THE_BUILD:
        shutil.copy(ROOT / name, copy)
    for name in ("nl_lightning", *BESIDE):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    build = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-build-isolation", "--no-deps", "--wheel-dir=.", "."]
    subprocess.run(build, cwd=copy, check=True, capture_output=True)
    (wheel,) = copy.glob("*.whl")
    zipfile.ZipFile(wheel).extractall(site)
    return site


def test_the_wheel_holds_the_package_the_experiments_and_the_records(site: Path) -> None:
    inside = {str(Path(name, file)) for name in BESIDE for file in files(ROOT / name)}
    assert files(site / "nl_lightning") == files(ROOT / "nl_lightning") | inside
    (metadata,) = site.glob("*.dist-info/METADATA")
    assert f"\nVersion: {nl.__version__}\n" in metadata.read_text()


def test_it_works_in_an_empty_folder(site: Path, tmp_path: Path) -> None:
    (readme := tmp_path / "readme.py").write_text(
        re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[0]
    )
    weights = write_weights(tmp_path / "w.safetensors", nl.NonLocalConfig({"res4": [4]}))
    (here := tmp_path / "here").mkdir()
    environment = {**os.environ, "PYTHONPATH": str(site), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", USES, str(weights), str(readme)],
        cwd=here, env=environment, capture_output=True, text=True, timeout=1800,
    )  # fmt: skip
    said = done.stdout + done.stderr
    assert done.returncode == 0, said
    assert f"--config={site / 'nl_lightning/experiments/recipes/longrange_smoke.yaml'}" in said
    assert re.search(r"spacetime +0 +done", said)
    assert (here / "my_results/tables/mine/mine.html").is_file()
