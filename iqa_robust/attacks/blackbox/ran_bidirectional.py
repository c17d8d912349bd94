"""Ran et al.'s random search with a bi-directional loss, a query attack on no-reference quality models."""

from __future__ import annotations

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.blackbox.search import away_from_middle
from iqa_robust.attacks.blackbox.squares import search_corners
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import STANDARD_QUERIES, Budget


class RanBidirectional(Attack):
    """Random search over several squares of +-eps at a time, started from vertical stripes.

    Every query gives `n_squares` squares anywhere in the image new signs, one per channel, and keeps them all where
    the loss improves. The area of the squares shrinks as in the Square attack, stretched to the number of queries.
    Published at eps = 3/255 and 10,000 queries, which is also the default here when the budget sets none.

    The paper's loss is bi-directional: the score is lowered where it lies above the middle of the range, and raised
    elsewhere. The goal `away` means that where the model's score range is known; where it is not, any distance from
    the clean score counts. The paper takes the middle after a logistic mapping to 0..10 fitted per model and dataset;
    here it is the middle of the declared range. The other goals are the usual ones.
    """

    access = "black"
    norms = ("linf",)
    source = "Ran, Zhang, Li, Tang, Wang, Expert Systems with Applications 2025 (doi:10.1016/j.eswa.2024.125415)"
    form = "published"

    def __init__(self, *, n_squares: int = 2, p_init: float = 0.04) -> None:
        """The published values for DBCNN, UNIQUE and TReS; for LIQE they are 8 and 0.09.

        Args:
            n_squares: squares per query.
            p_init: share of the image's area that the first squares cover each, in (0, 1].
        """
        check_whole(self, "n_squares", n_squares, least=1)
        check_number(self, "p_init", p_init, above=0, most=1)
        self.n_squares = n_squares
        self.p_init = p_init

    def goal_for(
        self,
        goal: str,
        model: IQAModel,
        score_clean: torch.Tensor,
        target: torch.Tensor | float | None,
        labels: torch.Tensor | None,
    ) -> Goal:
        """The bi-directional rule for `away`; the others as every attack reads them."""
        if goal == "away":
            return away_from_middle(model, score_clean)
        return super().goal_for(goal, model, score_clean, target, labels)

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the best corner of the ball found."""
        return search_corners(objective, x, budget, rng, p_init=self.p_init, n_squares=self.n_squares)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """The queries of the budget, or the default number of them."""
        return budget.queries or STANDARD_QUERIES, 0
