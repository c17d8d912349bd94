"""What a record says of the machine and software it was made with."""

from __future__ import annotations

import contextlib
import ctypes
import math
import platform
import subprocess
import sys
from functools import lru_cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from iqa_robust.errors import RequestError
from iqa_robust.registry import package_version

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Names of glibc's options (malloc.h)."""
_LARGEST_REUSED = 32 * 2**20
"""Bytes of one block; the most that every version of glibc takes."""
_FREE_MEMORY_KEPT = 2**30
"""Bytes at the end of the heap."""


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """Versions, git revision of the package where it is a checkout, device and precision."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    return {
        **_software(),
        "device": device.type,
        "device_name": name,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


@lru_cache(maxsize=1)
def _software() -> dict[str, Any]:
    """What does not change while the process runs."""
    return {
        "package_version": package_version(),
        "git_revision": _git_revision(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": version("torchvision"),
        "numpy": version("numpy"),
        "pillow": version("pillow"),
        "platform": sys.platform,
    }


def _git_revision() -> str | None:
    """The commit of the checkout the package runs from, with a mark when files differ from it."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        described = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=40", "--dirty", "--exclude=*"],
            capture_output=True,
            text=True,
            timeout=10,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return described.stdout.strip()


def pick_device(name: str) -> torch.device:
    """`auto` is CUDA where there is one.

    Raises:
        RequestError: `cuda` was asked for and there is none.
    """
    if name == "cuda" and not torch.cuda.is_available():
        raise RequestError("device 'cuda': no CUDA device is available to torch here; use --device cpu or auto.")
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    return torch.device(name)


def prepare_numerics() -> None:
    """Plain float32 on a GPU: no TF32 shortcuts, no autotuning that would change results from run to run."""
    torch.backends.cudnn.allow_tf32 = False
    torch.backends.cuda.matmul.allow_tf32 = False
    torch.backends.cudnn.benchmark = False
    torch.backends.cudnn.deterministic = True


def keep_freed_memory() -> None:
    """Let this process reuse memory that it frees instead of giving it back to the system at once.

    Every pass frees what the next one asks for. By glibc's defaults its pages go back and come again, each cleared by
    the kernel, which takes up to a third of the time of an attack on a CPU. Other C libraries are left alone.
    """
    with contextlib.suppress(AttributeError, OSError, TypeError):  # no such function, or no C library to be found
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST_REUSED)
        mallopt(_M_TRIM_THRESHOLD, _FREE_MEMORY_KEPT)


def peak_memory_mb(device: torch.device) -> float:
    """Peak memory so far: of the GPU, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    with contextlib.suppress(ImportError):  # there is no such module on Windows
        import resource

        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak / (2**20 if sys.platform == "darwin" else 2**10)
    return math.nan
