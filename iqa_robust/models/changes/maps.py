"""Maps on their way through a network, with what changed in them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property

import torch

from iqa_robust.models.changes.memory import Kept
from iqa_robust.models.changes.windows import Windows, all_of, cut, overlay

Function = Callable[[torch.Tensor], torch.Tensor]
"""A function that makes each position of a map from the one at its place, and leaves its input as it is."""


class Maps:
    """Remembered maps, seen through pointwise functions, which are computed where they are looked at and not kept."""

    def __init__(self, kept: Kept, through: tuple[Function, ...] = ()) -> None:
        self._kept, self._through = kept, through

    @property
    def windows(self) -> Windows | None:
        """Where they are others than those of the kept images; None: they are the kept ones."""
        return self._kept.windows

    @property
    def size(self) -> tuple[int, int]:
        """Height and width."""
        return self._kept.values.shape[-2], self._kept.values.shape[-1]

    def seen_through(self, function: Function) -> Maps:
        """What a pointwise function makes of them."""
        return Maps(self._kept, (*self._through, function))

    def whole(self) -> torch.Tensor:
        """All of them, (N, C, H, W); not to be edited."""
        return self.piece(all_of(self._kept.values))

    def piece(self, windows: Windows) -> torch.Tensor:
        """The contents of windows; not to be edited."""
        if windows == self.windows:
            return self.now
        values, own, now = self._kept.values, self._kept.windows, self._kept.now
        if own is None or now is None:
            return self._seen(cut(values, windows))
        if own.cover(values):
            return self._seen(cut(now, windows))
        base = values.clone() if windows.cover(values) else cut(values, windows)
        top, left = (
            [a - b for a, b in zip(*pair, strict=True)] for pair in ((own.top, windows.top), (own.left, windows.left))
        )
        return self._seen(overlay(base, top, left, now))

    @cached_property
    def before(self) -> torch.Tensor:
        """What the contents of the windows where they are others were; not to be edited."""
        assert self._kept.before is not None  # asked for where there are such windows
        return self._seen(self._kept.before)

    @cached_property
    def now(self) -> torch.Tensor:
        """What these are in this call; not to be edited."""
        assert self._kept.now is not None
        return self._seen(self._kept.now)

    @cached_property
    def difference(self) -> torch.Tensor:
        """By how much these differ."""
        return self.now - self.before

    def _seen(self, values: torch.Tensor) -> torch.Tensor:
        for function in self._through:
            values = function(values)
        return values
