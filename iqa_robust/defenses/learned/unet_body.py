"""The U-shaped network under `unet` and `diffpure`: residual blocks at several resolutions, without normalization.

After DRUNet (Zhang et al., 2021, "Plug-and-play image restoration with deep denoiser prior"): strided convolutions
down, additive skips, no normalization, so that what happens to a pixel depends on its neighborhood only and a large
image may be cut into tiles. It works on blocks of 2 x 2 pixels, moved into the channels, which loses nothing and costs
a quarter.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import nn
from torch.nn import functional as F


class ResidualBlock(nn.Module):
    """Two 3 x 3 convolutions added to their input; an embedding, if any, scales and shifts the values between them.

    Args:
        width: channels.
        embedding: length of the vector that steers the block; 0 for none.
    """

    def __init__(self, width: int, embedding: int = 0) -> None:
        super().__init__()
        self.first = nn.Conv2d(width, width, 3, padding=1)
        self.second = nn.Conv2d(width, width, 3, padding=1)
        self.steer = nn.Linear(embedding, 2 * width) if embedding else None
        if self.steer is not None:
            nn.init.zeros_(self.steer.weight)
            nn.init.zeros_(self.steer.bias)

    def forward(self, x: torch.Tensor, embedding: torch.Tensor | None = None) -> torch.Tensor:
        """(N, width, h, w) and an embedding (N, E) or None -> same shape."""
        inner = self.first(F.relu(x))
        if self.steer is not None:
            scale, shift = self.steer(embedding)[..., None, None].chunk(2, dim=1)
            inner = inner * (1 + scale) + shift
        return x + self.second(F.relu(inner))


def zero_convolution(entering: int, leaving: int) -> nn.Conv2d:
    """A 3 x 3 convolution whose weights are zero before training, so that a network starts as what it corrects."""
    convolution = nn.Conv2d(entering, leaving, 3, padding=1)
    for parameter in convolution.parameters():
        nn.init.zeros_(parameter)
    return convolution


class UNetBody(nn.Module):
    """Images (N, 3, H, W) of any size to maps of the same shape; untrained, the map is zero.

    Args:
        widths: channels at a half, a quarter, an eighth ... of the resolution.
        blocks: residual blocks per resolution, on the way down and again on the way up.
        embedding: length of the vector that steers the blocks; 0 for none.
    """

    def __init__(self, *, widths: Sequence[int], blocks: int, embedding: int = 0) -> None:
        super().__init__()

        def stage(width: int) -> nn.ModuleList:
            return nn.ModuleList(ResidualBlock(width, embedding) for _ in range(blocks))

        steps = list(pairwise(widths))
        self.multiple = 2 ** len(widths)
        """Sides that are multiples of this are not padded."""
        self.enter = nn.Sequential(nn.PixelUnshuffle(2), nn.Conv2d(12, widths[0], 3, padding=1))
        self.down = nn.ModuleList(stage(width) for width in widths[:-1])
        self.coarser = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.bottom = stage(widths[-1])
        self.finer = nn.ModuleList(
            nn.Sequential(nn.Conv2d(coarse, 4 * fine, 1), nn.PixelShuffle(2)) for fine, coarse in reversed(steps)
        )
        self.up = nn.ModuleList(stage(fine) for fine, _ in reversed(steps))
        self.leave = nn.Sequential(nn.ReLU(), zero_convolution(widths[0], 12), nn.PixelShuffle(2))

    def forward(self, x: torch.Tensor, embedding: torch.Tensor | None = None) -> torch.Tensor:
        """The map; sides are padded with copies of the outermost pixels to a multiple of `multiple`, then cut."""
        height, width = x.shape[-2:]
        h = self.enter(F.pad(x, (0, -width % self.multiple, 0, -height % self.multiple), mode="replicate"))
        skips = []
        for stage, coarser in zip(self.down, self.coarser, strict=True):
            for block in stage.children():
                h = block(h, embedding)
            skips.append(h)
            h = coarser(h)
        for block in self.bottom:
            h = block(h, embedding)
        for finer, stage, skip in zip(self.finer, self.up, reversed(skips), strict=True):
            h = finer(h) + skip
            for block in stage.children():
                h = block(h, embedding)
        return self.leave(h)[..., :height, :width]
