"""Feature denoising (Xie et al., CVPR 2019): a filter over the positions of a feature map, added to it."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

GRID = 14
"""Most cells a side of the grid that positions are compared with."""


class FeatureDenoising(nn.Module):
    """h + s W filter(h), where every position of filter(h) is a mean of h over positions that resemble it.

    The filter is the paper's non-local mean with Gaussian weights, softmax(q_i . k_j / sqrt(C)). What is changed:
    positions are compared with the cells of a grid of at most 14 x 14 means, which makes the cost linear in the
    positions, so that early layers can have one (Wang et al., CVPR 2018, subsample likewise); q and k are standardized
    over the channels, so that the weights do not depend on the scale of a trunk's features. W is a convolution of one
    position; s, one number per channel, starts at zero, so the block starts as the identity. In the paper a batch norm
    stands between, whose own factors start at zero. A W of zeros in place of s would do the same at the start, but Adam
    moves all weights alike, and of features in the hundreds they would add up to anything within a few steps.
    """

    def __init__(self, channels: int) -> None:
        """`channels` is C."""
        super().__init__()
        self.mix = nn.Conv2d(channels, channels, 1, bias=False)
        self.scale = nn.Parameter(torch.zeros(channels))

    def forward(self, h: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) to the same."""
        height, width = h.shape[-2:]
        cells = F.adaptive_avg_pool2d(h, (min(height, GRID), min(width, GRID))).flatten(2).transpose(1, 2)
        queries, keys = (F.layer_norm(rows, rows.shape[-1:]) for rows in (h.flatten(2).transpose(1, 2), cells))
        queries, keys = queries.to(cells.dtype), keys.to(cells.dtype)  # autocast normalizes in float32
        filtered = F.scaled_dot_product_attention(queries, keys, cells)
        return h + self.scale.view(-1, 1, 1) * self.mix(filtered.transpose(1, 2).unflatten(2, (height, width)))
