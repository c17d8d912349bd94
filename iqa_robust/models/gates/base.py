"""The contract of a gate: how causal every channel of a feature map is, and the map with the others turned down."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import nn

from iqa_robust.errors import RequestError


class Gate(nn.Module, ABC):
    """Turns down the parts of a feature map that it holds to be non-causal: `forward(h) = weights(h) * h`.

    `sort-mask` with the form `elements` is an exception: it turns down deviations from the mean of each channel,
    mean + weights(h) * (h - mean). So is an `ensemble` with such a member: it makes the mean of what its members make.

    The shape (N, C, H, W) stays. A batch of N gives what N batches of one give in evaluation mode.
    """

    auxiliary_scores: torch.Tensor | None
    """(N,) scores by the gate's own small predictor in the last forward in training mode, in units of the network's
    output before `into_range`; None for a gate without one, and in evaluation mode."""

    def __init__(self, channels: int) -> None:
        """`channels` is C."""
        super().__init__()
        self.channels = channels
        self.auxiliary_scores = None

    @abstractmethod
    def weights(self, h: torch.Tensor) -> torch.Tensor:
        """How much of every channel (N, C, 1, 1), or of every value or deviation (N, C, H, W), passes: in [0, 1]."""

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """The gated map (N, C, H, W), in the precision of `h`; the weights are computed in float32 or better."""
        with torch.autocast(h.device.type, enabled=False):
            return self.weights(h).to(h.dtype) * h

    def __getstate__(self) -> dict[str, Any]:
        # scores with a history cannot be copied, and belong to a forward of the original
        return {**self.__dict__, "auxiliary_scores": None}


def check_share(name: str, value: float) -> float:
    """The value, strictly between 0 and 1. Raises `RequestError` otherwise."""
    if not 0 < value < 1:
        raise RequestError(f"gate: {name}: expected a number between 0 and 1, got {value}.")
    return float(value)


def check_positive(name: str, value: float) -> float:
    """The value, above 0. Raises `RequestError` otherwise."""
    if not 0 < value < float("inf"):
        raise RequestError(f"gate: {name}: expected a positive number, got {value}.")
    return float(value)


def check_choice(name: str, value: str, choices: tuple[str, ...]) -> str:
    """The value, one of `choices`. Raises `RequestError` otherwise."""
    if value not in choices:
        raise RequestError(f"gate: {name}: expected one of {', '.join(choices)}, got {value!r}.")
    return value
