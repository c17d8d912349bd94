"""The fast gradient sign method (Goodfellow, Shlens, Szegedy, ICLR 2015)."""

from __future__ import annotations

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.norms import project, reach, steepest
from iqa_robust.attacks.objectives import Objective
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class FGSM(Attack):
    """One step of length eps along the steepest direction: x + eps sign(gradient), or its L2 counterpart.

    The goal `away` tries both ends of that line with one gradient. For `reflect` and `target` the step goes
    all the way to the surface of the ball, so it may pass a target that lies near; `pgd` stops at it.
    """

    source = "Goodfellow, Shlens, Szegedy, ICLR 2015, arXiv:1412.6572"
    form = "adapted"
    norms = ("linf", "l2", "psnr")

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the end of the step; for `away` the other end is left to the objective's memory."""
        _, slope = objective.gradient(x)
        direction = steepest(slope, budget.norm)
        step = reach(x, direction, budget.norm, budget.eps).view(-1, 1, 1, 1) * direction
        two_sided = objective.goal.sign is None and objective.goal.target is None
        if two_sided and bool((objective.remaining() > 0).all()):
            objective(project(x - step, x, budget.norm, budget.eps))
        return project(x + step, x, budget.norm, budget.eps)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """One gradient; `away` evaluates one image more."""
        return (2 if goal == "away" else 1), 1
