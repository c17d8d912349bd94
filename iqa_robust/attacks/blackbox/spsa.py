"""SPSA, simultaneous perturbation stochastic approximation (Uesato et al., ICML 2018)."""

from __future__ import annotations

import torch

from iqa_robust.attacks.blackbox.estimation import EstimatedAscent
from iqa_robust.attacks.norms import reach, steepest
from iqa_robust.attacks.parameters import check_number
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

BETA_1, BETA_2 = 0.9, 0.999
"""Decays of Adam's moments, its defaults."""


class SPSA(EstimatedAscent):
    """Adam on gradients estimated from random signs.

    Uesato et al. perturb by delta = 0.01 and let Adam step by 0.01, which is a third of their budget of 8/255; the
    step here is a fraction of the budget, so that it fits any, and twice as long, which was stronger from 60 queries
    to 1,000. They draw thousands of signs per step; from 1,000
    queries, more steps from fewer signs each reach further. Without a limit in the budget it makes 10,000 queries
    per image.
    """

    source = "Uesato, O'Donoghue, van den Oord, Kohli, ICML 2018 (arXiv:1802.05666)"

    def __init__(self, *, pairs: int = 20, delta: float = 0.01, learning_rate: float = 0.6) -> None:
        """Parameters of the search.

        Args:
            pairs: directions per step, each tried both ways.
            delta: size of a probe, as a fraction of full scale.
            learning_rate: Adam's step as a fraction of eps.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        check_number(self, "delta", delta, above=0)
        super().__init__(pairs=pairs, sigma=delta)
        check_number(self, "learning_rate", learning_rate, above=0)
        self.delta = delta
        self.learning_rate = learning_rate

    def direction(self, rng: ImageRNG, x: torch.Tensor) -> torch.Tensor:
        """Independent signs."""
        return rng.signs(x.shape[1:])

    def start(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Adam's two moments, zero."""
        return torch.zeros_like(x), torch.zeros_like(x)

    def move(
        self,
        slope: torch.Tensor,
        memory: tuple[torch.Tensor, ...],
        x: torch.Tensor,
        budget: Budget,
        step: int,
        steps: int,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """Adam's step; for norms other than `linf` it is scaled to a fraction of the budget as a whole."""
        first = BETA_1 * memory[0] + (1 - BETA_1) * slope
        second = BETA_2 * memory[1] + (1 - BETA_2) * slope.square()
        mean, square = first / (1 - BETA_1 ** (step + 1)), second / (1 - BETA_2 ** (step + 1))
        direction = mean / (square.sqrt() + 1e-8 * square.flatten(1).amax(dim=1).sqrt().view(-1, 1, 1, 1) + 1e-30)
        if budget.norm != "linf":
            direction = steepest(direction, budget.norm)
        length = self.learning_rate * reach(x, direction, budget.norm, budget.eps)
        return length.view(-1, 1, 1, 1) * direction, (first, second)
