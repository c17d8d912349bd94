"""How far a change of a layer's input reaches in its output."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from iqa_robust.models.convolutions import RoundedConvolution
from iqa_robust.models.windows import Windows, cut, paste


class Pointwise(nn.Module):
    """A layer that makes each position of a map from the one at its place, whatever lies around it."""


POINTWISE = (
    Pointwise, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.SiLU, nn.GELU, nn.Softplus, nn.Hardswish,
    nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Identity, nn.Dropout, nn.BatchNorm2d,
)  # fmt: skip
"""Layers that do so in evaluation mode."""
PAYS = 0.6
"""The largest share of a map that is cut out; beyond it, the whole takes no longer."""
CLOSE = {torch.float32: 1e-4, torch.bfloat16: 2**-6}
"""Difference between a window computed alone and in the whole, as a share of the map's largest value: sums run in
another order, and bfloat16 rounds them to eight bits, layer after layer."""


class Reach(NamedTuple):
    """What must be computed for a change: read these windows, write those, found inside what was made of the former."""

    read: Windows
    written: Windows
    inside: Windows


@dataclass(frozen=True)
class Locality:
    """Output j of a layer depends on the inputs from j * stride - before to j * stride + after, along both axes.

    `before` and `after` are bounds: as if all layers inside stood in a row.
    """

    stride: int
    before: int
    after: int
    needs_copy: bool = False
    """Whether the layer edits its input in place, or hands it on."""

    def reach(self, changed: Windows, given: Sequence[int], made: Sequence[int]) -> Reach | None:
        """What a change of an input of size `given` (H, W) asks for, the output being of size `made`.

        None where so much of it would be read that the whole is as fast.
        """
        rows = self._along(changed.top, changed.height, given[0], made[0])
        columns = self._along(changed.left, changed.width, given[1], made[1])
        if rows.reads * columns.reads > PAYS * given[0] * given[1]:
            return None
        return Reach(
            Windows(rows.read, columns.read, rows.reads, columns.reads),
            Windows(rows.written, columns.written, rows.writes, columns.writes),
            Windows(rows.inside, columns.inside, rows.writes, columns.writes),
        )

    def _along(self, changed: Sequence[int], length: int, given: int, made: int) -> _Span:
        step, before, after = self.stride, self.before, self.after
        first = [max(-(-(start - after) // step), 0) for start in changed]
        last = [min((start + length - 1 + before) // step, made - 1) for start in changed]
        writes = max(max(end - start + 1 for start, end in zip(first, last, strict=True)), 1)
        written = [min(start, made - writes) for start in first]
        # What is read begins at a multiple of the stride, so that the layer meets its inputs in the same phase.
        read = [max(start * step - before, 0) // step * step for start in written]
        ends = [min((start + writes - 1) * step + after + 1, given) for start in written]
        reads = max(end - start for start, end in zip(read, ends, strict=True))
        reads += (given - reads) % step
        read = [min(start, given - reads) for start in read]
        inside = [here - start // step for here, start in zip(written, read, strict=True)]
        return _Span(read, reads, written, writes, inside)


class _Span(NamedTuple):
    """`Reach` along one axis."""

    read: list[int]
    reads: int
    written: list[int]
    writes: int
    inside: list[int]


def locality_of(layer: nn.Module, given: torch.Tensor) -> Locality | None:
    """How far changes reach in a layer, seen in a pass of random maps (1, C, H, W) and checked in a few places.

    None where the layer, or one inside it, is of a kind whose reach is unknown, and where a window computed alone is
    not what it is in the whole, or the whole changes elsewhere, too.
    """
    where = _stated(layer, given)
    if where is None or not all(_holds(layer, given, where, windows) for windows in _places(*given.shape[-2:])):
        return None
    return where


def _places(height: int, width: int) -> list[Windows]:
    """Windows at two corners, and one that begins at odd places."""
    side = max(min(height, width) // 16, 1)
    places = [(0, 0), (height - side, width - side), (height // 2 | 1, width // 3 | 1)]
    return [Windows([top], [left], side, side) for top, left in places]


def _holds(layer: nn.Module, given: torch.Tensor, where: Locality, windows: Windows) -> bool:
    """Whether a change in the windows does what `where` says."""
    other = given.clone()
    paste(other, windows, 1 - cut(given, windows))
    before, after = layer(given.clone()), layer(other.clone())
    reach = where.reach(windows, given.shape[-2:], after.shape[-2:])
    if reach is None:
        return False
    wanted = cut(after, reach.written)
    paste(before, reach.written, wanted)
    error = (cut(layer(cut(other, reach.read)), reach.inside) - wanted).abs().max()
    return torch.equal(before, after) and bool(error <= CLOSE.get(after.dtype, 0) * after.abs().max())


def _stated(layer: nn.Module, given: torch.Tensor) -> Locality | None:
    """How far changes reach by what the layers inside say; None where one of them says nothing."""
    inner: list[tuple[nn.Module, torch.Size]] = []

    def note(part: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        inner.append((part, arguments[0].shape))

    hooks = [part.register_forward_pre_hook(note) for part in _leaves(layer)]
    maps = given.clone()
    version = maps._version
    try:
        made = layer(maps)
    finally:
        for hook in hooks:
            hook.remove()
    needs_copy = maps._version != version or made.untyped_storage().data_ptr() == maps.untyped_storage().data_ptr()
    stride, across = (round(given.shape[axis] / made.shape[axis]) for axis in (-1, -2))
    if stride != across or stride < 1:
        return None
    before = after = 0
    for part, shape in inner:
        spread, scale = _spread(part), round(given.shape[-1] / shape[-1])
        if spread is None or not 1 <= scale <= stride:  # a map smaller than the result holds something of the whole
            return None
        before, after = before + spread[0] * scale, after + spread[1] * scale
    return Locality(stride, before, after, needs_copy) if inner else None


def _leaves(layer: nn.Module) -> list[nn.Module]:
    """The layers without layers inside."""
    children = list(layer.children())
    if isinstance(layer, RoundedConvolution) or not children:
        return [layer]
    return [leaf for child in children for leaf in _leaves(child)]


def _spread(layer: nn.Module) -> tuple[int, int] | None:
    """How many inputs before and after its place an output of a layer depends on; None where that is unknown."""
    if isinstance(layer, POINTWISE):
        return 0, 0
    if isinstance(layer, nn.Conv2d | RoundedConvolution):
        sizes, paddings, dilations = tuple(layer.weight.shape[-2:]), layer.padding, layer.dilation
        if isinstance(layer, nn.Conv2d) and layer.padding_mode != "zeros":
            return None
    elif isinstance(layer, nn.MaxPool2d):
        sizes, paddings, dilations = (_pair(value) for value in (layer.kernel_size, layer.padding, layer.dilation))
    elif isinstance(layer, nn.AvgPool2d):
        sizes, paddings, dilations = _pair(layer.kernel_size), _pair(layer.padding), (1, 1)
    else:
        return None
    if isinstance(paddings, str):
        return None
    rest = [dilation * (size - 1) - padding for size, padding, dilation in zip(sizes, paddings, dilations, strict=True)]
    return max(paddings), max(*rest, 0)


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
