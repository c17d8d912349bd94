"""Which image of an attack counts: the better of the returned one and the best one seen, inside the ball."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from custom_attack import Custom

from iqa_robust.attacks.objectives import Objective
from iqa_robust.images import to_8bit_grid
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget
from iqa_robust.testing.toy import Recorder


def _furthest(model: IQAModel, x: torch.Tensor) -> torch.Tensor:
    leaf = x.clone().requires_grad_(True)
    return to_8bit_grid((x + 3 / 255 * torch.autograd.grad(model(leaf).sum(), leaf)[0].sign()).clamp(0, 1))


def test_the_best_image_seen_counts_even_if_another_is_returned(
    images: Callable[..., torch.Tensor], linear: IQAModel
) -> None:
    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        slope = objective.gradient(x)[1]
        objective((x + budget.eps * slope.sign()).clamp(0, 1))
        return (x - budget.eps * slope.sign()).clamp(0, 1)

    result = Custom(perturb)(linear, images(), goal="up", budget=Budget())
    assert bool((result.score_adv > result.score_clean).all())


@pytest.mark.parametrize(("seen", "returned", "passes"), [(2, 3, 1), (3, 2, 2), (3, 3, 1)])
def test_what_was_seen_is_scored_only_where_the_search_valued_it_higher(
    images: Callable[..., torch.Tensor], linear: IQAModel, seen: int, returned: int, passes: int
) -> None:
    """Steps in gray levels along the slope: on the grid, so that the search's values are the final ones."""

    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        way = objective.gradient(x)[1].sign() / 255
        objective((x + seen * way).clamp(0, 1))
        return (x + returned * way).clamp(0, 1)

    x, judge = images(), Recorder(linear)
    result = Custom(perturb)(judge, x, goal="up", budget=Budget(eps_255=3), search=linear)
    assert judge.images == (1 + passes) * len(x)  # the clean images first
    assert torch.equal(result.images, _furthest(linear, x))


def test_what_was_seen_outside_the_ball_does_not_count(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    def perturb(objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        slope = objective.gradient(x)[1]
        objective((x + 3 * budget.eps * slope.sign()).clamp(0, 1))
        objective(x + budget.eps * slope.sign() * 2)
        return x

    x = images()
    result = Custom(perturb)(linear, x, goal="up", budget=Budget())
    assert torch.equal(result.images, x)
