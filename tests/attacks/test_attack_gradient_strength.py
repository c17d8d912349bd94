"""The gradient attacks are no weaker than the same attacks of torchattacks and ART at equal budgets.

The tolerance of 2 % of the mean shift is the project's own requirement, not a matter of rounding.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.models.base import IQAModel
from iqa_robust.records import Budget


def _reached(name: str, model: IQAModel, x: torch.Tensor, goal: str, budget: Budget, seeds: int = 1) -> float:
    shifts = []
    for seed in range(seeds):
        result = attacks.create(name)(model, x, goal=goal, budget=budget, seed=seed)
        shift = result.score_adv - result.score_clean
        shifts.append({"up": shift, "down": -shift, "away": shift.abs()}[goal].mean().item())
    return sum(shifts) / seeds


@pytest.mark.parametrize("goal", ["up", "down"])
@pytest.mark.parametrize(
    "ours,theirs",
    [
        ("i-fgsm", "torchattacks/bim"),
        ("mi-fgsm", "torchattacks/mi-fgsm"),
        ("ni-fgsm", "torchattacks/ni-fgsm"),
        ("ti-fgsm", "torchattacks/ti-fgsm"),
        ("apgd", "torchattacks/apgd"),
        ("apgd", "art/apgd"),
    ],
)
def test_linf(images: Callable[..., torch.Tensor], convolutional: IQAModel, ours: str, theirs: str, goal: str) -> None:
    x, budget = images(12), Budget(eps_255=8, steps=20 if ours == "apgd" else 10)
    assert _reached(ours, convolutional, x, goal, budget) >= 0.98 * _reached(theirs, convolutional, x, goal, budget)


@pytest.mark.parametrize("goal", ["up", "down"])
def test_input_diversity(images: Callable[..., torch.Tensor], convolutional: IQAModel, goal: str) -> None:
    """Random on both sides, so three seeds each."""
    x, budget = images(12), Budget(eps_255=8, steps=10)
    ours = _reached("di-fgsm", convolutional, x, goal, budget, seeds=3)
    assert ours >= 0.98 * _reached("torchattacks/di-fgsm", convolutional, x, goal, budget, seeds=3)


@pytest.mark.parametrize("goal", ["up", "down"])
def test_l2(images: Callable[..., torch.Tensor], convolutional: IQAModel, goal: str) -> None:
    x, budget = images(12), Budget(norm="l2", eps_255=150, steps=20)
    ours = _reached("apgd", convolutional, x, goal, budget)
    for theirs in ("torchattacks/apgd", "art/apgd"):
        assert ours >= 0.98 * _reached(theirs, convolutional, x, goal, budget)
