"""The contract of detectors, and the model that an attacker sees who wants to stay unseen."""

from __future__ import annotations

import dataclasses
from abc import ABC, abstractmethod
from typing import ClassVar

import torch

from iqa_robust.errors import ContractError
from iqa_robust.models.base import IQAModel


class Detector(ABC):
    """Says how suspicious an image is. The constructor is the configuration: keyword-only, JSON-able, no I/O."""

    source: ClassVar[str] = ""
    """Authors, venue and year."""
    form: ClassVar[str] = "ours"
    """As for `Defense.form`."""

    @property
    def deterministic(self) -> bool:
        """False where two calls on one image may differ."""
        return True

    @abstractmethod
    def statistic(self, model: IQAModel, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """(N,) for images (N, 3, H, W) that `model` is to score: larger is more suspicious.

        Gradients flow to `x`, through stated surrogates where a step has none. Each image by itself.
        """


class Watched(IQAModel):
    """The score, less what an attacker loses when the detector notices: an attack on it fools both.

    With `toward` = 1 (the attacker wants a higher number) it is score - penalty * max(0, statistic - threshold), with
    -1 the penalty is added. It is a model like any other, so every attack can be sent against it, with the goal that
    `toward` stands for; `away` has no such direction.
    """

    def __init__(self, model: IQAModel, detector: Detector, *, threshold: float, penalty: float, toward: int) -> None:
        """`threshold` in units of the statistic; `penalty` in native units of the score per unit of it.

        Raises:
            ContractError: `toward` is neither 1 nor -1, or `penalty` is negative.
        """
        super().__init__()
        if toward not in (1, -1) or penalty < 0:
            raise ContractError(
                f"Watched: expected toward 1 or -1 and a penalty of at least 0, got {toward!r} and {penalty!r}."
            )
        self.model = model
        self.detector = detector
        self.threshold, self.penalty, self.toward = threshold, penalty, toward
        self.info = dataclasses.replace(
            model.info, deterministic=model.info.deterministic and detector.deterministic, score_range=None
        )
        self.training = model.training

    def forward(self, x: torch.Tensor, ref: torch.Tensor | None = None) -> torch.Tensor:
        """(N,) penalized scores."""
        excess = torch.relu(self.detector.statistic(self.model, x, ref) - self.threshold)
        return self.model(x, ref) - self.toward * self.penalty * excess
