"""Layers that make the change of their output from the change of their input."""

from __future__ import annotations

from abc import ABC, abstractmethod

import torch
from torch import nn

from iqa_robust.models.changes.maps import Maps
from iqa_robust.models.changes.memory import Kept
from iqa_robust.models.changes.reach import PAYS, Reach
from iqa_robust.models.changes.windows import Windows, all_of, cut, hull, laid_out
from iqa_robust.models.convolutions import Kernel, Like


class ChangeLayer(ABC):
    """A layer whose output is remembered."""

    @abstractmethod
    def whole(self, *given: Maps) -> torch.Tensor:
        """Maps (N, C', H', W') of maps."""

    @abstractmethod
    def change(self, made: torch.Tensor, *given: Maps) -> Kept:
        """Maps that were `made` of the kept images, and what changes in them; `made` is not edited."""


class Convolution(ChangeLayer):
    """A convolution is linear: of a change it makes, less the bias, the change of what it makes.

    So rounding to bfloat16 costs the eighth bit of a change, not that of a map with values hundreds of times as large.
    What is remembered is float32.
    """

    def __init__(self, layer: nn.Conv2d, *, rounded: bool) -> None:
        self.layer = layer
        padding = _pair(layer.padding)
        self.like = Like(layer.stride, padding, layer.dilation, layer.groups)
        self.spans = tuple(d * (size - 1) for size, d in zip(layer.kernel_size, layer.dilation, strict=True))
        axes = zip(layer.kernel_size, layer.stride, padding, layer.dilation, strict=True)
        self.rows, self.columns = (Reach.of(*values) for values in axes)
        weight = layer.weight.detach()
        self.kernel = Kernel(weight.bfloat16() if rounded else weight, None, self.like)

    def whole(self, *given: Maps) -> torch.Tensor:
        """As the layer makes it."""
        made: torch.Tensor = self.layer(given[0].whole())
        return made

    def change(self, made: torch.Tensor, *given: Maps) -> Kept:
        """In windows that grow by the kernel."""
        (maps,) = given
        windows, change = maps.windows, maps.difference.to(self.kernel.weight.dtype)
        assert windows is not None  # `change` is asked where changes are known
        rows = self.rows.changed(windows.top, windows.height, made.shape[-2])
        columns = self.columns.changed(windows.left, windows.width, made.shape[-1])
        if rows.length * columns.length > PAYS * made[0, 0].numel():
            change = laid_out(change, windows.top, windows.left, *maps.size)
            return Kept(made, all_of(made), made, made + self.kernel(change))
        if self.like.stride == (1, 1):
            found = self.kernel(change, padding=self.spans)
        else:
            top, left = (
                [start - reach.input_of(output) for start, output in zip(starts, axis.first, strict=True)]
                for reach, starts, axis in ((self.rows, windows.top, rows), (self.columns, windows.left, columns))
            )
            height, width = (
                (axis.reached - 1) * stride + span + 1
                for axis, stride, span in zip((rows, columns), self.like.stride, self.spans, strict=True)
            )
            found = self.kernel(laid_out(change, top, left, height, width), padding=(0, 0))
        top, left = ([a - b for a, b in zip(axis.first, axis.starts, strict=True)] for axis in (rows, columns))
        written = Windows(rows.starts, columns.starts, rows.length, columns.length)
        before = cut(made, written)
        return Kept(made, written, before, before + laid_out(found, top, left, rows.length, columns.length))


class Pool(ChangeLayer):
    """Maxima or means of neighbors; what lies around a change is read, too."""

    def __init__(self, layer: nn.MaxPool2d | nn.AvgPool2d) -> None:
        self.layer = layer
        dilation = _pair(layer.dilation) if isinstance(layer, nn.MaxPool2d) else (1, 1)
        stated = (_pair(value) for value in (layer.kernel_size, layer.stride, layer.padding))
        self.rows, self.columns = (Reach.of(*values) for values in zip(*stated, dilation, strict=True))

    def whole(self, *given: Maps) -> torch.Tensor:
        """As the layer makes it."""
        made: torch.Tensor = self.layer(given[0].whole())
        return made

    def change(self, made: torch.Tensor, *given: Maps) -> Kept:
        """In windows that grow by the kernel."""
        (maps,) = given
        assert maps.windows is not None
        rows = self.rows.changed(maps.windows.top, maps.windows.height, made.shape[-2])
        columns = self.columns.changed(maps.windows.left, maps.windows.width, made.shape[-1])
        above = self.rows.needed(rows.starts, rows.length, maps.size[0])
        beside = self.columns.needed(columns.starts, columns.length, maps.size[1])
        if above.length * beside.length > PAYS * maps.size[0] * maps.size[1]:
            return Kept(made, all_of(made), made, self.layer(maps.whole()))
        piece = self.layer(maps.piece(Windows(above.starts, beside.starts, above.length, beside.length)))
        written = Windows(rows.starts, columns.starts, rows.length, columns.length)
        now = cut(piece, Windows(above.inside, beside.inside, rows.length, columns.length))
        return Kept(made, written, cut(made, written), now)


class Sum(ChangeLayer):
    """Two maps added."""

    def whole(self, *given: Maps) -> torch.Tensor:
        """As torch makes it."""
        return given[0].whole() + given[1].whole()

    def change(self, made: torch.Tensor, *given: Maps) -> Kept:
        """In windows that hold those of both."""
        windows = _all_changed(given)
        return Kept(made, windows, cut(made, windows), given[0].piece(windows) + given[1].piece(windows))


class Concatenation(ChangeLayer):
    """Maps one behind the other along the channels."""

    def whole(self, *given: Maps) -> torch.Tensor:
        """As torch makes it."""
        return torch.cat([maps.whole() for maps in given], dim=1)

    def change(self, made: torch.Tensor, *given: Maps) -> Kept:
        """In windows that hold those of all."""
        windows = _all_changed(given)
        now = torch.cat([maps.piece(windows) for maps in given], dim=1)
        return Kept(made, windows, cut(made, windows), now)


def _all_changed(given: tuple[Maps, ...]) -> Windows:
    windows = [maps.windows for maps in given if maps.windows is not None]
    return hull(windows, *given[0].size)


def _pair(value: int | str | tuple[int, ...]) -> tuple[int, ...]:
    assert not isinstance(value, str)  # such convolutions are not taken
    return (value, value) if isinstance(value, int) else tuple(value)
