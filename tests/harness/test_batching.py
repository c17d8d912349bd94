"""Images per batch, from what one gradient pass holds in memory; and the same results whatever they are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import iqa_robust as ir
from iqa_robust import models
from iqa_robust.harness.batching import images_at_once
from iqa_robust.harness.cost import peak_of
from iqa_robust.harness.system import Batch
from iqa_robust.records import Budget

MIB = 2**20


class Wasteful(nn.Module):
    """Holds 16 copies of the image until the backward pass: 3 MiB each at 512 x 512."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        total = x
        for _ in range(16):
            total = total.exp() - 1  # the exponential is kept for its slope
        return total.mean(dim=(1, 2, 3))


def _batch() -> Batch:
    x = torch.zeros(2, 3, 512, 512)
    return Batch(("a", "b"), (None, None), x, None, torch.zeros(2, dtype=torch.float64))


@pytest.mark.parametrize(("free", "expected"), [(100_000 * MIB, 8), (400 * MIB, 3), (1, 1)])
def test_a_cpu_gets_what_the_track_asks_or_what_fits(free: int, expected: int) -> None:
    # 16 exponentials of 3 MiB are held at once, and a few more while they are made: about 57 MiB an image.
    assert images_at_once(models.wrap(Wasteful()), _batch(), asked=8, free=free) == expected


@pytest.mark.parametrize(("workers", "expected"), [(1, 6), (2, 3), (4, 1), (100, 1)])
def test_workers_share_the_memory(workers: int, expected: int) -> None:
    model = models.wrap(Wasteful())
    assert images_at_once(model, _batch(), asked=8, free=760 * MIB, workers=workers) == expected


def test_peak_counts_what_lives_at_once() -> None:
    def work() -> None:
        first = torch.zeros(MIB)  # 4 MiB
        del first
        second, third = torch.zeros(MIB), torch.zeros(MIB)
        del second, third

    assert peak_of(work, torch.device("cpu")) == 8 * MIB


def test_a_model_without_a_slope_can_be_measured() -> None:
    constant = models.wrap(lambda x: torch.zeros(len(x)))
    assert images_at_once(constant, _batch(), asked=4) == 4


def test_a_model_that_fails_is_left_to_its_cells() -> None:
    class Broken(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise ValueError("out of order")

    assert images_at_once(models.wrap(Broken()), _batch(), asked=4) == 4


@pytest.mark.parametrize("precision", ["mixed", "bf16"])
def test_a_rounded_search_does_not_depend_on_the_batch(precision: str) -> None:
    """Eight images together, and three by three, the last two of which have fewer beside them still."""
    photos, budget = ir.datasets.create("photos", limit=8, crop=64), Budget(norm="linf", eps_255=4, queries=40)
    together, by_three = (
        ir.evaluate("compact", photos, "square", budget=budget, precision=precision, batch_size=size).images
        for size in (8, 3)
    )
    assert (together["score_adv"] - together["score_clean"]).abs().mean() > 1
    assert by_three["score_adv"].to_numpy() == pytest.approx(together["score_adv"].to_numpy(), abs=1e-3)
