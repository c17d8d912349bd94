"""Fixtures that several rooms share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

os.environ.setdefault("GOMP_SPINCOUNT", "10000")  # as the command line does, so that other work slows tests down less
if processes := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "0")):  # before torch: they share the cores
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // processes)))

CHECKOUT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def data_root() -> Path:
    """The folder with the official datasets, or a skip that says how to provide it."""
    root = Path(os.environ.get("IQA_ROBUST_DATA") or CHECKOUT.parent / "shared" / "data")
    if not root.is_dir():
        pytest.skip("needs the official datasets: set IQA_ROBUST_DATA to their folder")
    return root
