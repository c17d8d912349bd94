"""How far a change of a layer's input reaches in its output, along one axis."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

PAYS = 0.6
"""The largest share of a map that is cut out; beyond it, the whole takes no longer."""


class Reach(NamedTuple):
    """Output j of a layer depends on the inputs from j * stride - before to j * stride + after."""

    stride: int
    before: int
    after: int

    @classmethod
    def of(cls, size: int, stride: int, padding: int, dilation: int) -> Reach:
        """That of a kernel."""
        return cls(stride, padding, dilation * (size - 1) - padding)

    def input_of(self, output: int) -> int:
        """The first input that an output depends on; negative where that lies beyond the edge."""
        return output * self.stride - self.before

    def changed(self, starts: Sequence[int], length: int, made: int) -> Changed:
        """Which of `made` outputs change with inputs of a length from each of `starts` on."""
        first = [-(-(start - self.after) // self.stride) for start in starts]
        last = [(start + length - 1 + self.before) // self.stride for start in starts]
        reached = max(max(end - start + 1 for start, end in zip(first, last, strict=True)), 1)
        inside = [min(end, made - 1) - max(start, 0) + 1 for start, end in zip(first, last, strict=True)]
        count = min(max(*inside, 1), made)
        return Changed(first, reached, [min(max(start, 0), made - count) for start in first], count)

    def needed(self, starts: Sequence[int], count: int, given: int) -> Needed:
        """Which of `given` inputs a layer must read to make `count` outputs from each of `starts` on.

        They begin at a multiple of the stride, so that the layer meets them in the same phase.
        """
        read = [max(start * self.stride - self.before, 0) // self.stride * self.stride for start in starts]
        ends = [min((start + count - 1) * self.stride + self.after + 1, given) for start in starts]
        length = max(end - start for start, end in zip(read, ends, strict=True))
        length += (given - length) % self.stride
        read = [min(start, given - length) for start in read]
        return Needed(read, length, [start - first // self.stride for start, first in zip(starts, read, strict=True)])


class Changed(NamedTuple):
    """Outputs that change."""

    first: list[int]
    """The first ones reached; negative where a change reaches beyond the edge."""
    reached: int
    """How many from there on, at most."""
    starts: list[int]
    """The first ones of runs of one length, inside the map, that hold all of them."""
    length: int
    """That length."""


class Needed(NamedTuple):
    """Inputs that are read."""

    starts: list[int]
    length: int
    inside: list[int]
    """Where in what a layer makes of them the wanted outputs begin."""
