"""What smoothed models share: the scores of many noisy copies of an image, and how many of them are taken when."""

from __future__ import annotations

import dataclasses
import math
from abc import abstractmethod
from dataclasses import dataclass

import torch

from iqa_robust.errors import ContractError
from iqa_robust.models.base import SCORE_DRAWS, IQAModel, check_model
from iqa_robust.models.randomness import draws, is_searching, seeded

PIXELS_PER_PASS = 4_000_000
"""Pixels that go through the model at once; more copies are taken in several passes."""
FEW_COPIES = {"copies": 8, "certify_copies": 8}
"""Enough to be asked the questions of the conformance suite on."""


@dataclass(frozen=True, kw_only=True)
class Smoothing:
    """The noise, and the numbers of copies; see `MedianSmoothing` for the fields."""

    who: str
    sigma: float
    copies: int
    certify_copies: int
    attack_copies: int
    confidence: float

    def __post_init__(self) -> None:
        number = isinstance(self.sigma, (int, float)) and not isinstance(self.sigma, bool)
        if not number or not (math.isfinite(self.sigma) and self.sigma > 0):
            raise ContractError(f"{self.who}: expected sigma to be a finite number > 0, got {self.sigma!r}.")
        for name in ("copies", "certify_copies", "attack_copies"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or value < 1:
                raise ContractError(f"{self.who}: expected {name} to be a whole number >= 1, got {value!r}.")
        if not (isinstance(self.confidence, float) and 0 < self.confidence < 1):
            raise ContractError(
                f"{self.who}: expected confidence to be a number between 0 and 1, got {self.confidence!r}."
            )

    @property
    def scoring_failure(self) -> float:
        """Half of what may fail, for each of the draws that a final score is the mean of."""
        return (1 - self.confidence) / 2 / SCORE_DRAWS

    @property
    def certifying_failure(self) -> float:
        """The other half, for the draws of the certificate."""
        return (1 - self.confidence) / 2


class SmoothedModel(IQAModel):
    """A statistic of the model's scores of noisy copies, each clipped to [0, 1] as part of the smoothed function.

    Every call draws new noise. With noise that is fixed, the model would be an average over some hundred known images,
    and an attacker could fit those: the theorem speaks of draws that do not depend on the image.
    """

    def __init__(self, model: IQAModel, smoothing: Smoothing) -> None:
        """`model` may itself be randomized; references are passed on without noise."""
        super().__init__()
        check_model(model)
        self.model = model
        self.smoothing = smoothing
        self.info = dataclasses.replace(model.info, deterministic=False)
        self.training = model.training

    @abstractmethod
    def summary(self, scores: torch.Tensor) -> torch.Tensor:
        """One score per image (N,) of the scores (N, n) of its copies."""

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """Scores (N,). Where gradients are asked for, their slope is that of the mean of the copies.

        In a search or for a gradient there are `attack_copies`, else `copies`.
        """
        differentiate = torch.is_grad_enabled() and x.requires_grad
        few = differentiate or is_searching()
        scores = self.noisy_scores(x, ref, self.smoothing.attack_copies if few else self.smoothing.copies)
        if not differentiate:
            return self.summary(scores)
        slope = scores.mean(dim=1)
        return slope + (self.summary(scores) - slope).detach()

    def noisy_scores(self, x: torch.Tensor, ref: torch.Tensor | None, count: int) -> torch.Tensor:
        """Scores (N, count) of copies with independent noise, drawn per image and copy."""
        rng = draws(len(x), x.device)
        most = max(1, PIXELS_PER_PASS // (len(x) * x.shape[-2] * x.shape[-1]))
        parts = []
        for start in range(0, count, most):
            noise, seeds = [], []
            for _ in range(min(most, count - start)):  # one by one: an image's draws must not depend on the batch
                noise.append(rng.normal(x.shape[1:]))
                seeds.append(rng.integers(0, 2**62))
            noisy = x.unsqueeze(1) + self.smoothing.sigma * torch.stack(noise, dim=1)
            with seeded(torch.stack(seeds, dim=1).flatten().tolist()):  # for a model that draws, too
                scores = self.model(
                    noisy.flatten(0, 1).clamp(0, 1), None if ref is None else ref.repeat_interleave(len(noise), dim=0)
                )
            parts.append(scores.view(len(x), len(noise)))
        return torch.cat(parts, dim=1)
