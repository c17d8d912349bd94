"""The Square attack, a black-box random search (Andriushchenko, Croce, Flammarion, Hein, ECCV 2020)."""

from __future__ import annotations

import math

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.parameters import check_number
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

DEFAULT_QUERIES = 1000
"""Queries per image when the budget sets no limit: a search without one would not end."""

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations, of 10,000, after which the area of the squares is halved (the paper, section 5)."""


class Square(Attack):
    """Random search over squares of +-eps, started from vertical stripes.

    Every iteration proposes, for each image by itself, one square anywhere in the image in which each channel
    takes +eps or -eps, and keeps it where the objective rises. The area of the squares shrinks by the paper's
    schedule, stretched to the number of queries. A proposal that would change nothing is replaced by one that
    does, so that no query is wasted. All draws of an image come from its own generator: the result does not
    depend on the batch.

    The search climbs |shift| for the goal `away`, so one run serves both directions. Without a limit in the
    budget it makes 1,000 queries per image.
    """

    access = "black"
    norms = ("linf",)

    def __init__(self, *, p_init: float = 0.8) -> None:
        """`p_init`: share of the image's area that the first squares cover, in (0, 1]."""
        check_number(self, "p_init", p_init, above=0, most=1)
        self.p_init = p_init

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the best corner of the ball found."""
        H, W = x.shape[-2:]
        queries = DEFAULT_QUERIES if budget.queries is None else budget.queries
        tries = max(queries // objective.draws - 1, 0)
        low, high = (x - budget.eps).clamp(0, 1), (x + budget.eps).clamp(0, 1)
        best = torch.where(rng.signs((3, 1, W)) > 0, high, low)
        value = objective(best).nan_to_num(nan=-torch.inf)
        corners = rng.uniform((tries, 2))
        codes, others = rng.integers(0, 8, (tries,)), rng.integers(1, 8, (tries,))
        rows, columns = torch.arange(H, device=x.device), torch.arange(W, device=x.device)
        for i in range(tries):
            side = self.side(i, tries, H, W)
            top = (corners[:, i, 0] * (H - side + 1)).long().clamp(max=H - side).view(-1, 1)
            left = (corners[:, i, 1] * (W - side + 1)).long().clamp(max=W - side).view(-1, 1)
            in_rows = (rows >= top) & (rows < top + side)
            in_columns = (columns >= left) & (columns < left + side)
            square = in_rows.view(-1, 1, H, 1) & in_columns.view(-1, 1, 1, W)
            trial = torch.where(square, _corner(codes[:, i], low, high), best)
            idle = (trial == best).flatten(1).all(dim=1)
            if bool(idle.any()):
                code = torch.where(idle, codes[:, i] ^ others[:, i], codes[:, i])  # any other signs, equally likely
                trial = torch.where(square, _corner(code, low, high), best)
            reached = objective(trial)
            better = reached > value
            best = torch.where(better.view(-1, 1, 1, 1), trial, best)
            value = torch.where(better, reached, value)
        return best

    def side(self, iteration: int, iterations: int, height: int, width: int) -> int:
        """Side of the square proposed in an iteration, in pixels."""
        share = self.p_init / 2 ** sum(iteration * 10_000 > mark * iterations for mark in HALVINGS)
        return min(max(round(math.sqrt(share * height * width)), 1), height, width)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """The queries of the budget, or the default number of them."""
        return budget.queries or DEFAULT_QUERIES, 0


def _corner(code: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """`high` or `low` per image and channel, by the three bits of `code` (N,)."""
    bits = torch.stack([code & 1, code & 2, code & 4], dim=1) > 0
    return torch.where(bits.view(-1, 3, 1, 1), high, low)
