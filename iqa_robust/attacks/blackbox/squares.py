"""Random squares: the schedule of their size, and the search over the corners of the L-infinity ball."""

from __future__ import annotations

import math

import torch

from iqa_robust.attacks.blackbox.search import State, evaluations, random_search
from iqa_robust.attacks.objectives import Objective
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)
"""Iterations, of 10,000, after which the area of the squares is halved (Andriushchenko et al. 2020, section 5)."""


LEAST_ITERATIONS = 400
"""The schedule is stretched to no fewer: a short search that reaches small squares is weaker (measured, by 5 to 20 %
at 60 to 200 queries)."""


def share_at(share: float, iteration: int, iterations: int) -> float:
    """The share of the area that the squares cover in an iteration, by the schedule stretched to `iterations`."""
    iterations = max(iterations, LEAST_ITERATIONS)
    return share / 2 ** sum(iteration * 10_000 > mark * iterations for mark in HALVINGS)


def side_at(share: float, iteration: int, iterations: int, height: int, width: int) -> int:
    """Side in pixels of the squares of an iteration, which first cover `share` of the image."""
    area = share_at(share, iteration, iterations) * height * width
    return min(max(round(math.sqrt(area)), 1), height, width)


def place(corner: torch.Tensor, side: int, height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Top and left (n,) of squares inside the image, from uniform draws (n, 2) in [0, 1)."""
    top = (corner[:, 0] * (height - side + 1)).long().clamp(max=height - side)
    left = (corner[:, 1] * (width - side + 1)).long().clamp(max=width - side)
    return top, left


def cut(images: torch.Tensor, top: torch.Tensor, left: torch.Tensor, side: int) -> tuple[torch.Tensor, ...]:
    """Indices of the squares (n, 3, side, side) of the images `images` (n,) in a batch (N, 3, H, W)."""
    along = torch.arange(side, device=top.device)
    return (
        images.view(-1, 1, 1, 1),
        torch.arange(3, device=top.device).view(1, -1, 1, 1),
        (top.view(-1, 1) + along).view(-1, 1, side, 1),
        (left.view(-1, 1) + along).view(-1, 1, 1, side),
    )


def window(top: torch.Tensor, left: torch.Tensor, side: int, height: int, width: int) -> torch.Tensor:
    """(n, 1, H, W) bool: the squares."""
    rows = torch.arange(height, device=top.device).view(1, 1, -1, 1) - top.view(-1, 1, 1, 1)
    columns = torch.arange(width, device=left.device).view(1, 1, 1, -1) - left.view(-1, 1, 1, 1)
    return (rows >= 0) & (rows < side) & (columns >= 0) & (columns < side)


def search_corners(
    objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG, *, p_init: float, n_squares: int
) -> torch.Tensor:
    """Random search over the corners of the L-infinity ball, clamped to [0, 1]; (N, 3, H, W), the best found.

    It starts at vertical stripes of +-eps. Every try gives `n_squares` squares, each anywhere in the image, new
    signs, one per channel. Signs that would leave a square as it is are replaced by others, all equally likely.
    """
    H, W = x.shape[-2:]
    tries = evaluations(objective, budget)
    low, high = (x - budget.eps).clamp(0, 1), (x + budget.eps).clamp(0, 1)
    start = torch.where(rng.signs((3, 1, W)) > 0, high, low)
    corners = rng.uniform((tries, n_squares, 2))
    codes, others = rng.integers(0, 8, (tries, n_squares)), rng.integers(1, 8, (tries, n_squares))

    def propose(i: int, state: State, index: torch.Tensor) -> State:
        (best,) = state
        side = side_at(p_init, i, tries - 1, H, W)
        trial, rows = best.clone(), torch.arange(len(best), device=best.device)
        for k in range(n_squares):
            corner = place(corners[index, i, k], side, H, W)
            here, there = cut(rows, *corner, side), cut(index, *corner, side)
            old, ends = best[here], (low[there], high[there])
            new = _corner(codes[index, i, k], *ends)
            idle = (new == old).flatten(1).all(dim=1)
            if bool(idle.any()):
                new = _corner(torch.where(idle, codes[index, i, k] ^ others[index, i, k], codes[index, i, k]), *ends)
            trial[here] = new
        return (trial,)

    return random_search(objective, (start,), lambda state, index: state[0], propose, tries)


def _corner(code: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """`high` or `low` per image and channel, by the three bits of `code` (n,)."""
    bits = torch.stack([code & 1, code & 2, code & 4], dim=1) > 0
    return torch.where(bits.view(-1, 3, 1, 1), high, low)
