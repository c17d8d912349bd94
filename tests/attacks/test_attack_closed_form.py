"""Attacks on models whose worst case is known."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.gradient.ascent import ascend
from iqa_robust.attacks.norms import distance
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

GRADIENT_ATTACKS = ["fgsm", "pgd", "torchattacks/pgd", "art/fgm"]


def _corner(x: torch.Tensor, direction: torch.Tensor, eps_255: int) -> torch.Tensor:
    """The corner of the L-infinity ball, in whole gray levels."""
    return (torch.round(x * 255) + eps_255 * direction.sign()).clamp(0, 255) / 255


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
@pytest.mark.parametrize("low,high", [(20, 235), (0, 255)], ids=["inner", "clamped"])
@pytest.mark.parametrize("goal", ["up", "down"])
def test_the_worst_case_of_a_linear_model_is_a_corner(
    images: Callable[..., torch.Tensor],
    linear: IQAModel,
    weights: torch.Tensor,
    name: str,
    low: int,
    high: int,
    goal: str,
) -> None:
    x = images(low=low, high=high)
    # ten steps of a quarter of eps reach the surface from any start
    result = attacks.create(name)(linear, x, goal=goal, budget=Budget(eps_255=4, steps=10))
    expected = _corner(x, weights if goal == "up" else -weights, 4)
    assert torch.equal(result.images, expected)
    assert bool((result.score_adv == linear(expected)).all())


@pytest.mark.parametrize("name", GRADIENT_ATTACKS)
def test_away_takes_the_direction_with_more_room(
    images: Callable[..., torch.Tensor], linear: IQAModel, weights: torch.Tensor, name: str
) -> None:
    """Where the bright values have positive weights, clamping leaves more room downward, and the reverse."""
    x = images(4, low=40, high=200)
    x[:2] = torch.where(weights > 0, 254 / 255, x[:2])
    x[2:] = torch.where(weights > 0, 1 / 255, x[2:])
    result = attacks.create(name)(linear, x, goal="away", budget=Budget(eps_255=4, steps=10))
    shift = result.score_adv - result.score_clean
    both = torch.stack([linear(_corner(x, sign * weights, 4)) - result.score_clean for sign in (1, -1)])
    assert both.abs().argmax(dim=0).tolist() == [1, 1, 0, 0]
    torch.testing.assert_close(shift.abs(), both.abs().amax(dim=0).detach(), rtol=0, atol=0)
    assert shift.sign().tolist() == [-1, -1, 1, 1]


@pytest.mark.parametrize("name", ["fgsm", "art/fgm", "pgd"])
def test_the_l2_worst_case_follows_the_weights(
    images: Callable[..., torch.Tensor], linear: IQAModel, weights: torch.Tensor, name: str
) -> None:
    """x + eps w / |w|; each of the 768 values is rounded by at most half a level, and then the length is restored."""
    x = images(low=100, high=150)
    eps_255 = 600.0
    result = attacks.create(name)(linear, x, goal="up", budget=Budget(norm="l2", eps_255=eps_255, steps=10))
    exact = eps_255 * weights / weights.norm()
    # Half a level, and the stretch or shrink that keeps the length: below 0.1 % here, of at most 100 levels.
    assert ((result.images - x) * 255 - exact).abs().max() <= 0.5 + 0.1
    assert result.l2.min() >= 0.999 * eps_255 / 255
    rise = result.score_adv - result.score_clean
    best = eps_255 / 255 * weights.norm()
    assert bool((rise >= 0.999 * best).all()) and bool((rise <= best * (1 + 1e-5)).all())


@pytest.mark.parametrize("name", ["pgd", "score-reflection"])
def test_a_target_within_reach_is_reached(
    images: Callable[..., torch.Tensor], linear: IQAModel, weights: torch.Tensor, name: str
) -> None:
    """Mirroring 50 + d needs a move of -2 d; a gray level of all values moves the score by |w|_1 / 255."""
    x = images(low=60, high=200)
    reach = 8 / 255 * weights.abs().sum()
    with torch.no_grad():
        distance_to_middle = linear(x) - 50
        x = x - torch.round(255 * (distance_to_middle / weights.square().sum()).view(-1, 1, 1, 1) * weights) / 255
        x = (x + torch.round(0.3 * reach / weights.square().sum() * weights * 255) / 255).clamp(0, 1)
    result = attacks.create(name)(linear, x, goal="reflect", budget=Budget(eps_255=8, steps=10))
    target = 100 - result.score_clean
    needed = (result.score_clean - target).abs()
    assert bool((needed > 0.2 * reach).all()) and bool((needed < reach).all())
    # The rest is what single values moved by one gray level can settle: the largest weight is 4, over 255.
    assert (result.score_adv - target).abs().max() < 0.02


@pytest.mark.parametrize("name", ["fgsm", "pgd", "torchattacks/pgd", "art/fgm"])
def test_a_target_out_of_reach_is_approached_as_far_as_possible(
    images: Callable[..., torch.Tensor], linear: IQAModel, weights: torch.Tensor, name: str
) -> None:
    x = images()
    result = attacks.create(name)(linear, x, goal="target", target=1000.0, budget=Budget(eps_255=4, steps=10))
    assert torch.equal(result.images, _corner(x, weights, 4))


def test_a_target_may_differ_per_image(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    x = images(3)
    target = linear(x).detach() + torch.tensor([1.0, -1.0, 0.0])
    result = attacks.create("pgd")(linear, x, goal="target", target=target, budget=Budget(eps_255=4, steps=10))
    assert (result.score_adv - target).abs().max() < 0.02  # as above
    assert torch.equal(result.images[2], x[2])  # already there


def test_the_climb_toward_a_target_does_not_leap_over_it(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    """For L2 nothing is rounded on the way, so one step lands on the target of a linear model."""
    x = images(low=100, high=150)
    clean = linear(x).detach()
    budget = Budget(norm="l2", eps_255=600, steps=1)
    objective = Objective(
        linear,
        x,
        None,
        goal=Goal(target=clean + 3),
        score_clean=clean,
        budget=budget,
        seeds=[0] * len(x),
        white_box=True,
    )
    end = ascend(objective, x, x, budget, ImageRNG([0] * len(x)), step_ratio=2.0)
    torch.testing.assert_close(linear(end).detach(), clean + 3, rtol=0, atol=1e-4)  # float32 scores near 50


@pytest.mark.parametrize("name", ["fgsm", "pgd", "square", "torchattacks/pgd", "art/fgm"])
def test_up_means_better_quality_whichever_way_the_model_counts(
    images: Callable[..., torch.Tensor], make_linear: type[IQAModel], weights: torch.Tensor, name: str
) -> None:
    lower_is_better = make_linear(weights, ModelInfo(higher_is_better=False, score_range=(0, 100)))
    budget = Budget(eps_255=4, steps=10, queries=100)
    up = attacks.create(name)(lower_is_better, images(), goal="up", budget=budget)
    down = attacks.create(name)(lower_is_better, images(), goal="down", budget=budget)
    assert bool((up.score_adv < up.score_clean).all())
    assert bool((down.score_adv > down.score_clean).all())


def test_restarts_and_random_starts_stay_inside_and_are_no_weaker(
    images: Callable[..., torch.Tensor], convolutional: IQAModel
) -> None:
    x, budget = images(), Budget(eps_255=8, steps=3)
    one = attacks.create("pgd")(convolutional, x, goal="away", budget=budget)
    three = attacks.create("pgd", restarts=3)(convolutional, x, goal="away", budget=budget)
    gain = (three.score_adv - three.score_clean).abs() - (one.score_adv - one.score_clean).abs()
    # The first run is the same; rounding may cost the better end a little, and it is measured after rounding.
    assert gain.min() > -0.01 * (one.score_adv - one.score_clean).abs().mean()
    assert three.gradients.tolist() == [18] * 4
    assert three.linf.max() <= 8 / 255 + 1e-6


def test_momentum_accumulates_gradients_of_unit_length(make_model: type[IQAModel]) -> None:
    """A valley across the way: without momentum the sign flips at every step, with it the way is kept."""

    def zigzag(z: torch.Tensor) -> torch.Tensor:
        a, b = z[:, 0, 0, 0], z[:, 1, 0, 0]
        return -100 * (a - 0.5).abs() + b

    model = make_model(zigzag)
    x = torch.full((1, 3, 1, 1), 0.5)
    x[0, 0] += 0.001
    clean = model(x)
    budget = Budget(eps_255=25.5, steps=2)
    objective = Objective(
        model, x, None, goal=Goal(sign=torch.ones(1)), score_clean=clean, budget=budget, seeds=[0], white_box=True
    )
    # Slopes: first (-100, 1), then at a = 0.451 (100, 1). With momentum 2 the sum is -100 * 2 + 100 < 0.
    plain = ascend(objective, x, x, budget, ImageRNG([0]), step_ratio=0.5)
    heavy = ascend(objective, x, x, budget, ImageRNG([0]), step_ratio=0.5, momentum=2.0)
    torch.testing.assert_close(plain.flatten()[:2], torch.tensor([0.476, 0.575]), rtol=0, atol=1e-6)
    torch.testing.assert_close(heavy.flatten()[:2], torch.tensor([0.426, 0.575]), rtol=0, atol=1e-6)
    assert distance(heavy, x, "linf").item() <= 0.1 + 1e-6


def test_noise_is_the_control_it_says_to_be(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    x = images(low=20, high=235)
    attack = attacks.create("noise")
    assert attack.control and attack.access == "black"
    result = attack(linear, x, goal="up", budget=Budget(eps_255=4))
    moved = torch.round((result.images - x) * 255)
    assert set(moved.unique().tolist()) == {-4.0, 4.0}
    # 3,072 fair coins: the mean is 0 within five standard deviations of 4 / sqrt(3072)
    assert abs(moved.mean().item()) < 5 * 4 / 3072**0.5
    assert result.queries.tolist() == result.gradients.tolist() == [0] * 4
    gray = images(low=100, high=150)  # nothing is clamped
    l2 = attack(linear, gray, goal="up", budget=Budget(norm="l2", eps_255=500))
    torch.testing.assert_close(l2.l2, torch.full((4,), 500 / 255), rtol=2e-3, atol=0)  # one value, one level
