"""What a worker sets for its process."""

from __future__ import annotations

import os
import platform
import resource
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys, torch
from iqa_robust.harness.environment import keep_freed_memory

if sys.argv[1] == "kept":
    keep_freed_memory()

def use():
    blocks = [torch.zeros(4 * 2**20) for _ in range(6)]
    del blocks

for _ in range(5):
    use()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    use()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


PINNED = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
"""Where glibc begins; left alone, it may raise them by itself and keep some of the memory, too."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the options are glibc's")
def test_freed_memory_is_reused_instead_of_cleared_again() -> None:
    """96 MiB are taken and freed again and again: their pages come once, and not every time."""

    def faults(how: str) -> int:
        command, env = [sys.executable, "-c", FAULTS, how], {**os.environ, **PINNED, "OMP_NUM_THREADS": "1"}
        return int(subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout)

    pages = 96 * 2**20 // resource.getpagesize()
    assert faults("default") > 10 * pages  # 20, but for blocks that the system hands out as huge pages
    assert faults("kept") < pages
