"""Projected gradient descent (Madry et al., ICLR 2018), here an ascent of the objective."""

from __future__ import annotations

import torch

from iqa_robust.attacks import norms
from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.gradient.ascent import ascend
from iqa_robust.attacks.objectives import Objective, best_of
from iqa_robust.attacks.parameters import check_flag, check_number, check_whole
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import NORMS, Budget


class PGD(Attack):
    """`budget.steps` steps along the steepest direction, each projected onto the ball and [0, 1].

    The goal `away` is climbed twice, once per direction: at the clean image |f(x') - f(x)| has a kink, and a
    run that has set off in one direction never finds the other. So it costs twice the steps. A budget of
    queries that runs out ends the attack at the best image so far, the upward direction first. Toward a
    target, steps are shortened and rounded as `ascent.ascend` says.

    Madry et al. take constant steps from a random start, without momentum. The defaults here were the strongest
    measured on a small network trained on photographs (eps 1..8/255 and L2, 5 to 20 steps, up and down): they move
    the score 0.4 to 25 % further than constant steps of eps/4 from a random start, which changes less than 0.1 % when
    it is added to them.
    """

    source = "Madry, Makelov, Schmidt, Tsipras, Vladu, ICLR 2018, arXiv:1706.06083"
    form = "adapted"
    norms = NORMS

    def __init__(
        self, *, restarts: int = 1, random_start: bool = False, momentum: float = 0.75, step_ratio: float = 2.0
    ) -> None:
        """Parameters of the search.

        Args:
            restarts: independent runs, the best of which counts; each takes `budget.steps` steps per
                direction. From the second on, they start at a uniform draw from the ball.
            random_start: whether the first run starts at a draw, too, instead of the clean image.
            momentum: decay factor of the accumulated gradient, each gradient scaled to unit L1 length first
                (MI-FGSM, Dong et al., CVPR 2018, whose factor is 1); 0 for none.
            step_ratio: the first step as a fraction of eps; the steps shrink linearly towards zero.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        check_whole(self, "restarts", restarts, least=1)
        check_flag(self, "random_start", random_start)
        check_number(self, "momentum", momentum, least=0)
        check_number(self, "step_ratio", step_ratio, above=0)
        self.restarts = restarts
        self.random_start = random_start
        self.momentum = momentum
        self.step_ratio = step_ratio

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the best of the last points; better ones on the way are in the objective's memory."""
        ends = []
        for restart in range(self.restarts):
            for side in objective.sides():
                drawn = self.random_start or restart > 0
                start = norms.random_start(x, budget.norm, budget.eps, rng) if drawn else x
                ends.append(ascend(side, start, x, budget, rng, step_ratio=self.step_ratio, momentum=self.momentum))
        return best_of(objective, ends)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """One pass a step, direction and restart; several ends are compared."""
        runs = self.restarts * (2 if goal == "away" else 1)
        return runs * budget.steps + (runs if runs > 1 else 0), runs * budget.steps
