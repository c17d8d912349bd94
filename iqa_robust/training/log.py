"""The measures of a training, epoch by epoch, as a CSV file that any plotting tool reads while it runs."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import pandas as pd


def write_log(path: Path, history: Sequence[Mapping[str, float]]) -> None:
    """Replace `path`, in one step, by a table with one row per epoch, counted from 1."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        table = pd.DataFrame(list(history))
        table.insert(0, "epoch", range(1, len(history) + 1))
        table.to_csv(temporary, index=False)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
