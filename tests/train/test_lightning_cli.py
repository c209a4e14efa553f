"""Freed memory that stays with the process, seen by the page faults of a process of its own."""

import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
from nl_lightning.train.lightning_cli import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
def work():
    return [np.ones(1 << 20) for _ in range(3)]  # 8 MiB each
work()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    work()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def faults(word: str) -> int:
    done = subprocess.run([sys.executable, "-c", FAULTS, word], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library")
def test_blocks_are_used_again_without_page_faults() -> None:
    kept, given_back = faults("keep"), faults("no")
    assert kept < given_back / 10, f"{kept} page faults with freed memory kept, {given_back} without"
