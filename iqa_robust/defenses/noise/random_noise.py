"""Gaussian noise before the model."""

from __future__ import annotations

from typing import ClassVar

import torch

from iqa_robust.defenses.base import DifferentiablePurifier
from iqa_robust.defenses.parameters import check_number
from iqa_robust.defenses.pixels import clamp_value
from iqa_robust.models.randomness import draws


class RandomNoise(DifferentiablePurifier):
    """Independent Gaussian noise on every value, drawn anew for every image and call, then clamped.

    Shape: (N, 3, H, W) in [0, 1] -> same.
    Gradient: that of the sum, also where the noise carries a value out of the range, so that black and white pixels
    keep their slope; randomized, so attacks average over draws.
    Source: Cohen, Rosenfeld & Kolter 2019 for the noise; as a purifier, Gushchin et al. 2024, arXiv 2404.06957.

    Args:
        sigma: standard deviation, fraction of full scale.

    Raises:
        ContractError: `sigma` is not a finite number > 0.
    """

    deterministic: ClassVar[bool] = False
    source = "Gushchin et al., 2024, arXiv:2404.06957"
    form = "published"

    def __init__(self, *, sigma: float = 0.01) -> None:
        check_number(self, "sigma", sigma, above=0)
        self.sigma = sigma

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Noisy images (N, 3, H, W)."""
        return clamp_value(x + self.sigma * draws(x.shape[0], x.device).normal(x.shape[1:]))
