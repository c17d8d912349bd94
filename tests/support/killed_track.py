"""The track of the tests that kill runs, and the board without what differs from run to run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

_TEXT = """name = "killed"
version = 1
title = "A track to be killed"
batch_size = 2

[dataset]
name = "photos"
params = {{ split = "test", limit = {limit}, crop = {crop} }}

[[models]]
name = "ssim"
score_range = [0.0, 1.0]

[[defenses]]
name = "none"

[[defenses]]
name = "gaussian"

[[attacks]]
name = "noise"

[[attacks]]
name = "pgd"
eps_255 = {radii}
steps = {steps}
"""


def track_text(*, limit: int, crop: int, radii: list[int], steps: int) -> str:
    """One full-reference model, bare and behind a filter, under the control and a gradient attack."""
    return _TEXT.format(limit=limit, crop=crop, radii=radii, steps=steps)


def board(out: Path) -> pd.DataFrame:
    """The board of a run, less the seconds it took."""
    return pd.read_csv(out / "board.csv").drop(columns="seconds")
