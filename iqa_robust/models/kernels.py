"""A convolution with fixed weights, laid out once for a CPU."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from iqa_robust.models.winograd import Winograd


class Like(NamedTuple):
    """How a convolution moves over maps, as torch's functions take it."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int


class Kernel(nn.Module):
    """A convolution with fixed weights, by `Winograd` where that is faster.

    A CPU wants them in an order of its own. torch brings them into it in every call, a tenth of what a ResNet-18 takes;
    here it is done where the number of images changes: one that is best for few takes up to 1.4 times as long for many.
    """

    weight: torch.Tensor
    bias: torch.Tensor | None

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, like: Like, *, relu: bool = False) -> None:
        super().__init__()
        self.register_buffer("weight", weight.contiguous(memory_format=torch.channels_last))
        self.register_buffer("bias", bias)
        self.like, self.relu = like, relu
        self._ordered: torch.Tensor | None = None
        self._for = 0
        """The number of images that the order is for."""
        self._winograd: Winograd | None = None

    def __getstate__(self) -> dict[str, Any]:
        """Without the ordered weights: torch cannot copy them, and they are made again. So are those for tiles."""
        return {**self.__dict__, "_ordered": None, "_for": 0, "_winograd": None}

    def forward(
        self, x: torch.Tensor, added: torch.Tensor | None = None, padding: tuple[int, ...] | None = None
    ) -> torch.Tensor:
        """Maps of maps, with `added` summed to them; with another padding than its own, where one is given."""
        stride, own_padding, dilation, groups = self.like
        padding = own_padding if padding is None else padding
        if x.device.type == "cpu" and _orders_weights(x.dtype):
            if self._winograd_pays(x, padding):
                if self._winograd is None:
                    self._winograd = Winograd(self.weight, self.bias, relu=self.relu)
                return self._winograd(x, padding, added)
            if self._ordered is None or self._for != len(x):
                self._for = len(x)
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

    def _winograd_pays(self, x: torch.Tensor, padding: tuple[int, ...]) -> bool:
        plain = self.like.stride == self.like.dilation == (1, 1) and self.like.groups == 1 and x.dtype is torch.float32
        outputs, inputs, *sides = self.weight.shape
        high, wide = x.shape[2] + 2 * padding[0] - 2, x.shape[3] + 2 * padding[1] - 2
        return plain and sides == [3, 3] and Winograd.pays(inputs, outputs, high, wide)

    def slope(self, slope: torch.Tensor, shape: torch.Size) -> torch.Tensor:
        """The slope at maps of `shape`."""
        order = torch.channels_last
        maps = torch.empty(shape, dtype=slope.dtype, device=slope.device, memory_format=order)  # values play no part
        like = (self.like.stride, self.like.padding, self.like.dilation, False, (0, 0), self.like.groups)
        backward = torch.ops.aten.convolution_backward
        found: torch.Tensor = backward(slope, maps, self.weight, None, *like, (True, False, False))[0]
        return found


_CAN_ORDER = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
"""Whether torch's operators for compiled networks, which take ordered weights, are there."""


def _orders_weights(kind: torch.dtype) -> bool:
    """Whether they are there for numbers of a kind."""
    rounded = kind is torch.bfloat16 and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return _CAN_ORDER and (rounded or kind is torch.float32)
