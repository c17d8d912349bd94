"""Non-local means before the model."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.defenses.filtering.padding import pad_reflect, require_room
from iqa_robust.defenses.memory import recomputed
from iqa_robust.defenses.parameters import check_number, check_whole
from iqa_robust.defenses.pixels import clamp_value
from iqa_robust.models.base import IQAModel

HALF_PATCH = 2
"""Pixels of a patch on either side of its center."""


class NonLocalMeans(DifferentiablePurifier):
    """The mean of the pixels around, weighted by how alike the patches of 5 x 5 pixels about them are.

    Patches are compared in all channels, their centers more than their borders, mirrored about the outermost pixels.

    Shape: (N, 3, H, W) in [0, 1] -> same.
    Gradient: exact, through the weights as well.
    Source: Buades, Coll & Morel 2005; the weights are those of scikit-image, without its cutoff of small ones.

    Args:
        strength: root mean square difference of two patches at which the weight is 1/e, fraction of full scale.
        reach: pixels that are looked at in either direction.

    Raises:
        ContractError: `strength` is not a finite number > 0 or `reach` not a whole number >= 1; on use, an image is
            not larger than half a patch.
    """

    source = "Buades, Coll, Morel, CVPR 2005"
    form = "adapted"

    def __init__(self, *, strength: float = 0.05, reach: int = 5) -> None:
        check_number(self, "strength", strength, above=0)
        check_whole(self, "reach", reach, least=1)
        self.strength = strength
        self.reach = reach

    def wrap(self, model: IQAModel) -> IQAModel:
        """The model behind this purifier; images must be larger than half a patch."""
        return require_room(super().wrap(model), HALF_PATCH)

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Denoised images (N, 3, H, W)."""
        height, width = x.shape[-2:]
        padded = pad_reflect(x, HALF_PATCH, "NonLocalMeans")
        total, weights = x, torch.ones_like(x[:, :1])  # a pixel and itself
        for down in range(min(self.reach, height - 1) + 1):
            for right in range(-min(self.reach, width - 1), min(self.reach, width - 1) + 1):
                if (down, right) > (0, 0):  # the pairs of an offset and its opposite share their weights
                    part, weight = recomputed(self._pairs, padded, down, right)
                    total, weights = total + part, weights + weight
        return clamp_value(total / weights)

    def _pairs(self, padded: torch.Tensor, down: int, right: int) -> tuple[torch.Tensor, torch.Tensor]:
        """What pixels `down` and `right` of each other, both inside the image, add to one another's sums."""
        first, second = _overlap(padded, down, right)
        squared = (first - second).square().mean(dim=1, keepdim=True)
        kernel = _patch_weights().to(padded)
        distance = F.conv2d(F.conv2d(squared, kernel[None, None, :, None]), kernel[None, None, None, :])
        weight = torch.exp(-distance / self.strength**2)
        inner = slice(HALF_PATCH, -HALF_PATCH)
        sides = (max(right, 0), max(-right, 0))
        here = (sides[1], sides[0], 0, down)  # zeros around the overlap as it lies at the first pixels,
        there = (sides[0], sides[1], down, 0)  # and at the second ones
        part = F.pad(weight * second[..., inner, inner], here) + F.pad(weight * first[..., inner, inner], there)
        return part, F.pad(weight, here) + F.pad(weight, there)


def _overlap(x: torch.Tensor, down: int, right: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The pixels of `x` that have one `down` and `right` of them, and those others; `down` >= 0."""
    height, width = x.shape[-2:]
    after, before = max(right, 0), max(-right, 0)
    first = x[..., : height - down, before : width - after]
    second = x[..., down:, after : width - before]
    return first, second


def _patch_weights() -> torch.Tensor:
    """Weights along one side of a patch: a Gaussian of a quarter of the side, sum 1."""
    offsets = torch.arange(-HALF_PATCH, HALF_PATCH + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / (HALF_PATCH / 2)) ** 2)
    return weights / weights.sum()
