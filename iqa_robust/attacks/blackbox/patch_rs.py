"""Patch-RS: the image-specific patch of Sparse-RS, a random search (Croce, Andriushchenko et al., AAAI 2022)."""

from __future__ import annotations

import math

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.blackbox.search import State, evaluations, random_search
from iqa_robust.attacks.blackbox.squares import around, share_at, window
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.attacks.sparse import side_allowed
from iqa_robust.models.changes.windows import Windows
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import STANDARD_QUERIES, Budget

START_SQUARES = 1000
"""Squares of random colors, one over the other, that the first patch is made of."""

FARTHEST = 0.75
"""The first moves of the patch go this far at most, as a share of the image's sides."""


class PatchRS(Attack):
    """Random search for one square patch: where it lies, and its colors, every channel 0 or 1.

    Every `move_period`-th query moves the patch by a random step, whose largest length shrinks linearly to zero; the
    others give a square inside the patch a random color. That square shrinks by the Square attack's schedule,
    stretched to the number of queries; once it is a single pixel, the second half of what is left changes one
    channel of one pixel at a time. What raises the objective is kept. The side of the patch is the largest the budget
    allows.

    Unlike the released code, a color that would change nothing is replaced by another, and images need not be
    square. Without a limit in the budget it makes 10,000 queries per image.
    """

    access = "black"
    norms = ("patch",)
    source = "Croce, Andriushchenko, Singh, Flammarion, Hein, AAAI 2022 (arXiv:2006.12834)"
    form = "adapted"

    def __init__(self, *, p_init: float = 0.4, move_period: int = 4) -> None:
        """The published values for untargeted patches.

        Args:
            p_init: share of the patch's area that the first squares of new color cover, in (0, 1].
            move_period: one query in so many moves the patch instead.
        """
        check_number(self, "p_init", p_init, above=0, most=1)
        check_whole(self, "move_period", move_period, least=2)
        self.p_init = p_init
        self.move_period = move_period

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the best patch found, in place."""
        H, W = x.shape[-2:]
        side, tries = side_allowed(x, budget.eps), evaluations(objective, budget)
        if side == 0:
            return x
        room = torch.tensor([H - side, W - side], device=x.device)
        corner = (rng.uniform((2,)) * (room + 1)).long()
        places, colors = rng.uniform((tries, 2)), rng.integers(0, 8, (tries,))
        others, channels = rng.integers(1, 8, (tries,)), rng.integers(0, 3, (tries,))
        fine = self._fine(tries, side)

        def propose(i: int, state: State, index: torch.Tensor) -> tuple[State, Windows | None]:
            patch, corner = state
            query, place = i + 1, places[index, i]
            farthest = int(FARTHEST * (tries - query) / tries * max(H, W))
            if query % self.move_period == 0 and farthest > 0 and max(H, W) > side:
                step = (place * (2 * farthest + 1)).long() - farthest
                moved = torch.minimum((corner + step).clamp_min(0), room)
                return (patch, moved), around([(at[:, 0], at[:, 1]) for at in (corner, moved)], side, H, W)
            inner = self._inner(query, tries, side)
            top, left = (place * (side - inner + 1)).long().clamp(max=side - inner).unbind(1)
            here = window(top, left, inner, side, side)
            changed = around([(corner[:, 0] + top, corner[:, 1] + left)], inner, H, W)
            if query >= fine:
                turned = torch.nn.functional.one_hot(channels[index, i], 3).bool().view(-1, 3, 1, 1)
                return (torch.where(here & turned, 1 - patch, patch), corner), changed
            new = torch.where(here, _color(colors[index, i]), patch)
            idle = (new == patch).flatten(1).all(dim=1)
            code = torch.where(idle, colors[index, i] ^ others[index, i], colors[index, i])
            return (torch.where(here, _color(code), patch), corner), changed

        def render(state: State, index: torch.Tensor) -> torch.Tensor:
            patch, corner = state
            z, along = x[index].clone(), torch.arange(side, device=x.device)
            images = torch.arange(len(index), device=x.device).view(-1, 1, 1)
            rows, columns = (corner[:, k].view(-1, 1) + along for k in range(2))
            # Indexing this way puts the channels last.
            z[images, :, rows.unsqueeze(2), columns.unsqueeze(1)] = patch.permute(0, 2, 3, 1)
            return z

        return random_search(objective, (_start(side, rng), corner), render, propose, tries)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """The queries of the budget, or the default number of them."""
        return budget.queries or STANDARD_QUERIES, 0

    def _inner(self, query: int, tries: int, side: int) -> int:
        """Side of the square that gets a new color."""
        return max(int(math.sqrt(share_at(self.p_init, query, tries)) * side), 1)

    def _fine(self, tries: int, side: int) -> int:
        """The query from which on single channels are changed."""
        first = next((query for query in range(tries) if self._inner(query, tries, side) == 1), tries)
        return first + (tries - first) // 2


def _color(code: torch.Tensor) -> torch.Tensor:
    """(n, 3, 1, 1) of zeros and ones, the three bits of `code` (n,)."""
    return torch.stack([code & 1, (code & 2) // 2, (code & 4) // 4], dim=1).float().view(-1, 3, 1, 1)


def _start(side: int, rng: ImageRNG) -> torch.Tensor:
    """(N, 3, side, side): squares of random colors and sides below the square root of the patch's, piled up."""
    patch = torch.zeros((len(rng), 3, side, side), device=rng.device)
    largest = max(math.ceil(math.sqrt(side)) - 1, 1)
    sides = rng.integers(1, largest + 1, (START_SQUARES,))
    places, colors = rng.uniform((START_SQUARES, 2)), rng.integers(0, 8, (START_SQUARES,))
    along = torch.arange(side, device=rng.device)
    for k in range(START_SQUARES):
        start = (places[:, k] * (side - sides[:, k, None] + 1)).long()
        end = start + sides[:, k, None]
        rows, columns = ((along >= start[:, d, None]) & (along < end[:, d, None]) for d in range(2))
        here = (rows.unsqueeze(2) & columns.unsqueeze(1)).unsqueeze(1)
        patch = torch.where(here, _color(colors[:, k]), patch)
    return patch
