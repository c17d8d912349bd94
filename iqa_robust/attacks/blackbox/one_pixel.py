"""The one-pixel attack: differential evolution over places and colors of a few pixels (Su, Vargas, Sakurai 2019)."""

from __future__ import annotations

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.blackbox.search import AT_ONCE, evaluations, running
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.parameters import check_whole
from iqa_robust.attacks.sparse import pixels_allowed
from iqa_robust.images import LEVELS
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import STANDARD_QUERIES, Budget

GENERATIONS = 10
"""A population is small enough for this many generations after the first, as long as it has `LEAST` members."""

LEAST = 8


class OnePixel(Attack):
    """Differential evolution over (row, column, red, green, blue) of as many pixels as the budget allows.

    A child is a member plus F times the difference of two others, F uniform in [0.5, 1) and drawn per generation; it
    replaces its parent where it is better. For every other child that member is the best one, as in SciPy's
    `best1bin` with a recombination of 1, the setting of the MSU robustness benchmark (three pixels, a population of
    300, ten generations); for the rest it is a random one, as Su et al. have it with F = 0.5, so that the search
    does not settle at the first good place. As theirs, colors begin as Gaussian draws around gray.

    Places outside the image are drawn anew, colors beyond the range end at its edge, where the strongest ones are.
    Rows and columns end inside the image, so the released code's index one past the edge cannot happen. Colors lie
    on the 8-bit grid.

    Without a limit in the budget it makes 10,000 queries per image.
    """

    access = "black"
    norms = ("l0",)
    source = "Su, Vargas, Sakurai, IEEE Transactions on Evolutionary Computation 2019 (arXiv:1710.08864)"
    form = "adapted"

    def __init__(self, *, population: int = 300) -> None:
        """`population`: members; fewer when the queries would not last for ten generations."""
        check_whole(self, "population", population, least=LEAST)
        self.population = population

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the best member of the last generation."""
        pixels, tries = pixels_allowed(x, budget.eps), evaluations(objective, budget)
        if pixels == 0:
            return x
        members = min(self.population, max(tries // (GENERATIONS + 1), LEAST), tries)
        genes = rng.uniform((members, pixels, 5))
        genes[..., 2:] = (0.5 + 0.5 * rng.normal((members, pixels, 3))).clamp(0, 1)
        value = torch.full((len(x), members), -torch.inf, device=x.device)
        self._evaluate(objective, x, genes, value, genes, members)
        left = tries - members
        while left > 0 and members > 3:
            trial = _children(genes, value, rng)
            self._evaluate(objective, x, trial, value, genes, min(left, members))
            left -= members
        best = value.argmax(dim=1)
        return _render(x, genes[torch.arange(len(x), device=x.device), best])

    def _evaluate(
        self,
        objective: Objective,
        x: torch.Tensor,
        trial: torch.Tensor,
        value: torch.Tensor,
        genes: torch.Tensor,
        members: int,
    ) -> None:
        """Put the first `members` children into `genes` where they are better than their parents."""
        at_once = max(AT_ONCE // len(x), 1)
        for first in range(0, members, at_once):
            count = min(at_once, members - first)
            index = running(objective, count)
            if len(index) == 0:
                return
            places = slice(first, first + count)
            flat = index.repeat_interleave(count)
            images = _render(x[flat], trial[index, places].flatten(0, 1))
            reached = objective(images, flat).nan_to_num(nan=-torch.inf).view(len(index), count)
            better = reached > value[index, places]
            genes[index, places] = torch.where(better[:, :, None, None], trial[index, places], genes[index, places])
            value[index, places] = torch.where(better, reached, value[index, places])

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """The queries of the budget, or the default number of them."""
        return budget.queries or STANDARD_QUERIES, 0


def _children(genes: torch.Tensor, value: torch.Tensor, rng: ImageRNG) -> torch.Tensor:
    """One child per member: the best or a random one, plus a scaled difference of two others."""
    images, members = genes.shape[:2]
    everyone = torch.arange(images, device=genes.device).view(-1, 1)
    # Three distinct members besides the parent: steps around the circle of members.
    steps = rng.uniform((members, members - 1)).argsort(dim=2)[:, :, :3] + 1
    parent = torch.arange(members, device=genes.device)
    one, other, base = ((parent + steps[:, :, k]) % members for k in range(3))
    factor = rng.uniform((1, 1, 1), 0.5, 1.0)
    best = genes[everyone, value.argmax(dim=1, keepdim=True)]
    center = torch.where((parent % 2 == 0).view(1, -1, 1, 1), best, genes[everyone, base])
    child = center + factor * (genes[everyone, one] - genes[everyone, other])
    outside = (child < 0) | (child >= 1)
    outside[..., 2:] = False
    return torch.where(outside, rng.uniform(child.shape[1:]), child.clamp(0, 1))


def _render(x: torch.Tensor, genes: torch.Tensor) -> torch.Tensor:
    """`x` (n, 3, H, W) with the pixels of `genes` (n, pixels, 5), which lie in [0, 1]; the last of several wins."""
    H, W = x.shape[-2:]
    z = x.clone()
    rows, columns = ((genes[..., k] * size).long().clamp(max=size - 1) for k, size in ((0, H), (1, W)))
    colors = torch.round(genes[..., 2:] * LEVELS) / LEVELS
    images = torch.arange(len(x), device=x.device)
    for k in range(genes.shape[1]):
        z[images, :, rows[:, k], columns[:, k]] = colors[:, k]
    return z
