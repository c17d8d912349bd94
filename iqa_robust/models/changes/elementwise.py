"""Pointwise functions of maps with changes in them."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from iqa_robust.models.changes.layers import ChangeLayer, changes_of
from iqa_robust.models.changes.maps import Function, Maps
from iqa_robust.models.changes.memory import Kept, Memory
from iqa_robust.models.changes.windows import Windows, cut, paste


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
        windows, change = changes_of(maps)
        before = maps.kept(windows, None)
        return self.function(before + change) - self.function(before)


class Rectifier(Elementwise):
    """A ReLU: max(b + d, 0) - max(b, 0) = max(d + min(b, 0), -max(b, 0)).

    On the right, where the sum counts it is no larger than the change, and nothing large is subtracted. So it can be
    taken in bfloat16, and both halves of b are remembered in it, one behind the other.
    """

    def __init__(self, *, rounded: bool) -> None:
        super().__init__(torch.relu)
        self.kind = torch.bfloat16 if rounded else torch.float32

    def _change(self, memory: Memory, name: Hashable, maps: Maps) -> torch.Tensor:
        windows, change = changes_of(maps)
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
