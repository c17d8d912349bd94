"""The one-pixel attack: against brute force over corner colors, and against SciPy's differential evolution."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest
import torch
from scipy.optimize import differential_evolution

from iqa_robust import attacks
from iqa_robust.attacks.blackbox.one_pixel import LEAST, OnePixel, _render
from iqa_robust.attacks.sparse import changed
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo, wrap
from iqa_robust.records import Budget


def corner_values(model: IQAModel, image: torch.Tensor) -> torch.Tensor:
    """Scores of the image with one pixel at each place in each of the eight corner colors."""
    H, W = image.shape[-2:]
    candidates = []
    for row, column, color in itertools.product(range(H), range(W), itertools.product((0.0, 1.0), repeat=3)):
        candidate = image.clone()
        candidate[:, row, column] = torch.tensor(color)
        candidates.append(candidate)
    with torch.no_grad():
        return model(torch.stack(candidates))


def bent(seed: int) -> IQAModel:
    """Not linear, but with its extremes at corner colors: a monotone function of a weighted sum."""
    w = torch.randn(3, 8, 8, generator=torch.Generator().manual_seed(seed))
    return wrap(lambda x: torch.tanh((x * w).flatten(1).sum(dim=1) / 20), ModelInfo(score_range=(-1, 1)))


@pytest.mark.parametrize("goal", ["up", "down"])
def test_one_pixel_reaches_the_best_of_all(images: Callable[..., torch.Tensor], goal: str) -> None:
    x, model = images(3, 8), bent(1)
    budget = Budget.at("l0", 1 / 64, queries=3300)
    result = attacks.create("one-pixel")(model, x, goal=goal, budget=budget)
    sign = 1 if goal == "up" else -1
    for i, image in enumerate(x):
        best = (sign * (corner_values(model, image) - result.score_clean[i])).max().item()
        shift = sign * (result.score_adv[i] - result.score_clean[i]).item()
        # Never beyond, up to float32 rounding. A random search may end at the best place a color short of a corner.
        assert 0.95 * best <= shift <= best + 1e-6
    assert changed(result.images, x).flatten(1).sum(dim=1).tolist() == [1, 1, 1]


def test_several_pixels_beat_scipy_at_equal_queries(images: Callable[..., torch.Tensor]) -> None:
    """SciPy's own evolution, as the benchmark sets it: three pixels, recombination 1, no polishing."""
    x, model = images(4, 8, seed=3), bent(4)
    result = attacks.create("one-pixel", population=60)(
        model, x, goal="up", budget=Budget.at("l0", 3 / 64, queries=660)
    )
    ours = (result.score_adv - result.score_clean).mean().item()
    theirs, asked = [], 0
    for i, image in enumerate(x):

        def loss(population: np.ndarray, image: torch.Tensor = image) -> np.ndarray:
            genes = torch.from_numpy(population.T.reshape(-1, 3, 5)).float().clamp(0, 1 - 1e-6)
            nonlocal asked
            asked += len(genes)
            with torch.no_grad():
                return -model(_render(image.expand(len(genes), -1, -1, -1), genes)).numpy()

        found = differential_evolution(
            loss, [(0, 1)] * 15, maxiter=10, popsize=4, recombination=1, polish=False, tol=0, atol=-1,
            vectorized=True, updating="deferred", seed=i,
        )  # fmt: skip
        theirs.append(-found.fun - model(image[None]).item())
    assert asked == 660 * len(x)
    assert ours >= 0.98 * np.mean(theirs)


def test_rendered_pixels_lie_inside_and_on_the_grid() -> None:
    """Genes at both ends of [0, 1] name the first and the last row and column, never one past it."""
    x = torch.full((2, 3, 5, 9), 0.5)
    genes = torch.tensor([[[0.0, 0.0, 0.0, 1.0, 0.301]], [[1.0, 1.0, 1.0, 0.0, 0.0]]])
    z = _render(x, genes)
    assert z[0, :, 0, 0].tolist() == pytest.approx([0, 1, round(0.301 * 255) / 255])
    assert z[1, :, 4, 8].tolist() == [1, 0, 0]
    assert changed(z, x).flatten(1).sum(dim=1).tolist() == [1, 1]


@pytest.mark.parametrize("queries", [1, 2, 7, 8, 9, 100])
def test_few_queries(images: Callable[..., torch.Tensor], queries: int) -> None:
    budget = Budget.at("l0", 2 / 64, queries=queries)
    result = attacks.create("one-pixel")(bent(1), images(3, 8), goal="up", budget=budget)
    assert result.queries.tolist() == [queries] * 3


def test_no_pixel_no_query(images: Callable[..., torch.Tensor]) -> None:
    x = images(2, 8)
    result = attacks.create("one-pixel")(bent(1), x, goal="up", budget=Budget.at("l0", 0.9 / 64, queries=50))
    assert torch.equal(result.images, x) and result.queries.tolist() == [0, 0]


def test_a_population_needs_members() -> None:
    with pytest.raises(ContractError, match=f"population to be a whole number >= {LEAST}, got 3"):
        OnePixel(population=3)
