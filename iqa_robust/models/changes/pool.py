"""Pooling of maps with changes in them."""

from __future__ import annotations

import torch
from torch import nn

from iqa_robust.models.changes.layers import Remembered, changes_of, pair
from iqa_robust.models.changes.maps import Maps
from iqa_robust.models.changes.reach import PAYS, Reach
from iqa_robust.models.changes.windows import Windows, covering, cut


class Pool(Remembered):
    """Maxima or means of neighbors; what lies around a change is read, too."""

    def __init__(self, layer: nn.MaxPool2d | nn.AvgPool2d) -> None:
        self.layer = layer
        dilation = pair(layer.dilation) if isinstance(layer, nn.MaxPool2d) else (1, 1)
        stated = (pair(value) for value in (layer.kernel_size, layer.stride, layer.padding))
        self.rows, self.columns = (Reach.of(*values) for values in zip(*stated, dilation, strict=True))

    def whole(self, *given: torch.Tensor) -> torch.Tensor:
        """As the layer makes it."""
        made: torch.Tensor = self.layer(given[0])
        return made

    def change(self, made: torch.Tensor, *given: Maps) -> tuple[torch.Tensor, Windows]:
        """In windows that grow by the kernel."""
        (maps,) = given
        windows, _ = changes_of(maps)
        rows = self.rows.changed(windows.top, windows.height, made.shape[-2])
        columns = self.columns.changed(windows.left, windows.width, made.shape[-1])
        above = self.rows.needed(rows.starts, rows.length, maps.size[0])
        beside = self.columns.needed(columns.starts, columns.length, maps.size[1])
        if above.length * beside.length > PAYS * maps.size[0] * maps.size[1]:
            return self.layer(maps.now()) - made, covering(*made[:, 0].shape)
        pooled = self.layer(maps.now(Windows(above.starts, beside.starts, above.length, beside.length)))
        written = Windows(rows.starts, columns.starts, rows.length, columns.length)
        wanted = Windows(above.inside, beside.inside, rows.length, columns.length)
        return cut(pooled, wanted) - cut(made, written), written
