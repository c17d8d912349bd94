"""The scripts of the speed comparison as modules, for the tests of this folder."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from scripts import scripts_of


@pytest.fixture(scope="module")
def scripts() -> Iterator[Any]:
    """They set the number of threads, which is as before at the end."""
    threads = torch.get_num_threads()
    with scripts_of(Path(__file__).resolve().parents[2] / "benchmarks" / "speed") as found:
        yield found
    torch.set_num_threads(threads)
