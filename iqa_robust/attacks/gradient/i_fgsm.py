"""I-FGSM, the iterated fast gradient sign method, and the loop of its relatives."""

from __future__ import annotations

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.gradient.climbing import BALLS, Landing, project_each, spread
from iqa_robust.attacks.norms import steepest
from iqa_robust.attacks.objectives import Objective, best_of
from iqa_robust.attacks.parameters import check_number
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget


class IFGSM(Attack):
    """`budget.steps` steps of one length from the clean image, each projected onto the ball and [0, 1].

    x_0 = x, x_{t+1} = clip(x_t + alpha sign(gradient)) (Kurakin et al., section 2.2). The MSU robustness benchmark
    takes 10 steps of 1/255 within 10/255: a tenth of eps each, `step_ratio=0.1`. The default of a quarter is that of
    torchattacks' `BIM` (2/255 within 8/255) and moves the score further. `l2` and `psnr` take the normalized gradient
    for its sign.

    The goal `away` is climbed once per direction: at the clean image |f(x') - f(x)| has a kink, and a climb never
    returns to it. Toward a target, steps are shortened and rounded as `climbing.Landing` says.
    """

    source = (
        "Kurakin, Goodfellow, Bengio, ICLR Workshop 2017, arXiv:1607.02533;"
        " on IQA: Antsiferova et al., AAAI 2024, arXiv:2310.06958"
    )
    form = "published"
    norms = BALLS

    def __init__(self, *, step_ratio: float = 0.25) -> None:
        """Length of a step.

        Args:
            step_ratio: length as a fraction of eps; at least 1 / steps is taken, so that the steps together reach the
                surface of the ball; 0 means just that.

        Raises:
            ContractError: not a number >= 0.
        """
        check_number(self, "step_ratio", step_ratio, least=0)
        self.step_ratio = step_ratio

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the best of the last points; better ones on the way are in the objective's memory."""
        radius = self.radius(x, budget)
        return best_of(objective, [self._climb(side, x, radius, budget, rng) for side in objective.sides()])

    def radius(self, x: torch.Tensor, budget: Budget) -> torch.Tensor:
        """(N,) size of the ball around each image, at most `budget.eps`."""
        return x.new_full((len(x),), budget.eps)

    def evaluate(
        self, objective: Objective, z: torch.Tensor, ahead: torch.Tensor, rng: ImageRNG
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Values (N,) and slopes (N, 3, H, W) for the step from `z`; `ahead` is a full step along the velocity."""
        return objective.gradient(z)

    def accumulate(self, velocity: torch.Tensor, slope: torch.Tensor, norm: str) -> torch.Tensor:
        """The velocity (N, 3, H, W) that the next step follows."""
        return slope

    def _climb(
        self, objective: Objective, x: torch.Tensor, radius: torch.Tensor, budget: Budget, rng: ImageRNG
    ) -> torch.Tensor:
        z, velocity = x, torch.zeros_like(x)
        landing = Landing(objective, x, budget, rng)
        length = radius * max(self.step_ratio, 1 / budget.steps)
        for step in range(budget.steps):
            value, slope = self.evaluate(objective, z, spread(length) * velocity, rng)
            velocity = self.accumulate(velocity, slope, budget.norm)
            direction = steepest(velocity, budget.norm)
            taken = spread(landing.length(length, value, slope, direction)) * direction
            z = landing.point(project_each(z + taken, x, budget.norm, radius), step)
        return z

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """One pass a step and direction; `away` compares the two ends."""
        sides = 2 if goal == "away" else 1
        return sides * budget.steps + (2 if sides == 2 else 0), sides * budget.steps
