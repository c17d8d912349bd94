"""Which epoch a training keeps."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from iqa_robust.training.loop import Batch, Task, fit
from iqa_robust.training.progress import Listener
from iqa_robust.training.sections import Optimization


class Judged(Task):
    """A weight that grows by one per epoch, and what validation says of it."""

    batches_per_epoch = 1
    chosen_by = "srocc"

    def __init__(self, values: list[float]) -> None:
        self.network = nn.Linear(1, 1, bias=False)
        self._values = iter(values)

    def start(self, listener: Listener) -> None:
        nn.init.zeros_(self.network.weight)

    def batches(self, epoch: int) -> Iterator[Batch]:
        yield torch.ones(1, 1, 1, 1), torch.zeros(1)

    def loss(self, batch: Batch) -> torch.Tensor:
        return -self.network.weight.sum()

    def validate(self, listener: Listener) -> dict[str, float]:
        return {"srocc": next(self._values)}


def _kept(values: list[float], tmp_path: Path) -> int:
    """The epoch whose weight is left."""
    task = Judged(values)
    settings = Optimization(
        epochs=len(values),
        optimizer="sgd",
        learning_rate=0.1,
        weight_decay=0,
        schedule="constant",
        warmup=0,
        batch_size=2,
    )
    steps: list[float] = []

    def listen(progress: object) -> None:
        steps.append(float(task.network.weight.detach()))

    fit(task, settings, seed=0, digest="d", state=tmp_path / "state.pt", listener=listen)
    return 1 + steps.index(float(task.network.weight.detach()))


@pytest.mark.parametrize(
    ("values", "kept"),
    [
        ([0.1, 0.3, 0.2], 2),
        ([math.nan, 0.1, 0.4], 3),
        ([0.1, math.nan, 0.05], 1),
        ([math.nan, -0.2, -0.3], 2),
        ([math.nan, math.nan], 1),
    ],
)
def test_the_best_epoch_is_kept_though_others_have_no_rank(values: list[float], kept: int, tmp_path: Path) -> None:
    assert _kept(values, tmp_path) == kept
