"""Auto-PGD (Croce and Hein, ICML 2020), for scores."""

from __future__ import annotations

import torch

from iqa_robust.attacks import norms
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.gradient.auto import auto_ascend
from iqa_robust.attacks.gradient.climbing import BALLS, Landing
from iqa_robust.attacks.objectives import Objective, best_of
from iqa_robust.attacks.parameters import check_flag, check_number, check_whole
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class APGD(Attack):
    """Projected ascent that chooses its own step length; see `auto.auto_ascend` for the algorithm.

    The authors raise the loss of a classifier; here the score itself, or minus its distance from a target, is the
    loss, which needs no scaling: steps do not depend on the gradient's length. `budget.steps` gradients are taken per
    run; the authors take one more, for the last point. One default differs from theirs, which is `decay=0`:
    accumulated gradients move the scores of the two networks this was measured on 1 to 3 % further (20 steps, 2 and
    4/255).

    The goal `away` is climbed once per direction. Toward a target, steps are shortened and rounded as
    `climbing.Landing` says.
    """

    source = "Croce, Hein, ICML 2020, arXiv:2003.01690"
    form = "adapted"
    norms = BALLS

    def __init__(self, *, restarts: int = 1, random_start: bool = True, decay: float = 0.75) -> None:
        """Parameters of the search.

        Args:
            restarts: independent runs, the best of which counts; each takes `budget.steps` gradients per direction.
                From the second on, they start at a uniform draw from the ball.
            random_start: whether the first run starts at a draw, too, as the authors' does, and not at the clean image.
            decay: what is kept of the accumulated gradient at every step, each gradient scaled to unit L1 length.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        check_whole(self, "restarts", restarts, least=1)
        check_flag(self, "random_start", random_start)
        check_number(self, "decay", decay, least=0)
        self.restarts = restarts
        self.random_start = random_start
        self.decay = decay

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the best of the last points; better ones on the way are in the objective's memory."""
        radius = x.new_full((len(x),), budget.eps)
        ends = []
        for restart in range(self.restarts):
            for side in objective.sides():
                drawn = self.random_start or restart > 0
                start = norms.random_start(x, budget.norm, budget.eps, rng) if drawn else x
                landing = Landing(side, x, budget, rng)
                end = auto_ascend(side, start, x, budget.norm, radius, budget.steps, decay=self.decay, landing=landing)
                ends.append(end)
        return best_of(objective, ends)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """One pass a step, direction and restart; several ends are compared."""
        runs = self.restarts * (2 if goal == "away" else 1)
        return runs * budget.steps + (runs if runs > 1 else 0), runs * budget.steps
