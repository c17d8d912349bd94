"""MADC: the error it keeps, the optimum on the sphere, and the released loop written again."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from iqa_robust import attacks
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import ImageRNG, content_seeds
from iqa_robust.records import Budget


class Seen(Objective):
    """Remembers the points that were asked for."""

    def gradient(self, z: torch.Tensor, index: torch.Tensor | None = None) -> tuple[torch.Tensor, torch.Tensor]:
        self.points = [*getattr(self, "points", []), z.clone()]
        return super().gradient(z, index)


def _objective(model: IQAModel, x: torch.Tensor, budget: Budget) -> Seen:
    return Seen(
        model,
        x,
        None,
        goal=Goal(sign=torch.ones(len(x))),
        score_clean=model(x).detach(),
        budget=budget,
        seeds=content_seeds(x, 0),
        white_box=True,
    )


@pytest.mark.parametrize("norm,eps_255", [("psnr", 6.0), ("l2", 166.0)])
def test_the_error_stays_the_same(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, norm: str, eps_255: float
) -> None:
    """6 gray levels of root mean square are an L2 length of 166 for 768 values."""
    x, budget = images(3, low=100, high=150), Budget(norm=norm, eps_255=eps_255, steps=8)
    objective = _objective(convolutional, x, budget)
    end = attacks.create("madc").perturb(objective, x, budget, ImageRNG([0, 1, 2])).detach()
    for point in [*objective.points[1:], end]:  # the first is the clean image
        error = (point - x).square().mean(dim=(1, 2, 3)).sqrt() * 255
        torch.testing.assert_close(error, torch.full((3,), 6.0), rtol=2e-3, atol=0)  # 166 is rounded
    values = torch.stack([convolutional(point).detach() for point in objective.points])
    assert bool((values[-1] > values[1]).all())


def test_a_step_on_the_sphere_is_orthogonal_to_the_perturbation(
    images: Callable[..., torch.Tensor], convolutional: IQAModel
) -> None:
    """Before it is brought back: then the RMSE is the hypotenuse, and the scaled step has its angle."""
    x, budget = images(2, low=100, high=150), Budget(norm="psnr", eps_255=6, steps=2)
    objective = _objective(convolutional, x, budget)
    end = attacks.create("madc", step_ratio=0.4).perturb(objective, x, budget, ImageRNG([0, 1])).detach()
    first = (objective.points[1] - x).flatten(1)
    second = (end - x).flatten(1)
    leaf = objective.points[1].clone().requires_grad_(True)
    slope = torch.autograd.grad(convolutional(leaf).sum(), leaf)[0].flatten(1)
    cosine = torch.nn.functional.cosine_similarity(slope, first, dim=1)
    # Step 1 of 2: 0.4 / 2 of the radius, times the sine of the angle.
    tangent = 0.2 * (1 - cosine.square()).sqrt()
    angle = torch.nn.functional.cosine_similarity(first, second, dim=1).acos()
    torch.testing.assert_close(angle.tan(), tangent, rtol=1e-2, atol=0)  # acos of nearly 1 in float32


def test_the_walk_ends_at_the_best_point_of_the_sphere(make_model: type[IQAModel]) -> None:
    """A quadratic: on the sphere around x it is largest at the eigenvector of the largest eigenvalue."""
    generator = torch.Generator().manual_seed(1)
    half = torch.randn(12, 12, generator=generator)
    matrix = half @ half.T
    x = torch.full((1, 3, 2, 2), 0.5)
    shift = 0.01 * torch.randn(12, generator=generator)  # a slope at the start
    model = make_model(lambda z: (((z - x).flatten(1) @ matrix + shift) * (z - x).flatten(1)).sum(dim=1))
    budget = Budget(norm="l2", eps_255=51, steps=60)
    objective = _objective(model, x, budget)
    attacks.create("madc").perturb(objective, x, budget, ImageRNG([0]))
    largest = torch.linalg.eigvalsh(matrix)[-1].item() * 0.2**2
    assert objective.tally.best_value.item() > 0.98 * largest


def test_the_released_form_is_a_loop_of_signs(images: Callable[..., torch.Tensor], convolutional: IQAModel) -> None:
    """Eight steps of 0.001 along the sign of the gradient without its part along the perturbation."""
    x = images(2, low=20, high=235)
    ends = []
    for image in x:
        z = image[None].clone()
        for step in range(8):
            leaf = z.clone().requires_grad_(True)
            g2 = torch.autograd.grad(convolutional(leaf).sum(), leaf)[0]
            if step > 0:
                g1 = z - image  # the gradient of the RMSE is along it
                g2 = g2 - (g1 * g2).sum() / (g1 * g1).sum() * g1
            z = (z + 0.001 * g2.sign()).clamp(0, 1)
        ends.append(z)
    budget = Budget(norm="psnr", eps_255=10, steps=8)
    attack = attacks.create("madc", signs=True, step_ratio=0.0255)
    end = attack.perturb(_objective(convolutional, x, budget), x, budget, ImageRNG([0, 1])).detach()
    # A slope near zero may change its sign by rounding.
    assert ((end - torch.cat(ends)).abs() > 1e-5).float().mean() < 0.01


@pytest.mark.parametrize("goal", ["up", "down", "away"])
def test_the_corrected_form_is_the_stronger_one_at_equal_error(
    images: Callable[..., torch.Tensor], convolutional: IQAModel, goal: str
) -> None:
    x, budget = images(6), Budget(norm="psnr", eps_255=2, steps=8)
    shifts = []
    for parameters in ({}, {"signs": True, "step_ratio": 0.25}):
        result = attacks.create("madc", **parameters)(convolutional, x, goal=goal, budget=budget)
        shifts.append((result.score_adv - result.score_clean).abs().mean().item())
    assert shifts[0] > shifts[1]


@pytest.mark.parametrize("parameters", [{"step_ratio": 0}, {"signs": "yes"}])
def test_wrong_parameters_are_refused(parameters: dict[str, object]) -> None:
    with pytest.raises(ContractError, match=next(iter(parameters))):
        attacks.create("madc", **parameters)
