"""Unsharp masking before the model."""

from __future__ import annotations

import torch

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.defenses.filtering.gaussian import Gaussian
from iqa_robust.defenses.parameters import check_number
from iqa_robust.defenses.pixels import clamp_value
from iqa_robust.models.base import IQAModel

MARGIN = 1 / 255
"""How far out of [0, 1] a value still has a slope, so that a white or black region is not lost to rounding."""


class Unsharp(DifferentiablePurifier):
    """The image plus what a Gaussian blur takes from it, so that edges become steeper; alone, it amplifies.

    Shape: (N, 3, H, W) in [0, 1] -> same.
    Gradient: exact.
    Source: Gushchin et al. 2024, arXiv 2404.06957, where it follows a blurring purifier.

    Args:
        amount: how much of the detail is added.
        sigma: of the blur, in pixels.

    Raises:
        ContractError: `amount` or `sigma` is not a finite number > 0; on use, an image is smaller than half the blur.
    """

    source = "Gushchin et al., 2024, arXiv:2404.06957"
    form = "published"

    def __init__(self, *, amount: float = 1.0, sigma: float = 1.0) -> None:
        check_number(self, "amount", amount, above=0)
        check_number(self, "sigma", sigma, above=0)
        self.amount = amount
        self.sigma = sigma

    def wrap(self, model: IQAModel) -> IQAModel:
        """The model behind this purifier; images must be larger than half the blur."""
        wrapped = super().wrap(model)
        wrapped.info = Gaussian(sigma=self.sigma).wrap(model).info
        return wrapped

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Sharpened images (N, 3, H, W)."""
        sharpened = x + self.amount * (x - Gaussian(sigma=self.sigma).purify(x))
        return clamp_value(sharpened.clamp(-MARGIN, 1 + MARGIN))
