"""Projected steepest ascent, the loop behind the iterative gradient attacks."""

from __future__ import annotations

import torch

from iqa_robust.attacks.norms import dither, dual_length, project, reach, steepest
from iqa_robust.attacks.objectives import Objective
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

_GOLDEN = 0.6180339887
"""Multiples of it, modulo 1, are spread evenly: one draw serves every step of a dithered climb."""


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
    """Climb `objective` for `budget.steps` steps inside the ball around `x`; (N, 3, H, W), its last point.

    Toward a target two things change. A step is never longer than the distance left over the slope (Polyak's
    step for a known optimum), so that the climb lands on the target instead of leaping over it. And, for
    L-infinity, every point is rounded to the 8-bit grid by dithering: all values move by the same fraction of
    a gray level, which rounding at the end would take away or double.

    Args:
        objective: what is climbed; it keeps the best point by itself.
        start: (N, 3, H, W), where to begin.
        x: (N, 3, H, W), the center of the ball.
        budget: norm, radius and number of steps.
        rng: the images' randomness, for dithering.
        step_ratio: the first step, as a fraction of the radius; the steps shrink linearly towards zero.
        momentum: decay of the accumulated gradient (Dong et al. 2018, eq. 6); 0 uses each gradient alone.
    """
    z = start
    velocity = torch.zeros_like(x)
    targeted = objective.goal.target is not None
    offset = rng.uniform(x.shape[1:]) if targeted and budget.norm == "linf" else None
    radius: torch.Tensor | None = None
    for step in range(budget.steps):
        value, slope = objective.gradient(z)
        if radius is None:
            radius = reach(x, steepest(slope, budget.norm), budget.norm, budget.eps)
        length = step_ratio * radius * (1 - step / budget.steps)
        if targeted:
            length = torch.fmin(length, -value / dual_length(slope, budget.norm))
        if momentum:
            velocity = momentum * velocity + torch.nan_to_num(slope / _per_image(dual_length(slope, "linf")))
            slope = velocity
        step_taken = _per_image(length) * steepest(slope, budget.norm)
        z = project(z + step_taken, x, budget.norm, budget.eps)
        if offset is not None:
            z = dither(z, x, budget.eps, (offset + step * _GOLDEN) % 1)
    return z


def _per_image(values: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1)
