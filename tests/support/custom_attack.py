"""An attack whose `perturb` a test writes."""

from __future__ import annotations

from collections.abc import Callable

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

Perturb = Callable[[Objective, torch.Tensor, Budget, ImageRNG], torch.Tensor]


class Custom(Attack):
    """An attack made of a function."""

    def __init__(self, function: Perturb) -> None:
        self.function = function

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        return self.function(objective, x, budget, rng)
