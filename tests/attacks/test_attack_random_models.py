"""Randomized models: gradients and values are averaged over draws, and every draw is counted."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.randomness import draws
from iqa_robust.records import Budget


def _objective(model: IQAModel, x: torch.Tensor, goal: Goal, budget: Budget, clean: torch.Tensor) -> Objective:
    seeds = list(range(len(x)))
    return Objective(model, x, None, goal=goal, score_clean=clean, budget=budget, seeds=seeds, white_box=True)


@pytest.mark.parametrize(
    "goal", [Goal(sign=torch.ones(4)), Goal(), Goal(target=torch.full((4,), 1e4))], ids=["push", "away", "target"]
)
def test_gradients_are_means_over_draws_and_every_draw_counts(
    images: Callable[..., torch.Tensor], noisy: IQAModel, weights: torch.Tensor, goal: Goal
) -> None:
    x = images()
    objective = _objective(noisy, x, goal, Budget(eot=5), torch.zeros(4))
    value, slope = objective.gradient(x)
    factor = torch.stack(noisy.seen).mean(dim=0)
    assert len(noisy.seen) == 5
    score = factor * (x * weights).flatten(1).sum(dim=1)
    expected = factor.view(-1, 1, 1, 1) * weights
    if goal.sign is None and goal.target is None:
        expected = expected * torch.where(score >= 0, 1.0, -1.0).view(-1, 1, 1, 1)
    # means of five float32 numbers
    torch.testing.assert_close(value, goal.value(score, torch.zeros(4)), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)
    assert objective.tally.queries.tolist() == objective.tally.gradients.tolist() == [5] * 4


def test_autograd_and_the_gradient_method_agree(images: Callable[..., torch.Tensor], noisy: IQAModel) -> None:
    x = images()
    by_method = _objective(noisy, x, Goal(), Budget(eot=3), torch.zeros(4))
    by_autograd = _objective(noisy, x, Goal(), Budget(eot=3), torch.zeros(4))
    value, slope = by_method.gradient(x)
    leaf = x.clone().requires_grad_(True)
    other = by_autograd(leaf)
    other.sum().backward()
    # the same draws, summed in another order
    torch.testing.assert_close(other.detach(), value, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(leaf.grad, slope, rtol=1e-5, atol=1e-6)
    assert by_autograd.tally.gradients.tolist() == by_method.tally.gradients.tolist() == [3] * 4


def test_draws_are_fresh_at_every_call_and_the_same_for_the_same_seed(
    images: Callable[..., torch.Tensor], noisy: IQAModel
) -> None:
    x = images()
    first = _objective(noisy, x, Goal(), Budget(eot=2), torch.zeros(4))
    values = [first(x), first(x)]
    assert not torch.equal(values[0], values[1])
    again = _objective(noisy, x, Goal(), Budget(eot=2), torch.zeros(4))
    assert torch.equal(again(x), values[0])


@pytest.mark.parametrize("name", ["pgd", "square", "fgsm", "torchattacks/pgd", "art/fgm"])
def test_attacks_of_randomized_models_do_not_depend_on_the_batch(
    images: Callable[..., torch.Tensor], noisy: IQAModel, name: str
) -> None:
    x, attack = images(), attacks.create(name)
    budget = Budget(eps_255=4, steps=2, eot=3, queries=60)
    whole = attack(noisy, x, goal="up", budget=budget)
    for i in range(len(x)):
        single = attack(noisy, x[i : i + 1], goal="up", budget=budget)
        assert torch.equal(single.images[0], whole.images[i])
        assert torch.equal(single.score_adv[0], whole.score_adv[i])
    assert bool((whole.queries % 3 == 0).all()) and whole.queries.max() <= 60


def test_averaging_finds_a_slope_that_noise_hides(
    images: Callable[..., torch.Tensor], weights: torch.Tensor, make_model: type[IQAModel]
) -> None:
    """The slope of each draw is w plus noise of eight times its size; the mean of 64 draws is near w."""

    def hidden(z: torch.Tensor) -> torch.Tensor:
        noise = draws(len(z), z.device).normal(z.shape[1:])
        return (z * (weights + 8 * weights.std() * noise)).flatten(1).sum(dim=1)

    model = make_model(hidden, ModelInfo(deterministic=False, score_range=(0, 1)))
    x = images(8)
    rises = []
    for eot in (1, 64):
        result = attacks.create("fgsm")(model, x, goal="up", budget=Budget(eps_255=4, eot=eot))
        rises.append(((result.images - x) * weights).flatten(1).sum(dim=1).mean().item())
    # One draw: the sign agrees with that of w a little more often than not. 64 draws: the noise has size one.
    assert rises[1] > 3 * rises[0] > 0
