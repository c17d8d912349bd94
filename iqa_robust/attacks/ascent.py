"""Projected steepest ascent, the loop behind the iterative gradient attacks, and the choice between its ends."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from iqa_robust.attacks.norms import project, steepest
from iqa_robust.attacks.objectives import Objective
from iqa_robust.records import Budget


def ascend(
    objective: Objective,
    start: torch.Tensor,
    x: torch.Tensor,
    budget: Budget,
    *,
    step_ratio: float,
    momentum: float = 0.0,
) -> torch.Tensor:
    """Climb `objective` for `budget.steps` steps inside the ball around `x`; (N, 3, H, W), its last point.

    Args:
        objective: what is climbed; it keeps the best point by itself.
        start: (N, 3, H, W), where to begin.
        x: (N, 3, H, W), the center of the ball.
        budget: norm, radius and number of steps.
        step_ratio: the first step, as a fraction of the radius; the steps shrink linearly towards zero.
        momentum: decay of the accumulated gradient (Dong et al. 2018, eq. 6); 0 uses each gradient alone.
    """
    z = start
    velocity = torch.zeros_like(x)
    for step in range(budget.steps):
        _, slope = objective.gradient(z)
        if momentum:
            slope = torch.nan_to_num(slope)
            size = slope.flatten(1).abs().sum(dim=1).clamp_min(torch.finfo(slope.dtype).tiny)
            velocity = momentum * velocity + slope / size.view(-1, 1, 1, 1)
            slope = velocity
        length = step_ratio * budget.eps * (1 - step / budget.steps)
        z = project(z + length * steepest(slope, budget.norm), x, budget.norm, budget.eps)
    return z


def best_of(
    objective: Objective, candidates: Sequence[torch.Tensor], index: torch.Tensor | None = None
) -> torch.Tensor:
    """Per image, the candidate (n, 3, H, W) of the highest value. A single one is returned without a query."""
    best = candidates[0]
    if len(candidates) == 1:
        return best
    highest = objective(best, index)
    for candidate in candidates[1:]:
        value = objective(candidate, index)
        wins = value > highest
        best = torch.where(wins.view(-1, 1, 1, 1), candidate, best)
        highest = torch.where(wins, value, highest)
    return best
