"""Maps that a search remembers, so that scores of images with small changes are computed from the changes."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import NamedTuple

import torch

from iqa_robust.models.changes.windows import Windows, paste


class Memory:
    """What a search tells a model of its images from call to call, and the maps the model keeps of them.

    Every image of a call equals a *kept* one outside a window. Before the call the search says which images come and
    where they differ (`propose`), after it which of them are kept in place of those they were made from (`settle`);
    of the first call, all are. A model that remembers nothing leaves it empty. The maps live as long as the search.
    """

    def __init__(self) -> None:
        self.windows: Windows | None = None
        """Where the images of this call differ from kept ones; None: anywhere."""
        self.maps: dict[Hashable, Kept] = {}
        """What is remembered, by names that the model gives."""
        self._index: torch.Tensor | None = None

    def propose(self, index: torch.Tensor, windows: Windows | None) -> None:
        """Announce images by their numbers (n,), increasing, some or all of those of the last call."""
        if self._index is not None and len(index) < len(self._index):
            rows = torch.searchsorted(self._index, index)
            self.maps = {name: Kept(kept.values.index_select(0, rows)) for name, kept in self.maps.items()}
        self._index, self.windows = index, windows

    def settle(self, won: torch.Tensor) -> None:
        """Keep those images of the last call that are marked (n,), bool."""
        if not self.maps:  # a GPU would be waited for
            return
        rows = won.nonzero().squeeze(1).tolist()
        for name, kept in self.maps.items() if rows else ():
            self.maps[name] = kept.settled(rows)

    def remember(self, name: Hashable, kept: Kept) -> Kept:
        """Keep values, or what they are in this call."""
        self.maps[name] = kept
        return kept


class Kept(NamedTuple):
    """Values of the kept images, and what they are of the images of this call."""

    values: torch.Tensor
    """(n, ...) of the kept images; of maps, in channels-last order."""
    windows: Windows | None = None
    """Of maps: where they are others in this call."""
    before: torch.Tensor | None = None
    """Of maps: the contents of these windows."""
    now: torch.Tensor | None = None
    """In this call: the contents of the windows, or without windows all values. None: as kept."""

    def settled(self, rows: Sequence[int]) -> Kept:
        """What is kept when some rows of this call are."""
        if self.now is None:
            return self
        if self.now.shape != self.values.shape:
            assert self.windows is not None  # only then the contents are fewer
            paste(self.values, self.windows, self.now, rows)
            return Kept(self.values)
        if len(rows) == len(self.now):
            return Kept(self.now)
        for row in rows:
            self.values[row] = self.now[row]
        return Kept(self.values)
