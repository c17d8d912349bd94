"""`cifs`: channels weigh by the slope of a small predictor of the score at this image."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from iqa_robust.models.gates.base import Gate, check_positive
from iqa_robust.models.pooling import channel_means


class CIFS(Gate):
    """Channel-wise importance-based feature selection (Yan et al., ICML 2021), in a form for regression.

    As in the paper, a probe network on the channels' means is differentiated at the image, its slopes make a softmax
    mask over the channels, and training adds the probe's error to the loss (`auxiliary_scores`). What is changed:

    - The paper takes the slopes of the two largest logits; a score has one.
    - A channel that lowers the score is as relevant as one that raises it: sizes of slopes are compared.
    - Slopes are divided by their mean size, and the softmax by its largest value: the mask does not depend on the
      scale of the probe, and the most relevant channel passes whole instead of in a share of about 1/C.
    - The probe has one hidden layer with softplus, not ReLU, so that the mask has true slopes; and a batch norm before
      it standardizes the means.

    Args:
        channels: C.
        hidden: units of the probe.
        temperature: of the softmax, in mean sizes of slopes.

    Raises:
        RequestError: a value is not positive.
    """

    def __init__(self, channels: int, *, hidden: int = 32, temperature: float = 1.0) -> None:
        super().__init__(channels)
        self.temperature = check_positive("temperature", temperature)
        units = int(check_positive("hidden", hidden))
        self.norm = nn.BatchNorm1d(channels, affine=False)
        self.inner = nn.Parameter(torch.randn(units, channels) * channels**-0.5)
        self.inner_bias = nn.Parameter(torch.zeros(units))
        self.outer = nn.Parameter(torch.randn(units) * units**-0.5)
        self.outer_bias = nn.Parameter(torch.zeros(()))

    def weights(self, h: torch.Tensor) -> torch.Tensor:
        """(N, C, 1, 1)."""
        hidden = F.linear(self.norm(channel_means(h)), self.inner, self.inner_bias)
        self.auxiliary_scores = F.softplus(hidden) @ self.outer + self.outer_bias if self.training else None
        slopes = ((torch.sigmoid(hidden) * self.outer) @ self.inner).abs()
        usual = slopes.mean(dim=1, keepdim=True).clamp(min=1e-12)
        distance = slopes - slopes.amax(dim=1, keepdim=True)
        return torch.exp(distance / (self.temperature * usual))[:, :, None, None]
