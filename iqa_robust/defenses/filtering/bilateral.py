"""Bilateral filtering before the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.defenses.memory import recomputed
from iqa_robust.defenses.parameters import check_number, check_whole
from iqa_robust.defenses.pixels import clamp_value


class Bilateral(DifferentiablePurifier):
    """The mean of the pixels around, weighted by nearness in place and in color, so that strong edges stay.

    The border is repeated outward.

    Shape: (N, 3, H, W) in [0, 1] -> same.
    Gradient: exact, through the weights as well.
    Source: Tomasi & Manduchi 1998.

    Args:
        radius: half the side of the window in pixels, without its center.
        sigma_color: standard deviation of the weight over the Euclidean distance of two colors, in full scales.
        sigma_space: standard deviation of the weight over the distance of two pixels, in pixels.

    Raises:
        ContractError: `radius` is not a whole number >= 1, or a standard deviation is not a finite number > 0.
    """

    source = "Tomasi, Manduchi, ICCV 1998"
    form = "adapted"

    def __init__(self, *, radius: int = 3, sigma_color: float = 0.1, sigma_space: float = 2.0) -> None:
        check_whole(self, "radius", radius, least=1)
        check_number(self, "sigma_color", sigma_color, above=0)
        check_number(self, "sigma_space", sigma_space, above=0)
        self.radius = radius
        self.sigma_color = sigma_color
        self.sigma_space = sigma_space

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Filtered images (N, 3, H, W)."""
        reach = range(-self.radius, self.radius + 1)
        padded = F.pad(x, (self.radius,) * 4, mode="replicate")
        total, weights = torch.zeros_like(x), torch.zeros_like(x[:, :1])
        for down in reach:
            for right in reach:
                part, weight = recomputed(self._neighbor, x, padded, down, right)
                total, weights = total + part, weights + weight
        return clamp_value(total / weights)

    def _neighbor(
        self, x: torch.Tensor, padded: torch.Tensor, down: int, right: int
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The pixels at one offset, weighted, and their weights (N, 1, H, W)."""
        height, width = x.shape[-2:]
        top, left = self.radius + down, self.radius + right
        other = padded[..., top : top + height, left : left + width]
        far = (down**2 + right**2) / self.sigma_space**2
        apart = (other - x).square().sum(dim=1, keepdim=True) / self.sigma_color**2
        weight = torch.exp(-0.5 * (apart + far))
        return weight * other, weight
