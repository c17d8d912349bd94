"""StAdv: a smooth displacement of pixels instead of a change of their values (Xiao et al., ICLR 2018)."""

from __future__ import annotations

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective, best_of
from iqa_robust.attacks.parameters import check_number
from iqa_robust.attacks.perceptual.adam import Adam
from iqa_robust.attacks.perceptual.flow import roughness, shorten, warp
from iqa_robust.attacks.perceptual.matching import largest_scale
from iqa_robust.attacks.perceptual.units import score_span
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

STEP_RATIO = 2.0
"""The first step as a fraction of the longest one the budget allows; the steps shrink linearly towards zero."""
FARTHEST = 8.0
"""Pixels: no first step is longer."""


class StAdv(Attack):
    """Maximizes value / range - smoothness * roughness over a field of displacements, by Adam.

    The image is sampled bilinearly at the displaced places; roughness is the mean, over pixels, of the squared
    differences (in pixels) between the displacements of neighbors. After every step the field is fitted into the
    budget so that the result stays a warp: for `linf` each displacement is shortened until its pixel changes by no
    more than eps (a pixel's value depends on its own displacement only), for the other norms the field is scaled.

    Corrected: in the code of Gushchin et al. (2024), which has no budget, three single steps of L-BFGS, the first of
    which is divided by the length of the gradient, move pixels by so little that the PSNR is 90 dB. Adapted, too: the
    score in place of a classifier's loss; the paper sums the (unsquared) roughness over all pixels, which at the sizes
    of photographs leaves no room for the score.
    """

    norms = ("linf", "l2", "psnr", "ssim")
    source = "Xiao et al., ICLR 2018 (arXiv:1801.02612); scores: Gushchin et al. 2024 (arXiv:2408.01541)"
    form = "corrected"
    note = "adapted: the score in place of a classifier's loss, at a stated visibility"

    def __init__(self, *, smoothness: float = 0.05) -> None:
        """`smoothness`: weight of the roughness against the score in units of its range, >= 0.

        Raises:
            ContractError: `smoothness` is not such a number.
        """
        check_number(self, "smoothness", smoothness, least=0)
        self.smoothness = smoothness

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the better end of the climbs in the directions of the goal."""
        span = score_span(objective)
        return best_of(objective, [self._climb(side, x, budget, span) for side in objective.sides()])

    def _climb(self, objective: Objective, x: torch.Tensor, budget: Budget, span: float) -> torch.Tensor:
        flow, adam = torch.zeros_like(x[:, :2]), Adam()
        radius: torch.Tensor | None = None
        for step in range(budget.steps):
            leaf = flow.detach().requires_grad_(True)
            moved = warp(x, leaf)
            _, slope = objective.gradient(moved.detach())
            rise = (moved * slope).flatten(1).sum(dim=1) / span - self.smoothness * roughness(leaf)
            direction = adam.direction(torch.autograd.grad(rise.sum(), leaf)[0])
            if radius is None:
                radius = _fit(direction, x, budget, x.new_full((len(x),), FARTHEST))
            length = STEP_RATIO * radius * (1 - step / budget.steps)
            flow = flow + length.view(-1, 1, 1, 1) * direction
            if budget.norm == "linf":
                flow = shorten(flow, x, budget.eps)
            else:
                flow = flow * _fit(flow, x, budget, torch.ones_like(radius)).view(-1, 1, 1, 1)
        return warp(x, flow)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """A gradient a step and direction; two ends are compared."""
        return (2 * budget.steps + 2, 2 * budget.steps) if goal == "away" else (budget.steps, budget.steps)


def _fit(flow: torch.Tensor, x: torch.Tensor, budget: Budget, most: torch.Tensor) -> torch.Tensor:
    """(N,) the largest factor up to `most` at which the warp is inside the budget."""
    return largest_scale(lambda s: warp(x, s.view(-1, 1, 1, 1) * flow), x, budget.norm, budget.eps, most)
