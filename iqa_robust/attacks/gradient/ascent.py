"""Projected steepest ascent, the loop behind the iterative gradient attacks."""

from __future__ import annotations

import torch

from iqa_robust.attacks.gradient.climbing import Landing, spread
from iqa_robust.attacks.norms import box, project, reach, steepest, unit_l1
from iqa_robust.attacks.objectives import Objective
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


def ascend(
    objective: Objective,
    start: torch.Tensor,
    x: torch.Tensor,
    budget: Budget,
    rng: ImageRNG,
    *,
    step_ratio: float,
    momentum: float = 0.0,
) -> torch.Tensor:
    """Climb `objective` for `budget.steps` steps inside the budget around `x`; (N, 3, H, W), its last point.

    Toward a target, steps are shortened and points rounded as `climbing.Landing` says.

    Args:
        objective: what is climbed; it keeps the best point by itself.
        start: (N, 3, H, W), where to begin.
        x: (N, 3, H, W), the clean images.
        budget: norm, size and number of steps.
        rng: the images' randomness, for dithering.
        step_ratio: the first step, as a fraction of the longest one the budget allows; the steps shrink linearly
            towards zero.
        momentum: decay of the accumulated gradient (Dong et al. 2018, eq. 6); 0 uses each gradient alone.
    """
    z = start
    velocity = torch.zeros_like(x)
    landing = Landing(objective, x, budget, rng)
    radius: torch.Tensor | None = None
    bounds = box(x, budget.eps) if budget.norm == "linf" else None
    for step in range(budget.steps):
        value, slope = objective.gradient(z)
        if radius is None:
            radius = reach(x, steepest(slope, budget.norm), budget.norm, budget.eps)
        length = step_ratio * radius * (1 - step / budget.steps)
        climbed = slope
        if momentum:
            climbed = velocity = velocity.mul_(momentum).add_(unit_l1(slope))
        direction = steepest(climbed, budget.norm)
        length = landing.length(length, value, slope, direction)
        z = direction.mul_(spread(length)).add_(z)  # in place: new memory costs more than the sums
        z = project(z, x, budget.norm, budget.eps) if bounds is None else z.clamp_(*bounds)
        z = landing.point(z, step)
    return z
