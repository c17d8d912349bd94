"""Auto-PGD: its algorithm written again in NumPy, known optima, targets and restarts."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.gradient.auto import auto_ascend, checkpoints
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, ModelInfo
from iqa_robust.models.randomness import content_seeds
from iqa_robust.records import Budget


def _objective(model: IQAModel, x: torch.Tensor, budget: Budget) -> Objective:
    return Objective(
        model,
        x,
        None,
        goal=Goal(sign=torch.ones(len(x))),
        score_clean=model(x).detach(),
        budget=budget,
        seeds=content_seeds(x, 0),
        white_box=True,
    )


@pytest.mark.parametrize("steps", [1, 2, 5, 10, 20, 50, 100, 150])
def test_the_checkpoints_are_those_of_the_authors_code(steps: int) -> None:
    """A counter against a period that shrinks, as it is there."""
    period, least, less = max(int(0.22 * steps), 1), max(int(0.06 * steps), 1), max(int(0.03 * steps), 1)
    counter, expected = 0, [0]
    for step in range(1, steps):
        counter += 1
        if counter == period:
            expected.append(step)
            counter, period = 0, max(period - less, least)
    assert checkpoints(steps) == expected


def _algorithm(
    f: Callable[[np.ndarray], tuple[float, np.ndarray]], x: np.ndarray, eps: float, steps: int, norm: str
) -> np.ndarray:
    """Algorithm 1 of Croce and Hein for one image, maximizing f, started at x."""

    def project(z: np.ndarray) -> np.ndarray:
        if norm == "linf":
            return np.clip(np.clip(z, x - eps, x + eps), 0, 1)
        length = np.linalg.norm(z - x)
        return np.clip(x + (z - x) * min(1.0, eps / max(length, 1e-12)), 0, 1)

    def step(g: np.ndarray) -> np.ndarray:
        return np.sign(g) if norm == "linf" else g / np.linalg.norm(g)

    marks = checkpoints(steps)
    eta = 2 * eps
    f_max, g_max = f(x)
    x_max, g, values = x, g_max, [f_max]
    before, here = x, x
    f_checked, halved = f_max, True
    for k in range(steps):
        if k > 0:
            value, g = f(here)
            values.append(value)
            if value > f_max:
                f_max, x_max, g_max = value, here, g
        if k in marks[1:]:
            begin = marks[marks.index(k) - 1]
            rises = sum(values[i + 1] > values[i] for i in range(begin, k))
            first = rises < 0.75 * (k - begin)
            second = not halved and f_max == f_checked
            f_checked, halved = f_max, first or second
            if halved:
                eta, here, g = eta / 2, x_max, g_max
        ahead = project(here + eta * step(g))
        if k > 0:
            ahead = project(here + 0.75 * (ahead - here) + 0.25 * (here - before))
        before, here = here, ahead
    return here


class Waves:
    """An objective in double precision: waves of several lengths, whose slopes turn often."""

    def __init__(self, steepness: float) -> None:
        self.w = steepness * torch.randn(5, 48, generator=torch.Generator().manual_seed(4), dtype=torch.float64)

    def gradient(self, z: torch.Tensor, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        leaf = z.detach().requires_grad_(True)
        value = torch.sin(leaf.flatten(1) @ self.w.T).sum(dim=1)
        return value.detach(), torch.autograd.grad(value.sum(), leaf)[0]


@pytest.mark.parametrize("norm,eps", [("linf", 0.05), ("l2", 0.6)])
@pytest.mark.parametrize("steps", [6, 25])
def test_the_algorithm_is_the_papers(norm: str, eps: float, steps: int) -> None:
    waves: Any = Waves(8 if norm == "linf" else 2)
    x = torch.rand(3, 3, 4, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    end = auto_ascend(waves, x, x, norm, torch.full((3,), eps, dtype=torch.float64), steps, decay=0.0)
    for i in range(3):

        def f(z: np.ndarray) -> tuple[float, np.ndarray]:
            value, slope = waves.gradient(torch.from_numpy(z).view(1, 3, 4, 4), torch.tensor([0]))
            return value.item(), slope.flatten().numpy()

        expected = _algorithm(f, x[i].flatten().numpy(), eps, steps, norm)
        # L2 lengths are float32 on the way, and slopes that turn carry that on.
        np.testing.assert_allclose(end[i].flatten().numpy(), expected, rtol=0, atol=1e-9 if norm == "linf" else 1e-4)


def test_steps_are_halved_until_a_peak_is_found(make_model: type[IQAModel]) -> None:
    """A peak inside the ball: a constant step of 2 eps leaps to and fro across it, and so does I-FGSM's quarter."""
    peak = torch.tensor([0.513, 0.487, 0.502]).view(1, 3, 1, 1)
    model = make_model(lambda z: -(z - peak).square().flatten(1).sum(dim=1))
    x = torch.full((1, 3, 1, 1), 0.5)
    objective = _objective(model, x, Budget(eps_255=10.2))
    auto_ascend(objective, x, x, "linf", torch.tensor([0.04]), 60, decay=0.0)
    # 2 eps halved ten times is 8e-5.
    assert (objective.tally.best_image - peak).abs().max() < 1e-3


def test_images_leave_when_they_are_finished(images: Callable[..., torch.Tensor], convolutional: IQAModel) -> None:
    x, seen = images(3), []

    def finished(z: torch.Tensor, value: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        seen.append(index.tolist())
        return index < len(seen) - 1  # image i is asked i + 2 times

    objective = _objective(convolutional, x, Budget(eps_255=8))
    left = auto_ascend(objective, x, x, "linf", torch.full((3,), 8 / 255), 10, finished=finished)
    assert seen == [[0, 1, 2], [0, 1, 2], [1, 2], [2]]
    assert objective.tally.gradients.tolist() == [2, 3, 4]
    assert left.shape == (0, 3, 16, 16)


def test_images_without_queries_leave(images: Callable[..., torch.Tensor], convolutional: IQAModel) -> None:
    x = images(3)
    objective = _objective(convolutional, x, Budget(eps_255=8, queries=4))
    for _ in range(3):
        objective(x[1:2], torch.tensor([1]))

    def never(z: torch.Tensor, value: torch.Tensor, index: torch.Tensor) -> torch.Tensor:
        return torch.zeros_like(index, dtype=torch.bool)

    auto_ascend(objective, x, x, "linf", torch.full((3,), 8 / 255), 10, finished=never)
    assert objective.tally.gradients.tolist() == [4, 1, 4]


def test_every_image_has_its_own_radius(images: Callable[..., torch.Tensor], linear: IQAModel) -> None:
    x = images(3, low=60, high=190)
    objective = _objective(linear, x, Budget(eps_255=9))
    for norm, radii in (("linf", [0.01, 0.02, 0.03]), ("l2", [0.1, 0.4, 0.9])):
        radius = torch.tensor(radii)
        end = auto_ascend(objective, x, x, norm, radius, 8)
        order = math.inf if norm == "linf" else 2
        torch.testing.assert_close((end - x).flatten(1).norm(p=order, dim=1), radius, rtol=1e-4, atol=0)


def test_restarts_are_draws_and_are_paid_for(images: Callable[..., torch.Tensor], convolutional: IQAModel) -> None:
    x, budget = images(3), Budget(eps_255=8, steps=5)
    one, three = attacks.create("apgd"), attacks.create("apgd", restarts=3)
    single, best = (attack(convolutional, x, goal="up", budget=budget) for attack in (one, three))
    assert best.gradients.tolist() == [15] * 3 and best.queries.tolist() == [18] * 3
    assert three.cost(budget, "up") == (18, 15) and three.cost(budget, "away") == (36, 30)
    # The first run is the same; rounding may cost the better end a little.
    assert bool((best.score_adv >= single.score_adv - 0.01 * (single.score_adv - single.score_clean).abs()).all())


@pytest.mark.parametrize("norm,eps_255", [("linf", 8), ("l2", 150), ("psnr", 5)])
def test_it_is_no_weaker_than_pgd_in_many_steps(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, norm: str, eps_255: float
) -> None:
    x, budget = images(12), Budget(norm=norm, eps_255=eps_255, steps=25)
    for goal in ("up", "down"):
        shifts = []
        for name in ("apgd", "pgd"):
            result = attacks.create(name)(convolutional, x, goal=goal, budget=budget)
            shifts.append((result.score_adv - result.score_clean).abs().mean().item())
        assert shifts[0] >= 0.98 * shifts[1]  # the project's own margin


def test_a_target_in_reach_of_a_network_is_reached(
    images: Callable[..., torch.Tensor], convolutional: IQAModel
) -> None:
    x = images(4)
    clean = convolutional(x).detach()
    up = attacks.create("apgd")(convolutional, x, goal="up", budget=Budget(eps_255=4, steps=10))
    target = clean + (up.score_adv - clean) * torch.tensor([0.5, 0.2, 0.7, 0.0])
    result = attacks.create("apgd")(convolutional, x, goal="target", target=target, budget=Budget(eps_255=4, steps=20))
    # A single gray level of a single value moves this network by about a thousandth of the largest shift.
    assert bool(((result.score_adv - target).abs() <= 0.01 * (up.score_adv - clean).abs()).all())


@pytest.mark.parametrize("parameters", [{"restarts": 0}, {"random_start": "no"}, {"decay": -0.5}])
def test_wrong_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ContractError, match=next(iter(parameters))):
        attacks.create("apgd", **parameters)


def test_nan_scores_and_flat_models_end_without_harm(
    images: Callable[..., torch.Tensor], make_model: type[IQAModel]
) -> None:
    x = images(2)
    for factor in (0.0, math.nan):
        model = make_model(lambda z, factor=factor: factor * z.flatten(1).sum(dim=1), ModelInfo(score_range=(0, 1)))
        result = attacks.create("apgd")(model, x, goal="away", budget=Budget(steps=6))
        assert bool(result.images.isfinite().all())
