"""MADC: a climb at a fixed root mean square error, after maximum differentiation competition."""

from __future__ import annotations

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.gradient.climbing import BALLS, Landing, project_each, spread
from iqa_robust.attacks.norms import distance, steepest
from iqa_robust.attacks.objectives import Objective, best_of
from iqa_robust.attacks.parameters import check_flag, check_number
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class MADC(Attack):
    """Walks the sphere of one root mean square error (RMSE) around the image toward the wanted score.

    Wang and Simoncelli synthesize the best and the worst picture for one model among those of equal error for
    another. The MSU benchmark's attack does it with the RMSE: with the gradient g and the perturbation d, a step
    follows g - (g.d / d.d) d, the part of g that leaves the RMSE as it is.

    Its code takes the sign of that part, which no longer leaves the RMSE as it is, and starts from the clean image
    with 8 steps of 0.001 under a bound of 10/255 that they never reach, so that it is a short I-FGSM. Here the first
    step goes to the sphere, later ones follow the projected gradient itself and are brought back to the sphere by
    scaling. `signs=True, step_ratio=0.0255` with `Budget(norm="psnr", eps_255=10, steps=8)` is the released form.

    For `linf` the RMSE is eps, too, and every point is clipped to the ball. Toward a target, steps are shortened and
    rounded as `climbing.Landing` says, and the walk may leave the sphere inward.
    """

    source = "Wang, Simoncelli, Journal of Vision 8(12), 2008; on IQA: Antsiferova et al., AAAI 2024, arXiv:2310.06958"
    form = "corrected"
    norms = BALLS

    def __init__(self, *, step_ratio: float = 0.75, signs: bool = False) -> None:
        """Parameters of the walk.

        Args:
            step_ratio: length of the first step on the sphere as a fraction of its radius; the steps shrink linearly
                towards zero, and with the sine of the angle between gradient and perturbation. With `signs`, the
                constant step of every value, as a fraction of eps.
            signs: the released form: signs of the projected gradient, no return to the sphere.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        check_number(self, "step_ratio", step_ratio, above=0)
        check_flag(self, "signs", signs)
        self.step_ratio = step_ratio
        self.signs = signs

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the better of the last points; better ones on the way are in the objective's memory."""
        return best_of(objective, [self._walk(side, x, budget, rng) for side in objective.sides()])

    def _walk(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        sphere = "l2" if budget.norm == "l2" else "psnr"
        radius = x.new_full((len(x),), budget.eps)
        landing = Landing(objective, x, budget, rng)
        inward = objective.goal.target is not None
        z = x
        for step in range(budget.steps):
            value, slope = objective.gradient(z)
            unit, moved = steepest(slope, "l2"), z - x
            outward = _dot(unit, moved) / _dot(moved, moved).clamp_min(1e-20)
            # Clamping to [0, 1] takes length away, so "on the sphere" is meant loosely. The released form projects at
            # any distance.
            on = (distance(z, x, sphere) > (0 if self.signs else radius / 2)) & ~(inward & (outward < 0))
            along = torch.where(spread(on), unit - spread(outward) * moved, unit)
            if self.signs:
                direction, length = along.sign(), self.step_ratio * radius
            else:
                direction = steepest(along, sphere)
                # The sine of the angle between gradient and perturbation: at the optimum it is zero, and what is left
                # of the gradient is rounding.
                sine = _dot(along, along).sqrt()
                share = self.step_ratio * (1 - step / budget.steps)
                length = torch.where(on, share * sine * radius, radius)
            z = z + spread(landing.length(length, value, slope, direction)) * direction
            if not self.signs:
                stretch = radius / distance(z, x, sphere).clamp_min(1e-12)
                z = x + spread(torch.where(on, stretch, stretch.clamp(max=1))) * (z - x)
            z = landing.point(project_each(z, x, budget.norm, radius), step)
        return z

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """One pass a step and direction; `away` compares the two ends."""
        sides = 2 if goal == "away" else 1
        return sides * budget.steps + (2 if sides == 2 else 0), sides * budget.steps


def _dot(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(N,) inner products of image batches."""
    return (a * b).flatten(1).sum(dim=1)
