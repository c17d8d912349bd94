"""SSAH: a perturbation kept out of the low frequencies (Luo et al., CVPR 2022), adapted to scores."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.norms import project, reach, steepest
from iqa_robust.attacks.objectives import Objective, best_of
from iqa_robust.attacks.parameters import check_number
from iqa_robust.attacks.perceptual.adam import Adam
from iqa_robust.attacks.perceptual.units import score_span
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

PATH = 2.0
"""Length of all steps together, over the way to the edge of the budget; the steps are equally long."""


class SSAH(Attack):
    """Maximizes value / range - weight * SmoothL1(low(x'), low(x)) by Adam, inside the budget.

    low() is the LL band of the Haar wavelet, rebuilt at the size of the image: the mean of every block of 2 x 2
    pixels. SmoothL1 is summed over all values. The perturbation therefore goes to the fine detail, where it is hard to
    see.

    Adapted: the paper attacks the features of a classifier; the score in place of its loss, and the weight 0.1, are
    those of the benchmark of Gushchin et al. (2024). Corrected against that code: an odd row or column is repeated
    for low() alone, where the code let the model see black borders. The code takes 10 steps of 0.001 and has no
    budget; here the steps are measured by the budget, so that it is used in full.
    """

    norms = ("linf", "l2", "psnr", "ssim")
    source = "Luo et al., CVPR 2022 (arXiv:2203.05151); scores: Gushchin et al. 2024 (arXiv:2408.01541)"
    form = "adapted"
    note = "adapted: the score in place of a classifier's features"

    def __init__(self, *, weight: float = 0.1) -> None:
        """`weight`: of the low frequencies against the score in units of its range, >= 0.

        Raises:
            ContractError: `weight` is not such a number.
        """
        check_number(self, "weight", weight, least=0)
        self.weight = weight

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the better end of the climbs in the directions of the goal."""
        span = score_span(objective)
        return best_of(objective, [self._climb(side, x, budget, span) for side in objective.sides()])

    def _climb(self, objective: Objective, x: torch.Tensor, budget: Budget, span: float) -> torch.Tensor:
        low, z, adam = low_band(x), x, Adam()
        radius: torch.Tensor | None = None
        for _ in range(budget.steps):
            _, slope = objective.gradient(z)
            leaf = z.detach().requires_grad_(True)
            kept = F.smooth_l1_loss(low_band(leaf), low, reduction="sum")
            slope = slope / span - self.weight * torch.autograd.grad(kept, leaf)[0]
            direction = adam.direction(slope)
            if budget.norm != "linf":
                direction = steepest(direction, budget.norm)
            if radius is None:
                radius = reach(x, direction, budget.norm, budget.eps)
            length = (PATH / budget.steps * radius).view(-1, 1, 1, 1)
            z = project(z + length * direction, x, budget.norm, budget.eps)
        return z

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """A gradient a step and direction; two ends are compared."""
        return (2 * budget.steps + 2, 2 * budget.steps) if goal == "away" else (budget.steps, budget.steps)


def low_band(x: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W): the Haar LL band of `x`, rebuilt at its size; an odd last row or column is repeated first."""
    height, width = x.shape[-2:]
    even = F.pad(x, (0, width % 2, 0, height % 2), mode="replicate")
    blocks = F.avg_pool2d(even, 2)
    return blocks.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)[..., :height, :width]
