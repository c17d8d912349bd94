"""Climbs of ART that set their own step."""

from __future__ import annotations

from typing import Any, ClassVar

import torch

from iqa_robust.attacks.adapters.art import ARTAttack, order
from iqa_robust.attacks.adapters.libraries import radius
from iqa_robust.records import Budget


class AutoProjectedGradientDescent(ARTAttack):
    """`AutoProjectedGradientDescent` on the cross-entropy of the estimator, from one random start.

    The library picks the loss by name, not by the number of classes; with none named it takes the estimator's. Its
    steps use signs or normalized gradients, which are the objective's own. The first step is 2 eps, as published.
    """

    norms: ClassVar[tuple[str, ...]] = ("linf", "l2", "psnr")
    source = "Croce, Hein, ICML 2020, arXiv 2003.01690"
    library_class = "AutoProjectedGradientDescent"

    def arguments(self, x: torch.Tensor, budget: Budget) -> dict[str, Any]:
        """Ball, first step and number of steps."""
        eps = radius(x, budget)
        return {
            "norm": order(budget),
            "eps": eps,
            "eps_step": 2 * eps,
            "max_iter": budget.steps,
            "nb_random_init": 1,
            "verbose": False,
        }

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """A gradient and a loss a step, and four evaluations around them; `away` compares two ends."""
        sides = 2 if goal == "away" else 1
        return sides * (2 * budget.steps + 4) + (2 if sides == 2 else 0), sides * budget.steps


class AutoConjugateGradient(AutoProjectedGradientDescent):
    """`AutoConjugateGradient`: the same schedule on conjugate gradients.

    Only in the L2 balls: for L-infinity, ART 1.20 computes the sign of the direction and then steps along the
    direction without it.
    """

    norms = ("l2", "psnr")
    source = "Yamamura et al., ICML 2022, arXiv 2206.09628"
    library_class = "AutoConjugateGradient"


class RescalingAutoConjugateGradient(AutoConjugateGradient):
    """`RescalingAutoConjugateGradient`: the same with bounded conjugate directions; L2 balls only, for that reason."""

    source = "Yamamura et al., 2024, arXiv 2408.03972"
    library_class = "RescalingAutoConjugateGradient"
