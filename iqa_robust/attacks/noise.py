"""The control: random noise of the attack's own size."""

from __future__ import annotations

import torch

from iqa_robust.attacks import sparse
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.norms import reach, steepest
from iqa_robust.attacks.objectives import Objective
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import NORMS, Budget


class Noise(Attack):
    """One draw of random noise as large as the budget allows; an attack that cannot beat it found nothing.

    For L-infinity every value moves by eps, up or down at random, which has three times the energy of uniform
    noise in the same ball; for L2, PSNR and SSIM the noise is Gaussian, as strong as allowed; for few pixels and
    patches it is random colors at random places. The model is not queried and nothing is selected: the result may
    move the score the wrong way.
    """

    access = "black"
    norms = NORMS
    control = True
    source = "the control"

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): `x` plus one draw on the surface of the ball."""
        if budget.norm == "linf":
            return x + budget.eps * rng.signs(x.shape[1:])
        if budget.norm in sparse.NORMS:
            return sparse.random_start(x, budget.norm, budget.eps, rng)
        direction = steepest(rng.normal(x.shape[1:]), budget.norm)
        return x + reach(x, direction, budget.norm, budget.eps).view(-1, 1, 1, 1) * direction

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """No pass at all."""
        return 0, 0
