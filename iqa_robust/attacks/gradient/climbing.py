"""What several climbs share: balls with a radius per image, and landing on a target."""

from __future__ import annotations

import torch

from iqa_robust.attacks.norms import box, distance, dither
from iqa_robust.attacks.objectives import Objective
from iqa_robust.models.randomness import ImageRNG
from iqa_robust.records import Budget

BALLS = ("linf", "l2", "psnr")
"""The norms whose budgets are balls, so that a radius means the same for every image."""

_GOLDEN = 0.6180339887
"""Multiples of it, modulo 1, are spread evenly: one draw serves every step of a dithered climb."""


def spread(values: torch.Tensor) -> torch.Tensor:
    """(N,) as (N, 1, 1, 1), to go with a batch of images."""
    return values.view(-1, 1, 1, 1)


def project_each(z: torch.Tensor, x: torch.Tensor, norm: str, radius: torch.Tensor) -> torch.Tensor:
    """`norms.project` for the norms of `BALLS`, with a radius (N,) per image."""
    if norm == "linf":
        return torch.clamp(z, *box(x, spread(radius)))
    shrink = (radius / distance(z, x, norm).clamp_min(1e-12)).clamp(max=1)
    return (x + (z - x) * spread(shrink)).clamp(0, 1)


class Landing:
    """Arriving at a target instead of leaping over it; for the other goals nothing changes.

    A step is never longer than the way left over the slope (Polyak's step for a known optimum). For L-infinity every
    point is rounded to the 8-bit grid by dithering: all values move by the same fraction of a gray level, which
    rounding at the end would take away or double.
    """

    def __init__(self, objective: Objective, x: torch.Tensor, budget: Budget, rng: ImageRNG) -> None:
        """`x` (N, 3, H, W) is the center of the ball; `rng` serves the dithering."""
        self._x, self._eps = x, budget.eps
        self._targeted = objective.goal.target is not None
        self._offset = rng.uniform(x.shape[1:]) if self._targeted and budget.norm == "linf" else None

    def length(
        self, length: torch.Tensor, value: torch.Tensor, slope: torch.Tensor, direction: torch.Tensor
    ) -> torch.Tensor:
        """(N,) at most `length`: where a linear objective of this value and slope is zero along `direction`."""
        if not self._targeted:
            return length
        rise = (slope * direction).flatten(1).sum(dim=1)
        return torch.fmin(length, torch.where(rise > 0, -value / rise, length))

    def point(self, z: torch.Tensor, step: int, index: torch.Tensor | None = None) -> torch.Tensor:
        """`z` (n, 3, H, W), the images `index` of the batch or all, or points of the 8-bit grid beside them."""
        if self._offset is None:
            return z
        offset, x = (self._offset, self._x) if index is None else (self._offset[index], self._x[index])
        return dither(z, x, self._eps, (offset + step * _GOLDEN) % 1)
