"""A gated network and a model of it whose explanations are known in closed form."""

from __future__ import annotations

import torch
from torch import nn

from iqa_robust.models.base import ModelInfo
from iqa_robust.models.gates.base import Gate
from iqa_robust.models.learned import LearnedModel

OPEN = torch.tensor([1.0, 0.25, 0.0])
SIGNS = torch.tensor([2.0, -4.0, 8.0])


class Known(Gate):
    """Weights that do not depend on the image."""

    def weights(self, h: torch.Tensor) -> torch.Tensor:
        """OPEN for every image."""
        return OPEN[None, :, None, None].expand(len(h), -1, -1, -1)


class ByHand(nn.Module):
    """The sum over the gated colors of SIGNS times their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = Known(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Scores (N,)."""
        return (self.gate(x).mean(dim=(2, 3)) * SIGNS).sum(dim=1)


class GatedColors(LearnedModel):
    """`ByHand` as a model."""

    def _load(self) -> tuple[nn.Module, ModelInfo]:
        return ByHand(), ModelInfo(score_range=(-1.0, 2.0))
