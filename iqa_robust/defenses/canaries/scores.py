"""Canaries that hide the model behind what they do to its scores."""

from __future__ import annotations

import itertools
from abc import abstractmethod

import torch

from iqa_robust.defenses.base import Defense
from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel, check_model

STEPS = 100
"""Knots over the score range of the soft rank."""
TEMPERATURE = 1e-6
"""Of the soft rank, as a share of the score range: every sigmoid is 0 or 1 in float32."""


class ScoreCanary(Defense):
    """What the canaries of this file share: they change the score of the model, from a share of its range."""

    canary = True
    note = "a canary: known to be broken"

    def wrap(self, model: IQAModel) -> IQAModel:
        """The model with its scores changed.

        Raises:
            ContractError: the model has no score range.
        """
        check_model(model)
        if model.info.score_range is None:
            raise ContractError(f"{type(self).__name__} needs a model with a score range.")
        return _Changed(self, model)

    @abstractmethod
    def change(self, share: torch.Tensor) -> torch.Tensor:
        """Scores (N,) as a share of the range -> changed ones."""


class _Changed(IQAModel):
    def __init__(self, canary: ScoreCanary, model: IQAModel) -> None:
        super().__init__()
        self.canary = canary
        self.model = model
        self.info = model.info
        self.training = model.training

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        assert self.info.score_range is not None  # asked in `wrap`
        low, high = self.info.score_range
        return low + (high - low) * self.canary.change((self.model(x, ref) - low) / (high - low))


class FrozenRank(ScoreCanary):
    """A soft rank among evenly spaced scores, at a temperature so low that it has steps and no slope."""

    def change(self, share: torch.Tensor) -> torch.Tensor:
        """The mean of a hundred sigmoids."""
        knots = torch.linspace(0, 1, STEPS, device=share.device)
        return torch.sigmoid((share[:, None] - knots) / TEMPERATURE).mean(dim=1)


class Saturated(ScoreCanary):
    """Amplifies the score around the middle of the range and clips it: nearly every image sits at an end."""

    def change(self, share: torch.Tensor) -> torch.Tensor:
        """0 or 1, but for scores very near the middle."""
        return (0.5 + 200 * (share - 0.5)).clamp(0, 1)


class Unrepeatable(ScoreCanary):
    """Adds something new to every score and calls itself deterministic."""

    def __init__(self) -> None:
        self._calls = itertools.count()

    def change(self, share: torch.Tensor) -> torch.Tensor:
        """Moved by up to a tenth of the range, differently in every call."""
        return share + 0.1 * ((next(self._calls) * 0.618) % 1)


class BatchMean(ScoreCanary):
    """Judges every image by its distance from the mean score of its batch."""

    def change(self, share: torch.Tensor) -> torch.Tensor:
        """Around the middle."""
        return 0.5 + share - share.mean()


class Collapsed(ScoreCanary):
    """Shrinks every score toward the middle: no attack moves it far, and it says next to nothing."""

    def change(self, share: torch.Tensor) -> torch.Tensor:
        """Within a hundredth of the range of the middle."""
        return 0.5 + 0.01 * (share - 0.5)
