"""The images of a database that scripts of the comparison look at."""

from __future__ import annotations

from typing import Any

import torch
from databases import Database

import iqa_robust as ir


def images_of(database: Database, split: str = "test", **more: Any) -> tuple[torch.Tensor, list[float], float]:
    """Images of one size (N, 3, H, W), their labels, and 1 where higher labels mean better quality, else -1.

    By default those of the track of all methods; `more` are parameters of the dataset in the place of the track's.
    """
    dataset = ir.datasets.create(database.dataset, split=split, **{**database.judged, **more})
    items = list(dataset)
    better = 1.0 if dataset.mos_higher_is_better else -1.0
    return torch.stack([item.x for item in items]), [item.mos for item in items], better
