"""A model of known answer."""

from __future__ import annotations

import torch

from iqa_robust.models.base import IQAModel, ModelInfo


class Brightness(IQAModel):
    """The mean of the image: every shift is known in closed form."""

    info = ModelInfo(score_range=(0.0, 1.0))

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,)."""
        return x.mean(dim=(1, 2, 3))
