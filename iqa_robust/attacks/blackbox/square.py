"""The Square attack, a black-box random search (Andriushchenko, Croce, Flammarion, Hein, ECCV 2020)."""

from __future__ import annotations

import math

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.blackbox.search import State, evaluations, random_search
from iqa_robust.attacks.blackbox.squares import cut, place, search_corners, side_at, window
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.parameters import check_number
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import STANDARD_QUERIES, Budget


class Square(Attack):
    """Random search over one square at a time, anywhere in the image, kept where the objective rises.

    For `linf` (algorithm 2 of the paper) it starts at vertical stripes of +-eps, and in a square each channel takes
    +eps or -eps. A proposal that would change nothing is replaced by one that does, so that no query is wasted.

    For `l2` and `psnr` (algorithm 3) the perturbation is a sum of bumps on a grid of five by five squares. A
    proposal empties one square and adds a bump with random signs to what another holds; it moves the length of
    the first there, and what is left of the budget. It always has length eps before it is clamped to [0, 1].

    The area of the squares shrinks by the paper's schedule, stretched to the number of queries. The search climbs
    |shift| for the goal `away`, so one run serves both directions. All draws of an image come from its own
    generator: the result does not depend on the batch. Without a limit in the budget it makes 10,000 queries per
    image.
    """

    access = "black"
    norms = ("linf", "l2", "psnr")
    source = "Andriushchenko, Croce, Flammarion, Hein, ECCV 2020 (arXiv:1912.00049)"
    form = "adapted"

    def __init__(self, *, p_init: float = 0.8) -> None:
        """`p_init`: share of the image's area that the first squares cover, in (0, 1]."""
        check_number(self, "p_init", p_init, above=0, most=1)
        self.p_init = p_init

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the best image found."""
        if budget.norm == "linf":
            return search_corners(objective, x, budget, rng, p_init=self.p_init, n_squares=1)
        return self._search_bumps(objective, x, budget, rng)

    def side(self, iteration: int, iterations: int, height: int, width: int) -> int:
        """Side of the square proposed in an iteration, in pixels."""
        return side_at(self.p_init, iteration, iterations, height, width)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """The queries of the budget, or the default number of them."""
        return budget.queries or STANDARD_QUERIES, 0

    def _search_bumps(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        H, W = x.shape[-2:]
        length = budget.eps * (math.sqrt(x[0].numel()) if budget.norm == "psnr" else 1)
        tries = evaluations(objective, budget)
        start = _to_length(_bumps_on_grid(x, rng), length)
        corners = rng.uniform((tries, 2, 2))
        signs, turned = rng.signs((tries, 3)), rng.integers(0, 2, (tries,)) > 0

        def propose(i: int, state: State, index: torch.Tensor) -> tuple[State, None]:
            delta = (x[index] + state[0]).clamp(0, 1) - x[index]
            side = _odd(self.side(i, tries - 1, H, W), min(H, W))
            here, there = (place(corners[index, i, k], side, H, W) for k in range(2))
            inside, emptied = window(*here, side, H, W), window(*there, side, H, W)
            free = (length**2 - _energy(delta, (1, 2, 3))).clamp_min(0) / 3
            available = (free + _energy(delta * (inside | emptied), (2, 3))).sqrt()
            places = cut(torch.arange(len(delta), device=x.device), *here, side)
            old = delta[places]
            bump = _bump(side, x.device)
            bump = torch.where(turned[index, i].view(-1, 1, 1, 1), bump.T, bump) * signs[index, i].view(-1, 3, 1, 1)
            new = bump + _unit(old, (2, 3))
            delta = torch.where(emptied, 0, delta)
            delta[places] = _unit(new, (2, 3)) * available
            return (_to_length(delta, length),), None

        return random_search(
            objective, (start,), lambda state, index: (x[index] + state[0]).clamp(0, 1), propose, tries
        )


def _energy(values: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    """Sum of squares, summed in float64 so that it does not depend on the batch."""
    return values.double().square().sum(dim=dims, keepdim=True).to(values.dtype)


def _unit(values: torch.Tensor, dims: tuple[int, ...]) -> torch.Tensor:
    return values / _energy(values, dims).sqrt().clamp_min(1e-12)


def _to_length(delta: torch.Tensor, length: float) -> torch.Tensor:
    return length * _unit(delta, (1, 2, 3))


def _odd(side: int, most: int) -> int:
    """The next odd side of at least three pixels that fits."""
    side = min(max(side, 3) | 1, most)
    return side if side % 2 or side == 0 else side - 1


def _bump(side: int, device: torch.device) -> torch.Tensor:
    """(side, side), length one: the upper half rises, the lower falls, both toward their centers (eq. 2)."""
    upper, lower = _hill(side // 2, side, device), _hill(side - side // 2, side, device)
    both = torch.cat([upper, -lower])
    return both / both.norm()


def _hill(height: int, width: int, device: torch.device) -> torch.Tensor:
    """(height, width), length one: nested squares around the center; the k-th from inside adds 1 / k^2."""
    rings = max(height, width) // 2 + 1
    added = 1 / torch.arange(1, rings + 1, device=device).square()
    total = added.flip(0).cumsum(0).flip(0)
    rows = (torch.arange(height, device=device) - height // 2).abs().view(-1, 1)
    columns = (torch.arange(width, device=device) - width // 2).abs().view(1, -1)
    hill = total[torch.maximum(rows, columns)]
    return hill / hill.norm().clamp_min(1e-12)


def _bumps_on_grid(x: torch.Tensor, rng: ImageRNG) -> torch.Tensor:
    """(N, 3, H, W): bumps with random signs and directions side by side, five along the shorter side."""
    H, W = x.shape[-2:]
    side = max(min(H, W) // 5, 1)
    rows, columns = H // side, W // side
    bump = _bump(side, x.device)
    turned = rng.integers(0, 2, (rows, columns, 1, 1, 1)) > 0
    tiles = torch.where(turned, bump.T, bump) * rng.signs((rows, columns, 3, 1, 1))
    grid = tiles.permute(0, 3, 1, 4, 2, 5).reshape(len(x), 3, rows * side, columns * side)
    top, left = (H - rows * side) // 2, (W - columns * side) // 2
    delta = torch.zeros_like(x)
    delta[:, :, top : top + rows * side, left : left + columns * side] = grid
    return delta
