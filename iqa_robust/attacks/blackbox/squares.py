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
        trial = best.clone()
        for k in range(n_squares):
            corner = place(corners[index, i, k], side, H, W)
            paint(trial, (low, high), index, (*corner, side), (codes[index, i, k], others[index, i, k]))
        return (trial,)

    return random_search(objective, (start,), lambda state, index: state[0], propose, tries)


def paint(
    trial: torch.Tensor,
    ends: tuple[torch.Tensor, torch.Tensor],
    index: torch.Tensor,
    square: tuple[torch.Tensor, torch.Tensor, int],
    codes: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """Give a square of each image of `trial` (n, 3, H, W), which is edited, new signs.

    Args:
        trial: corners of the ball.
        ends: the lowest and the highest corner (N, 3, H, W) of the whole batch.
        index: (n,) the images of the batch that `trial` holds.
        square: top and left (n,) of the squares and their side.
        codes: (n,) of three bits, the channels that become highest; and what turns some of them around where that
            would change nothing.
    """
    (paint_each if trial.device.type == "cpu" else paint_together)(trial, ends, index, square, codes)


def paint_together(
    trial: torch.Tensor,
    ends: tuple[torch.Tensor, torch.Tensor],
    index: torch.Tensor,
    square: tuple[torch.Tensor, torch.Tensor, int],
    codes: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """`paint` for a GPU, where every operation is a launch."""
    code, other = codes
    here, there = cut(torch.arange(len(trial), device=trial.device), *square), cut(index, *square)
    old, low, high = trial[here], ends[0][there], ends[1][there]
    new = _corner(code, low, high)
    idle = (new == old).flatten(1).all(dim=1)
    if bool(idle.any()):
        new = _corner(torch.where(idle, code ^ other, code), low, high)
    trial[here] = new


def paint_each(
    trial: torch.Tensor,
    ends: tuple[torch.Tensor, torch.Tensor],
    index: torch.Tensor,
    square: tuple[torch.Tensor, torch.Tensor, int],
    codes: tuple[torch.Tensor, torch.Tensor],
) -> None:
    """`paint` image by image: on a CPU, copies of slices take a fraction of what gathering by indices does."""
    side, numbers = square[2], torch.stack([index, *square[:2], *codes], dim=1).tolist()
    for k, (image, top, left, code, other) in enumerate(numbers):
        here = (slice(None), slice(top, top + side), slice(left, left + side))
        old, (low, high) = trial[k][here], (end[image][here] for end in ends)
        if all(bool(torch.equal(old[c], (low, high)[code >> c & 1][c])) for c in range(3)):
            code ^= other
        for c in range(3):
            old[c] = (low, high)[code >> c & 1][c]


def _corner(code: torch.Tensor, low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """`high` or `low` per image and channel, by the three bits of `code` (n,)."""
    bits = torch.stack([code & 1, code & 2, code & 4], dim=1) > 0
    return torch.where(bits.view(-1, 3, 1, 1), high, low)
