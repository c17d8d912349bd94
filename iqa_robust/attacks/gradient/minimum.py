"""The smallest perturbation that moves a score by a stated amount."""

from __future__ import annotations

import dataclasses
import math

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.gradient.auto import auto_ascend
from iqa_robust.attacks.gradient.climbing import BALLS, project_each
from iqa_robust.attacks.norms import distance, measure, snap
from iqa_robust.attacks.objectives import Goal, Objective
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.errors import ContractError
from iqa_robust.images import LEVELS, to_8bit_grid
from iqa_robust.models.base import IQAModel
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

MARGIN = 1e-4
"""Share of the shift by which it must be exceeded, so that rounding in another batch does not undo the success."""
CLOSE = 0.02
"""The search ends where the smallest success and the largest failure differ by less than this share."""
FAR = 10.0
"""Score ranges to the target that stands for a direction: farther than any score gets."""


class Minimum(Attack):
    """Bisection over the radius of the ball, per image, with Auto-PGD inside; for curves of shift against size.

    The budget is the largest radius. An image whose score can be moved by the stated amount within it is attacked in
    smaller and smaller balls; what is returned is the smallest image on the 8-bit grid that does it, and an image for
    which none does gets the strongest one. So the distances in the record are the result. A success ends a climb at
    once, an image that has its smallest radius leaves.

    For `linf` the radii are whole gray levels, as the images are, and the search is exact but for the climb inside.
    For `l2` and `psnr` it stops at 2 % or after `halvings` halvings. `budget.steps` are the steps of one climb. Goals
    with a target have no amount to move by.
    """

    source = "bisection over eps around Auto-PGD (Croce, Hein, ICML 2020, arXiv:2003.01690)"
    form = "ours"
    norms = BALLS
    goals = ("up", "down", "away")
    maximizes = False
    note = "looks for the smallest perturbation that moves the score by a stated amount, not for the largest shift"

    def __init__(self, *, shift: float = 0.1, halvings: int = 8) -> None:
        """Parameters of the search.

        Args:
            shift: the amount, as a share of the model's score range.
            halvings: how often the radius is halved at most, for `l2` and `psnr`.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        check_number(self, "shift", shift, above=0)
        check_whole(self, "halvings", halvings, least=1)
        self.shift = shift
        self.halvings = halvings

    def goal_for(
        self,
        goal: str,
        model: IQAModel,
        score_clean: torch.Tensor,
        target: torch.Tensor | float | None,
        labels: torch.Tensor | None,
    ) -> Goal:
        """The direction, and the amount as what is enough. Raises `ContractError` where the range is unknown."""
        if model.info.score_range is None:
            raise ContractError(
                "minimum: `shift` is a share of the model's score range, which is unknown:"
                " give `score_range` in the track or in ModelInfo."
            )
        low, high = model.info.score_range
        amount = torch.full_like(score_clean, self.shift * (high - low))
        return dataclasses.replace(super().goal_for(goal, model, score_clean, target, labels), enough=amount)

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W) on the 8-bit grid: the smallest successes, and the strongest images where there is none."""
        search = _Search(objective, x, budget, self.shift)
        for _ in range(self._attempts(budget)):
            if not search.attempt():
                break
        return torch.where(search.success.view(-1, 1, 1, 1), search.found, objective.tally.best_image)

    def _attempts(self, budget: Budget) -> int:
        """Radii tried per image at most: the largest, then the halvings."""
        levels = math.floor(budget.eps_255 + 1e-6)
        return 1 + (math.ceil(math.log2(max(levels, 1))) if budget.norm == "linf" else self.halvings)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """At most one climb per radius and direction, each with a look at the rounded image."""
        climbs = self._attempts(budget) * (2 if goal == "away" else 1)
        return climbs * (budget.steps + 1), climbs * budget.steps


class _Search:
    """The state of the bisection; every tensor has one entry per image of the batch."""

    def __init__(self, objective: Objective, x: torch.Tensor, budget: Budget, shift: float) -> None:
        self.objective, self.x, self.budget = objective, x, budget
        if objective.goal.enough is None:
            raise ContractError("minimum: the goal does not say how much is enough.")
        self.enough = objective.goal.enough
        self.far = FAR / shift * self.enough
        self.found = x.clone()
        self.success = torch.zeros(len(x), dtype=torch.bool, device=x.device)
        # The largest radius that fails: within it there is no point of the grid, or none that does.
        self.low = distance(to_8bit_grid(x), x, budget.norm)
        # The size of the smallest success; at first, the whole budget.
        self.high = x.new_full((len(x),), budget.eps)
        if budget.norm == "linf":
            self.low = torch.zeros_like(self.low)
            self.high = torch.floor(self.high * LEVELS + 1e-4) / LEVELS
        self.open = self.high > self.low

    def attempt(self) -> bool:
        """One radius more for every image that is still open; False where there is none."""
        index = self.open.nonzero().squeeze(1)
        if len(index) == 0:
            return False
        radius = torch.where(self.success, self._middle(), self.high)
        hit = torch.zeros_like(self.success)
        sign = self.objective.goal.sign
        for direction in [torch.ones_like(self.far), -torch.ones_like(self.far)] if sign is None else [sign]:
            index = index[~hit[index]]
            if len(index) > 0:
                self._climb(index, direction, radius, hit)
        self.low = torch.where(self.open & ~hit, radius, self.low)
        self.open &= self.success & (self.objective.remaining() > 0).to(self.open.device)
        if self.budget.norm == "linf":
            self.open &= torch.round((self.high - self.low) * LEVELS) > 1
        else:
            self.open &= self.high - self.low > CLOSE * self.high
        return True

    def _middle(self) -> torch.Tensor:
        middle = (self.low + self.high) / 2
        return torch.floor(middle * LEVELS + 1e-4) / LEVELS if self.budget.norm == "linf" else middle

    def _climb(self, index: torch.Tensor, direction: torch.Tensor, radius: torch.Tensor, hit: torch.Tensor) -> None:
        """One climb of the images `index` in balls of `radius`; marks successes in `hit` and keeps their images."""
        norm = self.budget.norm
        side = self.objective.toward(self.objective.score_clean + direction * self.far)

        def finished(z: torch.Tensor, value: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
            done = torch.zeros_like(at, dtype=torch.bool)
            able = (self.objective.remaining()[at.cpu()] > 0).to(at.device)
            near = (able & (self._moved(value, at) >= self.enough[at])).nonzero().squeeze(1)
            if len(near) == 0:
                return done
            at = at[near]
            rounded = torch.cat(
                [snap(z[k][None], self.x[i][None], norm, radius[i].item()) for k, i in zip(near, at, strict=True)]
            )
            size = measure(rounded, self.x[at], norm).to(radius)
            enough = self._moved(side(rounded, at), at) >= (1 + MARGIN) * self.enough[at]
            done[near] = enough
            at = at[enough]
            hit[at] = self.success[at] = True
            self.found[at] = rounded[enough]
            self.high[at] = torch.minimum(size[enough], radius[at])
            return done

        start = project_each(self.found[index], self.x[index], norm, radius[index])
        auto_ascend(side, start, self.x[index], norm, radius[index], self.budget.steps, index=index, finished=finished)

    def _moved(self, value: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """(n,) how far the score has come, from its distance to the far target."""
        return self.far[at] + value
