"""Rectangles in images and maps, cut out and written back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

Starts = npt.NDArray[np.int64]
"""Where windows begin along an axis, (n,)."""


class Windows(NamedTuple):
    """Rectangles of one size in maps or images, one in each; what lies beyond the edges of a map is zero."""

    top: Starts
    left: Starts
    height: int
    width: int

    @classmethod
    def at(cls, top: Sequence[int], left: Sequence[int], height: int, width: int) -> Windows:
        """Windows that begin at these places."""
        return cls(np.array(top, np.int64), np.array(left, np.int64), height, width)

    def cover(self, maps: torch.Tensor) -> bool:
        """Whether they are the maps (N, C, H, W)."""
        same = (self.height, self.width) == tuple(maps.shape[-2:])
        return same and not self.top.any() and not self.left.any()

    def seen_from(self, other: Windows) -> Windows:
        """The same, in the contents of other windows."""
        return Windows(self.top - other.top, self.left - other.left, self.height, self.width)


def covering(count: int, height: int, width: int) -> Windows:
    """Windows that are the maps of a size."""
    return Windows(np.zeros(count, np.int64), np.zeros(count, np.int64), height, width)


def hull(parts: Sequence[Windows], height: int, width: int) -> Windows:
    """The smallest windows inside maps of a size that hold those of each part, map by map."""
    top, rows = _span([(part.top, part.height) for part in parts], height)
    left, columns = _span([(part.left, part.width) for part in parts], width)
    return Windows(top, left, rows, columns)


def _span(runs: Sequence[tuple[Starts, int]], size: int) -> tuple[Starts, int]:
    first = np.min([starts for starts, _ in runs], axis=0)
    end = np.max([starts + length for starts, length in runs], axis=0)
    length = int((end - first).max())
    return np.minimum(first, size - length), length


def cut(maps: torch.Tensor, windows: Windows, rows: Sequence[int] | None = None) -> torch.Tensor:
    """The contents (n, C, height, width) of windows of maps (N, C, H, W), channels last: of all or of some rows.

    Where windows are the maps, the maps themselves; not to be edited.
    """
    if windows.cover(maps):
        return maps if rows is None else maps[rows]
    count, channels, height, width = maps.shape
    top, left, chosen = windows.top, windows.left, np.arange(count)
    if rows is not None:
        chosen = np.array(rows, np.int64)
        top, left = top[chosen], left[chosen]
    y, x = top[:, None] + np.arange(windows.height), left[:, None] + np.arange(windows.width)
    # One position after the other lies in memory, so this gathers whole rows of it: several times as fast as slices.
    flat, nothing = maps.permute(0, 2, 3, 1).reshape(-1, channels), count * height * width
    lines = (y + chosen[:, None] * height) * width
    most_y, most_x = height - windows.height, width - windows.width
    if min(top) >= 0 and max(top) <= most_y and min(left) >= 0 and max(left) <= most_x:
        index = lines[:, :, None] + x[:, None]
    else:
        lines[(y < 0) | (y >= height)] = nothing
        x[(x < 0) | (x >= width)] = nothing
        flat = torch.cat([flat, flat.new_zeros(1, channels)])
        index = np.minimum(lines[:, :, None] + x[:, None], nothing)
    found = flat.index_select(0, torch.from_numpy(index.reshape(-1)))
    return found.view(len(chosen), windows.height, windows.width, channels).permute(0, 3, 1, 2)


def paste(maps: torch.Tensor, windows: Windows, pieces: torch.Tensor, rows: Sequence[int] | None = None) -> None:
    """Write pieces (n, C, height, width) into the windows of maps (N, C, H, W), in place: of all or of some rows."""
    for place, row in enumerate(range(len(maps)) if rows is None else rows):
        part_of(maps, windows, row).copy_(pieces[place])


def part_of(maps: torch.Tensor, windows: Windows, row: int) -> torch.Tensor:
    """The contents (C, height, width) of one window, as a view; one call instead of four, which would cost as much."""
    of_map, *strides = maps.stride()
    start = row * of_map + int(windows.top[row]) * strides[1] + int(windows.left[row]) * strides[2]
    return maps.as_strided((maps.shape[1], windows.height, windows.width), strides, maps.storage_offset() + start)
