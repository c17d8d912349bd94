"""How far a change of a layer's input reaches in its output, along one axis."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from iqa_robust.models.changes.windows import Starts

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

    def input_of(self, outputs: Starts) -> Starts:
        """The first inputs that outputs depend on; negative where they lie beyond the edge."""
        return outputs * self.stride - self.before

    def changed(self, starts: Starts, length: int, made: int) -> Changed:
        """Which of `made` outputs change with inputs of a length from each of `starts` on."""
        first = -((self.after - starts) // self.stride)
        last = (starts + (length - 1 + self.before)) // self.stride
        reached = max(int((last - first).max()) + 1, 1)
        inside = int((np.minimum(last, made - 1) - np.maximum(first, 0)).max()) + 1
        count = min(max(inside, 1), made)
        return Changed(first, reached, np.minimum(np.maximum(first, 0), made - count), count)

    def needed(self, starts: Starts, count: int, given: int) -> Needed:
        """Which of `given` inputs a layer must read to make `count` outputs from each of `starts` on.

        They begin at a multiple of the stride, so that the layer meets them in the same phase.
        """
        read = np.maximum(starts * self.stride - self.before, 0) // self.stride * self.stride
        ends = np.minimum((starts + (count - 1)) * self.stride + (self.after + 1), given)
        length = int((ends - read).max())
        length += (given - length) % self.stride
        read = np.minimum(read, given - length)
        return Needed(read, length, starts - read // self.stride)


class Changed(NamedTuple):
    """Outputs that change."""

    first: Starts
    """The first ones reached; negative where a change reaches beyond the edge."""
    reached: int
    """How many from there on, at most."""
    starts: Starts
    """The first ones of runs of one length, inside the map, that hold all of them."""
    length: int
    """That length."""


class Needed(NamedTuple):
    """Inputs that are read."""

    starts: Starts
    length: int
    inside: Starts
    """Where in what a layer makes of them the wanted outputs begin."""
