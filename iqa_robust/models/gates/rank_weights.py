"""Weights of channels by their soft rank: what the rank gates share."""

from __future__ import annotations

import torch
from torch import nn

from iqa_robust.models.gates.base import check_choice, check_positive, check_share
from iqa_robust.models.gates.soft_rank import OPERATORS


class RankWeights(nn.Module):
    """One number per channel (N, C) to weights (N, C, 1, 1): sigmoid((rank - (1 - keep)) / sharpness).

    Args:
        operator: the soft rank, one of `OPERATORS`.
        temperature: of the soft rank, for values of unit spread; the operator's own by default.
        keep: share of the channels that pass (weight above one half).
        learn_keep: whether training moves that share.
        sharpness: ranks over which a weight rises from a quarter to three quarters are 2.2 of these.
    """

    def __init__(
        self, *, operator: str, temperature: float | None, keep: float, learn_keep: bool, sharpness: float
    ) -> None:
        super().__init__()
        self.operator = OPERATORS[check_choice("operator", operator, tuple(OPERATORS))]
        self.temperature = check_positive(
            "temperature", self.operator.temperature if temperature is None else temperature
        )
        self.sharpness = check_positive("sharpness", sharpness)
        threshold = 1 - check_share("keep", keep)
        # a number, not a buffer: without learning, a gate has no state, and weights of an ungated network fit
        self.threshold = nn.Parameter(torch.tensor(threshold)) if learn_keep else threshold

    def forward(self, values: torch.Tensor) -> torch.Tensor:
        """Weights (N, C, 1, 1)."""
        ranks = self.operator.rank(values, self.temperature)
        return torch.sigmoid((ranks - self.threshold) / self.sharpness)[:, :, None, None]
