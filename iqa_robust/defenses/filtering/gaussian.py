"""Gaussian blur before the model."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.defenses.filtering.padding import pad_reflect, require_room
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel

TRUNCATE = 4.0
"""Half the width of the filter, in units of sigma; the tails beyond hold 6e-5 of the weight."""


class Gaussian(DifferentiablePurifier):
    """Convolution with a Gaussian, mirrored about the outermost pixels.

    Shape: (N, 3, H, W) in [0, 1] -> same.
    Gradient: exact.
    Source: the linear smoothing that studies of purified IQA models include, e.g. Gushchin et al. 2024.

    Args:
        sigma: standard deviation in pixels.

    Raises:
        ContractError: `sigma` is not a finite number > 0; on use, an image is smaller than half the filter.
    """

    source = "Gushchin et al., 2024, arXiv:2404.06957"
    form = "published"

    def __init__(self, *, sigma: float = 1.0) -> None:
        if isinstance(sigma, bool) or not isinstance(sigma, (int, float)) or not 0 < sigma < math.inf:
            raise ContractError(f"Gaussian: expected sigma to be a finite number > 0, got {sigma!r}.")
        self.sigma = sigma

    def wrap(self, model: IQAModel) -> IQAModel:
        """The model behind this purifier; images must be larger than half the filter."""
        return require_room(super().wrap(model), self._radius())

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Blurred images (N, 3, H, W)."""
        radius = self._radius()
        offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
        weights = torch.exp(-0.5 * (offsets / self.sigma) ** 2)
        kernel = (weights / weights.sum()).to(x).repeat(x.shape[1], 1, 1, 1)
        blurred = F.conv2d(pad_reflect(x, radius, "Gaussian"), kernel, groups=x.shape[1])
        blurred = F.conv2d(blurred, kernel.transpose(2, 3), groups=x.shape[1])
        # A white region may come out one rounding step above 1. Only the value is clamped: the slope of a
        # clamp is zero there, and the attacker would lose those pixels to rounding.
        return blurred + (blurred.clamp(0, 1) - blurred).detach()

    def _radius(self) -> int:
        return int(TRUNCATE * self.sigma + 0.5)
