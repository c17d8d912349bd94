"""What layers that pass changes on have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Hashable

import torch

from iqa_robust.models.changes.maps import Maps
from iqa_robust.models.changes.memory import Kept, Memory
from iqa_robust.models.changes.windows import Windows, cut


class ChangeLayer(ABC):
    """A layer that keeps what it needs of the kept images under a name in a memory."""

    @abstractmethod
    def __call__(self, memory: Memory, name: Hashable, *given: Maps) -> Maps:
        """Maps of maps. In the first call nothing changes."""


class Remembered(ChangeLayer):
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


def changes_of(maps: Maps) -> tuple[Windows, torch.Tensor]:
    """Where maps are others in this call, and by how much."""
    assert maps.windows is not None and maps.change is not None  # layers are asked for changes after the first call
    return maps.windows, maps.change


def pair(value: int | str | tuple[int, ...]) -> tuple[int, ...]:
    """What torch's layers say for both axes, or for each."""
    assert not isinstance(value, str)  # such convolutions are not taken
    return (value, value) if isinstance(value, int) else tuple(value)
