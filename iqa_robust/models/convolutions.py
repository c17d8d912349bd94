"""Convolutions in bfloat16 with frozen weights: laid out once for a CPU, one pass with sum and ReLU after them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

COLORS = 3
"""A convolution with so many channels, or fewer, reads the image."""


class RoundedConvolution(nn.Module):
    """A convolution in bfloat16, with the sum and the ReLU that follow it where there are any. Differentiable once.

    One that reads the image must see all of its 8 bits. bfloat16 has as many for all values up to the next power of
    two, so a step of a gray level could vanish: such a convolution gets each value as a sum of two, and so its weights.
    """

    def __init__(self, layer: nn.Conv2d, *, relu: bool = False) -> None:
        """`layer` must satisfy `fits`; its weights are copied."""
        super().__init__()
        weight, bias = layer.weight.detach().bfloat16(), layer.bias
        self.reads_image = layer.in_channels <= COLORS
        rest_of_weight = (layer.weight.detach() - weight).bfloat16()
        terms = torch.cat([weight, weight, rest_of_weight], dim=1) if self.reads_image else weight
        rounded = None if bias is None else bias.detach().bfloat16()
        padding = tuple(int(side) for side in layer.padding)
        self.padding, self.dilation = padding, layer.dilation
        like = Like(layer.stride, padding, layer.dilation, layer.groups)
        self.ahead = Kernel(terms, rounded, like, relu=relu)
        self.plain = Kernel(weight, None, like)
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
        """Whether it is a convolution with zero padding, given by numbers."""
        plain = type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str)
        return plain and (layer.in_channels > COLORS or layer.groups == 1)

    def forward(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """Maps in bfloat16 of maps, or of an image in float32; `added` is summed with the result before the ReLU."""
        with torch.autocast(x.device.type, enabled=False):
            return _Convolve.apply(x, added, self)


class _Convolve(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, added: torch.Tensor | None, layer: RoundedConvolution) -> torch.Tensor:
        rounded = x.bfloat16()
        terms = torch.cat([rounded, (x - rounded).bfloat16(), rounded], dim=1) if layer.reads_image else rounded
        made = layer.ahead(terms, None if added is None else added.bfloat16())
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
        found = layer.plain.slope(slope, ctx.shape) if layer.mirrored is None else layer.mirrored(slope)
        order = torch.contiguous_format if layer.reads_image else torch.preserve_format  # an attack's images are so
        at_x = found.to(ctx.kind, memory_format=order)
        return at_x, None if ctx.added_kind is None else slope.to(ctx.added_kind), None


class Like(NamedTuple):
    """How a convolution moves over maps, as torch's functions take it."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


class Kernel(nn.Module):
    """A convolution with fixed weights.

    A CPU wants them in an order of its own. torch brings them into it in every call, a tenth of what a ResNet-18 takes;
    here it is done at the first one.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, like: Like, *, relu: bool = False) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)
        self.like, self.relu = like, relu
        self._ordered: torch.Tensor | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the ordered weights: torch cannot copy them, and they are made again."""
        return {**self.__dict__, "_ordered": None}

    def forward(
        self, x: torch.Tensor, added: torch.Tensor | None = None, padding: tuple[int, ...] | None = None
    ) -> torch.Tensor:
        """Maps of maps, with `added` summed to them; with another padding than its own, where one is given."""
        stride, own_padding, dilation, groups = self.like
        padding = own_padding if padding is None else padding
        if x.device.type == "cpu" and _orders_weights():
            if self._ordered is None:
                order = torch.ops.mkldnn._reorder_convolution_weight
                self._ordered = order(self.weight, padding, stride, dilation, groups, list(x.shape))
            convolve, after = torch.ops.mkldnn._convolution_pointwise, "relu" if self.relu else "none"
            rest = (self._ordered, self.bias, padding, stride, dilation, groups)
            if added is None:
                made: torch.Tensor = convolve(x, *rest, after, [], "")
            else:
                made = convolve.binary(x, added, *rest, "add", 1.0, after, [], "")
            return made
        made = F.conv2d(x, self.weight, self.bias, stride, padding, dilation, groups)
        made = made if added is None else made.add_(added)
        return made.relu_() if self.relu else made

    def slope(self, slope: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """The slope at maps of `shape`."""
        order = torch.channels_last
        maps = torch.empty(shape, dtype=slope.dtype, device=slope.device, memory_format=order)  # values play no part
        like = (self.like.stride, self.like.padding, self.like.dilation, False, (0, 0), self.like.groups)
        backward = torch.ops.aten.convolution_backward
        found: torch.Tensor = backward(slope, maps, self.weight, None, *like, (True, False, False))[0]
        return found


def _orders_weights() -> bool:
    """Whether torch's operators for compiled networks, which take ordered weights, are there for bfloat16."""
    mkldnn = torch.ops.mkldnn
    return hasattr(mkldnn, "_convolution_pointwise") and bool(mkldnn._is_mkldnn_bf16_supported())
