"""Layers that join maps: sums and concatenations of their changes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch

from iqa_robust.models.changes.layers import ChangeLayer, Remembered, changes_of
from iqa_robust.models.changes.maps import Maps
from iqa_robust.models.changes.memory import Memory
from iqa_robust.models.changes.windows import Windows, covering, cut, hull


class Sum(Remembered):
    """Two maps added."""

    def whole(self, *given: torch.Tensor) -> torch.Tensor:
        """As torch makes it."""
        return given[0] + given[1]

    def change(self, made: torch.Tensor, *given: Maps) -> tuple[torch.Tensor, Windows]:
        """In windows that hold those of both; everywhere, where a map of one position is spread over the other."""
        if given[0].size != given[1].size:
            return given[0].now() + given[1].now() - made, covering(*made[:, 0].shape)
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


def _together(given: Sequence[Maps]) -> tuple[Windows, list[torch.Tensor]]:
    """Windows that hold the changes of all, and these laid out in them."""
    pairs = [changes_of(maps) for maps in given]
    windows = hull([own for own, _ in pairs], *given[0].size)
    return windows, [cut(change, windows.seen_from(own)) for own, change in pairs]
