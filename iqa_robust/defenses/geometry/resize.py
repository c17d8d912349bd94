"""Resampling before the model: to a smaller size, and there and back."""

from __future__ import annotations

import dataclasses
import math
from typing import ClassVar

import torch
import torch.nn.functional as F

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.defenses.parameters import check_number
from iqa_robust.defenses.pixels import clamp_value
from iqa_robust.models.base import IQAModel


class Resize(DifferentiablePurifier):
    """A smaller image, by bilinear interpolation with a filter against aliasing; it stays small.

    Shape: (N, 3, H, W) in [0, 1] -> (N, 3, round(scale H), round(scale W)), at least one pixel a side.
    Gradient: exact.
    Source: scaling as an input transformation, Gushchin et al. 2024, arXiv 2404.06957.

    Args:
        scale: side of the result as a part of the image's side.

    Raises:
        ContractError: `scale` is not a number > 0 and <= 1; on wrapping, the model is full-reference.
    """

    keeps_geometry: ClassVar[bool] = False
    source = "Gushchin et al., 2024, arXiv:2404.06957"
    form = "published"

    def __init__(self, *, scale: float = 0.5) -> None:
        check_number(self, "scale", scale, above=0, most=1)
        self.scale = scale

    def wrap(self, model: IQAModel) -> IQAModel:
        """The model behind this purifier; its `min_size` is that of images whose small versions `model` accepts."""
        wrapped = super().wrap(model)
        least = model.info.min_size
        smallest = next(
            side for side in range(least, math.ceil((least + 1) / self.scale) + 1) if self._side(side) >= least
        )
        wrapped.info = dataclasses.replace(wrapped.info, min_size=smallest)
        return wrapped

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """The small images."""
        return interpolate(x, self._side(x.shape[-2]), self._side(x.shape[-1]))

    def _side(self, side: int) -> int:
        return max(1, round(self.scale * side))


class Upscale(DifferentiablePurifier):
    """A smaller image, as `resize` makes it, brought back to the size of the input by bilinear interpolation.

    Released code brings every image to 384 x 512, which changes the proportions of others; here the size is kept.

    Shape: (N, 3, H, W) in [0, 1] -> same.
    Gradient: exact.
    Source: Gushchin et al. 2024, arXiv 2404.06957.

    Args:
        scale: side of the small version as a part of the image's side.

    Raises:
        ContractError: `scale` is not a number > 0 and <= 1.
    """

    source = "Gushchin et al., 2024, arXiv:2404.06957"
    form = "corrected"
    note = "returns to the size of the input, not to 384 x 512"

    def __init__(self, *, scale: float = 0.5) -> None:
        check_number(self, "scale", scale, above=0, most=1)
        self.scale = scale

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) without the detail of the finest scale."""
        return interpolate(Resize(scale=self.scale).purify(x), *x.shape[-2:])


def interpolate(x: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Bilinear resampling of (N, 3, H, W) in [0, 1] to (N, 3, height, width), filtered where it shrinks."""
    resampled = F.interpolate(x, size=(height, width), mode="bilinear", antialias=True, align_corners=False)
    return clamp_value(resampled)  # a white region may come out one rounding step above 1
