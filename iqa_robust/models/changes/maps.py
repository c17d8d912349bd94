"""Maps on their way through a network, with what changes in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from iqa_robust.models.changes.windows import Windows, covering, cut

Function = Callable[[torch.Tensor], torch.Tensor]
"""A function that makes each position of a map from the one at its place, and leaves its input as it is."""


@dataclass(frozen=True)
class Maps:
    """Maps (N, C, H, W) of the kept images, which are made where they are looked at, and how those of a call differ."""

    count: int
    size: tuple[int, int]
    """Height and width."""
    kept: Callable[[Windows, Sequence[int] | None], torch.Tensor]
    """What windows of them hold, of all or of some rows, in float32; not to be edited."""
    windows: Windows | None = None
    """Where those of this call are others; None: nowhere, in the first call."""
    change: torch.Tensor | None = None
    """By how much the contents of these windows differ; not to be edited."""

    @property
    def everywhere(self) -> Windows:
        """Windows that cover them."""
        return covering(self.count, *self.size)

    def before(self) -> torch.Tensor:
        """The contents of the windows in the maps of the kept images; not to be edited."""
        assert self.windows is not None  # asked for where there are changes
        return self.kept(self.windows, None)

    def now(self, windows: Windows | None = None) -> torch.Tensor:
        """The contents of windows, or of the whole, in this call; not to be edited."""
        windows = self.everywhere if windows is None else windows
        kept = self.kept(windows, None)
        if self.windows is None or self.change is None:
            return kept
        return kept + cut(self.change, windows.seen_from(self.windows))
