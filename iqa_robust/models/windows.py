"""Rectangles in images and maps, cut out and written back."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch


class Windows(NamedTuple):
    """Rectangles of one size in maps or images, one in each."""

    top: Sequence[int]
    left: Sequence[int]
    height: int
    width: int


def cut(maps: torch.Tensor, windows: Windows) -> torch.Tensor:
    """The contents (N, C, height, width) of the windows of maps (N, C, H, W), channels last.

    Slice by slice: on a CPU that takes a fraction of gathering by indices.
    """
    height, width = windows.height, windows.width
    shape, order = (*maps.shape[:2], height, width), torch.channels_last
    pieces = torch.empty(shape, dtype=maps.dtype, device=maps.device, memory_format=order)
    for row, (top, left) in enumerate(zip(windows.top, windows.left, strict=True)):
        pieces[row] = maps[row, :, top : top + height, left : left + width]
    return pieces


def paste(maps: torch.Tensor, windows: Windows, pieces: torch.Tensor, rows: Sequence[int] | None = None) -> None:
    """Write pieces (N, C, height, width) into the windows of maps (N, C, H, W), in place: all or those of some rows."""
    height, width = windows.height, windows.width
    for row in range(len(maps)) if rows is None else rows:
        top, left = windows.top[row], windows.left[row]
        maps[row, :, top : top + height, left : left + width] = pieces[row]
