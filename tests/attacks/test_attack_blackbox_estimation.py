"""NES and SPSA: the estimate against the gradient, the climb against closed forms, and both directions of `away`."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.blackbox.estimation import EstimatedAscent
from iqa_robust.attacks.blackbox.nes import NES
from iqa_robust.attacks.blackbox.spsa import SPSA
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

ATTACKS = [NES(), NES(tile=None), SPSA()]


def slope_of(attack: EstimatedAscent, model: IQAModel, x: torch.Tensor, pairs: int) -> torch.Tensor:
    budget = Budget(queries=10**6)
    with torch.no_grad():
        objective = Objective(
            model,
            x,
            None,
            goal=Goal(sign=torch.ones(len(x))),
            score_clean=model(x),
            budget=budget,
            seeds=[0] * len(x),
            white_box=False,
        )
        index = torch.arange(len(x))
        return attack._slope(objective, x, index, ImageRNG(list(range(len(x)))), pairs)


@pytest.mark.parametrize("attack", [NES(tile=None, sigma=0.01), SPSA()])
def test_many_pairs_estimate_the_gradient(make_linear: type[IQAModel], attack: EstimatedAscent) -> None:
    """Of a linear model, the mean of (u . w) u over directions of unit variance tends to w.

    With n pairs in d dimensions the cosine is about 1 / sqrt(1 + (d + 1) / n): 0.96 for d = 48 and n = 600.
    """
    w = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(0))
    x = torch.full((2, 3, 4, 4), 0.5)
    for slope in slope_of(attack, make_linear(w), x, 600):
        assert torch.nn.functional.cosine_similarity(slope.flatten(), w.flatten(), dim=0) > 0.93
        assert slope.norm().item() == pytest.approx(w.norm().item(), rel=0.15)


def test_a_tile_estimates_the_gradient_of_the_tile(make_linear: type[IQAModel]) -> None:
    """Directions repeat every two pixels, so the estimate is the sum of the weights that share a place in the tile."""
    w = torch.randn(3, 5, 6, generator=torch.Generator().manual_seed(0))
    x = torch.full((1, 3, 5, 6), 0.5)
    slope = slope_of(NES(tile=2, sigma=0.01), make_linear(w), x, 600)[0]
    for row in range(2):
        for column in range(2):
            shared = slope[:, row::2, column::2]
            # float32 sums in one order per pixel: the copies are the same bytes
            assert bool((shared == shared[:, :1, :1]).all())
    expected = torch.stack([w[:, r::2, c::2].sum(dim=(1, 2)) for r in range(2) for c in range(2)], dim=1)
    got = torch.stack([slope[:, r, c] for r in range(2) for c in range(2)], dim=1)
    # 12 unknowns from 600 pairs: a cosine of about 0.99
    assert torch.nn.functional.cosine_similarity(got.flatten(), expected.flatten(), dim=0) > 0.96


@pytest.mark.parametrize("attack", ATTACKS, ids=["nes", "nes without tiles", "spsa"])
@pytest.mark.parametrize("norm,eps_255", [("linf", 8.0), ("l2", 100.0), ("psnr", 4.0)])
def test_a_linear_model_is_climbed_most_of_the_way(
    images: Callable[..., torch.Tensor], make_linear: type[IQAModel], attack: EstimatedAscent, norm: str, eps_255: float
) -> None:
    """Toward eps |w| in the dual norm; the estimate is noisy, so the optimum is not reached exactly."""
    w = torch.randn(3, 4, 4, generator=torch.Generator().manual_seed(1))
    x = images(2, 4, low=60, high=195)
    result = attack(make_linear(w), x, goal="down", budget=Budget(norm=norm, eps_255=eps_255, queries=1200))
    length = {"linf": w.abs().sum(), "l2": w.norm(), "psnr": w.norm() * 48**0.5}[norm].item()
    optimum = eps_255 / 255 * length
    reached = result.score_clean - result.score_adv
    assert bool((reached >= 0.85 * optimum).all())
    assert bool((reached <= 1.0001 * optimum + 1e-4).all())  # float32 sums around 50


@pytest.mark.parametrize("attack", [NES(tile=None), SPSA()])
@pytest.mark.parametrize("better", [1.0, -1.0])
def test_away_follows_the_better_side(
    images: Callable[..., torch.Tensor], make_model: type[IQAModel], attack: EstimatedAscent, better: float
) -> None:
    """The score moves four times as far on one side of the clean image as on the other, which is its kink."""
    x = images(1, 8, low=60, high=195)

    def kinked(z: torch.Tensor) -> torch.Tensor:
        moved = 100 * (z - x).flatten(1).mean(dim=1)
        return torch.where(moved * better > 0, 4 * moved, moved)

    model = make_model(kinked, ModelInfo())
    result = attack(model, x, goal="away", budget=Budget(eps_255=8, queries=400))
    shift = (result.score_adv - result.score_clean).item()
    # 100 eps is the optimum of the other side, 400 eps that of the better one.
    assert shift * better > 150 * 8 / 255


def test_steps_shrink_with_the_queries(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    """Below eight steps of 41 queries fewer pairs are drawn; below three queries there is no estimate."""
    spent = []
    for queries in (1, 2, 3, 60, 328, 1000):
        result = NES()(linear, images(2), goal="up", budget=Budget(queries=queries))
        spent.append(result.queries.tolist())
    assert spent == [[0, 0], [0, 0], [3, 3], [56, 56], [328, 328], [984, 984]]


@pytest.mark.parametrize(
    "name,params,message",
    [
        ("nes", {"pairs": 0}, "pairs to be a whole number >= 1"),
        ("nes", {"sigma": 0}, "sigma to be a finite number > 0"),
        ("nes", {"tile": 0}, "tile to be a whole number >= 1"),
        ("nes", {"momentum": -1}, "momentum to be a finite number >= 0"),
        ("nes", {"step_ratio": 0}, "step_ratio to be a finite number > 0"),
        ("spsa", {"delta": 0}, "delta to be a finite number > 0"),
        ("spsa", {"learning_rate": 0}, "learning_rate to be a finite number > 0"),
    ],
)
def test_impossible_parameters_are_refused(name: str, params: dict[str, float], message: str) -> None:
    with pytest.raises(ContractError, match=message):
        attacks.create(name, **params)
