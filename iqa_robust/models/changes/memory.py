"""Maps that a search remembers, so that scores of images with small changes are computed from the changes."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch

from iqa_robust.models.changes.windows import Windows, part_of


class Memory:
    """What a search tells a model of its images from call to call, and the maps the model keeps of them.

    Every image of a call equals a *kept* one outside a window. Before the call the search says which images come and
    where they differ (`propose`), after it which of them are kept in place of those they were made from (`settle`);
    of the first call, all are. A model that remembers nothing leaves it empty. The maps live as long as the search.
    """

    def __init__(self) -> None:
        self.windows: Windows | None = None
        """Where the images of this call differ from kept ones; None: anywhere."""
        self.kept: Callable[[], torch.Tensor] | None = None
        """Makes the kept images, so that a model may begin to remember in a later call than the first."""
        self.maps: dict[Hashable, Kept] = {}
        """What is remembered, by names that the model gives."""
        self._index: torch.Tensor | None = None

    def propose(
        self, index: torch.Tensor, windows: Windows | None, kept: Callable[[], torch.Tensor] | None = None
    ) -> None:
        """Announce images by their numbers (n,), increasing, some or all of those of the last call.

        `kept` makes the images (n, 3, H, W) from which they differ in the windows.
        """
        if self._index is not None and len(index) < len(self._index):
            rows = torch.searchsorted(self._index, index)
            self.maps = {name: values.select(rows) for name, values in self.maps.items()}
        self._index, self.windows, self.kept = index, windows, kept

    def settle(self, won: torch.Tensor) -> None:
        """Keep those images of the last call that are marked (n,), bool; at most once per call."""
        if not self.maps:  # a GPU would be waited for
            return
        rows = won.nonzero().squeeze(1).tolist()
        for kept in self.maps.values() if rows else ():  # in the order in which they were made
            kept.settle(rows)

    def remember(self, name: Hashable, kept: Kept) -> None:
        """Keep values, and by how much they differ in this call."""
        self.maps[name] = kept


class Kept:
    """Values of the kept images, and by how much they differ in the images of this call."""

    def __init__(
        self, values: torch.Tensor, change: torch.Tensor | None = None, windows: Windows | None = None
    ) -> None:
        """`values` (n, ...), edited when images are kept; `change` of all of them, or of maps in windows."""
        self.values, self.change, self.windows = values, change, windows

    def select(self, rows: torch.Tensor) -> Kept:
        """The values of some images."""
        return type(self)(self.values[rows])  # which keeps the order of memory

    def settle(self, rows: Sequence[int]) -> None:
        """Keep the values that some images have in this call."""
        if self.change is None:
            return
        for row in rows:
            values = self.values[row] if self.windows is None else part_of(self.values, self.windows, row)
            values.add_(self.change[row])
