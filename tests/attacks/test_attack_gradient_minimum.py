"""The smallest perturbation: the closed form of linear models, and what happens where there is none."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.records import Budget


@pytest.mark.parametrize("shift", [0.01, 0.05, 0.12])
@pytest.mark.parametrize("goal", ["up", "down", "away"])
def test_the_smallest_linf_radius_of_a_linear_model(
    images: Callable[..., torch.Tensor], linear: IQAModel, weights: torch.Tensor, shift: float, goal: str
) -> None:
    """shift / |w|_1, rounded up to a whole gray level; the range is 100."""
    x = images(3, low=60, high=190)
    result = attacks.create("minimum", shift=shift)(linear, x, goal=goal, budget=Budget(eps_255=40, steps=8))
    levels = math.ceil(100 * shift * 1.0001 / weights.abs().sum().item() * 255)
    assert 1 <= levels < 40
    torch.testing.assert_close(result.linf * 255, torch.full((3,), float(levels)), rtol=0, atol=1e-3)
    moved = result.score_adv - result.score_clean
    assert bool(({"up": moved, "down": -moved, "away": moved.abs()}[goal] >= 100 * shift).all())


@pytest.mark.parametrize("norm", ["l2", "psnr"])
@pytest.mark.parametrize("shift", [0.1, 0.3])
def test_the_smallest_round_ball_of_a_linear_model(
    images: Callable[..., torch.Tensor], linear: IQAModel, weights: torch.Tensor, norm: str, shift: float
) -> None:
    """shift / |w|_2, for the root mean square over the root of the number of values."""
    x = images(3, low=60, high=190)
    unit = 1.0 if norm == "l2" else weights.numel() ** 0.5
    budget = Budget(norm=norm, eps_255=2000 / unit, steps=8)
    result = attacks.create("minimum", shift=shift)(linear, x, goal="up", budget=budget)
    exact = 100 * shift / weights.norm().item()
    assert bool((result.score_adv - result.score_clean >= 100 * shift).all())
    assert bool((result.l2 >= exact * (1 - 1e-4)).all())
    # 2 % of bisection, and what rounding to gray levels adds to perturbations of 1 to 4 levels.
    assert bool((result.l2 <= exact * 1.05).all())


def test_every_image_has_its_own_smallest_radius(make_model: type[IQAModel]) -> None:
    """Darker pictures are answered more weakly."""
    x = torch.stack([torch.full((3, 8, 8), level / 255) for level in (60.0, 90.0, 120.0, 200.0)])
    strength = torch.tensor([1.0, 2.0, 4.0, 8.0])

    def score(z: torch.Tensor) -> torch.Tensor:
        kind = (z.flatten(1).mean(dim=1)[:, None] * 255 - torch.tensor([60.0, 90.0, 120.0, 200.0])).abs().argmin(dim=1)
        return strength[kind] * 255 * (z - x[kind]).flatten(1).mean(dim=1)

    model = make_model(score, ModelInfo(score_range=(0, 100)))
    result = attacks.create("minimum", shift=0.119)(model, x, goal="up", budget=Budget(eps_255=10, steps=4))
    # 11.9 needs 12 levels, 6, 3 and 2; the first has only 10.
    torch.testing.assert_close(result.linf * 255, torch.tensor([10.0, 6.0, 3.0, 2.0]), rtol=0, atol=1e-3)
    # Finished images have left: the last ones need fewer gradients than the bisection of the second.
    assert result.gradients[0] == 4
    alone = attacks.create("minimum", shift=0.119)(model, x[1:2], goal="up", budget=Budget(eps_255=10, steps=4))
    assert torch.equal(alone.images[0], result.images[1])
    assert alone.queries[0] == result.queries[1] and alone.gradients[0] == result.gradients[1]


def test_where_nothing_is_enough_the_strongest_image_is_returned(
    images: Callable[..., torch.Tensor], linear: IQAModel, weights: torch.Tensor
) -> None:
    x = images(2, low=60, high=190)
    result = attacks.create("minimum", shift=0.9)(linear, x, goal="down", budget=Budget(eps_255=4, steps=8))
    assert torch.equal(result.images, (torch.round(x * 255) - 4 * weights.sign()) / 255)


def test_away_takes_the_nearer_side(make_model: type[IQAModel]) -> None:
    """Twice as steep downward."""

    def score(z: torch.Tensor) -> torch.Tensor:
        way = 255 * (z.flatten(1).mean(dim=1) - 0.4)
        return torch.where(way < 0, 2 * way, way)

    x = torch.full((1, 3, 4, 4), 0.4)
    model = make_model(score, ModelInfo(score_range=(-50, 50)))
    result = attacks.create("minimum", shift=0.079)(model, x, goal="away", budget=Budget(eps_255=12, steps=4))
    assert result.linf.item() * 255 == pytest.approx(4, abs=1e-3)
    assert result.score_adv.item() == pytest.approx(-8, abs=1e-3)


def test_a_network_needs_no_more_than_pgd_finds(images: Callable[..., torch.Tensor], convolutional: IQAModel) -> None:
    """Per image, the smallest whole radius at which PGD moves the score by 2 % of the range, by trying all."""
    x = images(5)
    result = attacks.create("minimum", shift=0.02)(convolutional, x, goal="up", budget=Budget(eps_255=12, steps=12))
    moved = torch.stack(
        [
            attacks.create("pgd")(convolutional, x, goal="up", budget=Budget(eps_255=k, steps=12)).score_adv
            for k in range(1, 13)
        ]
    )
    needed = (moved - result.score_clean >= 0.02 * 4).float().argmax(dim=0) + 1
    reached = result.score_adv - result.score_clean >= 0.02 * 4
    assert bool(reached.all())
    assert bool((torch.round(result.linf * 255) <= needed).all())


@pytest.mark.parametrize("queries", [1, 3, 10, 25])
def test_the_queries_end_every_image_by_itself(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, queries: int
) -> None:
    x, attack = images(4), attacks.create("minimum", shift=0.02)
    budget = Budget(norm="l2", eps_255=500, steps=8, queries=queries)
    whole = attack(convolutional, x, goal="away", budget=budget)
    assert whole.queries.max() <= queries
    alone = [attack(convolutional, image[None], goal="away", budget=budget) for image in x]
    assert [one.queries.item() for one in alone] == whole.queries.tolist()


def test_the_announced_cost_is_an_upper_bound(images: Callable[..., torch.Tensor], convolutional: IQAModel) -> None:
    x, attack = images(3), attacks.create("minimum", shift=0.02)
    for norm, eps_255 in (("linf", 9), ("l2", 300)):
        for goal in ("up", "away"):
            budget = Budget(norm=norm, eps_255=eps_255, steps=5)
            result = attack(convolutional, x, goal=goal, budget=budget)
            assert result.gradients.max() <= attack.cost(budget, goal)[1]


def test_less_than_a_gray_level_changes_nothing(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    x = images(2)
    result = attacks.create("minimum")(linear, x, goal="up", budget=Budget(eps_255=0.7))
    assert torch.equal(result.images, x)


def test_the_range_must_be_known(images: Callable[..., torch.Tensor], make_model: type[IQAModel]) -> None:
    model = make_model(lambda x: x.flatten(1).sum(dim=1), ModelInfo())
    with pytest.raises(ContractError, match="score range, which is unknown"):
        attacks.create("minimum")(model, images(1), goal="up", budget=Budget())


@pytest.mark.parametrize("parameters", [{"shift": 0}, {"halvings": 0}])
def test_wrong_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ContractError, match=next(iter(parameters))):
        attacks.create("minimum", **parameters)
