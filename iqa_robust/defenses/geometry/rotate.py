"""A random small rotation before the model."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
import torch.nn.functional as F

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.defenses.parameters import check_number
from iqa_robust.defenses.pixels import clamp_value
from iqa_robust.models.randomness import draws


class Rotate(DifferentiablePurifier):
    """A turn about the image's center by a random angle, black where the image does not reach, bilinear.

    The angle is uniform from -limit to limit, drawn anew for every image and call.

    Shape: (N, 3, H, W) in [0, 1] -> same, turned.
    Gradient: exact for the angle drawn; randomized, so attacks average over draws.
    Source: Gushchin et al. 2024, arXiv 2404.06957.

    Args:
        limit: largest angle in degrees, up to 180.

    Raises:
        ContractError: `limit` is not a number > 0 and <= 180; on wrapping, the model is full-reference.
    """

    deterministic: ClassVar[bool] = False
    keeps_geometry: ClassVar[bool] = False
    source = "Gushchin et al., 2024, arXiv:2404.06957"
    form = "published"

    def __init__(self, *, limit: float = 15.0) -> None:
        check_number(self, "limit", limit, above=0, most=180)
        self.limit = limit

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Turned images (N, 3, H, W)."""
        return rotated(x, draws(x.shape[0], x.device).uniform(low=-self.limit, high=self.limit))


def rotated(x: torch.Tensor, degrees: torch.Tensor) -> torch.Tensor:
    """(N, 3, H, W) turned counterclockwise by `degrees` (N,) about the center, zero outside."""
    height, width = x.shape[-2:]
    angle = degrees.to(torch.float64) * (math.pi / 180)
    cosine, sine, zero = angle.cos(), angle.sin(), torch.zeros_like(angle)
    # Where each pixel of the result comes from, in coordinates from -1 to 1 along either side.
    rows = [
        torch.stack([cosine, -sine * (height / width), zero], dim=1),
        torch.stack([sine * (width / height), cosine, zero], dim=1),
    ]
    grid = F.affine_grid(torch.stack(rows, dim=1), list(x.shape), align_corners=False).to(x)
    return clamp_value(F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
