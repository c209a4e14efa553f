"""The one step of a build that pyproject.toml can't say: what lies beside the package goes into the wheel.

Studies and recipes are found there from any folder, and the committed records say what to expect of a run.
"""

import os
import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class WithExperiments(build_py):
    """Copies them into the package. An editable install finds them beside it."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            for folder in filter(os.path.isdir, ("experiments", "results/records", "results/weights")):
                inside = Path(self.build_lib, "nl_lightning", folder)
                shutil.rmtree(inside, ignore_errors=True)  # of an earlier build
                shutil.copytree(folder, inside)


setup(cmdclass={"build_py": WithExperiments})
