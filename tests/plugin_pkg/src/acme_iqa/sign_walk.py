"""A black-box attack: a random walk over the corners of the L-infinity ball that never steps back."""

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.norms import project
from iqa_robust.attacks.objectives import Objective
from iqa_robust.errors import ContractError
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class SignWalk(Attack):
    """Each step draws new signs for a random part of the values (`share`) and stays where that helps."""

    access = "black"
    norms = ("linf",)

    def __init__(self, *, share: float = 0.1) -> None:
        if not 0 < share <= 1:
            raise ContractError(f"SignWalk: expected share to be above 0 and at most 1, got {share!r}.")
        self.share = share

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        signs, values = rng.signs(x.shape[1:]), None
        for _ in range(budget.steps if budget.queries is None else budget.queries // objective.draws):
            redrawn = rng.uniform(x.shape[1:]) < (1.0 if values is None else self.share)
            trial = torch.where(redrawn, rng.signs(x.shape[1:]), signs)
            reached = objective(project(x + budget.eps * trial, x, budget.norm, budget.eps))
            better = torch.full_like(reached, True, dtype=torch.bool) if values is None else reached > values
            signs = torch.where(better.view(-1, 1, 1, 1), trial, signs)
            values = reached if values is None else torch.where(better, reached, values)
        return x + budget.eps * signs
