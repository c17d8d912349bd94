"""`cas`: channels weigh what they weigh in a linear predictor of the score."""

from __future__ import annotations

import torch
from torch import nn

from iqa_robust.models.gates.base import Gate
from iqa_robust.models.pooling import channel_means


class CAS(Gate):
    """Channel-wise activation suppressing (Bai et al., ICLR 2021), in a form for regression.

    As in the paper, an auxiliary linear predictor on the channels' means gives the weights of the channels, and
    training adds its error to the loss (`auxiliary_scores`). What is changed:

    - The paper's channel weights are the predictor's row of the label, or of the predicted class. A score has one
      row, so the weights are the same for every image.
    - A negative weight moves a score as well as a positive one: the weight of a channel is |w| over the largest |w|,
      which also keeps it in [0, 1]; the paper multiplies by the row itself.
    - The predictor sees means that a batch norm standardizes, so that weights of channels of different scale compare.

    It starts with equal weights, as the identity.

    Args:
        channels: C.
    """

    def __init__(self, channels: int) -> None:
        super().__init__(channels)
        self.norm = nn.BatchNorm1d(channels, affine=False)
        self.row = nn.Parameter(torch.full((channels,), 1 / channels))
        self.bias = nn.Parameter(torch.zeros(()))

    def weights(self, h: torch.Tensor) -> torch.Tensor:
        """(N, C, 1, 1), the same for every image."""
        self.auxiliary_scores = None
        if self.training:
            self.auxiliary_scores = (self.norm(channel_means(h)) * self.row).sum(dim=1) + self.bias
        size = self.row.abs()
        return (size / size.max().clamp(min=1e-12))[None, :, None, None].expand(len(h), -1, -1, -1)
