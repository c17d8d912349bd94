"""Convolutions with frozen weights: one pass with the sum and the ReLU after them, and a fast slope at images."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.autograd.function import once_differentiable

from iqa_robust.models.kernels import Kernel, Like
from iqa_robust.models.prepared.image_slopes import ImageSlope

COLORS = 3
"""A convolution with so many channels, or fewer, reads the image."""


class FrozenConvolution(nn.Module):
    """A convolution, with the sum and the ReLU that follow it where there are any. Differentiable once.

    One that reads the image must see all of its 8 bits. bfloat16 has as many for all values up to the next power of
    two, so a step of a gray level could vanish: such a convolution gets each value as a sum of two, and so its weights.
    """

    def __init__(self, layer: nn.Conv2d, kind: torch.dtype, *, relu: bool = False) -> None:
        """`layer` must satisfy `fits`; `kind` is bfloat16 or float32."""
        super().__init__()
        weight, bias = layer.weight.detach().to(kind), layer.bias
        self.kind, self.reads_image = kind, layer.in_channels <= COLORS
        self.in_terms = self.reads_image and kind is torch.bfloat16
        rest_of_weight = (layer.weight.detach() - weight).to(kind)
        terms = torch.cat([weight, weight, rest_of_weight], dim=1) if self.in_terms else weight
        rounded = None if bias is None else bias.detach().to(kind)
        padding = tuple(int(side) for side in layer.padding)
        self.padding, self.dilation = padding, layer.dilation
        like = Like(layer.stride, padding, layer.dilation, layer.groups)
        self.ahead = Kernel(terms, rounded, like, relu=relu)
        self.plain = Kernel(weight, None, like)
        self.at_image = ImageSlope(weight, like) if self.reads_image and ImageSlope.pays(weight, like) else None
        self.mirrored: Kernel | None = None
        rest = tuple(d * (side - 1) - p for d, side, p in zip(layer.dilation, layer.kernel_size, padding, strict=True))
        if set(layer.stride) == {1} and layer.groups == 1 and min(rest) >= 0:
            mirror = weight.flip(2, 3).transpose(0, 1)
            self.mirrored = Kernel(mirror, None, Like(layer.stride, rest, layer.dilation, 1))

    @property
    def weight(self) -> torch.Tensor:
        """The weights; networks ask them for their device and type."""
        return self.plain.weight

    @staticmethod
    def fits(layer: nn.Conv2d) -> bool:
        """Whether it is a convolution in float32 with zero padding, given by numbers."""
        plain = type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return plain and layer.weight.dtype is torch.float32 and (layer.in_channels > COLORS or layer.groups == 1)

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Maps of maps, or of an image in float32; `added` is summed with the result before the ReLU."""
        with torch.autocast(x.device.type, enabled=False):
            return _Convolve.apply(x, added, self)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, added: torch.Tensor | None, layer: FrozenConvolution) -> torch.Tensor:
        rounded = x.to(layer.kind)
        terms = torch.cat([rounded, (x - rounded).to(layer.kind), rounded], dim=1) if layer.in_terms else rounded
        made = layer.ahead(terms, None if added is None else added.to(layer.kind))
        ctx.layer, ctx.shape, ctx.kind = layer, x.shape, x.dtype
        ctx.added_kind = None if added is None else added.dtype
        ctx.save_for_backward(made if layer.ahead.relu else None)
        return made

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, slope: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        layer, (made,) = ctx.layer, ctx.saved_tensors
        if made is not None:
            slope = torch.ops.aten.threshold_backward(slope, made, 0)
        at_added = None if ctx.added_kind is None else slope.to(ctx.added_kind)
        with torch.autocast(slope.device.type, enabled=False):
            if layer.at_image is not None and slope.device.type == "cpu":
                return layer.at_image(slope, ctx.shape).to(ctx.kind), at_added, None
            found = layer.plain.slope(slope, ctx.shape) if layer.mirrored is None else layer.mirrored(slope)
        order = torch.contiguous_format if layer.reads_image else torch.preserve_format  # an attack's images are so
        return found.to(ctx.kind, memory_format=order), at_added, None
