"""A few pixels changed by any amount: projected ascent in an L0 ball, after PGD0 (Croce and Hein, ICCV 2019)."""

from __future__ import annotations

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.norms import steepest, unit_l1
from iqa_robust.attacks.objectives import Objective, best_of
from iqa_robust.attacks.parameters import check_number
from iqa_robust.attacks.sparse import changed, pixels_allowed
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

STEP_RATIO = 2.0
"""The first step, as a fraction of full scale, of the value with the steepest slope."""
MOMENTUM = 0.75


class FewPixels(Attack):
    """Finds the pixels first, then their colors.

    The first gradient proposes the optimum of a linear model: the pixels whose rise would be the largest if every
    value went to the end of [0, 1] that the gradient points to. Then, for the first `search` of the steps, the image
    climbs the gradient with momentum, and after every step only as many pixels as the budget allows keep their
    change: those with the largest sum of |change| times |accumulated gradient|, so that a pixel needs both a slope and
    room. (PGD0 keeps the largest changes, and misses the best pixels even of a linear model.) The remaining steps
    start at the best point of these and move the values of its pixels only. Steps shrink quadratically towards zero in
    both parts.

    Adapted: PGD0 takes steps of constant length without momentum from random starts, to make a classifier err.
    """

    norms = ("l0",)
    source = "after Croce and Hein, Sparse and imperceivable adversarial attacks, ICCV 2019"
    form = "adapted"
    note = "adapted: PGD0 with momentum, shrinking steps and another choice of the pixels"

    def __init__(self, *, search: float = 0.7) -> None:
        """`search`: share of the steps that choose pixels, in (0, 1]; the others refine their values.

        Raises:
            ContractError: `search` is not such a number.
        """
        check_number(self, "search", search, above=0, most=1)
        self.search = search

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the better end of the climbs in the directions of the goal."""
        return best_of(objective, [self._climb(side, x, budget) for side in objective.sides()])

    def _climb(self, objective: Objective, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        best, highest = x, torch.full_like(objective.score_clean, -torch.inf)
        z, velocity = x, torch.zeros_like(x)
        allowed = pixels_allowed(x, budget.eps)
        searching = max(1, round(self.search * budget.steps))
        for step in range(searching):
            value, slope = objective.gradient(z)
            best, highest = _better(z, value, best, highest)
            if step == 0:
                jump = torch.where(slope > 0, 1 - x, -x)
                jump = x + jump * _most_important(jump, torch.nan_to_num(slope), allowed)
                best, highest = _better(jump, objective(jump), best, highest)
            velocity = _accumulated(velocity, slope)
            length = STEP_RATIO * (1 - step / budget.steps) ** 2
            z = (z + length * steepest(velocity, "l0")).clamp(0, 1)
            z = torch.where(_most_important(z - x, velocity, allowed), z, x)
        if searching == budget.steps:
            return z
        best, highest = _better(z, objective(z), best, highest)
        chosen = changed(best, x)[:, None]
        z, velocity = best, torch.zeros_like(x)
        for step in range(budget.steps - searching):
            _, slope = objective.gradient(z)
            velocity = _accumulated(velocity, slope * chosen)
            length = STEP_RATIO * (1 - step / (budget.steps - searching)) ** 2
            z = torch.where(chosen, (z + length * steepest(velocity, "l0")).clamp(0, 1), x)
        return z

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """A gradient a step and direction, a query for the jump and one between the parts; two ends are compared."""
        runs = 2 if goal == "away" else 1
        between = max(1, round(self.search * budget.steps)) < budget.steps
        return runs * (budget.steps + 1 + between) + (2 if runs == 2 else 0), runs * budget.steps


def _most_important(change: torch.Tensor, velocity: torch.Tensor, number: int) -> torch.Tensor:
    """(N, 1, H, W) bool: the `number` pixels whose change counts most to first order (ties: the first ones)."""
    importance = (change * velocity).abs().sum(dim=1).flatten(1)
    first = importance.argsort(dim=1, descending=True, stable=True)[:, :number]
    return torch.zeros_like(importance, dtype=torch.bool).scatter(1, first, True).view_as(change[:, :1])


def _accumulated(velocity: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    """Momentum over gradients of unit L1 length (Dong et al. 2018, eq. 6)."""
    return MOMENTUM * velocity + unit_l1(slope)


def _better(
    z: torch.Tensor, value: torch.Tensor, best: torch.Tensor, highest: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    wins = value > highest
    return torch.where(wins.view(-1, 1, 1, 1), z, best), torch.where(wins, value, highest)
