"""What every contender is asked to do, and the classifier that the libraries are shown in place of a score."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from iqa_robust.models.base import IQAModel

STEP_RATIO = 0.25
"""Step of the libraries' PGD as a fraction of eps, their own default or near it (2/8; ART's is 1/3)."""

Attack = Callable[[torch.Tensor], torch.Tensor]
"""Attacked images (N, 3, H, W) of images (N, 3, H, W)."""


@dataclass(frozen=True)
class Task:
    """An attack toward higher scores inside an L-infinity ball."""

    attack: str
    """A name of `ATTACKS`."""
    eps_255: float = 4.0
    """Radius in gray levels."""
    steps: int = 10
    """Gradients of `pgd` and `apgd`."""
    queries: int = 1000
    """Images that `square` tries, per image."""
    precision: str = "fp32"
    """In which this package searches, `fp32`, `mixed` or `bf16`."""

    @property
    def eps(self) -> float:
        """Radius as a fraction of full scale."""
        return self.eps_255 / 255

    def tenths(self, count: int) -> Task:
        """The same with so many tenths of its steps and queries, rounded up."""
        return dataclasses.replace(self, steps=-(-count * self.steps // 10), queries=-(-count * self.queries // 10))

    @property
    def title(self) -> str:
        """The attack with what it may spend."""
        spent = {"pgd": f"-{self.steps}", "apgd": f"-{self.steps}", "square": f"-{self.queries}"}
        return ATTACKS[self.attack] + spent.get(self.attack, "")


ATTACKS = {"fgsm": "FGSM", "pgd": "PGD", "apgd": "APGD", "square": "Square"}


class TwoLogits(nn.Module):
    """A classifier whose class 0 always wins, and whose loss on class 0 rises with the score.

    The logits are (2, s) with the score s on a scale from -1 to 1. The cross-entropy of class 0 has the slope of the
    score times a positive number, so its sign gradient is the score's; so has the margin. No attack stops early.
    """

    def __init__(self, model: IQAModel) -> None:
        """The model must declare its score range."""
        super().__init__()
        assert model.info.score_range is not None
        low, high = model.info.score_range
        self.model, self.middle, self.radius = model, (low + high) / 2, (high - low) / 2
        self.eval()  # libraries return a model to the mode in which they got it, with the network inside

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, 3, H, W) to logits (N, 2)."""
        rising = (self.model(x) - self.middle) / self.radius
        return torch.stack([torch.full_like(rising, 2.0), rising], dim=1)
