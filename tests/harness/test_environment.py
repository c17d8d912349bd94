"""What a worker sets for its process."""

from __future__ import annotations

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

before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(40):
    blocks = [torch.zeros(4 * 2**20) for _ in range(6)]
    del blocks
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the option is glibc's")
def test_freed_memory_is_reused_instead_of_cleared_again() -> None:
    """96 MiB are taken and freed 40 times: their pages come once, and by default again and again."""

    def faults(how: str) -> int:
        ran = subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True)
        return int(ran.stdout)

    pages = 96 * 2**20 // resource.getpagesize()
    kept = faults("kept")
    assert kept < 2 * pages  # what else the process touches is far less than as many again
    assert kept <= faults("default")  # how often those come depends on the machine: three to forty times
