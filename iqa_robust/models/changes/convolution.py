"""Convolutions of changes."""

from __future__ import annotations

import torch
from torch import nn

from iqa_robust.models.changes.layers import Remembered, changes_of, pair
from iqa_robust.models.changes.maps import Maps
from iqa_robust.models.changes.reach import PAYS, Reach
from iqa_robust.models.changes.windows import Windows, covering, cut
from iqa_robust.models.kernels import Kernel, Like


class Convolution(Remembered):
    """A convolution is linear: of a change it makes, less the bias, the change of what it makes.

    So rounding to bfloat16 costs the eighth bit of a change, not that of a map with values hundreds of times as large.
    What is remembered is float32.
    """

    def __init__(self, layer: nn.Conv2d, *, rounded: bool) -> None:
        self.layer = layer
        padding = pair(layer.padding)
        self.like = Like(layer.stride, padding, layer.dilation, layer.groups)
        self.spans = tuple(d * (size - 1) for size, d in zip(layer.kernel_size, layer.dilation, strict=True))
        axes = zip(layer.kernel_size, layer.stride, padding, layer.dilation, strict=True)
        self.rows, self.columns = (Reach.of(*values) for values in axes)
        weight = layer.weight.detach()
        self.kernel = Kernel(weight.bfloat16() if rounded else weight, None, self.like)

    def whole(self, *given: torch.Tensor) -> torch.Tensor:
        """As the layer makes it."""
        made: torch.Tensor = self.layer(given[0])
        return made

    def change(self, made: torch.Tensor, *given: Maps) -> tuple[torch.Tensor, Windows]:
        """In windows that grow by the kernel."""
        windows, change = changes_of(given[0])
        change = change.to(self.kernel.weight.dtype)
        rows = self.rows.changed(windows.top, windows.height, made.shape[-2])
        columns = self.columns.changed(windows.left, windows.width, made.shape[-1])
        if rows.length * columns.length > PAYS * made[0, 0].numel():
            change = cut(change, given[0].everywhere.seen_from(windows))
            return self.kernel(change), covering(*made[:, 0].shape)
        if self.like.stride == (1, 1):
            found = self.kernel(change, padding=self.spans)
        else:
            height, width = (
                (axis.reached - 1) * stride + span + 1
                for axis, stride, span in zip((rows, columns), self.like.stride, self.spans, strict=True)
            )
            read = Windows(self.rows.input_of(rows.first), self.columns.input_of(columns.first), height, width)
            found = self.kernel(cut(change, read.seen_from(windows)), padding=(0, 0))
        made_from = Windows(rows.first, columns.first, rows.reached, columns.reached)
        written = Windows(rows.starts, columns.starts, rows.length, columns.length)
        return cut(found, written.seen_from(made_from)), written
