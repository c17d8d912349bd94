"""The slope of a convolution at the image it reads, for a CPU: whole blocks of pixels at once."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import nn

from iqa_robust.models.kernels import Kernel, Like

SIDE = 2
"""Least side of a block in pixels; a larger stride is a side by itself."""
LEAST_WORK = {torch.bfloat16: 512, torch.float32: 256}
"""Channels times weights of each, below which the way of the pixels into their places takes what is gained."""
AT_ONCE = 16
"""Channels that a processor makes at once; it takes longer for fewer."""


class ImageSlope(nn.Module):
    """The slope at an image (N, C, H, W), C at most three, of the slope at the maps (N, O, h, w), which is convolved.

    A processor takes as long to make three channels as to make sixteen, so a block of b x b pixels is made as C b^2
    channels. With stride s and kernel side k, pixel y (counted from the padded edge) takes weight u of position o where
    y = s o + u. A block of b = r s pixels takes the positions from (k - 1) // s before its first one to its r-th, and
    blocks are r positions apart: this is a convolution of stride r with those weights in their places.
    """

    def __init__(self, weight: torch.Tensor, like: Like) -> None:
        """`weight` (O, C, kh, kw) of the convolution, which has no groups and no dilation."""
        super().__init__()
        self.colors = weight.shape[1]
        self.rows, self.columns = (
            _Axis(size, stride, padding)
            for size, stride, padding in zip(weight.shape[2:], like.stride, like.padding, strict=True)
        )
        places = (weight.float(), self.rows.places(weight.device), self.columns.places(weight.device))
        blocks = torch.einsum("ocuv,aiu,bjv->abcoij", *places).flatten(0, 2).to(weight.dtype)  # one weight or none each
        self.made = len(blocks)
        blocks = torch.cat([blocks, blocks.new_zeros(-self.made % AT_ONCE, *blocks.shape[1:])])
        self.kernel = Kernel(blocks, None, Like((self.rows.step, self.columns.step), (0, 0), (1, 1), 1))

    @staticmethod
    def pays(weight: torch.Tensor, like: Like) -> bool:
        """Whether it is faster than torch's way, as measured."""
        return set(like.dilation) == {1} and weight[:, 0].numel() >= LEAST_WORK[weight.dtype]

    def forward(self, slope: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """The slope at images of `shape`, float32."""
        (up, top, down), (left, first, across) = (
            axis.cover(pixels, positions)
            for axis, pixels, positions in zip((self.rows, self.columns), shape[2:], slope.shape[2:], strict=True)
        )
        blocks = self.kernel(slope, padding=(up, left))[:, : self.made, top : top + down, first : first + across]
        sides = (self.rows.block, self.columns.block)
        inner = blocks.permute(0, 2, 3, 1).unflatten(3, (*sides, self.colors)).permute(0, 5, 1, 3, 2, 4)
        pixels = torch.empty(inner.shape, dtype=torch.float32, device=slope.device).copy_(inner)
        pixels = pixels.flatten(4, 5).flatten(2, 3)
        row, column = self.rows.padding, self.columns.padding
        return pixels[:, :, row : row + shape[2], column : column + shape[3]].contiguous()  # as an attack's images are


class _Axis(NamedTuple):
    """One direction of a convolution."""

    size: int
    stride: int
    padding: int

    @property
    def step(self) -> int:
        """Positions of the maps per block."""
        return -(-SIDE // self.stride)

    @property
    def block(self) -> int:
        """Pixels per block."""
        return self.step * self.stride

    @property
    def before(self) -> int:
        """Positions before a block's first one that see its pixels."""
        return (self.size - 1) // self.stride

    def places(self, device: torch.device) -> torch.Tensor:
        """(pixels of a block, positions it takes, weights): one where they meet, else zero."""
        pixel = torch.arange(self.block, device=device)[:, None, None]
        position = torch.arange(self.before + self.step, device=device)[:, None] - self.before
        return (pixel - self.stride * position == torch.arange(self.size, device=device)).float()

    def cover(self, pixels: int, positions: int) -> tuple[int, int, int]:
        """Zeros around the positions, then the first of the blocks made from them that counts, and how many do."""
        count = -(-(self.padding + pixels) // self.block)
        behind = max(self.step * count - positions - self.before, 0)  # zeros are the same on both sides
        first = -(-behind // self.step)
        return self.before + first * self.step, first, count
