"""The parsimonious attack: lazy greedy search over the corners of the ball (Moon, An, Song, ICML 2019)."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Generator

import torch

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.blackbox.search import Search, evaluations, side_by_side
from iqa_robust.attacks.objectives import Objective
from iqa_robust.attacks.parameters import check_whole
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import STANDARD_QUERIES, Budget

AHEAD = 16
"""Candidates an image has evaluated at a time."""

GROUPS = 16
"""Groups are smaller when the queries would not last for a look at so many."""

Block = tuple[int, slice, slice]
"""Channel, rows and columns."""


class Parsimonious(Attack):
    """Maximizes a set function: the set of the blocks, in each channel, that get +eps; the others get -eps.

    It starts with none. In random groups of `group` blocks, it adds the block that raises the objective most, again
    and again while one does, and then takes blocks out likewise. The gains of an approximately submodular function
    only shrink, so a block is evaluated again only when it is first in line (lazy greedy). After every pass over the
    image, blocks are halved in height and width until they are single values; then passes are repeated until one
    changes nothing.

    The grid is that of the paper, which cuts 256 x 256 pixels into blocks of 32, scaled to any image. Two things
    follow the paper and not the code of the MSU robustness benchmark: the objective after a change is the one that
    was measured, where that code moves it the wrong way, and a block is only changed where that is an improvement.
    Without a limit in the budget it makes 10,000 queries per image.
    """

    access = "black"
    norms = ("linf",)
    source = "Moon, An, Song, ICML 2019 (arXiv:1905.06635)"
    form = "adapted"

    def __init__(self, *, blocks: int = 8, group: int = 64) -> None:
        """The published values.

        Args:
            blocks: blocks along each side of the image in the first pass.
            group: blocks, counted per channel, that are searched at a time; at most a sixteenth of the queries.
        """
        check_whole(self, "blocks", blocks, least=1)
        check_whole(self, "group", group, least=1)
        self.blocks = blocks
        self.group = group

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the best image seen."""
        low, high = (x - budget.eps).clamp(0, 1), (x + budget.eps).clamp(0, 1)
        everyone = torch.arange(len(x), device=x.device)
        tries = evaluations(objective, budget)
        group = min(self.group, max(tries // GROUPS, 1))
        searches = [self._search(low[i], high[i], group, rng.select(everyone[i : i + 1])) for i in range(len(x))]
        side_by_side(objective, searches, tries)
        return objective.tally.best_image.clone()

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """The queries of the budget, or the default number of them."""
        return budget.queries or STANDARD_QUERIES, 0

    def _search(self, low: torch.Tensor, high: torch.Tensor, size: int, rng: ImageRNG) -> Search:
        """The search of one image between `low` and `high` (3, H, W), in groups of `size` blocks."""
        H, W = low.shape[-2:]
        z = low.clone()
        value = (yield z[None])[0].item()
        count = self.blocks
        while True:
            grid = _grid(H, W, count)
            order = rng.uniform((len(grid),))[0].argsort().tolist()
            changed = False
            for first in range(0, len(grid), size):
                group = [grid[k] for k in order[first : first + size]]
                for target in (high, low):
                    members = [block for block in group if not torch.equal(z[block], target[block])]
                    value, moved = yield from _greedy(z, members, target, value)
                    changed |= moved
            if count >= max(H, W) and not changed:
                return
            count = min(2 * count, max(H, W))


def _grid(height: int, width: int, count: int) -> list[Block]:
    """The blocks of a grid of `count` x `count` per channel; of single pixels where the image has fewer."""
    rows, columns = _cuts(height, count), _cuts(width, count)
    return [(channel, row, column) for row in rows for column in columns for channel in range(3)]


def _cuts(length: int, count: int) -> list[slice]:
    count = min(count, length)
    edges = [k * length // count for k in range(count + 1)]
    return [slice(start, end) for start, end in itertools.pairwise(edges)]


def _greedy(
    z: torch.Tensor, blocks: list[Block], target: torch.Tensor, value: float
) -> Generator[torch.Tensor, torch.Tensor, tuple[float, bool]]:
    """Move blocks of `z` to `target` while that raises the objective; its value then, and whether one was moved."""
    queue: list[tuple[float, int, int]] = []  # loss, block, number of blocks moved when it was evaluated
    for first in range(0, len(blocks), AHEAD):
        batch = blocks[first : first + AHEAD]
        answers = (yield torch.stack([_moved(z, block, target) for block in batch])).tolist()
        queue += [(value - answer, first + k, 0) for k, answer in enumerate(answers)]
    heapq.heapify(queue)
    moves = 0
    while queue:
        loss, k, known = heapq.heappop(queue)
        if known < moves:
            loss = value - (yield _moved(z, blocks[k], target)[None])[0].item()
            if queue and loss > queue[0][0]:
                heapq.heappush(queue, (loss, k, moves))
                continue
        if loss >= 0:
            break
        value, moves = value - loss, moves + 1
        z[blocks[k]] = target[blocks[k]]
    return value, moves > 0


def _moved(z: torch.Tensor, block: Block, target: torch.Tensor) -> torch.Tensor:
    trial = z.clone()
    trial[block] = target[block]
    return trial
