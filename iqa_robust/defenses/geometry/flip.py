"""A half turn before the model."""

from __future__ import annotations

from typing import ClassVar

import torch

from iqa_robust.defenses.base import DifferentiablePurifier


class Flip(DifferentiablePurifier):
    """The image upside down and mirrored, which is a half turn: a model's blind spots seldom turn with it.

    Shape: (N, 3, H, W) in [0, 1] -> same, turned.
    Gradient: exact.
    Source: Gushchin et al. 2024, arXiv 2404.06957.

    Raises:
        ContractError: on wrapping, the model is full-reference.
    """

    keeps_geometry: ClassVar[bool] = False
    source = "Gushchin et al., 2024, arXiv:2404.06957"
    form = "published"

    def purify(self, x: torch.Tensor) -> torch.Tensor:
        """Turned images (N, 3, H, W)."""
        return x.flip(2, 3)
