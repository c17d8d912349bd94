"""Residual blocks whose sum and ReLU can be a part of their last convolution."""

from __future__ import annotations

import sys

import torch
from torch import nn

from iqa_robust.models.compact import Residual
from iqa_robust.models.prepared.convolutions import FrozenConvolution


class ResidualBlock(nn.Module):
    """relu(last(body(x)) + shortcut(x)), each ReLU a layer of its own, unlike in torchvision's blocks."""

    def __init__(self, body: nn.Sequential, last: nn.Module, shortcut: nn.Module) -> None:
        super().__init__()
        self.body, self.last, self.shortcut = body, last, shortcut

    @classmethod
    def of(cls, block: nn.Module) -> ResidualBlock | None:
        """The same of a block of `compact` or of torchvision's residual networks with folded batch norms, or None."""
        if isinstance(block, Residual):
            first, last, norm = block.inner
            folded = isinstance(norm, nn.Identity) and type(block.activation) is nn.ReLU
            return cls(nn.Sequential(first), last, nn.Identity()) if folded else None
        resnet = sys.modules.get(
            "torchvision.models.resnet"
        )  # large; where nobody imported it, there are no such blocks
        count = None if resnet is None else {resnet.BasicBlock: 2, resnet.Bottleneck: 3}.get(type(block))
        if count is None:
            return None
        parts = dict(block.named_children())
        *convolutions, last = (parts[f"conv{number}"] for number in range(1, count + 1))
        folded = all(isinstance(parts[f"bn{number}"], nn.Identity) for number in range(1, count + 1))
        if not folded or type(parts["relu"]) is not nn.ReLU:
            return None
        body = [layer for convolution in convolutions for layer in (convolution, nn.ReLU())]
        return cls(nn.Sequential(*body), last, parts.get("downsample", nn.Identity()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C', H', W') of (N, C, H, W)."""
        made, shortcut = self.body(x), self.shortcut(x)
        if isinstance(self.last, FrozenConvolution):
            return self.last(made, shortcut)
        return torch.relu(self.last(made) + shortcut)
