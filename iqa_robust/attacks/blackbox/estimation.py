"""Ascent along gradients estimated from pairs of queries, the loop behind NES and SPSA."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.blackbox.search import AT_ONCE, evaluations, running
from iqa_robust.attacks.norms import project
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import STANDARD_QUERIES, Budget

LEAST_STEPS = 8
"""Fewer pairs are drawn when the queries would not last for this many steps."""

SCOUTING = 8
"""For the goal `away`, one step of so many is spent on each direction before the better one is followed."""


@dataclass
class Climb:
    """Where the climb of every image stands; the first dimension of every tensor is that of the images."""

    sign: torch.Tensor
    """(N,) +1 or -1: the side on which the objective is climbed."""
    z: torch.Tensor
    value: torch.Tensor
    """(N,) at `z`."""
    memory: tuple[torch.Tensor, ...]
    """Moments of the gradient, as the attack keeps them."""
    step: int = 0

    def better_of(self, other: Climb) -> Climb:
        """Per image the climb of the higher value."""
        wins = self.value >= other.value
        chosen = wins.view(-1, 1, 1, 1)
        memory = tuple(torch.where(chosen, a, b) for a, b in zip(self.memory, other.memory, strict=True))
        return Climb(
            sign=torch.where(wins, self.sign, other.sign),
            z=torch.where(chosen, self.z, other.z),
            value=torch.where(wins, self.value, other.value),
            memory=memory,
            step=self.step,
        )


class EstimatedAscent(Attack):
    """Estimates the gradient at each point from `pairs` of values f(z + sigma u) and f(z - sigma u), and steps.

    The estimate is the mean of (f(z + sigma u) - f(z - sigma u)) / (2 sigma) u. Every point on the way is evaluated,
    too, so a step takes 2 `pairs` + 1 evaluations. The goal `away` has a kink at the clean image, where estimates of
    |shift| vanish: both directions are tried for an eighth of the steps each, and the better one is followed.
    """

    access = "black"
    norms = ("linf", "l2", "psnr")
    form = "adapted"

    def __init__(self, *, pairs: int, sigma: float) -> None:
        """Parameters of the estimate.

        Args:
            pairs: directions u per step, each tried both ways; fewer where the queries would not last for eight steps.
            sigma: length of a direction's unit, as a fraction of full scale.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        check_whole(self, "pairs", pairs, least=1)
        check_number(self, "sigma", sigma, above=0)
        self.pairs = pairs
        self.sigma = sigma

    @abstractmethod
    def direction(self, rng: ImageRNG, x: torch.Tensor) -> torch.Tensor:
        """A random direction (N, 3, H, W) whose values have mean zero and variance one."""

    @abstractmethod
    def start(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The memory (N, ...) before the first step."""

    @abstractmethod
    def move(
        self,
        slope: torch.Tensor,
        memory: tuple[torch.Tensor, ...],
        x: torch.Tensor,
        budget: Budget,
        step: int,
        steps: int,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...]]:
        """The step (n, 3, H, W) to take for an estimated gradient, and the new memory."""

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the last point; better ones on the way are in the objective's memory."""
        tries = evaluations(objective, budget)
        pairs = max(min(self.pairs, (tries // LEAST_STEPS - 1) // 2), 1)
        steps = tries // (2 * pairs + 1)
        sides = objective.sides()
        if len(sides) == 1 or steps < 2:
            return self._climb(sides[0], self._at(x, 1.0), x, budget, rng, pairs, steps, steps).z
        scouting = max(steps // SCOUTING, 1)
        steps -= scouting
        both = [
            self._climb(sides[0], self._at(x, sign), x, budget, rng, pairs, scouting, steps) for sign in (1.0, -1.0)
        ]
        return self._climb(sides[0], both[0].better_of(both[1]), x, budget, rng, pairs, steps, steps).z

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """The queries of the budget, or the default number of them."""
        return budget.queries or STANDARD_QUERIES, 0

    def _at(self, x: torch.Tensor, sign: float) -> Climb:
        ones = x.new_ones(len(x))
        return Climb(sign=sign * ones, z=x.clone(), value=-torch.inf * ones, memory=self.start(x))

    def _climb(
        self,
        objective: Objective,
        climb: Climb,
        x: torch.Tensor,
        budget: Budget,
        rng: ImageRNG,
        pairs: int,
        until: int,
        steps: int,
    ) -> Climb:
        """Go on to the step `until` of `steps`; images without queries for a step stay where they are."""
        while climb.step < until:
            index = running(objective, 2 * pairs + 1)
            if len(index) == 0:
                break
            sign, here = climb.sign[index], climb.z[index]
            slope = self._slope(objective, here, index, rng.select(index), pairs) * sign.view(-1, 1, 1, 1)
            memory = tuple(part[index] for part in climb.memory)
            taken, memory = self.move(slope, memory, x[index], budget, climb.step, steps)
            here = project(here + taken, x[index], budget.norm, budget.eps)
            climb.z[index] = here
            climb.value[index] = (sign * objective(here, index)).nan_to_num(nan=-torch.inf)
            for part, new in zip(climb.memory, memory, strict=True):
                part[index] = new
            climb.step += 1
        return climb

    def _slope(
        self, objective: Objective, z: torch.Tensor, index: torch.Tensor, rng: ImageRNG, pairs: int
    ) -> torch.Tensor:
        """The estimated gradient (n, 3, H, W), summed pair by pair: it does not depend on the batch."""
        total = torch.zeros_like(z)
        at_once = max(AT_ONCE // (2 * len(index)), 1)
        for first in range(0, pairs, at_once):
            directions = [self.direction(rng, z) for _ in range(min(at_once, pairs - first))]
            probes = [z + side * self.sigma * u for u in directions for side in (1, -1)]
            values = objective(torch.cat(probes).clamp(0, 1), index.repeat(len(probes))).view(-1, 2, len(index))
            for u, (above, below) in zip(directions, values, strict=True):
                rise = ((above - below) / (2 * self.sigma)).nan_to_num(0, 0, 0)
                total += rise.view(-1, 1, 1, 1) * u
        return total / pairs
