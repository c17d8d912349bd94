"""Maps that a search remembers, so that scores of images with small changes are computed from the changes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import nn

from iqa_robust.models.locality import Locality
from iqa_robust.models.windows import Windows, cut, paste


class Memory:
    """What a search tells a model of its images from call to call, and the maps the model keeps of them.

    Every image of a call equals a *kept* one outside a window. Before the call the search says which images come and
    where they differ (`propose`), after it which of them take the places of those they were made from (`settle`).
    A model that remembers nothing leaves it empty. The maps live as long as the search.
    """

    def __init__(self) -> None:
        self.windows: Windows | None = None
        """Where the images of this call, or the maps the call has come to, differ from kept ones; None: anywhere."""
        self.maps: dict[int, Kept] = {}
        """What layers made, by their numbers."""
        self._index: torch.Tensor | None = None

    def propose(self, index: torch.Tensor, windows: Windows | None) -> None:
        """Announce images by their numbers (n,), increasing, some or all of those of the last call."""
        if self._index is not None and len(index) < len(self._index):
            rows = torch.searchsorted(self._index, index)
            self.maps = {number: kept.select(rows) for number, kept in self.maps.items()}
        self._index, self.windows = index, windows

    def settle(self, lost: torch.Tensor) -> None:
        """Of the images of the last call that are marked (n,), bool, keep what they were made from; keep the others."""
        if not self.maps:  # a GPU would be waited for
            return
        rows = lost.nonzero().squeeze(1).tolist()
        for kept in self.maps.values():
            kept.restore(rows)

    def made(self, number: int, layer: nn.Module, where: Locality, given: torch.Tensor) -> torch.Tensor:
        """What `layer`, the one of that number, makes of maps (n, C, H, W), which it may edit in place.

        What is returned is not to be edited.
        """
        kept = self.maps.get(number)
        reach = None
        if kept is not None and self.windows is not None:
            reach = where.reach(self.windows, given.shape[-2:], kept.now.shape[-2:])
        if kept is None or reach is None:
            made = layer(given.clone() if where.needs_copy else given)
            self.maps[number] = Kept(made, None if kept is None else kept.now, None)
            self.windows = None
            return made
        piece = layer(cut(given, reach.read))
        before = cut(kept.now, reach.written)
        paste(kept.now, reach.written, cut(piece, reach.inside))
        self.maps[number] = Kept(kept.now, before, reach.written)
        self.windows = reach.written
        return kept.now


class Kept(NamedTuple):
    """Maps of the last call, and what they were before it."""

    now: torch.Tensor
    before: torch.Tensor | None
    """The whole, or the contents of the windows; None after the first call."""
    windows: Windows | None

    def select(self, rows: torch.Tensor) -> Kept:
        """Those of some images."""
        return Kept(self.now.index_select(0, rows), None, None)

    def restore(self, rows: Sequence[int]) -> None:
        """Give some rows back what they were."""
        if self.before is None:
            return
        if self.windows is None:
            for row in rows:
                self.now[row] = self.before[row]
        else:
            paste(self.now, self.windows, self.before, rows)
