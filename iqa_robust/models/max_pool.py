"""Max pooling that is fast on a CPU in either order of memory."""

from __future__ import annotations

import torch
from torch import nn


class MaxPool2d(nn.MaxPool2d):
    """The same maxima as torch's, whose CPU kernel for contiguous maps takes ten times as long as the other.

    Such a map is pooled in channels-last order, and the result is contiguous again; not where a slope is wanted, which
    would go back through the network in the other order, and slowly.
    """

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """(N, C, H', W') of (N, C, H, W)."""
        sloped = input.requires_grad and torch.is_grad_enabled()
        if sloped or input.device.type != "cpu" or not input.is_contiguous():
            return super().forward(input)
        pooled: torch.Tensor = super().forward(input.contiguous(memory_format=torch.channels_last))
        return pooled.contiguous()


def replace_max_pools(network: nn.Module) -> None:
    """Put ours wherever `network` has torch's and wants no indices of it."""
    for parent in list(network.modules()):
        for name, child in list(parent._modules.items()):
            if type(child) is nn.MaxPool2d and not child.return_indices:
                shape = (child.kernel_size, child.stride, child.padding, child.dilation)
                setattr(parent, name, MaxPool2d(*shape, ceil_mode=child.ceil_mode))
