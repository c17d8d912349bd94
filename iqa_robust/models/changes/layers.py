"""Layers that make the change of their output from the change of their input."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable, Sequence

import torch
from torch import nn

from iqa_robust.models.changes.maps import Function, Maps
from iqa_robust.models.changes.memory import Kept, Memory
from iqa_robust.models.changes.reach import PAYS, Reach
from iqa_robust.models.changes.windows import Windows, cut, hull, laid_out, paste, placed
from iqa_robust.models.convolutions import Kernel, Like


class ChangeLayer(ABC):
    """A layer that keeps what it needs of the kept images under a name in a memory."""

    @abstractmethod
    def __call__(self, memory: Memory, name: Hashable, *given: Maps) -> Maps:
        """Maps of maps. In the first call nothing changes."""


class _Remembered(ChangeLayer):
    """A layer whose whole output is remembered."""

    def __call__(self, memory: Memory, name: Hashable, *given: Maps) -> Maps:
        """Maps of maps."""
        old = memory.maps.get(name)
        if old is None:
            kept = Kept(self.whole(*(maps.now() for maps in given)))
        else:
            kept = Kept(old.values, *self.change(old.values, *given))
        memory.remember(name, kept)
        return maps_of(kept)

    @abstractmethod
    def whole(self, *given: torch.Tensor) -> torch.Tensor:
        """Maps (N, C', H', W') of maps."""

    @abstractmethod
    def change(self, made: torch.Tensor, *given: Maps) -> tuple[torch.Tensor, Windows]:
        """By how much the maps that were `made` of the kept images differ in this call, and where."""


def maps_of(kept: Kept) -> Maps:
    """Maps that are remembered."""
    values = kept.values
    size = (values.shape[-2], values.shape[-1])
    return Maps(len(values), size, lambda windows, rows: cut(values, windows, rows), kept.windows, kept.change)


class Convolution(_Remembered):
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

    def whole(self, *given: torch.Tensor) -> torch.Tensor:
        """As the layer makes it."""
        made: torch.Tensor = self.layer(given[0])
        return made

    def change(self, made: torch.Tensor, *given: Maps) -> tuple[torch.Tensor, Windows]:
        """In windows that grow by the kernel."""
        windows, change = _changes(given[0])
        change = change.to(self.kernel.weight.dtype)
        rows = self.rows.changed(windows.top, windows.height, made.shape[-2])
        columns = self.columns.changed(windows.left, windows.width, made.shape[-1])
        if rows.length * columns.length > PAYS * made[0, 0].numel():
            change = laid_out(change, windows.top, windows.left, *given[0].size)
            return self.kernel(change), _everywhere(made)
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
        return laid_out(found, top, left, rows.length, columns.length), written


class Pool(_Remembered):
    """Maxima or means of neighbors; what lies around a change is read, too."""

    def __init__(self, layer: nn.MaxPool2d | nn.AvgPool2d) -> None:
        self.layer = layer
        dilation = _pair(layer.dilation) if isinstance(layer, nn.MaxPool2d) else (1, 1)
        stated = (_pair(value) for value in (layer.kernel_size, layer.stride, layer.padding))
        self.rows, self.columns = (Reach.of(*values) for values in zip(*stated, dilation, strict=True))

    def whole(self, *given: torch.Tensor) -> torch.Tensor:
        """As the layer makes it."""
        made: torch.Tensor = self.layer(given[0])
        return made

    def change(self, made: torch.Tensor, *given: Maps) -> tuple[torch.Tensor, Windows]:
        """In windows that grow by the kernel."""
        (maps,) = given
        windows, _ = _changes(maps)
        rows = self.rows.changed(windows.top, windows.height, made.shape[-2])
        columns = self.columns.changed(windows.left, windows.width, made.shape[-1])
        above = self.rows.needed(rows.starts, rows.length, maps.size[0])
        beside = self.columns.needed(columns.starts, columns.length, maps.size[1])
        if above.length * beside.length > PAYS * maps.size[0] * maps.size[1]:
            return self.layer(maps.now()) - made, _everywhere(made)
        pooled = self.layer(maps.now(Windows(above.starts, beside.starts, above.length, beside.length)))
        written = Windows(rows.starts, columns.starts, rows.length, columns.length)
        wanted = Windows(above.inside, beside.inside, rows.length, columns.length)
        return cut(pooled, wanted) - cut(made, written), written


class Sum(_Remembered):
    """Two maps added."""

    def whole(self, *given: torch.Tensor) -> torch.Tensor:
        """As torch makes it."""
        return given[0] + given[1]

    def change(self, made: torch.Tensor, *given: Maps) -> tuple[torch.Tensor, Windows]:
        """In windows that hold those of both."""
        windows, (one, other) = _together(given)
        return one + other, windows


class Concatenation(ChangeLayer):
    """Maps one behind the other along the channels; they are remembered where they come from."""

    def __call__(self, memory: Memory, name: Hashable, *given: Maps) -> Maps:
        """Maps of maps."""

        def kept(windows: Windows, rows: Sequence[int] | None) -> torch.Tensor:
            return torch.cat([maps.kept(windows, rows) for maps in given], dim=1)

        if given[0].windows is None:
            return Maps(given[0].count, given[0].size, kept)
        windows, changes = _together(given)
        return Maps(given[0].count, given[0].size, kept, windows, torch.cat(changes, dim=1))


class Elementwise(ChangeLayer):
    """A pointwise function, of the old values and of the new ones."""

    def __init__(self, function: Function) -> None:
        self.function = function

    def __call__(self, memory: Memory, name: Hashable, *given: Maps) -> Maps:
        """Maps of maps."""
        (maps,) = given

        def kept(windows: Windows, rows: Sequence[int] | None) -> torch.Tensor:
            return self.function(maps.kept(windows, rows))

        if maps.windows is None:
            return Maps(maps.count, maps.size, kept)
        return Maps(maps.count, maps.size, kept, maps.windows, self._change(memory, name, maps))

    def _change(self, memory: Memory, name: Hashable, maps: Maps) -> torch.Tensor:
        before = maps.before()
        return self.function(before + maps.change) - self.function(before)


class Rectifier(Elementwise):
    """A ReLU: max(b + d, 0) - max(b, 0) = max(d + min(b, 0), -max(b, 0)).

    On the right, nothing large is subtracted: either sum is of the size of the change where it is what counts. So it can
    be taken in bfloat16, and both halves of b are remembered in it, one behind the other.
    """

    def __init__(self, *, rounded: bool) -> None:
        super().__init__(torch.relu)
        self.kind = torch.bfloat16 if rounded else torch.float32

    def _change(self, memory: Memory, name: Hashable, maps: Maps) -> torch.Tensor:
        windows, change = _changes(maps)
        old = memory.maps.get(name)
        values = _halves(maps.kept(maps.everywhere, None).to(self.kind)) if old is None else old.values
        memory.remember(name, _Halves(values, maps))
        below, above = cut(values, windows).chunk(2, dim=1)
        return torch.maximum(change + below, above)


class _Halves(Kept):
    """Both halves of maps that are remembered elsewhere; made anew from these where they are settled."""

    def __init__(self, values: torch.Tensor, maps: Maps | None = None) -> None:
        super().__init__(values)
        self.maps = maps

    def settle(self, rows: Sequence[int]) -> None:
        if self.maps is not None and self.maps.windows is not None:
            whole = self.maps.kept(self.maps.windows, rows)
            paste(self.values, self.maps.windows, _halves(whole.to(self.values.dtype)), rows)


def _halves(maps: torch.Tensor) -> torch.Tensor:
    """What lies below zero, and what lies above it with a minus: (N, 2C, H, W)."""
    return torch.cat([maps.clamp_max(0), -maps.clamp_min(0)], dim=1)


def _changes(maps: Maps) -> tuple[Windows, torch.Tensor]:
    assert maps.windows is not None and maps.change is not None  # layers are asked for changes after the first call
    return maps.windows, maps.change


def _everywhere(maps: torch.Tensor) -> Windows:
    return Windows([0] * len(maps), [0] * len(maps), *maps.shape[-2:])


def _together(given: Sequence[Maps]) -> tuple[Windows, list[torch.Tensor]]:
    """Windows that hold the changes of all, and these laid out in them."""
    pairs = [_changes(maps) for maps in given]
    windows = hull([own for own, _ in pairs], *given[0].size)
    return windows, [placed(change, own, windows) for own, change in pairs]


def _pair(value: int | str | tuple[int, ...]) -> tuple[int, ...]:
    assert not isinstance(value, str)  # such convolutions are not taken
    return (value, value) if isinstance(value, int) else tuple(value)
