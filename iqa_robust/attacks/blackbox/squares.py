"""Random squares: the schedule of their size, and the search over the corners of the L-infinity ball."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch

from iqa_robust.attacks.blackbox.search import State, evaluations, random_search
from iqa_robust.attacks.objectives import Objective
from iqa_robust.models.changes.windows import Windows, hull
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


def around(places: Sequence[tuple[torch.Tensor, torch.Tensor]], side: int, height: int, width: int) -> Windows | None:
    """Windows of one size, one per image, that hold the squares with top and left (n,) in each of `places`.

    None on a GPU, where no model remembers, and reading the places would mean to wait for it.
    """
    if places[0][0].device.type != "cpu":
        return None
    return hull([Windows(top.numpy(), left.numpy(), side, side) for top, left in places], height, width)


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
    paint = paint_each if x.device.type == "cpu" else paint_together

    def propose(i: int, state: State, index: torch.Tensor) -> tuple[State, Windows | None]:
        (best,) = state
        side = side_at(p_init, i, tries - 1, H, W)
        trial = best.clone()
        places = [place(corners[index, i, k], side, H, W) for k in range(n_squares)]
        for k, corner in enumerate(places):
            paint(trial, low, high, Squares(index, *corner, codes[index, i, k], others[index, i, k], side))
        return (trial,), around(places, side, H, W)

    return random_search(objective, (start,), lambda state, index: state[0], propose, tries, steady=n_squares == 1)


class Squares(NamedTuple):
    """New signs for one square of each of n images; all but the side are whole numbers (n,)."""

    images: torch.Tensor
    """Their numbers in the batch."""
    top: torch.Tensor
    left: torch.Tensor
    code: torch.Tensor
    """Three bits: the channels that become highest."""
    other: torch.Tensor
    """Bits that are turned around where the code would change nothing."""
    side: int


def paint_each(trial: torch.Tensor, low: torch.Tensor, high: torch.Tensor, squares: Squares) -> None:
    """Paint the squares into `trial` (n, 3, H, W), in place, image by image.

    On a CPU, copies of slices take a fraction of what gathering by indices does.

    Args:
        trial: corners of the ball, of the images that `squares` names.
        low: the lowest corner (N, 3, H, W), of the whole batch.
        high: the highest.
        squares: what is painted.
    """
    numbers = torch.stack(squares[:-1], dim=1).tolist()
    for k, (image, top, left, code, other) in enumerate(numbers):
        here = (slice(None), slice(top, top + squares.side), slice(left, left + squares.side))
        old, ends = trial[k][here], (low[image][here], high[image][here])
        if all(bool(torch.equal(old[c], ends[code >> c & 1][c])) for c in range(3)):
            code ^= other
        for c in range(3):
            old[c] = ends[code >> c & 1][c]


def paint_together(trial: torch.Tensor, low: torch.Tensor, high: torch.Tensor, squares: Squares) -> None:
    """The same for a GPU, where every operation is a launch."""
    images, top, left, code, other, side = squares
    here = cut(torch.arange(len(trial), device=trial.device), top, left, side)
    there = cut(images, top, left, side)
    new = _corner(code, low[there], high[there])
    idle = (new == trial[here]).flatten(1).all(dim=1)
    if bool(idle.any()):
        new = _corner(torch.where(idle, code ^ other, code), low[there], high[there])
    trial[here] = new


def _corner(code: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """`high` or `low` per image and channel, by the three bits of `code` (n,)."""
    bits = torch.stack([code & 1, code & 2, code & 4], dim=1) > 0
    return torch.where(bits.view(-1, 3, 1, 1), high, low)
