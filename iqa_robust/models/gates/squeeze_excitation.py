"""`squeeze-excitation`: channel weights that nothing but the score's error shapes; a baseline."""

from __future__ import annotations

import torch
from torch import nn

from iqa_robust.models.gates.base import Gate, check_positive
from iqa_robust.models.pooling import channel_means


class SqueezeExcitation(Gate):
    """The channel attention of Hu et al. (CVPR 2018): sigmoid(W2 relu(W1 u)) of the channels' means u.

    Args:
        channels: C.
        reduction: channels per hidden unit.

    Raises:
        RequestError: `reduction` is not positive.
    """

    def __init__(self, channels: int, *, reduction: int = 16) -> None:
        super().__init__(channels)
        hidden = max(1, int(channels // check_positive("reduction", reduction)))
        self.excite = nn.Sequential(nn.Linear(channels, hidden), nn.ReLU(), nn.Linear(hidden, channels), nn.Sigmoid())

    def weights(self, h: torch.Tensor) -> torch.Tensor:
        """(N, C, 1, 1)."""
        return self.excite(channel_means(h))[:, :, None, None]
