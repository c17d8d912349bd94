"""A smooth change of color under unchanged lightness, after cAdv (Bhattad et al., ICLR 2020)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective, best_of
from iqa_robust.attacks.parameters import check_whole
from iqa_robust.attacks.perceptual.adam import Adam
from iqa_robust.attacks.perceptual.lab import to_lab, to_rgb
from iqa_robust.attacks.perceptual.matching import largest_scale
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

STEP_RATIO = 2.0
"""The first step as a fraction of the longest one the budget allows; the steps shrink linearly towards zero."""
FARTHEST = 128.0
"""Units of a and b: no first step is longer."""


class Color(Attack):
    """Maximizes the objective over color hints: a coarse grid of changes of a and b in CIELAB, spread smoothly.

    The hints are interpolated bicubically to the size of the image and added to its a and b channels; the lightness L
    stays, but where the new color lies outside of sRGB it is clipped there. Adam moves the hints, and after every step
    they are scaled, per image, until the recolored image is inside the budget. A limit on every single value would be
    met at the one pixel whose color moves most, so L-infinity is not served.

    Adapted: cAdv feeds 50 color hints to a pretrained colorization network, which spreads them along the objects of
    the image, and attacks a classifier. Here no network is needed and the spreading knows no objects.
    """

    norms = ("l2", "psnr", "ssim")
    source = "after Bhattad et al., ICLR 2020 (arXiv:1904.06347)"
    form = "adapted"
    note = "adapted: smooth color hints without the colorization network of cAdv"

    def __init__(self, *, hints: int = 16) -> None:
        """`hints`: along each side of the image, at least 1; more are stronger and less smooth.

        Raises:
            ContractError: `hints` is not such a number.
        """
        check_whole(self, "hints", hints, least=1)
        self.hints = hints

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the better end of the climbs in the directions of the goal."""
        return best_of(objective, [self._climb(side, x, budget) for side in objective.sides()])

    def _climb(self, objective: Objective, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        lab, adam = to_lab(x), Adam()
        hints = x.new_zeros((len(x), 2, self.hints, self.hints))
        radius: torch.Tensor | None = None

        def fit(hints: torch.Tensor, most: torch.Tensor) -> torch.Tensor:
            return largest_scale(
                lambda s: recolor(x, lab, s.view(-1, 1, 1, 1) * hints), x, budget.norm, budget.eps, most
            )

        for step in range(budget.steps):
            leaf = hints.detach().requires_grad_(True)
            colored = recolor(x, lab, leaf)
            _, slope = objective.gradient(colored.detach())
            direction = adam.direction(torch.autograd.grad((colored * slope).sum(), leaf)[0])
            if radius is None:
                radius = fit(direction, x.new_full((len(x),), FARTHEST))
            hints = hints + (STEP_RATIO * radius * (1 - step / budget.steps)).view(-1, 1, 1, 1) * direction
            hints = hints * fit(hints, torch.ones_like(radius)).view(-1, 1, 1, 1)
        return recolor(x, lab, hints)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """A gradient a step and direction; two ends are compared."""
        return (2 * budget.steps + 2, 2 * budget.steps) if goal == "away" else (budget.steps, budget.steps)


def recolor(x: torch.Tensor, lab: torch.Tensor, hints: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) in [0, 1]: `x`, which is `lab` in CIELAB, with `hints` (N, 2, h, w) added to a and b.

    Hints of zero give exactly `x`: the rounding errors of the way there and back are taken off.
    """
    change = F.interpolate(hints, size=x.shape[-2:], mode="bicubic", align_corners=False)
    moved = to_rgb(torch.cat([lab[:, :1], lab[:, 1:] + change], dim=1))
    moved = moved + (x - to_rgb(lab))
    # Not clamp(), whose slope at 0 and 1 themselves is 0: a saturated value may still come back.
    return torch.where(moved < 0, 0, torch.where(moved > 1, 1, moved))
