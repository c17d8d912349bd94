"""Ti-Patch as far as its text goes: one square patch, optimized against the score (Leonenkova et al. 2024)."""

from __future__ import annotations

import torch
from torch.nn import functional as F

from iqa_robust.attacks.base import Attack
from iqa_robust.attacks.objectives import Objective, best_of
from iqa_robust.attacks.parameters import check_number, check_whole
from iqa_robust.attacks.perceptual.adam import Adam
from iqa_robust.attacks.sparse import side_allowed
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

LENGTH = 0.6
"""Adam's first step, of full scale; the steps shrink linearly towards zero."""


class TiPatch(Attack):
    """Pastes one square patch into the image and climbs the objective over its colors by Adam.

    The paper maximizes the mean rise of the score over the frames of a video by a patch that is tiled, printed and
    filmed; its text states the objective and the limit of the patch's size, not the optimizer, the place or the
    transformations. Read here as: an image is one frame; the patch lies where the clean gradient promises the most,
    the sum over a window of the rise if every value went to the end of [0, 1] that the gradient points to; `places`
    such windows, which do not overlap, are tried and the best counts.

    With `brightness` or `shift` every step sees the patch under another draw of them (expectation over
    transformations), as a camera would. The image that counts is still the best one seen inside the budget.
    """

    norms = ("patch",)
    source = "after Leonenkova, Shumitskaya, Antsiferova, Vatolin, 2024"
    form = "reconstructed"
    note = "reconstruction: the paper's text leaves out optimizer, place and transformations"

    def __init__(self, *, places: int = 2, brightness: float = 0.0, shift: int = 0) -> None:
        """Parameters of the search.

        Args:
            places: windows to try; each takes `budget.steps` steps per direction.
            brightness: the patch is multiplied by a draw from [1 - brightness, 1 + brightness]; in [0, 1].
            shift: the patch is moved by up to so many pixels in each direction, inside the image.

        Raises:
            ContractError: a parameter has the wrong type or lies outside its range.
        """
        check_whole(self, "places", places, least=1)
        check_number(self, "brightness", brightness, least=0, most=1)
        check_whole(self, "shift", shift, least=0)
        self.places = places
        self.brightness = brightness
        self.shift = shift

    def perturb(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> torch.Tensor:
        """(N, 3, H, W): the best of the patched images, each untransformed."""
        side = side_allowed(x, budget.eps)
        if side == 0:
            return x
        ends = []
        for goal in objective.sides():
            _, slope = goal.gradient(x)
            for top, left in promising(slope, x, side, self.places):
                ends.append(self._climb(goal, x, top, left, side, budget.steps, rng))
        return best_of(objective, ends)

    def _climb(
        self,
        objective: Objective,
        x: torch.Tensor,
        top: torch.Tensor,
        left: torch.Tensor,
        side: int,
        steps: int,
        rng: ImageRNG,
    ) -> torch.Tensor:
        height, width = x.shape[-2:]
        patch, adam = cut(x, top, left, side), Adam()
        for step in range(steps):
            shifts = rng.integers(-self.shift, self.shift + 1, (2,))
            rows = (top + shifts[:, 0]).clamp(0, height - side)
            columns = (left + shifts[:, 1]).clamp(0, width - side)
            factor = rng.uniform((1, 1, 1), 1 - self.brightness, 1 + self.brightness)
            seen = patch * factor
            _, slope = objective.gradient(paste(x, seen.clamp(max=1), rows, columns))
            slope = cut(torch.nan_to_num(slope), rows, columns, side) * factor * (seen <= 1)
            patch = (patch + LENGTH * (1 - step / steps) * adam.direction(slope)).clamp(0, 1)
        return paste(x, patch, top, left)

    def cost(self, budget: Budget, goal: str) -> tuple[int, int]:
        """A gradient a step, place and direction, and one for the places; several ends are compared."""
        sides = 2 if goal == "away" else 1
        ends = sides * self.places
        return ends * budget.steps + sides + (ends if ends > 1 else 0), ends * budget.steps + sides


def promising(slope: torch.Tensor, x: torch.Tensor, side: int, number: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """The corners (rows (N,), columns (N,)) of the `number` best windows, the best first."""
    slope = torch.nan_to_num(slope)
    gain = (slope * ((slope > 0).to(x.dtype) - x)).sum(dim=1, keepdim=True).double()
    sums = F.avg_pool2d(gain, side, stride=1)[:, 0]
    rows = torch.arange(sums.shape[1], device=x.device).view(1, -1, 1)
    columns = torch.arange(sums.shape[2], device=x.device).view(1, 1, -1)
    corners = []
    for _ in range(number):
        best = sums.flatten(1).argmax(dim=1)
        top, left = best // sums.shape[2], best % sums.shape[2]
        corners.append((top, left))
        overlaps = ((rows - top.view(-1, 1, 1)).abs() < side) & ((columns - left.view(-1, 1, 1)).abs() < side)
        sums = torch.where(overlaps, -torch.inf, sums)
    return corners


def _places(x: torch.Tensor, top: torch.Tensor, left: torch.Tensor, side: int) -> torch.Tensor:
    """(N, 3, side * side) positions of the window among the pixels, row by row."""
    offsets = torch.arange(side, device=x.device)
    rows, columns = top.view(-1, 1, 1) + offsets.view(1, -1, 1), left.view(-1, 1, 1) + offsets.view(1, 1, -1)
    return (rows * x.shape[-1] + columns).flatten(1)[:, None].expand(-1, 3, -1)


def cut(x: torch.Tensor, top: torch.Tensor, left: torch.Tensor, side: int) -> torch.Tensor:
    """(N, 3, side, side): the window of each image."""
    return x.flatten(2).gather(2, _places(x, top, left, side)).view(len(x), 3, side, side)


def paste(x: torch.Tensor, patch: torch.Tensor, top: torch.Tensor, left: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W): the images with their patches (N, 3, side, side)."""
    places = _places(x, top, left, patch.shape[-1])
    return x.flatten(2).scatter(2, places, patch.flatten(2)).view_as(x)
