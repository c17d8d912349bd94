"""How far a change of a layer's input reaches in its output, and which layers of a network know that."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import nn

from iqa_robust.models.convolutions import RoundedConvolution


class Pointwise(nn.Module):
    """A layer that makes each position of a map from the one at its place, whatever lies around it."""


POINTWISE = (
    Pointwise, nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.ELU, nn.SELU, nn.SiLU, nn.GELU, nn.Softplus, nn.Hardswish,
    nn.Hardsigmoid, nn.Sigmoid, nn.Tanh, nn.Identity, nn.Dropout, nn.BatchNorm2d,
)  # fmt: skip
"""Layers that do so in evaluation mode."""
PAYS = 0.6
"""The largest share of a map that is cut out; beyond it, the whole takes no longer."""
LARGE = 100e6
"""Products per image from which on a row of layers is as many links: each reads less, and cutting costs little."""


class Windows(NamedTuple):
    """Rectangles of one size in maps or images, one in each."""

    top: Sequence[int]
    left: Sequence[int]
    height: int
    width: int


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


@dataclass(frozen=True)
class Link:
    """A layer of a chain."""

    layer: nn.Module
    where: Locality
    given: torch.Tensor
    """The example's maps at its input."""


@dataclass
class _Call:
    layer: nn.Module
    given: torch.Tensor
    version: int
    alone: bool
    """Whether the map is its only argument."""
    made: torch.Tensor | None = None
    version_made: int = 0
    inner: list[_Call] | None = None
    """Calls of the layers in it that have none inside; None where one of them got something else than maps."""


def chain(network: nn.Module, x: torch.Tensor) -> list[Link]:
    """Local layers that an image passes one after the other, each of which gets what the one before it made.

    The first gets maps of the image's size. Seen in a pass of an example (1, 3, H, W), not guessed from names; that
    what lies between image and first layer is local as well, and that the layers hide nothing, is not seen here.
    """
    calls = _calls(network, x)
    times: dict[int, int] = {}
    for call in calls:
        times[id(call.layer)] = times.get(id(call.layer), 0) + 1
    links: list[Link] = []
    at: torch.Tensor | None = None
    for call in calls:  # a layer comes before those inside it
        arrives = call.given[:, 0].shape == x[:, 0].shape if at is None else call.given is at
        where = _locality(call) if arrives and call.alone and times[id(call.layer)] == 1 else None
        if isinstance(call.layer, nn.Sequential) and _products(call) >= LARGE:
            continue  # those inside it come next
        if where is not None and call.made is not call.given:
            links.append(Link(call.layer, where, call.given))
            at = call.made
    return links


def _locality(call: _Call) -> Locality | None:
    """How far a change reaches; None where that is unknown, or where maps are edited that must stay as they are."""
    made = call.made
    if made is None or made.ndim != 4 or not call.inner:
        return None
    if call.given._version != call.version or made._version != call.version_made:
        return None
    before = after = 0
    for inner in call.inner:
        spread = _spread(inner.layer)
        if spread is None:
            return None
        scale = round(call.given.shape[-1] / inner.given.shape[-1])
        before, after = before + spread[0] * scale, after + spread[1] * scale
    return Locality(round(call.given.shape[-1] / made.shape[-1]), before, after)


def _products(call: _Call) -> float:
    """Products of the convolutions inside a layer, for one image."""
    total = 0.0
    for inner in call.inner or []:
        if isinstance(inner.layer, nn.Conv2d | RoundedConvolution) and inner.made is not None:
            total += inner.made[0, 0].numel() * inner.layer.weight.numel()
    return total


def _spread(layer: nn.Module) -> tuple[int, int] | None:
    """How many inputs before and after its place an output of a layer depends on; None where that is unknown."""
    if isinstance(layer, POINTWISE):
        return 0, 0
    if isinstance(layer, nn.Conv2d | RoundedConvolution):
        sizes, paddings, dilations = tuple(layer.weight.shape[-2:]), layer.padding, layer.dilation
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


def _calls(network: nn.Module, x: torch.Tensor) -> list[_Call]:
    """All calls with maps (1, C, H, W) as arguments, in the order in which they begin."""
    calls: list[_Call] = []
    running: list[_Call | None] = []

    def begin(layer: nn.Module, given: tuple[object, ...]) -> None:
        if any(outer is not None and isinstance(outer.layer, RoundedConvolution) for outer in running):
            running.append(None)  # it counts as one layer
            return
        map_ = given[0] if given and all(isinstance(one, torch.Tensor) and one.ndim == 4 for one in given) else None
        is_leaf = isinstance(layer, RoundedConvolution) or next(layer.children(), None) is None
        call = None
        if isinstance(map_, torch.Tensor):
            call = _Call(layer, map_, map_._version, len(given) == 1, inner=[])
            calls.append(call)
        running.append(call)
        for outer in running if is_leaf else []:
            if outer is not None and outer.inner is not None:
                outer.inner = None if call is None else [*outer.inner, call]

    def end(layer: nn.Module, given: tuple[object, ...], made: object) -> None:
        call = running.pop()
        if call is not None and isinstance(made, torch.Tensor):
            call.made, call.version_made = made, made._version

    hooks = [module.register_forward_pre_hook(begin) for module in network.modules()]
    hooks += [module.register_forward_hook(end) for module in network.modules()]
    try:
        network(x)
    finally:
        for hook in hooks:
            hook.remove()
    return calls
