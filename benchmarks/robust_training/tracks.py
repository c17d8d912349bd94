"""The track that judges every checkpoint of one database: adaptive attacks through the true gradients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

RANGES = {"clive": (0.0, 100.0), "biq2021": (0.0, 1.0), "photos": (0.0, 100.0), "live": (0.0, 100.0)}
DATA = {
    "clive": 'params = { split = "test", crop = 224, allow_missing = true }',
    "biq2021": 'params = { split = "test", crop = 224, allow_missing = true }',
    "photos": 'params = { split = "test" }',
    "live": 'params = { split = "test", crop = 224, allow_missing = true, split_seed = 3 }',
}
ATTACKS = """
[budget]
goal = "away"
norm = "linf"
eps_255 = 2
steps = 20

[[attacks]]
name = "noise"

[[attacks]]
name = "pgd"

[[attacks]]
name = "score-reflection"
goal = "reflect"
eps_255 = [1, 2, 4]

[[attacks]]
name = "worst-case"
goal = "reflect"
steps = 10
queries = 200
"""
"""Goal `reflect` sends every score to the other side, as `away` need not; `worst-case` has 200 queries, of which its
gradients take about 80."""


def track(database: str, checkpoints: Sequence[Path]) -> str:
    """The track as TOML, one model per checkpoint, labeled by its file's name."""
    low, high = RANGES[database]
    models = [
        f"""
[[models]]
name = "trunk-regressor"
label = "{path.stem}"
params = {{ weights = "{path.resolve().as_posix()}" }}
score_range = [{low}, {high}]
"""
        for path in checkpoints
    ]
    return f"""name = "robust-{database}"
version = 1
title = "Robust trainings on {database}"
description = "Checkpoints of benchmarks/robust_training, attacked adaptively."
batch_size = 8

[dataset]
name = "{database}"
{DATA[database]}
{"".join(models)}{ATTACKS}"""
