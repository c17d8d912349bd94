"""The steps of a network as layers that pass changes on, found by tracing them."""

from __future__ import annotations

import operator
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional as F

from iqa_robust.models.changes.convolution import Convolution
from iqa_robust.models.changes.elementwise import Elementwise, Rectifier
from iqa_robust.models.changes.joins import Concatenation, Sum
from iqa_robust.models.changes.layers import ChangeLayer
from iqa_robust.models.changes.pointwise import Pointwise, edits, harmless, is_pointwise
from iqa_robust.models.changes.pool import Pool
from iqa_robust.models.max_pool import MaxPool2d

GIVEN = -1
"""The number of what a step gets."""
NOTHING = (nn.Identity, nn.Dropout, nn.Dropout2d)
"""Layers that hand on what they get, in evaluation mode."""
RELU = (torch.relu, F.relu, "relu")
ADDED = (operator.add, operator.iadd)


@dataclass(frozen=True)
class Operation:
    """What a layer makes of the results of earlier operations, or of what the step gets."""

    layer: ChangeLayer
    given: tuple[int, ...]


@dataclass(frozen=True)
class Step:
    """Operations, numbered in their order, and the one whose result the step hands on."""

    operations: tuple[Operation, ...]
    result: int


class _UnknownError(Exception):
    """How far changes reach in some operation is not known."""


def traced(step: nn.Module, *, rounded: bool) -> Step | None:
    """A step, frozen and in evaluation mode; None where it does something whose reach is not known.

    With `rounded`, convolutions take changes in bfloat16.
    """
    inside = nn.Sequential(step)
    try:
        graph = _Tracer().trace(inside)
    except Exception:  # whatever a module may do that cannot be traced
        return None
    try:
        return _Reader(inside, rounded).read(graph)
    except _UnknownError:
        return None


class _Proxy(fx.Proxy):
    """Tells `x += y`, which edits x, from `x = x + y`."""

    def __iadd__(self, other: Any) -> fx.Proxy:
        return self.tracer.create_proxy("call_function", operator.iadd, (self, other), {})


class _Tracer(fx.Tracer):
    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Proxy(node, self)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return isinstance(m, Pointwise | MaxPool2d) or super().is_leaf_module(m, module_qualified_name)


class _Reader:
    """Makes operations of the nodes of a graph."""

    def __init__(self, inside: nn.Module, rounded: bool) -> None:
        self._inside, self._rounded = inside, rounded
        self._operations: list[Operation] = []
        self._numbers: dict[fx.Node, int] = {}
        self._edited: list[tuple[int, int]] = []

    def read(self, graph: fx.Graph) -> Step:
        result = GIVEN
        for node in graph.nodes:
            if node.op == "placeholder":
                self._numbers[node] = GIVEN
            elif node.op == "output":
                (result,) = self._of(node.args)
            elif node.op == "call_module":
                self._read_module(node)
            else:
                self._read_call(node)
        for place, number in self._edited:  # whoever looks there afterwards sees the edit
            later = [source for operation in self._operations[place + 1 :] for source in operation.given]
            if number in (*later, result):
                raise _UnknownError
        return Step(tuple(self._operations), result)

    def _read_module(self, node: fx.Node) -> None:
        layer = self._inside.get_submodule(str(node.target))
        given = self._of(node.args)
        if node.kwargs or len(given) != 1:
            raise _UnknownError
        if isinstance(layer, NOTHING):
            self._numbers[node] = given[0]
        elif is_pointwise(layer):
            made = Rectifier(rounded=self._rounded) if type(layer) is nn.ReLU else Elementwise(harmless(layer))
            self._add(node, made, given, edits=edits(layer))
        elif type(layer) is nn.Conv2d and layer.padding_mode == "zeros" and not isinstance(layer.padding, str):
            self._add(node, Convolution(layer, rounded=self._rounded), given)
        elif isinstance(layer, nn.AvgPool2d | nn.MaxPool2d) and _gives_maps(layer):
            self._add(node, Pool(layer), given)
        else:
            raise _UnknownError

    def _read_call(self, node: fx.Node) -> None:
        if node.target in RELU:
            self._add(
                node, Rectifier(rounded=self._rounded), self._of(node.args), edits=bool(node.kwargs.get("inplace"))
            )
        elif node.target in ADDED and not node.kwargs:
            self._add(node, Sum(), self._of(node.args), edits=node.target is operator.iadd)
        elif node.target is torch.cat and (node.args[1:] == (1,) or node.kwargs == {"dim": 1}):
            self._add(node, Concatenation(), self._of(node.args[0]))
        else:
            raise _UnknownError

    def _add(self, node: fx.Node, layer: ChangeLayer, given: tuple[int, ...], *, edits: bool = False) -> None:
        if edits:
            self._edited.append((len(self._operations), given[0]))
        self._numbers[node] = len(self._operations)
        self._operations.append(Operation(layer, given))

    def _of(self, arguments: Any) -> tuple[int, ...]:
        """The numbers of arguments that are all maps."""
        if not isinstance(arguments, tuple | list) or not all(isinstance(node, fx.Node) for node in arguments):
            raise _UnknownError
        return tuple(self._numbers[node] for node in arguments)


def _gives_maps(layer: nn.AvgPool2d | nn.MaxPool2d) -> bool:
    """Whether a pool is of torch's kinds or ours, and makes nothing but maps."""
    return type(layer) is nn.AvgPool2d or (type(layer) in (nn.MaxPool2d, MaxPool2d) and not layer.return_indices)
